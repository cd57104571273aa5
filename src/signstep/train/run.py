"""A run: everything that training changes, in one place, so that it can be saved, gone back to and gone on from."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from signstep.core.keys import Key
from signstep.core.threat import ThreatModel
from signstep.core.untouched import reseed
from signstep.errors import InputError, ModelError, SignstepError
from signstep.train.alarm import Event, Reading
from signstep.train.augment import Placement, check_images
from signstep.train.averaging import Average
from signstep.train.craft import ball
from signstep.train.draws import BatchDraws
from signstep.train.loss import losses
from signstep.train.memory import Memory
from signstep.train.objectives import OBJECTIVES, Batch
from signstep.train.order import Order, split
from signstep.train.recipes import TrainingRecipe
from signstep.train.settings import Settings

# Alias for torch versions that do not have the newer name.
_OUT_OF_MEMORY: type[Exception] = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class Selection:
    """A validation: after ``step`` steps ``robust`` of ``rows`` held-out rows stand against PGD."""

    step: int
    robust: int
    rows: int


class Run:
    """The state of a training run, and one step of it.

    Args:
        model: trained in place.
        x: training inputs (N, ...), raw.
        y: labels (N,) int64.
        threat: what an attacker may change.
        recipe: to begin with.
        settings: all else.

    Raises:
        InputError: data, threat or settings do not fit.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, recipe: TrainingRecipe, settings: Settings
    ) -> None:
        self.model, self.threat, self.recipe, self.settings = model, threat, recipe, settings
        self.key = Key(settings.seed).fold("train")
        self.device = next((part.device for part in model.parameters()), torch.device("cpu"))
        _check(x, y, settings)
        if isinstance(threat.eps, Tensor) and threat.eps.ndim:
            raise InputError("eps is given for each example; training takes batches in any order: pass one number")
        ball(x, threat)  # says what is wrong with data or threat before any work is done
        kept, held = split(len(x), settings.validation, self.key)
        self.x, self.y = x[kept].to(self.device), y[kept].to(self.device)
        self.held_x, self.held_y = x[held].to(self.device), y[held].to(self.device)
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.order = Order(len(self.x), settings.batch, self.key)
        # Free makes fewer passes over the data, so that its steps are as many as those of the others.
        self.total = -(-settings.epochs // recipe.replays) * self.order.batches * recipe.replays
        self.optimiser = settings.made(part for part in model.parameters() if part.requires_grad)
        self._rates = [float(group["lr"]) for group in self.optimiser.param_groups]
        self.average = Average(model, settings.average) if settings.average else None
        self.memory = Memory()
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
        text = json.dumps([settings, asdict(self.recipe), str(self.threat), shapes], sort_keys=True)
        digest = hashlib.sha256(text.encode())
        for part in (self.x, self.y):
            digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()

    def advance(self) -> float:
        """One optimiser step; the loss before it.

        Raises:
            ModelError: the loss is not finite; the weights are as they were before the step.
        """
        began = time.perf_counter()
        seed = self.key.fold("step", self.step, self.attempt).integer()
        reseed(seed)  # dropout, and whatever else the model draws
        self._generator.manual_seed(seed)
        epoch, place = divmod(self.visit, self.order.batches)
        if self.recipe.reset and place == 0 and epoch and epoch % self.recipe.reset == 0:
            self.memory.forget()
        self.model.train()
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.settings.factor(self.step, self.total)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"the loss became {value} at step {self.step} of {self.total} (epoch {self.epoch:.1f}): training "
                "diverged; pass a smaller rate, or a longer warm_up"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        if self.average is not None:
            self.average.follow(self.model)
        self.step += 1
        self.replay += 1
        if self.replay >= self.recipe.replays:
            self.visit, self.replay = self.visit + 1, 0
        self.losses.append(value)
        self.training_seconds += time.perf_counter() - began
        return value

    def threat_of(self, step: int) -> ThreatModel:
        """The threat model at the eps that the warm-up has come to after so many steps."""
        share = self.settings.share(max(step - 1, 0), self.total)
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
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, which stays what it is."""
        self.step, self.visit, self.replay = (snapshot[name] for name in ("step", "visit", "replay"))
        self.model.load_state_dict(snapshot["model"])
        self.optimiser.load_state_dict(copy.deepcopy(snapshot["optimiser"]))
        if self.average is not None:
            self.average.load(snapshot["average"])
        self.memory.load({name: part.to(self.device) for name, part in snapshot["memory"].items()})

    def cure(self, recipe: TrainingRecipe) -> None:
        """Go back to the last healthy point, and on with another recipe."""
        self.restore(self.healthy)
        self.recipe, self.memory, self.replay = recipe, Memory(), 0

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

    def _loss(self) -> Tensor:
        rows = self.order(self.visit).to(self.device)
        self.rows_trained += len(rows)
        x, y = self.x[rows], self.y[rows]
        draws = BatchDraws(len(rows), self.device, self._generator)
        frame = None
        if self.settings.crop or self.settings.flip:
            # By the visit: a batch that free replays is seen the same way each time, as its perturbation is.
            here = torch.Generator().manual_seed(self.key.fold("placement", self.visit).integer())
            seen = BatchDraws(len(rows), self.device, here)
            placement = Placement.drawn(seen, self.settings.crop, flip=self.settings.flip)
            x, frame = placement.apply(x), placement.frame
        if self.settings.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        region = ball(x, self.threat, share=self.settings.share(self.step, self.total), check=False)
        batch = Batch(self.model, x, y, self.recipe, region, draws, self.rowwise, self.learnt, self.memory, rows, frame)
        precision = self.settings.precision
        with nullcontext() if precision is None else torch.autocast(self.device.type, dtype=precision):
            return OBJECTIVES[self.recipe.objective](batch)

    @contextmanager
    def in_memory(self) -> Iterator[None]:
        """Say in one sentence that memory ran out.

        Raises:
            ModelError: it did.
        """
        try:
            yield
        except (_OUT_OF_MEMORY, MemoryError, RuntimeError) as error:
            # The CPU's allocator raises a plain RuntimeError.
            if type(error) is RuntimeError and "allocate memory" not in str(error):
                raise
            if isinstance(error, SignstepError):
                raise
            raise ModelError(
                f"memory ran out at step {self.step} of {self.total} with batch={self.settings.batch}; pass a smaller "
                "batch, what was saved stays"
            ) from error


def _check(x: Tensor, y: Tensor, settings: Settings) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2:
        raise InputError(f"x is {_said(x)}; pass one floating point tensor (N, ...) in raw input units")
    if y.shape != (len(x),) or y.is_floating_point():
        raise InputError(f"y is {_said(y)} for {len(x)} rows; pass class numbers, int64 ({len(x)},)")
    if len(x) < 8:
        raise InputError(f"x has {len(x)} rows; training needs at least 8")
    if settings.validation == 0 and settings.on_collapse != "ignore":
        raise InputError(
            f"validation=0 leaves no rows to see a collapse by, and on_collapse={settings.on_collapse!r}; hold some "
            "out, or pass on_collapse='ignore'"
        )
    check_images(x, settings.crop, flip=settings.flip)


def _said(part: object) -> str:
    return f"a tensor of shape {tuple(part.shape)}, {part.dtype}" if isinstance(part, Tensor) else type(part).__name__
