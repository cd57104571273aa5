"""Files appear whole or not at all."""

import os
import tempfile
from pathlib import Path

from signstep.errors import LoadError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write under another name first, then rename.

    Raises:
        LoadError: it cannot be written; what lay there before still does.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LoadError(f"{path} cannot be written ({error.strerror or error}); pass another folder") from error
