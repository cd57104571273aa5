"""The one loop that runs every gradient attack."""

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from signstep.engine.interrupted import Run, found, settle
from signstep.engine.keys import Key
from signstep.engine.ledger import Ledger
from signstep.engine.moves import Best, Move, State, View, rose, take_state
from signstep.engine.oracles import Autograd, Oracle, backwards_of, innermost, within
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, LOOKS, Problem, confirm
from signstep.engine.region import Region
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, leaves, per_row, put, rows, search_dtype, take, tree_map
from signstep.errors import InputError, VictimError
from signstep.messages import Arg

Start = Literal["clean", "uniform", "vertex", "best"]
Needs = Literal["nothing", "labels", "scores", "gradients"]


class Attack(Protocol):
    """What an audit runs: rows in, one allowed point for each row out."""

    @property
    def name(self) -> str:
        """Of the recipe."""

    @property
    def steps(self) -> int:
        """Gradient steps of each run; 0 for attacks without gradients."""

    @property
    def draws(self) -> bool:
        """Whether the attack uses randomness of its own, and so needs ids."""

    @property
    def from_clean(self) -> bool:
        """Whether the first thing it asks for is the gradient at the clean input, for the problem's own loss."""

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
        """Attack every row.

        Args:
            problem: the question.
            region: the allowed set around ``clean``.
            clean: inputs (R, ...).
            key: randomness.
            begin: allowed points (R, ...) that other attacks came to; attacks that start from the best known point go
                on from there, others ignore it.
        """


@dataclass(frozen=True)
class GradientAttack:
    """Start, then ``steps`` times: gradient, move, projection; the last iterate is scored.

    A row whose iterate fools the model leaves the run at once. The clean input itself is never called a success: even
    a row that is misclassified to begin with takes its step, so that the accuracy on attacked points can be told.

    Attributes:
        name: of the recipe.
        move: from gradient to displacement.
        steps: gradient steps for each restart; 0 scores the start alone.
        start: "clean"; "uniform" in the ball; "vertex", a random corner (the random-sign control); or "best", the best
            point that other attacks came to (the clean input where there is none).
        restarts: independent runs; each goes on with the rows that are still standing.
        oracle: where the gradient comes from.
        loss: the loss to climb where the task has it; None climbs the problem's own. Verdicts do not depend on it.
        targets: 0 to lead away from the label; n to lead each row towards the n classes that are closest at the clean
            input, one after the other (multi-targeted; each restart visits them all). What counts as failure stays.
        keep: "last" returns the last iterate of a run, "best" that with the largest searched loss.
        diverse: steps of eps that a start first takes along a random combination of the ways to fail (ODI).
        jitter: of a start from the best point: uniform noise of this share of eps is added to it.
    """

    name: str
    move: Move
    steps: int
    start: Start = "clean"
    restarts: int = 1
    oracle: Oracle = field(default_factory=Autograd)
    loss: str | None = None
    targets: int = 0
    keep: Literal["last", "best"] = "last"
    diverse: int = 0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1:
            raise InputError(
                Arg("steps", self.steps),
                Arg("restarts", self.restarts),
                remedy="pass steps >= 0 and restarts >= 1",
                where=self.name,
            )
        if self.targets < 0:
            raise InputError(
                Arg("targets", self.targets),
                remedy="pass the number of classes to lead to, at least 0",
                where=self.name,
            )
        if self.diverse < 0 or not self.jitter >= 0:
            raise InputError(
                Arg("diverse", self.diverse),
                Arg("jitter", self.jitter),
                remedy="pass a number of steps and a share of eps that are at least 0",
                where=self.name,
            )
        if self.restarts > 1 and self.start in ("clean", "best"):
            raise InputError(
                Arg("restarts", self.restarts),
                "from one point would repeat one run",
                remedy=("pass", Arg("restarts", 1), "or a recipe with a random start (pgd, fgsm-rs)"),
                where=self.name,
            )

    @property
    def draws(self) -> bool:
        """Whether the attack uses randomness of its own, and so needs ids."""
        probes = self.move.probes > 0 and self.steps > 1
        return self.start in ("uniform", "vertex") or self.diverse > 0 or self.oracle.draws or probes

    @property
    def from_clean(self) -> bool:
        """Whether the first thing it asks for is the gradient at the clean input, for the problem's own loss."""
        own = self.loss is None and self.targets == 0 and self.diverse == 0 and self.move.ahead is None
        return self.start == "clean" and self.steps > 0 and own and self.oracle.warms

    @property
    def needs(self) -> Needs:
        """What it must have of the attacked model: nothing where gradients come from others, or there are no steps."""
        if self.steps == 0 or not self.oracle.sees_victim:
            return "nothing"
        return "gradients" if backwards_of(self.oracle) else "scores"

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one example spend."""
        each, back = self.oracle.gradients, backwards_of(self.oracle)
        led = self.targets > 0 and setting.ways > 0
        runs = self.restarts * (max(1, setting.reachable(self.targets)) if led else 1)
        verdict = HELD_OUT if setting.random else 1
        looks = LOOKS if setting.random else 0 if self.oracle.exact and setting.exact else 1
        probes = self.move.probes * max(0, self.steps - 1)
        spread = (self.oracle.looks + self.diverse * each) if self.diverse else 0
        last = self.oracle.looks if self.keep == "best" and self.steps else 0
        run = (self.steps + probes) * each + last + verdict
        # A row that starts at the clean input has moved once before the first look that lets it leave.
        begun = self.diverse > 0 or self.start != "clean"
        first = int(led) + min(self.steps, 1 if begun else 2) * each + verdict
        counted = _counts(self.steps)
        # Where there is one way to fail alone, nothing is spread over.
        certain = setting.ways > 0 or not self.diverse
        gradients = (self.steps + probes + self.diverse) * back
        return Passes(
            first,
            int(led) + runs * (run + (spread if certain else 0)),
            int(led) + runs * (run + spread + self.steps * looks),
            runs * gradients if certain else None,
            runs * counted,
        )

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
        """Attack every row and return what was found; ``clean`` is the input the region surrounds."""
        ledger = Ledger(problem.ids)
        led = problem.with_loss(self.loss)
        ways, there = self._ways(led, clean, key, ledger)
        runs = [(restart, way) for restart in range(self.restarts) for way in range(max(1, _columns(ways)))]
        ended = None
        for number, (_, way) in enumerate(runs):
            index = ledger.standing()
            if len(index) == 0 or ended is not None:
                break
            if way and there is not None:
                index = index[there[index, way]]
                if len(index) == 0:
                    continue
            everyone = len(index) == len(problem.ids)
            hunt = led if everyone else led.take(index)
            if ways is not None:
                hunt = led.take(index, way=ways[index, way])
            around = region if everyone else region.take(index)
            here = clean if everyone else take(clean, index)
            known = begin if begin is None or everyone else take(begin, index)
            folded = key.fold("restart", number)
            run = self._search(hunt, around, here, folded, ledger, index, known)
            ended = settle(ledger, problem if everyone else problem.take(index), index, run.ran(), folded)
        return found(ledger, region, ended)

    def craft(self, problem: Problem, region: Region, clean: Tree, key: Key) -> Tree:
        """The attacked inputs of one run, without verdict: for training loops and for speed."""
        return self._search(
            problem.with_loss(self.loss),
            region,
            clean,
            key.fold("restart", 0),
            None,
            torch.empty(0, dtype=torch.int64, device="cpu"),
            None,
        ).points()

    def _ways(
        self, problem: Problem, clean: Tree, key: Key, ledger: Ledger
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """The classes (R, targets) to lead to, the closest at the clean input first, and which of them are there."""
        if self.targets == 0 or not problem.classwise:
            return None, None
        score = self.oracle.look(problem, clean, key.fold("ways"))
        ledger.spend(torch.arange(len(problem.ids), device=problem.ids.device, dtype=torch.int64), 1)
        # The label's own way is infinitely far and comes last, with those of absent classes; NaN outputs lead anywhere.
        order: Tensor = torch.nan_to_num(score.ways, nan=torch.inf, posinf=torch.inf).argsort(stable=True, dim=1)
        order = order[:, : min(self.targets, order.shape[1] - 1)]
        return order, ~torch.isposinf(score.ways.gather(1, order))

    def _search(
        self,
        problem: Problem,
        region: Region,
        clean: Tree,
        key: Key,
        ledger: "Ledger | None",
        owners: Tensor,
        begin: Tree | None,
    ) -> "_Run":
        d = self._first(problem, region, clean, key, begin)
        d = self._diversified(problem, region, d, key, ledger, owners)
        run = _Run(problem, region, clean, d, self.move.init(region, d), owners, remembers=self._remembers)
        begun = self.diverse > 0 or self.start in ("uniform", "vertex") or (self.start == "best" and begin is not None)
        try:
            self._climb(run, key, ledger, begun=begun)
        except VictimError as error:
            if ledger is None:
                raise
            run.ended = str(error)
        return run

    def _climb(self, run: "_Run", key: Key, ledger: Ledger | None, *, begun: bool) -> None:
        """Take the steps; rows that fool leave on the way."""
        every = _looks_every(run.problem.ids.device)
        # A copy's opinion, and a random model's, is put to the model at once: that waits for the device anyhow.
        seldom = every > 1 and not run.problem.random and self.oracle.exact
        for step in range(self.steps):
            last = step % every == every - 1
            moved = step > 0 or begun
            aimed = run.d if self.move.ahead is None else run.region.project(self.move.ahead(run.d, run.state))
            point = run.region.land(aimed) if moved else run.clean
            oracle = within(self.oracle.at(step / max(1, self.steps - 1)), run.region)
            score, gradient = oracle(run.problem, point, key.fold("step", step))
            gradient = run.region.restrict(tree_map(lambda part: part.to(search_dtype(part.dtype)), gradient))
            if ledger is None or not _counted(step):
                gradient = tree_map(_finite, gradient)
            else:
                gradient = ledger.count(run.owners, run.region, gradient, run.searching)
            if ledger is not None:
                run.spend(ledger, self.oracle.gradients, backwards_of(self.oracle))
                if moved and self.oracle.sees_victim:
                    stay = self._leaving(run, point, score.fooled, key.fold("step", step), ledger, seldom and not last)
                    if stay is not None:
                        if len(stay) == 0:
                            break
                        gradient, score = take(gradient, stay), Score(*(part[stay] for part in score))
            best = run.remember(score.loss, gradient)
            view = View(run.region, run.d, score.loss, step, self.steps, moved, best)
            if self.move.probes and step < self.steps - 1:
                view = self._probing(view, run, key.fold("probe", step), ledger)
            change, run.state = self.move.update(gradient, run.state, view)
            if moved:
                run.d = run.region.project(tree_map(torch.add, run.d, change))
            else:
                # A single steepest step from the clean input lies in the set once it has landed.
                run.d = change if self.move.feasible and self.steps == 1 else run.region.project(change)
        run.part()
        if self.keep == "best" and self.steps:
            run.settle(self.oracle, key, ledger)

    def _leaving(
        self, run: "_Run", point: Tree, fooled: Tensor, key: Key, ledger: Ledger, later: bool
    ) -> Tensor | None:
        """Let rows that look fooled leave, or keep their points for ``later``; who stays, None where nobody leaves."""
        if later:
            run.freeze(fooled, point)
            return None
        if run.searching is not None:
            run.freeze(fooled, point)
            return run.part()
        seen = confirm(run.problem, point, key, fooled, exact=self.oracle.exact)
        ledger.spend(run.owners[fooled] if seen.passes else None, seen.passes)
        return run.dismiss(seen.fooled, point) if bool(seen.fooled.any()) else None

    def _diversified(
        self, problem: Problem, region: Region, d: Tree, key: Key, ledger: Ledger | None, owners: Tensor
    ) -> Tree:
        """Tashiro, Song & Ermon 2020, equation 3, with z_y - z_k for the outputs: steps of eps along a random sum."""
        if self.diverse == 0:
            return d
        ways = self.oracle.look(problem, region.land(d), key.fold("diverse")).ways
        if ways.ndim != 2 or ways.shape[1] < 2:
            return d  # one way to fail: there is nothing to spread over
        draws = key.fold("diverse").draws(problem.ids, ways.device)
        weights = 2 * draws.uniform("weights", tuple(ways.shape[1:])).to(ways.dtype) - 1
        weights = torch.where(torch.isfinite(ways), weights, 0.0)
        if ledger is not None:
            ledger.spend(owners, self.oracle.looks)
        for step in range(self.diverse):
            here = key.fold("diverse", step)
            _, gradient = within(self.oracle, region)(problem, region.land(d), here, weights)
            gradient = region.restrict(tree_map(lambda part: _finite(part.to(search_dtype(part.dtype))), gradient))
            d = region.project(tree_map(torch.add, d, region.step(d, gradient, region.radius)))
            if ledger is not None:
                ledger.spend(owners, self.oracle.gradients, backwards_of(self.oracle))
        return d

    def _probing(self, view: View, run: "_Run", key: Key, ledger: Ledger | None) -> View:
        """The view of a move that looks at gradients in other places; what it asks for is booked."""

        def probe(point: Tree, number: int) -> Tree:
            _, gradient = within(self.oracle, run.region)(run.problem, point, key.fold(number))
            if ledger is not None:
                run.spend(ledger, self.oracle.gradients, backwards_of(self.oracle))
            return run.region.restrict(tree_map(lambda part: _finite(part.to(search_dtype(part.dtype))), gradient))

        draws = key.draws(run.problem.ids, leaves(run.clean)[0].device)
        return view._replace(probe=probe, draws=draws)

    @property
    def _remembers(self) -> bool:
        return self.keep == "best" or self.move.remembers

    def _first(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None) -> Tree:
        if self.start == "best" and begin is not None:
            d = displacement(begin, clean)
            if not self.jitter:
                return d
            noise = region.sample(key.fold("start").draws(problem.ids, leaves(clean)[0].device))
            return region.project(tree_map(lambda here, part: here + self.jitter * part, d, noise))
        if self.start in ("clean", "best"):
            return region.zero()
        draws = key.fold("start").draws(problem.ids, leaves(clean)[0].device)
        if self.start == "uniform":
            return region.sample(draws)
        return region.vertex(draws)


def displacement(point: Tree, clean: Tree) -> Tree:
    """From a point to how far it lies from the clean input, in the precision of the search."""
    return tree_map(lambda u, x: u.to(search_dtype(x.dtype)) - x.to(search_dtype(x.dtype)), point, clean)


def _counted(step: int) -> bool:
    """Whether the health of this step's gradient is taken: it costs as much as the rest of a step."""
    return step < 3 or step % 10 == 0


def _counts(steps: int) -> int:
    """Of so many steps, how many are `_counted`: in closed form, since a record may name any number."""
    return min(steps, 3) + max(0, (steps + 9) // 10 - 1)


def _columns(ways: Tensor | None) -> int:
    return 0 if ways is None else ways.shape[1]


_AHEAD = 4  # steps that an accelerator is given before it is asked whether rows have fooled


def _looks_every(device: torch.device) -> int:
    """Of how many steps one asks the device which rows have left.

    The answer decides how much is launched next, so that an accelerator that is asked after each step is waited for
    after each step. A row that has fooled in between stays in the batch, and its later steps count for nothing.
    """
    return 1 if device.type == "cpu" else _AHEAD


def _finite(part: Tensor) -> Tensor:
    """Unusable coordinates set to zero; their sum tells whether there are any, where asking does not wait."""
    if part.device.type == "cpu" and bool(torch.isfinite(part.sum())):
        return part
    return torch.nan_to_num(part, 0.0, 0.0, 0.0)


def _better(loss: Tensor, old: Tensor) -> Tensor:
    """Where the loss is a better one; NaN is neither better nor stays best once there is a number."""
    return rose(loss, old) | (torch.isnan(old) & ~torch.isnan(loss))


class _Run:
    """The rows that are still searching in one run, and the points of those that have left it."""

    def __init__(
        self,
        problem: Problem,
        region: Region,
        clean: Tree,
        d: Tree,
        state: State,
        owners: Tensor,
        *,
        remembers: bool,
    ) -> None:
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
        self._remembers = remembers
        self._best: Best | None = None
        self._left: tuple[Tensor, Tree] | None = None  # rows that have fooled and are still in the batch, and where
        self.ended: str | None = None

    @property
    def searching(self) -> Tensor | None:
        """Which rows of the batch (R,) bool have not fooled; None for all."""
        return None if self._left is None else ~self._left[0]

    def spend(self, ledger: Ledger, forwards: int, backwards: int) -> None:
        """Book passes on the rows that are searching."""
        live: Tensor | int = 1 if self._left is None else (~self._left[0]).long()
        ledger.spend(self.owners, forwards * live, backwards * live)

    def freeze(self, fooled: Tensor, point: Tree) -> None:
        """Keep the points of rows that fool for the first time, without asking whether there are any."""
        if self._left is None:
            self._left = fooled, point
            return
        left, there = self._left

        def first(new: Tensor, kept: Tensor) -> Tensor:
            return torch.where(per_row(left, new), kept, new)

        self._left = left | fooled, tree_map(first, point, there)

    def part(self) -> Tensor | None:
        """Let the rows that were frozen leave; the positions of those that stay, None where none leaves."""
        if self._left is None:
            return None
        (left, point), self._left = self._left, None
        return self.dismiss(left, point) if bool(left.any()) else None

    def ran(self) -> Run:
        """What the run came to: the rows that have left it were seen to fool."""
        fooled = torch.zeros(rows(self._everyone), dtype=torch.bool, device=leaves(self._everyone)[0].device)
        if self._place is not None:
            fooled = (~fooled).index_fill(0, self._place, value=False)
        return Run(self.points(), fooled, None, self.ended)

    def remember(self, loss: Tensor, gradient: Tree) -> Best | None:
        """The best point of each row so far, with its gradient, after the iterate whose loss this is."""
        if not self._remembers:
            return None
        if self._best is None:
            self._best = Best(self.d, gradient, loss)
            return self._best
        old = self._best
        better = _better(loss, old.loss)

        def newer(new: Tensor, kept: Tensor) -> Tensor:
            return torch.where(per_row(better, new), new, kept)

        self._best = Best(
            tree_map(newer, self.d, old.d), tree_map(newer, gradient, old.gradient), newer(loss, old.loss)
        )
        return self._best

    def settle(self, oracle: Oracle, key: Key, ledger: Ledger | None) -> None:
        """Return to the best point; the last iterate, which no gradient has looked at yet, gets its look first."""
        if self._best is None or rows(self.d) == 0 or (self._place is not None and len(self._place) == 0):
            return
        last = oracle.look(self.problem, self.region.land(self.d), key.fold("last"))
        if ledger is not None:
            ledger.spend(self.owners, oracle.looks)
        # An iterate that fools is better than any loss.
        better = last.fooled | _better(last.loss, self._best.loss)
        self.d = tree_map(lambda new, kept: torch.where(per_row(better, new), new, kept), self.d, self._best.d)

    def dismiss(self, fooled: Tensor, point: Tree) -> Tensor:
        """Let the fooled rows leave with their points; returns the positions of those that stay."""
        if self._found is None or self._place is None:
            self._found = tree_map(torch.clone, self._everyone)
            self._place = torch.arange(len(fooled), device=fooled.device, dtype=torch.int64)
        gone, stay = fooled.nonzero().squeeze(1), (~fooled).nonzero().squeeze(1)
        put(self._found, self._place[gone], take(point, gone))
        self._place, self.owners = self._place[stay], self.owners[stay]
        self.problem, self.region = self.problem.take(stay), self.region.take(stay)
        self.clean, self.d, self.state = take(self.clean, stay), take(self.d, stay), take_state(self.state, stay)
        if self._best is not None:
            self._best = Best(take(self._best.d, stay), take(self._best.gradient, stay), self._best.loss[stay])
        return stay

    def points(self) -> Tree:
        """One point for each row of the run."""
        if self._found is None or self._place is None:
            return self.region.land(self.d)
        if len(self._place):
            put(self._found, self._place, self.region.land(self.d))
        return self._found


def with_oracle(attack: Attack, oracle: Oracle) -> Attack:
    """The same attack with its gradients, or its scores, from elsewhere.

    Raises:
        InputError: the attack has no oracle.
    """
    if hasattr(attack, "oracle"):
        return replace(attack, oracle=innermost(attack.oracle, lambda _: oracle))  # type: ignore[type-var]
    raise InputError(
        f"{attack.name} asks the model itself, and surrogates have nothing to give it",
        remedy=("leave out", Arg("surrogate"), ", or pass a recipe that takes gradients, such as pgd"),
    )
