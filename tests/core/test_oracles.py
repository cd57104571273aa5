"""Where gradients come from: the model, a surrogate, several; never for weights."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from small_nets import Scaled, filled, labels, mlp, rand
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import signstep as ss
from signstep.attacks.gradient.fgsm import fgsm as fgsm_recipe
from signstep.errors import GradientError, InputError, LabelError, ModelError, SignstepError

X = rand(12, 2, 3, 3, seed=1)


def _sign(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    z = model(leaf)
    loss = torch.nn.functional.cross_entropy(z, y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


@pytest.mark.parametrize("as_list", [False, True])
def test_a_surrogate_gives_the_gradient_and_the_victim_the_verdict(as_list: bool) -> None:
    victim, other = mlp(seed=0), mlp(seed=5)
    y = labels(victim, X)
    outcome = ss.attack(
        victim, X, y, threat=ss.linf(0.1, box=None), search=ss.Search(surrogate=[other] if as_list else other)
    )
    assert isinstance(outcome.x, Tensor)
    torch.testing.assert_close(outcome.x, X + 0.1 * _sign(other, X, y).sign())
    assert torch.equal(outcome.fooled, labels(victim, outcome.x) != y)
    assert not torch.equal(outcome.fooled, labels(other, outcome.x) != y)
    crafted = ss.fgsm(victim, X, y, eps=0.1, box=None, search=ss.Search(surrogate=other))
    assert torch.equal(crafted, outcome.x)


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=5", "mi-fgsm:steps=5"])
def test_the_victim_as_its_own_surrogate(recipe: str) -> None:
    """The points agree where the run is not cut short: a surrogate attack never asks the victim on the way."""
    victim = mlp()
    y = labels(victim, X)
    white = ss.attack(victim, X, y, threat=ss.linf(0.02), recipe=recipe)
    black = ss.attack(victim, X, y, threat=ss.linf(0.02), recipe=recipe, search=ss.Search(surrogate=mlp()))
    assert isinstance(white.x, Tensor)
    assert isinstance(black.x, Tensor)
    standing = ~white.fooled
    assert bool(standing.any())
    assert torch.equal(white.x[standing], black.x[standing])


def test_a_transfer_attack_is_named_in_the_result() -> None:
    victim = mlp()
    outcome = ss.attack(victim, X, labels(victim, X), threat=ss.linf(0.1), search=ss.Search(surrogate=mlp(seed=5)))
    assert any("surrogate" in note for note in outcome.notes)
    assert not any("surrogate" in note for note in ss.attack(victim, X, threat=ss.linf(0.1)).notes)


def test_the_mean_over_surrogates_does_not_depend_on_their_scales() -> None:
    victim, first, second = mlp(seed=0, classes=2), mlp(seed=5, classes=2), mlp(seed=6, classes=2)
    y = labels(victim, X)
    parts = [_sign(model, X, y) for model in (first, second)]
    unit = [part / part.abs().flatten(1).sum(1).reshape(-1, 1, 1, 1) for part in parts]
    wanted = X + 0.1 * (unit[0] + unit[1]).sign()
    for loud in (1.0, 2.0**40):
        crafted = ss.fgsm(victim, X, y, eps=0.1, box=None, search=ss.Search(surrogate=[first, Scaled(second, loud)]))
        torch.testing.assert_close(crafted, wanted)
    assert not torch.equal(wanted, X + 0.1 * parts[0].sign())
    assert not torch.equal(wanted, X + 0.1 * parts[1].sign())


def test_a_surrogate_goes_with_an_attack_object_too() -> None:
    victim, other = mlp(seed=0), mlp(seed=5)
    y = labels(victim, X)
    named = ss.attack(victim, X, y, threat=ss.linf(0.1), recipe="fgsm", search=ss.Search(surrogate=other))
    built = ss.attack(victim, X, y, threat=ss.linf(0.1), recipe=fgsm_recipe(), search=ss.Search(surrogate=other))
    assert isinstance(named.x, Tensor)
    assert isinstance(built.x, Tensor)
    assert torch.equal(named.x, built.x)


def test_no_surrogates_is_a_mistake_not_a_white_box() -> None:
    with pytest.raises(InputError, match="surrogate"):
        ss.attack(mlp(), X, threat=ss.linf(0.1), search=ss.Search(surrogate=[]))


def test_surrogates_in_a_module_list() -> None:
    victim, others = mlp(), [mlp(seed=5), mlp(seed=6)]
    y = labels(victim, X)
    wanted = ss.fgsm(victim, X, y, eps=0.1, search=ss.Search(surrogate=others))
    assert torch.equal(ss.fgsm(victim, X, y, eps=0.1, search=ss.Search(surrogate=nn.ModuleList(others))), wanted)


def test_a_surrogate_with_other_classes_is_refused() -> None:
    with pytest.raises(SignstepError, match="surrogate"):
        ss.attack(
            mlp(classes=4), X, torch.full((12,), 3), threat=ss.linf(0.1), search=ss.Search(surrogate=mlp(classes=3))
        )


@pytest.mark.usefixtures("no_global_seed")
@pytest.mark.parametrize("count", [1, 2])
def test_a_random_surrogate_is_seeded_by_key(count: int) -> None:
    victim = mlp()
    noisy = nn.Sequential(nn.Dropout(0.5), mlp(seed=5)).train()
    points = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        points.append(
            ss.fgsm(
                ss.Model(victim, mode="keep"),
                X,
                labels(victim, X),
                eps=0.1,
                search=ss.Search(surrogate=[noisy] * count),
            )
        )
    assert torch.equal(points[0], points[1])


def _detached(x: Tensor) -> Tensor:
    return mlp()(x.detach())  # type: ignore[no-any-return]


def _through_numpy(x: Tensor) -> Tensor:
    out: Tensor = mlp()(torch.from_numpy(x.numpy() * 2.0))
    return out


@torch.no_grad()
def _no_grad(x: Tensor) -> Tensor:
    return mlp()(x)  # type: ignore[no-any-return]


def _detached_weights(x: Tensor) -> Tensor:
    """Differentiable, but not with respect to x."""
    scale = torch.ones(4, dtype=x.dtype, requires_grad=True)
    return mlp()(x.detach()) * scale  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", [_detached, _through_numpy, _no_grad, _detached_weights])
@pytest.mark.parametrize("recipe", ["fgsm", "pgd"])
def test_no_path_for_the_gradient_is_an_error_with_a_remedy(model: Callable[[Tensor], Tensor], recipe: str) -> None:
    with pytest.raises(GradientError, match="surrogate"):
        ss.attack(model, X, torch.zeros(12, dtype=torch.int64), threat=ss.linf(0.1), recipe=recipe)
    outcome = ss.attack(
        model,
        X,
        torch.zeros(12, dtype=torch.int64),
        threat=ss.linf(0.1),
        recipe=recipe,
        search=ss.Search(surrogate=mlp(seed=3)),
    )
    assert bool(outcome.verified.all())


class _Weighing(torch.autograd.Function):
    """x @ w that notes for which of the two a gradient was asked."""

    asked: ClassVar[list[bool]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (w,) = ctx.saved_tensors
        _Weighing.asked[:] = ctx.needs_input_grad
        return grads[0] @ w.T, (torch.ones_like(w) if ctx.needs_input_grad[1] else None)


def _bare(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function that hides the module, so that its weights cannot be frozen."""
    return lambda x: model(x)  # noqa: PLW0108


class Weighing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(rand(18, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Weighing.apply(x.flatten(1), self.w)  # type: ignore[no-untyped-call]
        return out


@pytest.mark.parametrize("role", ["victim", "surrogate", "closure"])
def test_gradients_of_weights_are_never_computed(role: str) -> None:
    model = Weighing()
    _Weighing.asked.clear()
    if role == "surrogate":
        ss.attack(mlp(), X, threat=ss.linf(0.1), search=ss.Search(surrogate=model))
    else:
        ss.attack(model if role == "victim" else _bare(model), X, threat=ss.linf(0.1))
    if role != "closure":  # the weights behind a bare function are out of reach; autograd alone decides
        assert _Weighing.asked == [True, False]
    assert model.w.grad is None
    assert model.w.requires_grad


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.body, self.head, self.reentrant = Weighing(), filled(nn.Linear(4, 4)), reentrant

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(checkpoint(self.body, x, use_reentrant=self.reentrant))
        return out


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=3"])
@pytest.mark.parametrize("role", ["victim", "surrogate", "closure"])
def test_checkpointed_models(recipe: str, role: str) -> None:
    model = Checkpointed(reentrant=False)
    y = labels(model, X)
    plain = nn.Sequential(model.body, model.head)
    wanted = ss.attack(plain, X, y, threat=ss.linf(0.05), recipe=recipe)
    _Weighing.asked.clear()
    victim: Any = {"victim": model, "surrogate": plain, "closure": _bare(model)}[role]
    surrogate = model if role == "surrogate" else None
    outcome = ss.attack(victim, X, y, threat=ss.linf(0.05), recipe=recipe, search=ss.Search(surrogate=surrogate))
    assert isinstance(outcome.x, Tensor)
    assert isinstance(wanted.x, Tensor)
    standing = ~wanted.fooled
    torch.testing.assert_close(outcome.x[standing], wanted.x[standing])
    assert model.body.w.grad is None
    if role != "closure":
        assert _Weighing.asked == [True, False]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("role", ["victim", "surrogate", "closure"])
def test_reentrant_checkpoints_are_refused_and_leave_no_weight_gradient(role: str) -> None:
    """They run a backward pass of their own over everything inside; torch forbids them to give one input's gradient."""
    model = Checkpointed(reentrant=True)
    kept = torch.ones_like(model.head.weight)
    model.head.weight.grad = kept
    victim: Any = {"victim": model, "surrogate": mlp(), "closure": _bare(model)}[role]
    with pytest.raises(GradientError, match="use_reentrant=False"):
        ss.attack(victim, X, threat=ss.linf(0.05), search=ss.Search(surrogate=model if role == "surrogate" else None))
    assert model.body.w.grad is None
    assert model.head.weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))


def test_an_input_that_the_model_ignores_stays() -> None:
    inner = mlp()

    def model(image: Tensor, noise: Tensor) -> Tensor:
        out: Tensor = inner(image) + 0 * len(noise)
        return out

    inputs = {"image": X, "noise": rand(12, 5)}
    threat = {"image": ss.linf(0.1), "noise": ss.linf(0.1)}
    outcome = ss.attack(model, inputs, labels(inner, X), threat=threat)
    assert isinstance(outcome.x, dict)
    assert torch.equal(outcome.x["noise"], inputs["noise"])
    assert not torch.equal(outcome.x["image"], X)


def test_errors_of_models_that_cannot_be_called_name_the_remedy() -> None:
    y = torch.zeros(12, dtype=torch.int64)
    threat = ss.linf(0.1)
    with pytest.raises(ModelError, match=r"float32.*x\.to\(torch\.float32\)"):
        ss.attack(mlp(dtype=torch.float32), X, y, threat=threat)
    with pytest.raises(ModelError, match="first dimension"):
        ss.attack(lambda x: x.flatten()[:4], X, y, threat=threat)
    with pytest.raises(ModelError, match="output="):
        ss.attack(lambda x: {"boxes": x, "masks": x}, X, y, threat=threat)
    with pytest.raises(ModelError, match="label"):
        ss.attack(lambda x: mlp()(x).argmax(1), X, y, threat=threat)
    with pytest.raises(InputError, match="cannot be called"):
        ss.attack("resnet18", X, y, threat=threat)  # type: ignore[arg-type]

    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("own words")

    with pytest.raises(RuntimeError, match="own words"):
        ss.attack(broken, X, y, threat=threat)
    with pytest.raises(LabelError, match="classes"):
        ss.attack(mlp(), X, y + 9, threat=threat)
