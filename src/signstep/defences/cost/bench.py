"""What rows of the cost table are measured with: the same examples, threat and attacks for all."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from signstep.auditing.result import Result
from signstep.auditing.run import Run, audit
from signstep.defences.cost.record import CostRow, worth
from signstep.engine.attack import Attack
from signstep.engine.keys import Key
from signstep.engine.statistics import mcnemar
from signstep.engine.threat import ThreatModel
from signstep.engine.untouched import untouched
from signstep.engine.ways import GradientPath
from signstep.model.declaration import Model
from signstep.model.drawn import drawn_anew
from signstep.model.search import Search

BATCHES = (1, 64)
_TIMES, _SECONDS = 7, 2.0


@runtime_checkable
class Candidate(Protocol):
    """A defence that measures itself: a detector with its policy, say."""

    @property
    def name(self) -> str:
        """Of its row."""

    @property
    def kind(self) -> str:
        """Such as "detector"."""

    def measured(self, bench: "Bench") -> CostRow:
        """Its row; ``bench.row`` fills in what follows from the rest."""


@dataclass(frozen=True, eq=False)
class Bench:
    """The undefended model, the examples, and how they are attacked.

    Attributes:
        model: undefended.
        x: inputs (R, ...) in the declared units.
        y: labels (R,), or None for the model's own answers.
        threat: what may change.
        attacks: that every row meets.
        search: how; its gradient_path is set for each measurement.
        base: the audit of the undefended model.
    """

    model: Model
    x: Tensor
    y: Tensor | None
    threat: ThreatModel
    attacks: tuple[str | Attack, ...]
    search: Search
    base: Result | None = None

    def audited(self, model: Model, path: GradientPath = "aware") -> Result:
        """The attacks on a model, by one who knows of its transformations or by one who does not."""
        return audit(
            model,
            [(self.x, self.y)],
            threat=self.threat,
            attacks=self.attacks,
            curve=False,
            search=replace(self.search, gradient_path=path),
            run=Run(device=self.x.device),
        )

    def against_base(self, letters: Sequence[str]) -> float:
        """The exact paired test of who holds ("h"), against the undefended model."""
        assert self.base is not None
        pairs = list(zip(self.base.worst_case, letters, strict=True))
        lost = sum(before == "h" and after != "h" for before, after in pairs)
        won = sum(before != "h" and after == "h" for before, after in pairs)
        return mcnemar(lost, won)

    def row(self, name: str, kind: str, *, clean: float, training: str, ease: str, **given: Any) -> CostRow:
        """A row with its sentence; what is not given is not known.

        Args:
            name: of the row.
            kind: of the row.
            clean: share of examples right untouched.
            training: what it costs to make.
            ease: how hard it is to bring in.
            given: further fields of a `CostRow`; a verdict that is given stands.
        """
        assert self.base is not None
        plain = {"unaware": None, "aware": None, "p": None, "latency": None, "verdict": ""}
        made = CostRow(name=name, kind=kind, clean=clean, training=training, ease=ease, **{**plain, **given})
        if made.verdict:
            return made
        return replace(made, verdict=worth(self.base.clean_accuracy, self.base.robust_accuracy, made))

    def caller(self, model: Model) -> Callable[[Tensor], Any]:
        """What a model does with raw inputs in use: its transformations drawn, its scores."""
        predictor = drawn_anew(model, model.space(), Key(self.search.seed).fold("latency"))

        def call(x: Tensor) -> Any:
            with untouched(model.network, mode=model.mode):
                return predictor(x)

        return call

    @torch.no_grad()
    def latency(self, call: Callable[[Tensor], Any]) -> tuple[float, float]:
        """Time for batches of 1 and 64, as a multiple of the undefended model's: medians, measured in turn."""
        plain = self.caller(self.model)
        return tuple(self._ratio(call, plain, rows) for rows in BATCHES)  # type: ignore[return-value]

    def _ratio(self, call: Callable[[Tensor], Any], plain: Callable[[Tensor], Any], rows: int) -> float:
        index = torch.arange(rows, device=self.x.device, dtype=torch.int64) % len(self.x)
        space = self.model.space()
        x = space.to_raw(self.x[index]) if space.inputs == "normalised" else self.x[index]
        spent: tuple[list[float], list[float]] = ([], [])
        began = time.perf_counter()
        for number in range(_TIMES + 1):
            for place, one in enumerate((call, plain)):
                start = time.perf_counter()
                one(x)
                if x.is_cuda:
                    torch.cuda.synchronize()
                if number:  # the first of each warms up
                    spent[place].append(time.perf_counter() - start)
            if number and time.perf_counter() - began > _SECONDS:
                break
        return statistics.median(spent[0]) / statistics.median(spent[1])
