"""Every reader, on small sound files that were damaged in every way a file can be, and on files made from nothing.

It gives data or one sentence, and takes no more memory than it is allowed.
"""

import gzip
import io
import json
import random
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from signstep.auditing.matrix import Cell, TransferMatrix
from signstep.auditing.result import Result
from signstep.cli import app
from signstep.cli.config import read_config
from signstep.data import open_data
from signstep.domains.atoms import schema as atoms
from signstep.domains.control import schema as control
from signstep.domains.control.series import read_ts
from signstep.domains.multimodal import schema as multimodal
from signstep.domains.tabular import schema_file as tabular
from signstep.errors import SignstepError
from signstep.io.documents import json_value, toml_table
from signstep.model.opening.weights import load_weights
from signstep.physical.universal import Universal

MOST = 512 * 2**20
RNG = np.random.default_rng(0)
X = RNG.random((6, 3, 4), np.float32)
Y = np.arange(6) % 3
PIXELS = RNG.integers(0, 256, (6, 5, 3), np.uint8)


@dataclass(frozen=True)
class Reader:
    """What makes a sound file, by which name it lies, and what reads it."""

    make: Callable[[], bytes]
    name: str
    read: Callable[[Path], Any]
    beside: Callable[[Path], object] = lambda _: None
    rounds: int = 40


def _all(path: Path) -> Any:
    source = open_data(path, batch_size=4)
    for x, y in source:
        assert isinstance(x, Tensor)
        assert x.shape[1:] == source.shape
        assert bool(torch.isfinite(x).all())
        assert len(x) == len(y)
    source.fingerprint()
    return source.description, source.notes


def _table(path: Path) -> Any:
    source = open_data(path, batch_size=4, label_column="y")
    return [(x.shape, y.shape) for x, y in source]


def _npz(write: Callable[..., object], x: Any = X) -> Callable[[], bytes]:
    def make() -> bytes:
        kept = io.BytesIO()
        write(kept, x=x, y=Y)
        return kept.getvalue()

    return make


def _idx() -> bytes:
    return bytes([0, 0, 8, 3]) + struct.pack(">3I", 6, 5, 3) + PIXELS.tobytes()


def _idx_labels(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", 6) + bytes(Y.tolist()))


def _image(kind: str, mode: str = "RGB", **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
        kept = io.BytesIO()
        image.fromarray(RNG.integers(0, 256, (12, 12, 3), np.uint8)).convert(mode).save(kept, kind, **options)
        return kept.getvalue()

    return make


def _exif() -> bytes:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
    kept, exif = io.BytesIO(), image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    image.fromarray(RNG.integers(0, 256, (12, 12, 3), np.uint8)).save(kept, "jpeg", exif=exif)
    return kept.getvalue()


def _class_folder(path: Path) -> Any:
    return _all(path.parents[1])


def _parquet() -> bytes:
    pytest.importorskip("pyarrow", reason="needs pyarrow (signstep[tables])")
    import pyarrow
    from pyarrow import parquet

    kept = pyarrow.BufferOutputStream()
    columns = {"a": X[:, 0, 0].tolist(), "b": list(range(6)), "y": ["p", "q", "r"] * 2}
    parquet.write_table(pyarrow.table(columns), kept)
    return bytes(kept.getvalue())


TABLE = b'a,b,"c d",y\n' + b'1,2.5,-3e2,cat\n0.5,7,1,"dog, big"\n' * 3


def _record() -> bytes:
    import signstep as ss

    found = ss.audit(_net().eval(), (torch.rand(6, 4), torch.arange(6) % 3), threat=ss.linf(0.1), attacks=("fgsm",))
    return found.to_json().encode()


def _record_shown(path: Path) -> Any:
    return Result.load(path)


def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def _weights(path: Path) -> Any:
    model = _net()
    load_weights(model, path)
    assert all(bool(torch.isfinite(part.float()).all()) for part in model.state_dict().values())


def _saved(**options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        kept = io.BytesIO()
        torch.save({"state_dict": _net().state_dict(), "epoch": 3}, kept, **options)
        return kept.getvalue()

    return make


def _safetensors() -> bytes:
    from safetensors.torch import save

    return save(dict(_net().state_dict()))


def _universal() -> bytes:
    import signstep as ss

    model = nn.Linear(4, 3).eval()
    found = ss.universal(model, (torch.rand(8, 4), torch.arange(8) % 3), threat=ss.linf(0.1), epochs=1)
    path = Path("kept.safetensors")
    found.save(path)
    return path.read_bytes()


CONFIG = b"""# options
[audit]
threat = "linf:8/255"
attack = ["fgsm", "pgd:steps=5"]
limit = 10
resize = "8x8"
skip-bad = true
[audit.ignore]
SS301 = 'few \\u00e9'
[merge]
out = \"\"\"a
b\"\"\"
"""


COMMAND = typer.main.get_command(app)


def _config(path: Path) -> Any:
    return read_config(path, COMMAND)


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCHEMAS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "credit/german.toml": ("tabular", tabular.read_schema),
    "control/cart_pole.toml": ("control", control.read_schema),
    "multimodal/nlvr.toml": ("multimodal", multimodal.read_schema),
}
ATOMS = atoms.TEMPLATE.encode()


def _matrix() -> bytes:
    cells = (Cell("a", "b", 1, 2), Cell("random-sign", "b", 0, 2))
    return (
        TransferMatrix(("a", "random-sign"), ("b",), cells, {"b": 2}, 3, {"k": 1.5}, ("n",), {"v": "1"})
        .to_json()
        .encode()
    )


def _matrix_shown(path: Path) -> Any:
    return str(TransferMatrix.load(path))


def _classes(path: Path) -> Any:
    np.savez(path.with_name("x.npz"), x=X, y=Y)
    from signstep.data.targets import read_classes

    return read_classes(path)


def _record_of_series() -> bytes:
    return b"@problemName p\n@univariate true\n@classLabel true a b\n@data\n" + b"1.0,2.0,3.0:a\n2.0,1.5,0.5:b\n" * 3


def _records(path: Path) -> Any:
    from signstep.domains.multimodal.records import _table as rows

    return list(rows(path))


READERS: dict[str, Reader] = {
    "npz": Reader(_npz(np.savez), "data.npz", _all),
    "npz, packed": Reader(_npz(np.savez_compressed), "data.npz", _all),
    "npz, column by column": Reader(_npz(np.savez, np.asfortranarray(X)), "data.npz", _all),
    "npz, bytes": Reader(_npz(np.savez, PIXELS), "data.npz", _all),
    "idx": Reader(_idx, "t10k-images-idx3-ubyte", _all, _idx_labels),
    "idx, packed": Reader(lambda: gzip.compress(_idx(), mtime=0), "t10k-images-idx3-ubyte.gz", _all, _idx_labels),
    "parquet": Reader(_parquet, "data.parquet", _table, rounds=100),
    "csv": Reader(lambda: TABLE, "data.csv", _table, rounds=100),
    "csv, packed": Reader(lambda: gzip.compress(TABLE, mtime=0), "data.csv.gz", _table),
    "series": Reader(_record_of_series, "data.ts", read_ts, rounds=100),
    "record": Reader(_record, "result.json", _record_shown, rounds=200),
    **{
        f"image, {kind} {mode}": Reader(_image(kind, mode), f"c/1.{kind}", _class_folder)
        for kind, mode in (
            *(("png", "RGB"), ("png", "P"), ("png", "LA"), ("png", "I;16"), ("bmp", "RGB"), ("gif", "P")),
            *(("jpeg", "CMYK"), ("tiff", "RGB"), ("ppm", "RGB"), ("webp", "RGB")),
        )
    },
    "image, packed tiff": Reader(_image("tiff", compression="tiff_deflate"), "c/1.tif", _class_folder),
    "image, turned jpeg": Reader(_exif, "c/1.jpg", _class_folder),
    "pt": Reader(_saved(), "net.pt", _weights),
    "pt before 1.6": Reader(_saved(_use_new_zipfile_serialization=False), "net.pt", _weights),
    "safetensors": Reader(_safetensors, "net.safetensors", _weights, rounds=80),
    "a universal change": Reader(_universal, "u.safetensors", Universal.load, rounds=80),
    "toml, options": Reader(lambda: CONFIG, "signstep.toml", _config, rounds=100),
    **{
        f"toml, {domain}": Reader((EXAMPLES / name).read_bytes, "schema.toml", read, rounds=100)
        for name, (domain, read) in SCHEMAS.items()
    },
    "toml, atoms": Reader(lambda: ATOMS, "schema.toml", atoms.read_schema, rounds=100),
    "json, transfer": Reader(_matrix, "transfer.json", _matrix_shown, rounds=100),
    "jsonl": Reader(lambda: b'{"a": [1, 2.5], "b": "x"}\n{"a": null}\n', "rows.jsonl", _records, rounds=100),
    "classes": Reader("cat\ndog\nnaïve\n".encode, "names.txt", _classes),
}

_EXTREME = (0, 1, 2**7 - 1, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def mutated(sound: bytes, seed: int) -> bytes:
    """One damage or several, drawn from all kinds."""
    draw = random.Random(seed)
    content = bytearray(sound)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at = draw.randrange(len(content) + 1)
        match draw.choice(("flip", "flip", "set", "cut", "splice", "drop", "length", "length", "digits", "begin")):
            case "flip" if at < len(content):
                content[at] ^= 1 << draw.randrange(8)
            case "set" if at < len(content):
                content[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x5B))
            case "cut":
                del content[at:]
            case "splice":
                start = draw.randrange(len(content) + 1)
                content[at:at] = content[start : start + draw.randrange(1, 64)]
            case "drop":
                del content[at : at + draw.randrange(1, 16)]
            case "length":
                size = draw.choice((1, 2, 4, 8))
                value = draw.choice(_EXTREME) % 2 ** (8 * size)
                content[at : at + size] = value.to_bytes(size, draw.choice(("little", "big")))
            case "digits":  # a number in a text header
                places = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
                if places:
                    place = draw.choice(places)
                    content[place : place + 1] = str(draw.choice(_EXTREME)).encode()
            case "begin":
                content[: draw.randrange(1, 12)] = b""
        if not content:
            break
    return bytes(content)


def _peak() -> int:
    """Bytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _or_one_sentence(read: Callable[[], Any]) -> bool:
    """Whether it could be read."""
    try:
        read()
    except SignstepError as error:
        said = str(error)
        assert said
        assert "\n" not in said
        return False
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_data_or_one_sentence(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader = READERS[kind]
    path = tmp_path / "data" / reader.name
    path.parent.mkdir(parents=True)
    reader.beside(path.parent)
    sound = reader.make()
    path.write_bytes(sound)
    reader.read(path)
    before, refused = _peak(), 0
    for seed in range(reader.rounds):
        path.write_bytes(mutated(sound, seed))
        refused += not _or_one_sentence(lambda: reader.read(path))
    assert refused  # the damage is real
    assert _peak() - before < MOST


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", READERS)
def test_files_cut_short_anywhere(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader = READERS[kind]
    path = tmp_path / "data" / reader.name
    path.parent.mkdir(parents=True)
    reader.beside(path.parent)
    sound = reader.make()
    for length in sorted({0, 1, 2, 3, 4, 7, 8, 9, 16, *range(0, len(sound), max(1, len(sound) // 10)), len(sound) - 1}):
        path.write_bytes(sound[:length])
        _or_one_sentence(lambda: reader.read(path))


QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@QUICK
@given(VALUES)
def test_json_that_is_sound_is_read_as_it_is(value: Any) -> None:
    assert json_value(json.dumps(value), "it") == value


@QUICK
@given(st.binary(max_size=80) | st.text(alphabet='{}[]":,.0-9eE+trufalsn\\ \n', max_size=60).map(str.encode))
def test_json_from_nothing(content: bytes) -> None:
    _or_one_sentence(lambda: json_value(content, "it"))


@QUICK
@given(st.binary(max_size=80) | st.text(alphabet="[]{}=.\"',a1-:#T\n\\ ", max_size=60).map(str.encode))
def test_toml_from_nothing(content: bytes) -> None:
    _or_one_sentence(lambda: toml_table(content, "it"))


@QUICK
@given(
    shape=st.lists(st.integers(-1, 2**40), max_size=4).map(tuple),
    kind=st.sampled_from(["<f4", "<f8", "|u1", "<i8", "|b1", "<U4", "|O", "<M8[s]", "<c8", "|V8", ">f2"]),
    fortran=st.booleans(),
    body=st.binary(max_size=64),
)
@pytest.mark.filterwarnings("ignore")
def test_headers_of_arrays_from_nothing(
    tmp_path: Path, shape: tuple[int, ...], kind: str, *, fortran: bool, body: bytes
) -> None:
    import zipfile

    text = f"{{'descr': {kind!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body
    for x, y in ((array, None), (None, array)):
        with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
            for name, content, usual in (("x", x, X), ("y", y, Y)):
                kept = io.BytesIO()
                np.save(kept, usual)
                archive.writestr(f"{name}.npy", kept.getvalue() if content is None else content)
        _or_one_sentence(lambda: _all(tmp_path / "data.npz"))


@QUICK
@given(
    entries=st.dictionaries(
        st.sampled_from(["0.weight", "0.bias", "1.weight", "x", ""]),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F64", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "Q4", 7]),
                "shape": st.lists(st.integers(-1, 2**62), max_size=3) | st.just("3"),
                "data_offsets": st.lists(st.integers(-1, 2**62), min_size=1, max_size=3),
            }
        )
        | VALUES,
        max_size=3,
    ),
    body=st.binary(max_size=32),
)
def test_headers_of_safetensors_from_nothing(tmp_path: Path, entries: dict[str, Any], body: bytes) -> None:
    head = json.dumps(entries).encode()
    (tmp_path / "n.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)
    _or_one_sentence(lambda: _weights(tmp_path / "n.safetensors"))
    _or_one_sentence(lambda: Universal.load(tmp_path / "n.safetensors"))


@QUICK
@given(
    sizes=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3), body=st.binary(max_size=64), packed=st.booleans()
)
def test_headers_of_idx_from_nothing(tmp_path: Path, sizes: list[int], body: bytes, *, packed: bool) -> None:
    _idx_labels(tmp_path)
    content = bytes([0, 0, 8, 3]) + struct.pack(">3I", *sizes) + body
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(gzip.compress(content) if packed else content)
    _or_one_sentence(lambda: _all(path))


def _hugging_face(folder: Path) -> Iterator[Path]:
    datasets = pytest.importorskip("datasets", reason="needs datasets (signstep[datasets])")
    features = datasets.Features({"a": datasets.Value("float32"), "y": datasets.ClassLabel(names=["p", "q"])})
    rows = {"a": [0.5, 1.5, 2.5, 3.5], "y": [0, 1, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder))
    yield from sorted(path for path in folder.iterdir() if path.is_file())


@pytest.mark.filterwarnings("ignore")
def test_damaged_folders_of_hugging_face(tmp_path: Path) -> None:
    for path in list(_hugging_face(tmp_path / "set")):
        sound = path.read_bytes()
        for seed in range(25):
            path.write_bytes(mutated(sound, seed))
            _or_one_sentence(lambda: _all(tmp_path / "set"))
        path.write_bytes(sound)
    _all(tmp_path / "set")
