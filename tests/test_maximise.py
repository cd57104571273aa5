"""Any objective over any budget: values, first order, curvature, levels."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import signstep as ss
from signstep.attacks.recipes import recipe
from signstep.engine.keys import Key
from signstep.engine.outcome import Found
from signstep.engine.problem import Problem
from signstep.engine.region import Region
from signstep.engine.tree import Tree
from signstep.errors import InputError
from written_down import written_down


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
    duals = {"linf": gradient.abs().sum(1), "l2": gradient.norm(dim=1), "l1": gradient.abs().amax(1)}
    dual = written_down(duals, threat.norm.name, "the dual length")
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
    outcome = ss.attack(ss.Model(model, task=ss.Regression(0.12)), x, y, threat=ss.linf(0.1), recipe="pgd")

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
        ss.Model(tilted, task=ss.Objective()),
        [(x, torch.tensor([1.5, 2.5, 4.0]))],
        threat=ss.linf(0.5, box=None),
        curve=False,
    )
    assert result.per_example.clean == "rwr"
    assert result.fooled == 1
    assert "brings 1 of 2 examples to failure" in str(result)
    assert "accuracy" not in str(result).splitlines()[0]
    for level in (torch.zeros(2), torch.zeros(3, 2)):
        with pytest.raises(ss.SignstepError, match="a level for each example"):
            ss.attack(ss.Model(tilted, task=ss.Objective()), x, level, threat=ss.linf(0.5, box=None))


def _spike(u: Tensor) -> Tensor:
    return torch.relu(1 - 50 * (u - 0.5).abs().sum(1)) - 0.1


# What surfaces can be like: where x is 0.5 some have their top, their bottom, a kink, no slope, NaN or infinity there.
SURFACES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda u: u @ torch.tensor([1.0, -1.0, 2.0], dtype=u.dtype),
    "spike": _spike,
    "top": lambda u: -(u - 0.5).abs().sum(1),
    "bottom": lambda u: (u - 0.5).square().sum(1),
    "plateau": lambda u: (u.sum(1) > 1.7).to(u.dtype) + 0 * u.sum(1),
    "constant": lambda u: 0 * u.sum(1) + 1,
    "saturated": lambda u: torch.sigmoid(100 * (u.sum(1) - 3)),
    "NaN further off": lambda u: (0.75 - (u - 0.2).square().sum(1)).sqrt(),
    "NaN here": lambda u: (u - 0.5).sum(1).log(),
    "-inf here": lambda u: (u - 0.5).abs().sum(1).log(),
    "inf here": lambda u: 1 / (u - 0.5).abs().sum(1),
    "a count": lambda u: (u > 0.55).sum(1),
}
CHEAP = {
    "apgd": "apgd:steps=6",
    "mt-pgd": "mt-pgd:steps=5",
    "odi-pgd": "odi-pgd:steps=5",
    "pgd": "pgd:steps=5",
    "cw": "cw:searches=2,steps=8",
    "ddn": "ddn:steps=8",
    "fab": "fab:steps=4",
    "fmn": "fmn:steps=8",
    "hop-skip-jump": "hop-skip-jump:queries=30",
    "nes": "nes:queries=30",
    "random-direction": "random-direction:queries=12",
    "smooth-pgd": "smooth-pgd:steps=6",
    "explore": "explore:samples=12,starts=2,steps=3,queries=8",
    "sigma-zero": "sigma-zero:steps=8",
    "sparse-rs": "sparse-rs:queries=20",
    "spsa": "spsa:queries=30",
    "square": "square:queries=20",
    "vmi-fgsm": "vmi-fgsm:samples=2,steps=4",
}
NORMS: dict[str, Callable[[float | None], ss.ThreatModel]] = {
    "linf": ss.linf,
    "l2": ss.l2,
    "l1": ss.l1,
    "l0": lambda eps: ss.l0(None if eps is None else 1),
}


def _takes(name: str, norm: str) -> bool:
    row = ss.RECIPES[name]
    return not row.images and row.takes(norm)


def _above(after: Tensor, before: Tensor) -> Tensor:
    """Where it is not lower; a NaN is below every number."""
    return torch.nan_to_num(after, nan=-torch.inf) >= torch.nan_to_num(before, nan=-torch.inf)


def surfaces(u: Tensor, which: Tensor) -> Tensor:
    """Each row on its own surface."""
    value = u.sum(1) * 0
    for number, surface in enumerate(SURFACES.values()):
        rows = (which == number).nonzero().squeeze(1)
        if len(rows):
            value = value.index_copy(0, rows, surface(u[rows]).to(value))
    return value


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", [name for name, row in ss.RECIPES.items() if not row.images])
def test_the_untouched_input_is_a_witness_for_every_recipe(name: str, norm: str) -> None:
    """Never below the untouched value, reached exactly where the value says so, and never reached and undetermined."""
    if not _takes(name, norm):
        pytest.skip(f"{name} is not defined for {norm}")
    points = torch.tensor([[0.5, 0.5, 0.5], [0.2, 0.9, 0.4]])
    x = {"u": points.repeat(len(SURFACES), 1), "which": torch.arange(len(SURFACES)).repeat_interleave(2)}
    start = surfaces(**x)
    middle = torch.nan_to_num(start, 0.0, 0.0, 0.0)
    levels = torch.cat([middle - 1, middle, middle + 0.2, middle + 1e9])
    whole = {part: torch.cat([value] * 4) for part, value in x.items()}
    given = [(x, None)] if not ss.RECIPES[name].smallest else []
    ball = written_down(NORMS, norm, "the threat in the norm")
    for threat in (ball(0.3), ball(None)) if norm == "l2" else (ball(0.3),):
        for inputs, level in [*given, (whole, levels)]:
            before = surfaces(**inputs)
            found = ss.maximise(surfaces, inputs, {"u": threat}, recipe=CHEAP.get(name, name), level=level)
            assert isinstance(found.x, dict)
            at = surfaces(found.x["u"], inputs["which"])
            names = [list(SURFACES)[number] for number in inputs["which"]]
            torch.testing.assert_close(at, found.after, equal_nan=True)
            torch.testing.assert_close(before, found.before, equal_nan=True)
            below = ~_above(found.after, found.before)
            assert not below.any(), {names[row] for row in below.nonzero()}
            wrong = found.reached != (torch.zeros_like(below) if level is None else at >= level)
            assert not wrong.any(), {names[row] for row in wrong.nonzero()}
            assert not (found.reached & found.undetermined).any()
            assert found.verified.all()
            if level is not None:
                met = before >= level
                assert torch.equal(found.x["u"][met], inputs["u"][met]), "a row that is there untouched ends there"
                assert found.outcome.fooled[met].all()


@pytest.mark.parametrize("name", [name for name, row in ss.RECIPES.items() if not row.images and not row.smallest])
def test_several_inputs_have_the_same_witness(name: str) -> None:
    x = {"a": torch.full((4, 3), 0.5), "b": torch.tensor([[0.2, 0.9], [0.5, 0.5]]).repeat(2, 1), "c": torch.ones(4, 1)}

    def joint(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        value: Tensor = _spike(torch.cat([a, b], 1)) + 0.01 * b.sum(1) * c[:, 0]
        return value

    threat = {"a": ss.linf(0.3), "b": ss.linf(0.2)} if _takes(name, "linf") else {"a": ss.l0(1), "b": ss.l0(0)}
    start = joint(**x)
    level = start + torch.tensor([-0.5, 0.0, 0.001, 1e9])
    found = ss.maximise(joint, x, threat, recipe=CHEAP.get(name, name), level=level)
    assert isinstance(found.x, dict)
    at = joint(**found.x, c=x["c"])
    assert _above(at, start).all()
    torch.testing.assert_close(at, found.after)
    assert found.reached.tolist() == (at >= level).tolist()
    assert not (found.reached & found.undetermined).any()


def test_a_level_met_untouched_needs_no_attack() -> None:
    """A spike whose surroundings are flat: the violation is the input itself, whatever the recipe could find."""
    x = torch.full((3, 3), 0.5)
    x[1] = 0.2
    asked = []

    def counted(u: Tensor) -> Tensor:
        asked.append(len(u))
        return _spike(u)

    found = ss.maximise(counted, x, ss.linf(0.4), recipe="pgd:steps=3", level=0.0)
    assert found.reached.tolist() == [True, False, True]
    assert found.undetermined.tolist() == [False, True, False]
    assert found.forwards.tolist() == [2, 7, 2]  # beside the steps the last look, the verdict, the two for what it is
    assert isinstance(found.distance, Tensor)
    assert found.distance[[0, 2]].tolist() == [0, 0]
    asked.clear()
    near = ss.maximise(counted, x[[0, 2]], ss.l2(0.4), recipe="fmn", level=0.0)
    assert near.reached.tolist() == [True, True]
    assert near.outcome.smallest is not None
    assert near.outcome.smallest.tolist() == [0, 0]
    assert len(asked) <= 4  # looks at what it is, and the one for first order
    both = ss.maximise(_spike, x, ss.l2(0.4), recipe="fmn:steps=5", level=torch.tensor([0.0, -5.0, 9.0]))
    assert both.outcome.smallest is not None
    assert both.outcome.smallest.tolist() == [0, 0, math.inf]
    assert both.reached.tolist() == [True, True, False]


def test_a_random_objective_is_seen_as_often_before_as_after() -> None:
    """One look at noise is not compared with the mean of many."""

    def noisy(u: Tensor) -> Tensor:
        return 0 * u.sum(1) + torch.randn(len(u))

    found = ss.maximise(noisy, torch.full((64, 2), 0.5), ss.linf(0.1), recipe="random-sign")
    assert float(found.before.std()) < 0.35  # a single look has 1, the mean of 32 has 0.18
    assert bool((found.after >= found.before).all())
    assert float(found.gain.max()) < 1.5


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (math.nan, "level is NaN"),
        (torch.tensor([0.0, math.nan, 1.0]), "level is NaN"),
        (torch.zeros(2), r"level has shape \(2,\); pass a number, or one for each example, \(3,\)"),
        (torch.zeros(3, 2), r"level has shape \(3, 2\)"),
        ("high", r"level is text \('high'\), which cannot be made a tensor"),
        ([0.0, 1.0], r"level has shape \(2,\)"),
    ],
)
def test_a_level_that_is_none_is_said_so(level: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ss.maximise(bowl, torch.zeros(3, 2), ss.linf(0.5, box=None), level=level)


@pytest.mark.parametrize("level", [2, torch.tensor(2.0), [2.0, 2.0, 2.0], torch.full((3, 1), 2, dtype=torch.int64)])
def test_a_level_may_be_written_in_many_ways(level: object) -> None:
    found = ss.maximise(bowl, torch.zeros(3, 2), ss.linf(0.5, box=None), recipe="fgsm", level=level)
    assert found.reached.tolist() == [True] * 3


@pytest.mark.parametrize("name", [name for name, row in ss.RECIPES.items() if not row.images])
def test_advice_is_never_what_was_used_and_can_be_followed(name: str) -> None:
    for threat in (make(0.3) for norm, make in NORMS.items() if _takes(name, norm)):
        found = ss.maximise(SURFACES["constant"], torch.full((1, 3), 0.5), threat, CHEAP.get(name, name), level=9.0)
        told = [note.rpartition("such as ")[2] for note in found.notes if "such as " in note]
        assert name not in told
        for other in told:
            ss.maximise(SURFACES["linear"], torch.full((1, 3), 0.5), threat, CHEAP.get(other, other), level=1.1)
        assert bool(told) == bool(found.undetermined[0]), "who found nothing out is told what to try"


def test_a_point_outside_the_threat_model_counts_for_nothing() -> None:
    """A search that breaks the set is named, and what it returned is neither reached nor the new value."""

    @dataclass(frozen=True)
    class Careless:
        name: str = "careless"
        steps: int = 1
        draws: bool = False
        from_clean: bool = False

        def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
            found = recipe("fgsm")(problem, region, clean, key, begin)
            assert isinstance(found.x, Tensor)
            return found._replace(x=found.x + torch.tensor([[0.0], [0.01]]))

    found = ss.maximise(tilted, torch.zeros(2, 2), ss.linf(0.5, box=None), recipe=Careless(), level=1.5)
    assert found.verified.tolist() == [True, False]
    assert found.reached.tolist() == [True, False]
    assert found.undetermined.tolist() == [False, True]
    assert found.gain.tolist() == [2, 0]
    assert any("1 returned inputs failed verification" in note for note in found.notes)


def test_a_corner_is_no_flat_place() -> None:
    """At the box's own corner nothing is promised and nothing can be gained, but there is a gradient."""
    found = ss.maximise(tilted, torch.tensor([[1.0, 0.0]]), ss.linf(0.2), recipe="fgsm")
    assert found.linear is not None
    assert found.linear.tolist() == [0]
    assert not any("no gradient" in note for note in found.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(found).startswith("median gain 0 over 1 example,")
