"""The set of series whose neighbours may not differ by much, against a slow exact solver."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from signstep.domains.control import chain


def problem(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A gradient, a rate, an envelope with closed samples, and a member; one series."""
    generator = torch.Generator().manual_seed(seed)
    steps = int(torch.randint(1, 14, (1,), generator=generator))
    rate = torch.rand(1, generator=generator, dtype=torch.float64) + 0.05
    bound = 2 * torch.rand(1, steps, generator=generator, dtype=torch.float64)
    bound[0, torch.rand(steps, generator=generator) < 0.2] = 0
    bound = chain.envelope(bound, rate)
    gradient, other = (torch.randn(1, steps, generator=generator, dtype=torch.float64) for _ in range(2))
    return gradient, rate, bound, chain.nearest(other, rate, bound)


def rows_of(steps: int, rate: float) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], list[float]]:
    """|e_t - e_(t-1)| <= rate as inequalities, e_(-1) = 0."""
    difference = np.eye(steps) - np.eye(steps, k=-1)
    return np.concatenate([difference, -difference]), [rate] * (2 * steps)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("length", [0.3, 10.0])
def test_the_step_is_the_linear_programmes(seed: int, length: float) -> None:
    gradient, rate, bound, here = problem(seed)
    low, high = torch.maximum(-bound, here - length), torch.minimum(bound, here + length)
    found = chain.steepest(gradient, rate, low, high, here)[0]
    matrix, most = rows_of(len(found), float(rate))
    solved = linprog(
        -gradient[0].numpy(), A_ub=matrix, b_ub=most, bounds=list(zip(low[0].tolist(), high[0].tolist(), strict=True))
    )
    assert solved.success
    assert float(gradient[0] @ found) == pytest.approx(-solved.fun, abs=1e-8)
    assert bool((matrix @ found.numpy() <= np.array(most) + 1e-9).all())
    assert bool((found >= low[0] - 1e-9).all())
    assert bool((found <= high[0] + 1e-9).all())
    assert bool((found[bound[0] == 0] == 0).all())


def test_closed_samples_stay_exactly_zero() -> None:
    bound = torch.full((200, 21), 10.0, dtype=torch.float64)
    bound[:, 10] = 0
    rate = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = chain.envelope(bound, rate)
    found = chain.steepest(torch.ones_like(bound), rate, -bound, bound, torch.zeros_like(bound))
    assert bool((found[:, 10] == 0).all())
    assert bool((found.abs() <= bound).all())


def test_without_a_gradient_the_step_stays() -> None:
    for seed in range(5):
        gradient, rate, bound, here = problem(seed)
        found = chain.steepest(0 * gradient, rate, -bound, bound, here)
        assert torch.allclose(found, here, atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_nearer_than_the_projection(seed: int) -> None:
    gradient, rate, bound, member = problem(seed)
    far = torch.clamp(3 * gradient, -bound, bound)
    found = chain.nearest(far, rate, bound)[0]
    steps = len(found)
    matrix, most = rows_of(steps, float(rate))
    # minimise t with |e - far| <= t, over e inside the set
    beside = np.block([[np.eye(steps), -np.ones((steps, 1))], [-np.eye(steps), -np.ones((steps, 1))]])
    limits = [*far[0].tolist(), *(-far[0]).tolist(), *most]
    whole = np.concatenate([beside, np.concatenate([matrix, np.zeros((len(matrix), 1))], 1)])
    ends = [(-float(b), float(b)) for b in bound[0]]
    solved = linprog([0.0] * steps + [1.0], A_ub=whole, b_ub=limits, bounds=[*ends, (0, None)])
    assert solved.success
    assert float((found - far[0]).abs().max()) == pytest.approx(solved.fun, abs=1e-8)
    assert bool((matrix @ found.numpy() <= np.array(most) + 1e-9).all())
    assert torch.allclose(chain.nearest(member, rate, bound), member, atol=1e-12, rtol=0)


def test_the_envelope_is_what_can_be_reached() -> None:
    bound = torch.tensor([[5.0, 5.0, 5.0, 0.0, 5.0, 5.0]], dtype=torch.float64)
    found = chain.envelope(bound, torch.tensor([2.0], dtype=torch.float64))
    assert found.tolist() == [[2.0, 4.0, 2.0, 0.0, 2.0, 4.0]]
