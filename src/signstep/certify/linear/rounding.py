"""What rounding in float32 can make of a bound on its way back: an allowance that is taken off at every step.

A bound holds as long as the coefficients that are kept belong to it, whatever they were meant to be. Where coefficients
b stand for a W, the difference costs at most sum |b - a W| m over inputs of size at most m, and each sum of n products
is right to n u / (1 - n u) sum |a| |W| (u = 2^-24; Higham 2002, "Accuracy and Stability of Numerical Algorithms",
section 3.1, for any order of adding, with or without fused products). So sum |a| (|W| m) times that is taken off.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.certify.bounds.interval import Interval
from signstep.certify.linear.lines import Lines
from signstep.certify.linear.program import Step
from signstep.certify.linear.windows import UNIT, Rows

# Roundings of one product beside those of the sum: of both factors when they were cast, and of itself; one to spare.
_BESIDE = 4
_SPARE = 1e-3
# What a product that is too small for float32 may lose.
_TINY = 2.0**-126


# Where these say so, the library for convolutions multiplies in bfloat16.
_LESS = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")


def single_is_exact(device: torch.device) -> bool:
    """Whether products in float32 are rounded as float32 is: nobody has allowed less, as some cards do."""
    if device.type != "cpu" or torch.get_float32_matmul_precision() != "highest":
        return False
    if any(os.environ.get(name, "STRICT").upper() != "STRICT" for name in _LESS):
        return False
    library = torch.backends.mkldnn
    settings = (torch.backends, library, getattr(library, "matmul", None), getattr(library, "conv", None))
    return all(getattr(part, "fp32_precision", "none") in ("none", "ieee") for part in settings)


@dataclass(frozen=True, eq=False)
class Allowance:
    """What is to be taken off, by step.

    Attributes:
        own: for each step the numbers e >= 0 (...), such that sum |a| e covers what its way back does to a bound whose
            coefficients over its outputs are a, and all that steps of one input each do after it.
        sizes: of each step's outputs, how large a number can be, (...).
        tiny: for all steps together.
        made: of which intervals and lines, by step, the numbers were made.
    """

    own: Mapping[int, Tensor]
    sizes: Sequence[Tensor]
    tiny: float
    made: Mapping[int, tuple[object, ...]]

    @classmethod
    def of(
        cls,
        steps: Sequence[Step],
        lines: Mapping[int, object],
        intervals: Sequence[Interval],
        before: "Allowance | None" = None,
    ) -> "Allowance":
        """That of a network within its intervals.

        Args:
            steps: of the network, up to where bounds begin.
            lines: by step those of activations and poolings.
            intervals: of all steps.
            before: another one of the same network, whose numbers are taken where they were made of the same.
        """
        sizes = [part.centre.abs().add_(part.radius)[0] for part in intervals[: len(steps)]]
        own: dict[int, Tensor] = {}
        made: dict[int, tuple[object, ...]] = {}
        for place, step in enumerate(steps):
            if step.kind in ("given", "stop"):
                continue
            made[place] = (
                lines.get(place),
                *(part for source in step.sources for part in (intervals[source], own.get(source))),
            )
            if before is not None and _same(before.made.get(place), made[place]):
                own[place] = before.own[place]
                continue
            into = [sizes[source] for source in step.sources]
            later = [own.get(source) if passes(steps[source]) else None for source in step.sources]
            if step.kind == "affine":
                share = _share(step.summed)
                parts = (share * part + (0.0 if more is None else more) for part, more in zip(into, later, strict=True))
                found = step.size(*parts) + _share(1) * step.offset.abs()
            elif isinstance(line := lines[place], Lines):
                slope = torch.maximum(line.low_slope.abs(), line.high_slope.abs())
                offset = torch.maximum(line.low_offset.abs(), line.high_offset.abs())
                found = _share(1) * (slope * into[0] + offset)
                if later[0] is not None:
                    found = found + slope * later[0]
            else:
                kernel = step.pool.kernel if step.pool is not None else (1, 1)
                worst = _share(kernel[0] * kernel[1]) * into[0].amax()
                if later[0] is not None:
                    worst = worst + later[0].amax()
                found = torch.full(step.shape, float(worst), dtype=into[0].dtype, device=into[0].device)
            own[place] = found * (1 + 2 * _share(step.summed) + _SPARE)
        spread = sum(float(part.sum()) for part in sizes) * max(step.summed for step in steps)
        return cls(own, sizes, _TINY * spread * len(steps), made)

    def begun(self, steps: Sequence[Step], rows: Mapping[int, Rows]) -> Tensor:
        """What is taken off where bounds begin at steps that no other charges for, (S,)."""
        found = []
        for place, part in rows.items():
            cast = 2 * UNIT * self.sizes[place]
            found.append(part.sizes(self.own[place] + cast if passes(steps[place]) else cast))
        return torch.stack(found).sum(0) + self.tiny

    def at(self, place: int, step: Step, rows: Rows) -> Tensor | float:
        """What is taken off on the way back through a step, (S,)."""
        return 0.0 if passes(step) or place not in self.own else rows.sizes(self.own[place])

    def joined(self, place: int, rows: Rows) -> Tensor:
        """What is taken off where coefficients over a step's outputs were added up or cast, (S,)."""
        return 2 * UNIT * rows.sizes(self.sizes[place])


def _same(one: tuple[object, ...] | None, other: tuple[object, ...]) -> bool:
    """Whether these are the very same objects; none of them is ever written to."""
    return one is not None and len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def passes(step: Step) -> bool:
    """Whether it works number by number on one input: what comes before charges for it."""
    return len(step.sources) == 1 and (step.kind == "bend" or (step.kind == "affine" and step.diagonal))


def _share(count: int) -> float:
    """What sums of so many products are wrong by, relative to those of the sizes."""
    roundings = (count + _BESIDE) * UNIT
    return roundings / (1 - roundings)
