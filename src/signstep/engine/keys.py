"""Randomness that belongs to the example, not to the batch.

Every draw is a function of (seed, path of purposes, example id) alone, as with JAX's keys: the result of an attack does
not depend on batch size, order, shuffling or on what ran before, and the global generators are never touched.
One small CPU generator per example is reseeded for each draw; draws are made on the CPU in float32 on every device, so
that a GPU and a CPU start from the same points.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from signstep.engine.tree import Tree, leaves

# Content ids round to whole 8-bit levels: an 8-bit image then hashes alike whichever float route it took (scaled,
# normalised and back, bfloat16, whose rounding error is just below half a level), because k/255 sits in the middle of a
# cell and such errors cannot move it out. Inputs that agree in every level share their draws, which does no harm.
_CELLS = 255


@dataclass(frozen=True)
class Key:
    """A seed and the purposes it was folded with; ``fold`` gives an independent key."""

    seed: int
    path: tuple[str | int, ...] = ()

    def fold(self, *parts: str | int) -> "Key":
        """An independent key for a narrower purpose, such as ``key.fold("restart", 3)``."""
        return Key(self.seed, self.path + parts)

    def integer(self) -> int:
        """A 63-bit integer that stands for this key, to seed a generator."""
        return int.from_bytes(self._digest().digest(), "little") >> 1

    def draws(self, ids: Tensor, device: torch.device) -> "RowDraws":
        """Independent draws for the rows with these ids (R,), int64."""
        return RowDraws(self, ids, device)

    def _digest(self) -> "hashlib.blake2b":
        text = "/".join([str(self.seed), *(f"{type(part).__name__[0]}:{part}" for part in self.path)])
        return hashlib.blake2b(text.encode(), digest_size=8)


@dataclass(frozen=True)
class RowDraws:
    """Random numbers (R, *shape), row by row from ``key`` and the row's id; a new purpose gives new numbers."""

    key: Key
    ids: Tensor
    device: torch.device

    def of(self, *parts: str | int) -> "RowDraws":
        """The rows' draws for a narrower purpose."""
        return replace(self, key=self.key.fold(*parts))

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Uniform on [0, 1), float32."""
        return self._fill(purpose, shape, torch.rand)

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal, float32."""
        return self._fill(purpose, shape, torch.randn)

    def _fill(self, purpose: str, shape: tuple[int, ...], draw: Callable[..., Tensor]) -> Tensor:
        prefix = self.key.fold(purpose)._digest()
        generator = torch.Generator()
        out = torch.empty((len(self.ids), *shape), dtype=torch.float32, device="cpu")
        for row, identity in enumerate(self.ids.tolist()):
            digest = prefix.copy()
            digest.update(identity.to_bytes(8, "little", signed=True))
            generator.manual_seed(int.from_bytes(digest.digest(), "little") >> 1)
            draw(shape, generator=generator, out=out[row], dtype=out.dtype, device=out.device)
        return out.to(self.device)


@dataclass(frozen=True)
class WatchedDraws(RowDraws):
    """Draws that remember for which purposes they were asked; those of narrower purposes share the memory."""

    asked: list[str] = field(default_factory=list, compare=False)

    def _fill(self, purpose: str, shape: tuple[int, ...], draw: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        self.asked.append(purpose)
        return super()._fill(purpose, shape, draw)


def content_ids(x: Tree, span: tuple[float, float] | None = None) -> Tensor:
    """An id (R,) int64 for each row from what it contains, the same in any batch, order or shard.

    With the ``span`` (low, high) of the inputs floating values are rounded to 1/255 of it first: 8-bit data then has
    the same id in float32, bfloat16 or after a round trip through normalisation. Without, they count as float32.
    """
    parts = [_countable(leaf.detach(), span) for leaf in leaves(x)]
    ids = []
    for row in range(parts[0].shape[0]):
        digest = hashlib.blake2b(digest_size=8)
        for part in parts:
            digest.update(part[row].numpy().tobytes())
        ids.append(int.from_bytes(digest.digest(), "little", signed=True))
    return torch.tensor(ids, dtype=torch.int64, device=leaves(x)[0].device)


def _countable(leaf: Tensor, span: tuple[float, float] | None) -> Tensor:
    leaf = leaf.cpu()
    if not leaf.is_floating_point():
        return leaf.contiguous()
    if span is None:
        return leaf.float().contiguous()
    low, high = span
    cells = (leaf.float() - low) * (_CELLS / (high - low))
    return cells.round_().to(torch.int32).contiguous()
