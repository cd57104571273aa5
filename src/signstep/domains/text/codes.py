"""Texts as tensors and back: a row of Unicode code points, filled up with zeros.

A row (width,) float32 holds each code point exactly (float32 is exact to 16,777,216, the last code point is 1,114,111),
so a saved point *is* the text that was sent to the model, letter for letter.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from signstep.errors import InputError

LAST = 0x10FFFF


def codes_of(texts: Sequence[str], width: int, device: torch.device | None = None) -> Tensor:
    """Texts as (R, width) float32.

    Raises:
        InputError: a text is longer.
    """
    found = torch.zeros(len(texts), width, dtype=torch.float32, device="cpu")
    for row, text in enumerate(texts):
        if len(text) > width:
            raise InputError(f"a text has {len(text)} characters", remedy=f"pass texts of at most {width}")
        if text:
            found[row, : len(text)] = torch.tensor([ord(letter) for letter in text], dtype=torch.float32, device="cpu")
    return found if device is None else found.to(device)


def texts_of(codes: Tensor) -> list[str]:
    """The texts of (R, width).

    Raises:
        InputError: a row holds something else than code points followed by zeros.
    """
    if codes.ndim != 2:
        raise InputError(f"texts have shape {tuple(codes.shape)}", remedy="pass code points (R, width)")
    found = []
    for row in codes.detach().cpu().double().tolist():
        length = max((place + 1 for place, code in enumerate(row) if code), default=0)
        if not all(0 < code <= LAST and code == int(code) for code in row[:length]):
            raise InputError("a row holds numbers that are no code points", remedy="pass those of codes_of(texts)")
        found.append("".join(map(chr, map(int, row[:length]))))
    return found
