"""An exact referee: on small ReLU networks a mixed-integer program decides what an attack only searches for."""

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

import signstep as ss

EPS = 0.06


def _trained(seed: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A 2-16-3 network on three interleaved arcs, and points to attack."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(240) % 3
    turn = torch.rand(240, generator=random) * 2.2 + 2.094 * y
    radius = 0.2 + 0.1 * turn.sub(2.094 * y)
    x = torch.stack([0.5 + radius * turn.cos(), 0.5 + radius * turn.sin()], 1)
    x = (x + 0.02 * torch.randn(x.shape, generator=random)).clamp(0, 1)
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        for part in net.parameters():
            part.copy_(torch.randn(part.shape, generator=random) * 0.7)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(300):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        torch.autograd.backward(loss)
        optimiser.step()
    return net.double().eval(), x.double(), y


def _layers(net: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    first, last = net[0], net[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    return first, last


def _largest_gap(net: nn.Sequential, x: np.ndarray, y: int, k: int, eps: float) -> float:
    """max z_k - z_y over the ball and the box, exactly, as a mixed-integer linear program (big-M for each unit).

    Variables: input (2), pre-activation (16), activation (16), on/off (16).
    """
    first, last = _layers(net)
    w, b = first.weight.detach().numpy(), first.bias.detach().numpy()
    v, c = last.weight.detach().numpy(), last.bias.detach().numpy()
    low, high = np.maximum(x - eps, 0), np.minimum(x + eps, 1)
    n, h = 2, len(b)
    smallest = np.minimum(w * low, w * high).sum(1) + b
    largest = np.maximum(w * low, w * high).sum(1) + b
    eye, none = np.eye(h), np.zeros((h, h))
    bound_low, bound_high = np.minimum(smallest, 0), np.maximum(largest, 0)
    rules = [
        LinearConstraint(np.hstack([-w, eye, none, none]), b, b),  # s = W u + b
        LinearConstraint(np.hstack([np.zeros((h, n)), -eye, eye, none]), 0, np.inf),  # a >= s
        # a <= s - low (1 - on)  and  a <= high on
        LinearConstraint(np.hstack([np.zeros((h, n)), -eye, eye, -np.diag(bound_low)]), -np.inf, -bound_low),
        LinearConstraint(np.hstack([np.zeros((h, n)), none, eye, -np.diag(bound_high)]), -np.inf, 0),
    ]
    cost = np.concatenate([np.zeros(n + h), -(v[k] - v[y]), np.zeros(h)])
    bounds = Bounds(
        np.concatenate([low, bound_low, np.zeros(h), np.zeros(h)]),
        np.concatenate([high, bound_high, bound_high, np.ones(h)]),
    )
    whole = np.concatenate([np.zeros(n + 2 * h), np.ones(h)])
    found = milp(cost, constraints=rules, bounds=bounds, integrality=whole, options={"mip_rel_gap": 0})
    assert found.success, found.message
    return float(-found.fun + c[k] - c[y])


@pytest.mark.parametrize("seed", [0, 1])
def test_standard_finds_what_exists_and_nothing_else(seed: int) -> None:
    net, x, y = _trained(seed)
    result = ss.audit(net, (x, y), threat=ss.linf(EPS), ladder="standard@1", curve=False)
    exists, found, false_alarms, checked = 0, 0, 0, 0
    for row, (clean, verdict) in enumerate(zip(result.per_example.clean, result.worst_case, strict=True)):
        if clean == "w":
            continue
        gap = max(_largest_gap(net, x[row].numpy(), int(y[row]), k, EPS) for k in range(3) if k != int(y[row]))
        if abs(gap) < 1e-9:
            continue  # on the edge: the last place decides
        checked += 1
        exists += gap > 0
        found += gap > 0 and verdict == "f"
        false_alarms += gap < 0 and verdict == "f"
    assert 20 < exists < checked - 20  # both kinds are there, or the test would say nothing
    assert false_alarms == 0
    assert found >= 0.99 * exists


def test_the_referee_knows_a_network_whose_answer_is_known() -> None:
    """|u_0 - u_1| as two units: the largest gap over a ball is the distance plus twice eps."""
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    first, last = _layers(net)
    with torch.no_grad():
        for part in net.parameters():
            part.zero_()
        first.weight[0] = torch.tensor([1.0, -1.0])
        first.weight[1] = torch.tensor([-1.0, 1.0])
        last.weight[1, :2] = 1.0
    assert _largest_gap(net, np.array([0.5, 0.4]), 0, 1, 0.05) == pytest.approx(0.2, abs=1e-9)
