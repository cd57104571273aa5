"""The files of a report: which there are, whether they are plain files, and whether they are as they were written.

A report's folder is written by others. Names are compared, never followed: no link, no device, no path that leads out.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from signstep.auditing.checks import Check
from signstep.errors import LoadError
from signstep.io.files import write_whole

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
RECORD, POINTS, CONFIG = "result.json", "adversarial.safetensors", "signstep.toml"

LEDGER = "ledger"
"""The folder of an audit in units, of which the report is made; it is no part of it, and nobody looks into it."""

# What a report is made of; pictures are numbered.
_NAMES, _PICTURE = {RECORD, POINTS, CONFIG, "index.html", "checklist.md"}, re.compile(r"pictures/\d\d\.png")
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_MOST_FILES, _LARGEST_SUMS = 1000, 2**20


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over every file of a report, in the format of ``sha256sum``."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{sha256(folder / name)}  {name}\n"
        for name in names
        if name not in (SUMS, SIGNATURE) and not Path(name).name.startswith(".")
    ]
    write_whole(folder / SUMS, "".join(lines))


def check_sums(folder: Path) -> Check:
    """Whether the files of a report are those that were written, as they were written, and no others."""
    lines = _lines(folder)
    found, wrong = _files(folder)
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        read = _LINE.fullmatch(line)
        if read is None:
            wrong.append(f"line {number} of {SUMS} is no SHA-256 with a name")
        elif read[2] in listed:
            wrong.append(f"{read[2]} is listed twice")
        else:
            listed[read[2]] = read[1]
    for name, digest in listed.items():
        if name not in found:
            wrong.append(f"{name} is missing")
        elif sha256(folder / name) != digest:
            wrong.append(f"{name} was changed")
    needed = {RECORD, CONFIG} | {name for name in found if name not in (SUMS, SIGNATURE)}
    wrong += [f"{name} is not listed" for name in sorted(needed - set(listed))]
    foreign = [
        name for name in sorted(found) if name not in {*_NAMES, SUMS, SIGNATURE} and not _PICTURE.fullmatch(name)
    ]
    wrong += [f"{name} is no file of a report" for name in foreign]
    more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
    return Check("files", not wrong, "; ".join(wrong[:5]) + more or f"{len(listed)} files as written{_beside(folder)}")


def _beside(folder: Path) -> str:
    return ", and a ledger beside them, which is no part of the report" if (folder / LEDGER).is_dir() else ""


def plain_file(path: Path, largest: int) -> bytes:
    """The content of a file of a report.

    Raises:
        LoadError: it is missing, a link, a device, or larger than ``largest`` bytes.
    """
    try:
        # Not blocking: a pipe without a writer would wait for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as stream:
            seen = os.fstat(handle)
            if not stat.S_ISREG(seen.st_mode):
                raise LoadError(f"{path} is no plain file", remedy="pass the folder of a report")
            if seen.st_size > largest:
                raise LoadError(
                    f"{path} has {seen.st_size} bytes, more than the {largest} it may have",
                    remedy="pass the folder of a report",
                )
            return stream.read()
    except OSError as error:
        said = "it is a link" if path.is_symlink() else error.strerror or error
        raise LoadError(f"{path} cannot be read ({said})", remedy="pass the folder of a report") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _lines(folder: Path) -> list[str]:
    content = plain_file(folder / SUMS, _LARGEST_SUMS)
    return content.decode("utf-8", "surrogateescape").rstrip("\n").split("\n") if content else []


def _files(folder: Path) -> tuple[set[str], list[str]]:
    """The plain files of a report by their names from its folder on, and what else lies there, in words."""
    found: set[str] = set()
    wrong: list[str] = []
    for number, entry in enumerate(_entries(folder)):
        if number >= _MOST_FILES:
            wrong.append(f"there are more than {_MOST_FILES} files")
            break
        name = Path(entry.path).relative_to(folder).as_posix()
        if entry.is_symlink():
            wrong.append(f"{name} is a link")
        elif entry.is_file(follow_symlinks=False):
            found.add(name)
        elif not entry.is_dir(follow_symlinks=False):
            wrong.append(f"{name} is no plain file")
        elif name not in ("pictures", LEDGER):
            wrong.append(f"{name}/ is no folder of a report")
    return found, wrong


def _entries(folder: Path, deeper: str = "pictures") -> Iterator[os.DirEntry[str]]:
    """What lies in a folder and in its folder of pictures; no deeper, and through no link."""
    with os.scandir(folder) as inside:
        for entry in inside:
            yield entry
            if entry.name == deeper and entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path), "")
