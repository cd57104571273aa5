"""A folder whose files are replaced all together or not at all, and what is left of that where a process was killed."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from signstep.errors import LoadError
from signstep.io.files import STAGING, WriteError, drop_temporary, is_own, made_staging, permissions, sync
from signstep.io.locks import lock
from signstep.messages import Part

_NEW, _OLD, _JOURNAL = "new", "old", "moves.json"
_MOST_JOURNAL = 2**20


@contextmanager
def replaced(folder: Path, owned: Callable[[Path], Iterable[Path]]) -> Iterator[Path]:
    """A staging folder for the ``with`` block; at its end the files in it take the place of those that were there.

    What belongs to somebody else stays where it is. The staging folder lies inside the folder, not beside it: so a
    folder that is a mount point, a link or the current folder can be replaced too, the one above need not be writable,
    and files of others are never moved. New files are synced to the disk, a journal says what is about to move, old
    files are renamed aside, then new ones in, and if anything fails on the way (a full disk, Ctrl-C) the old ones are
    put back and nothing new is left. Of a process that is killed between two of these renames the journal stays, by
    which `sweep` puts the old files back.

    Args:
        folder: Exists.
        owned: The files, below the folder it is given, that are of an earlier time and now go.

    Raises:
        WriteError: A file cannot be written.
    """
    try:
        staging, held = made_staging(folder)
    except OSError as error:
        raise WriteError(folder, error) from error
    done = False
    try:
        new, aside = staging / _NEW, staging / _OLD
        try:
            new.mkdir()
            aside.mkdir()
            yield new
            _swap(folder, staging, owned)
            done = True
        except OSError as error:
            raise WriteError(folder, error) from error
        except LoadError as error:  # the reader knows the folder, not where its files are made
            parts, cure = (_renamed(told, str(new), str(folder)) for told in (error.parts, error.cure))
            raise LoadError(*parts, remedy=cure, where=error.where) from error
    finally:
        # Where even putting back failed, old files are nowhere else.
        if done or not _files(staging / _OLD):
            shutil.rmtree(staging, ignore_errors=True)
        held.release()


def _swap(folder: Path, staging: Path, owned: Callable[[Path], Iterable[Path]]) -> None:
    new, aside = staging / _NEW, staging / _OLD
    going, coming = list(owned(folder)), _files(new)
    parents = {folder / path.relative_to(new).parent for path in coming}
    journal = {
        "new": {path.relative_to(new).as_posix(): path.stat().st_ino for path in coming},
        "made": sorted(path.relative_to(folder).as_posix() for path in parents if not path.is_dir()),
    }
    for path in coming:
        path.chmod(permissions())
        sync(path)
    for path in {path.parent for path in coming}:
        sync(path)
    (staging / _JOURNAL).write_text(json.dumps(journal), encoding="utf-8")
    for path in (staging / _JOURNAL, staging, folder):
        sync(path)
    try:
        for path in going:
            _move(path, aside / path.relative_to(folder))
        for path in coming:
            to = folder / path.relative_to(new)
            if to.is_dir() or (os.path.lexists(to) and to not in going):
                raise FileExistsError(17, f"{to.relative_to(folder)} there is not of an earlier report")
            _move(path, to)
        for path in (folder, *parents):
            sync(path)
        (staging / _JOURNAL).unlink()
    except BaseException:
        _put_back(folder, staging, journal)
        raise
    for parent in {path.parent for path in going} - {folder}:
        if not any(parent.iterdir()):
            parent.rmdir()


def _move(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    source.rename(to)


def _put_back(folder: Path, staging: Path, journal: dict[str, Any]) -> None:
    """Undo what a swap has done so far; a new file is known by its inode, which a rename keeps."""
    new, aside = staging / _NEW, staging / _OLD
    for name, inode in journal["new"].items():
        here = folder / name
        if not os.path.lexists(new / name) and os.path.lexists(here) and here.lstat().st_ino == inode:
            here.rename(new / name)
    for path in _files(aside):
        to = folder / path.relative_to(aside)
        if not os.path.lexists(to):
            _move(path, to)
    for name in journal["made"]:
        with suppress(OSError):  # not made yet, or somebody has put a file there
            (folder / name).rmdir()


def sweep(folder: Path) -> None:
    """Clean away what killed processes have left in a folder: temporary files, and staging folders.

    Recognised by name, and by a lock that nobody alive holds. Where files were on the move the old ones are put back
    first. What looks like ours and is not stays, as does what a living process is at.
    """
    try:
        found = [path for path in folder.iterdir() if is_own(path.name)]
    except OSError:
        return
    for path in found:
        with suppress(OSError):  # not ours to remove; it stands in nobody's way
            drop_temporary(path)
            if STAGING.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                _sweep_staging(folder, path)


def _sweep_staging(folder: Path, staging: Path) -> None:
    if not {path.name for path in staging.iterdir()} <= {_NEW, _OLD, _JOURNAL}:
        return
    held = lock(staging)
    if held is None:
        return
    try:
        if not held.sure:
            return
        journal = staging / _JOURNAL
        if journal.exists():
            moves = _read(folder, journal)
            if moves is None:
                return
            _put_back(folder, staging, moves)
            if _files(staging / _OLD):
                return
        shutil.rmtree(staging)
    finally:
        held.release()


def _read(folder: Path, journal: Path) -> dict[str, Any] | None:
    """What a journal says, or None where it says nothing that a run of ours would: it was written by anybody."""
    if journal.is_symlink() or journal.stat().st_size > _MOST_JOURNAL:
        return None
    text = journal.read_bytes()
    try:
        moves = json.loads(text)
        names = [*moves["new"], *moves["made"]]
        inodes = list(moves["new"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Killed while it was written: then nothing has moved yet.
        return None if _files(journal.parent / _OLD) else {"new": {}, "made": []}
    if not all(isinstance(name, str) and _inside(folder, name) for name in names):
        return None
    return moves if all(isinstance(inode, int) for inode in inodes) else None


def _inside(folder: Path, name: str) -> bool:
    """Whether a name stays below the folder, not even by a link."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\0" in name or not pure.parts:
        return False
    return (folder / name).parent.resolve().is_relative_to(folder.resolve())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _renamed(parts: Sequence[Part], old: str, new: str) -> tuple[Part, ...]:
    return tuple(part.replace(old, new) if isinstance(part, str) else part for part in parts)
