"""A run: everything that training changes, in one place, so that it can be saved, gone back to and gone on from."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from signstep.engine import arrays
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel
from signstep.engine.untouched import reseed
from signstep.errors import ModelError, SignstepError
from signstep.messages import Arg
from signstep.model.layout import channels_last, overrun, to_channels_first
from signstep.train.alarm import Event, Reading
from signstep.train.async_copies import item_later, sent
from signstep.train.augment import Placement
from signstep.train.averaging import Average
from signstep.train.compiled import Compiled
from signstep.train.craft import ball
from signstep.train.denormals import EVERY, flush_denormals
from signstep.train.draws import BatchDraws
from signstep.train.loss import losses
from signstep.train.memory import Memory
from signstep.train.objectives import OBJECTIVES, Batch
from signstep.train.order import Order
from signstep.train.prepare import OUT_OF_MEMORY, check_passes, check_team, prepare
from signstep.train.recipes import TrainingRecipe
from signstep.train.rows import Inputs
from signstep.train.settings import Settings
from signstep.train.team import Team

# Of the loss that the inner attack climbs in float16, as in Micikevicius et al. (2018, section 3.2): gradients down to
# 2e-10 are seen, and a loss whose gradient to the scores is at most 1 stays far from the largest half, 65504.
_INNER_SCALE = 256.0

# A recovery that goes back to the first tenth of a run raises eps anew, over this share of what is left of it.
_HARDLY, _ANEW = 0.1, 0.4


@dataclass(frozen=True)
class Selection:
    """A validation: after ``step`` steps ``robust`` of ``rows`` held-out rows stand against PGD."""

    step: int
    robust: int
    rows: int

    @property
    def share(self) -> float:
        """Of the rows; a run that goes on on another device may look at more of them, or fewer."""
        return self.robust / self.rows


class Run:
    """The state of a training run, and one step of it.

    Args:
        model: trained in place.
        x: training inputs (N, ...), raw; see `signstep.train.rows.rows_of`.
        y: labels (N,) int64; None with a Dataset.
        threat: what an attacker may change.
        recipe: to begin with.
        settings: all else.
        team: the processes that train together.

    Raises:
        InputError: data, threat or settings do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Inputs,
        y: Tensor | arrays.Array | None,
        threat: ThreatModel,
        recipe: TrainingRecipe,
        settings: Settings,
        team: Team | None = None,
    ) -> None:
        self.team = team or Team()
        self.model, self.threat, self.recipe, self.settings = model, threat, recipe, settings
        self.key = Key(settings.seed).fold("train")
        self.device = next((part.device for part in model.parameters()), torch.device("cpu"))
        check_team(self.team, recipe, settings)
        check_passes(recipe, settings)
        prepared = prepare(x, y, threat, settings, self.key, arrays.Home(model, device=self.device))
        self.rows, self.seen = prepared.rows, prepared.seen
        self.held_x, self.held_y = prepared.held_x, prepared.held_y
        self.channels_last, self.layout_notes = _laid_out(model, settings.channels_last, self.device)
        self.order = Order(len(self.rows), settings.batch, self.key, settings.focus)
        # Free makes fewer passes over the data, so that its steps are as many as those of the others.
        self.total = -(-settings.epochs // recipe.replays) * self.order.batches * recipe.replays
        self.optimiser = settings.made(part for part in model.parameters() if part.requires_grad)
        self._rates = [float(group["lr"]) for group in self.optimiser.param_groups]
        self.average = Average(model, settings.average) if settings.average else None
        self.memory = Memory(len(self.rows))
        self.scaler = torch.amp.GradScaler(self.device.type) if settings.autocast == "float16" else None
        self.compiled = Compiled(model, settings.compile, last=self.channels_last)
        self._generator = torch.Generator(device=self.device)
        self.rowwise, self.learnt = losses(settings.smoothing, None)
        # A digest of what the run is: a checkpoint of another one must not be gone on from.
        self.terms = self._terms()
        self.step = self.visit = self.replay = 0
        self.readings: list[Reading] = []
        self.selections: list[Selection] = []
        self.events: list[Event] = []
        self.losses: list[float] = []
        self.training_seconds = self.checking_seconds = 0.0
        self.rows_trained = 0
        self.best: dict[str, Any] = {}
        self.healthy = self.snapshot()

    @property
    def attempt(self) -> int:
        """How often the run has gone back."""
        return sum(event.action == "recover" for event in self.events)

    @property
    def epoch(self) -> float:
        """Passes over the training rows."""
        return self.visit / self.order.batches

    @property
    def delivered(self) -> nn.Module:
        """What is validated and would be delivered: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def _terms(self) -> str:
        settings = {field.name: getattr(self.settings, field.name) for field in fields(self.settings)}
        settings["optimiser"] = str(getattr(self.settings.optimiser, "__name__", self.settings.optimiser))
        shapes = {name: list(part.shape) for name, part in self.model.state_dict().items()}
        own = self.model.extra_repr()  # mean and std, where they are declared
        text = json.dumps(
            [settings, asdict(self.recipe), str(self.threat), shapes, own, self.team.size], sort_keys=True
        )
        return hashlib.sha256(text.encode() + self.rows.digest()).hexdigest()

    def advance(self) -> float:
        """One optimiser step; the loss before it.

        Raises:
            ModelError: the loss is not finite; the weights are as they were before the step.
        """
        began = time.perf_counter()
        epoch, place = divmod(self.visit, self.order.batches)
        if self.recipe.reset and place == 0 and epoch and epoch % self.recipe.reset == 0:
            self.memory.forget()
        self.model.train()
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.settings.factor(self.step, self.total)
        value = self._tried() if self.compiled.untried(self.recipe) else self._gradients()
        self.team.average(self.model)
        if self.settings.max_norm:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_norm)
        if self.scaler is None:
            self.optimiser.step()
        else:
            self.scaler.step(self.optimiser)
            self.scaler.update()
        if self.average is not None:
            self.average.follow(self.model)
        self.step += 1
        if self.step % EVERY == 0:
            flush_denormals(self.optimiser)
        self.replay += 1
        if self.replay >= self.recipe.replays:
            self.visit, self.replay = self.visit + 1, 0
        self.losses.append(value)
        self.training_seconds += time.perf_counter() - began
        return value

    def _tried(self) -> float:
        """The first gradients through compiled code; without it from where the step began, where that fails."""
        before = self.snapshot()
        try:
            value = self._gradients()
        except (SignstepError, OUT_OF_MEMORY, MemoryError):
            raise
        except Exception as error:  # compilers raise whatever their parts raise
            self.compiled.give_up(error)
            self.restore(before)
            return self._gradients()
        self.compiled.proven = True
        return value

    def _gradients(self) -> float:
        """Leave the gradients of this step in the weights; the loss, over all processes.

        Raises:
            ModelError: the loss is not finite.
        """
        where = () if self.team.rank == 0 else (self.team.rank,)
        seed = self.key.fold("step", self.step, self.attempt).integer()
        reseed(self.key.fold("step", self.step, self.attempt, *where).integer() if where else seed)  # dropout
        self._generator.manual_seed(seed)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss()
        arrived = item_later(loss)
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]
        value = self.team.mean(arrived(), self.device)
        if not math.isfinite(value):
            raise ModelError(
                f"the loss became {value} at step {self.step} of {self.total} (epoch {self.epoch:.1f}): "
                "training diverged",
                remedy=("pass a smaller", Arg("rate"), ", or a longer", Arg("warm_up")),
            )
        return value

    def share(self, step: int) -> float:
        """Of eps at a step: 1 but for the warm-up, and for that of a cure that began with a hardly trained model."""
        whole = self.settings.share(step, self.total)
        since = self._begun_anew()
        return whole if since is None else min(whole, (step + 1 - since) / (_ANEW * (self.total - since)))

    @property
    def warm(self) -> float:
        """The step from which on eps is whole."""
        since = self._begun_anew()
        own = (self.settings.hold + self.settings.warm_up) * self.total
        return own if since is None else max(own, since + _ANEW * (self.total - since))

    def _begun_anew(self) -> int | None:
        """Where the last recovery went back to, if that was the beginning of the run.

        Weights that have hardly been trained give up at the full eps, and answer everything alike.
        """
        back = [event.back_to for event in self.events if event.back_to is not None]
        return back[-1] if back and back[-1] < _HARDLY * self.total else None

    def threat_of(self, step: int) -> ThreatModel:
        """The threat model at the eps that the warm-up has come to after so many steps."""
        share = self.share(max(step - 1, 0))
        if share == 1.0 or self.threat.eps is None:
            return self.threat
        return self.threat.with_eps(float(self.threat.eps) * share)

    def snapshot(self) -> dict[str, Any]:
        """What going back needs: a copy."""
        return {
            "step": self.step,
            "visit": self.visit,
            "replay": self.replay,
            "model": {name: part.detach().clone() for name, part in self.model.state_dict().items()},
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "average": None if self.average is None else self.average.state(),
            "memory": self.memory.state(),
            "order": self.order.state(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, which stays what it is."""
        self.step, self.visit, self.replay = (snapshot[name] for name in ("step", "visit", "replay"))
        self.model.load_state_dict(snapshot["model"])
        self.optimiser.load_state_dict(copy.deepcopy(snapshot["optimiser"]))
        if self.average is not None:
            self.average.load(snapshot["average"])
        self.memory.load({name: part.to(self.device) for name, part in snapshot["memory"].items()})
        self.order.load(snapshot["order"])
        if self.scaler is not None and snapshot["scaler"]:
            self.scaler.load_state_dict(snapshot["scaler"])

    def cure(self, recipe: TrainingRecipe) -> None:
        """Go back to the last healthy point, and on with another recipe."""
        self.restore(self.healthy)
        self.recipe, self.memory, self.replay = recipe, Memory(len(self.rows)), 0

    def state(self) -> dict[str, Any]:
        """All of the run, in tensors and plain values."""
        return {
            "terms": self.terms,
            "now": self.snapshot(),
            "healthy": self.healthy,
            "best": self.best,
            "recipe": asdict(self.recipe),
            "readings": [asdict(part) for part in self.readings],
            "selections": [asdict(part) for part in self.selections],
            "events": [asdict(part) for part in self.events],
            "losses": self.losses,
            "seconds": [self.training_seconds, self.checking_seconds, self.rows_trained],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.recipe = TrainingRecipe(**state["recipe"])
        self.readings = [Reading(**part) for part in state["readings"]]
        self.selections = [Selection(**part) for part in state["selections"]]
        self.events = [Event(**{**part, "reasons": tuple(part["reasons"])}) for part in state["events"]]
        self.losses = list(state["losses"])
        self.training_seconds, self.checking_seconds, self.rows_trained = state["seconds"]
        self.best, self.healthy = state["best"], state["healthy"]
        self.restore(state["now"])

    def _faded(self) -> TrainingRecipe:
        """The recipe with its weight at this step."""
        recipe = self.recipe
        if recipe.fade == 1:
            return recipe
        gone = max(0.0, (self.step - self.warm) / max(1.0, self.total - self.warm))
        return replace(recipe, weight=recipe.weight * (1 + (recipe.fade - 1) * gone), fade=1.0)

    def _loss(self) -> Tensor:
        """The mean over this process's rows, weighted so that the mean over processes is that over the batch."""
        rows, team = self.order(self.visit), self.team
        part = None if team.size == 1 else team.part
        whole = len(rows)
        if part is not None:
            rows = rows[part]
        self.rows_trained += whole
        x, y = (sent(part_, self.device) for part_ in self.rows.take(rows))
        draws = BatchDraws(whole, self.device, self._generator, part)
        frame = None
        if (self.settings.crop or self.settings.flip) and self.step < self.settings.augment * self.total:
            # By the visit: a batch that free replays is seen the same way each time, as its perturbation is.
            here = torch.Generator().manual_seed(self.key.fold("placement", self.visit).integer())
            seen = BatchDraws(whole, self.device, here, part)
            placement = Placement.drawn(seen, self.settings.crop, flip=self.settings.flip)
            x, frame = placement.apply(x), placement.frame
        if self.channels_last:
            x = channels_last(x)  # here as well, so that an inner attack of many steps does not bring each point there
        region = ball(x, self.threat, share=self.share(self.step), check=not self.seen)
        scale = 1.0 if self.scaler is None else _INNER_SCALE
        forward, ids = self.compiled.forward(self.recipe), sent(rows, self.device)
        losses_ = (self.rowwise, self.learnt)
        tell = partial(self.order.note, rows) if self.order.focus else None
        batch = Batch(forward, x, y, self._faded(), region, draws, *losses_, self.memory, ids, frame, scale, tell)
        precision = self.settings.precision
        with nullcontext() if precision is None else torch.autocast(self.device.type, dtype=precision):
            loss = OBJECTIVES[self.recipe.objective](batch)
        return loss if part is None else loss * (len(rows) * team.size / whole)


def _laid_out(model: nn.Module, wanted: bool, device: torch.device) -> tuple[bool, tuple[str, ...]]:
    """Bring the weights to channels-last where that is wanted and safe; whether they are, and what should be known."""
    layer = overrun(model) if device.type == "cpu" else None
    if layer is not None and (to_channels_first(model) or wanted):
        return False, (
            f"trained with channels first: on processors with AVX2 the weight gradient of {layer!r}, a 1x1 convolution "
            "of stride above 1 with fewer than 8 input channels, writes past its memory in channels-last",
        )
    if wanted:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return wanted, ()
