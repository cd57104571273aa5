"""Data by a URI is the file's; what is no single file, is too large or would put a secret into records is refused."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch

import signstep as ss
from signstep.auditing.result import Result
from signstep.cli import main
from signstep.data import open_data, remote
from signstep.errors import InputError, LoadError, SignstepError

fsspec = pytest.importorskip("fsspec", reason="fsspec comes with torch")


def content() -> bytes:
    file = io.BytesIO()
    x = torch.randint(0, 255, (20, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    np.savez(file, x=x.numpy().astype(np.uint8), y=(torch.arange(20) % 4).numpy())
    return file.getvalue()


@pytest.fixture
def bucket() -> str:
    fsspec.filesystem("memory").pipe("/bucket/set.npz", content())
    fsspec.filesystem("memory").pipe("/bucket/empty.npz", b"")
    return "memory://bucket"


def test_a_file_of_a_store_is_the_file(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(content())
    plain = open_data(tmp_path / "set.npz")
    for uri in (f"{bucket}/set.npz", f"file://{tmp_path}/set.npz"):
        found = open_data(uri, limit=7)
        assert found.name == uri
        assert found.fingerprint() == plain.fingerprint() == hashlib.sha256(content()).hexdigest()
        assert torch.equal(next(iter(found))[0], next(iter(plain))[0][:7])
        assert not any("signstep-data" in text for text in (found.description, *found.notes))
    copies = [path for path in remote._folder().rglob("*") if path.is_file()]
    assert [path.name for path in copies] == ["set.npz"], "one content, one copy"


NETS = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
"""


@pytest.mark.usefixtures("bucket")
def test_a_command_takes_it_and_verify_reads_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "remotenets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = ["--model", "remotenets:net", "--data", "memory://bucket/set.npz"]
    words = ["audit", *given, "--threat", "linf:16/255", "--attack", "fgsm", "--out", "out", "--workers", "1"]
    assert main(words) == 0
    found = Result.load(tmp_path / "out" / "result.json")
    assert found.data.startswith("memory://bucket/set.npz: 20 examples")
    assert found.hashes["data"] == hashlib.sha256(content()).hexdigest()
    assert main(["verify", "out", *given]) == 0


REFUSED = {
    "s3://key:topsecret@bucket/set.npz": "holds a query or credentials",
    "s3://topsecret@bucket/set.npz": "holds a query or credentials",
    "abfs://key:topsecret@account/set.npz": "holds a query or credentials",
    "s3://bucket/set.npz?X-Amz-Signature=topsecret": "holds a query or credentials",
    "https://user:topsecret@host/set.npz": "data over https:// is not fetched; pass one file over s3, ",
    "zip://topsecret::memory://bucket/set.npz": "data over zip:// is not fetched",
    "memory://topsecret::file://set.npz": "is not fetched",
}


@pytest.mark.parametrize("uri", sorted(REFUSED))
def test_secrets_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(InputError) as raised:
        open_data(uri)
    assert REFUSED[uri] in str(raised.value)
    assert "topsecret" not in str(raised.value)


def test_what_is_no_file_within_the_caps_is_refused(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LoadError, match=f"^{bucket}/none.npz does not exist; check the URI$"):
        open_data(f"{bucket}/none.npz")
    for folder in (bucket, f"file://{tmp_path}", "file:///dev/null"):
        with pytest.raises(LoadError, match="is no single file; pass the URI of a file"):
            open_data(folder)
    with pytest.raises(SignstepError, match=f"^{bucket}/empty.npz: "):
        open_data(f"{bucket}/empty.npz")
    with ss.caps(array=100), pytest.raises(LoadError, match=r"has [\d,]+ bytes, over 100; raise the cap if you trust"):
        open_data(f"{bucket}/set.npz")
    # A store that says less than there is.
    system = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(system, "info", lambda *_, **__: {"type": "file", "size": 1, "name": "set.npz"})
    with ss.caps(array=100), pytest.raises(LoadError, match="has over 100 bytes"):
        open_data(f"{bucket}/set.npz")
    assert not [path for path in remote._folder().iterdir() if path.is_file()], "nothing half copied is left"


class NoCredentialsError(Exception):
    """As a client of a store names its own."""


class EndpointConnectionError(Exception):
    """The same."""


SECRET = "GET /set.npz?signature=topsecret"
SAID = [
    (RuntimeError(SECRET), r"cannot be read \(RuntimeError\); check the URI"),
    (OSError(SECRET), r"cannot be read \(OSError\); check the URI"),
    (
        PermissionError(13, "Forbidden", SECRET),
        r"with the credentials that fsspec finds here \(Forbidden\); set",
    ),
    (NoCredentialsError(SECRET), "with the credentials that fsspec finds here"),
    (
        EndpointConnectionError(SECRET),
        r"its store does not answer \(EndpointConnectionError\); check the network",
    ),
    (TimeoutError(SECRET), "since its store does not answer"),
]


@pytest.mark.parametrize(("error", "said"), SAID, ids=lambda part: type(part).__name__)
def test_what_a_store_raises_is_said_without_its_text(
    error: Exception, said: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", refused)
    with pytest.raises(LoadError, match=said) as raised:
        open_data(f"{bucket}/set.npz")
    assert "topsecret" not in str(raised.value)
