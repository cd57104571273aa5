"""The data set that travels with the package: 1,797 handwritten digits of 8x8 pixels.

Source: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository,
https://doi.org/10.24432/C50P49, licence CC BY 4.0 (see DIGITS_LICENSE.txt), in the form of scikit-learn's
``load_digits``. Each pixel counts the ink in a 4x4 field of a 32x32 bitmap, 0..16, so inputs lie on a grid of step
1/16.

The split follows the file, which is not shuffled: examples by one writer stand together, so most writers of the last
500 are not among the first 1,297.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from signstep.data.batches import DataSource
from signstep.errors import InputError
from signstep.messages import Arg

DIGITS_FILE = Path(__file__).with_name("digits.npz")
TRAIN_ROWS = 1297


def digits(split: str = "test") -> tuple[Tensor, Tensor]:
    """The digits of a split: x float32 (N, 1, 8, 8) in [0, 1], y int64 (N,).

    Args:
        split: "train" (the first 1,297) or "test" (the last 500).

    Raises:
        InputError: For any other split.
    """
    if split not in ("train", "test"):
        raise InputError(Arg("split", split), remedy="pass 'train' or 'test'")
    rows = slice(TRAIN_ROWS) if split == "train" else slice(TRAIN_ROWS, None)
    counts, labels = _arrays()
    x = torch.from_numpy(counts[rows].astype(np.float32)).unsqueeze(1) / 16
    return x, torch.from_numpy(labels[rows].astype(np.int64))


def digits_source(split: str | None = None, *, batch_size: int) -> DataSource:
    """The digits as a data source; the test split unless said otherwise."""
    x, y = digits(split or "test")

    def read(sizes: Sequence[int]) -> Iterator[Tensor]:
        start = 0
        for size in sizes:
            yield x[start : start + size].clone()
            start += size

    return DataSource(
        name=f"digits ({split or 'test'} split, UCI optical recognition of handwritten digits)",
        labels=y,
        shape=(1, 8, 8),
        read=read,
        files={DIGITS_FILE.name: DIGITS_FILE},
        batch_size=batch_size,
        total=len(y),
        bounds=(0.0, 1.0),
        classes=tuple("0123456789"),
        notes=("pixels have 17 levels: a grid of step 1/16",),
        treatment=("counts / 16", "float32"),
    )


@cache
def _arrays() -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[np.uint8]], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
]:
    with np.load(DIGITS_FILE, allow_pickle=False) as archive:
        return archive["x"], archive["y"]
