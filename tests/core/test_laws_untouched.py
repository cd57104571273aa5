"""Nothing is left changed, and every ordinary way to hold a model or a batch works."""

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from small_nets import filled, labels, mlp, rand
from torch import Tensor, nn

import signstep as ss
from signstep.engine.untouched import RandomnessWatch, reseed, untouched
from signstep.errors import ModelError

RECIPES = ["fgsm", "pgd:steps=3", "random-sign"]
over_recipes = pytest.mark.parametrize("recipe", RECIPES)


def _numpy_state() -> list[int]:
    keys: list[int] = np.random.get_state(legacy=False)["state"]["key"].tolist()
    return keys


class Counting(nn.Module):
    """Changes its buffers in every way a module can: in place, behind autograd's back, by replacing them."""

    steps: Tensor
    hidden: Tensor
    replaced: Tensor
    nothing: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("hidden", torch.ones(3))
        self.register_buffer("replaced", torch.ones(2))
        self.register_buffer("nothing", None)

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.hidden.data.add_(1)
        self.replaced = self.replaced + 1
        self.nothing = torch.ones(1)
        return x


class Mixed(nn.Module):
    """Convolution, a frozen and a live BatchNorm, dropout, a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.frozen, self.live = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.drop, self.count = nn.Dropout(0.3), Counting()
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.live(torch.relu(self.frozen(self.conv(x))))
        out: Tensor = self.head(self.count(self.drop(h)).flatten(1))
        return out


def _mixed() -> Mixed:
    model = filled(Mixed(), dtype=torch.float32)
    model.train()
    model.frozen.eval()
    model.conv.weight.requires_grad_(False)
    model.head.weight.grad = torch.full_like(model.head.weight, 7.0)
    return model


def _everything(model: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "weights": {name: value.detach().clone() for name, value in model.named_parameters()},
        "requires_grad": {name: value.requires_grad for name, value in model.named_parameters()},
        "grad": {
            name: None if value.grad is None else (id(value.grad), value.grad.clone())
            for name, value in model.named_parameters()
        },
        "buffers": {name: (id(value), value.clone()) for name, value in model.named_buffers()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": {name: [dict(getattr(module, kind)) for kind in hooks] for name, module in model.named_modules()},
        "torch": torch.get_rng_state(),
        "numpy": _numpy_state(),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "global hooks": len(torch.nn.modules.module._global_forward_hooks),
    }


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return torch.equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(_same(a, b) for a, b in zip(before, after, strict=True))
    return bool(before == after)


def _assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in before.items():
        assert _same(value, after[key]), key


X = rand(5, 2, 3, 3, seed=1, dtype=torch.float32)
Y = torch.tensor([0, 1, 2, 0, 1])


def test_every_card_draws_on_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeding seeds all cards, also those that no model is on; two are played here by a list."""
    cards = [torch.tensor([3]), torch.tensor([5])]

    def seed(number: int) -> None:
        cards[:] = [torch.tensor([number]) for _ in cards]

    def put(state: Tensor, index: int) -> None:
        cards[index] = state

    for name, played in (
        ("is_initialized", lambda: True),
        ("device_count", lambda: len(cards)),
        ("get_rng_state", lambda index: cards[index].clone()),
        ("set_rng_state", put),
        ("manual_seed_all", seed),
    ):
        monkeypatch.setattr(torch.cuda, name, played)
    with untouched():
        reseed(7)
        assert [int(card) for card in cards] == [7, 7]
    assert [int(card) for card in cards] == [3, 5]


@over_recipes
@pytest.mark.parametrize("mode", ["eval", "keep"])
@pytest.mark.parametrize("as_surrogate", [False, True])
def test_model_and_process_are_as_before(recipe: str, mode: Any, as_surrogate: bool) -> None:
    model = _mixed()
    seen: list[bool] = []
    model.conv.register_forward_hook(lambda module, *_: seen.append(module.training))
    victim = mlp(classes=3, dtype=torch.float32)
    before, x, y = _everything(model), X.clone(), Y.clone()
    if as_surrogate:
        ss.attack(victim, x, y, threat=ss.linf(0.1), recipe=recipe, search=ss.Search(surrogate=model))
    else:
        ss.attack(ss.Model(model, mode=mode), x, y, threat=ss.linf(0.1), recipe=recipe)
        assert set(seen) == {mode == "keep"}
    _assert_same(before, _everything(model))
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


class Averaging(nn.Module):
    """Keeps a mean of what it has seen, without gradients, in a buffer and in an attribute."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(()))
        self.beside = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for part in (self.mean, self.beside):
                part.mul_(0.9).add_(x.mean())
        scores: Tensor = self.head(x)
        return scores


def test_state_that_is_kept_without_gradients_gets_none() -> None:
    """Also from attacks that take gradients of what a model does without them."""
    model = Averaging().double()
    ss.attack(model, rand(3, 4), torch.zeros(3).long(), threat=ss.linf(0.1), recipe="bpda-pgd:steps=2")
    for part in (model.mean, model.beside):
        assert part.is_leaf
        assert not part.requires_grad
        assert float(part) == 0
    deepcopy(model)  # no member of a graph can be copied


@pytest.fixture
def own_generator() -> Iterator[None]:
    kept, state = np.random.get_bit_generator(), np.random.get_state()  # type: ignore[attr-defined]
    yield
    np.random.set_bit_generator(kept)  # type: ignore[attr-defined]
    np.random.set_state(state)


@pytest.mark.usefixtures("own_generator")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.PCG64, np.random.Philox, np.random.SFC64])
def test_whatever_generator_numpy_draws_from_is_watched_and_put_back(kind: Any) -> None:
    np.random.set_bit_generator(kind(3))  # type: ignore[attr-defined]
    np.random.standard_normal()  # the second one of a pair waits
    mine, before = np.random.get_bit_generator(), np.random.get_state(legacy=False)  # type: ignore[attr-defined]
    with untouched(nn.Identity()):
        for draw in (np.random.rand, np.random.standard_normal, lambda: np.random.seed(5)):
            watch = RandomnessWatch(torch.device("cpu"), 1)
            assert not watch.drew()
            draw()
            assert watch.drew()
        np.random.set_bit_generator(np.random.PCG64(4))  # type: ignore[attr-defined]
    assert np.random.get_bit_generator() is mine  # type: ignore[attr-defined]
    assert repr(np.random.get_state(legacy=False)) == repr(before)


@pytest.mark.parametrize("mode", ["eval", "keep"])
def test_each_submodule_keeps_its_mode_during_the_attack(mode: Any) -> None:
    model = _mixed()
    seen: dict[str, set[bool]] = {"frozen": set(), "live": set()}
    for name, values in seen.items():
        module: nn.Module = getattr(model, name)
        module.register_forward_hook(lambda part, *_, into=values: into.add(part.training))
    ss.attack(ss.Model(model, mode=mode), X, Y, threat=ss.linf(0.1), recipe="pgd:steps=2")
    assert seen == {"frozen": {False}, "live": {mode == "keep"}}


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_also_after_an_exception(fails_at: int) -> None:
    model = _mixed()
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise ZeroDivisionError("the model's own")

    model.head.register_forward_pre_hook(fail)
    before, x = _everything(model), X.clone()
    with pytest.raises(ZeroDivisionError, match="the model's own"):
        ss.attack(ss.Model(model, mode="keep"), x, Y, threat=ss.linf(0.1), recipe="pgd:steps=5")
    _assert_same(before, _everything(model))
    assert torch.equal(x, X)


def test_a_pending_backward_of_the_caller_still_works() -> None:
    """Attacking between forward and backward must not count as an in-place change of weights or buffers."""
    model = _mixed()
    model.eval()
    loss = model(X).sum()
    ss.attack(model, X, Y, threat=ss.linf(0.1), recipe="pgd:steps=2")
    assert model.head.bias.grad is None
    loss.backward()
    assert model.head.bias.grad is not None


@over_recipes
@pytest.mark.parametrize("held", ["plain", "requires_grad", "non-leaf", "strided", "channels last", "inference"])
@pytest.mark.parametrize("context", ["plain", "no_grad", "inference_mode"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_way_to_hold_a_batch(recipe: str, held: str, context: str, dtype: torch.dtype) -> None:
    model = mlp(classes=3, dtype=dtype)
    base = X.to(dtype)
    mask, eps = rand(2, 3, 3, seed=4) < 0.8, torch.full((5,), 0.1, dtype=dtype)
    mean, std = torch.tensor([0.4, 0.5], dtype=dtype), torch.tensor([0.2, 0.3], dtype=dtype)
    threat = ss.linf(eps, mask=mask)
    wanted = ss.attack(model, base, Y, threat=threat, recipe=recipe, mean=mean, std=std)
    x, y = base.clone(), Y.clone()
    if held == "requires_grad":
        x.requires_grad_()
    elif held == "non-leaf":
        x = base.clone().requires_grad_() * 1.0
    elif held == "strided":
        x = torch.stack([base, base], -1)[..., 0]
        assert not x.is_contiguous()
    elif held == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif held == "inference":
        with torch.inference_mode():
            x, y, mask, eps = base.clone(), Y.clone(), mask.clone(), eps.clone()
            mean, std = mean.clone(), std.clone()
            threat = ss.linf(eps, mask=mask)
    surroundings: dict[str, Callable[[], Any]] = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    with surroundings.get(context, torch.enable_grad)():
        outcome = ss.attack(model, x, y, threat=threat, recipe=recipe, mean=mean, std=std)
        grad_mode = torch.is_grad_enabled()
    assert grad_mode == (context == "plain")
    assert isinstance(outcome.x, Tensor)
    assert isinstance(wanted.x, Tensor)
    torch.testing.assert_close(outcome.x, wanted.x, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)
    assert torch.equal(outcome.fooled, wanted.fooled)
    assert not outcome.x.requires_grad
    assert not outcome.loss.requires_grad
    if held == "requires_grad":
        assert x.requires_grad
        assert x.grad is None


@pytest.mark.parametrize("where", ["attacked", "frozen"])
def test_inference_tensors_in_a_dict(where: str) -> None:
    model = filled(nn.Bilinear(4, 4, 3), dtype=torch.float32)
    inputs = {"input1": rand(5, 4, dtype=torch.float32), "input2": rand(5, 4, seed=1, dtype=torch.float32)}
    threat = {"input1": ss.linf(0.1)}
    wanted = ss.attack(model, inputs, Y, threat=threat)
    with torch.inference_mode():
        inputs["input1" if where == "attacked" else "input2"] = inputs[
            "input1" if where == "attacked" else "input2"
        ].clone()
    outcome = ss.attack(model, inputs, Y, threat=threat)
    assert isinstance(outcome.x, dict)
    assert isinstance(wanted.x, dict)
    assert torch.equal(outcome.x["input1"], wanted.x["input1"])


@over_recipes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "pixel"])
def test_half_precision(recipe: str, dtype: torch.dtype, norm: str) -> None:
    model, x = mlp(classes=3, dtype=dtype), X.to(dtype)
    y = labels(model, x)
    outcome = ss.attack(model, x, y, threat=ss.threat_model(norm, 0.1), recipe=recipe)
    assert isinstance(outcome.x, Tensor)
    assert outcome.x.dtype == dtype
    assert bool((outcome.x != x).flatten(1).any(1).all())
    change = (outcome.x.double() - x.double()).flatten(1)
    length = {"linf": change.abs().amax(1), "l2": change.norm(dim=1), "l1": change.abs().sum(1)}.get(
        norm, (outcome.x.double() - x.double()).norm(dim=1).flatten(1).amax(1)
    )
    assert bool((length <= 0.1).all())
    assert bool(outcome.verified.all())
    assert torch.equal(outcome.fooled, labels(model, outcome.x) != y)


@over_recipes
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_networks(recipe: str, kind: Callable[..., nn.RNNBase]) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(4, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.rnn(x)[0][:, -1])
            return out

    model = filled(Recurrent(), dtype=torch.float32)
    model.train()
    x = rand(5, 7, 4, dtype=torch.float32)
    outcome = ss.attack(model, x, Y, threat=ss.threat_model("token", 0.1), recipe=recipe)
    assert bool(outcome.verified.all())
    assert all(module.training for module in model.modules())


@over_recipes
@pytest.mark.parametrize("first", ["relu", "normalise"])
@pytest.mark.parametrize("start", ["raw", "declared"])
def test_a_model_that_works_in_place_on_its_input(recipe: str, first: str, start: str) -> None:
    """`nn.ReLU(inplace=True)` first or `x.sub_(mean)`: the caller's batch and the answer stay what they are."""

    def inplace(x: Tensor) -> Tensor:
        return torch.relu_(x) if first == "relu" else x.sub_(0.5).div_(0.25)

    def outplace(x: Tensor) -> Tensor:
        return torch.relu(x) if first == "relu" else x.sub(0.5).div(0.25)

    inner = mlp(classes=3, dtype=torch.float32)
    extra: dict[str, Any] = {} if start == "raw" else {"mean": 0.1, "std": 0.9}
    threat = ss.linf(0.1, box=(-1, 1))
    x = 2 * X - 1
    kept = x.clone()
    wanted = ss.attack(lambda u: inner(outplace(u)), x, Y, threat=threat, recipe=recipe, **extra)
    outcome = ss.attack(lambda u: inner(inplace(u)), x, Y, threat=threat, recipe=recipe, **extra)
    assert torch.equal(x, kept)
    assert isinstance(outcome.x, Tensor)
    assert isinstance(wanted.x, Tensor)
    assert torch.equal(outcome.x, wanted.x)
    assert torch.equal(outcome.fooled, wanted.fooled)
    assert torch.equal(
        ss.fgsm(lambda u: inner(inplace(u)), x, Y, eps=0.1, box=(-1, 1)),
        ss.fgsm(lambda u: inner(outplace(u)), x, Y, eps=0.1, box=(-1, 1)),
    )


def test_under_autocast_the_verdict_is_the_model_there() -> None:
    model, x = mlp(classes=3, dtype=torch.float32), X
    with torch.autocast("cpu", torch.bfloat16):
        outcome = ss.attack(model, x, Y, threat=ss.linf(0.05), recipe="pgd:steps=3")
        assert isinstance(outcome.x, Tensor)
        assert torch.equal(outcome.fooled, labels(model, outcome.x) != Y)


def test_the_same_module_twice() -> None:
    model = _mixed()
    before = _everything(model)
    ss.attack(model, X, Y, threat=ss.linf(0.1), search=ss.Search(surrogate=[model, deepcopy(model), model]))
    _assert_same(before, _everything(model))


@pytest.mark.parametrize("part", ["weight", "buffer"])
def test_a_model_built_in_inference_mode_says_what_to_do(part: str) -> None:
    with torch.inference_mode():
        model = mlp(classes=3, dtype=torch.float32)
        scale = torch.ones(18)
    if part == "buffer":
        model = nn.Sequential(nn.Flatten(), Buffered(scale), mlp(classes=3, dtype=torch.float32))
    with pytest.raises(ModelError, match=r"inference_mode.*deepcopy"):
        ss.attack(model, X, Y, threat=ss.linf(0.1))
    outcome = ss.attack(deepcopy(model), X, Y, threat=ss.linf(0.1))
    wanted = ss.attack(mlp(classes=3, dtype=torch.float32), X, Y, threat=ss.linf(0.1))
    assert isinstance(outcome.x, Tensor)
    assert isinstance(wanted.x, Tensor)
    assert torch.equal(outcome.x, wanted.x)


class Buffered(nn.Module):
    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
