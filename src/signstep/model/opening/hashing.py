"""SHA-256 of what a model came from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

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


def state_hash(model: nn.Module) -> str | None:
    """Of the weights as they are in memory, for models that come without a file of them; None where one is to come."""
    digest = hashlib.sha256()
    for name, part in sorted(model.state_dict().items()):
        if is_lazy(part):
            return None
        if isinstance(part, Tensor):
            digest.update(f"{name} {part.dtype} {tuple(part.shape)}\n".encode())
            digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
