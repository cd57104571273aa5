"""A model that wants (x - mean) / std, as one that takes raw inputs."""

from typing import Any

from torch import Tensor, nn

from signstep.model.space import InputSpace, Statistic


class Normalised(nn.Module):
    """``model((x - mean) / std)``; holds the model itself, whose weights are trained in place.

    Args:
        model: what wants normalised inputs.
        mean: a number, or one for each channel (dimension 1).
        std: likewise, above 0.

    Raises:
        InputError: one of mean and std is missing, or makes no sense.
    """

    def __init__(self, model: nn.Module, mean: Statistic, std: Statistic) -> None:
        super().__init__()
        self.model = model
        self.space = InputSpace.of(mean, std)

    def forward(self, x: Tensor) -> Any:
        """From raw inputs (R, ...)."""
        return self.model(self.space.normalise(x))

    def extra_repr(self) -> str:
        """Mean and std, which belong to what is trained."""
        return str(self.space.describe())
