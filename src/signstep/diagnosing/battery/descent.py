"""Did the search end?"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from signstep.attacks.recipes import recipe
from signstep.diagnosing.bench import Bench, Cure, ladder_of
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.attack import GradientAttack
from signstep.engine.keys import Key
from signstep.engine.oracles import Around
from signstep.engine.problem import Problem
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree
from signstep.errors import GradientError
from signstep.model.search import Search
from signstep.model.subject import Subject

FEW = 24
LAST = 10
# Of the range of the loss over the run, by which its best may still rise in the last ten steps.
RISING = 0.05
# Of the examples that the attack left standing.
MANY = 0.5

CAUSE = "search ended early"


@dataclass(frozen=True)
class _Recorder(Around):
    """Another oracle, whose losses are written down by example."""

    losses: dict[int, list[float]] = field(default_factory=dict)

    @property
    def warms(self) -> bool:
        """As the inner one would be, without sharing."""
        return False

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        score, gradient = self.inner(problem, point, key, cotangent)
        for identity, loss in zip(problem.ids.tolist(), score.loss.tolist(), strict=True):
            self.losses.setdefault(identity, []).append(loss)
        return score, gradient


def _run(bench: Bench) -> Observed:
    if ladder_of(bench.attack) is not None:
        return not_asked("a ladder goes on where a rung ends")
    index = bench.held.nonzero().squeeze(1)[:FEW]
    search: Search = bench.search
    attack = recipe(bench.attack, oracle=Subject.of(bench.model, search).oracle)
    if not isinstance(attack, GradientAttack) or attack.steps < 2:
        return not_asked("the attack does not climb step by step")
    bench.need(attack.steps * 2 * len(index))
    recorder = _Recorder(inner=attack.oracle)
    try:
        with bench.asking(index) as question:
            outcome = question.run(replace(attack, oracle=recorder, restarts=1), Key(search.seed).fold(attack.name))
    except GradientError:
        return not_asked("there is no path for gradients, see graph")
    bench.spend(int(outcome.forwards.sum() + outcome.backwards.sum()))
    rising = [_rise(losses) for losses in recorder.losses.values() if len(losses) > 1]
    share = sum(rise > RISING for rise in rising) / max(1, len(rising))
    told = (
        f"the best loss still rises by more than {RISING:.0%} of its range in the last steps on {share:.0%} of examples"
    )
    if share <= MANY:
        return Observed(share, False, told)
    cures = (Cure("apgd:loss=margin,steps=100"), Cure(_longer(bench.attack, attack)))
    return Observed(share, True, told, suspects=(Suspect(CAUSE, told, cures),))


def _rise(losses: list[float]) -> float:
    """The rise of the best loss over the last ten steps, or the last quarter of short runs, as a share of its range."""
    best = torch.tensor(losses, dtype=torch.float64, device="cpu").nan_to_num(0.0, 0.0, 0.0).cummax(0).values
    span = float(best[-1] - best[0])
    back = min(LAST, max(1, len(losses) // 4))
    return float(best[-1] - best[-1 - back]) / span if span > 0 else 0.0


def _longer(spec: Any, attack: GradientAttack) -> str:
    base = spec.partition(":")[0] if isinstance(spec, str) else "pgd"
    return f"{base if base in ('bim', 'mi-fgsm') else 'pgd'}:steps={5 * attack.steps}"


ROW = Test(
    "descent",
    "Did the search end?",
    f"share of examples whose best loss rises by more than {RISING} of its range in the last {LAST} steps",
    f"above {MANY}",
    "Pintor et al. 2022 (arXiv:2106.09947), F4",
    (CAUSE,),
    "five times the steps; apgd, which chooses its own",
    f"the attack once more, on at most {FEW} examples",
    _run,
)
