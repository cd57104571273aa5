"""The number of rows that a model sees never breaks it: rows leave batches, and loaders end with short ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_nets import RowNet, filled, labels, rand
from torch import Tensor, nn

import signstep as ss
from signstep.errors import InputError, ModelError, VictimError
from signstep.model import victims
from signstep.model.batch_sizes import Sizes
from signstep.model.predictor import Predictor

COUNT = 9
X = rand(COUNT, 6, seed=2)


def _net(classes: int = 3) -> RowNet:
    return filled(RowNet(6, classes), scale=2.0)


class Squeezed(nn.Module):
    """The commonest idiom: it takes away the row's own dimension when one row is left."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out[:, :, None, None].squeeze()


class Fixed(nn.Module):
    """Made for one number of rows; with others it fails, or answers as if there were as many."""

    def __init__(self, net: nn.Module, *, fails: bool) -> None:
        super().__init__()
        self.net, self.fails = net, fails
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        if len(x) == COUNT:
            out: Tensor = self.net(x)
            return out
        if self.fails:
            raise ValueError(f"{COUNT} rows, please")
        return torch.zeros(COUNT, 3, dtype=x.dtype) + x.sum()


class AtLeastTwo(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) >= 2
        out: Tensor = self.net(x)
        return out


MODELS: dict[str, Callable[[nn.Module], Any]] = {
    "squeezed": lambda net: Squeezed(net).eval(),
    "squeezed behind a function": lambda net: Squeezed(net).eval().forward,
    "fixed, fails": lambda net: Fixed(net, fails=True).eval(),
    "fixed, answers otherwise": lambda net: Fixed(net, fails=False).eval(),
    "at least two": lambda net: AtLeastTwo(net).eval(),
    "exported": lambda net: torch.export.export(net, (X,)).module(),
    "exported for fewer": lambda net: torch.export.export(net, (X[:4],)).module(),
    "exported for more": lambda net: torch.export.export(net, (torch.cat([X, X]),)).module(),
}
RECIPES = ["fgsm", "pgd:steps=6,restarts=2", "fab:steps=4", "square:queries=30", "mt-pgd:steps=2", "odi-pgd:steps=2"]
over_models = pytest.mark.parametrize("model", MODELS)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch.export's own


def _assert_alike(found: ss.Outcome, wanted: ss.Outcome) -> None:
    assert isinstance(found.x, Tensor)
    assert isinstance(wanted.x, Tensor)
    assert torch.equal(found.x, wanted.x)
    for name in ("fooled", "undetermined", "loss", "forwards", "backwards", "passes"):
        assert bool(torch.as_tensor(getattr(found, name) == getattr(wanted, name)).all()), name
    assert found.notes == wanted.notes


@over_models
@pytest.mark.parametrize("recipe", RECIPES)
def test_rows_that_leave_change_nothing_for_the_others(model: str, recipe: str) -> None:
    net = _net()
    y, threat = labels(net, X), ss.linf(0.12)
    wanted = ss.attack(net, X, y, threat=threat, recipe=recipe)
    if recipe.startswith("pgd"):
        assert 0 < int(wanted.fooled.sum()) < COUNT
    _assert_alike(ss.attack(MODELS[model](net), X, y, threat=threat, recipe=recipe), wanted)


@over_models
def test_a_stream_that_ends_with_a_short_batch(model: str) -> None:
    net = _net()
    more = torch.cat([X, X[:1] + 0.01])
    y = labels(net, more)
    batches = [(more[:COUNT], y[:COUNT]), (more[COUNT:], y[COUNT:])]
    terms: dict[str, Any] = {"threat": ss.linf(0.12), "attacks": ["fgsm", "pgd:steps=4"]}
    found = ss.audit(MODELS[model](net), batches, **terms)
    wanted = ss.audit(net, batches, **terms)
    assert found.per_example == wanted.per_example
    assert found.curve == wanted.curve


@pytest.mark.parametrize("model", [name for name in MODELS if not name.startswith("fixed")])
def test_a_first_batch_of_one_row(model: str) -> None:
    net = _net()
    y = labels(net, X)
    wanted = ss.attack(net, X[:1], y[:1], threat=ss.linf(0.3), recipe="pgd:steps=3")
    _assert_alike(ss.attack(MODELS[model](net), X[:1], y[:1], threat=ss.linf(0.3), recipe="pgd:steps=3"), wanted)


@pytest.mark.parametrize("head", [1, 2])
def test_a_binary_head_and_a_patch(head: int) -> None:
    """One score for each row, squeezed; and draws that come in numbers of their own."""

    class Images(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1).mean(1, keepdim=True) * torch.tensor([[9.0, -9.0]])[:, :head] - 4.5).squeeze()

    x = rand(5, 1, 4, 4, seed=4, dtype=torch.float32)

    def plain(u: Tensor) -> Tensor:
        out: Tensor = Images()(u)
        return out.reshape(len(u), head)

    verbs: tuple[Callable[[Any], Tensor], ...] = (
        lambda model: ss.patch(ss.Model(model, outputs="logits"), (x, None), size=2, steps=2, holdout=0).values,
        lambda model: ss.fgsm(ss.Model(model, outputs="logits"), x[:1], eps=0.1),
        lambda model: (
            ss.universal(ss.Model(model, outputs="logits"), (x, None), threat=ss.linf(0.1), epochs=1, rows=4).delta
        ),
    )
    for verb in verbs:
        assert torch.equal(verb(Images()), verb(plain))


def test_an_array_function_that_squeezes() -> None:
    net = _net()
    y = labels(net, X)

    def scores(x: Any) -> Any:
        return net(torch.from_numpy(x)).detach().numpy()[:, :, None].squeeze()

    wanted = ss.attack(net, X, y, threat=ss.linf(0.3), recipe="square:queries=30")
    found = ss.attack(victims.from_numpy(scores), X, y, threat=ss.linf(0.3), recipe="square:queries=30")
    assert torch.equal(found.fooled, wanted.fooled)
    assert torch.equal(found.forwards, wanted.forwards)


def test_an_ordinary_model_is_asked_no_more_than_before() -> None:
    net = _net()
    calls: list[int] = []
    net.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    Predictor(net)(X)
    assert calls == [COUNT]
    predictor = Predictor(net)
    for count in (COUNT, 3, 1, 3):
        predictor(X[:count])
    assert calls == [COUNT, COUNT, 3, 1, 3]


def test_what_was_found_out_is_remembered() -> None:
    model = Fixed(_net(), fails=True)
    predictor = Predictor(model)
    for count in (COUNT, 4, 4, 2, 1, 2 * COUNT + 1):
        assert torch.equal(predictor(torch.cat([X, X, X])[:count]).raw, model.net(torch.cat([X, X, X])[:count]))
    assert model.calls == [COUNT, 4, 4, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT]


@pytest.mark.parametrize("kind", [ValueError, ModelError, VictimError])
def test_a_failure_that_is_not_the_size_is_not_hidden(kind: type[Exception]) -> None:
    """It comes once and is gone at the next call, or comes whatever the size; both are the caller's to see."""
    for fails in (lambda calls, _: calls == 2, lambda calls, _: calls > 1):
        calls = 0

        def model(x: Tensor, fails: Any = fails) -> Tensor:
            nonlocal calls
            calls += 1
            if fails(calls, x):
                raise kind("mine")
            return x[:, :3]

        predictor = Predictor(model)
        predictor(X)
        with pytest.raises(kind, match="mine"):
            predictor(X[:4])


def test_a_failure_in_the_first_call_is_the_models_own() -> None:
    calls = 0

    def model(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        raise ValueError(f"mine: {len(x)} rows")

    with pytest.raises(ValueError, match="mine"):
        Predictor(model)(X)
    assert calls == 1


class Noisy(nn.Module):
    """Draws for each row, and takes no single one."""

    def __init__(self, *, squeezed: bool) -> None:
        super().__init__()
        self.net, self.squeezed = _net(), squeezed

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x) + 0.5 * torch.randn(len(x), 3, dtype=x.dtype)
        return out.unsqueeze(2).squeeze() if self.squeezed else out


@pytest.mark.parametrize("recipe", ["pgd:steps=4", "fgsm"])
@pytest.mark.parametrize("eot", [1, 3])
def test_draws_do_not_hang_on_how_it_was_found_out(recipe: str, eot: int) -> None:
    """The first call with one row, in which the size is found out, and a later one under the same key draw alike."""
    y = labels(_net(), X)
    for rows in (COUNT, 1):
        first, second = (
            ss.attack(
                Noisy(squeezed=True), X[:rows], y[:rows], threat=ss.linf(0.1), recipe=recipe, search=ss.Search(eot=eot)
            )
            for _ in range(2)
        )
        assert first.passes == 32
        assert torch.equal(first.rate, second.rate)
    model = Noisy(squeezed=True)
    predictor = Predictor(model)
    predictor(X)
    looks = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(3)
            looks.append(predictor(X[:1]).raw)
    assert torch.equal(*looks)


def test_a_batch_norm_in_training_mode_gets_rows_of_the_batch_beside_the_last_one() -> None:
    """Not copies of that row, whose variance would be 0."""
    net = filled(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))).train()
    predictor = Predictor(net)
    predictor(X)
    alone = predictor(X[-1:]).raw
    beside = net(torch.cat([X[-1:], X[:1]]))[:1]
    torch.testing.assert_close(alone, beside)


def test_inputs_that_a_model_changes_in_place_are_fresh_at_every_try() -> None:
    net = _net()

    def model(x: Tensor) -> Tensor:
        x.mul_(2)
        assert len(x) > 1
        out: Tensor = net(x)
        return out

    for prepare in (None, lambda u: u * 1.0):
        predictor = Predictor(model, prepare=prepare)
        assert torch.equal(predictor(X[:1]).raw, net(2 * X[:1]))


def test_several_inputs_are_filled_up_together() -> None:
    net = filled(nn.Bilinear(6, 6, 3))

    def model(a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = net(a, b)
        return out.unsqueeze(2).squeeze()

    predictor = Predictor(model)
    for count in (1, 4, 1):
        inputs = {"a": X[:count], "b": X[:count].flip(1)}
        torch.testing.assert_close(predictor(inputs).raw, net(inputs["a"], inputs["b"]))


def test_gradients_are_those_of_the_rows_asked_about() -> None:
    net = _net()
    for model in (Squeezed(net), Fixed(net, fails=True)):
        predictor = Predictor(model)
        predictor(X)
        u = X[3:4].clone().requires_grad_()
        (found,) = torch.autograd.grad(predictor(u).raw.square().sum(), u)
        (wanted,) = torch.autograd.grad(net(u).square().sum(), u)
        assert torch.equal(found, wanted)


def test_a_program_says_for_how_many_rows_it_was_made() -> None:
    free = torch.export.export(_net(), (X,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    assert Sizes.of(free).exact is None
    assert Sizes.of(MODELS["exported for fewer"](_net())).exact == 4
    assert Sizes.of(_net()).exact is None
    with pytest.raises(InputError, match=r"ExportedProgram, .* pass its program.module\(\)"):
        ss.attack(torch.export.export(_net(), (X,)), X, threat=ss.linf(0.1))


@pytest.mark.parametrize("model", ["squeezed", "fixed, fails", "exported for fewer"])
def test_a_twin_is_made_of_what_can_be_called_or_left(model: str) -> None:
    net = _net().float()
    x = X.float()
    y = labels(net, x)
    made = torch.export.export(net, (x[:4],)).module() if model.startswith("exported") else MODELS[model](net)
    wanted = ss.attack(net, x, y, threat=ss.linf(0.12), recipe="pgd:steps=4")
    found = ss.attack(made, x, y, threat=ss.linf(0.12), recipe="pgd:steps=4", engine="float32")
    assert torch.equal(found.fooled, wanted.fooled)
