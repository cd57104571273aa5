"""Small models and inputs whose every number comes from a seed, for the tests of the engine."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from signstep.attacks.recipe import Recipe
from signstep.attacks.recipes import options_of

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform numbers, the same in every dtype up to rounding."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def filled(module: AnyModule, seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> AnyModule:
    """Weights drawn from a private generator, in evaluation mode."""
    random = torch.Generator().manual_seed(seed)
    module = module.to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            values = torch.randn(parameter.shape, generator=random, dtype=torch.float64) * scale / fan_in**0.5
            parameter.copy_(values.to(dtype))
    module.eval()
    return module


def mlp(
    features: int = 18, classes: int = 4, *, seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 1.0
) -> nn.Sequential:
    """Flatten, linear, tanh, linear."""
    layers = [nn.Flatten(), nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, classes)]
    return filled(nn.Sequential(*layers), seed, dtype, scale)


class RowNet(nn.Module):
    """A network in which no operation looks across rows, not even by the order of its sums: no matrix products."""

    def __init__(self, features: int = 18, classes: int = 4, hidden: int = 12) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(hidden, features))
        self.second = nn.Parameter(torch.empty(classes, hidden))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh((x.flatten(1).unsqueeze(1) * self.first).sum(2) * 3)
        return (hidden.unsqueeze(1) * self.second).sum(2)


class Scaled(nn.Module):
    """Another model's logits times a number."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x) * self.factor
        return out


class Normalised(nn.Module):
    """Another model behind (x - mean) / std."""

    def __init__(self, model: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, mean, std

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *([1] * (x.ndim - 2)))
        out: Tensor = self.model((x - self.mean.to(x).reshape(shape)) / self.std.to(x).reshape(shape))
        return out


def labels(model: nn.Module, x: Tensor) -> Tensor:
    """What the model answers: attacking these labels starts from full accuracy."""
    with torch.no_grad():
        answer: Tensor = model(x).argmax(1)
    return answer


def short(row: Recipe, steps: int) -> str:
    """The recipe with this many steps, or 20 times as many queries, where it has a number of them."""
    options = options_of(row)
    if "starts" in options:
        return f"{row.name}:samples={4 * steps},starts=2,steps={steps},queries={8 * steps}"
    if "queries" in options:
        return f"{row.name}:queries={20 * steps}"
    return f"{row.name}:steps={steps}" if "steps" in options else row.name


def fits(row: Recipe, norm: str) -> bool:
    """Whether the recipe is defined for this norm."""
    return row.takes(norm)
