"""A trained network on two interleaved sets of small images, and clean rows, for the tests of detectors."""

import functools

import torch
from torch import Tensor, nn

CLASSES = 3


def rows(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (count, 1, 6, 6) of three classes, each a bright band in its place, and noise."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=draws)
    x = 0.2 + 0.25 * torch.rand(count, 1, 6, 6, generator=draws)
    for row, label in enumerate(y.tolist()):
        x[row, :, 2 * label : 2 * label + 2] += 0.3
    return x.clamp(0, 1), y


@functools.cache
def trained(seed: int = 0) -> nn.Sequential:
    """A small network, trained for a moment, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, CLASSES))
        x, y = rows(300, seed=100 + seed)
        step = torch.optim.Adam(net.parameters(), lr=0.02)
        for _ in range(40):
            step.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            step.step()
    return net.eval()
