"""Files appear whole or not at all, and stay when the power goes: written aside, synced, renamed, the folder synced."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from signstep.errors import LoadError
from signstep.io.locks import Lock, lock
from signstep.messages import Arg
from signstep.plain import plain

PREFIX = ".signstep-"
_TEMPORARY = re.compile(r"\.signstep-[a-z0-9_]{8}\.part")
STAGING = re.compile(r"\.signstep-[a-z0-9_]{8}")
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EROFS}


class WriteError(LoadError):
    """A file cannot be written.

    Attributes:
        reason: what the system says.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        self.reason = error.strerror or str(error)
        super().__init__(f"{path} cannot be written ({self.reason})", remedy="pass another folder")


def expanded(path: Path | str) -> Path:
    """A path with ``~`` at its beginning as the home folder.

    Raises:
        LoadError: nobody knows that home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise LoadError(
            f"{str(path)!r} begins with a home folder that is not known", remedy="write the path out"
        ) from error


def missing(path: Path, what: str = "", *, argument: str = "", hint: str = "check the path") -> LoadError:
    """The error about a file that is not there: of a URI, which is no path, what to do with it.

    Args:
        path: as it was passed; of the slashes of a URI it has lost one.
        what: it should be, such as "the weights file".
        argument: that it was passed as; empty where that has no name.
        hint: what to do about a path.
    """
    scheme, *rest = path.parts or ("",)
    is_uri = re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+:", scheme) is not None
    text = f"{scheme}//{'/' if scheme == 'file:' else ''}{'/'.join(rest)}" if is_uri else str(path)
    name = Arg(argument, text) if argument else f"{what} {text}".strip()
    if is_uri:
        said = "is a URI, and only a file on this machine is read here"
        return LoadError(name, said, remedy="download it and pass its path")
    return LoadError(name, "does not exist", remedy=hint)


def refuse_unwritable(path: Path | str, name: str) -> None:
    """See that a path can be written into records, which are UTF-8.

    Raises:
        LoadError: its bytes are not UTF-8.
    """
    if not is_writable(str(path)):
        raise LoadError(f"{name} {str(path)!a} is not UTF-8, in which records are written", remedy="rename it")


def is_writable(text: str) -> bool:
    """Whether a text has no bytes that the file system holds and UTF-8 does not."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write under another name first, then rename; the file gets the permissions that the umask leaves.

    Text is made plain on its way (`signstep.plain`).

    Raises:
        WriteError: it cannot be written; what lay there before still does. (Where all that failed was to sync the
            folder, the new file lies there, whole.)
    """
    try:
        with _aside(path) as (_, handle), os.fdopen(handle, "wb") as file:
            file.write(plain(content).encode() if isinstance(content, str) else content)
    except OSError as error:
        raise WriteError(path, error) from error


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A name to write to for the ``with`` block, for libraries that open files themselves; then as `write_whole`.

    Raises:
        WriteError: it cannot be written; what lay there before still does.
    """
    try:
        with _aside(path) as (temporary, handle):
            os.close(handle)
            yield temporary
    except OSError as error:
        raise WriteError(path, error) from error


@contextmanager
def _aside(path: Path) -> Iterator[tuple[Path, int]]:
    """A temporary file beside ``path``, open; it takes its place at the end of the ``with`` block, closed by then."""
    temporary, held, handle = _made(path.parent)
    try:
        yield temporary, handle
        temporary.chmod(permissions())
        # In a staging folder all files are synced at once, before any of them takes its place.
        staged = any(STAGING.fullmatch(part) for part in path.parent.parts)
        if not staged:
            sync(temporary)
        temporary.replace(path)
        if not staged:
            sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        held.release()


def _made(folder: Path) -> tuple[Path, Lock, int]:
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=PREFIX, suffix=".part")
        held = _locked(Path(name))
        if held is not None:
            return Path(name), held, handle
        os.close(handle)  # somebody took it for left over, in the moment before it was locked


def made_staging(folder: Path) -> tuple[Path, Lock]:
    """A new folder within, and its lock.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        staging = Path(tempfile.mkdtemp(dir=folder, prefix=PREFIX))
        held = _locked(staging)
        if held is not None:
            return staging, held


def _locked(path: Path) -> Lock | None:
    try:
        return lock(path)
    except FileNotFoundError:
        return None


def sync(path: Path) -> None:
    """See that a file or the entries of a folder are on the disk, where that can be asked for.

    Raises:
        OSError: the disk could not take them.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written and not read; not POSIX
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def permissions() -> int:
    """Of a new file, by the umask."""
    mask = os.umask(0o077)  # can only be read by setting it; for that moment to the careful side
    os.umask(mask)
    return 0o666 & ~mask


def is_own(name: str) -> bool:
    """Whether a name is one that we give to what is not finished."""
    return bool(_TEMPORARY.fullmatch(name) or STAGING.fullmatch(name))


def drop_temporary(path: Path) -> None:
    """Remove a temporary file, if it is one, and nobody alive is writing it.

    Raises:
        OSError: it cannot be removed.
    """
    if not _TEMPORARY.fullmatch(path.name) or path.is_symlink() or not path.is_file():
        return
    held = _locked(path)
    if held is None:
        return
    try:
        if held.sure:
            path.unlink(missing_ok=True)
    finally:
        held.release()
