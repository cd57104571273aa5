"""The frame that all smallest-change attacks share: a paper proposes displacements, the nearest that fools is kept."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from signstep.attacks.minimal.nearest import NearestSearch
from signstep.attacks.recipe import fits_norm
from signstep.engine.keys import Key
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, LOOKS, Problem
from signstep.engine.region import ProductRegion, Region, ball_of
from signstep.engine.tree import Tree
from signstep.errors import InputError, VictimError
from signstep.messages import Arg


@dataclass(frozen=True)
class MinimalAttack:
    """Let a paper look around; return the nearest point that fools where eps allows it, else that point projected.

    Every point a paper looks at has landed (dtype, box, mask, grid) and is scored; of those that fool, the nearest is
    kept. eps does not steer the search, so a row's ``smallest`` is the same whatever eps is. A row that fails untouched
    is searched like any other; its ``smallest`` is 0.

    Attributes:
        name: of the recipe.
        paper: the search; it asks a `NearestSearch` for looks.
        steps: gradient steps of each run.
        norms: those the paper is defined for.
        oracle: where the gradient comes from.
        looks: by the setting (the classes a row can be led to), how often the paper looks, at least and at most.
        random: whether the paper draws random numbers.
    """

    name: str
    paper: Callable[[NearestSearch], None]
    steps: int
    norms: tuple[str, ...]
    looks: Callable[[Setting], tuple[int, int]]
    oracle: Oracle = field(default_factory=Autograd)
    random: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(Arg("steps", self.steps), remedy="pass at least 1", where=self.name)

    @property
    def draws(self) -> bool:
        """Whether the attack uses randomness of its own, and so needs ids."""
        return self.random or self.oracle.draws

    @property
    def from_clean(self) -> bool:
        """Every paper looks at the clean input first."""
        return self.oracle.warms

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one example spend; an example that falls is searched to the end like any other."""
        least, most = self.looks(setting)
        each = max(self.oracle.looks, self.oracle.gradients)
        verdict = HELD_OUT if setting.random else 1
        again = LOOKS if setting.random else 0 if self.oracle.exact and setting.exact else 1
        beyond = HELD_OUT if setting.random else 0  # a point beyond eps is put to a random model once more
        whole = least * min(self.oracle.looks, self.oracle.gradients) + verdict
        return Passes(whole, whole, most * (each + again) + verdict + beyond)

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:  # noqa: ARG002
        """Search every row and return what was found.

        Raises:
            InputError: the norm is not one of the recipe's, several inputs are attacked at once, or the task has no
                ways to fail that the paper needs.
        """
        if isinstance(region, ProductRegion) and isinstance(clean, dict) and len(clean) == 1:
            ((name, one),) = clean.items()  # one of several inputs is attacked: its change is the one that is measured

            def named(part: Tree) -> Tree:
                return part if isinstance(part, dict) else {name: part}

            found = self(problem.through(named), region.parts[name], one, key)
            return found._replace(x=named(found.x))
        if isinstance(region, ProductRegion) or not isinstance(clean, Tensor):
            raise InputError(
                f"{self.name} measures one change of one input, and several inputs are attacked",
                remedy="let the threat name one of them, or pass a recipe for a given eps such as pgd",
            )
        region = ball_of(region, self.name)
        if not fits_norm(self.norms, region.norm.name):
            raise InputError(
                f"{self.name} is defined for {', '.join(self.norms)}, the threat is in {region.norm.name}",
                remedy="pass a threat in one of those norms, or another recipe",
            )
        hunt = NearestSearch(self.name, problem, region, clean, key, self.oracle)
        ended = None
        try:
            self.paper(hunt)
        except VictimError as error:
            ended = str(error)
        return hunt.found(problem, region, clean, ended)


def positive(name: str, **options: float) -> None:
    """Check options that must be above 0.

    Raises:
        InputError: one of them is not.
    """
    for option, value in options.items():
        if not value > 0:
            raise InputError(Arg(option, value), remedy="pass a number above 0", where=name)
