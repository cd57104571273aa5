"""Sensor errors: what attacks return obeys the declared budgets, rates, windows and shapes, and the checker sees it."""

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.domains.control import Sensor, Sensors, SensorThreat, check, sensor_threat
from signstep.errors import InputError, ThreatError

STEPS = 24
INTERVAL = 0.5
SENSORS = Sensors(
    (
        Sensor("plain", "K", 0.5),
        Sensor("slow", "bar", 0.4, 0.2),
        Sensor("timed", "m", 0.3, 0.4, windows=((2.0, 5.0), (7.0, 9.0))),
        Sensor("trusted", "m"),
        Sensor("offset", "m", 0.3, 0.2, "bias", ((1.0, 10.0),)),
        Sensor("creeping", "m", 0.6, None, "drift", ((3.0, 8.0),)),
    ),
    INTERVAL,
)
RECIPES = ("fgsm", "bim", "pgd:restarts=2", "mi-fgsm", "apgd:steps=10", "random-sign")


@pytest.fixture
def model() -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(STEPS * 6, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        for part in net.parameters():
            part.copy_(torch.randn(part.shape, generator=generator) / part.shape[-1] ** 0.5)
    return net.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(7, STEPS, 6, generator=torch.Generator().manual_seed(4)) * 2 + 10


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("eps", [1.0, 0.3])
def test_attacks_stay_inside(model: nn.Module, x: Tensor, recipe: str, eps: float) -> None:
    outcome = ss.attack(model, x, threat=sensor_threat(SENSORS, eps), recipe=recipe)
    assert bool(outcome.verified.all())
    assert isinstance(outcome.x, Tensor)
    error = (outcome.x - x).double()
    assert float(error.abs().max()) > 0.2 * eps
    # by hand, beside the checker
    assert bool((error[..., 3] == 0).all())
    assert float(error[..., 1].diff(dim=1).abs().max()) <= 0.2 * INTERVAL * eps + 1e-5
    assert float(error[:, 0, 1].abs().max()) <= 0.2 * INTERVAL * eps + 1e-5
    times = torch.arange(STEPS) * INTERVAL
    inside = ((times >= 2) & (times < 5)) | ((times >= 7) & (times < 9))
    assert bool((error[:, ~inside, 2] == 0).all())
    level = error[:, 9:14, 4]
    assert torch.allclose(level, level[:, :1].expand_as(level), atol=1e-5)
    slopes = error[:, 6:16, 5].diff(dim=1)
    assert torch.allclose(slopes, slopes[:, :1].expand_as(slopes), atol=1e-5)


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:restarts=2"])
def test_rows_are_independent(model: nn.Module, x: Tensor, recipe: str) -> None:
    threat = sensor_threat(SENSORS)
    together = ss.attack(model, x, threat=threat, recipe=recipe).x
    apart = [ss.attack(model, x[row : row + 1], threat=threat, recipe=recipe).x for row in range(len(x))]
    assert isinstance(together, Tensor)
    assert torch.allclose(together, torch.cat([part for part in apart if isinstance(part, Tensor)]), atol=1e-6)


def test_no_size_is_no_change(model: nn.Module, x: Tensor) -> None:
    outcome = ss.attack(model, x, threat=sensor_threat(SENSORS, 0.0), recipe="pgd")
    assert torch.equal(torch.as_tensor(outcome.x), x)


def test_a_size_for_each_row(model: nn.Module, x: Tensor) -> None:
    sizes = torch.tensor([0.5] * len(x), dtype=torch.float64)
    one, each = (ss.attack(model, x, threat=sensor_threat(SENSORS, eps)).x for eps in (0.5, sizes))
    assert torch.equal(torch.as_tensor(one), torch.as_tensor(each))


def test_fgsm_is_the_best_of_many_allowed_errors(x: Tensor) -> None:
    threat = sensor_threat(SENSORS)
    region = threat.around(x)
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(x.shape, generator=generator)
    best = (gradient * region.steepest(gradient)).flatten(1).sum(1)
    for _ in range(50):
        other = region.project(2 * torch.randn(x.shape, generator=generator))
        assert bool(check(SENSORS.plain(), x, region.land(other)).ok.all())
        assert bool(((gradient * other).flatten(1).sum(1) <= best + 1e-4).all())


def test_projection_leaves_what_is_allowed(x: Tensor) -> None:
    region = sensor_threat(SENSORS).around(x)
    inside = region.project(torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(region.project(inside), inside, atol=1e-6)


def _allowed(x: Tensor, threat: SensorThreat) -> Tensor:
    region = threat.around(x)
    return region.steepest(torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))


BREAKS = {
    "a budget": (0, slice(None), 0.2),
    "a jump": (1, slice(5, 6), 0.3),
    "the first jump": (1, slice(0, 1), 0.3),
    "a closed window": (2, slice(0, 1), 1e-3),
    "a trusted sensor": (3, slice(4, 5), 1e-3),
    "a bent bias": (4, slice(12, 13), 0.01),
    "a bent drift": (5, slice(12, 13), 0.01),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_checker_sees_what_is_broken(x: Tensor, name: str) -> None:
    error = _allowed(x, sensor_threat(SENSORS))
    assert bool(check(SENSORS.plain(), x, x + error).ok.all())
    column, where, much = BREAKS[name]
    worse = error.clone()
    worse[3, where, column] += much * (1 if float(worse[3, where, column].sum()) >= 0 else -1)
    assert check(SENSORS.plain(), x, x + worse).ok.tolist() == [row != 3 for row in range(len(x))]


def test_the_checker_measures_the_size(x: Tensor) -> None:
    for eps in (0.25, 1.0):
        error = _allowed(x, sensor_threat(SENSORS, eps))
        seen = check({**SENSORS.plain(), "eps": eps}, x, x + error)
        assert bool(seen.ok.all())
        assert torch.allclose(seen.size, torch.full_like(seen.size, eps), atol=1e-4)
        assert not bool(check({**SENSORS.plain(), "eps": 0.9 * eps}, x, x + error).ok.any())


def test_a_record_holds_what_the_checker_needs() -> None:
    assert Sensors.of(SENSORS.plain()) == SENSORS


def test_clear_sentences(x: Tensor) -> None:
    with pytest.raises(ThreatError, match=r"shape \(7, 24, 5\), the schema 6 sensors"):
        sensor_threat(SENSORS).around(x[..., :5])
    late = Sensors((Sensor("a", "K", 1.0, windows=((50.0, 60.0),)),), 1.0)
    with pytest.raises(ThreatError, match="no sample of the 24 lies in a window"):
        sensor_threat(late).around(x[..., :1])
    with pytest.raises(InputError, match="not finite"):
        sensor_threat(SENSORS).around(x / 0)
    with pytest.raises(InputError, match="'a': budget=-1"):
        Sensor("a", "K", -1.0)
    with pytest.raises(InputError, match="begins before the one before it ends"):
        Sensor("a", "K", 1.0, windows=((1.0, 3.0), (2.0, 4.0)))
    with pytest.raises(InputError, match="two sensors are called 'a'"):
        Sensors((Sensor("a", "K", 1.0), Sensor("a", "K", 1.0)))
    with pytest.raises(InputError, match="no sensor has a budget above 0"):
        Sensors((Sensor("a"),))
