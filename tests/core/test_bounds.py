"""Interval bounds: nothing inside the box escapes them, and where a network is simple they are exact."""

import operator
from collections.abc import Callable
from functools import partial
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from signstep.certify.bounds import Interval, bounds_on, ends, worst_margins
from signstep.certify.bounds.rectified import rectified
from signstep.certify.bounds.rules import FUNCTIONS, LAYERS, METHODS, rule_of
from signstep.engine.region import BallRegion
from signstep.errors import InputError, LabelError, ModelError
from signstep.networks.parts import ACTIVATIONS
from signstep.networks.preact import preact_resnet18
from signstep.networks.small import digits_cnn, mnist_cnn, resnet18_cifar
from signstep.networks.vgg import vgg
from signstep.networks.vit import vit

# One of each layer with a rule, for the inputs of `shape_of`.
MADE: dict[type[nn.Module], nn.Module] = {
    nn.Linear: nn.Linear(6, 5),
    nn.Conv1d: nn.Conv1d(4, 3, 3, padding=1),
    nn.Conv2d: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
    nn.Conv3d: nn.Conv3d(4, 2, 2, dilation=2),
    nn.BatchNorm1d: nn.BatchNorm1d(4),
    nn.BatchNorm2d: nn.BatchNorm2d(4),
    nn.BatchNorm3d: nn.BatchNorm3d(4),
    nn.LeakyReLU: nn.LeakyReLU(0.2),
    nn.Hardtanh: nn.Hardtanh(-0.5, 0.7),
    nn.MaxPool1d: nn.MaxPool1d(2),
    nn.MaxPool2d: nn.MaxPool2d(3, 2, 1),
    nn.AdaptiveMaxPool2d: nn.AdaptiveMaxPool2d(2),
    nn.AvgPool1d: nn.AvgPool1d(2),
    nn.AvgPool2d: nn.AvgPool2d(2),
    nn.AdaptiveAvgPool1d: nn.AdaptiveAvgPool1d(2),
    nn.AdaptiveAvgPool2d: nn.AdaptiveAvgPool2d(1),
    nn.Unflatten: nn.Unflatten(1, (2, 2)),
    nn.ZeroPad2d: nn.ZeroPad2d(1),
    nn.PixelShuffle: nn.PixelShuffle(2),
    nn.Upsample: nn.Upsample(scale_factor=1.5, mode="bilinear"),
    nn.Dropout: nn.Dropout(0.5).eval(),
    nn.Dropout2d: nn.Dropout2d(0.5).eval(),
}


def shape_of(kind: type[nn.Module]) -> tuple[int, ...]:
    if kind is nn.Linear:
        return (3, 6)
    if kind in (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d):
        return (3, 4, 6)
    if kind in (nn.Conv3d, nn.BatchNorm3d):
        return (3, 4, 4, 4, 4)
    return (3, 4, 6, 6)


def drawn(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(shape, generator=generator, dtype=torch.float64)
    return centre, torch.rand(shape, generator=generator, dtype=torch.float64), generator


def inside(part: Interval, generator: torch.Generator) -> Tensor:
    """A point of the box, half of its numbers on the ends."""
    share = torch.rand(part.centre.shape, generator=generator, dtype=torch.float64) * 2 - 1
    ends_ = torch.rand(part.centre.shape, generator=generator) < 0.5
    return part.centre + part.radius * torch.where(ends_, share.sign(), share)


@pytest.mark.parametrize("kind", list(LAYERS), ids=lambda kind: kind.__name__)
def test_no_point_of_the_box_escapes_a_layer(kind: type[nn.Module]) -> None:
    layer = MADE[kind] if kind in MADE else kind()
    layer = layer.double().eval()
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(3))  # of both signs
        layer.running_var = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    centre, radius, generator = drawn(shape_of(kind))
    box = Interval(centre, radius)
    rule = rule_of(layer)
    assert rule is not None
    with torch.no_grad():
        found = rule(layer, box)
        assert bool((found.radius >= 0).all())
        assert torch.allclose(rule(layer, Interval(centre, torch.zeros_like(centre))).centre, layer(centre))
        reached = []
        for _ in range(300):
            out = layer(inside(box, generator).clone())
            assert bool((out <= found.high + 1e-9).all())
            assert bool((out >= found.low - 1e-9).all())
            reached.append(out)
    # Corners come near the ends: bounds that are wide without reason would pass everything above.
    wide = (found.high - found.low) > 1e-9
    most = (torch.stack(reached).amax(0) - found.low)[wide]
    assert float((most / (found.high - found.low)[wide]).mean()) > 0.7


def test_a_rectifier_and_its_gradients_are_those_of_the_two_ends() -> None:
    centre, radius, generator = drawn((4, 5))
    centre[0, :3], radius[0, :3] = (
        torch.tensor([0.5, -0.5, 0.0]).double(),
        torch.tensor([0.5, 0.5, 0.0]).double(),
    )  # kinks
    towards = [torch.randn((4, 5), generator=generator, dtype=torch.float64) for _ in range(2)]
    found = []
    for way in (rectified, lambda part: part.rising(torch.relu)):
        given = centre.clone().requires_grad_(), radius.clone().requires_grad_()
        out = way(Interval(*given))
        found.append((out.centre, out.radius, *torch.autograd.grad((out.centre, out.radius), given, towards)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-15)
    assert all(part.abs().sum() > 0 for part in found[0])


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_what_falls_and_rises_again_is_bounded_exactly(name: str) -> None:
    layer = ACTIVATIONS[name]()
    rule = rule_of(layer)
    assert rule is not None
    low, high = torch.meshgrid(torch.linspace(-4, 2, 61).double(), torch.linspace(0, 3, 31).double(), indexing="ij")
    found = rule(layer, Interval.between(low, low + high))
    values = layer(low.unsqueeze(0) + high.unsqueeze(0) * torch.linspace(0, 1, 2001).double().view(-1, 1, 1))
    assert torch.allclose(found.low, values.amin(0), atol=1e-6)
    assert torch.allclose(found.high, values.amax(0), atol=1e-12)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mnist": (mnist_cnn, (1, 28, 28)),
    "digits": (digits_cnn, (1, 8, 8)),
    **{name: (partial(vgg, activation=name), (1, 8, 8)) for name in ACTIVATIONS},
    "batch": (lambda: vgg(norm="batch"), (1, 8, 8)),
    "spectral": (lambda: vgg(spectral=True), (1, 8, 8)),
    "preact": (lambda: preact_resnet18(channels=1, width=4, mean=0.3, std=0.5), (1, 8, 8)),
    "resnet": (resnet18_cifar, (3, 8, 8)),
}


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("eps", [0.0, 0.01])
def test_no_point_of_the_box_escapes_a_network(name: str, eps: float) -> None:
    build, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double().eval()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand((3, *shape), generator=generator, dtype=torch.float64), torch.tensor([0, 4, 9])
    with torch.no_grad():
        outputs, margins = bounds_on(model, x - eps, x + eps), worst_margins(model, x - eps, x + eps, y)
        for _ in range(20):
            scores = model(inside(Interval(x, torch.full_like(x, eps)), generator))
            apart = scores - scores.gather(1, y.unsqueeze(1))
            assert bool((scores <= outputs.high + 1e-9).all())
            assert bool((scores >= outputs.low - 1e-9).all())
            assert bool((apart <= margins + 1e-9).all())
            if eps == 0:
                assert torch.allclose(apart, margins)
                assert torch.allclose(scores, outputs.centre)
    assert not margins[torch.arange(3), y].any()


def test_a_linear_model_is_bounded_exactly_and_classes_share_nothing_in_vain() -> None:
    model = nn.Linear(20, 5).double()
    x, radius, _ = drawn((4, 20))
    y = torch.tensor([0, 1, 2, 3])
    margins = worst_margins(model, x - radius, x + radius, y)
    for row in range(4):
        for k in range(5):
            ways = model.weight[k] - model.weight[y[row]]
            corner = x[row] + radius[row] * ways.sign()  # FGSM's step is the exact worst case of a linear model
            scores = model(corner)
            assert torch.isclose(margins[row, k], scores[k] - scores[y[row]])
    # Without joining the last layer with the difference of classes, bounds of the scores are looser.
    loose = bounds_on(model, x - radius, x + radius)
    rows = torch.arange(4)
    assert bool((margins[rows, 4] < (loose.high[:, 4] - loose.low[rows, y]) - 1e-3).all())


class Odd(nn.Module):
    """Sums, products with constants, functions and questions about the shape, as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(64, 3)
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(-2.0))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5) / 0.25
        a = F.relu(self.one(x))
        b = torch.cat([F.gelu(self.two(a)) * self.scale, a], dim=1)
        c = F.avg_pool2d(1 - b, 2) + F.max_pool2d(b, 2)
        d = c.reshape(x.size(0), 2, -1, x.shape[-1]).mean(1)
        scores: Tensor = self.head(d.flatten(1)[:, :64]).tanh()
        return scores


def test_forwards_that_people_write_have_bounds() -> None:
    model = Odd().double()
    x, _, generator = drawn((2, 1, 8, 8))
    y = torch.tensor([0, 2])
    outputs = bounds_on(model, x - 0.02, x + 0.02)
    margins = worst_margins(model, x - 0.02, x + 0.02, y)
    for _ in range(50):
        scores = model(inside(Interval(x, torch.full_like(x, 0.02)), generator))
        assert bool((scores <= outputs.high + 1e-9).all())
        assert bool((scores >= outputs.low - 1e-9).all())
        assert bool((scores - scores.gather(1, y.unsqueeze(1)) <= margins + 1e-9).all())


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


class Squaring(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Calling(nn.Module):
    """A forward in one line."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function: Callable[[Tensor], Tensor] = function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.function(x)
        return out


class Twice(nn.Module):
    """What a rectifier overwrites is used again: 2 relu(x), and not relu(x) + x."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shifted = x + 0.0
        out: Tensor = self.act(shifted)
        return out + shifted


class Standardised(nn.Linear):
    """A subclass whose forward is another one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / self.weight.norm(), self.bias)


def hooked() -> nn.Module:
    layer = nn.Linear(8, 3)
    layer.register_forward_hook(lambda _, __, out: 2 * out)
    return nn.Sequential(nn.Flatten(2), layer)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (hooked(), r"Linear \(1, which has hooks\)"),
        (nn.Sequential(nn.Flatten(2), Standardised(8, 3)), "no interval goes through linear"),
        (Twice(), "overwrites a value that is used again"),
        (Calling(lambda x: x.flatten(2).mT), "the attribute mT"),
        (Calling(lambda x: x - x.mean(0)), "goes over rows"),
        (Calling(lambda x: x / x.sum()), "goes over rows"),
        (Calling(lambda x: F.dropout(x, 0.5)), "it draws"),
        (Calling(lambda x: F.avg_pool2d(x, 2, divisor_override=-4)), "divisor_override"),
        (Calling(lambda x: torch.add(x, x, alpha=-1)), "alpha"),
        (Calling(lambda x: x + torch.rand(1, 1, 8, 8)), "draws random numbers"),
        (nn.Sequential(nn.ELU(alpha=-1.0)), "ELU"),
        (nn.Sequential(nn.Softplus(threshold=0.0)), "Softplus"),
        (nn.Sequential(nn.Upsample(scale_factor=2, mode="bicubic")), "Upsample"),
        (Calling(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")), "both signs"),
        (nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False)).eval(), "BatchNorm2d"),
        (vit(), "MultiheadAttention|no interval goes through"),
        (nn.Sequential(nn.Flatten(), nn.Softmax(1)), "Softmax"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding_mode="circular")), "Conv2d"),
        (Branching(), "Branching cannot be traced"),
        (Squaring(), "product of two intervals"),
    ],
)
def test_what_has_no_rule_is_named(model: nn.Module, named: str) -> None:
    x = torch.rand(2, 1, 8, 8)
    with pytest.raises(ModelError, match=named):
        bounds_on(model, x, x)


def test_batchnorm_in_training_takes_the_centres_statistics_and_leaves_its_running_ones_alone() -> None:
    layer = nn.BatchNorm2d(4).double().train()
    before = {name: part.clone() for name, part in layer.state_dict().items()}
    x, _, _ = drawn((5, 4, 3, 3))
    rule = rule_of(layer)
    assert rule is not None
    found = rule(layer, Interval(x, torch.zeros_like(x)))
    assert all(torch.equal(part, before[name]) for name, part in layer.state_dict().items())
    assert torch.allclose(found.centre, layer(x))


class Moded(nn.Module):
    """A mode, a buffer, a tensor of the code's own, and an argument that has a default."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(4.0))

    def forward(self, x: Tensor, *, times: float = 2.0) -> Tensor:
        scores: Tensor = self.head(x * self.scale.sqrt() + torch.tensor([0.5]))
        return times * scores if self.training else scores


def test_modes_buffers_and_defaults_are_those_of_the_moment() -> None:
    model, x = Moded(), torch.rand(2, 4)
    names = set(vars(model))
    for mode in (True, False):
        model.train(mode)
        for scale in (4.0, 9.0):
            model.scale.fill_(scale)
            assert torch.allclose(bounds_on(model, x, x).centre, model(x), atol=1e-6)
    assert set(vars(model)) == names
    wide = model.double()
    assert torch.allclose(bounds_on(wide, x.double(), x.double()).centre, wide(x.double()))


def test_many_classes_take_less_memory_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, radius, _) = nn.Linear(20, 5).double(), drawn((7, 20))
    y = torch.tensor([4, 0, 4, 1, 2, 0, 0])
    margins = worst_margins(model, x - radius, x + radius, y)
    monkeypatch.setattr("signstep.certify.bounds.margins._AT_ONCE", 0)
    assert torch.allclose(worst_margins(model, x - radius, x + radius, y), margins)


def test_a_changed_network_is_traced_anew() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.rand(2, 4)
    bounds_on(model, x, x)
    model[2] = nn.Tanh()
    assert torch.allclose(bounds_on(model, x, x).centre, model(x), atol=1e-6)


def function_calls() -> dict[str, Callable[[Tensor], Tensor]]:
    """A use of each function and method with a rule, on (3, 4, 6, 6)."""
    factor = torch.tensor(-1.5, dtype=torch.float64)
    special: dict[object, Callable[[Tensor], Tensor]] = {
        operator.add: lambda x: x + factor,
        operator.sub: lambda x: 1 - x,
        operator.mul: lambda x: factor * x,
        operator.truediv: lambda x: x / factor,
        torch.add: lambda x: torch.add(x, x),
        torch.sub: lambda x: torch.sub(x, x),
        torch.mul: lambda x: torch.mul(x, factor),
        torch.div: lambda x: torch.div(x, factor),
        torch.cat: lambda x: torch.cat([x, x - 1], dim=1),
        operator.getitem: lambda x: x[:, 1:3],
        torch.permute: lambda x: torch.permute(x, (0, 2, 3, 1)),
        torch.transpose: lambda x: torch.transpose(x, 1, 2),
        torch.flatten: lambda x: torch.flatten(x, 1),
        torch.mean: lambda x: torch.mean(x, (2, 3)),
        torch.sum: lambda x: torch.sum(x, dim=-1),
        F.dropout: lambda x: F.dropout(x, 0.5, training=False),
        **{pool: partial(pool, kernel_size=2) for pool in (F.max_pool2d, F.avg_pool2d)},
        F.adaptive_avg_pool2d: lambda x: F.adaptive_avg_pool2d(x, 1),
        F.interpolate: lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
        "view": lambda x: x.view(3, -1),
        "reshape": lambda x: x.reshape(3, 2, -1),
        "flatten": lambda x: x.flatten(1),
        "permute": lambda x: x.permute(0, 3, 1, 2),
        "transpose": lambda x: x.transpose(1, 3),
        "squeeze": lambda x: x.squeeze(),
        "unsqueeze": lambda x: x.unsqueeze(1),
        "expand": lambda x: x.unsqueeze(1).expand(-1, 2, -1, -1, -1),
        "mean": lambda x: x.mean((1, 2)),
        "sum": lambda x: x.sum(dim=1),
        "add": lambda x: x.add(factor),
        "sub": lambda x: x.sub(x),
        "mul": lambda x: x.mul(factor),
        "div": lambda x: x.div(factor),
    }
    plain = {name: special.get(name, lambda x, name=name: getattr(x, name)()) for name in METHODS}
    # Their places tell apart what torch and operator call alike.
    named = {
        f"{place}-{function.__name__}": special.get(function, function) for place, function in enumerate(FUNCTIONS)
    }
    return {**named, **plain}


@pytest.mark.parametrize("name", list(function_calls()))
def test_no_point_of_the_box_escapes_a_function(name: str) -> None:
    call = function_calls()[name]
    centre, radius, generator = drawn((3, 4, 6, 6))
    box = Interval(centre, radius)
    found = bounds_on(Calling(call), box.low, box.high)
    assert bool((found.radius >= 0).all())
    for _ in range(50):
        out = call(inside(box, generator))
        assert out.shape == found.centre.shape
        assert bool((out <= found.high + 1e-9).all())
        assert bool((out >= found.low - 1e-9).all())


def test_the_ends_are_those_of_ball_box_and_mask() -> None:
    x = torch.tensor([[0.1, 0.5, 0.9]])
    mask = torch.tensor([True, False, True])
    low, high = ends(BallRegion.around(x, ss.linf(0.2, mask=mask)))
    assert torch.allclose(low, torch.tensor([[0.0, 0.5, 0.7]]))
    assert torch.allclose(high, torch.tensor([[0.3, 0.5, 1.0]]))


def test_certified_rows_of_a_linear_model_are_exactly_those_that_no_attack_can_fool() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(10, 3)
    with torch.no_grad():
        model.weight.copy_(torch.randn((3, 10), generator=generator))
    x, y = torch.rand((400, 10), generator=generator), torch.randint(3, (400,), generator=generator)
    y[:300] = model(x[:300]).argmax(1)
    held = ss.certified(model, x, y, threat=ss.linf(0.05))
    outcome = ss.attack(
        model, x, y, threat=ss.linf(0.05), recipe="pgd:steps=1,restarts=20", search=ss.Search(loss="margin")
    )
    assert 20 < int(held.sum()) < 380
    assert not bool((held & outcome.fooled).any())
    # Two classes: FGSM is the exact worst case, and each row is decided.
    two = nn.Linear(10, 2)
    y = two(x).argmax(1)
    held = ss.certified(two, x, y, threat=ss.linf(0.05))
    assert torch.equal(held, ~ss.attack(two, x, y, threat=ss.linf(0.05)).fooled)


@pytest.mark.parametrize("norm", ["l2", "l1", "pixel"])
def test_a_certificate_of_the_box_around_it_holds_for_a_ball(norm: str) -> None:
    threat = ss.threat_model(norm, 0.05)
    generator = torch.Generator().manual_seed(0)
    last = nn.Linear(12, 3)
    model = nn.Sequential(nn.Flatten(), last)
    with torch.no_grad():
        last.weight.copy_(torch.randn((3, 12), generator=generator))
    x = torch.rand((200, 3, 2, 2), generator=generator)
    y = model(x).argmax(1)
    held = ss.certified(model, x, y, threat=threat)
    assert 10 < int(held.sum()) < 200
    assert not bool(
        (held & ss.attack(model, x, y, threat=threat, recipe="pgd", search=ss.Search(loss="margin")).fooled).any()
    )


def test_certified_leaves_the_model_alone_and_knows_mean_and_std() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = {name: part.clone() for name, part in model.state_dict().items()}
    x, y = torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    held = ss.certified(model, x, y, threat=ss.linf(0.01), mean=0.5, std=0.25)
    assert held.dtype == torch.bool
    assert model.training
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert all(part.grad is None for part in model.parameters())
    inner = nn.Linear(4, 3)
    inside_ = nn.Sequential(nn.Flatten(), inner, nn.BatchNorm1d(3))
    inside_.load_state_dict(before)
    with torch.no_grad():
        inner.bias.sub_((inner.weight * 2).sum(1))
        inner.weight.mul_(4)
    assert torch.equal(held, ss.certified(inside_, x, y, threat=ss.linf(0.01)))


@pytest.mark.parametrize(
    ("wrong", "error", "named"),
    [
        ({"y": torch.tensor([0, 7])}, LabelError, "7; the model has 3 classes"),
        ({"y": torch.tensor([0.0, 1.0])}, LabelError, "float32"),
        ({"threat": ss.linf(None)}, InputError, "eps"),
        ({"model": nn.Linear(4, 1), "y": torch.tensor([0, 0])}, ModelError, "K > 1"),
        ({"x": torch.rand(0, 4), "y": torch.zeros(0).long()}, InputError, "empty"),
        ({"model": lambda x: x}, InputError, "nn.Module"),
    ],
)
def test_what_certified_cannot_answer_is_said(wrong: dict[str, object], error: type[Exception], named: str) -> None:
    given = {"model": nn.Linear(4, 3), "x": torch.rand(2, 4), "y": torch.tensor([0, 1]), "threat": ss.linf(0.1)} | wrong
    with pytest.raises(error, match=named):
        ss.certified(given["model"], given["x"], given["y"], threat=given["threat"])  # type: ignore[arg-type]


class Overwriting(nn.Module):
    """In place through a view, which the trace does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        one = x - 0.5
        two = one
        one += self.head(x)[:, :1].relu() + 1
        scores: Tensor = self.head(one + two)
        return scores


def test_a_model_that_leaves_its_bounds_gets_no_certificate() -> None:
    with pytest.raises(ModelError, match="leaves its own bounds"):
        ss.certified(Overwriting(), torch.rand(8, 4), torch.zeros(8).long(), threat=ss.linf(0.01))


def test_certified_takes_ends_of_the_box_that_float64_does_not_have() -> None:
    x, model = torch.tensor([[0.1, 0.05]]), nn.Linear(2, 2)
    held = ss.certified(model, x, model(x).argmax(1), threat=ss.linf(1e-6, box=(0.0, 0.1)))
    assert held.tolist() == [True]
    compiled = cast("nn.Module", torch.compile(model, backend="eager"))
    assert torch.equal(held, ss.certified(compiled, x, model(x).argmax(1), threat=ss.linf(1e-6, box=(0.0, 0.1))))
