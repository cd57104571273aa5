"""The input space, stated once: which units the data has, which the model wants, in which the budget is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from signstep.engine.defaults import plain_tensor
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg

Statistic: TypeAlias = float | Sequence[float] | Tensor | None


@dataclass(frozen=True, eq=False)
class InputSpace:
    """Raw units are what the threat model speaks; ``mean`` and ``std`` lead from them to what the model expects.

    Attributes:
        mean: subtracted from raw inputs before the model sees them: a number or one for each channel (dimension 1).
        std: divides after the subtraction, likewise.
        inputs: "raw" when the loader yields raw inputs, "normalised" when it already yields (raw - mean) / std.
        budget: "raw" for eps in raw units; "normalised" measures eps in the model's coordinates: an explicit choice
            that every result names, since it means a different budget for each channel.
    """

    mean: Tensor | None = None
    std: Tensor | None = None
    inputs: Literal["raw", "normalised"] = "raw"
    budget: Literal["raw", "normalised"] = "raw"

    @classmethod
    def of(
        cls,
        mean: Statistic = None,
        std: Statistic = None,
        *,
        inputs: Literal["raw", "normalised"] = "raw",
        budget: Literal["raw", "normalised"] = "raw",
    ) -> "InputSpace":
        """Check and build.

        Raises:
            InputError: only one of mean and std, a std that is not positive, or normalised data without statistics.
        """
        for name, value in (("inputs", inputs), ("budget", budget)):
            if value not in ("raw", "normalised"):
                raise InputError(Arg(name, value), remedy="pass 'raw' or 'normalised'")
        if (mean is None) != (std is None):
            missing = "std" if std is None else "mean"
            raise InputError(
                Arg(missing),
                "is missing: normalisation needs both",
                Arg("mean"),
                "and",
                Arg("std"),
                remedy=("pass both (", Arg("std", 1), "or", Arg("mean", 0), "if unused)"),
            )
        if mean is None or std is None:
            if inputs == "normalised" or budget == "normalised":
                raise InputError(
                    "inputs or budget are declared 'normalised' without",
                    Arg("mean"),
                    "and",
                    Arg("std"),
                    remedy="pass the loader's own",
                )
            return cls()
        try:
            mean_, std_ = (plain_tensor(value, dtype=torch.float64).flatten() for value in (mean, std))
        except (TypeError, ValueError) as error:
            raise InputError(
                Arg("mean", mean), Arg("std", std), remedy="pass a number each, or one number for each channel"
            ) from error
        if not bool((std_ > 0).all() and torch.isfinite(std_).all() and torch.isfinite(mean_).all()):
            raise InputError(
                Arg("std", std_.tolist()), Arg("mean", mean_.tolist()), remedy="pass finite numbers, and std above 0"
            )
        return cls(mean_, std_, inputs, budget)

    def to_search(self, x: Tensor, threat: ThreatModel) -> Tensor:
        """The batch in the units of the budget; rounding from undoing a normalisation is snapped back into the box."""
        if self.inputs == self.budget:
            return x
        if self.budget == "normalised":
            return self.normalise(x)
        mean, std = self._statistics(x)
        raw = x.double() * std.double() + mean.double() if x.device.type != "mps" else x * std + mean
        raw = raw.to(x.dtype)
        if isinstance(threat.low, float) and isinstance(threat.high, float):
            # 64 units in the last place: what a round trip through (x - mean) / std can cost. More is a wrong scale,
            # and stays visible to the check of the box.
            slack = 64 * torch.finfo(x.dtype).eps * max(abs(threat.low), abs(threat.high))
            raw = torch.where((raw < threat.low) & (raw >= threat.low - slack), threat.low, raw)
            raw = torch.where((raw > threat.high) & (raw <= threat.high + slack), threat.high, raw)
            raw = self._snap(raw, threat.low, threat.high)
        return raw

    def to_model(self, u: Tensor) -> Tensor:
        """What the model is called with, for an input in the units of the budget."""
        return self.normalise(u) if self.budget == "raw" and self.mean is not None else u

    def to_raw(self, x: Tensor) -> Tensor:
        """A batch of the declared inputs in raw units."""
        mean, std = self._statistics(x)
        return x if self.inputs == "raw" else x * std + mean

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std, channel by channel."""
        mean, std = self._statistics(x)
        return (x - mean) / std

    def threat(self, threat: ThreatModel, x: Tensor) -> ThreatModel:
        """The threat in the units of the search: a box in raw units becomes one in normalised coordinates.

        ``x`` is a batch that tells how many dimensions an example has.
        """
        if self.budget == "raw" or self.mean is None or self.std is None:
            return threat
        if threat.grid is not None:
            raise InputError(
                Arg("grid", threat.grid),
                "lies in raw units,",
                Arg("budget", "normalised"),
                "does not",
                remedy="drop one of the two",
            )
        mean, std = self._statistics(torch.empty((1, *x.shape[1:]), dtype=torch.float64, device="cpu"))

        def moved(end: float | Tensor | None) -> Tensor | None:
            if end is None:
                return None
            there = (plain_tensor(end, dtype=torch.float64) - mean) / std
            return there.squeeze(0) if mean.ndim else there

        low, high = moved(threat.low), moved(threat.high)
        return ThreatModel(threat.norm, threat.eps, low, high, threat.mask, None, threat.label)

    def describe(self) -> dict[str, object]:
        """For the record: the declared space as plain values."""
        return {
            "mean": None if self.mean is None else self.mean.tolist(),
            "std": None if self.std is None else self.std.tolist(),
            "inputs": self.inputs,
            "budget": self.budget,
        }

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.std is None:
            return torch.zeros((), dtype=x.dtype, device=x.device), torch.ones((), dtype=x.dtype, device=x.device)
        views = []
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value.numel() > 1 and (x.ndim < 2 or x.shape[1] != value.numel()):
                raise InputError(
                    Arg(name),
                    f"has {value.numel()} values, the input has shape {tuple(x.shape)}",
                    remedy="pass one number, or one for each entry of dimension 1",
                )
            # Declared under torch.inference_mode() it could not be saved for the backward pass of the division.
            plain = (value.clone() if value.is_inference() else value).to(x)
            views.append(plain.reshape(1, -1, *([1] * (x.ndim - 2))) if plain.numel() > 1 else plain.reshape(()))
        return views[0], views[1]

    @staticmethod
    def _snap(raw: Tensor, low: float, high: float) -> Tensor:
        """Put values within rounding of an 8-bit level back on it, so that both routes give the same floats."""
        levels = (raw - low) * (255 / (high - low))
        nearest = levels.round()
        exact = (nearest / 255) * (high - low) + low
        slack = 64 * torch.finfo(raw.dtype).eps * 255
        return torch.where((levels - nearest).abs() <= slack, exact.to(raw.dtype), raw)
