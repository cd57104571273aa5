"""Ladders: attacks from cheap to strong, each on the examples that the ones before have not fooled.

A preset is data, and its version is in its name: what a name means never changes, so that numbers stay comparable.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.attacks.recipes import RECIPES, needs_of
from signstep.auditing.record import aside_note
from signstep.auditing.tally import Tally
from signstep.engine.attack import Attack
from signstep.engine.keys import Key
from signstep.engine.outcome import Outcome
from signstep.engine.problem import nearness
from signstep.engine.tree import Tree, put, take, tree_map
from signstep.errors import GradientError, InputError, ModelError, VictimError
from signstep.messages import Arg
from signstep.model.subject import Question
from signstep.registry import nearest

_COUNTED = re.compile(r" #\d+$")
_FOLLOWS = "it follows gradients too, as"


@dataclass(frozen=True)
class Rung:
    """A recipe, and for which of the examples still standing it is meant.

    Attributes:
        recipe: with options, or an attack object.
        near: None for all; a number r for those whose best margin so far is at most r times their margin untouched:
            search goes where the margin has moved. Written ``"square:queries=500 near<=0.25"``.
    """

    recipe: str | Attack
    near: float | None = None

    @classmethod
    def of(cls, spec: "str | Attack | Rung") -> "Rung":
        """From "recipe", "recipe near<=0.25", an attack object or a rung; " #2", by which records count, is left out.

        Raises:
            InputError: what follows the recipe is not ``near<=`` and a number.
        """
        if isinstance(spec, Rung):
            return spec
        if not isinstance(spec, str):
            return cls(spec)
        recipe, _, rule = _COUNTED.sub("", spec.strip()).partition(" ")
        if not rule:
            return cls(recipe)
        word, _, number = rule.strip().partition("<=")
        try:
            near = float(number) if word.strip() == "near" else -1.0
        except ValueError:
            near = -1.0
        if not near > 0:
            raise InputError(
                f"rung {spec!r}: after the recipe only 'near<=NUMBER' may follow", remedy="write near<=0.25, say"
            )
        return cls(recipe, near)

    def __str__(self) -> str:
        name = self.recipe if isinstance(self.recipe, str) else self.recipe.name
        return name if self.near is None else f"{name} near<={self.near:g}"


@dataclass(frozen=True)
class Ladder:
    """Recipes to climb, with options, the cheapest first.

    Attributes:
        name: with its version, such as "standard@1"; "custom" for a list of one's own.
        rungs: recipes, each for the examples that are still standing.
        about: one line for a reader who chooses.
    """

    name: str
    rungs: tuple[Rung, ...]
    about: str


def _preset(name: str, about: str, *rungs: str) -> Ladder:
    return Ladder(name, tuple(Rung.of(rung) for rung in rungs), about)


_QUICK = ("smooth-pgd:steps=10", "apgd:loss=margin,steps=20,targets=2 near<=0.2")

_STANDARD = (
    *_QUICK,
    "smooth-pgd:steps=25,start=uniform near<=0.25",
    "square:queries=150,start=best,patience=30,schedule=constant,p=0.01 near<=0.25",
    "apgd:loss=margin,steps=30,targets=4 near<=0.6",
    "smooth-pgd:steps=25,start=uniform,restarts=3 near<=0.25",
    "square:queries=1000,start=best,patience=100,schedule=constant,p=0.01 near<=0.25",
    "apgd:loss=margin,steps=20",
    # Where gradients lead nowhere at all no margin moves, and only a search that needs none can tell.
    "square:queries=300,patience=10",
)

# What standard@1 finds, by the same rungs in the same places, and two more. Of 23 candidates on the survivors of
# standard@1, on networks whose answers an exact solver knows, every class by softened gradients found what was missed
# (docs/concepts/ladder.md); and where windows of several positions no longer gain, single ones may.
_STANDARD_2 = (
    *_STANDARD,
    "smooth-pgd:steps=25,start=uniform,targets=9 near<=0.5",
    "square:queries=2000,start=best,patience=400,schedule=constant,p=0.001 near<=0.1",
)

_THOROUGH_2 = (
    "smooth-pgd:steps=50,start=uniform,targets=9",
    "square:queries=5000,start=best,patience=1000,schedule=constant,p=0.001 near<=0.5",
)

# The control comes first and meets everyone, so that no objective does worse than as many random points.
_OBJECTIVE = (
    "random-direction:queries=670",
    "explore",
    "pgd:steps=20,restarts=3",
    "explore:samples=8192,starts=50,steps=40,queries=1000",
)

_AUTOATTACK = (
    "apgd:loss=ce,steps=100",
    "apgd:loss=dlr,targets=9,steps=100",
    "fab:targets=9,steps=100",
    "square:queries=5000",
)

LADDERS: dict[str, Ladder] = {
    row.name: row
    for row in (
        _preset("quick@1", "a first number in seconds: an upper bound that standard may still lower", *_QUICK),
        _preset(
            "standard@1", "AutoAttack strength or more, far sooner; what figures up to version 0.1 are of", *_STANDARD
        ),
        _preset("standard@2", "standard@1, and every class on what is left; the one to report", *_STANDARD_2),
        _preset("thorough@1", "standard@1, and then the whole of autoattack on what is left", *_STANDARD, *_AUTOATTACK),
        _preset(
            "thorough@2",
            "standard@2, longer runs, and then the whole of autoattack on what is left",
            *_STANDARD_2,
            *_THOROUGH_2,
            *_AUTOATTACK,
        ),
        _preset(
            "autoattack@1",
            "the published composition and order (Croce & Hein 2020): the standard of belief, and slow",
            *_AUTOATTACK,
        ),
        _preset(
            "objective@1",
            "for objectives of few numbers (controllers, simulators): a random control, then searches everywhere",
            *_OBJECTIVE,
        ),
    )
}


def ladder(spec: str | Sequence[str | Attack | Rung]) -> Ladder:
    """A preset by its name, or rungs of one's own.

    Raises:
        InputError: no such preset, or no rungs.
    """
    if not isinstance(spec, str):
        if not spec:
            raise InputError(Arg("ladder"), "has no rungs", remedy="pass one or more recipes, or the name of a preset")
        return Ladder("custom", tuple(Rung.of(rung) for rung in spec), "rungs of one's own")
    latest = [name for name in LADDERS if spec.lower() in (name, name.partition("@")[0])]
    if latest:
        return LADDERS[latest[-1]]
    near = nearest(spec, [*LADDERS, *RECIPES])
    hint = f"did you mean {near!r}?" if near else "or pass a list of recipes"
    raise InputError(Arg("ladder", spec), f"is not one of {', '.join(LADDERS)}", remedy=hint)


def climb(
    question: Question,
    rungs: Sequence[tuple[str, Rung, Attack]],
    key: Key,
    tally: Tally,
    aside: dict[str, str] | None = None,
    spared: Tensor | None = None,
) -> None:
    """Run each rung on the examples that are right and that no rung before it has fooled.

    Every example carries the best point found for it so far, by the margin of the model itself, so that a rung may go
    on from there. All decisions about an example depend on that example alone. Which draws belong to a rung depends on
    its place, so that a recipe may come twice.

    Args:
        question: a batch.
        rungs: name, rung and attack.
        key: randomness.
        tally: counts.
        aside: of presets, rungs that are not run, with the reason; a rung that cannot be run on this task or model
            joins them. None lets the error of such a rung pass.
        spared: rows (R,) that need no attack, since they are proved; None for none.

    Raises:
        InputError, ModelError: a rung cannot be run, and ``aside`` is None.
        InputError: examples stand, and no rung could be run on any of them.
    """
    aside_, allowed = ({}, False) if aside is None else (aside, True)
    failed = question.clean.fooled if question.wrong is None else question.wrong | question.clean.fooled
    untouched = nearness(question.clean)
    failed = failed if spared is None else failed | spared
    standing, best, near = ~failed, question.x, torch.full_like(untouched, -torch.inf)
    for place, (name, rung, attack) in enumerate(rungs):
        meant = (
            standing if rung.near is None else standing & ~((near < rung.near * untouched) | question.hopeless(near))
        )
        index = meant.nonzero().squeeze(1)
        if len(index) == 0 or name in aside_:
            tally.skip(name)
            continue
        began = time.perf_counter()
        part = question if len(index) == len(standing) else question.take(index)
        try:
            outcome = part.run(attack, key.fold("rung", place, attack.name), None if place == 0 else take(best, index))
        except (InputError, ModelError) as error:
            if not allowed or isinstance(error, VictimError) or tally.has_run(name):
                raise
            aside_[name] = str(error)
            if isinstance(error, GradientError):  # nor is there one for the rungs that are yet to come
                led = [other for other, _, later in rungs[place + 1 :] if needs_of(later) == "gradients"]
                aside_ |= {other: f"{_FOLLOWS} {name}" for other in led if other not in aside_}
            tally.skip(name)
            continue
        seconds = time.perf_counter() - began
        best, near = _better(outcome, index, best, near)
        standing = standing.index_copy(0, index, ~outcome.fooled)
        tally.add(name, question.spread(outcome, index), seconds, index)
    idle = not tally.ran() and not any(tally.has_run(name) for name, _, _ in rungs)
    if aside_ and idle and bool(standing.any()):
        # Each reason once, with the first rung that it holds for: the last word on what to do may be another's.
        first = {reason: name for name, reason in reversed(aside_.items()) if not reason.startswith(_FOLLOWS)}
        said = "; ".join(aside_note(name, reason) for reason, name in reversed(first.items()))
        raise InputError(f"no rung of the ladder could be run: {said}", remedy="pass other recipes")


def _better(outcome: Outcome, index: Tensor, best: Tree, near: Tensor) -> tuple[Tree, Tensor]:
    """The better of the best points so far and those of a rung, for the rows at ``index``."""
    gain = (outcome.verified & (outcome.near > near[index])).nonzero().squeeze(1)
    if len(gain) == 0:
        return best, near
    best = tree_map(lambda part: part.clone(), best)
    put(best, index[gain], take(outcome.x, gain))
    return best, near.index_copy(0, index[gain], outcome.near[gain])
