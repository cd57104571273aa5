"""Files appear whole or not at all."""

import os
import tempfile
from pathlib import Path

from signstep.errors import LoadError
from signstep.plain import plain


def refuse_unwritable(path: Path | str, name: str) -> None:
    """See that a path can be written into records, which are UTF-8.

    Raises:
        LoadError: its bytes are not UTF-8.
    """
    if not is_writable(str(path)):
        raise LoadError(f"{name} {str(path)!a} is not UTF-8, in which records are written: rename it")


def is_writable(text: str) -> bool:
    """Whether a text has no bytes that the file system holds and UTF-8 does not."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write under another name first, then rename. Text is made plain on its way (`signstep.plain`).

    Raises:
        LoadError: it cannot be written; what lay there before still does.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(plain(content).encode() if isinstance(content, str) else content)
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LoadError(f"{path} cannot be written ({error.strerror or error}); pass another folder") from error
