"""Explore: an even sample of the allowed set, gradients from the best of it, and small changes of the best of all."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from signstep.attacks.gradient.apgd import adaptive
from signstep.attacks.search.rows import Rows
from signstep.attacks.search.samples import Leaders, either, filling, nudged
from signstep.engine.attack import GradientAttack, Needs, displacement
from signstep.engine.interrupted import Run, found, settle
from signstep.engine.keys import Key
from signstep.engine.ledger import Ledger
from signstep.engine.moves import rose
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, Problem
from signstep.engine.region import Region
from signstep.engine.tree import Tree, leaves, per_row, take
from signstep.errors import GradientError, InputError, VictimError
from signstep.messages import Arg


@dataclass(frozen=True)
class Explore:
    """Look everywhere first, then uphill from the best places, then around the best one.

    1. ``samples`` points that fill the set evenly (`samples.filling`);
    2. APGD's steps along gradients from each of the ``starts`` best of them, where there are gradients;
    3. ``queries`` small changes of the best point, by steps that halve where nothing is gained (a pattern search:
       Hooke & Jeeves 1961; Kolda, Lewis & Torczon 2003).

    For objectives and models of few inputs whose gradient is zero or leads astray where they begin: saturated
    controllers, simulators, thresholds. Nothing but scores is needed; a row leaves as soon as it has fallen.

    Attributes:
        samples: points of the first part.
        starts: how many of them are climbed from; 0 for none.
        steps: gradients of each climb.
        queries: of the last part.
        even: fill the set; False draws every sample uniformly, and with no starts and no queries is the control.
        oracle: where gradients come from.
    """

    samples: int = 256
    starts: int = 5
    steps: int = 20
    queries: int = 200
    even: bool = True
    oracle: Oracle = field(default_factory=Autograd)
    name: str = "explore"
    draws: bool = True
    from_clean: bool = False
    needs: Needs = "scores"

    def __post_init__(self) -> None:
        counts = {"samples": self.samples, "starts": self.starts, "steps": self.steps, "queries": self.queries}
        for option, least in (("samples", 1), ("starts", 0), ("steps", 1), ("queries", 0)):
            if counts[option] < least:
                raise InputError(Arg(option, counts[option]), remedy=f"pass at least {least}", where="explore")
        if self.starts > self.samples:
            raise InputError(
                Arg("starts", self.starts),
                Arg("samples", self.samples),
                remedy="pass no more starts than samples to choose them from",
                where="explore",
            )

    @property
    def _climb(self) -> GradientAttack:
        return GradientAttack(
            self.name, adaptive(self.steps), self.steps, "best", oracle=self.oracle, loss="margin", keep="best"
        )

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one example spend; without gradients there are no climbs."""
        verdict = HELD_OUT if setting.random else 1
        asked = self.samples + verdict + (self.queries + 1 + verdict if self.queries else 0)
        return Passes(1 + verdict, asked, asked + self.starts * self._climb.passes(setting).most)

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
        """Attack every row; ``begin`` takes the place of the first point of the sample."""
        ledger, hunt = Ledger(problem.ids), problem.with_loss("margin")
        everyone = torch.arange(len(problem.ids), device=problem.ids.device, dtype=torch.int64)
        run, spent, leaders = self._sampled(hunt, region, clean, key.fold("sample"), begin)
        ledger.forwards.index_add_(0, everyone, spent)
        ended = settle(ledger, problem, everyone, run, key.fold("sample"))
        for start in range(self.starts):
            index = ledger.standing()
            if len(index) == 0 or ended is not None:
                break
            here, place = (take(part, index) for part in (clean, leaders.points[start]))
            try:
                climbed = self._climb(problem.take(index), region.take(index), here, key.fold("climb", start), place)
            except GradientError:
                break
            ledger.record(index, climbed.x, climbed.verdict)
            ledger.spend(index, climbed.forwards, climbed.backwards)
            ended = climbed.ended
        index = ledger.standing()
        if self.queries and len(index) and ended is None:
            assert ledger.point is not None
            folded = key.fold("around")
            best = take(ledger.point, index)
            run, spent = self._around(hunt.take(index), region.take(index), take(clean, index), folded, best)
            ledger.forwards.index_add_(0, index, spent)
            ended = settle(ledger, problem.take(index), index, run, folded)
        return found(ledger, region, ended)

    @torch.no_grad()
    def _sampled(
        self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None
    ) -> tuple[Run, Tensor, Leaders]:
        live = Rows(problem, region, clean, key, self.samples)
        leaders: Leaders | None = None
        try:
            while len(live) and live.asked < self.samples:
                draws = key.draws(live.problem.ids, leaves(clean)[0].device)
                number = live.asked
                d = (
                    filling(live.region, draws, number, self.samples)
                    if self.even
                    else live.region.sample(draws.of("point", number))
                )
                point = live.region.land(d) if number or begin is None else take(begin, live.live)
                score = live.ask(point)
                if leaders is None:
                    leaders = Leaders(clean, score.loss, max(1, self.starts))
                leaders.meet(live.live, point, score.loss)
                _leave(live, point, score.fooled, score.answer)
        except VictimError as error:
            live.ended = str(error)
        if leaders is None:  # the victim never answered
            leaders = Leaders(clean, region.radius, max(1, self.starts))
        best = take(leaders.points[0], live.live)
        run, spent = live.close(best, torch.zeros_like(live.live, dtype=torch.bool), None)
        return run, spent, leaders

    @torch.no_grad()
    def _around(self, problem: Problem, region: Region, clean: Tree, key: Key, best: Tree) -> tuple[Run, Tensor]:
        live = Rows(problem, region, clean, key, self.queries + 1)
        d, step, failed = (
            displacement(best, clean),
            torch.full_like(region.radius, 0.5),
            torch.zeros_like(region.radius),
        )
        point, answer = best, None
        size = sum(part[0].numel() for part in leaves(clean))
        try:
            score = live.ask(best)
            loss, answer = score.loss, score.answer
            while len(live) and live.asked < self.queries + 1:
                draws = key.fold("query", live.asked).draws(live.problem.ids, leaves(clean)[0].device)
                tried = nudged(live.region, d, step, draws, together=live.asked % 4 == 0)
                there = live.region.land(tried)
                score = live.ask(there)
                better = rose(score.loss, loss) | (torch.isnan(loss) & ~torch.isnan(score.loss)) | score.fooled
                d, point = either(better, tried, d), either(better, there, point)
                loss = torch.where(better, score.loss, loss)
                answer = torch.where(per_row(better, score.answer), score.answer, answer)
                failed = torch.where(better, 0.0, failed + 1)
                short = failed >= 2 * size
                step, failed = torch.where(short, step / 2, step), torch.where(short, 0.0, failed)
                stay = _leave(live, point, score.fooled, answer)
                if stay is not None:
                    d, point, loss, answer = take(d, stay), take(point, stay), loss[stay], answer[stay]
                    step, failed = step[stay], failed[stay]
        except VictimError as error:
            live.ended = str(error)
        return live.close(point, torch.zeros_like(live.live, dtype=torch.bool), answer)


def _leave(live: Rows, point: Tree, fooled: Tensor, answer: Tensor) -> Tensor | None:
    """Let rows go that have fallen, or cannot pay for more; the positions of those that stay, None where all do."""
    sure = live.sure(point, fooled)
    gone = sure | live.broke if live.problem.random else sure
    return live.leave(gone, point, sure, answer) if bool(gone.any()) else None


def explore(
    *,
    samples: int = 256,
    starts: int = 5,
    steps: int = 20,
    queries: int = 200,
    oracle: Oracle | None = None,
) -> Explore:
    """An even sample of the allowed set, gradients from its best points, small changes of the best of all."""
    return Explore(samples, starts, steps, queries, oracle=oracle or Autograd())


def uniform(samples: int) -> Explore:
    """As many uniform points, the best of which is returned: the control of `explore`."""
    return Explore(samples, 0, 1, 0, even=False, name="control")
