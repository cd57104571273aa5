"""The input space is stated once: raw units for threats, normalised inputs where the model or the loader has them."""

from typing import Any, Literal

import pytest
import torch
from small_nets import Normalised, labels, mlp, rand
from torch import Tensor

import signstep as ss
from flat import flat
from signstep.errors import InputError, ScaleError

MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
SHAPE = (1, 3, 1, 1)
EPS = 8 / 255


def _images(dtype: torch.dtype = torch.float32) -> Tensor:
    return ((rand(10, 3, 4, 4, seed=1) * 255).round() / 255).to(dtype)


def _normal(x: Tensor) -> Tensor:
    return (x - MEAN.to(x).reshape(SHAPE)) / STD.to(x).reshape(SHAPE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=4", "random-sign"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0", "pixel"])
@pytest.mark.parametrize("grid", [None, 255])
def test_four_ways_to_normalise_give_the_same_adversarials(
    dtype: torch.dtype, recipe: str, norm: str, grid: int | None
) -> None:
    inner, x = mlp(features=48, dtype=dtype), _images(dtype)
    layered = Normalised(inner, MEAN, STD)
    y = labels(layered, x)
    threat = ss.threat_model(norm, EPS if norm == "linf" else 3 if norm == "l0" else 0.3, grid=grid)
    wanted = ss.attack(layered, x, y, threat=threat, recipe=recipe)
    assert isinstance(wanted.x, Tensor)
    inside: dict[str, Any] = {"mean": MEAN, "std": STD}
    numbers: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": [0.229, 0.224, 0.225]}
    for batch, options in (
        (x, inside),
        (x, numbers),
        (_normal(x), {**inside, "inputs": "normalised"}),
    ):
        model, _ = flat(inner, options)
        outcome = ss.attack(model, batch, y, threat=threat, recipe=recipe)
        assert isinstance(outcome.x, Tensor)
        assert torch.equal(outcome.x, wanted.x)
        assert torch.equal(outcome.fooled, wanted.fooled)
        assert bool(outcome.verified.all())
        change = (outcome.x - x).double()
        if norm == "linf":
            assert float(change.abs().max()) <= EPS + torch.finfo(dtype).eps
        assert float(outcome.x.min()) >= 0
        assert float(outcome.x.max()) <= 1
        crafted = ss.fgsm(model, batch, y, eps=threat.eps, norm=norm, grid=grid)
        if recipe == "fgsm":
            assert torch.equal(crafted, outcome.x)


def test_a_normalised_loader_is_not_attacked_in_its_own_units_by_accident() -> None:
    """Guards the law above: declared wrongly, the same batch gives other points."""
    inner, x = mlp(features=48, dtype=torch.float32), _images()
    right = ss.fgsm(ss.Model(inner, mean=MEAN, std=STD, inputs="normalised"), _normal(x), eps=EPS)
    wrong = ss.fgsm(inner, _normal(x), eps=EPS, box=None)
    assert float((wrong - _normal(x)).abs().max()) > 0.9 * EPS
    assert float(((_normal(right) - _normal(x)).abs() * STD.reshape(SHAPE)).max()) < 1.01 * EPS
    assert float(((wrong - _normal(x)).abs() * STD.reshape(SHAPE)).max()) < 0.3 * EPS


def test_a_normalised_budget_is_explicit_and_named() -> None:
    inner, x = mlp(features=48, dtype=torch.float64), _images(torch.float64)
    ways: list[tuple[Tensor, Literal["raw", "normalised"]]] = [(x, "raw"), (_normal(x), "normalised")]
    for batch, data in ways:
        outcome = ss.attack(
            ss.Model(inner, mean=MEAN, std=STD, inputs=data),
            batch,
            threat=ss.linf(0.1),
            search=ss.Search(budget="normalised"),
        )
        assert isinstance(outcome.x, Tensor)
        change = (outcome.x - _normal(x)).abs()
        assert float(change.max()) <= 0.1 + 1e-12
        assert float(change.mean()) > 0.08
        raw = outcome.x * STD.reshape(SHAPE) + MEAN.reshape(SHAPE)
        assert float(raw.min()) >= -1e-9
        assert float(raw.max()) <= 1 + 1e-9
        assert bool(outcome.verified.all())
        assert any("normalised" in note for note in outcome.notes)
    assert not any("normalised" in note for note in ss.attack(inner, x, threat=ss.linf(0.1)).notes)


@pytest.mark.parametrize(
    ("x", "seen", "remedy"),
    [
        (torch.linspace(-2.12, 2.64, 48), "-2.12 to 2.64", r"reach 2\.64: normalised\? .*inputs='normalised'"),
        (torch.linspace(0, 255, 48), "0 to 255", r"255 scale\?.*x / 255"),
        (torch.linspace(-1, 1, 48), "-1 to 1", r"\[-1, 1\].*box=\(-1, 1\)"),
        (torch.linspace(0, 1.7, 48), "0 to 1.7", "box="),
        (torch.linspace(-300, 300, 48), "-300 to 300", "box=None"),
    ],
)
@pytest.mark.parametrize("eps", [0.1, None])
def test_a_batch_on_another_scale_shows_what_was_seen_and_what_fits(
    x: Tensor, seen: str, remedy: str, eps: float | None
) -> None:
    with pytest.raises(ScaleError, match=f"{seen}.*{remedy}"):
        ss.attack(mlp(features=48, dtype=torch.float32), x.reshape(1, 3, 4, 4), threat=ss.linf(eps))


def test_raw_images_declared_as_normalised() -> None:
    with pytest.raises(ScaleError):
        ss.fgsm(
            ss.Model(mlp(features=48, dtype=torch.float32), mean=MEAN, std=STD, inputs="normalised"),
            _images() * 10,
            eps=0.1,
        )


def test_rounding_at_the_ends_of_the_box_is_no_error() -> None:
    x = torch.tensor([0.0, 1.0]).repeat(24).reshape(1, 3, 4, 4)
    crafted = ss.fgsm(
        ss.Model(mlp(features=48, dtype=torch.float32), mean=MEAN, std=STD, inputs="normalised"), _normal(x), eps=EPS
    )
    assert float(crafted.min()) >= 0
    assert float(crafted.max()) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 0.5}, "std is missing"),
        ({"std": 0.5}, "mean is missing"),
        ({"mean": 0.5, "std": 0.0}, "std above 0"),
        ({"mean": 0.5, "std": -1.0}, "std above 0"),
        ({"mean": float("nan"), "std": 1.0}, "finite"),
        ({"inputs": "normalised"}, "without mean"),
        ({"budget": "normalised"}, "without mean"),
        ({"inputs": "normalized", "mean": 0.5, "std": 0.5}, "'raw' or 'normalised'"),
        ({"mean": (0.1, 0.2), "std": (0.1, 0.2)}, "2 values"),
        ({"mode": "train"}, "mode="),
        ({"outputs": "logit"}, "outputs="),
        ({"task": "multi"}, "task="),
        ({"loss": "hinge"}, "loss="),
        ({"mean": "imagenet", "std": "imagenet"}, "mean"),
    ],
)
def test_declarations_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    def attempt() -> object:
        model, rest = flat(mlp(features=48, dtype=torch.float32), options)
        return ss.attack(model, _images(), threat=ss.linf(0.1), **rest)

    with pytest.raises(InputError, match=message):
        attempt()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 48, dtype=torch.int64), "floating point"),
        (torch.zeros(2, 48, dtype=torch.uint8), "/ 255"),
        (torch.full((2, 48), float("nan")), "NaN"),
        (torch.full((2, 48), float("inf")), "infinite"),
        (torch.zeros(0, 48), "empty"),
        (torch.zeros(()), "dimensions"),
        ([[0.0] * 48], "as_tensor"),
    ],
)
def test_inputs_that_cannot_be_used(x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ss.attack(mlp(features=48, dtype=torch.float32), x, threat=ss.linf(0.1))


def test_one_number_for_each_example_needs_a_dimension() -> None:
    x = torch.linspace(0, 1, 5)

    def model(age: Tensor) -> Tensor:
        return torch.stack([3 * age.flatten(), 1 - age.flatten()], 1)

    with pytest.raises(InputError, match=r"x has shape \(5,\).*unsqueeze"):
        ss.attack(model, x, None, threat=ss.linf(0.1))
    with pytest.raises(InputError, match=r"input 'age' has shape \(5,\)"):
        ss.attack(model, {"age": x}, None, threat=ss.linf(0.1))
    assert bool(ss.attack(model, x.unsqueeze(1), None, threat=ss.linf(0.4)).fooled.any())
