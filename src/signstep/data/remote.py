"""Data by a URI, such as ``s3://bucket/test.npz``: one file, copied to this machine through fsspec and read there.

Credentials come from where fsspec's own implementations look for them (the environment, their files) and never from the
URI, which stands in records.
"""

import hashlib
import re
import shutil
import tempfile
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.io.caps import current, how

PROTOCOLS = ("s3", "gs", "gcs", "az", "abfs", "abfss", "file", "memory")
"""That are fetched; whatever else fsspec knows is refused, such as what unpacks, chains or asks any host."""

_BLOCK = 2**20
_CREDENTIALS = re.compile("Credential|Auth|Permission|Forbidden|Token")
_CONNECTION = re.compile("Connect|Timeout|ServiceRequestError")
_NOT_A_NAME = re.compile(r"[^\w.+-]+")


def is_uri(text: object) -> bool:
    """Whether a text is a URI rather than a path.

    >>> is_uri("s3://bucket/test.npz"), is_uri("nets:net"), is_uri("a//b")
    (True, False, False)
    """
    return isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def fetched(uri: str) -> Path:
    """A copy of the file behind a URI, in a temporary folder of this process, under the SHA-256 of its content.

    Raises:
        InputError: the URI is of no protocol that is fetched, or holds credentials.
        LoadError: there is no such file, it is a folder, it is over the cap, or it cannot be read.
        MissingExtraError: fsspec, or what it needs for the protocol, is not installed.
    """
    _check(uri)
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError("fsspec", "remote") from error
    try:
        system, path = url_to_fs(uri)
    except ImportError as error:
        raise LoadError(f"{uri} needs a package that is not installed ({error})", remedy="install it first") from error
    except Exception as error:  # of the implementation: a configuration that is none, say
        raise _unreadable(uri, error) from error
    try:
        return _copied(system, path, uri)
    except LoadError:
        raise
    except FileNotFoundError as error:
        raise LoadError(f"{uri} does not exist", remedy="check the URI") from error
    except Exception as error:  # of the implementation: OSError, and what clients of object stores raise
        raise _unreadable(uri, error) from error


def _check(uri: str) -> None:
    """See that a URI can be fetched and can stand in a record; what may be secret is not repeated.

    Raises:
        InputError: it cannot.
    """
    protocol, _, rest = uri.partition("://")
    protocol = protocol.lower()
    if protocol not in PROTOCOLS or "::" in uri:
        raise InputError(
            f"data over {protocol}:// is not fetched",
            remedy=f"pass one file over {', '.join(PROTOCOLS)}, or download it and pass its path",
        )
    user = rest.partition("/")[0].rpartition("@")[0]
    container = protocol in ("abfs", "abfss") and ":" not in user  # container@account is Azure's way to write a place
    if "?" in rest or (user and not container):
        raise InputError(
            f"the {protocol}:// URI of the data holds a query or credentials, and it would stand in the record",
            remedy="leave them out; fsspec finds credentials in the environment or in its configuration",
        )


def _copied(system: Any, path: str, uri: str) -> Path:
    """The copy.

    Raises:
        LoadError: it is no single file, or too large.
        OSError: it cannot be read, or there is no room for it.
    """
    about = system.info(path)
    if about.get("type") != "file":
        raise LoadError(f"{uri} is no single file", remedy="pass the URI of a file, such as a .npz, .csv or .parquet")
    most = current().array
    if isinstance(about.get("size"), int) and about["size"] > most:
        raise LoadError(f"{uri} has {about['size']:,} bytes, over {most:,}", remedy=how("array"))
    folder, digest, size = _folder(), hashlib.sha256(), 0
    with system.open(path, "rb") as source, tempfile.NamedTemporaryFile(dir=folder, delete=False) as copy:
        try:
            while block := source.read(_BLOCK):
                size += len(block)
                if size > most:  # whatever was said of it
                    raise LoadError(f"{uri} has over {most:,} bytes", remedy=how("array"))
                digest.update(block)
                copy.write(block)
        except BaseException:
            Path(copy.name).unlink(missing_ok=True)
            raise
    name = _NOT_A_NAME.sub("-", path.rstrip("/").rpartition("/")[2]).lstrip(".-")[-100:] or "data"
    place = folder / digest.hexdigest() / name
    place.parent.mkdir(exist_ok=True)
    return Path(copy.name).replace(place)


@cache
def _folder() -> Path:
    """Of this process; it goes with it, unless that is killed."""
    folder = tempfile.mkdtemp(prefix="signstep-data-")
    Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=1)  # workers of a pool run no atexit
    return Path(folder)


def _unreadable(uri: str, error: Exception) -> LoadError:
    """Without the error's own text, where a client may have put a request with its signature."""
    said = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    # Each client has its own types, which have only their names in common.
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    if _CREDENTIALS.search(names):
        return LoadError(
            f"{uri} cannot be read with the credentials that fsspec finds here ({said})",
            remedy="set those of somebody who may read it, in the environment or in fsspec's configuration",
        )
    if _CONNECTION.search(names):
        return LoadError(
            f"{uri} cannot be read since its store does not answer ({said})",
            remedy="check the network, and the store's address in fsspec's configuration",
        )
    return LoadError(f"{uri} cannot be read ({said})", remedy="check the URI, and that it may be read from here")
