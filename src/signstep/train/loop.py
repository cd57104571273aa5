"""The one loop that every recipe shares: steps, looks, going back, checkpoints, and the choice of the best weights."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from signstep.engine import arrays
from signstep.engine.origin import contained
from signstep.engine.threat import ThreatModel
from signstep.engine.untouched import untouched
from signstep.io.folders import sweep
from signstep.model.declaration import Model
from signstep.model.space import Statistic
from signstep.train.alarm import Event, Reading, judge, parted
from signstep.train.checkpoints import latest_checkpoint, save_checkpoint
from signstep.train.deployed import trained_module
from signstep.train.log import write_log
from signstep.train.prepare import in_memory, most_held
from signstep.train.probe import cost, cost_of_selection, look, robust_rows
from signstep.train.recipes import TrainingRecipe, training_recipe
from signstep.train.rows import Inputs
from signstep.train.run import Run, Selection
from signstep.train.settings import Settings
from signstep.train.team import Fabric, Team

# Of the time, each, less than 5 % together; and never fewer than so many, however short the run.
_ALARM_SHARE, _CHOICE_SHARE = 0.025, 0.01
# The time of a pass of training in half precision in passes of a look, which has full precision.
_HALVED = 0.5
_LEAST_LOOKS, _LEAST_CHOICES = 10, 5
_ALARM_ROWS = 64
# A pass over few rows takes an accelerator as long as one over so many: it waits for the next kernel, not for work.
_LATENT_ROWS = 256
# A look that finds PGD and FGSM parted is followed by another in a fraction of the usual time: it takes two to call
# most collapses.
_SOONER = 4
_MOST_RECOVERIES = 3


@dataclass(frozen=True)
class Moment:
    """What a watcher may want to know after a step."""

    step: int
    total: int
    epoch: float
    loss: float
    rate: float
    rows_per_second: float
    reading: Reading | None
    event: Event | None


@dataclass(frozen=True)
class Trained:
    """What came of a run; the model itself holds the delivered weights and is in evaluation mode.

    Attributes:
        recipe: begun with.
        finished_with: the recipe of the last step: another one after a recovery.
        settings: of the run.
        threat: trained against.
        steps: optimiser steps of the trajectory that was kept, of ``total``.
        total: steps that were planned.
        readings: every look.
        selections: every validation.
        events: collapses, and what was done.
        best: the validation that the delivered weights were chosen by; None without validation rows.
        last: the last one.
        notes: what should be known.
        training_seconds: of steps.
        checking_seconds: of looks and validations.
        partial: stopped before the end.
        model: what was trained, declared as it was given: ready for `signstep.audit`.
        changed: whether the weights of the module that was given are others than before: it is trained in place.
    """

    recipe: TrainingRecipe
    finished_with: TrainingRecipe
    settings: Settings
    threat: ThreatModel
    steps: int
    total: int
    readings: tuple[Reading, ...]
    selections: tuple[Selection, ...]
    events: tuple[Event, ...]
    best: Selection | None
    last: Selection | None
    notes: tuple[str, ...]
    training_seconds: float
    checking_seconds: float
    partial: bool
    model: Model
    changed: bool

    @property
    def overfitting(self) -> str:
        """Robust overfitting, in words: the best against the last validation."""
        if self.best is None or self.last is None:
            return "no rows were held out: the last weights are delivered"
        text = (
            f"best at step {self.best.step}: {self.best.robust} of {self.best.rows} held-out rows stand against PGD; "
            f"last at step {self.last.step}: {self.last.robust}"
            f"{'' if self.last.rows == self.best.rows else f' of {self.last.rows}'}"
        )
        lost = self.best.robust - self.last.robust
        same = self.best.rows == self.last.rows  # they differ where a run went on on another device
        return f"{text} ({lost} lost again by then)" if same and lost > 0 else text


@contained
def fit(
    model: Model | nn.Module,
    x: "Inputs | arrays.Array",
    y: Tensor | arrays.Array | None = None,
    *,
    threat: ThreatModel,
    recipe: str | TrainingRecipe = "n-fgsm",
    settings: Settings | None = None,
    mean: Statistic = None,
    std: Statistic = None,
    fabric: Fabric | None = None,
    folder: Path | None = None,
    save_seconds: float = 30.0,
    watch: Callable[[Moment], bool | None] | None = None,
) -> Trained:
    """Train a classifier against an attacker, watch for collapse, and leave the best weights in ``model``.

    The same arguments give the same weights on a CPU, bit for bit, also when the run was killed and went on from
    ``folder`` in between. The process's random state is left as it was.

    Args:
        model: an nn.Module to class scores, or an `ss.Model` of one; trained in place.
        x: training inputs in raw units: a floating point tensor (N, ...); a NumPy array of floats, or of bytes that are
            divided by 255, such as ``numpy.load("x.npy", mmap_mode="r")`` for what does not fit into memory; or a torch
            Dataset of single examples (x, y).
        y: classes (N,), whole numbers from 0; None with a Dataset.
        threat: what may change, with an eps.
        recipe: see `signstep.train.TRAINING_RECIPES`.
        settings: see `Settings`.
        mean: of a bare module: it wants (x - mean) / std. The threat stays in raw units.
        std: see ``mean``.
        fabric: a ``lightning_fabric.Fabric`` that was launched: each process takes a part of every batch, on its own
            device. Precision stays the affair of ``settings``.
        folder: for checkpoints and the log; a run that lies there is gone on with. None keeps nothing.
        save_seconds: between two checkpoints, about.
        watch: called after every step; True ends the run there, to be gone on with from ``folder``.

    Returns:
        A `Trained` record.

    Raises:
        InputError: an argument does not fit.
        ModelError: the loss is not finite, or memory ran out.
        LoadError: the folder cannot be written.
    """
    begun = training_recipe(recipe)
    team = Team(fabric)
    declared = Model.of(model, mean=mean, std=std)
    outer = trained_module(declared)
    if fabric is not None:
        outer.to(fabric.device)
    run = Run(outer, x, y, threat, begun, settings or Settings(), team)
    notes: tuple[str, ...] = ()
    if folder is not None:
        if run.team.rank == 0:
            sweep(folder)
        state, notes = latest_checkpoint(folder, run.terms)
        if state is not None:
            run.load(state)
            notes = (*notes, f"went on from step {run.step}")
    with untouched(), in_memory(run):
        stopped = _Loop(run, begun, folder, save_seconds, watch).go()
    outer.load_state_dict(run.best["weights"] if run.best else run.delivered.state_dict())
    outer.eval()
    return Trained(
        recipe=begun,
        finished_with=run.recipe,
        settings=run.settings,
        threat=threat,
        steps=run.step,
        total=run.total,
        readings=tuple(run.readings),
        selections=tuple(run.selections),
        events=tuple(run.events),
        best=Selection(**run.best["selection"]) if run.best else None,
        last=run.selections[-1] if run.selections else None,
        notes=(*notes, *run.layout_notes, *run.compiled.notes, *_stuck(run)),
        training_seconds=run.training_seconds,
        checking_seconds=run.checking_seconds,
        partial=stopped,
        model=declared,
        changed=run.step > 0,
    )


def _stuck(run: Run) -> tuple[str, ...]:
    """At a large eps a network may give up at the start and answer everything alike; no attack changes that."""
    if not run.readings:
        return ()
    last = run.readings[-1]
    classes = run.rows.classes or int(run.held_y.max()) + 1
    alike = last.clean == last.pgd == last.fgsm and last.share(last.clean) < min(1.0, 2 / classes)
    if not alike or classes < 2:
        return ()
    return (
        f"the model answers nearly everything alike ({last.clean} of {last.examples} rows right, attacked or not): it "
        "gave up at the start; pass a longer warm_up, such as 0.4, or a smaller rate",
    )


class _Loop:
    def __init__(
        self,
        run: Run,
        begun: TrainingRecipe,
        folder: Path | None,
        save_seconds: float,
        watch: Callable[[Moment], bool | None] | None,
    ) -> None:
        self.run, self.folder, self.save_seconds, self.watch = run, folder, save_seconds, watch
        self.saved = time.perf_counter()
        held = len(run.held_x)
        least = 1 if run.device.type == "cpu" else _LATENT_ROWS
        self.alarm_rows, self.choice_rows = min(held, max(_ALARM_ROWS, least)), min(held, most_held(run.device))
        # Of the recipe begun with: a run that is gone on with after a recovery looks when the uninterrupted one does.
        step_cost = begun.cost * max(least, min(run.settings.batch, len(run.rows)))
        if run.settings.precision is not None:
            step_cost *= _HALVED
        self.alarm_every = run.settings.check_every or _every(
            cost() * max(least, self.alarm_rows), _ALARM_SHARE * step_cost, run.total // _LEAST_LOOKS
        )
        self.choice_every = _every(
            cost_of_selection() * max(least, self.choice_rows), _CHOICE_SHARE * step_cost, run.total // _LEAST_CHOICES
        )

    def go(self) -> bool:
        """Until the end, or until asked or made to stop; whether it was before the end."""
        run = self.run
        if run.events and run.events[-1].action == "stop":
            return True  # a checkpoint of a run that a collapse has ended
        while run.step < run.total:
            loss = run.advance()
            step, last = run.step, run.step == run.total
            reading = event = None
            if self.alarm_rows and (step % self.alarm_every == 0 or last or step == self._second_look()):
                reading, event = self._look(step)
            gone_on = event is None or event.action == "ignore"
            if self.choice_rows and gone_on and (step % self.choice_every == 0 or last):
                self._choose()
            wish = self.watch is not None and bool(self.watch(self._moment(loss, reading, event)))
            if event is not None and event.action == "stop":
                self._save(force=True)
                return True
            asked = run.team.agreed(wish)
            self._save(force=asked or run.step >= run.total)
            if asked and run.step < run.total:
                return True
        return False

    def _second_look(self) -> int | None:
        """When to look again out of turn: soon after a look in turn at which PGD and FGSM had parted.

        A function of the readings alone, so that a run that is gone on with looks when the uninterrupted one does.
        """
        run = self.run
        if not run.readings or not run.recipe.robust or any(event.action == "ignore" for event in run.events):
            return None
        newest = run.readings[-1]
        in_turn = newest.step % self.alarm_every == 0 and newest.attempt == run.attempt and newest.step >= run.warm
        return newest.step + max(1, self.alarm_every // _SOONER) if in_turn and parted(newest) else None

    def _look(self, step: int) -> tuple[Reading, Event | None]:
        run, began = self.run, time.perf_counter()
        rows = slice(self.alarm_rows)
        # In the warm-up against the eps that it has come to: at the full one every beginning looks like a collapse.
        threat = run.threat_of(step)
        # Looked at by the first process, so that no rounding makes two of them decide differently.
        own = run.team.rank == 0
        seen = run.team.agreed(
            look(run.model, run.held_x[rows], run.held_y[rows], threat, seed=run.settings.seed) if own else None
        )
        assert seen is not None
        run.checking_seconds += time.perf_counter() - began
        recent = run.losses[-self.alarm_every :]
        whole = run.training_seconds + run.checking_seconds
        reading = Reading(
            step=step,
            epoch=run.epoch,
            attempt=run.attempt,
            recipe=run.recipe.name,
            loss=sum(recent) / len(recent),
            speed=run.rows_trained / max(run.training_seconds, 1e-9),
            checking=run.checking_seconds / max(whole, 1e-9),
            **asdict(seen),
        )
        before = [past for past in run.readings if past.attempt == run.attempt and past.step >= run.warm]
        run.readings.append(reading)
        del run.losses[: -self.alarm_every]
        if not run.recipe.robust:
            return reading, None
        call = judge(reading, before)
        if not call.collapsed:
            if call.healthy:
                run.healthy = run.snapshot()
            return reading, None
        known = any(event.action == "ignore" for event in run.events)
        return reading, None if known else self._act(step, call.reasons)

    def _act(self, step: int, reasons: tuple[str, ...]) -> Event:
        run, action = self.run, self.run.settings.on_collapse
        name = run.recipe.name
        cured = self._cure(name)
        if action == "recover" and (run.attempt >= _MOST_RECOVERIES or cured is None):
            action, reasons = "stop", (*reasons, f"No cure is left after {run.attempt} recoveries.")
        if action != "recover" or cured is None:
            if action == "stop" and not run.best:
                run.restore(run.healthy)  # nothing was validated yet, and these weights are not to be delivered
            event = Event(step, reasons, action, None, name, name)
            run.events.append(event)
            return event
        event = Event(step, reasons, action, int(run.healthy["step"]), name, cured.name)
        run.cure(cured)
        run.events.append(event)
        return event

    def _cure(self, name: str) -> TrainingRecipe | None:
        """The cure asked for; else noise, then more inner steps. None where all of them have collapsed already."""
        for spec in (self.run.settings.cure, "n-fgsm", "pgd-at"):
            if spec is not None and (cured := training_recipe(spec)).name not in (name, *self._tried()):
                return cured
        return None

    def _tried(self) -> list[str]:
        return [event.before for event in self.run.events]

    def _choose(self) -> None:
        """Validate what would be delivered, and keep it if it is the best so far."""
        run, began = self.run, time.perf_counter()
        rows, model = slice(self.choice_rows), run.delivered
        own = run.team.rank == 0
        robust = run.team.agreed(
            robust_rows(model, run.held_x[rows], run.held_y[rows], run.threat, seed=run.settings.seed) if own else 0
        )
        found = Selection(run.step, robust, self.choice_rows)
        run.selections.append(found)
        if not run.best or found.share >= Selection(**run.best["selection"]).share:
            weights = {name: part.detach().clone() for name, part in model.state_dict().items()}
            run.best = {"selection": asdict(found), "weights": weights}
        run.checking_seconds += time.perf_counter() - began

    def _save(self, *, force: bool) -> None:
        if (
            self.folder is None
            or self.run.team.rank > 0
            or not (force or time.perf_counter() - self.saved >= self.save_seconds)
        ):
            return
        state: dict[str, Any] = self.run.state()
        self.folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self.folder, self.run.step, state)
        write_log(self.folder / "log.csv", self.run.readings)
        self.saved = time.perf_counter()

    def _moment(self, loss: float, reading: Reading | None, event: Event | None) -> Moment:
        run = self.run
        speed = run.rows_trained / max(run.training_seconds, 1e-9)
        rate = float(run.optimiser.param_groups[0]["lr"])
        return Moment(run.step, run.total, run.epoch, loss, rate, speed, reading, event)


def _every(one: float, allowed: float, most: int) -> int:
    """Steps between two looks of this cost, where each step allows so much for looks; at most so many."""
    return max(1, min(int(-(-one // allowed)), most))
