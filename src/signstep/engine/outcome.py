"""What an attack returns: what the loop found, and that after the independent checker has seen it."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from signstep.engine.problem import Verdict
from signstep.engine.statistics import wilson
from signstep.engine.tree import Tree


class Health(NamedTuple):
    """What the gradients of a row were worth, summed over the first three steps of each run and every tenth.

    All (R,) int64.

    ``zero``, ``nonfinite`` and ``underflow`` count coordinates that were exactly zero, NaN or infinite, and too small
    for full precision (subnormal), of ``coordinates`` seen; ``dead`` counts gradients without any usable coordinate, of
    ``gradients``.
    """

    zero: Tensor
    nonfinite: Tensor
    underflow: Tensor
    coordinates: Tensor
    dead: Tensor
    gradients: Tensor


class Found(NamedTuple):
    """What an attack returns: one point for each row, not yet seen by the independent checker.

    ``vanished`` (R,): no gradient of the run had a usable coordinate. ``smallest`` (R,): of attacks that look for the
    smallest change, the length of the nearest point that fools, also beyond eps; inf where none was found. ``ended``:
    why the run ended before it was done (a victim that stopped answering); what had been found by then is here, the
    verdicts of the other rows are not valid. ``notes``: what a reader of the result must know of this run. ``ways``
    (R,): of attacks that know of a defence, the way past it that fooled, see `engine.ways.way_name`; -1 for none.
    """

    x: Tree
    verdict: Verdict
    vanished: Tensor
    health: Health
    forwards: Tensor
    backwards: Tensor
    smallest: Tensor | None = None
    ended: str | None = None
    notes: tuple[str, ...] = ()
    ways: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an attack found; every field has one entry for each example (R,).

    Attributes:
        x: the attacked inputs, one for each example whether fooled or not, in the dtype of the input.
        fooled: whether the user's own model, in its own precision, fails at exactly this ``x``.
        undetermined: the attack could not be carried out: NaN outputs, a gradient that vanished or was not finite at
            every step, or a point outside the threat model. Such a row proves nothing and must not count as robust.
        valid: the outputs at ``x`` have no NaN.
        loss: the quantity the attack maximised, at ``x``: cross-entropy, for a targeted goal minus that of the target.
        distance: length of the change in the threat model's norm, computed in float64; a dict for several inputs.
        answer: what the model answers at ``x``, in the form of a label: the class (R,) for classification.
        near: how near to failing on a scale that does not depend on the loss: minus the margin to the closest way of
            failing, in units of the scores; what attacks in a row compare their points by.
        rate: share of passes in which the model failed: 0 or 1, for random models over held-out passes.
        passes: number of passes behind ``rate``.
        verified: ball, box, mask and grid hold at ``x``, by a checker that shares no code with the attack.
        tolerance: by how much the checker let ball and box be exceeded: one unit in the last place of the box.
        health: what the gradients were worth.
        forwards: forward passes spent on the row, the verdict's included; the attacked model's and surrogates'.
        backwards: backward passes spent on the row.
        smallest: of attacks that look for the smallest change: the length of the nearest point found that fools, also
            beyond eps, inf where none was; else None. Points beyond eps were scored, but are not returned. Where points
            well beyond the boundary were asked for (``cw:confidence=1``), ``x`` is one of those and farther away.
        notes: what a reader of the result must know.
        ended: why the attack ended before it was done, or None; rows without a verdict are undetermined then.
        ways: behind a defence that the attack knows of: the way past it that fooled the row, see
            `engine.ways.way_name`; -1 where none did. Else None.
    """

    x: Tree
    fooled: Tensor
    undetermined: Tensor
    valid: Tensor
    loss: Tensor
    distance: Tree
    answer: Tensor
    near: Tensor
    rate: Tensor
    passes: int
    verified: Tensor
    tolerance: float
    health: Health
    forwards: Tensor
    backwards: Tensor
    smallest: Tensor | None = None
    notes: tuple[str, ...] = ()
    ended: str | None = None
    ways: Tensor | None = None

    def __len__(self) -> int:
        return len(self.fooled)

    @property
    def interval(self) -> list[tuple[float, float]]:
        """The 95 % Wilson interval of each row's ``rate``: wide for a random model, which is judged by few passes."""
        counts = (self.rate * self.passes).round().long().tolist()
        return [wilson(count, self.passes) for count in counts]

    def __str__(self) -> str:
        open_ = int(self.undetermined.sum())
        tail = f", {open_} undetermined" if open_ else ""
        return f"fooled {int(self.fooled.sum())} of {len(self)}{tail}"
