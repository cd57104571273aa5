"""Who made a report: an Ed25519 signature over the SHA-256 of its files.

It says that whoever has the key signed these files. Whether they are true is what the rest of `signstep verify` asks.
"""

from pathlib import Path
from typing import Any

from signstep.auditing.checks import Check
from signstep.auditing.checksums import SIGNATURE, SUMS, plain_file
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.io.files import write_whole

# Signed along, so that a signature of something else with the same key is none of a report.
_PURPOSE = b"signstep report, version 1\n"
_LARGEST_SUMS, _LARGEST_KEY = 2**20, 2**14


def new_key(path: Path) -> Path:
    """Make a key: the private one at ``path``, for its owner alone, the public one beside it with ``.pub``.

    Raises:
        InputError: a file is there already.
        LoadError: it cannot be written.
        MissingExtraError: cryptography is not installed.
    """
    private, serial, _ = _crypto()
    public = path.with_name(f"{path.name}.pub")
    for file in (path, public):
        if file.exists() or file.is_symlink():
            raise InputError(f"{file} exists, and a key that is lost cannot be made again", remedy="pass another file")
    key = private.generate()
    secret = key.private_bytes(serial.Encoding.PEM, serial.PrivateFormat.PKCS8, serial.NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(secret)
    except OSError as error:
        raise LoadError(f"{path} cannot be written ({error.strerror or error})", remedy="pass another file") from error
    write_whole(public, key.public_key().public_bytes(serial.Encoding.PEM, serial.PublicFormat.SubjectPublicKeyInfo))
    return public


def sign(report: Path, key: Path) -> Path:
    """Sign a report whose files are as its SHA256SUMS says; returns the file of the signature.

    Raises:
        LoadError: the key or the report cannot be read.
        MissingExtraError: cryptography is not installed.
    """
    private, serial, _ = _crypto()
    content = _read(key)
    try:
        loaded = serial.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise LoadError(
            f"{key} is no private key without a password", remedy="make one with 'signstep sign --new-key'"
        ) from error
    if not isinstance(loaded, private):
        raise LoadError(f"{key} is no Ed25519 key", remedy="make one with 'signstep sign --new-key'")
    write_whole(report / SIGNATURE, f"{loaded.sign(_content(report)).hex()}\n")
    return report / SIGNATURE


def signed(report: Path, public: Path) -> Check:
    """Whether the owner of a public key signed the report's files.

    Raises:
        LoadError: the key cannot be read.
        MissingExtraError: cryptography is not installed.
    """
    _, serial, (kind, invalid) = _crypto()
    content = _read(public)
    try:
        key = serial.load_pem_public_key(content)
    except ValueError as error:
        raise LoadError(f"{public} is no public key", remedy="pass the .pub file that signstep sign wrote") from error
    if not isinstance(key, kind):
        raise LoadError(f"{public} is no Ed25519 key", remedy="pass the .pub file that signstep sign wrote")
    try:
        signature = bytes.fromhex(plain_file(report / SIGNATURE, 1024).decode("ascii").strip())
        key.verify(signature, _content(report))
    except LoadError as error:
        return Check("signature", False, f"there is none ({error})")
    except (ValueError, invalid):
        return Check("signature", False, f"it is not by the owner of {public.name}, or the files are others")
    return Check("signature", True, f"the owner of {public.name} signed these files")


def _content(report: Path) -> bytes:
    return _PURPOSE + plain_file(report / SUMS, _LARGEST_SUMS)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_LARGEST_KEY)
    except OSError as error:
        raise LoadError(
            f"{path} cannot be read ({error.strerror or error})", remedy="pass a file with a key"
        ) from error


def _crypto() -> tuple[Any, Any, Any]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    except ImportError as error:
        raise MissingExtraError("cryptography", "sign") from error
    return Ed25519PrivateKey, serialization, (Ed25519PublicKey, InvalidSignature)
