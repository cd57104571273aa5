"""Files of weights that lie: one sentence each, before anything in them is believed."""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from signstep.errors import LoadError
from signstep.model.opening import open_model
from signstep.model.opening.weights import load_weights


def _model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(32, 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.save(_model().state_dict(), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def test_a_flipped_bit_anywhere_in_the_values_is_seen(path: Path) -> None:
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        values = [entry for entry in archive.infolist() if "/data/" in entry.filename]
    assert values
    for entry in values:
        name, extra = struct.unpack("<HH", whole[entry.header_offset + 26 : entry.header_offset + 30])
        begun = entry.header_offset + 30 + name + extra
        for place in range(begun, begun + entry.file_size, 97):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(LoadError, match=r"is damaged.*(CRC|checksum)"):
                load_weights(_model(), path)
    path.write_bytes(whole)
    assert load_weights(_model(), path) == ()


def test_a_flipped_bit_anywhere_is_harmless_or_seen(path: Path) -> None:
    whole, expected = path.read_bytes(), _model().state_dict()
    for place in range(0, len(whole), 41):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        model = nn.Linear(32, 16)
        try:
            load_weights(model, path)
        except LoadError:
            continue
        # In padding, or in a date.
        assert all(torch.equal(part, expected[name]) for name, part in model.state_dict().items())


def _two_entries(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"again")


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data/0", "w") as entry:
        for _ in range(128):
            entry.write(bytes(2**20))


def _lie(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    at = whole.rindex(b"PK\x01\x02")
    whole[at + 24 : at + 28] = struct.pack("<I", 2**31)
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(_two_entries, "two entries"), (_bomb, "unpacks to 134217728 bytes"), (_lie, "more than the file of")],
)
def test_archives_that_lie(path: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(path)
    with pytest.raises(LoadError, match=said):
        load_weights(_model(), path)


def _odd(make: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    state = dict(_model().state_dict())
    return {**state, "weight": make(state["weight"])}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda part: part.to_sparse(), "sparse"),
        (lambda part: part.to_sparse_csr(), "sparse"),
        (lambda part: part.to("meta"), "meta"),
        (lambda part: torch.quantize_per_tensor(part, 0.1, 0, torch.qint8), "quantised"),
        (lambda part: part + 0j, "complex"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:.*quantiz.*", "ignore:.*TypedStorage.*")
def test_tensors_that_no_weight_can_take_over(path: Path, make: Callable[[Tensor], Tensor], kind: str) -> None:
    torch.save(_odd(make), path)
    with pytest.raises(LoadError, match=f"weight is a {kind} tensor|no PyTorch weights file"):
        load_weights(_model(), path)


def test_complex_weights_of_a_complex_model(path: Path) -> None:
    state = {name: part + 1j for name, part in _model().state_dict().items()}
    torch.save(state, path)
    model = nn.Linear(32, 16, dtype=torch.complex64)
    load_weights(model, path)
    assert torch.equal(model.weight, state["weight"])


def test_a_tensor_of_one_number_that_claims_to_be_huge(path: Path) -> None:
    torch.save(_odd(lambda part: part[:1, :1].expand(2**20, 2**20)), path)
    with pytest.raises(LoadError, match="does not fit the model"):
        load_weights(_model(), path)


def _safetensors(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def _twins() -> bytes:
    whole = save(dict(_model().state_dict()))
    length = struct.unpack("<Q", whole[:8])[0]
    header, body = whole[8 : 8 + length].decode().rstrip(), whole[8 + length :]
    bias = json.dumps(json.loads(header)["bias"])
    return _safetensors(f'{header[:-1]},"bias":{bias}}}'.encode(), body)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_twins, "'bias' is there twice"),
        (lambda: _safetensors(b"{}", length=2**62), "claims a header"),
        (lambda: _safetensors(b"[" * 200_000), "no readable safetensors"),
        (lambda: _safetensors(b"[]"), "tensors for a header"),
        (lambda: _safetensors(b"\xff\xfe"), "no readable safetensors"),
        (lambda: b"", "no readable safetensors"),
        (
            lambda: _safetensors(b'{"weight":{"dtype":"F32","shape":[8589934592],"data_offsets":[0,4]}}', b"0000"),
            "no readable safetensors",
        ),
    ],
)
def test_safetensors_that_lie(tmp_path: Path, content: Callable[[], bytes], said: str) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content())
    with pytest.raises(LoadError, match=said):
        load_weights(_model(), path)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"the name of the weights file .*udcff.* is not UTF-8"):
        open_model("torch.nn:Identity", weights=tmp_path / "net\udcff.pt")
