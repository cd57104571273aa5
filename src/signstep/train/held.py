"""Rows that training has not seen: where the final audit may look."""

import hashlib

from torch import Tensor

from signstep.core.keys import Key
from signstep.train.order import split
from signstep.train.settings import Settings


def held_rows(x: Tensor, y: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The validation rows of a run with these settings: not trained on, but the best weights were chosen by them."""
    _, held = split(len(x), settings.validation, Key(settings.seed).fold("train"))
    return x[held], y[held]


def common_rows(x: Tensor, other: Tensor) -> int:
    """How many rows of ``other`` (M, ...) are, bit for bit, among those of ``x`` (N, ...)."""
    if x.shape[1:] != other.shape[1:]:
        return 0
    known = {_digest(row) for row in x}
    return sum(_digest(row) in known for row in other)


def _digest(row: Tensor) -> bytes:
    return hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()
