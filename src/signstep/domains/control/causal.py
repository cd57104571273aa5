"""An attacker who does not know the future: each error is decided from the state reached so far.

The other attacks are open-loop: they know the start and plan the whole series of errors at once, against a plant that
follows its model exactly. This one sees the true state at each sample, looks ahead over a short horizon with the same
model, and takes the engine's own FGSM step for this one sample.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from signstep.attacks.recipe import Recipe
from signstep.domains.control.rollout import ClosedLoop
from signstep.domains.control.threat import SensorRegion
from signstep.engine.attack import Needs
from signstep.engine.interrupted import Run, found, settle
from signstep.engine.keys import Key
from signstep.engine.ledger import Ledger
from signstep.engine.norms import Linf
from signstep.engine.oracles import Autograd
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, ModelProblem, Problem
from signstep.engine.region import BallRegion, ProductRegion, Region
from signstep.engine.tasks import Aim, Objective
from signstep.engine.threat import threat_model
from signstep.engine.tree import Tree
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.predictor import Predictor

_LONGEST = 10**6  # samples of a game: the schema says how many there are, not the attack


class Ahead(nn.Module):
    """The loop over the next ``horizon`` samples, wrong by ``now`` (R, 1, S) in the first ``held`` of them."""

    def __init__(self, loop: ClosedLoop, horizon: int, held: int) -> None:
        super().__init__()
        self.loop, self.horizon, self.held = loop, horizon, held

    def forward(self, now: Tensor, state: Tensor) -> Tensor:
        """The margin (R,) at the worst moment of the horizon."""
        later = now.new_zeros(now.shape[0], self.horizon - self.held, now.shape[2])
        margin: Tensor = self.loop(error=torch.cat([now.expand(-1, self.held, -1), later], 1), start=state)
        return margin


@dataclass(frozen=True)
class CausalFgsm:
    """FGSM sample by sample: e_t = the corner of what is allowed after e_(t-1), by the gradient of the margin ahead.

    The margin ahead is that of the next ``horizon`` samples if the sensors were wrong by e_t for ``held`` samples and
    right afterwards. Sensors of the shapes "bias" and "drift" are left alone: their one number binds all samples, and
    an attacker who cannot see ahead has none to choose by.

    Attributes:
        loop: the closed loop, which the attacker has a model of.
        horizon: samples to look ahead.
        held: samples for which the error is thought to last.
    """

    loop: ClosedLoop
    horizon: int = 30
    held: int = 1
    name: str = "causal-fgsm"
    steps: int = 1
    draws: bool = False
    from_clean: bool = False
    needs: Needs = "gradients"

    def __post_init__(self) -> None:
        if not 1 <= self.held <= self.horizon:
            raise InputError(
                Arg("horizon", self.horizon),
                Arg("held", self.held),
                remedy="pass 1 <= held <= horizon",
                where="causal-fgsm",
            )

    def __str__(self) -> str:
        return self.name

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one example spend: a look for each sample of a game, which ends where the loop fails."""
        verdict = HELD_OUT if setting.random else 1
        return Passes(verdict, verdict, _LONGEST + verdict)

    def __call__(
        self,
        problem: Problem,
        region: Region,
        clean: Tree,
        key: Key,
        begin: Tree | None = None,  # noqa: ARG002
    ) -> Found:
        """Attack every row, the start of which is the problem's frozen input "start"."""
        here = _sensors(region)
        if not isinstance(problem, ModelProblem) or not isinstance(clean, dict):
            raise InputError(
                "causal-fgsm needs a closed loop with the inputs error and start", remedy="attack a ClosedLoop"
            )
        start = problem.frozen["start"]
        ledger = Ledger(problem.ids)
        everyone = torch.arange(len(start), device=start.device, dtype=torch.int64)
        error = self._played(here, start, ledger)
        ended = settle(ledger, problem, everyone, Run({"error": error}, torch.zeros_like(everyone).bool()), key)
        return found(ledger, region, ended)

    def _played(self, region: SensorRegion, start: Tensor, ledger: Ledger) -> Tensor:
        """The errors (R, T, S) of one game."""
        samples = region.bound.shape[0]
        free = torch.tensor([sensor.shape == "free" for sensor in region.sensors.parts], dtype=torch.bool, device="cpu")
        bound = region.bound * free
        rates = [torch.inf if sensor.rate is None else sensor.rate for sensor in region.sensors.parts]
        jump = region.radius[:, None] * bound.new_tensor(rates) * region.sensors.interval
        problem = _AheadProblem(Predictor(Ahead(self.loop, self.horizon, self.held), None, "logits"), ledger)
        state, wrong, errors = start.double(), torch.zeros_like(start).double(), []
        for t in range(samples):
            reach = region.radius[:, None] * bound[t]
            low, high = torch.maximum(-reach, wrong - jump), torch.minimum(reach, wrong + jump)
            # Rounding may leave a hair of an error where none is allowed: the bound has the last word.
            wrong = torch.clamp(torch.minimum(torch.maximum(wrong, low), high), -reach, reach)
            low, high = torch.minimum(low, wrong), torch.maximum(high, wrong)
            going = (~self.loop.failed(state) & (high > low).any(1)).nonzero().squeeze(1)
            if len(going):
                moved = problem.step(state[going], wrong[going], low[going], high[going], going)
                wrong = wrong.index_copy(0, going, moved)
            errors.append(wrong.to(start.dtype))
            with torch.no_grad():
                state = self.loop.step(state, errors[-1])
        return torch.stack(errors, 1)


@dataclass(frozen=True)
class _AheadProblem:
    """FGSM for one sample, through the engine's own oracle, region and accounts."""

    predictor: Predictor
    ledger: Ledger

    def step(self, state: Tensor, wrong: Tensor, low: Tensor, high: Tensor, owners: Tensor) -> Tensor:
        """The error (R, S) to make now: the steepest one of the box [low, high] around ``wrong``."""
        now = wrong[:, None]
        problem = ModelProblem(self.predictor, Objective(), Aim(None), "value", owners, frozen={"state": state})
        region = ProductRegion(
            {"now": BallRegion.around(now, threat_model(Linf(), None, box=(low[:, None], high[:, None])))}
        )
        _, gradient = Autograd()(problem, {"now": now}, Key(0))
        gradient = self.ledger.count(owners, region, gradient)
        self.ledger.spend(owners, 1, 1)
        point = region.land(region.steepest(region.restrict(gradient)))
        assert isinstance(point, dict)
        return point["now"][:, 0]


def _sensors(region: Region) -> SensorRegion:
    part: Any = region.parts.get("error") if isinstance(region, ProductRegion) else region
    if not isinstance(part, SensorRegion):
        raise InputError(
            "causal-fgsm needs the errors of sensors", remedy="pass sensor_threat(...) for the input error"
        )
    return part


def causal_row(loop: ClosedLoop | None = None) -> Recipe:
    """The row of a table; its attack is on ``loop``."""

    def build(*, horizon: int = 30, held: int = 1) -> CausalFgsm:
        if loop is None:
            raise InputError("causal-fgsm is played in a closed loop; recorded series have none", remedy="drop it")
        return CausalFgsm(loop, horizon, held)

    return Recipe(
        "causal-fgsm",
        build,
        "the FGSM step for one sample at a time, looking ahead from the state that was reached",
        "Signstep, documented in Sensors and controllers",
        "gradients of controller and plant, and the true state, but not the future",
        "samples x horizon steps of the plant, there and back",
    )


RECIPES = {"causal-fgsm": causal_row()}
"""Attacks of closed loops alone."""
