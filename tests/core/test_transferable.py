"""Attacks made to carry over: each reduces to a simpler one, and follows its paper step by step."""

import math

import pytest
import torch
from small_nets import filled, labels, mlp, rand
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, interpolate, pad

import signstep as ss
from signstep.attacks.transfer.ti_fgsm import fitting
from signstep.engine.copies import DiverseInput, ScaledCopies
from signstep.engine.images import resampling
from signstep.engine.keys import Key
from signstep.engine.oracles import Autograd, Surrogates
from signstep.errors import InputError
from signstep.model.predictor import Predictor
from signstep.model.subject import Subject
from written_down import written_down

SHAPE = (2, 5, 5)
X = rand(24, *SHAPE, seed=14)
MODEL = mlp(50, scale=3)
Y = labels(MODEL, X)


def _x(recipe: str, *, eps: float = 0.1, surrogate: nn.Module | None = None, threat: str = "linf") -> Tensor:
    x = ss.attack(
        MODEL, X, Y, threat=ss.threat_model(threat, eps), recipe=recipe, search=ss.Search(surrogate=surrogate)
    ).x
    assert isinstance(x, Tensor)
    return x


@pytest.mark.parametrize("surrogate", [None, mlp(50, seed=5, scale=3)])
@pytest.mark.parametrize("threat", ["linf", "l2"])
@pytest.mark.parametrize(
    ("special", "simple"),
    [
        ("di-fgsm:prob=0", "mi-fgsm"),
        ("si-fgsm:copies=1", "ni-fgsm"),
        ("ti-fgsm:kernel=1", "mi-fgsm"),
        ("ni-fgsm:decay=0", "bim"),
        ("di-fgsm:resize=1", "mi-fgsm"),
    ],
)
def test_without_its_idea_each_is_a_simpler_attack(
    special: str, simple: str, threat: str, surrogate: nn.Module | None
) -> None:
    eps = 0.05 if threat == "linf" else 0.3
    plain = _x(simple, eps=eps, surrogate=surrogate, threat=threat)
    torch.testing.assert_close(_x(special, eps=eps, surrogate=surrogate, threat=threat), plain, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["di-fgsm:prob=1,resize=0.6", "si-fgsm", "ti-fgsm:kernel=3", "ni-fgsm", "vmi-fgsm"])
def test_with_its_idea_each_is_another_attack(name: str) -> None:
    """Guards the test above: the ideas do something on this model."""
    assert not torch.equal(_x(name), _x("mi-fgsm"))


def _gradient(model: nn.Module, u: Tensor, y: int) -> Tensor:
    leaf = u.clone().requires_grad_()
    loss = torch.log(torch.expm1(cross_entropy(model(leaf[None]), torch.tensor([y]))))  # the log-odds that are searched
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def _by_hand(model: nn.Module, x: Tensor, y: int, rule: str, steps: int, eps: float) -> Tensor:
    """One example; it stops at the first point that is looked at and fools."""
    u, memory, alpha = x.clone(), torch.zeros_like(x), eps / steps
    inside = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    for _ in range(steps):
        look = u
        if rule in ("ni", "si"):
            look = (u + alpha * memory * x.numel()).clamp(*inside)
            if int(model(look[None]).argmax()) != y and not torch.equal(look, x):
                return look
        gradient = _gradient(model, look, y)
        if rule == "si":
            copies = [0.5**i * _gradient(model, look * 0.5**i, y) for i in range(5)]
            gradient = torch.stack(copies).mean(0)
        if rule == "ti":
            place = torch.arange(-1.0, 2.0, dtype=torch.float64)
            kernel = torch.exp(-(place[:, None].square() + place.square()) / (2 / 3))
            kernel = (kernel / kernel.sum()).expand(2, 1, 3, 3)
            gradient = conv2d(gradient[None], kernel, padding=1, groups=2)[0]
        memory = memory + gradient / gradient.abs().sum()
        u = (u + alpha * memory.sign()).clamp(*inside)
        if rule == "ti" and int(model(u[None]).argmax()) != y:
            return u
    return u


@pytest.mark.parametrize(("name", "rule"), [("ni-fgsm", "ni"), ("si-fgsm", "si"), ("ti-fgsm:kernel=3", "ti")])
def test_each_follows_its_paper(name: str, rule: str) -> None:
    found = _x(f"{name}{',' if ':' in name else ':'}steps=6", eps=0.06)
    standing = labels(MODEL, found) == Y
    assert 0 < int(standing.sum()) < len(X)
    for row in range(len(X)):
        wanted = _by_hand(MODEL, X[row], int(Y[row]), rule, 6, 0.06)
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-9)


def test_variance_tuning_by_hand() -> None:
    """The neighbours are those that the model was asked about; what they change is seen in the second step."""
    told_apart = 0
    for row in range(12):
        inner, asked = mlp(50, scale=6), list[Tensor]()

        def model(u: Tensor, inner: nn.Module = inner, asked: list[Tensor] = asked) -> Tensor:
            if torch.is_grad_enabled():
                asked.append(u.detach().clone())
            out: Tensor = inner(u)
            return out

        x, eps = X[row : row + 1] * 0.6 + 0.2, 0.02
        y = labels(inner, x)
        outcome = ss.attack(model, x, y, threat=ss.linf(eps), recipe="vmi-fgsm:steps=2,samples=4,reach=1.5")
        clean, *near, second = asked
        assert torch.equal(clean, x)
        assert len(near) == 4
        assert all(bool(((point - x).abs() <= 1.5 * eps + 1e-12).all()) for point in near)
        assert max(float((point - x).abs().max()) for point in near) > 1.3 * eps
        first = _gradient(inner, x[0], int(y))
        mean = torch.stack([_gradient(inner, point[0], int(y)) for point in near]).mean(0)
        memory = first / first.abs().sum()
        torch.testing.assert_close(second, x + eps / 2 * memory.sign(), rtol=0, atol=1e-12)
        assert outcome.backwards.tolist() == [2 + 4]
        if int(labels(inner, second)) != int(y):
            continue  # it left before the second step
        there = _gradient(inner, second[0], int(y))
        ends = []
        for variance in (mean - first, mean, torch.zeros_like(mean)):
            tuned = there + variance
            ends.append(second + eps / 2 * (memory + tuned / tuned.abs().sum()).sign())
        assert isinstance(outcome.x, Tensor)
        torch.testing.assert_close(outcome.x, ends[0], rtol=0, atol=1e-12)
        told_apart += not torch.allclose(ends[0], ends[1]) and not torch.allclose(ends[0], ends[2])
    assert told_apart > 0  # from the mean alone, and from no tuning at all


def test_variance_tuning_changes_nothing_where_the_gradient_is_the_same_everywhere() -> None:
    linear = filled(nn.Sequential(nn.Flatten(), nn.Linear(50, 2)))
    y = labels(linear, X)
    points = [
        ss.attack(linear, X, y, threat=ss.linf(0.01), recipe=name).x for name in ("mi-fgsm:steps=3", "vmi-fgsm:steps=3")
    ]
    assert isinstance(points[0], Tensor)
    assert isinstance(points[1], Tensor)
    torch.testing.assert_close(points[0], points[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("recipe", "forwards", "backwards"),
    [
        ("ni-fgsm:steps=4", 5, 4),
        ("si-fgsm:steps=4,copies=3", 13, 12),
        ("di-fgsm:steps=4,resize=1", 5, 4),
        ("ti-fgsm:steps=4,kernel=3", 5, 4),
        ("vmi-fgsm:steps=4,samples=3", 14, 13),
    ],
)
def test_what_a_row_that_stands_has_cost(recipe: str, forwards: int, backwards: int) -> None:
    outcome = ss.attack(MODEL, X, Y, threat=ss.linf(1e-4), recipe=recipe)
    assert not bool(outcome.fooled.any())
    assert outcome.forwards.tolist() == [forwards] * len(X)
    assert outcome.backwards.tolist() == [backwards] * len(X)


def test_input_diversity_resizes_and_pads() -> None:
    """The matrices do what bilinear resizing and zero padding do."""
    image = rand(3, 2, 8, 6, seed=3)
    for wanted, start in ((5, 2), (8, 0), (7, 1)):
        rows = resampling(8, torch.full((3,), float(wanted)), torch.full((3,), float(start)))
        got = rows.unsqueeze(1).to(image) @ image
        resized = interpolate(image, size=(wanted, 6), mode="bilinear", align_corners=False)
        torch.testing.assert_close(got, pad(resized, (0, 0, start, 8 - start - wanted)), rtol=0, atol=1e-6)


def test_input_diversity_draws_for_each_row() -> None:
    """About half the rows are changed, by sizes and places that cover the range, and none twice alike."""
    seen = list[Tensor]()

    def model(u: Tensor) -> Tensor:
        seen.append(u.detach())
        z = u.flatten(1).sum(1)
        return torch.stack([z, -z], 1)

    x = 0.5 + rand(400, 1, 10, 10, seed=4) / 4
    subject = Subject.of(ss.Model(model))
    with subject.opened():
        problem = subject.ask(x, torch.zeros(400, dtype=torch.int64), ss.linf(0.1), key=Key(0)).problem
        seen.clear()
        DiverseInput(0.5, 0.7)(problem, x, Key(1))
        again = DiverseInput(0.5, 0.7)(problem, x, Key(1))[1]
        other = DiverseInput(0.5, 0.7)(problem, x, Key(2))[1]
    (shown, same, _) = seen
    assert isinstance(again, Tensor)
    assert isinstance(other, Tensor)
    assert torch.equal(shown, same)
    assert not torch.equal(again, other)
    changed = (shown - x).abs().flatten(1).amax(1) > 1e-6
    assert abs(float(changed.double().mean()) - 0.5 * 3 / 4) < 0.08  # one size of four is the whole canvas
    sides = (shown > 0.1).any(1).any(2).sum(1)
    assert set(sides.tolist()) == {7, 8, 9, 10}
    tops = (shown > 0.1).any(1).any(2).double().argmax(1)
    assert set(tops.tolist()) == {0, 1, 2, 3}


def test_the_kernel_of_smoothing_fits_the_image() -> None:
    assert [fitting(torch.zeros(1, 1, side, side)) for side in (3, 32, 64, 224, 299)] == [1, 1, 3, 11, 15]


def test_smoothing_does_not_leak_through_the_mask() -> None:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, 2] = True
    outcome = ss.attack(MODEL, X, Y, threat=ss.linf(0.05, mask=mask), recipe="ti-fgsm:kernel=3")
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(outcome.x[:, ~mask], X[:, ~mask])
    assert not torch.equal(outcome.x[:, mask], X[:, mask])


def test_an_attack_object_keeps_its_copies_when_it_gets_a_surrogate() -> None:
    other = mlp(50, seed=5, scale=3)
    for name in ("di-fgsm:prob=1,resize=0.6", "si-fgsm"):
        built = ss.attack(MODEL, X, Y, threat=ss.linf(0.1), recipe=ss.recipe(name), search=ss.Search(surrogate=other)).x
        assert isinstance(built, Tensor)
        assert torch.equal(built, _x(name, surrogate=other))
        assert not torch.equal(built, _x("mi-fgsm", surrogate=other))
    inner = Surrogates((Predictor(other),))
    assert ScaledCopies(3, inner=inner).gradients == 3
    assert DiverseInput(inner=inner).sees_victim is False
    assert DiverseInput(inner=Autograd()).exact is False


def test_copies_of_several_inputs() -> None:
    """Every attacked image of a dict is changed, and the masks and shapes stay their own."""

    def model(left: Tensor, right: Tensor) -> Tensor:
        return MODEL(left - right)  # type: ignore[no-any-return]

    inputs: dict[str, Tensor] = {"left": X, "right": X / 2}
    threat = {"left": ss.linf(0.1), "right": ss.linf(0.05)}
    for name in ("si-fgsm", "di-fgsm", "ti-fgsm:kernel=3", "vmi-fgsm:samples=2", "ni-fgsm"):
        outcome = ss.attack(model, inputs, labels(MODEL, X / 2), threat=threat, recipe=f"{name}")
        assert bool(outcome.verified.all()), name


@pytest.mark.parametrize("recipe", ["di-fgsm", "ti-fgsm"])
def test_images_only(recipe: str) -> None:
    with pytest.raises(InputError, match=r"images \(R, C, H, W\).*\(24, 50\)"):
        ss.attack(nn.Sequential(MODEL), X.flatten(1), Y, threat=ss.linf(0.1), recipe=recipe)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("di-fgsm:prob=1.5", "probability"),
        ("di-fgsm:resize=0", "smallest side"),
        ("ti-fgsm:kernel=4", "odd"),
        ("si-fgsm:copies=0", "copies"),
        ("vmi-fgsm:samples=0", "neighbours"),
        ("vmi-fgsm:reach=0", "neighbourhood"),
        ("ni-fgsm:decay=-1", "decay"),
    ],
)
def test_wrong_options_say_what_is_right(recipe: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ss.recipe(recipe)


def test_the_look_ahead_is_a_step_long_in_every_norm() -> None:
    """A memory with equal entries looks exactly one step ahead, so that eps / steps means the same in all norms."""
    layer = nn.Linear(50, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 50))
    linear = nn.Sequential(nn.Flatten(), layer)
    for name, eps in (("linf", 0.01), ("l2", 0.05), ("l1", 0.3)):
        asked = list[Tensor]()

        def model(u: Tensor, asked: list[Tensor] = asked) -> Tensor:
            if torch.is_grad_enabled():
                asked.append(u.detach().clone())
            out: Tensor = linear(u)
            return out

        x = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
        threat = ss.threat_model(name, eps)
        ss.attack(model, x, torch.tensor([0]), threat=threat, recipe="ni-fgsm:steps=4")
        first, second = asked[0], asked[1]
        size = written_down({"linf": math.inf, "l2": 2.0, "l1": 1.0}, name, "the order")
        length = float(torch.linalg.vector_norm((second - first).flatten(), size))
        # One step was taken and one is looked ahead; in L1 a step goes along one coordinate, the look along all.
        assert length == pytest.approx(2 * eps / 4, rel=1e-9), name


@pytest.mark.parametrize(
    "recipe", ["di-fgsm:prob=1,resize=0.6,steps=4", "si-fgsm:steps=4,copies=3", "vmi-fgsm:steps=4"]
)
def test_on_a_fast_twin_the_copies_are_made_once(recipe: str) -> None:
    model = mlp(50, dtype=torch.float32, scale=3)
    x = X.float()
    exact, fast = (
        ss.attack(model, x, labels(model, x), threat=ss.linf(1e-4), recipe=recipe, engine=engine)
        for engine in ("exact", "float32")
    )
    assert torch.equal(exact.backwards, fast.backwards)
    assert isinstance(exact.x, Tensor)
    assert isinstance(fast.x, Tensor)
    torch.testing.assert_close(exact.x, fast.x, rtol=0, atol=1e-4)
    assert float((exact.x == fast.x).float().mean()) > 0.95
