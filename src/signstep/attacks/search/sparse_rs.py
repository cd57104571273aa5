"""Sparse-RS: a random search over which coordinates change, for threats that count changes."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from signstep.attacks.search.painted import Painted
from signstep.attacks.search.rows import Rows, restarted
from signstep.attacks.search.scattered import Scattered
from signstep.attacks.search.walk import Walk
from signstep.engine.attack import Needs
from signstep.engine.interrupted import Run
from signstep.engine.keys import Key
from signstep.engine.oracles import Oracle
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, Problem
from signstep.engine.region import ProductRegion, Region, ball_of
from signstep.engine.tree import Tree
from signstep.errors import InputError, VictimError
from signstep.messages import Arg

_BLOCK = 16  # queries whose random numbers are drawn at once: each needs two for every coordinate
# Croce et al. 2022, section 4.1: up to which query of 10,000 the share alpha is divided by what.
_UNTIL = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_DIVISORS = (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)
_REFERENCE = 10_000


def swapped_share(query: int, queries: int, alpha: float) -> float:
    """The share of the changed coordinates that this query moves elsewhere.

        alpha / beta,  beta = 1, 2, 4, 5, 6, 8, 10, 12, 15, 20  up to query 0, 50, 200, 500, 1000, 2000, 4000, 6000,
        8000 and beyond of 10,000,

    rescaled to the budget. Source: Croce et al. 2022 (arXiv:2006.12834), section 4.1.

    >>> [round(swapped_share(query, 10_000, 0.3), 3) for query in (0, 1, 50, 51, 9_999)]
    [0.3, 0.15, 0.15, 0.075, 0.015]
    """
    return alpha / _DIVISORS[bisect_left(_UNTIL, query * _REFERENCE // max(1, queries))]


@dataclass(frozen=True)
class SparseRS:
    """k coordinates at random ends of the box; some move elsewhere, and stay there where the margin shrinks.

        M' = (M without A) with B,  A a part of the k changed coordinates M, B as many of the others;
        d' = d on M without A, random ends of the box on B;  (M, d) <- (M', d') if loss(d') > loss(d)

    Source: Croce et al. 2022 (arXiv:2006.12834), algorithms 1 and 2. Differs: of a threat that counts groups (pixels) M
    is a set of groups, and each of its coordinates has an end of its own, as in the paper; a random end that would
    change nothing is turned to the other one; what leaves M may come again, at other ends, where the paper chooses
    among the others alone and never changes the ends of what stays.

    Attributes:
        queries: forward passes of a row and restart; the verdict comes on top.
        alpha: share of the k that the first queries move; it falls as they are spent (`swapped_share`).
        restarts: independent runs; each goes on with the rows that are still standing.
        start: "random", or "best": the best point that other attacks came to (random where there is none).
        patience: as `Square`'s: after how many queries without enough progress a row gives up; 0 never.
    """

    queries: int = 5000
    alpha: float = 0.3
    restarts: int = 1
    start: Literal["random", "best"] = "random"
    patience: int = 0
    name: str = "sparse-rs"
    steps: int = 0
    draws: bool = True
    from_clean: bool = False
    needs: Needs = "scores"

    def __post_init__(self) -> None:
        if self.queries < 1 or self.restarts < 1 or self.patience < 0:
            raise InputError(
                Arg("queries", self.queries),
                Arg("restarts", self.restarts),
                Arg("patience", self.patience),
                remedy="pass at least 1 query and 1 restart, and patience 0 or more",
                where="sparse-rs",
            )
        if not 0 < self.alpha <= 1:
            raise InputError(
                Arg("alpha", self.alpha),
                remedy="pass the share that moves first, above 0, at most 1",
                where="sparse-rs",
            )
        if self.start not in ("random", "best"):
            raise InputError(Arg("start", self.start), remedy="pass 'random' or 'best'", where="sparse-rs")

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one example spend: the budget, or what it had spent when it gave up."""
        verdict = HELD_OUT if setting.random else 1
        least = min(self.patience or self.queries, self.queries)
        return Passes(1 + verdict, self.restarts * (least + verdict), self.restarts * (self.queries + verdict), 0, 0)

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
        """Attack every row; ``begin`` is where start="best" goes on.

        Raises:
            ThreatError: the threat does not count changes.
        """
        known = begin if self.start == "best" else None
        return restarted(problem, region, clean, key, known, self.restarts, self._search)

    @torch.no_grad()
    def _search(
        self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None
    ) -> tuple[Run, Tensor]:
        rows = Rows(problem.with_loss("margin"), region, clean, key, self.queries)
        walk = Walk(rows, _scattered(region, clean if begin is None else begin), key, _BLOCK)
        try:
            walk.begin(stripes=begin is None)
            while len(rows) and rows.asked < self.queries:
                walk.step(swapped_share(rows.asked, self.queries, self.alpha))
                if self.patience and rows.asked % self.patience == 0:
                    walk.give_up(self.patience)
        except VictimError as error:
            rows.ended = str(error)
        return walk.close()


def _scattered(region: Region, begin: Tree) -> dict[str, Painted]:
    """A canvas for each attacked input, under "" where there is one without a name."""
    if isinstance(region, ProductRegion):
        assert isinstance(begin, Mapping)
        return {name: Scattered.on(ball_of(part, "sparse-rs"), begin[name]) for name, part in region.parts.items()}
    assert isinstance(begin, Tensor)
    return {"": Scattered.on(ball_of(region, "sparse-rs"), begin)}


def sparse_rs(
    *,
    queries: int = 5000,
    alpha: float = 0.3,
    restarts: int = 1,
    start: Literal["random", "best"] = "random",
    patience: int = 0,
    oracle: Oracle | None = None,  # noqa: ARG001
) -> SparseRS:
    """Random sets of changed coordinates, kept where the margin shrinks (Croce et al. 2022, algorithms 1 and 2).

    It asks the attacked model itself, also where other attacks take their gradients from a surrogate.
    """
    return SparseRS(queries, alpha, restarts, start, patience)
