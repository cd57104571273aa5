"""Steps through ``torch.compile``, where that works."""

from typing import Any

import torch
from torch import nn

from signstep.model.layout import ChannelsLast
from signstep.train.craft import Forward
from signstep.train.recipes import TrainingRecipe


class Compiled:
    """A model and, if asked for, the same model compiled; both have the same weights.

    Args:
        model: as it is.
        backend: False for none, True for torch's own default, or the name of one.
        last: bring images to channels-last first; the weights are there already.

    Attributes:
        notes: why steps run without it, where they do.
        proven: whether a whole step has come through.
    """

    def __init__(self, model: nn.Module, backend: bool | str, *, last: bool = False) -> None:
        self._model = model = ChannelsLast(model) if last else model
        self.notes: tuple[str, ...] = ()
        self.proven = False
        self._fast: Any = None
        if backend:
            try:
                self._fast = torch.compile(model) if backend is True else torch.compile(model, backend=backend)
            except Exception as error:  # a name that is none, a Python that it does not know
                self.give_up(error)

    def forward(self, recipe: TrainingRecipe) -> Forward:
        """What a step of this recipe calls: compiled code has no second derivative, which ``gradalign`` needs."""
        return self._model if self._fast is None or recipe.objective == "aligned" else self._fast

    def untried(self, recipe: TrainingRecipe) -> bool:
        """Whether a step of this recipe would be the first through compiled code."""
        if self._fast is not None and recipe.objective == "aligned":
            note = f"{recipe.name} differentiates its gradient once more, which compiled code cannot: trained without"
            self.notes = (note,) if note not in self.notes else self.notes
        return not self.proven and self.forward(recipe) is not self._model

    def give_up(self, error: Exception) -> None:
        """Go on without."""
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        self._fast = None
        self.notes = (f"torch.compile does not work here ({type(error).__name__}: {reason}): trained without it",)
