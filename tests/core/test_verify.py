"""The checker, which shares no code with the attack, catches each kind of violation and nothing else."""

import pytest
import torch
from small_nets import fits, labels, mlp, rand, short
from torch import Tensor

import signstep as ss
from signstep.attacks.recipes import RECIPES
from signstep.engine.norms import NORMS
from signstep.engine.verify import verify
from written_down import written_down

SHAPE = (2, 3, 3)
SIZES = {"linf": 0.1, "l2": 0.3, "l1": 0.6, "pixel": 0.15, "l0": 3.0, "l0(0)": 2.0}


def _size(norm: str) -> float:
    return written_down(SIZES, norm, "the size of a change in the norm")


def test_every_norm_is_checked_here() -> None:
    assert all(_size(norm) for norm in NORMS.own)


def _inside(dtype: torch.dtype = torch.float32) -> Tensor:
    return (0.3 + 0.4 * rand(4, *SHAPE, seed=1)).to(dtype)


def _direction(norm: str) -> Tensor:
    """A change of length exactly one in the norm (two channels make up a pixel)."""
    d = torch.zeros(1, *SHAPE, dtype=torch.float64)
    if norm == "linf":
        return d + 1
    if norm == "l2":
        return d + 18**-0.5
    if norm == "l1":
        return d + 1 / 18
    return d + 2**-0.5


MEASURES = [norm for norm in SIZES if not norm.startswith("l0")]


@pytest.mark.parametrize("norm", MEASURES)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_ball(norm: str, sign: int) -> None:
    x = _inside(torch.float64)
    threat = ss.threat_model(norm, _size(norm))
    for size, ok in ((0.999, True), (1.001, False)):
        result = verify(x, x + sign * size * _size(norm) * _direction(norm), threat.terms())
        assert result.ok.tolist() == [ok] * 4
        torch.testing.assert_close(
            result.excess.double(), torch.full((4,), (size - 1) * _size(norm), dtype=torch.float64)
        )


@pytest.mark.parametrize("box", [(0.0, 1.0), (0.0, 1e9)])
def test_a_count_has_no_tolerance(box: tuple[float, float]) -> None:
    """Not of one coordinate, however small its change and however wide the box."""
    x = _inside(torch.float64)
    point = x.clone()
    for row in range(4):
        point[row].view(-1)[: row + 1] += 1e-15
    assert verify(x, point, ss.l0(2, box=box).terms()).ok.tolist() == [True, True, False, False]
    point = x.clone()
    point[:, :, 0, 0] += 0.1  # both channels of one pixel
    point[2:, 1, 2, 2] -= 1e-15
    assert verify(x, point, ss.l0(1, axes=(0,), box=box).terms()).ok.tolist() == [True, True, False, False]
    assert verify(x, point, ss.l0(2, axes=(-3,), box=box).terms()).size.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("norm", MEASURES)
def test_the_ball_row_by_row(norm: str) -> None:
    x = _inside(torch.float64)
    eps = torch.tensor([0.0, 0.01, 0.02, 0.05], dtype=torch.float64)
    result = verify(x, x + 0.02 * _direction(norm), ss.threat_model(norm, eps).terms())
    assert result.ok.tolist() == [False, False, True, True]


def test_one_coordinate_of_one_row_is_enough() -> None:
    x = _inside()
    point = x.clone()
    point[2, 1, 0, 2] -= 0.1001
    assert verify(x, point, ss.linf(0.1).terms()).ok.tolist() == [True, True, False, True]


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("end", ["low", "high"])
def test_the_box(per_feature: bool, end: str) -> None:
    x = _inside()
    low, high = 0.25, 0.75
    point = x.clone()
    point[1, 0, 2, 2] = low - 1e-3 if end == "low" else high + 1e-3
    box = (torch.full(SHAPE, low), torch.full(SHAPE, high)) if per_feature else (low, high)
    assert verify(x, point, ss.linf(None, box=box).terms()).ok.tolist() == [True, False, True, True]
    one_sided = (None, high) if end == "low" else (low, None)
    assert bool(verify(x, point, ss.linf(0.5, box=one_sided).terms()).ok.all())


@pytest.mark.parametrize("per_row", [False, True])
def test_the_mask_is_exact(per_row: bool) -> None:
    x = _inside()
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[1, 1, 1] = False
    point = x.clone()
    point[3, 1, 1, 1] = torch.nextafter(x[3, 1, 1, 1], torch.tensor(1.0))
    terms = ss.linf(0.1, mask=mask.expand(4, *SHAPE) if per_row else mask).terms()
    assert verify(x, point, terms).ok.tolist() == [True, True, True, False]


def test_the_grid() -> None:
    x = (_inside() * 255).round() / 255
    point = x + 3 / 255
    terms = ss.linf("8/255", grid=255).terms()
    assert bool(verify(x, point, terms).ok.all())
    point[0, 0, 0, 0] += 0.3 / 255
    assert verify(x, point, terms).ok.tolist() == [False, True, True, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("box", [(0.0, 1.0), None])
def test_not_a_number_is_never_allowed(value: float, box: tuple[float, float] | None) -> None:
    x = _inside()
    point = x.clone()
    point[1, 0, 0, 0] = value
    for norm, eps in SIZES.items():
        if box is None and norm.startswith("l0"):  # counts are limited by a box alone
            continue
        assert verify(x, point, ss.threat_model(norm, eps, box=box).terms()).ok.tolist() == [True, False, True, True]


def test_the_tolerance_is_one_unit_in_the_last_place_of_the_box() -> None:
    x = _inside()
    assert verify(x, x, ss.linf(0.1).terms()).tolerance == torch.finfo(torch.float32).eps
    assert verify(x.double(), x.double(), ss.linf(0.1).terms()).tolerance == torch.finfo(torch.float64).eps
    assert verify(x, x, ss.linf(8, box=(0, 255)).terms()).tolerance == 255 * torch.finfo(torch.float32).eps
    half = x.bfloat16()
    assert verify(half, half, ss.linf(0.1).terms()).tolerance == torch.finfo(torch.float32).eps


def test_plain_float32_addition_passes_and_plain_bfloat16_does_not() -> None:
    """Why half precision must round towards x: nearest rounding leaves the ball by several per cent of eps."""
    x = rand(2000, 18, seed=3, dtype=torch.float32) * 0.8 + 0.1
    terms = ss.linf(0.03).terms()
    single = verify(x, x + 0.03, terms)
    assert float(single.excess.max()) > 0
    assert bool(single.ok.all())
    half = x.bfloat16()
    naive = verify(half, (half.float() + 0.03).bfloat16(), terms)
    assert float(naive.ok.double().mean()) < 0.1
    assert float(naive.excess.max()) > 0.02 * 0.03


@pytest.mark.pairwise
@pytest.mark.parametrize(
    ("name", "norm"), [(row.name, norm) for row in RECIPES.values() for norm in SIZES if fits(row, norm)]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_answers_stay_inside(name: str, norm: str, dtype: torch.dtype) -> None:
    model, x = mlp(dtype=dtype), rand(50, *SHAPE, seed=4, dtype=dtype)
    threat = ss.threat_model(norm, _size(norm))
    outcome = ss.attack(model, x, labels(model, x), threat=threat, recipe=short(RECIPES[name], 10))
    assert isinstance(outcome.distance, Tensor)
    assert bool(outcome.verified.all())
    assert float(outcome.distance.max()) <= _size(norm) * (1 + 1e-7)
    if not RECIPES[name].smallest and RECIPES[name].needs == "gradients":
        assert float(outcome.distance.median()) > 0.3 * _size(norm)


def test_a_box_that_half_precision_cannot_hold() -> None:
    x = torch.full((3, 18), 0.3, dtype=torch.bfloat16)
    outcome = ss.attack(mlp(dtype=torch.bfloat16), x, threat=ss.linf(None, box=(0.29, 0.3027)))
    assert isinstance(outcome.x, Tensor)
    assert bool(outcome.verified.all())
    assert float(outcome.x.max()) <= 0.3027 < float(torch.tensor(0.3027).bfloat16())
    assert float(outcome.x.min()) >= 0.29


def test_an_attack_that_leaves_the_set_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken projection is caught by the checker: such rows are neither fooled nor robust."""
    model, x = mlp(), rand(6, *SHAPE, seed=5)
    y = labels(model, x)
    honest = ss.attack(model, x, y, threat=ss.linf(0.3))
    assert bool(honest.fooled.any())
    monkeypatch.setattr("signstep.engine.region.BallRegion.land", lambda self, d: self.x + 1.5 * d)
    outcome = ss.attack(model, x, y, threat=ss.linf(0.3))
    assert not bool(outcome.verified.any())
    assert not bool(outcome.fooled.any())
    assert bool(outcome.undetermined.all())
    assert any("verification" in note for note in outcome.notes)
