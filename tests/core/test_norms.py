"""Laws of the norms, over the table: a new norm is tested by being there and by adding its slow answer to `_best`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor

from signstep.engine.norms import L0, L1, L2, NORMS, Grouped, Linf, Norm, norm
from signstep.errors import ThreatError

Array = np.ndarray[Any, np.dtype[np.float64]]
Index = np.ndarray[Any, np.dtype[np.int64]]

SHAPE = (2, 3)
# A count has neither a convex ball nor one without a box: its laws are in test_counts.py.
ALL: list[Norm] = [
    *(rule for rule in NORMS.values() if not isinstance(rule, L0)),
    Grouped((0,)),
    Grouped((-1,)),
    Grouped((0, 1)),
]
DTYPES = [torch.float32, torch.float64]
over_norms = pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)
over_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Keyed:
    """Draws from one generator per purpose."""

    rows: int
    dtype: torch.dtype = torch.float64

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(sum(map(ord, purpose)))

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        return torch.rand((self.rows, *shape), generator=self._generator(purpose), dtype=self.dtype)

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        return torch.randn((self.rows, *shape), generator=self._generator(purpose), dtype=self.dtype)


def _tolerance(dtype: torch.dtype) -> float:
    return 64 * torch.finfo(dtype).eps


def _case(seed: int, rows: int = 40, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A gradient, radii and a box with frozen, one-sided and open coordinates."""
    random = torch.Generator().manual_seed(seed)
    g = torch.randn((rows, *SHAPE), generator=random, dtype=dtype)
    g = g * 10 ** torch.randn(g.shape, generator=random, dtype=dtype)
    g[torch.rand(g.shape, generator=random) < 0.1] = 0
    low = -torch.rand(g.shape, generator=random, dtype=dtype)
    high = torch.rand(g.shape, generator=random, dtype=dtype)
    low[torch.rand(g.shape, generator=random) < 0.15] = -math.inf
    high[torch.rand(g.shape, generator=random) < 0.15] = math.inf
    low[torch.rand(g.shape, generator=random) < 0.15] = 0
    high[torch.rand(g.shape, generator=random) < 0.15] = 0
    frozen = torch.rand(g.shape, generator=random) < 0.1
    low[frozen], high[frozen] = 0, 0
    return g, 0.05 + 2 * torch.rand(rows, generator=random, dtype=dtype), low, high


def _groups(rule: Grouped, shape: tuple[int, ...] = SHAPE) -> list[Index]:
    """The flat indices of each group, by brute force: members agree in all other axes."""
    axes = {axis % len(shape) for axis in rule.axes}
    groups: dict[tuple[int, ...], list[int]] = {}
    for flat, index in enumerate(np.ndindex(shape)):
        groups.setdefault(tuple(i for axis, i in enumerate(index) if axis not in axes), []).append(flat)
    return [np.array(group, dtype=np.int64) for group in groups.values()]


def _length(rule: Norm, d: Array) -> float:
    match rule:
        case Linf():
            return float(np.abs(d).max())
        case L2():
            return float(np.linalg.norm(d))
        case L1():
            return float(np.abs(d).sum())
        case Grouped():
            return max(float(np.linalg.norm(d[group])) for group in _groups(rule))
    raise NotImplementedError(f"write down the length of {rule.name}")


def _best(rule: Norm, g: Array, radius: float, low: Array, high: Array) -> float:
    """max <g, d> over ball and box, slowly and by other means than the code under test."""
    size = len(g)
    match rule:
        case Linf():
            bounds = list(zip(np.maximum(low, -radius), np.minimum(high, radius), strict=True))
            return -float(linprog(-g, bounds=bounds, method="highs").fun)
        case L1():  # d = p - n with sum p + n <= radius
            bounds = [(0, cap) for cap in np.concatenate([high, -low])]
            rows = np.ones((1, 2 * size))
            return -float(linprog(np.concatenate([-g, g]), rows, [radius], bounds=bounds, method="highs").fun)
        case L2():  # bisection on the multiplier of |d| <= radius
            less, more = -60.0, 60.0
            for _ in range(200):
                middle = (less + more) / 2
                d = np.clip(g * 10.0**middle, low, high)
                less, more = (middle, more) if np.linalg.norm(d) <= radius else (less, middle)
            return float(g @ np.clip(g * 10.0**less, low, high))
        case Grouped():
            return sum(_best(L2(), g[group], radius, low[group], high[group]) for group in _groups(rule))
    raise NotImplementedError(f"write down how to maximise over {rule.name}")


def _nearest(rule: Norm, v: Array, radius: float, low: Array, high: Array) -> Array:
    """The Euclidean projection by sequential quadratic programming."""
    size = len(v)
    # Split d = p - n makes the L1 ball smooth; the other balls do not mind.
    bounds = [(0, min(cap, 50.0)) for cap in np.concatenate([high, -low])]

    def d(x: Array) -> Array:
        return np.asarray(x[:size] - x[size:])

    groups: list[Index] = []
    constraints: list[dict[str, Any]] = []
    match rule:
        case Linf():
            bounds = [(0, min(cap, radius)) for _, cap in bounds]
        case L1():
            constraints = [{"type": "ineq", "fun": lambda x: radius - x.sum()}]
        case L2():
            groups = [np.arange(size)]
        case Grouped():
            groups = _groups(rule)
        case _:
            raise NotImplementedError(f"write down how to project on {rule.name}")
    for group in groups:
        constraints.append({"type": "ineq", "fun": lambda x, group=group: radius**2 - (d(x)[group] ** 2).sum()})
    result = minimize(
        lambda x: ((d(x) - v) ** 2).sum(),
        np.zeros(2 * size),
        jac=lambda x: 2 * np.concatenate([d(x) - v, v - d(x)]),
        bounds=bounds,
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return d(result.x)


def _flat(tensor: Tensor) -> Array:
    return np.asarray(tensor.double().flatten(1).numpy())


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).flatten(1).sum(1)


def _assert_feasible(
    rule: Norm, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> None:
    assert bool((rule.length(d) <= radius).all())
    for row, limit in zip(_flat(d), radius.double().tolist(), strict=True):
        assert _length(rule, row) <= limit * (1 + 4 * torch.finfo(d.dtype).eps)
    assert low is None or bool((d >= low).all())
    assert high is None or bool((d <= high).all())


# --- the worked example and plain lengths


@pytest.mark.parametrize(
    ("rule", "step", "gain"),
    [
        (Linf(), (0.1, -0.1, 0.1), 0.35),
        (L2(), tuple(0.1 * g / math.sqrt(5.25) for g in (2, -1, 0.5)), 0.1 * math.sqrt(5.25)),
        (L1(), (0.1, 0.0, 0.0), 0.2),
        (Grouped((0,)), tuple(0.1 * g / math.sqrt(5.25) for g in (2, -1, 0.5)), 0.1 * math.sqrt(5.25)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
@over_dtypes
def test_worked_example(rule: Norm, step: tuple[float, ...], gain: float, dtype: torch.dtype) -> None:
    g = torch.tensor([[2, -1, 0.5]], dtype=dtype)
    radius = torch.tensor([0.1], dtype=dtype)
    d = rule.steepest(g, radius)
    torch.testing.assert_close(d, torch.tensor([step], dtype=dtype), rtol=_tolerance(dtype), atol=0)
    assert float(_dot(g, d)) == pytest.approx(gain, rel=_tolerance(dtype))
    torch.testing.assert_close(rule.dual_length(g) * radius, torch.tensor([gain], dtype=dtype))


@over_norms
@over_dtypes
def test_length_is_the_definition(rule: Norm, dtype: torch.dtype) -> None:
    d = _case(0, dtype=dtype)[0]
    expected = torch.tensor([_length(rule, row) for row in _flat(d)], dtype=dtype)
    torch.testing.assert_close(rule.length(d), expected)
    torch.testing.assert_close(rule.length(torch.zeros_like(d)), torch.zeros(len(d), dtype=dtype))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e30])
def test_l2_length_neither_overflows_nor_underflows(scale: float) -> None:
    d = torch.tensor([[3.0, -4.0]]) * scale
    torch.testing.assert_close(L2().length(d), torch.tensor([5 * scale]))


def test_groups_are_pixels_atoms_and_tokens() -> None:
    images = torch.zeros(1, 3, 2, 2)
    images[0, :, 1, 0] = torch.tensor([1.0, 2.0, 2.0])
    images[0, 0, 0, 0] = 2.5
    assert norm("pixel").length(images).tolist() == [3.0]
    assert norm("pixel").dual_length(images).tolist() == [5.5]
    atoms = torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 6.0]]])
    assert norm("atom").length(atoms).tolist() == [6.0]
    assert norm("token").dual_length(atoms).tolist() == [11.0]


@over_norms
def test_diameter(rule: Norm) -> None:
    low, high = torch.tensor(-1.0, dtype=torch.float64), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    edges = np.array([1.0, 2.0, 3.0] * 2)
    assert float(rule.diameter(low, high, SHAPE)) == pytest.approx(_length(rule, edges))
    assert rule.diameter(low, high, SHAPE).shape == ()
    assert float(rule.diameter(low, torch.full(SHAPE, math.inf, dtype=torch.float64), SHAPE)) == math.inf
    assert float(rule.diameter(torch.tensor(-math.inf), high.float(), SHAPE)) == math.inf
    assert float(rule.diameter(torch.tensor(-math.inf), torch.tensor(math.inf), SHAPE)) == math.inf


# --- the steepest step


@over_norms
@over_dtypes
def test_steepest_attains_the_dual_norm(rule: Norm, dtype: torch.dtype) -> None:
    g, radius, _, _ = _case(1, dtype=dtype)
    d = rule.steepest(g, radius)
    assert d.dtype == dtype
    assert d.shape == g.shape
    relative = _tolerance(dtype)
    torch.testing.assert_close(_dot(g, d), (rule.dual_length(g) * radius).double(), rtol=relative, atol=0)
    torch.testing.assert_close(rule.length(d), radius, rtol=relative, atol=0)
    _assert_feasible(rule, d, radius)
    assert bool((d[g == 0] == 0).all())


@pytest.mark.pairwise
@over_norms
@over_dtypes
@pytest.mark.parametrize("seed", range(3))
def test_steepest_in_a_box_matches_a_slow_solver(rule: Norm, dtype: torch.dtype, seed: int) -> None:
    g, radius, low, high = _case(seed, dtype=dtype)
    d = rule.steepest(g, radius, low, high)
    _assert_feasible(rule, d, radius, low, high)
    assert bool((d[g == 0] == 0).all())
    best = [_best(rule, *case) for case in zip(_flat(g), radius.double().numpy(), _flat(low), _flat(high), strict=True)]
    np.testing.assert_allclose(_dot(g, d).numpy(), best, rtol=max(_tolerance(dtype), 1e-9), atol=1e-12)


@over_norms
@pytest.mark.parametrize("side", ["low", "high"])
def test_one_side_may_be_missing(rule: Norm, side: str) -> None:
    g, radius, low, high = _case(2)
    if side == "low":
        short = rule.steepest(g, radius, low=low), rule.project(g, radius, low=low)
        high = torch.tensor(math.inf, dtype=g.dtype)
    else:
        short = rule.steepest(g, radius, high=high), rule.project(g, radius, high=high)
        low = torch.tensor(-math.inf, dtype=g.dtype)
    assert torch.equal(short[0], rule.steepest(g, radius, low, high))
    assert torch.equal(short[1], rule.project(g, radius, low, high))


@over_norms
@over_dtypes
def test_an_open_box_is_no_box(rule: Norm, dtype: torch.dtype) -> None:
    g, radius, _, _ = _case(3, dtype=dtype)
    wide = torch.tensor(math.inf, dtype=dtype)
    for answer in (rule.steepest, rule.project):
        close = _tolerance(dtype)
        torch.testing.assert_close(answer(g, radius, -wide, wide), answer(g, radius), rtol=close, atol=close)


@over_norms
@over_dtypes
@pytest.mark.parametrize("boxed", [False, True])
def test_steepest_does_not_see_the_scale_of_the_loss(rule: Norm, dtype: torch.dtype, boxed: bool) -> None:
    g, radius, low, high = _case(4, dtype=dtype)
    g = torch.where(g.abs() < 1e-4, 0.0, g)  # nothing may get subnormal
    box = (low, high) if boxed else (None, None)
    step = rule.steepest(g, radius, *box)
    for power in (-80, -3, 1, 50):
        assert torch.equal(rule.steepest(g * 2.0**power, radius, *box), step)
    for scale in (1e-30, 1e30):
        scaled = rule.steepest(g * scale, radius, *box)
        torch.testing.assert_close(scaled, step, rtol=_tolerance(dtype), atol=_tolerance(dtype))


@pytest.mark.parametrize("rule", [Linf(), L2(), L1(), Grouped((0,))], ids=lambda rule: rule.name)
def test_a_subnormal_gradient_is_still_a_direction(rule: Norm) -> None:
    g, radius, one = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([0.1]), torch.tensor(1.0)
    for box in ((None, None), (-one, one)):
        torch.testing.assert_close(rule.steepest(g * 2.0**-140, radius, *box), rule.steepest(g, radius, *box))


def test_l2_finds_the_direction_behind_frozen_coordinates_of_another_scale() -> None:
    g = torch.tensor([[1e10, 3e-20, 4e-20]])
    low, high = torch.tensor([0.0, -9.0, -9.0]), torch.tensor([0.0, 9.0, 9.0])
    torch.testing.assert_close(L2().steepest(g, torch.tensor([5.0]), low, high), torch.tensor([[0.0, 3.0, 4.0]]))


@over_norms
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_unit_of_the_input_does_not_matter(rule: Norm, scale: float) -> None:
    g, radius, low, high = _case(5, dtype=torch.float32)
    expected = rule.steepest(g, radius, low, high)
    step = rule.steepest(g, radius * scale, low * scale, high * scale)
    torch.testing.assert_close(step / scale, expected, rtol=1e-5, atol=1e-6)
    point = rule.project(g.clamp(-5, 5) * scale, radius * scale, low * scale, high * scale)
    expected = rule.project(g.clamp(-5, 5), radius, low, high)
    torch.testing.assert_close(point / scale, expected, rtol=1e-5, atol=1e-6)


def test_l1_breaks_ties_by_index() -> None:
    g = torch.tensor([[1.0, -2.0, 2.0, -2.0, 1.0]])
    radius = torch.tensor([1.0])
    assert L1().steepest(g, radius).tolist() == [[0.0, -1.0, 0.0, 0.0, 0.0]]
    box = torch.full((1, 5), 0.75)
    expected = torch.tensor([[0.0, -0.75, 0.25, 0.0, 0.0]])
    torch.testing.assert_close(L1().steepest(g, radius, -box, box), expected)


@over_norms
@over_dtypes
def test_an_infinite_radius_goes_to_the_corner(rule: Norm, dtype: torch.dtype) -> None:
    g, radius, _, _ = _case(6, dtype=dtype)
    infinite = torch.full_like(radius, math.inf)
    low, high = torch.full_like(g, -0.5), torch.full_like(g, 0.25)
    corner = torch.where(g > 0, high, torch.where(g < 0, low, 0))
    assert torch.equal(rule.steepest(g, infinite, low, high), corner)
    assert torch.equal(rule.project(g, infinite, low, high), g.clamp(low, high))
    assert torch.equal(rule.project(g, infinite), g)
    for box in ((None, None), (low, None), (None, high)):
        assert not bool(rule.steepest(g, infinite, *box).isnan().any())


# --- the projection


@over_norms
@over_dtypes
@pytest.mark.parametrize("boxed", [False, True])
def test_projection_satisfies_the_variational_inequality(rule: Norm, dtype: torch.dtype, boxed: bool) -> None:
    """<v - p, z - p> <= 0 for all feasible z, the worst of which the slow maximiser finds."""
    v, radius, low, high = _case(7, dtype=dtype)
    v = v.clamp(-10, 10)
    box = (low, high) if boxed else (None, None)
    p = rule.project(v, radius, *box)
    assert p.dtype == dtype
    assert p.shape == v.shape
    _assert_feasible(rule, p, radius, *box)
    if not boxed:
        low, high = torch.full_like(v, -math.inf), torch.full_like(v, math.inf)
    away = v.double() - p.double()
    worst = [
        _best(rule, *case) for case in zip(_flat(away), radius.double().numpy(), _flat(low), _flat(high), strict=True)
    ]
    gap = np.array(worst) - _dot(away, p).numpy()
    assert gap.max() <= 100 * max(_tolerance(dtype), 1e-10)


@over_norms
def test_projection_matches_a_slow_solver(rule: Norm) -> None:
    v, radius, low, high = _case(8, rows=12)
    v = v.clamp(-3, 3)
    p = _flat(rule.project(v, radius, low, high))
    for i, case in enumerate(zip(_flat(v), radius.numpy(), _flat(low), _flat(high), strict=True)):
        np.testing.assert_allclose(p[i], _nearest(rule, *case), atol=2e-5)


@over_norms
@over_dtypes
@pytest.mark.parametrize("shape", [SHAPE, (3, 40, 41)])
def test_projection_is_idempotent_and_leaves_the_inside_alone(
    rule: Norm, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    random = torch.Generator().manual_seed(9)
    v = torch.randn((20, *shape), generator=random, dtype=dtype)
    low, high = -torch.rand(v.shape, generator=random, dtype=dtype), torch.rand(v.shape, generator=random, dtype=dtype)
    radius = rule.length(v) * torch.rand(20, generator=random, dtype=dtype)
    for box in ((None, None), (low, high)):
        p = rule.project(v, radius, *box)
        assert torch.equal(rule.project(p, radius, *box), p)
        step = rule.steepest(v, radius, *box)
        assert torch.equal(rule.project(step, radius, *box), step)
    inside = v.clamp(low, high)
    assert torch.equal(rule.project(inside, 2 * rule.length(inside), low, high), inside)


def test_a_point_far_outside_l1_keeps_its_digits() -> None:
    v = torch.tensor([[1e6, 1e6 - 0.5, 3.0]])
    torch.testing.assert_close(L1().project(v, torch.tensor([1.01])), torch.tensor([[0.755, 0.255, 0.0]]))


# --- rows


@over_norms
@over_dtypes
@pytest.mark.parametrize("boxed", [False, True])
def test_zero_radius_and_zero_gradient_stay_at_zero(rule: Norm, dtype: torch.dtype, boxed: bool) -> None:
    g, radius, low, high = _case(10, dtype=dtype)
    g[::3] = 0
    radius[::2] = 0
    low[0], high[0] = 0, 0
    box = (low, high) if boxed else (None, None)
    for d in (rule.steepest(g, radius, *box), rule.project(g, radius, *box)):
        assert bool((d[::3] == 0).all())
        assert bool((d[::2] == 0).all())
        assert not bool(d.isnan().any())
    frozen = rule.steepest(torch.ones_like(g), radius, torch.zeros_like(g), torch.zeros_like(g))
    assert bool((frozen == 0).all())


def _has_axes(rule: Norm, shape: tuple[int, ...]) -> bool:
    return not isinstance(rule, Grouped) or all(-len(shape) <= axis < len(shape) for axis in rule.axes)


@pytest.mark.pairwise
@pytest.mark.kernels
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("rule", "shape"),
    [
        (rule, shape)
        for rule in ALL
        for shape in ((), (5,), (15,), SHAPE, (3, 4, 7), (3, 110, 110))
        if _has_axes(rule, shape)
    ],
    ids=lambda value: value.name if isinstance(value, Norm) else None,
)
def test_a_row_does_not_see_its_batch(rule: Norm, threads: int, shape: tuple[int, ...]) -> None:
    torch.set_num_threads(threads)
    random = torch.Generator().manual_seed(11)
    g = torch.randn((5, *shape), generator=random)
    low, high = -torch.rand(g.shape, generator=random), torch.rand(g.shape, generator=random)
    radius = 0.1 * rule.length(g) * torch.rand(5, generator=random)
    for box in ((None, None), (low, high), (low[:1], None)):
        whole = rule.steepest(g, radius, *box), rule.project(g, radius, *box), rule.dual_length(g)
        for i in range(5):
            row = slice(i, i + 1)
            cut = tuple(bound if bound is None or len(bound) == 1 else bound[row] for bound in box)
            assert torch.equal(rule.steepest(g[row], radius[row], *cut), whole[0][row])
            assert torch.equal(rule.project(g[row], radius[row], *cut), whole[1][row])
            assert torch.equal(rule.dual_length(g[row]), whole[2][row])


@over_norms
def test_a_vector_of_radii_is_its_scalars(rule: Norm) -> None:
    g, radius, low, high = _case(12)
    together = rule.steepest(g, radius, low, high), rule.project(g, radius, low, high)
    for i, eps in enumerate(radius):
        same = eps.expand(len(g))
        assert torch.equal(rule.steepest(g, same, low, high)[i], together[0][i])
        assert torch.equal(rule.project(g, same, low, high)[i], together[1][i])


@over_norms
def test_layout_and_an_empty_batch(rule: Norm) -> None:
    g, radius, low, high = _case(13)
    strided = g.movedim(0, -1).contiguous().movedim(-1, 0)
    assert torch.equal(rule.steepest(strided, radius, low, high), rule.steepest(g, radius, low, high))
    assert torch.equal(rule.project(strided, radius), rule.project(g, radius))
    for box in ((None, None), (low[:0], high[:0])):
        assert rule.steepest(g[:0], radius[:0], *box).shape == (0, *SHAPE)
        assert rule.project(g[:0], radius[:0], *box).shape == (0, *SHAPE)


@over_norms
def test_arguments_are_left_alone(rule: Norm) -> None:
    case = _case(14)
    before = [tensor.clone() for tensor in case]
    rule.steepest(*case)
    rule.project(*case)
    rule.length(case[0])
    assert all(torch.equal(a, b) for a, b in zip(case, before, strict=True))


# --- samples


@dataclass
class Chosen:
    """The same draws for some of their rows."""

    inner: Keyed
    index: list[int]

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        return self.inner.uniform(purpose, shape)[self.index]

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        return self.inner.normal(purpose, shape)[self.index]


@over_norms
@over_dtypes
@pytest.mark.parametrize("shape", [(2, 3), (1, 5), (3, 8, 8)], ids=str)
def test_a_sample_is_that_of_its_row_alone(rule: Norm, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Vectors of a kernel and their remainders differ in the last place for some functions, powers among them."""
    if isinstance(rule, Grouped) and max(abs(axis) for axis in rule.axes) >= len(shape):
        shape = (*shape, 4)
    draws = Keyed(37, dtype)
    whole = rule.sample(draws, shape)
    for index in (*([row] for row in range(37)), [1, 2], [30, 5, 9], list(range(19))):
        assert torch.equal(rule.sample(Chosen(draws, index), shape), whole[index])


@over_norms
@over_dtypes
def test_samples_fill_the_ball(rule: Norm, dtype: torch.dtype) -> None:
    """The radii follow s^D, or s^(D/groups) in each group: within the bound of Kolmogorov and Smirnov at 1e-4."""
    count = 4000
    d = rule.sample(Keyed(count, dtype), SHAPE)
    assert d.shape == (count, *SHAPE)
    assert d.dtype == dtype
    assert bool((rule.length(d) <= 1).all())
    assert float(d.mean(0).abs().max()) < 4 / math.sqrt(count)
    flat = _flat(d)
    parts = [flat[:, group] for group in _groups(rule)] if isinstance(rule, Grouped) else [flat]
    for part in parts:
        measure = L2() if isinstance(rule, Grouped) else rule
        size = measure.length(torch.from_numpy(part)).numpy()
        levels = np.sort(size) ** part.shape[1]
        assert np.abs(levels - (np.arange(count) + 0.5) / count).max() < 2.23 / math.sqrt(count)
        # Uniform in the cone of each sign pattern, too: every orthant and every order of sizes is equally likely.
        assert np.abs((part > 0).mean(0) - 0.5).max() < 0.04
        largest = np.bincount(np.abs(part).argmax(1), minlength=part.shape[1]) / count
        assert np.abs(largest - 1 / part.shape[1]).max() < 0.04


def test_single_coordinates_of_samples_have_the_right_law() -> None:
    """Second moments of the uniform laws: 1/3, 1/(D+2), 2/((D+1)(D+2))."""
    size = math.prod(SHAPE)
    for rule, moment in ((Linf(), 1 / 3), (L2(), 1 / (size + 2)), (L1(), 2 / ((size + 1) * (size + 2)))):
        d = rule.sample(Keyed(20000), SHAPE)
        assert float(d.square().mean()) == pytest.approx(moment, rel=0.03)


# --- names


def test_names() -> None:
    assert norm("Linf") is norm("inf") is NORMS["linf"]
    assert norm("l2") is norm("2") is NORMS["l2"]
    assert norm("L1") is norm("1") is NORMS["l1"]
    assert norm("l0") is norm("0") is NORMS["l0"]
    assert norm("l0-pixel") == norm("L0(0)") == L0((0,))
    assert norm("l0-atom") == norm("l0-token") == norm("l0(-1)") == L0((-1,))
    assert norm("l0(1,2)").name == "l0(1,2)"
    assert norm("pixel") == Grouped((0,))
    assert norm("atom") == norm("token") == Grouped((-1,))
    for rule in ALL:
        assert norm(rule) is rule
        assert norm(rule.name) == rule


@pytest.mark.parametrize("name", ["l3", "", "grouped()", "grouped(x)", "l0()", "l0(x)"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ThreatError, match=r"linf.*l2.*l1.*pixel|did you mean 'l[0-9]'") as caught:
        norm(name)
    assert repr(name) in str(caught.value)


def test_groups_need_axes_that_exist() -> None:
    with pytest.raises(ThreatError, match="axis"):
        Grouped(())
    with pytest.raises(ThreatError, match=r"\(2,\)"):
        Grouped((1,)).length(torch.zeros(1, 2))


# --- properties

numbers = st.one_of(st.just(0.0), st.floats(-1e3, 1e3, width=32), st.floats(-(2.0**-100), 2.0**-100, width=32))
sides = st.one_of(st.just(0.0), st.just(math.inf), st.floats(0, 10, width=32))


@over_norms
@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(
    v=st.lists(numbers, min_size=6, max_size=6),
    below=st.lists(sides, min_size=6, max_size=6),
    above=st.lists(sides, min_size=6, max_size=6),
    radius=st.one_of(st.just(0.0), st.just(math.inf), st.floats(0, 20, width=32)),
)
def test_answers_are_feasible_whatever_comes(
    rule: Norm, v: list[float], below: list[float], above: list[float], radius: float
) -> None:
    point, low, high = (torch.tensor(values).reshape(1, *SHAPE) for values in (v, below, above))
    low, eps = -low, torch.tensor([radius])
    for box in ((None, None), (low, high)):
        p = rule.project(point, eps, *box)
        _assert_feasible(rule, p, eps, *box)
        assert torch.equal(rule.project(p, eps, *box), p)
        step = rule.steepest(point, eps, *box)
        assert not bool(step.isnan().any())
        assert bool((step * point.sign() >= 0).all())
        if math.isfinite(radius):
            _assert_feasible(rule, step, eps, *box)
            assert float(_dot(point, step)) >= float(_dot(point, p)) * (1 - 1e-5) - 1e-30
