"""What a container file says of itself, checked before anything in it is believed or made room for.

Headers are written by whoever wrote the file: sizes they claim cost nothing to claim, and memory to believe.
"""

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from signstep.errors import LoadError
from signstep.io.caps import current, how

# Deflate cannot make more of a byte: a higher claim is a lie.
MOST_RATIO = 1032
SLACK = 4096

MOST_HEADER = 64 * 2**20
_CHUNK = 2**20


def check_names(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """See that an archive has not too many entries, none twice, and none larger than it can be.

    Raises:
        LoadError: it has.
    """
    if len(entries) > current().names:
        raise LoadError(
            f"{path} has {len(entries)} entries, over {current().names}", remedy=f"save fewer, or {how('names')}"
        )
    seen: set[str] = set()
    room = path.stat().st_size
    for entry in entries:
        if entry.filename in seen:
            raise LoadError(f"{path} has two entries named {entry.filename!r}", remedy="save it again")
        seen.add(entry.filename)
        stored = entry.compress_type == zipfile.ZIP_STORED
        most = room if stored else MOST_RATIO * min(room, entry.compress_size) + SLACK
        if entry.compress_size > room or entry.file_size > most:
            raise LoadError(
                f"{path}: {entry.filename!r} claims {entry.file_size} bytes, more than the file of {room} "
                "bytes can hold",
                remedy="save or download it again",
            )


def check_sums(path: Path, kind: str, most: int) -> None:
    """Compare every entry of a zip archive with its checksum, and their sum with a cap.

    Readers that map a file into memory leave the checksums aside, so that a flipped bit is a wrong number.

    Args:
        path: of the archive.
        kind: what it should be, for messages.
        most: bytes that all entries may have together.

    Raises:
        LoadError: an entry is damaged, or they are too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            check_names(path, entries)
            whole = sum(entry.file_size for entry in entries)
            if whole > most:
                raise LoadError(
                    f"{path} unpacks to {whole} bytes, over {most}",
                    remedy=f"save it without compression, or {how('inflated', 'ratio')}",
                )
            for entry in entries:
                with archive.open(entry) as stream:
                    while stream.read(_CHUNK):
                        pass
    except LoadError:
        raise
    except Exception as error:  # zipfile raises what its parts raise
        raise LoadError(
            f"{path} is no {kind} or is damaged, an entry does not agree with its checksum ({error})",
            remedy="save or download it again",
        ) from error


def check_safetensors(path: Path) -> None:
    """See that the header of a safetensors file is one, names no tensor twice and not too many.

    The library reads the rest with the same care; of a name that is there twice it silently takes the last.

    Raises:
        LoadError: it is not.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(MOST_HEADER, path.stat().st_size):
                raise ValueError(f"it claims a header of {length} bytes, more than it can have")
            header = json.loads(file.read(length), object_pairs_hook=_without_twins)
    except OSError as error:
        raise LoadError(f"{path} cannot be read ({error.strerror or error})", remedy="check the path") from error
    except (ValueError, RecursionError) as error:
        raise LoadError(
            f"{path} is no readable safetensors file ({error})", remedy="save or download it again"
        ) from error
    if not isinstance(header, Mapping) or len(header) > current().names:
        raise LoadError(
            f"{path} has no table of at most {current().names} tensors for a header",
            remedy=f"save it again, or {how('names')}",
        )


def check_unpacked(path: Path, name: str, size: int, packed: int) -> None:
    """See that compressed content is not far larger than what is there of it.

    Args:
        path: of the file.
        name: of the content, for messages.
        size: bytes that it unpacks to.
        packed: bytes that it has in the file.

    Raises:
        LoadError: it is.
    """
    most = current().unpacked(packed)
    if size > most:
        raise LoadError(
            f"{path}: {name} unpacks from {packed} to {size} bytes, over {most}",
            remedy=f"save it without compression, or {how('inflated', 'ratio')}",
        )


def check_held(size: int, name: str) -> None:
    """See that an array that memory has to hold as a whole is not too large for that.

    Raises:
        LoadError: it is.
    """
    if size > current().array:
        raise LoadError(
            f"{name} has {size} bytes, over {current().array}", remedy=f"save it in parts, or {how('array')}"
        )


def bytes_of(shape: Sequence[int], itemsize: int, name: str) -> int:
    """The bytes of an array by its header.

    Raises:
        LoadError: the header makes no sense.
    """
    if any(not isinstance(size, int) or size < 0 for size in shape):
        raise LoadError(f"{name} claims the shape {tuple(shape)}", remedy="save it again")
    return math.prod(shape) * itemsize


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found
