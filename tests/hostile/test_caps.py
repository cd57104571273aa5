"""Files that ask for too much are refused before it is given to them; whoever trusts a file raises the cap."""

import gzip
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import signstep as ss
from signstep.auditing.matrix import TransferMatrix
from signstep.cli import main
from signstep.cli.config import before_command, find_caps, find_config
from signstep.data import open_data
from signstep.data.huggingface import files_of
from signstep.errors import InputError, LoadError
from signstep.io.caps import NAMES, Caps, current
from signstep.io.documents import json_value, read_json, read_text, read_toml, toml_table
from signstep.model.opening.weights import load_weights

X = np.zeros((4, 3), np.float32)
Y = np.zeros(4, np.int64)


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def _packed_npz(path: Path) -> None:
    np.savez_compressed(path, x=np.zeros((4, 200_000), np.float32), y=Y)


def _held(path: Path) -> None:
    np.savez(path, x=X, y=Y)


def _by_columns(path: Path) -> None:
    np.savez(path, x=np.asfortranarray(np.ones((4, 3), np.float32)), y=Y[:, None][:, 0])


def _many(path: Path) -> None:
    np.savez(path, x=X, y=Y, a=Y, b=Y, c=Y, d=Y)


def _idx(path: Path) -> None:
    images = bytes([0, 0, 8, 3]) + struct.pack(">3I", 4, 200, 200) + bytes(160_000)
    path.write_bytes(gzip.compress(images))
    path.with_name("t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + bytes(4))


def _picture(path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
    path.parent.mkdir(parents=True)
    image.new("L", (30, 30)).save(path)


def _weights(path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), path)


def _repacked(path: Path) -> None:
    torch.save(nn.Linear(400, 400).state_dict() | {"weight": torch.zeros(400, 400)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _load(path: Path) -> Any:
    load_weights(nn.Linear(2, 2), path)
    return True


def _load_large(path: Path) -> Any:
    load_weights(nn.Linear(400, 400), path)
    return True


def _tensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(nn.Linear(2, 2).state_dict()), path)


def _rows(path: Path) -> Any:
    return list(open_data(path))


def _text(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(content)

    return write


CASES: dict[str, tuple[str, str, Callable[[Path], None], Callable[[Path], Any], dict[str, int]]] = {
    # the cap, the file's name, what writes it, what reads it, caps that it is over
    "pixels of IDX": ("pixels", "t10k-images-idx3-ubyte", _idx, _rows, {"pixels": 39_999, "ratio": 10_000}),
    "pixels of a picture": ("pixels", "c/1.png", _picture, lambda path: _rows(path.parents[1]), {"pixels": 899}),
    "a packed array": ("inflated", "d.npz", _packed_npz, _rows, {"inflated": 100_000, "ratio": 2}),
    "its ratio": ("ratio", "d.npz", _packed_npz, _rows, {"inflated": 1, "ratio": 2}),
    "packed IDX": ("inflated", "t10k-images-idx3-ubyte", _idx, _rows, {"inflated": 100_000, "ratio": 2}),
    "packed weights": ("inflated", "w.pt", _repacked, _load_large, {"inflated": 1_000_000, "ratio": 2}),
    "labels": ("array", "d.npz", _held, _rows, {"array": 31}),
    "an array by columns": ("array", "d.npz", _by_columns, _rows, {"array": 95}),
    "a tensor": ("array", "w.pt", _weights, _load, {"array": 15}),
    "arrays": ("names", "d.npz", _many, _rows, {"names": 5}),
    "entries of weights": ("names", "w.pt", _weights, _load, {"names": 3}),
    "tensors": ("names", "w.safetensors", _tensors, _load, {"names": 1}),
    "nested JSON": ("depth", "a.json", _text(_nested(20)), lambda path: read_json(path, "it"), {"depth": 19}),
    "nested TOML": ("depth", "a.toml", _text(f"a = {_nested(20)}"), lambda path: read_toml(path, "it"), {"depth": 20}),
    "a dotted key": ("depth", "a.toml", _text("a." * 20 + "b = 1"), lambda path: read_toml(path, "it"), {"depth": 20}),
    "long JSON": ("text", "a.json", _text("[" + "1," * 50 + "1]"), lambda path: read_json(path, "it"), {"text": 102}),
    "long TOML": ("text", "a.toml", _text("a = 1\n# " + "x" * 50), lambda path: read_toml(path, "it"), {"text": 231}),
    "a long text": ("text", "a.txt", _text("x" * 50), lambda path: read_text(path, "it"), {"text": 49}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_cap_refuses_and_is_raised_by_its_name(case: str, tmp_path: Path) -> None:
    cap, name, write, read, low = CASES[case]
    path = tmp_path / name
    write(path)
    assert read(path) is not None  # within the usual caps
    with ss.caps(**low), pytest.raises(LoadError, match=rf"{cap}=N|max_pixels"):
        read(path)
    with ss.caps(**low), ss.caps(**{cap: 10**9}):
        assert read(path) is not None


def test_every_cap_has_a_case() -> None:
    assert {cap for cap, *_ in CASES.values()} == set(NAMES)


def test_caps_end_with_their_block_and_stay_with_a_source(tmp_path: Path) -> None:
    with ss.caps(depth=3), pytest.raises(InputError), ss.caps(names=0):
        pass
    assert current() == Caps()
    _picture(tmp_path / "c" / "1.png")
    with ss.caps(pixels=900):
        source = open_data(tmp_path)
    assert len(list(source)) == 1


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "9", None])
def test_a_cap_is_a_whole_number(value: Any) -> None:
    with pytest.raises(InputError, match="pass a whole number"), ss.caps(depth=value):
        pass


def test_a_cap_that_there_is_not() -> None:
    with pytest.raises(InputError, match=r"no cap 'size'; pass one of pixels"), ss.caps(size=3):
        pass


def test_the_option_raises_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep.toml").write_text(f"[explain]\nname = {_nested(70)}")
    assert main(["--config", "deep.toml", "explain", "pgd"]) == 2
    assert "--cap depth=N" in capsys.readouterr().err
    Path("deep.toml").write_text(f"[explain]\n# {_nested(70)}\n")
    assert main(["--cap", "depth=100", "--config", "deep.toml", "explain", "pgd"]) == 0
    assert main(["--cap=text=80", "--config=deep.toml", "explain", "pgd"]) == 2
    assert "over 20" in capsys.readouterr().err
    for wrong in ("depth", "depth=", "depth=-1", "depth=1e3", "size=3", "depth=" + "9" * 30, "depth=0"):
        assert main(["--cap", wrong, "explain", "pgd"]) == 2
        assert "cap" in capsys.readouterr().err
    assert current() == Caps()


def test_options_of_the_program_itself() -> None:
    words = ["--cap", "names=5", "--debug", "--config", "a.toml", "--cap=depth=3", "audit", "--cap", "text=1"]
    assert before_command(words, "--cap") == ["names=5", "depth=3"]
    assert find_caps(words) == {"names": 5, "depth": 3}
    assert find_config(words) == Path("a.toml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1, "a": 2}', "'a' comes twice"),
        ('{"a": {"b": 1, "b": 1}}', "'b' comes twice"),
        ("NaN", "no finite number"),
        ("[Infinity]", "no finite number"),
        ("-Infinity", "no finite number"),
        ("1e999", "no finite number"),
        ("9" * 5000, "not JSON"),
        (_nested(65), "nests deeper than 64"),
        (_nested(10**6), "nests deeper than 64"),
        ('{"a":' * 10**5 + "1" + "}" * 10**5, "nests deeper than 64"),
        (b"\xff", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("", "not JSON"),
        ("[1] 2", "not JSON"),
    ],
)
def test_json_that_is_refused(content: str | bytes, said: str) -> None:
    with pytest.raises(LoadError, match=said):
        json_value(content, "it")


def test_json_whose_numbers_may_be_what_they_are() -> None:
    assert json_value("[Infinity, 1e999]", "it", finite=False) == [float("inf"), float("inf")]
    assert json_value(_nested(64), "it") is not None


@pytest.mark.parametrize(
    "content",
    [
        f"a = {_nested(10**5)}",
        "a." * 10**5 + "b = 1",
        "[" + "a." * 10**5 + "b]",
        "[[" + '"a" . ' * 10**4 + "b]]",
        "a = {" + "b = {" * 10**4 + "}" * 10**4 + "}",
        "\n".join(f"[{'a.' * depth}b]" for depth in range(200)),
        "a = " + "9" * 5000,
        b"\xff\xfe",
        "a = 1\na = 2",
        "\x00",
    ],
)
def test_toml_that_is_refused(content: str | bytes) -> None:
    with pytest.raises(LoadError, match=r"nests deeper than 64|is not TOML") as caught:
        toml_table(content, "it")
    assert "\n" not in str(caught.value)


def test_a_number_with_many_points_is_no_dotted_key() -> None:
    many = [float(number) for number in range(500)]
    assert toml_table(f"a = {many}\nb = 'x.{'y.' * 20}'", "it")["a"] == many


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (read_json, read_toml, read_text):
        with pytest.raises(LoadError, match="no plain file"):
            read(tmp_path / "pipe", "it")
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(LoadError, match="cannot be read"):
            read_json(path, "it")


BOMBS = """
import gzip, io, json, resource, struct, sys, zipfile
from pathlib import Path
import numpy as np
from torch import nn
from signstep.auditing.matrix import TransferMatrix
from signstep.io.documents import read_json, read_toml
from signstep.data import open_data
from signstep.errors import LoadError
from signstep.model.opening.weights import load_weights

def zeros(path, name, size, head=b""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("y.npy", npy((1,)) + bytes(4))
        with archive.open(name, "w") as entry:
            entry.write(head)
            for _ in range(size >> 20):
                entry.write(bytes(2**20))

def npy(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\\n"
    return b"\\x93NUMPY\\x01\\x00" + struct.pack("<H", len(text)) + text

def rows(path):
    for _ in open_data(path):
        pass

zeros("x.npz", "x.npy", 300 * 2**20, npy((1, 75 * 2**20)))
zeros("w.pt", "a/data/0", 80 * 2**20)
Path("deep.json").write_text("[" * 2**21 + "]" * 2**21)
Path("flat.json").write_text("[" + "[]," * 2_000_000 + "[]]")
Path("long.json").write_bytes(b" " * 2**27)
Path("dots.toml").write_text("a." * 2**19 + "a=1")
Path("w.safetensors").write_bytes(struct.pack("<Q", 2**25) + b"{" * 2**25)
big = bytes([0, 0, 8, 3]) + struct.pack(">3I", 4800, 2**8, 2**8)
Path("t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", 4800) + bytes(4800))
with gzip.open("t10k-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
    file.write(big)
    for _ in range(300):
        file.write(bytes(2**20))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = []
for name, read in (
    ("x.npz", rows),
    ("t10k-images-idx3-ubyte.gz", rows),
    ("w.pt", lambda path: load_weights(nn.Linear(2, 2), path)),
    ("w.safetensors", lambda path: load_weights(nn.Linear(2, 2), path)),
    ("deep.json", lambda path: read_json(path, "it")),
    ("flat.json", TransferMatrix.load),
    ("long.json", lambda path: read_json(path, "it")),
    ("dots.toml", lambda path: read_toml(path, "it")),
):
    try:
        read(Path(name))
    except LoadError:
        refused.append(name)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([refused, grown]))
"""


def test_refusing_bombs_takes_little_memory(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", BOMBS], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    refused, grown = json.loads(ran.stdout)
    assert len(refused) == 8
    assert grown < 512 * 2**20


@pytest.mark.parametrize(
    "listed",
    [
        '{"_data_files": [{"filename": "../../etc/passwd"}]}',
        '{"_data_files": [{"filename": "/etc/passwd"}]}',
        '{"_data_files": [{"filename": ".."}]}',
        '{"_data_files": [{"filename": 3}]}',
        '{"_data_files": 3}',
        '{"_data_files": [3]}',
        "[]",
        "[" * 200,
    ],
)
def test_files_that_a_saved_data_set_lists_lie_in_its_folder(listed: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(listed)
    with pytest.raises(LoadError, match=r"outside|lists no files|nests deeper|not JSON"):
        files_of(tmp_path)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    assert set(files_of(tmp_path)) == {"dataset_info.json", "state.json", "data-00000-of-00001.arrow"}


@pytest.mark.parametrize(
    "change",
    [
        {"sources": "ab"},
        {"sources": ["a"]},
        {"examples": "3"},
        {"examples": 1},
        {"clean": {}},
        {"clean": {"b": 9}},
        {"clean": {"b": True}, "examples": 0},
        {"cells": []},
        {"cells": [{}]},
        {"notes": [1]},
        {"versions": {"v": 1}},
        {"terms": 3},
        {"format": 2},
    ],
)
def test_records_of_transfers_that_contradict_themselves(change: dict[str, Any]) -> None:
    from signstep.auditing.matrix import Cell

    sound = TransferMatrix(("a", "c"), ("b",), (Cell("a", "b", 1, 2), Cell("c", "b", 0, 2)), {"b": 2}, 3)
    assert TransferMatrix.from_json(sound.to_json()) == sound
    with pytest.raises(LoadError):
        TransferMatrix.from_json(json.dumps({**json.loads(sound.to_json()), **change}))
