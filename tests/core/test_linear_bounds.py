"""Linear bounds: nothing inside the ball escapes them, and where the network is linear they are exact."""

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from test_bounds import MADE, NETWORKS, Calling, drawn, function_calls, inside, shape_of
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from signstep.certify.bounds import bounds_on
from signstep.certify.bounds.interval import Interval
from signstep.certify.bounds.rules import LAYERS
from signstep.certify.branching import shown
from signstep.certify.exact import searched
from signstep.certify.linear import kinds, windows
from signstep.certify.linear.alpha import tuned
from signstep.certify.linear.backward import _ended as ended
from signstep.certify.linear.backward import least, single
from signstep.certify.linear.ball import Ball
from signstep.certify.linear.crown import Bounded, ways_of
from signstep.certify.linear.lines import Bend
from signstep.certify.linear.program import program
from signstep.certify.linear.rounding import Allowance, single_is_exact
from signstep.certify.linear.windows import Places, Rows, Tables
from signstep.errors import InputError, ModelError

BENDS: dict[str, Bend] = {
    **{f"layer-{kind.__name__}": bend for kind, make in kinds.LAYERS.items() if (bend := make(kind())) is not None},
    "leaky-0.3": kinds.LAYERS[nn.LeakyReLU](nn.LeakyReLU(0.3)) or pytest.fail("no lines"),
    "tanh-gelu": kinds.FUNCTIONS[F.gelu](approximate="tanh"),
    "softplus-5": kinds.LAYERS[nn.Softplus](nn.Softplus(beta=5.0)) or pytest.fail("no lines"),
    "hardtanh-odd": kinds.FUNCTIONS[F.hardtanh](-0.2, 2.0),
}


def box_of(low: Tensor, high: Tensor, norm: str | None = None, radius: float = 0.0) -> Ball:
    x = (low + high) / 2
    return Ball(x[0], Interval.between(low, high), norm, radius, torch.ones_like(x[0]))


def ends_of(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Ends near and far, on one side and across, some the same."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(count, generator=generator, dtype=torch.float64) * 3
    reach = torch.rand(count, generator=generator, dtype=torch.float64).pow(3) * 8
    reach[:5] = 0
    return middle - reach, middle + reach


@pytest.mark.parametrize("name", list(BENDS))
def test_no_value_of_an_activation_escapes_its_lines(name: str) -> None:
    bend = BENDS[name]
    low, high = ends_of(0, 25_000)
    lines = bend.lines(low, high)
    for share in torch.rand((40, 25_000), generator=torch.Generator().manual_seed(1), dtype=torch.float64):
        x = (low + (high - low) * share).clamp(low, high)
        value = bend.function(x)
        size = 1e-12 * (1 + x.abs())
        assert bool((lines.low_slope * x + lines.low_offset <= value + size).all())
        assert bool((lines.high_slope * x + lines.high_offset >= value - size).all())
        if lines.free is not None:
            slope = torch.where(lines.free, lines.least + (lines.most - lines.least) * share, lines.low_slope)
            assert bool((slope * x + lines.low_offset <= value + size).all())
    # Where the ends are near the lines are near each other: lines that are far apart would pass all of the above.
    middle = (low + high) / 2
    gap = (lines.high_slope - lines.low_slope) * middle + lines.high_offset - lines.low_offset
    assert bool((gap <= (high - low) * 1.3 + 1e-6).all())
    assert float((gap / (high - low).clamp(min=1e-9))[5:].mean()) < 0.3


def bounded_of(model: nn.Module, low: Tensor, high: Tensor, norm: str | None = None, radius: float = 0.0) -> Bounded:
    ball = box_of(low, high, norm, radius)
    return Bounded.of(program(model, ball.box), ball)


def outputs(bounded: Bounded, count: int = 8) -> tuple[Tensor, Tensor]:
    """Some linear functions of what the last step gives, and their bounds."""
    size = bounded.intervals[-1].centre.numel()
    ways = torch.randn((count, size), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return ways, bounded.margins(ways, ways.new_zeros(count))


@pytest.mark.parametrize("kind", list(LAYERS), ids=lambda kind: kind.__name__)
def test_no_point_escapes_the_linear_bounds_of_a_layer(kind: type[nn.Module]) -> None:
    layer = MADE[kind] if kind in MADE else kind()
    model = nn.Sequential(layer.double().eval(), nn.Identity())
    centre, radius, generator = drawn(shape_of(kind))
    centre, radius = centre[:1], radius[:1] * 0.4
    bounded = bounded_of(model, centre - radius, centre + radius)
    ways, found = outputs(bounded)
    best = torch.full_like(found, torch.inf)
    with torch.no_grad():
        for _ in range(200):
            said = ways @ model(inside(Interval(centre, radius), generator)).flatten()
            assert bool((said >= found - 1e-9).all())
            best = torch.minimum(best, said)
    if issubclass(kind, kinds.AFFINE_LAYERS):
        # A linear map of a box: its least value is that of the gradient's corner.
        x = centre.clone().requires_grad_()
        for row, way in enumerate(ways):
            (gradient,) = torch.autograd.grad(way @ model(x).flatten(), x)
            corner = centre - radius * gradient.sign()
            assert torch.isclose(found[row], way @ model(corner).flatten())


@pytest.mark.parametrize("name", list(function_calls()))
def test_no_point_escapes_the_linear_bounds_of_a_function(name: str) -> None:
    call = function_calls()[name]
    centre, radius, generator = drawn((1, 4, 6, 6))
    own: dict[str, Callable[[Tensor], Tensor]] = {  # those of one row
        "view": lambda x: x.view(x.size(0), -1),
        "reshape": lambda x: x.reshape(x.size(0), 2, -1),
        "squeeze": lambda x: x.squeeze(1),
    }
    radius = radius * 0.3
    model = nn.Sequential(Calling(own.get(name, call)), nn.Flatten())
    bounded = bounded_of(model, centre - radius, centre + radius)
    ways, found = outputs(bounded)
    for _ in range(50):
        assert bool((ways @ model(inside(Interval(centre, radius), generator)).flatten() >= found - 1e-9).all())


@pytest.mark.parametrize("name", list(NETWORKS))
def test_no_point_escapes_the_linear_bounds_of_a_network_and_none_is_looser_than_intervals(name: str) -> None:
    build, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double().eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((1, *shape), generator=generator, dtype=torch.float64)
    eps = 0.003
    if name in ("resnet", "batch", "spectral", "relu6", "hardtanh", "gelu", "silu", "softplus"):
        x = x[..., :8, :8]
    with torch.no_grad():
        first = bounded_of(model, x - eps, x + eps)
        ways, shift = ways_of(first.program, 4, [0, 9], x)
        plain, middle = first.plain(ways, shift), first.margins(ways, shift)
        deep = name == "resnet"  # every bound of so wide a network takes minutes
        last = first if deep else first.refined()
        fine = middle if deep else torch.maximum(middle, last.margins(ways, shift))
        assert bool((middle >= plain).all())
        for before, after in zip(first.intervals, last.intervals, strict=True):
            assert bool((after.low >= before.low - 1e-12).all())
            assert bool((after.high <= before.high + 1e-12).all())
        for _ in range(10):
            scores = model(inside(Interval(x, torch.full_like(x, eps)), generator))[0]
            assert bool((scores[4] - scores[[0, 9]] >= fine - 1e-9).all())
    if not deep:
        assert bool((fine > middle + 1e-9).any()) or bool((middle > plain + 1e-9).any())


class Branched(nn.Module):
    """Convolutions of all kinds, whose coefficients meet where branches part."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, 2, 1)
        self.two = nn.Conv2d(4, 4, (3, 1), padding=(1, 0), groups=2)
        self.three = nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.same = nn.Conv2d(4, 4, 3, padding="same")
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.one((x - 0.4) / 0.3))
        b = F.relu(self.norm(self.two(a)) + self.three(a)) + a
        c = F.relu(self.same(1 - b) - b * 2)
        scores: Tensor = self.head(c.flatten(1))
        return scores


def branched() -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Branched()
        nn.init.normal_(model.norm.weight)
        nn.init.normal_(model.norm.bias)
    return model.double().eval(), torch.rand((1, 2, 12, 12), generator=torch.Generator().manual_seed(0)).double()


def test_windows_and_chunks_give_what_whole_coefficients_give(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = branched()
    with torch.no_grad():
        first = bounded_of(model, x - 0.02, x + 0.02)
        windowed = first.refined()
        monkeypatch.setattr("signstep.certify.linear.crown.AT_ONCE", 3000)
        chunked = first.refined()
        monkeypatch.setattr(Rows, "small", lambda *_: False)
        whole = first.refined()
    assert any(step.direct for step in first.program.steps)
    for one, two, three, before in zip(
        windowed.intervals, chunked.intervals, whole.intervals, first.intervals, strict=True
    ):
        assert torch.allclose(one.low, three.low)
        assert torch.allclose(one.high, three.high)
        assert torch.allclose(two.low, three.low)
        assert not bool((one.low < before.low - 1e-12).any())
    assert any(
        bool((one.low > before.low + 1e-6).any())
        for one, before in zip(windowed.intervals, first.intervals, strict=True)
    )


def test_windows_know_where_they_are() -> None:
    image = torch.arange(24.0).view(1, 4, 6)
    rows = Rows(torch.ones(2, 3, 3, 1), Places.of(torch.tensor([0, 23]), 6), offset=(-1, -1))
    assert rows.of(image)[0, :, :, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 6, 7]]
    assert rows.of(image)[1, :, :, 0].tolist() == [[16, 17, 0], [22, 23, 0], [0, 0, 0]]
    whole = rows.whole((1, 4, 6)).values
    assert whole[1, 0].tolist() == [[0] * 6, [0] * 6, [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]]
    assert torch.equal(rows.dot(image), torch.stack([(whole[0] * image).sum(), (whole[1] * image).sum()]))
    wider = Rows(torch.full((2, 4, 5, 1), 2.0), rows.place, offset=(-1, -2))
    total = windows.added(rows, wider, (1, 4, 6))
    assert total.place is not None
    assert torch.equal(total.whole((1, 4, 6)).values, whole + wider.whole((1, 4, 6)).values)


def small(seed: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 16), activation(), nn.Linear(16, 8), activation(), nn.Linear(8, 3)).double()


def on_grid(model: nn.Module, low: Tensor, high: Tensor, steps: int = 301) -> Tensor:
    """What the model says all over a box of two numbers, (steps^2, K)."""
    one, two = (
        torch.linspace(float(low[0, axis]), float(high[0, axis]), steps, dtype=torch.float64) for axis in (0, 1)
    )
    with torch.no_grad():
        said: Tensor = model(torch.cartesian_prod(one, two))
    return said


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU])
def test_bounds_get_better_from_method_to_method_and_stay_below_the_truth(activation: Callable[[], nn.Module]) -> None:
    better = torch.zeros(3)
    for seed in range(6):
        model = small(seed, activation)
        x = torch.rand((1, 2), generator=torch.Generator().manual_seed(seed)).double()
        low, high = x - 0.2, x + 0.2
        with torch.no_grad():
            first = bounded_of(model, low, high)
            ways, shift = ways_of(first.program, 0, [1, 2], x)
            found = [first.plain(ways, shift), first.margins(ways, shift)]
            last = first.refined()
            found += [last.margins(ways, shift), tuned(last, ways, shift, torch.inf)]
        said = on_grid(model, low, high)
        truth = (said[:, :1] - said[:, 1:]).amin(0)
        for place, (before, after) in enumerate(pairwise(found)):
            assert bool((after >= before - 1e-12).all())
            better[place] += float((after - before).sum())
        assert bool((found[-1] <= truth + 1e-12).all())
        # Not only below: in so small a box lines are near the truth.
        assert bool((found[-1] > truth - 0.5 * (truth - found[0]) - 1e-3).all())
    assert bool((better[:2] > 0).all())
    assert activation not in (nn.ReLU, nn.LeakyReLU) or float(better[2]) > 0


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_ball_in_a_box_is_bounded_as_the_exact_step_says(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((1, 12), generator=generator).double()
    mask = torch.rand(12, generator=generator) < 0.8
    threat = ss.threat_model(norm, 0.3 if norm == "l2" else 0.7, box=(0.0, 1.0), mask=mask)
    from signstep.certify.bounds import ends
    from signstep.engine.region import BallRegion

    region = BallRegion.around(x, threat)
    low, high = ends(region)
    ball = Ball(x[0], Interval.between(low, high), norm, float(region.radius[0]), torch.full((12,), 1.0).double())
    ways = torch.randn((40, 12), generator=generator).double()
    found = ball.least(Rows(ways))
    for way, bound in zip(ways, found, strict=True):
        point = x + region.steepest(-way.unsqueeze(0))
        truth = float(way @ point[0])
        assert float(bound) <= truth + 1e-9
        assert float(bound) >= truth - 1e-4
    # In the model's units a scale belongs to each number.
    scale = torch.rand(12, generator=generator).double() + 0.5
    scaled = Ball(x[0] * scale, Interval.between(low * scale, high * scale), norm, ball.radius, scale)
    assert torch.allclose(scaled.least(Rows(ways / scale)), found)


@pytest.mark.parametrize("threat", [ss.linf(0.1), ss.l2(0.15), ss.l1(0.2), ss.threat_model("pixel", 0.1)])
def test_what_is_certified_no_attack_fools(threat: ss.ThreatModel) -> None:
    model = nn.Sequential(small(1).float(), nn.Identity())
    x = torch.rand((40, 2, 1, 1), generator=torch.Generator().manual_seed(2))
    model = nn.Sequential(nn.Flatten(), model)
    y = model(x).argmax(1)
    held = {
        method: ss.certified(model, x, y, threat=threat, method=method)
        for method in ("interval", "crown-ibp", "crown", "alpha")
    }
    fooled = ss.attack(model, x, y, threat=threat, recipe="pgd:restarts=5", search=ss.Search(loss="margin")).fooled
    before = torch.zeros(40, dtype=torch.bool)
    for part in held.values():
        assert not bool((before & ~part).any())
        before = part
    assert not bool((held["alpha"] & fooled).any())
    assert int(held["crown"].sum()) > int(held["interval"].sum())
    assert int((held["alpha"] | fooled).sum()) > 34  # little is left open


def test_a_row_in_a_ball_of_l2_is_proved_where_the_box_around_it_cannot_be() -> None:
    layer = nn.Linear(16, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.ones(16), -torch.ones(16)]))
        layer.bias.zero_()
    x, y = torch.full((1, 16), 0.55), torch.tensor([0])
    layer.bias.data.copy_(torch.tensor([-8.0, 8.0]))
    threat = ss.l2(0.15)  # 0.8 above the boundary: a ball reaches 0.6, its box 2.4
    assert not bool(ss.certified(layer, x, y, threat=threat))
    assert bool(ss.certified(layer, x, y, threat=threat, method="crown"))
    assert not bool(ss.certified(layer, x, y, threat=ss.l2(0.21), method="alpha"))


def test_a_row_does_not_depend_on_its_batch() -> None:
    model, x = branched()
    rows = torch.cat([x, x.flip(2), x.flip(3), 1 - x])
    y = model(rows).argmax(1)
    together = ss.certified(model, rows, y, threat=ss.linf(0.012), method="alpha")
    pairs = zip(rows, y, strict=True)
    alone = [ss.certified(model, x[None], label[None], threat=ss.linf(0.012), method="alpha") for x, label in pairs]
    assert together.tolist() == [bool(part) for part in alone]


def test_where_no_line_goes_through_the_interval_is_taken() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.SELU(), nn.Linear(6, 3)).double()
    x = torch.rand((1, 4), dtype=torch.float64)
    bounded = bounded_of(model, x - 0.01, x + 0.01)
    assert bounded.program.stops == ("SELU (1)",)
    ways, shift = ways_of(bounded.program, 0, [1, 2], x)
    assert bool((bounded.refined().margins(ways, shift) >= bounded.plain(ways, shift)).all())
    assert bool(ss.certified(model, x, model(x).argmax(1), threat=ss.linf(1e-6, box=None), method="crown"))


def test_a_margin_below_the_slack_is_open_and_so_is_what_the_models_own_precision_blurs() -> None:
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    x, y = torch.tensor([[1e-7], [1e-3]]), torch.tensor([0, 0])
    threat = ss.linf(1e-9, box=None)
    assert ss.certified(layer, x, y, threat=threat, method="crown").tolist() == [False, True]
    rough = nn.Linear(3, 2, bias=False)
    rough.weight.data.copy_(torch.tensor([[1.0, 0.33, 0.51], [-1.0, 0.37, 0.53]]))
    rough, x = rough.to(torch.bfloat16), torch.tensor([[0.0195, 0.7, 0.7]]).to(torch.bfloat16)
    y, ball = torch.tensor([1]), ss.linf(1e-6, box=None)
    assert not bool(ss.certified(rough, x, y, threat=ball, method="crown"))
    assert bool(ss.certified(rough.double(), x.double(), y, threat=ball, method="crown"))


class Other(nn.Module):
    """A stand-in for auto_LiRPA's module: exact for a linear network."""

    def __init__(self, network: nn.Module, x: Tensor, device: torch.device) -> None:  # noqa: ARG002
        super().__init__()
        self.inner = network

    def compute_bounds(self, x: Any, C: Tensor, method: str, *, bound_upper: bool) -> Any:  # noqa: N803
        assert (method, bound_upper) == ("CROWN", False)
        layer = self.inner[1]  # type: ignore[index]
        if not isinstance(layer, nn.Linear):
            raise NotImplementedError("no rule for it")
        low, high = x[0].low.flatten(), x[0].high.flatten()
        way = C[0] @ layer.weight
        return (way @ (low + high) / 2 - way.abs() @ (high - low) / 2 + C[0] @ layer.bias).unsqueeze(0), None


def test_another_engine_is_asked_where_it_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    x = torch.rand((30, 6), generator=torch.Generator().manual_seed(0))
    y, threat = model(x).argmax(1), ss.linf(0.1)
    exact = ss.certified(model, x, y, threat=threat, method="crown")
    if "auto_LiRPA" not in sys.modules and find_spec("auto_LiRPA") is None:
        with pytest.raises(InputError, match="'auto-lirpa' needs auto_LiRPA, which cannot be imported here"):
            ss.certified(model, x, y, threat=threat, method="auto-lirpa")
    home, there = ModuleType("auto_LiRPA"), ModuleType("auto_LiRPA.perturbations")
    vars(home).update(BoundedModule=Other, BoundedTensor=lambda _, around: around)
    vars(there)["PerturbationLpNorm"] = lambda norm, x_L, x_U: SimpleNamespace(norm=norm, low=x_L, high=x_U)  # noqa: N803
    monkeypatch.setitem(sys.modules, "auto_LiRPA", home)
    monkeypatch.setitem(sys.modules, "auto_LiRPA.perturbations", there)
    monkeypatch.setattr(
        "signstep.certify.proving.answers",
        lambda model, low, high, _: (torch.zeros(30, 3).double(), bounds_on(model, low, high)),
    )
    assert torch.equal(ss.certified(model, x, y, threat=threat, method="auto-lirpa"), exact)
    assert 0 < int(exact.sum()) < 30
    with pytest.raises(ModelError, match=r"auto_LiRPA cannot take Sequential \(NotImplementedError: no rule for it\)"):
        ss.certified(nn.Sequential(nn.Flatten(), nn.Identity(), model[1]), x, y, threat=threat, method="auto-lirpa")


def test_a_method_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match="method='milp' is not one of interval, crown-ibp, crown, alpha"):
        ss.certified(nn.Linear(2, 2), torch.rand(1, 2), torch.zeros(1).long(), threat=ss.linf(0.1), method="milp")


@pytest.mark.parametrize("activation", [nn.ReLU, lambda: nn.LeakyReLU(0.2)])
def test_exact_search_knows_the_least_margin_from_both_sides(activation: Callable[[], nn.Module]) -> None:
    pytest.importorskip("scipy", reason="exact search needs SciPy: pip install 'signstep[exact]'")
    for seed in range(4):
        model = small(seed, activation)
        x = torch.rand((1, 2), generator=torch.Generator().manual_seed(seed)).double()
        low, high = x - 0.3, x + 0.3
        with torch.no_grad():
            bounded = bounded_of(model, low, high).refined()
            ways, shift = ways_of(bounded.program, 0, [1, 2], x)
            linear = tuned(bounded, ways, shift, torch.inf)
        said = on_grid(model, low, high)
        truth = (said[:, :1] - said[:, 1:]).amin(0)
        for row in range(2):
            way, constant, least = ways[row : row + 1], shift[row : row + 1], float(truth[row])
            assert float(linear[row]) <= least
            below = searched(bounded, way, constant, least - 0.01, 30.0)
            above = searched(bounded, way, constant, least + 1e-4, 30.0)
            assert below is not None
            assert above is not None
            assert below.proved
            assert not above.proved
            assert above.point is not None
            assert bool(((above.point >= low[0] - 1e-6) & (above.point <= high[0] + 1e-6)).all())
            with torch.no_grad():
                scores = model(above.point[None])[0]
            assert float(scores[0] - scores[1 + row]) <= least + 1e-3


def test_branching_proves_what_lines_do_not_and_nothing_that_is_not_so() -> None:
    proved = 0
    for seed in range(4):
        model = small(seed)
        x = torch.rand((1, 2), generator=torch.Generator().manual_seed(seed)).double()
        low, high = x - 0.3, x + 0.3
        with torch.no_grad():
            bounded = bounded_of(model, low, high).refined()
            ways, shift = ways_of(bounded.program, 0, [1, 2], x)
            linear = tuned(bounded, ways, shift, torch.inf)
        said = on_grid(model, low, high)
        truth = (said[:, :1] - said[:, 1:]).amin(0)
        for row in range(2):
            way, constant = ways[row : row + 1], shift[row : row + 1]
            middle = float(linear[row] + truth[row]) / 2
            if float(truth[row] - linear[row]) > 1e-3:
                proved += shown(bounded, way, constant, middle, 5.0)
            assert not shown(bounded, way, constant, float(truth[row]) + 1e-9, 0.5)
    assert proved > 2


def test_exact_search_takes_convolutions_sums_and_what_is_stable() -> None:
    pytest.importorskip("scipy", reason="exact search needs SciPy: pip install 'signstep[exact]'")
    model, x = branched()
    with torch.no_grad():
        bounded = bounded_of(model, x - 0.004, x + 0.004).refined()
        ways, shift = ways_of(bounded.program, int(model(x).argmax()), [0], x)
        bound = float(bounded.margins(ways, shift))
        found = searched(bounded, ways, shift, bound - 1e-3, 30.0)
        assert found is not None
        assert found.proved  # what lines prove the program does too
        draws, box = torch.Generator().manual_seed(0), Interval(x, torch.full_like(x, 0.004))
        points = [bounded_of(model, point, point) for point in (inside(box, draws) for _ in range(20))]
        best = min(float(point.plain(ways, shift)) for point in points)
        found = searched(bounded, ways, shift, best + 1e-3, 30.0)
        assert found is not None
        assert not found.proved


def test_exact_certificates_hold_and_what_it_cannot_take_stays_open() -> None:
    pytest.importorskip("scipy", reason="exact search needs SciPy: pip install 'signstep[exact]'")
    model = small(1).float()
    x = torch.rand((40, 2), generator=torch.Generator().manual_seed(2))
    y, threat = model(x).argmax(1), ss.linf(0.1)
    before = ss.certified(model, x, y, threat=threat, method="crown")
    held = ss.certified(model, x, y, threat=threat, method="exact")
    fooled = ss.attack(model, x, y, threat=threat, recipe="pgd:restarts=5", search=ss.Search(loss="margin")).fooled
    assert not bool((before & ~held).any())
    assert not bool((held & fooled).any())
    assert int((~held & ~fooled).sum()) <= 1  # exact search decides what is not within a hair of the boundary
    curved = small(1, nn.Tanh).float()
    same = [ss.certified(curved, x, y, threat=threat, method=method) for method in ("alpha", "exact")]
    assert torch.equal(same[0], same[1])


def wide_apart(seed: int) -> tuple[nn.Module, Tensor]:
    """Weights of very different sizes, and no kernel or shift that float32 holds exactly."""
    model, x = branched()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in model.parameters():
            part.mul_(torch.exp(2 * torch.randn(part.shape, generator=generator, dtype=torch.float64)))
    return model, x


def ends_in(kind: torch.dtype, bounded: Bounded, place: int, allowance: Allowance | None) -> Tensor:
    """Lower bounds of numbers of a step and of their opposites, by coefficients of a kind."""
    count = min(150, bounded.intervals[place].centre.numel())
    index, ones = torch.arange(count).repeat(2), torch.ones(count, dtype=torch.float64)
    begun, total = single(bounded.program.steps, place, index, torch.cat([ones, -ones]), kind)
    return least(
        bounded.program.steps, begun, total, bounded.lines, bounded.intervals, bounded.ball, allowance=allowance
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_allowance_covers_what_float32_does_and_little_more(seed: int) -> None:
    model, x = wide_apart(seed)
    with torch.no_grad():
        bounded = bounded_of(model, x - 0.02, x + 0.02).refined()
        beyond = 0
        for place, step in enumerate(bounded.program.steps):
            if step.kind != "affine" or place < 3:
                continue
            allowance = Allowance.of(bounded.program.steps[: place + 1], bounded.lines, bounded.intervals)
            full = ends_in(torch.float64, bounded, place, None)
            half = ends_in(torch.float32, bounded, place, allowance)
            width = -(full[: len(full) // 2] + full[len(full) // 2 :]).repeat(2)
            assert bool((half <= full + 1e-13 * (1 + full.abs())).all())
            assert bool((full - half <= 0.02 * width + 1e-3 * full.abs().max()).all())
            bare = ends_in(torch.float32, bounded, place, replace(allowance, **nothing(allowance)))
            beyond += int((bare > full + 1e-13 * (1 + full.abs())).sum())
    assert beyond > 50  # without it many bounds would be none


def nothing(allowance: Allowance) -> dict[str, Any]:
    return {
        "own": {place: torch.zeros_like(part) for place, part in allowance.own.items()},
        "sizes": [torch.zeros_like(part) for part in allowance.sizes],
        "tiny": 0.0,
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_convolution_back_in_float32_is_its_sums_in_float64_to_what_direct_sums_lose(seed: int) -> None:
    # The allowance is for direct sums; a short float loses more. Windows must lie where those of float64 lie.
    generator = torch.Generator().manual_seed(seed)
    draws = [int(torch.randint(0, 100, (), generator=generator)) for _ in range(8)]
    groups, gap, kernel = (1, 1, 2)[draws[0] % 3], 1 + draws[1] % 2, ((3, 3), (1, 3), (5, 2))[draws[2] % 3]
    padding, count, into = (draws[3] % 3, draws[4] % 2), 1 + draws[5], groups * (2 + draws[6] % 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stride = (1 + draws[7] % 2, 1 + draws[7] % 3)
        layer = nn.Conv2d(into, groups * 4, kernel, stride, padding, gap, groups).requires_grad_(requires_grad=False)
    layer.weight.mul_(torch.exp(3 * torch.randn(layer.weight.shape, generator=generator)))
    shape = (into, 12, 13)
    sizes = layer(torch.zeros(1, *shape)).shape[1:]
    places = Places.of(torch.randint(0, int(sizes[1] * sizes[2]), (count,), generator=generator), int(sizes[2]))
    windows_ = Rows(torch.randn((count, 3, 4, groups * 4), generator=generator), places, offset=(-1, -2))
    whole = Rows(torch.randn((count, *sizes), generator=generator))
    tables: Tables = {}
    for rows, kept in ((windows_.cut(tuple(sizes)), None), (windows_.cut(tuple(sizes)), tables), (whole, None)):
        exact, sized = copy.deepcopy(layer).double(), copy.deepcopy(layer).double()
        sized.weight.abs_()
        found = windows.before_convolution(rows, layer, shape, kept)
        truth = windows.before_convolution(rows.like(rows.values.double()), exact, shape)
        size = windows.before_convolution(rows.like(rows.values.double().abs()), sized, shape)
        assert (found.stride, found.offset) == (truth.stride, truth.offset)
        assert len(found) == count
        products = layer.weight[:, 0].numel()
        room = size.values * (products * windows.UNIT / (1 - products * windows.UNIT))
        assert bool(((found.values.double() - truth.values).abs() <= room + 1e-300).all())
    assert tables  # windows as small as these have a matrix


@pytest.mark.parametrize("seed", range(4))
def test_rough_sums_never_say_more_than_exact_ones(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def wild(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn * torch.exp(4 * torch.randn(*shape, generator=generator, dtype=torch.float64))

    part, where = wild(2, 6, 5).abs(), Places.of(torch.randint(0, 30, (9,), generator=generator), 5)
    for rows in (Rows(wild(9, 2, 6, 5).float()), Rows(wild(9, 3, 4, 2).float(), where, offset=(-1, -2)).cut((2, 6, 5))):
        whole = rows.whole((2, 6, 5)).values.double()
        assert bool((rows.sizes(part) >= (whole.abs() * part).sum((1, 2, 3))).all())
        box = Interval(wild(1, 2, 6, 5), part.unsqueeze(0))
        truth = (whole * box.centre).sum((1, 2, 3)) - (whole.abs() * part).sum((1, 2, 3))
        room = 1e-5 * (whole.abs() * (box.centre.abs() + part)).sum((1, 2, 3))
        exact, rough = ended(rows, box), ended(rows, box, rough=True)
        assert bool((rough <= truth + 1e-13 * room).all() and (rough >= truth - room).all())
        assert bool((exact <= truth + 1e-9 * room).all() and (exact >= truth - room).all())


def test_an_allowance_that_is_kept_is_the_one_that_would_be_made() -> None:
    model, x = wide_apart(0)
    with torch.no_grad():
        stages = list(bounded_of(model, x - 0.02, x + 0.02).refinements())
        assert [stage.final for stage in stages] == [False] * (len(stages) - 1) + [True]
        for before, after in pairwise(stages):
            fresh = Allowance.of(after.program.steps, after.lines, after.intervals)
            kept = Allowance.of(after.program.steps, after.lines, after.intervals, before.allowance)
            assert all(torch.equal(part, kept.own[place]) for place, part in fresh.own.items())
        steps = stages[0].program.values(x)
        assert all(
            bool((said >= part.low - 1e-9).all() and (said <= part.high + 1e-9).all())
            for said, part in zip(steps, stages[-1].intervals, strict=True)
        )


@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_where_products_may_be_less_than_float32_all_is_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.delenv(name, raising=False)
    assert single_is_exact(cpu)
    monkeypatch.setenv(name, "strict")
    assert single_is_exact(cpu)
    monkeypatch.setenv(name, "BF16")
    assert not single_is_exact(cpu)
