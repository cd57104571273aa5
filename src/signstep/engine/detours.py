"""Ways for an attack past what stands in front of a model: through stand-ins, or as if nothing were there.

A declared transform that is a defence may round, call a codec or draw; it then offers several ways to go about its
gradient (`engine.ways`). An attacker who knows of it tries each of them on every row, and one success is enough.
What is scored is always the real transform in front of the real model.

Source: Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), sections 4.1 (stand-ins) and 4.2 (means over draws).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from signstep.engine.attack import Attack
from signstep.engine.eot import Eot
from signstep.engine.keys import Key
from signstep.engine.oracles import Around, Autograd, Oracle, backwards_of, innermost
from signstep.engine.outcome import Found, Health
from signstep.engine.problem import ModelProblem, Problem, Verdict, judge
from signstep.engine.region import Region
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, put, take, tree_map
from signstep.engine.ways import Way, taking, way_code

# Draws behind each gradient of a random defence: doubled while the last doubling leaves hope.
DRAWS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Along(Around):
    """Another oracle, asked while defences are passed one way.

    On the way "straight" its scores are those of the undefended model: no row leaves a run because of them.

    Attributes:
        way: which.
    """

    way: Way = "soft"

    @property
    def sees_victim(self) -> bool:
        """Not where the defence is left out."""
        return self.way != "straight" and self.inner.sees_victim

    @property
    def exact(self) -> bool:
        """Not where the defence is left out."""
        return self.way != "straight" and self.inner.exact

    @property
    def warms(self) -> bool:
        """On the usual way alone: the pass at the clean input that was paid for went that way."""
        return self.way == "soft" and self.inner.warms

    def look(self, problem: Problem, point: Tree, key: Key) -> Score:
        """The inner oracle's look, on that way."""
        with taking(self.way):
            return self.inner.look(self._cold(problem), point, key)

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """The inner oracle's score and gradient, on that way."""
        with taking(self.way):
            return self.inner(self._cold(problem), point, key, cotangent)

    def _cold(self, problem: Problem) -> Problem:
        return problem if self.warms else _cold(problem)


@dataclass(frozen=True)
class AllWays:
    """An attack by every way past a defence, each on the rows that those before it have not fooled.

    "straight" is first, and under the very keys that it has alone: whoever knows of the defence is never worse off than
    one who does not. Then, for each number of draws, the other ways. Of a random defence the draws behind a gradient
    are doubled, row by row: a row goes on while, at the pace of its last doubling, those that are left would fool it.

    Attributes:
        attack: by one way.
        ways: those to try.
        draws: behind each gradient, ascending; (1,) where nothing is drawn.
    """

    attack: Attack
    ways: tuple[Way, ...]
    draws: tuple[int, ...] = (1,)

    @property
    def name(self) -> str:
        """Of the recipe."""
        return self.attack.name

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
        """The attack, by every way; of each row the first point that fools, else the one that comes nearest."""
        plain: Any = self.attack
        oracle: Oracle | None = getattr(plain, "oracle", None)
        if getattr(plain, "needs", "") == "nothing" and plain.steps == 0:
            return self.attack(problem, region, clean, key, begin)  # it asks nothing: there are no ways to tell apart
        if oracle is None or not backwards_of(oracle) or not plain.steps:
            return self._asking(problem, region, clean, key, begin)
        book = _Book(problem, region, clean, begin)
        if "straight" in self.ways:
            book.run(_along(plain, "straight"), key, "straight")
        others = [chosen for chosen in self.ways if chosen != "straight"]
        paces: list[Tensor] = []
        for place, draws in enumerate(self.draws if others else ()):
            rows = book.standing() if place < 2 else book.hopeful(paces, len(self.draws) - place)
            for chosen in others:
                book.run(_along(plain, chosen, draws), key.fold("way", chosen, draws), chosen, draws, rows)
            paces.append(book.near())
        return book.found()

    def _asking(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None) -> Found:
        """Of an attack that only asks: what it finds without the defence, shown to the defended model; then itself."""
        book = _Book(problem, region, clean, begin)
        if "straight" in self.ways:
            book.run(_shown(self.attack), key, "straight")
        if len(self.ways) > ("straight" in self.ways):
            book.run(self.attack, key.fold("way", "asking"), "soft", 1, book.standing())
        return book.found()


def _along(attack: Any, chosen: Way, draws: int = 1) -> Attack:
    """The same attack with its gradients by one way, means over so many draws."""

    def new(inner: Oracle) -> Oracle:
        along = Along(inner=inner, way=chosen)
        return along if draws == 1 else Eot(draws, inner=along)

    found: Attack = replace(attack, oracle=innermost(attack.oracle or Autograd(), new))
    return found


def _shown(attack: Attack) -> "_Call":
    """The attack on the undefended model, its points scored by the defended one."""

    def run(problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None) -> Found:
        with taking("straight"):
            found = attack(_cold(problem), region, clean, key, begin)
        verdict = judge(problem, found.x, key.fold("shown"))
        smallest = found.smallest
        if smallest is not None:  # beyond eps it is known of the undefended model alone
            smallest = torch.where(verdict.fooled, smallest, torch.full_like(smallest, torch.inf))
        return found._replace(
            verdict=verdict, vanished=torch.zeros_like(found.vanished), forwards=found.forwards + verdict.passes,
            smallest=smallest,
        )  # fmt: skip

    return run


def _cold(problem: Problem) -> Problem:
    return problem.by(problem.predictor) if isinstance(problem, ModelProblem) else problem


_Call: TypeAlias = Callable[[Problem, Region, Tree, Key, Tree | None], Found]


class _Book:
    """What all ways together have found of each row."""

    def __init__(self, problem: Problem, region: Region, clean: Tree, begin: Tree | None) -> None:
        self._problem, self._region, self._clean, self._begin = problem, region, clean, begin
        self._whole: Found | None = None

    def standing(self) -> Tensor | None:
        """The rows that no way has fooled; None for all, where none was tried."""
        return None if self._whole is None else (~self._whole.verdict.fooled).nonzero().squeeze(1)

    def near(self) -> Tensor:
        """How near each row has come to failing (R,)."""
        assert self._whole is not None
        return self._whole.verdict.near

    def hopeful(self, paces: Sequence[Tensor], left: int) -> Tensor:
        """The standing rows that ``left`` more doublings would fool at the pace of the last one."""
        assert self._whole is not None
        gain = (paces[-1] - paces[-2]).clamp_min(0)
        hope = ~self._whole.verdict.fooled & ~(paces[-1] + left * gain < 0)
        return hope.nonzero().squeeze(1)

    def run(self, attack: "Attack | _Call", key: Key, chosen: Way, draws: int = 1, index: Tensor | None = None) -> None:
        """One way, on the rows at ``index``."""
        if self._whole is not None and (self._whole.ended is not None or index is None or not len(index)):
            return
        if index is None or len(index) == len(self._problem.ids):
            found = attack(self._problem, self._region, self._clean, key, self._begin)
            index = torch.arange(len(self._problem.ids), device=self._problem.ids.device, dtype=torch.int64)
        else:
            begin = None if self._begin is None else take(self._begin, index)
            part = self._problem.take(index)
            found = attack(part, self._region.take(index), take(self._clean, index), key, begin)
        found = found._replace(ways=torch.where(found.verdict.fooled, way_code(chosen, draws), -1))
        self._whole = found if self._whole is None else _joined(self._whole, found, index)

    def found(self) -> Found:
        """All of it."""
        assert self._whole is not None
        return self._whole


def _joined(whole: Found, part: Found, index: Tensor) -> Found:
    """Rows at ``index`` met one more way: where it fools, or comes nearer, its point and verdict are taken."""
    old, new = whole.verdict, part.verdict
    better = new.fooled | ~old.valid[index] | (new.valid & (new.near > old.near[index]))
    mine = better.nonzero().squeeze(1)
    place = index[mine]

    def among(before: Tensor, now: Tensor) -> Tensor:
        return before.index_copy(0, place, now[mine].to(before.dtype))

    def added(before: Tensor, now: Tensor) -> Tensor:
        return before.index_add(0, index, now.to(before.dtype))

    x = tree_map(torch.clone, whole.x)
    put(x, place, take(part.x, mine))
    smallest = whole.smallest
    if smallest is not None and part.smallest is not None:
        smallest = smallest.index_copy(0, index, torch.minimum(smallest[index], part.smallest))
    verdict = Verdict(
        fooled=among(old.fooled, new.fooled),
        loss=among(old.loss, new.loss),
        valid=among(old.valid, new.valid),
        rate=among(old.rate, new.rate),
        answer=among(old.answer, new.answer),
        near=among(old.near, new.near),
        passes=max(old.passes, new.passes),
    )
    return Found(
        x=x,
        verdict=verdict,
        vanished=whole.vanished.index_copy(0, index, whole.vanished[index] & part.vanished),
        health=Health(*map(added, whole.health, part.health)),
        forwards=added(whole.forwards, part.forwards),
        backwards=added(whole.backwards, part.backwards),
        smallest=smallest,
        ended=whole.ended or part.ended,
        notes=tuple(dict.fromkeys((*whole.notes, *part.notes))),
        ways=among(whole.ways, part.ways) if whole.ways is not None and part.ways is not None else None,
    )
