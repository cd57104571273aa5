"""SHA-256 of what a model came from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from signstep.errors import LoadError


def file_hash(path: Path) -> str:
    """Of a file.

    Raises:
        LoadError: it cannot be read.
    """
    return files_hash([path])


def files_hash(paths: Iterable[Path]) -> str:
    """Of files, one after the other.

    Raises:
        LoadError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as stream:
                while piece := stream.read(2**20):
                    digest.update(piece)
        except OSError as error:
            raise LoadError(
                f"{path} cannot be read ({error.strerror or error})", remedy="check its permissions"
            ) from error
    return digest.hexdigest()
