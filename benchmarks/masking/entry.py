"""What the collection is made of: a model with the attack that is diagnosed, and how well it is known."""

import copy
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

import signstep as ss

Net = Callable[[Any], Any]

NONDIFF, SATURATED, RANDOM = "non-differentiable step", "saturated loss", "random defence"
SHATTERED, SETUP, DYNAMIC = "shattered gradients", "set-up fault", "test-time defence"
TRAINED, CURVED, MORE = "trained against one step", "curved loss", "more than one step needed"
VANISHED, MASKED, WEAK = "vanishing gradients", "masked gradients", "attack too weak"
EARLY, STEP, PRECISION, IMBALANCED = "search ended early", "step size", "precision", "imbalanced loss"


@dataclass(frozen=True)
class Entry:
    """A model with its attack.

    Attributes:
        family: of masks, or "healthy".
        name: of the model.
        model: as declared.
        attack: that is diagnosed.
        eps: L-infinity size.
        causes: of which one is to be named first, where it is inflated.
        search: how the attack searches.
        twin: a differentiable likeness, whose gradients the adaptive attack takes; None for the model's own.
        adaptive: recipes of the adaptive attack.
        eot: its draws.
        plain: the same function without the mask, where the mask preserves it.
    """

    family: str
    name: str
    model: Any
    attack: Any = "pgd"
    eps: float = 0.1
    causes: tuple[str, ...] = ()
    search: ss.Search = field(default_factory=ss.Search)
    twin: Any = None
    adaptive: tuple[str, ...] = ("pgd:steps=100",)
    eot: int = 1
    plain: Any = None

    @property
    def key(self) -> str:
        """By which a pair is known in a file of results."""
        spec = self.attack if isinstance(self.attack, str) else self.attack.name
        return f"{self.family} / {self.name} / {spec}"


class Through(nn.Module):
    """A function of inputs with the modules that it uses."""

    def __init__(self, function: Net, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        """The function of x."""
        return self.function(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Through":
        """With copies of what the function has around it: it would go on with the networks of the first otherwise."""
        parts = [copy.deepcopy(part, memo) for part in self.parts]
        return Through(_around(self.function, memo), *parts).train(self.training)


def _around(function: Any, memo: dict[int, Any]) -> Any:
    """The function around copies of modules, tensors and functions."""
    if isinstance(function, partial):
        return partial(_around(function.func, memo), *copy.deepcopy(function.args, memo))
    cells = []
    for cell in function.__closure__ or ():
        inside = cell.cell_contents
        plain = isinstance(inside, types.FunctionType)
        cells.append(types.CellType(_around(inside, memo) if plain else copy.deepcopy(inside, memo)))
    return types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
    )
