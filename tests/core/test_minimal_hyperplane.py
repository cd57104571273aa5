"""The shortest way onto a hyperplane inside a box, against linear programmes and bisection."""

import pytest
import torch
from exact_linear import shortest
from small_nets import rand
from torch import Tensor

from signstep.attacks.minimal.hyperplane import onto
from signstep.engine.norms import NORMS

ROWS, SIZE = 24, 7
MEASURES = [name for name in NORMS if name != "l0"]
"""A count of changes has no shortest way: one coordinate may go as far as the box."""


def _slopes() -> Tensor:
    slope = rand(ROWS, SIZE, seed=1) - 0.5
    slope[0, 1:] = 0  # one coordinate does all
    slope[1, 2:4] = slope[1, 1]  # ties
    slope[2, :3] = 0
    return slope


def _box() -> tuple[Tensor, Tensor]:
    low, high = -rand(ROWS, SIZE, seed=2), rand(ROWS, SIZE, seed=3)
    low[3], high[4] = -torch.inf, torch.inf
    low[5, :2] = high[5, :2] = 0  # frozen
    return low, high


@pytest.mark.parametrize("norm", MEASURES)
@pytest.mark.parametrize("share", [0.0, 1e-3, 0.3, 0.9, -0.5])
def test_inside_a_box_it_is_the_solution_of_the_programme(norm: str, share: float) -> None:
    slope, (low, high) = _slopes(), _box()
    most = torch.where((slope > 0) == (share > 0), high, low)
    finite = torch.nan_to_num(most.clamp(-2, 2) * slope).abs().sum(1)
    gain = share * finite
    d = onto(NORMS[norm], slope, gain, low, high)
    assert bool(((d >= low) & (d <= high)).all())
    torch.testing.assert_close((slope * d).sum(1), gain, rtol=1e-12, atol=1e-15)
    sign = -1.0 if share < 0 else 1.0
    for row in range(ROWS):
        w, size = (sign * slope[row]).numpy(), abs(float(gain[row]))
        wanted = shortest(norm, w, size, low[row].numpy(), high[row].numpy())
        assert float(NORMS[norm].length(d)[row]) == pytest.approx(wanted, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("norm", MEASURES)
def test_beyond_the_box_it_is_the_corner_nearest_to_the_plane(norm: str) -> None:
    slope = _slopes()
    low, high = -rand(ROWS, SIZE, seed=2), rand(ROWS, SIZE, seed=3)
    d = onto(NORMS[norm], slope, torch.full((ROWS,), 50.0, dtype=torch.float64), low, high)
    corner = torch.where(slope > 0, high, low) * (slope != 0)
    torch.testing.assert_close(d, corner, rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", MEASURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("power", [-60, 0, 60])
def test_without_a_box_it_is_gain_over_the_dual_length(norm: str, dtype: torch.dtype, power: int) -> None:
    slope = (_slopes() * 2.0**power).to(dtype)
    gain = (rand(ROWS, seed=4) * 2.0**power).to(dtype)
    d = onto(NORMS[norm], slope, gain)
    torch.testing.assert_close(NORMS[norm].length(d), gain / NORMS[norm].dual_length(slope), rtol=1e-5, atol=0)
    torch.testing.assert_close((slope.double() * d.double()).sum(1), gain.double(), rtol=1e-5, atol=0)
    wide = torch.full((SIZE,), torch.inf, dtype=dtype)
    torch.testing.assert_close(onto(NORMS[norm], slope, gain, -wide, wide), d, rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", MEASURES)
def test_a_flat_plane_is_never_reached_and_moves_nothing(norm: str) -> None:
    low, high = _box()
    zero = torch.zeros(ROWS, SIZE, dtype=torch.float64)
    for box in ((None, None), (low, high)):
        assert torch.equal(onto(NORMS[norm], zero, torch.ones(ROWS, dtype=torch.float64), *box), zero)
