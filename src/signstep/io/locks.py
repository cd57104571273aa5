"""Locks that end with their process: how what a killed run left is told from what a living one is at.

They are advisory (``flock``), on what is there anyway: a temporary file, a folder. So nothing is left to be cleaned
away, and no number of a process can be that of another one. Where a file system or a platform has none, nothing is
known: work goes on, and nothing is taken for left over.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not POSIX
    _POSIX = False
else:
    _POSIX = True

_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES}
# A pipe under the name must not make us wait, and a link must not lead us away.
_LOOK = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_HERE = _LOOK | getattr(os, "O_NOFOLLOW", 0)


class Lock:
    """A lock that is held, or the place of one where there are none.

    Attributes:
        sure: whether it is held; False where locks cannot be had.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self.sure = descriptor is not None

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock(path: Path, *, follow: bool = False) -> Lock | None:
    """The lock of a file or folder that exists, or None where somebody alive holds it, or has just removed it.

    Raises:
        OSError: it is not there, or cannot be opened for another reason than who may read it.
    """
    if not _POSIX:
        return Lock(None)
    try:
        descriptor = os.open(path, _LOOK if follow else _HERE)
    except PermissionError:
        return Lock(None)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            os.close(descriptor)
            return Lock(None)
        if not _is_at(descriptor, path):
            os.close(descriptor)
            return None
    except BaseException:
        os.close(descriptor)
        raise
    return Lock(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to what was opened: between the two somebody may have put it away."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Hold an existing folder for the ``with`` block; False where a living process holds it.

    Raises:
        OSError: it cannot be opened.
    """
    held = lock(folder, follow=True)
    try:
        yield held is not None
    finally:
        if held is not None:
            held.release()
