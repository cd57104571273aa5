"""Transformations one after the other, in front of a model: a transform that an attacker knows the ways past."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from signstep.attacks.stand_ins import lend
from signstep.defences.step import Ends, Step
from signstep.engine.keys import RowDraws
from signstep.engine.origin import foreign
from signstep.engine.transform import Transform
from signstep.engine.ways import Way, way
from signstep.errors import InputError, ModelError
from signstep.messages import Arg

_SLACK = 1e-4  # of the width of the box, by which a step may leave it: float32 rounds


@dataclass(frozen=True)
class Chain:
    """Steps in their order on raw inputs, then what the model declared before.

    What comes out is computed for real, whoever asks; backwards a step without a gradient borrows one (`engine.ways`).

    Attributes:
        steps: the transformations.
        ends: of valid inputs (low, high), which no step may leave.
        behind: the transform that the undefended model declares, if any.
    """

    steps: tuple[Step, ...]
    ends: Ends = (0.0, 1.0)
    behind: Transform | None = None

    def __post_init__(self) -> None:
        low, high = self.ends
        if not low < high:
            raise InputError(Arg("box", self.ends), remedy="pass the ends of valid inputs, (low, high) with low < high")

    @property
    def ways(self) -> tuple[Way, ...]:
        """Those that differ: without it, by its stand-ins, and as if steps that hide their gradient did nothing."""
        hides = any(step.hides for step in self.steps)
        return ("straight", "soft", "identity") if hides else ("straight", "soft")

    @property
    def random(self) -> bool:
        """Whether a step draws."""
        return any(step.random for step in self.steps)

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """The changed inputs (R, ...).

        Raises:
            InputError: inputs that are no floating point, or of which a step can make nothing.
            ModelError: a step changes the shape, leaves the box or gives NaN.
        """
        chosen = way()
        for number, step in enumerate(self.steps if chosen != "straight" else ()):
            u = self._passed(step, u, draws.of("defence", number), identity=chosen == "identity")
        return u if self.behind is None else self.behind(u, draws.of("behind"))

    def _passed(self, step: Step, u: Tensor, draws: RowDraws, *, identity: bool) -> Tensor:
        if not u.is_floating_point():
            raise InputError(f"{step.called} needs floating point, x is {u.dtype}", remedy="pass x.float()")
        led = torch.is_grad_enabled() and u.requires_grad
        past = step.hides and identity
        if step.own and not past:
            out = self._computed(step, u, draws)
        else:
            with torch.no_grad():
                out = self._computed(step, u.detach(), draws)
            if led:
                out = lend(out, u if past else step.soft(u, draws, self.ends))
        return out

    def _computed(self, step: Step, u: Tensor, draws: RowDraws) -> Tensor:
        with foreign(f"the defence {step.called}"):
            out = step.forward(u, draws, self.ends)
        if not isinstance(out, Tensor) or out.shape != u.shape:
            seen = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(
                f"the defence {step} returned {seen} for inputs of shape {tuple(u.shape)}",
                remedy="let it keep the shape: what resizes has to resize back",
            )
        out = out.to(u.dtype)
        low, high = self.ends
        slack = _SLACK * (high - low)
        inside = bool(((u >= low - slack) & (u <= high + slack)).all())
        lost = bool((out.isnan() & ~u.isnan()).any())  # wrong of any input, as those of a vote, which noise leads out
        if lost or (inside and not bool(((out >= low - slack) & (out <= high + slack)).all())):
            raise ModelError(
                f"the defence {step} returned values from {float(out.min()):.4g} to {float(out.max()):.4g}, outside of "
                f"[{low:g}, {high:g}]",
                remedy=("let it keep the range of its inputs, or pass", Arg("box"), "with the range that they have"),
            )
        return out

    @property
    def specs(self) -> tuple[str, ...]:
        """The steps as they are typed."""
        return tuple(map(str, self.steps))

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that decide what comes out."""
        return {name: version for step in self.steps for name, version in step.versions.items()}

    def terms(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"chain": list(self.specs), "box": list(self.ends), "versions": self.versions}

    def __str__(self) -> str:
        behind = () if self.behind is None else (str(self.behind),)
        return " then ".join((*self.specs, *behind))


def joined(steps: Sequence[Step], ends: Ends, before: Transform | None) -> Chain | Transform | None:
    """Steps in front of what a model declares; with no steps, what it declares."""
    if not steps:
        return before
    if isinstance(before, Chain) and before.ends == ends:
        return Chain((*steps, *before.steps), ends, before.behind)
    return Chain(tuple(steps), ends, before)
