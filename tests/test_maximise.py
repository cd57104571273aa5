"""Any objective over any budget: values, first order, curvature, levels."""

import math

import pytest
import torch
from torch import Tensor

import signstep as ss


def bowl(u: Tensor) -> Tensor:
    """Curvature 2 in every direction, gradient 2 (u - 1)."""
    return (u - 1).square().sum(1)


def tilted(u: Tensor) -> Tensor:
    return u @ torch.tensor([3.0, -1.0], dtype=u.dtype)


def test_a_linear_objective_is_exactly_its_first_order() -> None:
    x = torch.zeros(3, 2, dtype=torch.float64)
    found = ss.maximise(tilted, x, ss.linf(0.5, box=None), recipe="fgsm")
    assert found.before.tolist() == [0, 0, 0]
    for part in (found.after, found.gain, found.linear, found.along):
        assert part is not None
        torch.testing.assert_close(part, torch.full((3,), 2.0, dtype=torch.float64))
    assert found.curvature is not None
    assert found.curvature.abs().max() < 1e-12
    assert bool(found.verified.all())


@pytest.mark.parametrize("threat", [ss.linf(0.3, box=None), ss.l2(0.3, box=None), ss.l1(0.3, box=None)])
def test_the_curvature_of_a_bowl_is_its_own(threat: ss.ThreatModel) -> None:
    x = torch.tensor([[0.2, -0.4], [0.5, 0.9]], dtype=torch.float64)
    found = ss.maximise(bowl, x, threat, recipe="fgsm")
    assert found.curvature is not None
    torch.testing.assert_close(found.curvature, torch.full((2,), 2.0, dtype=torch.float64))
    assert found.linear is not None
    gradient = 2 * (x - 1)
    dual = {"linf": gradient.abs().sum(1), "l2": gradient.norm(dim=1), "l1": gradient.abs().amax(1)}[threat.norm.name]
    torch.testing.assert_close(found.linear, 0.3 * dual)


@pytest.mark.parametrize(
    "recipe", ["fgsm", "pgd", "apgd", "mi-fgsm", "square:queries=60", "random-sign", "spsa:queries=99"]
)
def test_never_below_the_untouched_value(recipe: str) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def wavy(u: Tensor) -> Tensor:
        return torch.cos(9 * u).sum(1)

    found = ss.maximise(wavy, x, ss.linf(0.4, box=None), recipe=recipe)
    assert isinstance(found.x, Tensor)
    torch.testing.assert_close(wavy(found.x), found.after)
    assert bool((found.after >= found.before).all())
    assert bool((found.gain > 0.1).any())
    assert bool(((found.x - x).abs() <= 0.4 + 1e-12).all())
    still = found.gain == 0
    assert bool((found.x[still] == x[still]).all())


def test_a_flat_start_is_said_and_a_random_one_leaves_it() -> None:
    top = torch.ones(2, 3)
    stuck = ss.maximise(bowl, top, ss.linf(0.5, box=None), recipe="fgsm")
    assert stuck.gain.tolist() == [0, 0]
    assert stuck.undetermined.tolist() == [True, True]
    assert stuck.curvature is not None
    assert all(math.isnan(value) for value in stuck.curvature.tolist())
    assert any("no gradient at the untouched input" in note and "random start" in note for note in stuck.notes)
    free = ss.maximise(bowl, top, ss.linf(0.5, box=None), recipe="pgd")
    torch.testing.assert_close(free.gain, torch.full((2,), 0.75))


@pytest.mark.parametrize("recipe", ["fmn:steps=200", "ddn:steps=200"])
def test_the_smallest_change_that_reaches_a_level(recipe: str) -> None:
    x = torch.zeros(2, 2, dtype=torch.float64)
    level = torch.tensor([3.0, 4.5], dtype=torch.float64)
    found = ss.maximise(bowl, x, ss.l2(2.0, box=None), recipe=recipe, level=level)
    assert found.reached.tolist() == [True, True]
    # |u - 1|^2 = level on the diagonal: the distance is sqrt(level) - sqrt(2).
    exact = level.sqrt() - math.sqrt(2)
    assert found.outcome.smallest is not None
    assert bool((found.outcome.smallest >= exact - 1e-9).all())
    assert bool((found.outcome.smallest <= 1.02 * exact).all())


def test_levels_of_each_example_and_of_all() -> None:
    x = torch.zeros(3, 2)
    reached = ss.maximise(tilted, x, ss.linf(0.5, box=None), level=torch.tensor([1.0, 1.9, 2.5])).reached
    assert reached.tolist() == [True, True, False]
    assert ss.maximise(tilted, x, ss.linf(0.5, box=None), level=2.5).reached.tolist() == [False] * 3
    assert ss.maximise(tilted, x, ss.linf(0.5, box=None)).reached.tolist() == [False] * 3


def test_a_regression_audit_and_the_objective_agree() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()
    x = torch.rand(40, 3, dtype=torch.float64)
    y = (model(x) + 0.05 * torch.randn(40, 1, dtype=torch.float64)).detach()
    outcome = ss.attack(model, x, y, threat=ss.linf(0.1), recipe="pgd", task=ss.Regression(0.12))

    class Error(torch.nn.Module):
        def forward(self, u: Tensor, y: Tensor) -> Tensor:
            error: Tensor = (model(u) - y).abs()
            return error.amax(1)

    found = ss.maximise(Error(), {"u": x, "y": y}, {"u": ss.linf(0.1)}, level=0.12)
    assert 0 < int(outcome.fooled.sum()) < 40
    assert int((outcome.fooled != found.reached).sum()) <= 1


def test_several_inputs_and_frozen_ones() -> None:
    x = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
    found = ss.maximise(lambda a, b: (a * b).sum(1), x, {"a": ss.linf(0.1, box=None)}, recipe="fgsm")
    assert isinstance(found.x, dict)
    assert set(found.x) == {"a"}
    torch.testing.assert_close(found.gain, torch.full((2,), 0.3))


@pytest.mark.kernels
def test_a_row_does_not_depend_on_its_batch() -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = ss.maximise(bowl, x, ss.l2(0.7, box=None), recipe="pgd:restarts=2")
    alone = ss.maximise(bowl, x[3:4], ss.l2(0.7, box=None), recipe="pgd:restarts=2")
    torch.testing.assert_close(whole.after[3:4], alone.after, rtol=0, atol=0)


def test_an_objective_without_gradient_is_asked() -> None:
    def black_box(u: Tensor) -> Tensor:
        return torch.as_tensor(u.numpy().sum(1))

    found = ss.maximise(black_box, torch.zeros(2, 3), ss.linf(0.5, box=None), recipe="square:queries=100")
    assert found.linear is None
    assert found.curvature is None
    assert any("no gradient" in note for note in found.notes)
    torch.testing.assert_close(found.after, torch.full((2,), 1.5))


@pytest.mark.parametrize(
    ("objective", "recipe", "message"),
    [
        (lambda u: u, "pgd", r"one number for each example, shape \(R,\)"),
        (lambda u: u.sum(), "pgd", "first dimension must be the examples"),
        (bowl, "fmn", "pass level="),
    ],
)
def test_wrong_use_is_one_sentence(objective: object, recipe: str, message: str) -> None:
    with pytest.raises(ss.SignstepError, match=message):
        ss.maximise(objective, torch.zeros(3, 2), ss.linf(0.5, box=None), recipe=recipe)  # type: ignore[arg-type]


def test_an_audit_of_an_objective() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.4, 0.0]])
    result = ss.audit(
        tilted, [(x, torch.tensor([1.5, 2.5, 4.0]))], threat=ss.linf(0.5, box=None), task=ss.Objective(), curve=False
    )
    assert result.per_example.clean == "rwr"
    assert result.fooled == 1
    assert "brings 1 of 2 examples to failure" in str(result)
    assert "accuracy" not in str(result).splitlines()[0]
    for level in (torch.zeros(2), torch.zeros(3, 2)):
        with pytest.raises(ss.SignstepError, match="a level for each example"):
            ss.attack(tilted, x, level, threat=ss.linf(0.5, box=None), task=ss.Objective())
