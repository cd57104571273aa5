"""The exponential average of a model over its steps: worth several points of robust accuracy in every comparison."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Average:
    """w <- w + (1 - decay_t) (weights - w), with decay_t = min(decay, (1 + t) / (10 + t)) at step t.

    BatchNorm's running statistics are averaged like weights: they are averages themselves, it costs no further pass
    over the data, and a run that goes on from a checkpoint comes to the same numbers. Counters are copied. Spectral
    normalisation finds the singular vectors of the averaged weight itself, by one power iteration for each step.

    Args:
        model: to follow.
        decay: of the average, below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.model.requires_grad_(False)
        self.decay, self.steps = decay, 0
        self._parametrised: list[Any] = [part for part in self.model.modules() if parametrize.is_parametrized(part)]

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Take in one step."""
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        floating: list[tuple[Tensor, Tensor]] = []
        others: list[tuple[Tensor, Tensor]] = []
        for own, new in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            (floating if own.is_floating_point() else others).append((own, new))
        torch._foreach_lerp_([own for own, _ in floating], [new for _, new in floating], share)
        for own, new in others:
            own.copy_(new)
        for part in self._parametrised:
            # An average of unit vectors is none; asking for the weight in training mode iterates once and makes it one.
            part.parametrizations.train()
            for name in part.parametrizations:
                getattr(part, name)
            part.parametrizations.eval()

    def state(self) -> dict[str, Tensor]:
        """Weights and the count of steps."""
        own = {name: part.detach().clone() for name, part in self.model.state_dict().items()}
        return {**own, "": torch.tensor(self.steps, dtype=torch.int64, device="cpu")}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """What `state` gave."""
        self.steps = int(state[""])
        self.model.load_state_dict({name: part for name, part in state.items() if name})
