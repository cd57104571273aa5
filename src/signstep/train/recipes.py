"""Training recipes as data: how each paper makes the points it trains on, and what it does with them.

A recipe says where the inner attack starts, how far it steps, whether it is brought back into the allowed set, and
which objective the weights follow. Training may leave the allowed set where its paper does; audits never do.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from signstep.errors import InputError
from signstep.importing import Spelling, is_spec, name_and_options
from signstep.messages import Arg
from signstep.registry import Brought, Registry, UnknownNameError

Start = Literal["clean", "uniform", "gaussian", "sign", "prior", "carried"]
Objective = Literal["clean", "adversarial", "mixed", "trades", "aligned", "prior", "free", "bounded"]


@dataclass(frozen=True)
class TrainingRecipe:
    """One paper's way to train.

    Attributes:
        name: of the recipe.
        title: one line for a reader who chooses.
        source: the paper, and where this differs.
        objective: what the weights follow; see `signstep.train.objectives`.
        start: "clean"; "uniform" in the ball; "gaussian" noise; "sign", a random corner; "prior", where this example
            was led the last time; "carried", the perturbation of the batch before.
        spread: radius of the start in units of eps; of a Gaussian its deviation in input units.
        steps: gradient steps of the inner attack.
        step: length of one, in units of eps.
        clip: whether every iterate is projected onto ball and box (the start is not, unless ``inside``).
        inside: whether the start is projected too, before its gradient is taken.
        mode: of the model in the inner attack: in "train", BatchNorm takes the statistics of the attacked batch and its
            running ones move with it; in "eval" it takes the running ones and leaves them alone.
        weight: of the regulariser that the objective has, if it has one; of the loss that bounds give, a share.
        fade: what is left of ``weight`` at the end of a run, a factor; it changes in a straight line from where eps is
            whole.
        replays: optimiser steps for each batch; epochs are divided by it.
        decay: of the momentum that a prior is led by.
        reset: epochs after which priors are drawn anew; 0 for never.
    """

    name: str
    title: str
    source: str
    objective: Objective = "adversarial"
    start: Start = "clean"
    spread: float = 0.0
    steps: int = 1
    step: float = 1.0
    clip: bool = True
    inside: bool = False
    mode: Literal["train", "eval"] = "train"
    weight: float = 0.0
    fade: float = 1.0
    replays: int = 1
    decay: float = 0.0
    reset: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.replays < 1 or not self.step >= 0 or not self.spread >= 0 or self.reset < 0:
            raise InputError(
                Arg("steps", self.steps),
                Arg("step", self.step, shown=f"{self.step:g}"),
                Arg("spread", self.spread, shown=f"{self.spread:g}"),
                Arg("replays", self.replays),
                Arg("reset", self.reset),
                remedy="pass numbers of at least 0, and replays of at least 1",
                where=self.name,
            )
        if self.mode not in ("train", "eval"):
            raise InputError(Arg("mode", self.mode), remedy="pass train or eval", where=self.name)
        if self.objective == "bounded" and not 0 < self.weight <= self.weight * max(1.0, self.fade) <= 1:
            raise InputError(
                Arg("weight", self.weight, shown=f"{self.weight:g}"),
                Arg("fade", self.fade, shown=f"{self.fade:g}"),
                remedy="pass a share of the bounds above 0, up to 1",
                where=self.name,
            )
        if not 0 <= self.fade < math.inf or (self.fade != 1 and self.weight == 0):
            raise InputError(
                Arg("fade", self.fade, shown=f"{self.fade:g}"),
                "of",
                Arg("weight", self.weight, shown=f"{self.weight:g}"),
                remedy="pass a factor for a weight",
                where=self.name,
            )
        if self.objective in ("aligned", "prior") and self.steps != 1:
            raise InputError(
                Arg("steps", self.steps),
                ": the recipe shares the gradient of one step",
                remedy=("pass", Arg("steps", 1)),
                where=self.name,
            )

    @property
    def robust(self) -> bool:
        """Whether it trains against an attack: only then can there be a collapse to call."""
        return self.steps > 0 and self.objective != "clean"

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes over one batch of one optimiser step, the update itself included.

        Bounds count twice, once for the centres and once for the radii.
        """
        return {
            "clean": (1, 1),
            "adversarial": (self.steps + 1, self.steps + 1),
            "mixed": (self.steps + 2, self.steps + 2),
            "trades": (self.steps + 3, self.steps + 2),
            # Each of the two input gradients is differentiated once more.
            "aligned": (3, 5),
            "prior": (2, 3),
            "free": (1, 1),
            "bounded": (self.steps + 3, self.steps + 3),
        }[self.objective]

    @property
    def cost(self) -> float:
        """One optimiser step for each row, in forward passes: a backward pass to the input alone counts as one more.

        That to the weights counts as two.
        """
        forwards, backwards = self.passes
        inner = {"aligned": 2, "prior": 1}.get(self.objective, self.steps if self.objective != "free" else 0)
        inner = 0 if self.objective == "clean" else inner
        return forwards + inner + 2.0 * (backwards - inner)

    @property
    def placed(self) -> str:
        """Start, in words."""
        return {
            "clean": "the clean point",
            "uniform": f"uniform in {self.spread:g} eps",
            "gaussian": f"Gaussian, deviation {self.spread:g}",
            "sign": f"a random corner of {self.spread:g} eps",
            "prior": "where the example was led last",
            "carried": "that of the batch before",
        }[self.start]

    @property
    def projected(self) -> str:
        """Projection, in words."""
        if self.objective == "clean":
            return "none"
        if not self.clip:
            return "none: may leave ball and box"
        loose = self.start in ("uniform", "gaussian") and not self.inside and self.steps > 0
        return "ball and box; the start is left as drawn" if loose else "ball and box"


_ROWS = (
    TrainingRecipe("natural", "clean examples alone", "the usual training", objective="clean", steps=0, step=0.0),
    TrainingRecipe(
        "fgsm-mixed",
        "half clean, half FGSM: (J(x) + J(x + d)) / 2",
        "Goodfellow, Shlens & Szegedy 2014, section 6",
        objective="mixed",
    ),
    TrainingRecipe(
        "fgsm",
        "one step of eps from the clean point: collapses at larger eps, kept as the warning it is",
        "Wong, Rice & Kolter 2020, section 5 (zero initialisation)",
    ),
    TrainingRecipe(
        "fgsm-rs",
        "fast adversarial training: a uniform start left unclamped, one step of 1.25 eps",
        "Wong, Rice & Kolter 2020, algorithm 3; the start unclamped as in its program for MNIST",
        start="uniform",
        spread=1.0,
        step=1.25,
    ),
    TrainingRecipe(
        "n-fgsm",
        "noise of 2 eps around the example, one step of eps, nothing clipped",
        "de Jorge et al. 2022, algorithm 1",
        start="uniform",
        spread=2.0,
        clip=False,
    ),
    TrainingRecipe(
        "gradalign",
        "FGSM, and a penalty where the gradients at a point and at a neighbour part: weight (1 - cos)",
        "Andriushchenko & Flammarion 2020, equation 5",
        objective="aligned",
        spread=1.0,
        weight=0.2,
    ),
    TrainingRecipe(
        "free",
        "each batch replayed, one backward pass feeding weights and perturbation alike",
        "Shafahi et al. 2019, algorithm 1",
        objective="free",
        start="carried",
        replays=8,
    ),
    TrainingRecipe(
        "fgsm-pgi",
        "one step from where the same example was led before, with a penalty on the change of the scores",
        "Jia et al. 2022, FGSM-MEP; uniform where there is no memory yet",
        objective="prior",
        start="prior",
        spread=1.0,
        inside=True,
        weight=10.0,
        decay=0.3,
        reset=40,
    ),
    TrainingRecipe(
        "mtl-ibp",
        "one step, and beside it the loss that no point of the ball exceeds: (1 - weight) J(x + d) + weight J(bounds)",
        "De Palma et al. 2024, MTL-IBP; the bounds of Gowal et al. 2018; the start of fgsm-rs, with a step of eps",
        objective="bounded",
        start="uniform",
        spread=1.0,
        weight=0.1,
    ),
    TrainingRecipe(
        "ibp",
        "no attack: half the loss at the example, half the one that no point of the ball exceeds",
        "Gowal et al. 2018, section 3, with kappa at its last value of 0.5 throughout",
        objective="bounded",
        steps=0,
        step=0.0,
        weight=0.5,
    ),
    TrainingRecipe(
        "pgd-at",
        "several small steps from a uniform start, all inside",
        "Madry et al. 2018, section 2.1",
        start="uniform",
        spread=1.0,
        inside=True,
        steps=10,
        step=0.25,
    ),
    TrainingRecipe(
        "trades",
        "J(x) + weight KL(p(x) || p(x + d)), d climbing the KL from a small Gaussian start",
        "Zhang et al. 2019, algorithm 1; the start, since the KL has no gradient at x",
        objective="trades",
        start="gaussian",
        spread=0.001,
        steps=10,
        step=0.25,
        mode="eval",
        weight=6.0,
    ),
    TrainingRecipe(
        "noise",
        "control: uniform noise, no gradient",
        "Goodfellow, Shlens & Szegedy 2014, section 6",
        start="uniform",
        spread=1.0,
        steps=0,
        step=0.0,
    ),
    TrainingRecipe(
        "random-sign",
        "control: a random corner, no gradient",
        "Goodfellow, Shlens & Szegedy 2014, section 6",
        start="sign",
        spread=1.0,
        steps=0,
        step=0.0,
    ),
)


def _row_of(brought: Brought) -> TrainingRecipe:
    """The row that was brought.

    Raises:
        InputError: it is none, or has another name.
    """
    row = brought.thing
    if not isinstance(row, TrainingRecipe):
        raise InputError(f"it is a {type(row).__name__}", remedy="name a TrainingRecipe")
    if row.name != brought.name and not is_spec(brought.name):
        raise InputError(f"the row calls itself {row.name!r}", remedy=f"give it the name {brought.name!r}")
    return replace(row, name=brought.name)


TRAINING_RECIPES: Registry[TrainingRecipe] = Registry(
    "signstep.training_recipes",
    Spelling("the training recipe", "row", "my_training:RECIPE"),
    _row_of,
    {row.name: row for row in _ROWS},
    argument="recipe",
)

_FIXED = ("name", "title", "source", "objective", "start")
OPTIONS = tuple(field.name for field in fields(TrainingRecipe) if field.name not in _FIXED)


def training_recipe(spec: str | TrainingRecipe, *, argument: str = "recipe") -> TrainingRecipe:
    """A recipe by its name, perhaps with options: ``"n-fgsm"``, ``"pgd-at:steps=7,step=0.3"``, ``"mine:ROW"``.

    ``argument`` is what it is passed as, for messages.

    Raises:
        InputError: no such recipe or option, or a value that does not fit.

    >>> training_recipe("trades:weight=1").weight
    1.0
    """
    if isinstance(spec, TrainingRecipe):
        return spec
    name, options = name_and_options(spec.strip())
    try:
        row = TRAINING_RECIPES.find(name)
    except UnknownNameError as error:
        raise InputError(Arg(argument, name), *error.parts[1:], remedy=error.cure) from error
    changes: dict[str, Any] = {}
    for piece in filter(None, (part.strip() for part in options.split(","))):
        option, equals, value = piece.partition("=")
        if not equals or option not in OPTIONS:
            raise InputError(
                Arg(argument, spec), f": {piece!r} is no option", remedy=f"pass NAME=VALUE with {', '.join(OPTIONS)}"
            )
        changes[option] = _read(Arg(argument, spec), option, value, type(getattr(row, option)))
    return replace(row, **changes)


def _read(said: Arg, option: str, value: str, kind: type) -> Any:
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise InputError(said, f": {option}={value!r} is neither", remedy="pass true or false")
        return value.lower() == "true"
    try:
        return kind(value)
    except ValueError as error:
        raise InputError(said, f": {option}={value!r} is not a number", remedy="pass one") from error
