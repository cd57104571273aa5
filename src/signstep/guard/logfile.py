"""The log as files that are turned over by size: alarms, troubles and refusals, a line each.

Decisions are in the store; nothing of them hangs on these files. Where a line cannot be written (a full disk, a folder
that is gone) the service goes on: that is said once, lines are counted, and the next one is tried again.
"""

import logging
import os
import re
import stat
import time
from collections.abc import Callable
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from signstep.errors import InputError, LoadError
from signstep.messages import Arg
from signstep.plain import one_line

LOG = logging.getLogger("signstep.guard")
_MOST_FILES = 1000
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT")  # how each line begins


class _Line(logging.Formatter):
    """Time in UTC, level, text; an error with where it arose, on the same line."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - of logging
        """In UTC, whatever the zone of the machine."""
        return time.strftime(datefmt or "%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))

    def format(self, record: logging.LogRecord) -> str:
        return one_line(" | ".join(part.strip() for part in super().format(record).splitlines()))


class LogFile(RotatingFileHandler):
    """What is logged, in ``path``, and before that in ``path.1`` to ``path.COUNT``; older lines are dropped.

    Args:
        path: of the file; it is its owner's alone, since it names clients.
        log_mb: megabytes of a file, from which on the next is begun.
        log_files: full files that are kept beside it.
        said: is told once when lines cannot be written, and when they can again.

    Attributes:
        lost: lines that were not written.

    Raises:
        InputError: a number that makes no sense.
        LoadError: it cannot be written, or a file is there, or in the place of an older one, that is no log.
    """

    def __init__(
        self,
        path: Path,
        *,
        log_mb: float = 10.0,
        log_files: int = 5,
        said: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not 0.001 <= log_mb < 1e6:
            raise InputError(Arg("log_mb", log_mb), remedy="pass a number of megabytes from 0.001 on")
        if not 1 <= log_files <= _MOST_FILES:  # each is looked for when they are turned over
            raise InputError(Arg("log_files", log_files), remedy=f"pass a number from 1 to {_MOST_FILES}")
        # These would be written to, renamed and in the end dropped.
        for place in (path, *(Path(f"{path}.{number}") for number in range(1, log_files + 1))):
            if not _is_log(place):
                raise LoadError(f"{place} holds something else than a log of the guard", remedy="pass another file")
        self._told, self.lost, self._failing = said, 0, False
        try:
            super().__init__(
                path,
                maxBytes=int(log_mb * 1e6),
                backupCount=log_files,
                encoding="utf-8",
                errors="backslashreplace",
            )
        except OSError as error:
            raise LoadError(
                f"the log {path} cannot be written ({error.strerror or error})", remedy="pass another file"
            ) from error
        self.setFormatter(_Line("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))

    def begin(self) -> None:
        """Take what the guard logs from now on."""
        LOG.setLevel(logging.INFO)
        LOG.addHandler(self)

    def end(self) -> None:
        """Take no more, and close the file."""
        LOG.removeHandler(self)
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        before = self.lost
        super().emit(record)
        if self._failing and self.lost == before:
            self._failing = False
            self._told(f"the log is written again; {self.lost} lines were not")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - of logging
        """Count a line that could not be written."""
        self.lost += 1
        if not self._failing:
            self._failing = True
            self._told("the log cannot be written; decisions are stored all the same")

    def _open(self) -> TextIOWrapper:
        """The file, which is followed nowhere: a link in its place would have the service write into another one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        number = os.open(self.baseFilename, flags, 0o600)
        return TextIOWrapper(os.fdopen(number, "ab"), encoding=self.encoding, errors=self.errors)


def _is_log(path: Path) -> bool:
    """Whether a file is a log, or empty, or none that is looked into: what cannot be read cannot be written either."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return True
        with path.open("rb") as file:
            begun = file.read(11)
    except OSError:
        return True
    return not begun or _TIME.match(begun) is not None
