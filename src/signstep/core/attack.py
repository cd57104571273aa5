"""The one loop that runs every gradient attack."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from signstep.core.keys import Key
from signstep.core.moves import Move, State, View, take_state
from signstep.core.oracles import Autograd, Oracle
from signstep.core.problem import Problem, Verdict, confirm, judge
from signstep.core.region import Region
from signstep.core.statistics import wilson
from signstep.core.tasks import Score
from signstep.core.tree import Tree, leaves, put, search_dtype, take, tree_map
from signstep.errors import InputError

Start = Literal["clean", "uniform", "vertex"]


class Health(NamedTuple):
    """What the gradients of a row were worth, summed over the run; all (R,) int64.

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
    """What the loop returns: one point for each row, not yet seen by the independent checker.

    ``vanished`` (R,): no gradient of the run had a usable coordinate.
    """

    x: Tree
    verdict: Verdict
    vanished: Tensor
    health: Health
    forwards: Tensor
    backwards: Tensor


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
        rate: share of passes in which the model failed: 0 or 1, for random models over held-out passes.
        passes: number of passes behind ``rate``.
        verified: ball, box, mask and grid hold at ``x``, by a checker that shares no code with the attack.
        tolerance: by how much the checker let ball and box be exceeded: one unit in the last place of the box.
        health: what the gradients were worth.
        forwards: forward passes spent on the row, the verdict's included; the attacked model's and surrogates'.
        backwards: backward passes spent on the row.
        notes: what a reader of the result must know.
    """

    x: Tree
    fooled: Tensor
    undetermined: Tensor
    valid: Tensor
    loss: Tensor
    distance: Tree
    answer: Tensor
    rate: Tensor
    passes: int
    verified: Tensor
    tolerance: float
    health: Health
    forwards: Tensor
    backwards: Tensor
    notes: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class GradientAttack:
    """Start, then ``steps`` times: gradient, move, projection; the last iterate is scored.

    A row whose iterate fools the model leaves the run at once. The clean input itself is never called a success: even
    a row that is misclassified to begin with takes its step, so that the accuracy on attacked points can be told.

    Attributes:
        name: of the recipe.
        move: from gradient to displacement.
        steps: gradient steps for each restart; 0 scores the start alone.
        start: "clean", "uniform" in the ball, or "vertex": a random corner (the random-sign control).
        restarts: independent runs; each goes on with the rows that are still standing.
        oracle: where the gradient comes from.
    """

    name: str
    move: Move
    steps: int
    start: Start = "clean"
    restarts: int = 1
    oracle: Oracle = field(default_factory=Autograd)

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1:
            raise InputError(
                f"{self.name}: steps={self.steps}, restarts={self.restarts}; pass steps >= 0 and restarts >= 1"
            )
        if self.restarts > 1 and self.start == "clean":
            raise InputError(
                f"{self.name}: restarts={self.restarts} from the clean input would repeat one run; pass restarts=1 "
                "or a recipe with a random start (pgd, fgsm-rs)"
            )

    @property
    def draws(self) -> bool:
        """Whether the attack uses randomness of its own, and so needs ids."""
        return self.start != "clean"

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key) -> Found:
        """Attack every row and return what was found; ``clean`` is the input the region surrounds."""
        ledger = _Ledger(problem.ids)
        for restart in range(self.restarts):
            index = ledger.standing()
            if len(index) == 0:
                break
            everyone = len(index) == len(problem.ids)
            part = problem if everyone else problem.take(index)
            around = region if everyone else region.take(index)
            here = clean if everyone else take(clean, index)
            folded = key.fold("restart", restart)
            point = self._search(part, around, here, folded, ledger, index)
            verdict = judge(part, point, folded)
            ledger.spend(index, verdict.passes)
            ledger.record(index, point, verdict)
        return ledger.found(region)

    def craft(self, problem: Problem, region: Region, clean: Tree, key: Key) -> Tree:
        """The attacked inputs of one run, without verdict: for training loops and for speed."""
        return self._search(problem, region, clean, key.fold("restart", 0), None, torch.empty(0))

    def _search(
        self, problem: Problem, region: Region, clean: Tree, key: Key, ledger: "_Ledger | None", owners: Tensor
    ) -> Tree:
        d = self._first(problem, region, clean, key)
        run = _Run(problem, region, clean, d, self.move.init(region, d), owners)
        for step in range(self.steps):
            moved = step > 0 or self.start != "clean"
            point = run.region.land(run.d) if moved else run.clean
            score, gradient = self.oracle(run.problem, point, key.fold("step", step))
            gradient = run.region.restrict(tree_map(lambda part: part.to(search_dtype(part.dtype)), gradient))
            if ledger is None:
                gradient = tree_map(_finite, gradient)
            else:
                gradient = ledger.count(run, gradient, self.oracle.gradients)
                if moved and self.oracle.sees_victim:
                    fooled, looks = confirm(run.problem, point, key.fold("step", step), score.fooled)
                    ledger.spend(run.owners[score.fooled] if looks else None, looks)
                    if bool(fooled.any()):
                        stay = run.dismiss(fooled, point)
                        if len(stay) == 0:
                            break
                        gradient, score = take(gradient, stay), Score(*(part[stay] for part in score))
            view = View(run.region, run.d, score.loss, step, self.steps, moved)
            change, run.state = self.move.update(gradient, run.state, view)
            if moved:
                run.d = run.region.project(tree_map(torch.add, run.d, change))
            else:
                # A single steepest step from the clean input lies in the set once it has landed.
                run.d = change if self.move.feasible and self.steps == 1 else run.region.project(change)
        return run.points()

    def _first(self, problem: Problem, region: Region, clean: Tree, key: Key) -> Tree:
        if self.start == "clean":
            return region.zero()
        draws = key.fold("start").draws(problem.ids, leaves(clean)[0].device)
        if self.start == "uniform":
            return region.sample(draws)
        return region.vertex(draws)


def _finite(part: Tensor) -> Tensor:
    """Unusable coordinates set to zero; their sum tells whether there are any."""
    return part if bool(torch.isfinite(part.sum())) else torch.nan_to_num(part, 0.0, 0.0, 0.0)


class _Run:
    """The rows that are still searching in one run, and the points of those that have left it."""

    def __init__(self, problem: Problem, region: Region, clean: Tree, d: Tree, state: State, owners: Tensor) -> None:
        self.problem, self.region, self.clean, self.d, self.state, self.owners = (
            problem,
            region,
            clean,
            d,
            state,
            owners,
        )
        self._everyone = clean
        self._found: Tree | None = None
        self._place: Tensor | None = None  # of the rows still searching among all rows of the run

    def dismiss(self, fooled: Tensor, point: Tree) -> Tensor:
        """Let the fooled rows leave with their points; returns the positions of those that stay."""
        if self._found is None or self._place is None:
            self._found = tree_map(torch.clone, self._everyone)
            self._place = torch.arange(len(fooled), device=fooled.device)
        gone, stay = fooled.nonzero().squeeze(1), (~fooled).nonzero().squeeze(1)
        put(self._found, self._place[gone], take(point, gone))
        self._place, self.owners = self._place[stay], self.owners[stay]
        self.problem, self.region = self.problem.take(stay), self.region.take(stay)
        self.clean, self.d, self.state = take(self.clean, stay), take(self.d, stay), take_state(self.state, stay)
        return stay

    def points(self) -> Tree:
        """One point for each row of the run."""
        if self._found is None or self._place is None:
            return self.region.land(self.d)
        if len(self._place):
            put(self._found, self._place, self.region.land(self.d))
        return self._found


def _counter(flat: Tensor) -> torch.dtype:
    """A type that sums the ones of a row exactly."""
    return flat.dtype if flat.shape[1] < 2**24 else torch.int64


class _Ledger:
    """The best point of each row so far, and what was spent on it."""

    def __init__(self, ids: Tensor) -> None:
        self.point: Tree | None = None
        self.verdict: Verdict | None = None
        self.forwards, self.backwards = torch.zeros_like(ids), torch.zeros_like(ids)
        self.health = Health(*(torch.zeros_like(ids) for _ in Health._fields))

    def standing(self) -> Tensor:
        """Positions of the rows that no restart has fooled."""
        if self.verdict is None:
            return torch.arange(len(self.forwards), device=self.forwards.device)
        return (~self.verdict.fooled).nonzero().squeeze(1)

    def spend(self, owners: Tensor | None, forwards: int, backwards: int = 0) -> None:
        """Book passes on rows."""
        if owners is not None:
            self.forwards.index_add_(0, owners, torch.full_like(owners, forwards))
            self.backwards.index_add_(0, owners, torch.full_like(owners, backwards))

    def count(self, run: _Run, gradient: Tree, gradients: int) -> Tree:
        """Take stock of a gradient; returns it with unusable coordinates set to zero."""
        owners = run.owners
        frozen = run.region.frozen()
        size = sum(part[0].numel() for part in leaves(gradient)) - frozen
        zero, underflow, nonfinite = -frozen.expand(len(owners)), torch.zeros_like(owners), torch.zeros_like(owners)
        usable = torch.zeros_like(owners, dtype=torch.bool)
        cleaned = gradient
        for part in leaves(gradient):
            flat = part.flatten(1)
            magnitude, tiny = flat.abs(), torch.finfo(flat.dtype).tiny
            largest = magnitude.amax(1)
            if not bool((magnitude.amin(1) >= tiny).all()):
                # Compared in place: 0.0 and 1.0, whose sum is several times faster than that of a mask of bools.
                zero_here = magnitude.clone().eq_(0).sum(1, dtype=_counter(flat)).long()
                zero = zero + zero_here
                underflow = underflow + magnitude.clone().lt_(tiny).sum(1, dtype=_counter(flat)).long() - zero_here
            if not bool(torch.isfinite(largest).all()):
                bad = ~torch.isfinite(flat)
                nonfinite = nonfinite + bad.sum(1)
                largest = torch.where(bad, 0.0, magnitude).amax(1)
                cleaned = tree_map(lambda leaf: torch.where(torch.isfinite(leaf), leaf, 0.0), cleaned)
            usable |= largest > 0
        seen = Health(zero, nonfinite, underflow, size.expand(len(owners)), (~usable).long(), torch.ones_like(owners))
        for total, here in zip(self.health, seen, strict=True):
            total.index_add_(0, owners, here)
        self.spend(owners, gradients, gradients)
        return cleaned

    def record(self, index: Tensor, point: Tree, verdict: Verdict) -> None:
        """Keep the restart's point where it fools the model or has the larger loss."""
        if self.verdict is None or self.point is None:
            # Copied, since later restarts write into it and a model may return its own input.
            self.point, self.verdict = point, verdict._replace(answer=verdict.answer.clone())
            return
        old = self.verdict
        # A NaN loss never replaces a number: comparisons with NaN are false.
        better = verdict.fooled | (verdict.loss > old.loss[index]) | (verdict.valid & ~old.valid[index])
        chosen = better.nonzero().squeeze(1)
        rows_ = index[chosen]
        put(self.point, rows_, take(point, chosen))
        for name in ("fooled", "loss", "valid", "rate", "answer"):
            getattr(old, name).index_copy_(0, rows_, getattr(verdict, name)[chosen])

    def found(self, region: Region) -> Found:
        """Everything, as one record."""
        assert self.point is not None
        assert self.verdict is not None
        vanished = (self.health.gradients > 0) & (self.health.dead == self.health.gradients) & (region.radius > 0)
        vanished &= self.health.coordinates > 0  # a mask that freezes everything leaves nothing undetermined
        return Found(self.point, self.verdict, vanished, self.health, self.forwards, self.backwards)
