"""The knobs of a run besides its recipe: they combine with every recipe, so that recipes can be compared."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import nn

from signstep.errors import InputError
from signstep.messages import Arg

Maker: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OnCollapse = Literal["stop", "recover", "ignore"]

_OPTIMISERS: dict[str, Callable[["Settings", list[nn.Parameter], bool | None], torch.optim.Optimizer]] = {
    "sgd": lambda s, p, _: torch.optim.SGD(p, s.rate, s.momentum, weight_decay=s.weight_decay),
    "adam": lambda s, p, fused: torch.optim.Adam(p, s.rate, weight_decay=s.weight_decay, fused=fused),
    "adamw": lambda s, p, fused: torch.optim.AdamW(p, s.rate, weight_decay=s.weight_decay, fused=fused),
}
# Where torch has Adam's step as one kernel: on two cores a tenth of the time of a small network's training. That of SGD
# is left alone: with float16 its momentum begins with a step that overflowed.
_FUSED = ("cpu", "cuda")
_AUTOCAST = {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How long, how fast, on what.

    Attributes:
        epochs: as many steps as these passes over the training rows have; recipes with replays make fewer passes.
        batch: rows of one step.
        optimiser: "adam", "adamw", "sgd", or a function from the weights to an optimiser, whose rate is then scaled.
        rate: largest learning rate.
        momentum: of sgd.
        weight_decay: of the optimiser.
        schedule: "one-cycle" (a straight line up to ``rate`` at ``peak``, and down to 0), "cosine" or "constant".
        peak: share of the run at which one-cycle is at its top.
        smoothing: label smoothing of what the weights follow.
        average: decay of the exponential average of weights and BatchNorm statistics; 0 for none. The average is what
            is validated and delivered.
        crop: pixels by which images are shifted at random.
        flip: whether images are mirrored at random.
        augment: share of the run in which images are shifted and mirrored; after it they are seen as they are, as those
            of the test will be (He et al. 2019, "Data augmentation revisited").
        focus: leaves out rows with a small loss and comes back to those with a large one, at the same number of steps
            (`signstep.train.order.Order`): at 1 an epoch is about two passes over half of the rows each, at 2 about
            three over a third; 0 sees each row once. Wrong labels are hard rows too.
        hold: share of the run in which eps stays 0: with bounds a network has to learn to answer at all first.
        warm_up: share of the run over which eps then rises from 0 in a straight line.
        max_norm: of the gradient of all weights together: a longer one is shortened to it; 0 for no such limit.
        autocast: "off", "bfloat16" or "float16"; float16 scales the loss, so that small gradients do not vanish.
        channels_last: memory format of images and weights.
        compile: whether steps run through ``torch.compile``; or the name of one of its backends. Where it does not work
            here, training goes on without it and says so.
        validation: share of the training rows that is held out to choose the best weights and to look for a collapse.
        on_collapse: "recover" goes back to the last healthy point and on with ``cure``; "stop" ends with the best
            weights; "ignore" goes on and records it.
        cure: the recipe to go on with; None for n-fgsm, and for pgd-at where that too collapsed.
        check_every: steps between two looks for a collapse; None for about 3 % of the time, at least ten looks.
        seed: all randomness.
    """

    epochs: int = 10
    batch: int = 128
    optimiser: str | Maker = "adam"
    rate: float = 5e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    peak: float = 0.4
    smoothing: float = 0.0
    average: float = 0.0
    crop: int = 0
    flip: bool = False
    augment: float = 1.0
    focus: float = 0.0
    hold: float = 0.0
    warm_up: float = 0.0
    max_norm: float = 0.0
    autocast: str = "off"
    channels_last: bool = False
    compile: bool | str = False
    validation: float = 0.1
    on_collapse: OnCollapse = "recover"
    cure: str | None = None
    check_every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch", 1), ("crop", 0)):
            if getattr(self, name) < low:
                raise InputError(Arg(name, getattr(self, name)), remedy=f"pass a whole number of at least {low}")
        if self.check_every is not None and self.check_every < 1:
            raise InputError(Arg("check_every", self.check_every), remedy="pass steps of at least 1, or None")
        for name, top in (("smoothing", 1.0), ("average", 1.0), ("hold", 1.0), ("warm_up", 1.0), ("validation", 0.9)):
            if not 0 <= getattr(self, name) < top:
                raise InputError(Arg(name, getattr(self, name)), remedy=f"pass a share of at least 0 and below {top:g}")
        if self.hold + self.warm_up > 1:
            raise InputError(
                Arg("hold", self.hold, shown=f"{self.hold:g}"),
                Arg("warm_up", self.warm_up, shown=f"{self.warm_up:g}"),
                ": eps would never be whole",
                remedy="pass shares that add up to at most 1",
            )
        for name, fits, text, remedy in (
            ("augment", 0 < self.augment <= 1, "", "pass a share of the run above 0, up to 1 for all of it"),
            (
                "augment",
                self.augment == 1 or self.crop or self.flip,
                "moves nothing",
                "pass crop or flip too, or drop it",
            ),
            ("focus", 0 <= self.focus < math.inf, "", "pass a power above 0, such as 1, or 0 for none"),
            ("max_norm", 0 <= self.max_norm < math.inf, "", "pass a length above 0, or 0 for no limit"),
        ):
            if not fits:
                raise InputError(Arg(name, getattr(self, name)), text, remedy=remedy)
        if not (self.rate > 0 and math.isfinite(self.rate)) or not 0 < self.peak < 1:
            raise InputError(
                Arg("rate", self.rate), Arg("peak", self.peak), remedy="pass a rate above 0 and a peak between 0 and 1"
            )
        for name, known in (
            ("schedule", ("one-cycle", "cosine", "constant")),
            ("on_collapse", ("stop", "recover", "ignore")),
            ("autocast", tuple(_AUTOCAST)),
        ):
            if getattr(self, name) not in known:
                raise InputError(Arg(name, getattr(self, name)), remedy=f"pass one of {', '.join(known)}")
        if isinstance(self.optimiser, str) and self.optimiser not in _OPTIMISERS:
            raise InputError(
                Arg("optimiser", self.optimiser),
                remedy=f"pass one of {', '.join(_OPTIMISERS)}, or a function from the weights to an optimiser",
            )

    @property
    def precision(self) -> torch.dtype | None:
        """The dtype of autocast; None for none."""
        return _AUTOCAST[self.autocast]

    def made(self, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these weights."""
        if not isinstance(self.optimiser, str):
            return self.optimiser(weights)
        parts = list(weights)
        fused = all(part.is_floating_point() and part.device.type in _FUSED for part in parts)
        return _OPTIMISERS[self.optimiser](self, parts, fused or None)  # None leaves the choice to torch

    def factor(self, step: int, total: int) -> float:
        """The learning rate of a step as a share of its largest: a function of the step alone, so it needs no state.

        >>> settings = Settings(peak=0.5)
        >>> [settings.factor(step, 4) for step in range(4)]
        [0.25, 0.75, 0.75, 0.25]
        """
        here = (step + 0.5) / total
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * here))
        return here / self.peak if here < self.peak else (1 - here) / (1 - self.peak)

    def share(self, step: int, total: int) -> float:
        """Of eps at a step, while it is held back and in its warm-up."""
        since = step + 1 - self.hold * total
        if self.warm_up == 0:
            return float(since > 0)
        return min(1.0, max(0.0, since / (self.warm_up * total)))
