"""Rows that training has not seen: where the final audit may look."""

import hashlib

import torch
from torch import Tensor

from signstep.engine.keys import Key
from signstep.train.order import split
from signstep.train.rows import Inputs, rows_of
from signstep.train.settings import Settings

_BLOCK = 1024


def held_rows(x: Inputs, y: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The validation rows of a run with these settings: not trained on, but the best weights were chosen by them."""
    _, held = split(len(y), settings.validation, Key(settings.seed).fold("train"))
    return rows_of(x, y).take(held)


def common_rows(x: Inputs, y: Tensor, other: Tensor) -> int:
    """How many rows of ``other`` (M, ...) are, bit for bit, among those of ``x`` (N, ...) with labels y (N,)."""
    rows = rows_of(x, y)
    if rows.take(torch.tensor([0], dtype=torch.int64, device="cpu"))[0].shape[1:] != other.shape[1:]:
        return 0
    known = {
        _digest(row)
        for part in torch.split(torch.arange(len(y), dtype=torch.int64, device="cpu"), _BLOCK)
        for row in rows.take(part)[0]
    }
    return sum(_digest(row) in known for row in other)


def _digest(row: Tensor) -> bytes:
    return hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()
