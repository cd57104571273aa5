"""What lies beside a file of SQLite and may be an enemy's: a journal that leads away from it.

A rollback journal may end with the name of a super-journal, by which a transaction over several files is kept whole
(SQLite, "Atomic Commit in SQLite", section 5). Whoever opens the table beside it removes the file of that name,
whichever that is. A transaction over one file writes no such name, and those of Signstep are over one. A link in the
place of a journal or a log would have SQLite write into the file behind it.
"""

import os
import stat
from pathlib import Path

from signstep.errors import LoadError

_BESIDE = ("-journal", "-wal", "-shm")
_MAGIC = bytes.fromhex("d9d505f920a163d7")


def refuse_led_away(path: Path) -> None:
    """See that nothing beside a table leads SQLite to another file, before the table is opened.

    Raises:
        LoadError: something does, or cannot be looked at.
    """
    path = path.resolve()  # SQLite follows links before it looks for a journal
    for end in _BESIDE:
        beside = path.with_name(path.name + end)
        try:
            seen = beside.lstat()
            if not stat.S_ISREG(seen.st_mode):
                raise LoadError(f"{beside} is no plain file", remedy="remove it, and see who else writes there")
            if end == "-journal" and _names_another(beside, seen.st_size):
                raise LoadError(
                    f"the journal {beside} names a file of another place, which would be removed",
                    remedy="remove the journal, and see who else writes there",
                )
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LoadError(f"{beside} cannot be read ({error.strerror})", remedy="see who may read it") from error


def _names_another(journal: Path, size: int) -> bool:
    """Whether it ends as one with the name of a super-journal does."""
    with journal.open("rb") as file:
        file.seek(max(0, size - len(_MAGIC)), os.SEEK_SET)
        return size > len(_MAGIC) and file.read() == _MAGIC
