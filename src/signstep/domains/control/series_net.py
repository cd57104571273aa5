"""Small classifiers of series, for data that come without one: trained in seconds, always the same."""

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from signstep.domains.control.series import Series
from signstep.engine.defaults import plain_torch

Net = TypeVar("Net", bound=nn.Module)


class SeriesNet(nn.Module):
    """Two convolutions over time, their mean and maximum, and a linear layer; normalisation inside.

    Raw series (R, T, C) in, scores (R, K) out.
    """

    def __init__(self, mean: Tensor, std: Tensor, classes: int, *, width: int = 24) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.first = nn.Conv1d(len(mean), width, 5, padding=2)
        self.second = nn.Conv1d(width, width, 5, padding=2)
        self.last = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The scores."""
        hidden = self.first(((x - self.mean) / self.std).transpose(1, 2)).relu()
        hidden = self.second(hidden).relu()
        scores: Tensor = self.last(torch.cat([hidden.mean(2), hidden.amax(2)], 1))
        return scores


class AlarmNet(nn.Module):
    """Scores (R, 2) for normal and fault from how far a window (R, T, C) lies from normal operation.

    With z the readings in standard deviations of normal operation: a linear layer on log(1 + (mean_t z)^2) and
    log(1 + mean_t z^2) of each sensor, a smooth relative of the charts of statistical process control (Chiang, Russell
    & Braatz 2001). Squares, because a plant drifts to both sides and few hours of normal operation show one.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.last = nn.Linear(2 * len(mean), 2)

    def forward(self, x: Tensor) -> Tensor:
        """The scores."""
        z = (x - self.mean) / self.std
        scores: Tensor = self.last(torch.log1p(torch.cat([z.mean(1).square(), z.square().mean(1)], 1)))
        return scores


@plain_torch()
def trained_net(data: Series, *, seed: int = 0, steps: int = 250) -> SeriesNet:
    """For series of any classes: 250 steps of Adam."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _fitted(SeriesNet(*_spread(data.x), len(data.classes)), data, steps, 3e-3)


class RegressionNet(nn.Module):
    """The network of classes with one output: numbers (R,) in the units of the labels, from raw series (R, T, C)."""

    def __init__(self, net: SeriesNet, centre: float, spread: float) -> None:
        super().__init__()
        self.net, self.centre, self.spread = net, centre, spread

    def forward(self, x: Tensor) -> Tensor:
        """The numbers."""
        answer: Tensor = self.centre + self.spread * self.net(x)[:, 0]
        return answer


@plain_torch()
def trained_regression(data: Series, *, seed: int = 0, steps: int = 250) -> RegressionNet:
    """For real labels: 250 steps of Adam on the squared error."""
    centre, spread = (float(part) for part in _spread(data.y[:, None, None]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scaled = replace(data, y=(data.y - centre) / spread)
        return RegressionNet(_fitted(SeriesNet(*_spread(data.x), 1), scaled, steps, 3e-3), centre, spread).eval()


@plain_torch()
def trained_alarm(data: Series, *, seed: int = 0, steps: int = 300) -> AlarmNet:
    """For windows that are normal (0) or faulty (1): 300 steps of Adam."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _fitted(AlarmNet(*_spread(data.x[data.y == 0])), data, steps, 2e-2)


def _spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel; 1 for one that never moves."""
    flat = x.reshape(-1, x.shape[2])
    std = flat.std(0)
    return flat.mean(0), torch.where(std > 0, std, 1.0)


def _fitted(net: Net, data: Series, steps: int, rate: float, *, batch: int = 128) -> Net:
    """Cross-entropy, classes weighted alike, or the squared error of real labels; with a little weight decay."""
    weight = None if data.real else 1.0 / torch.bincount(data.y, minlength=len(data.classes)).clamp_min(1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    for _ in range(steps):
        index = torch.randperm(len(data.x), dtype=torch.int64, device="cpu")[:batch]
        answer, y = net(data.x[index]), data.y[index]
        loss = mse_loss(answer[:, 0], y) if data.real else cross_entropy(answer, y, weight=weight)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    net.eval().requires_grad_(requires_grad=False)
    return net
