"""The batch sizes that a model takes: calls with others are filled up with further rows, or cut into pieces."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from signstep.engine.tree import Tree, leaves, rows, take, tree_map
from signstep.engine.untouched import RandomState
from signstep.errors import GradientError, VictimError

T = TypeVar("T")

# torch.OutOfMemoryError is newer than the oldest torch we support.
OUT_OF_MEMORY: type[Exception] = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)

_FEW = 8


@dataclass
class Sizes:
    """What is known of the numbers of rows that a model can be called with.

    Rows leave a batch as they are fooled, and the last batch of a loader is a short one; a model that ends in
    ``.squeeze()``, or was made for one batch size, must not fail of that. Nothing is asked of a model that takes what
    it is given: only where a call fails (or does not answer with a row for each row) does it get other rows beside
    those asked about, in a number that it is known to take. Rows are independent, so their answers are the same.

    Attributes:
        exact: the one number of rows that the model takes, where it says so or it was found out.
    """

    exact: int | None = None
    _worked: dict[int, None] = field(default_factory=dict)
    _instead: dict[int, int] = field(default_factory=dict)
    _fill: Tree | None = None

    @classmethod
    def of(cls, model: object) -> "Sizes":
        """Nothing, but for programs of ``torch.export`` that were made for one batch size."""
        return cls(exact=_exported_rows(model))

    def call(self, ask: Callable[[Tree], tuple[Tensor, ...]], inputs: Tree) -> tuple[Tensor, ...]:
        """``ask`` about the inputs (R, ...): tensors with R rows each, however many it is asked about at once.

        Raises:
            Exception: what ``ask`` raised, where no other number of rows helps.
        """
        count = rows(inputs)
        if count == 0 or count in self._worked:
            return ask(inputs)
        size = self._instead.get(count, self.exact)
        if size is not None and size != count:
            return self._in_pieces(ask, inputs, size)
        before = RandomState.of()
        try:
            found = ask(inputs)
        except (VictimError, GradientError, OUT_OF_MEMORY):
            raise
        except Exception:
            otherwise = self._otherwise(ask, inputs, before)
            if otherwise is None:
                raise
            return otherwise
        self._worked[count] = None
        if self._fill is None:
            self._fill = tree_map(lambda part: part.detach()[:_FEW].clone(), inputs)
        return found

    def _otherwise(
        self, ask: Callable[[Tree], tuple[Tensor, ...]], inputs: Tree, before: RandomState
    ) -> tuple[Tensor, ...] | None:
        """The answer at another number of rows, if this one fails again and that one does not."""
        count = rows(inputs)
        sizes = self._candidates(count)
        if not sizes:
            return None
        before.restore()
        try:
            ask(inputs)
        except Exception:  # so it does depend on the number of rows, or on nothing that can be helped here
            pass
        else:
            return None
        for size in sizes:
            before.restore()
            try:
                found = self._in_pieces(ask, inputs, size)
            except Exception:
                continue
            self._instead[count] = size
            if count > 1:
                self.exact = size  # two numbers above 1 of which one is refused: it was made for the other
            return found
        return None

    def _candidates(self, count: int) -> list[int]:
        """Numbers of rows to try: two in place of one, then those that worked, the nearest above first."""
        above = sorted(size for size in self._worked if size > count)
        below = sorted((size for size in self._worked if size < count), reverse=True)
        return list(dict.fromkeys([*([2] if count == 1 else []), *above[:1], *list(self._worked)[:1], *below[:1]]))

    def _in_pieces(self, ask: Callable[[Tree], tuple[Tensor, ...]], inputs: Tree, size: int) -> tuple[Tensor, ...]:
        count = rows(inputs)
        where = leaves(inputs)[0].device
        parts = []
        for start in range(0, count, size):
            index = torch.arange(start, min(start + size, count), dtype=torch.int64, device=where)
            piece = take(inputs, index)
            missing = size - len(index)
            parts.append(tuple(out[: len(index)] for out in ask(self._filled(piece, missing) if missing else piece)))
        return tuple(torch.cat(part) if len(part) > 1 else part[0] for part in zip(*parts, strict=False))

    def _filled(self, piece: Tree, missing: int) -> Tree:
        """The rows with further ones behind them: of the first batch if they are alike, else their own again."""
        fill = self._fill if self._fill is not None and _alike(self._fill, piece) else tree_map(Tensor.detach, piece)
        index = torch.arange(missing, dtype=torch.int64, device=leaves(piece)[0].device) % rows(fill)
        return tree_map(lambda part, more: torch.cat([part, more[index]]), piece, fill)


def _alike(fill: Tree, piece: Tree) -> bool:
    if isinstance(fill, dict) != isinstance(piece, dict):
        return False
    if isinstance(fill, dict) and isinstance(piece, dict) and fill.keys() != piece.keys():
        return False
    pairs = zip(leaves(fill), leaves(piece), strict=True)
    return all(a.shape[1:] == b.shape[1:] and a.dtype == b.dtype and a.device == b.device for a, b in pairs)


def _exported_rows(model: object) -> int | None:
    """The batch size that a program of ``torch.export`` was made for; None where it is free, or for other models."""
    for part in model.modules() if isinstance(model, nn.Module) else ():
        if isinstance(part, torch.fx.GraphModule):
            values = [node.meta.get("val") for node in part.graph.nodes if node.op == "placeholder"]
            sizes = [value.shape[0] for value in values if isinstance(value, Tensor) and value.ndim]
            if sizes and all(isinstance(size, int) and size == sizes[0] for size in sizes):
                return int(sizes[0])
    return None
