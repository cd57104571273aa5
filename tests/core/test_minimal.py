"""Laws of the attacks that look for the smallest change, on linear models where the answer is known, and on others."""

import math
from collections.abc import Callable

import pytest
import torch
from exact_linear import shortest
from small_nets import RowNet, Scaled, filled, labels, mlp, rand
from torch import Tensor, nn

import signstep as ss
from signstep.engine.oracles import Twin
from signstep.errors import InputError
from signstep.model.predictor import Predictor
from written_down import written_down

# Counts have no lengths between whole numbers: the laws of their attacks are in test_counts.py.
SMALLEST = [
    name for name, row in ss.RECIPES.items() if row.smallest and row.needs == "gradients" and row.norms != ("l0",)
]
PAIRS = [(name, norm) for name in SMALLEST for norm in ss.RECIPES[name].norms]
over_pairs = pytest.mark.parametrize(("name", "norm"), PAIRS)
over_recipes = pytest.mark.parametrize("name", SMALLEST)
FEATURES, ROWS = 12, 10

# How near to the truth on linear models, and with how many steps. DDN follows the loss of the audit as its paper does;
# cross-entropy pulls away from all classes at once, so the truth is asked of it on the margin.
ENOUGH = {
    "deepfool": ("deepfool", 0.03, None),
    "ddn": ("ddn:steps=150", 0.01, "margin"),
    "fmn": ("fmn:steps=50", 0.01, None),
    "cw": ("cw:steps=500,searches=3", 0.01, None),
    "fab": ("fab:steps=15,targets=3", 0.01, None),
}


def _linear(classes: int) -> tuple[nn.Linear, Tensor, Tensor]:
    model = filled(nn.Linear(FEATURES, classes), seed=classes)
    with torch.no_grad():
        model.bias.mul_(0.3)
    x = rand(ROWS, FEATURES, seed=1)
    x[0, :4], x[1, 3:9] = 0.0, 1.0
    with torch.no_grad():
        z = model(x)
    return model, x, (z[:, 0] > 0).long() if classes == 1 else z.argmax(1)


def _nearest(model: nn.Linear, x: Tensor, y: Tensor, norm: str, *, box: bool, mask: Tensor | None = None) -> Tensor:
    """The length of the shortest change to each class (R, K), inf for the label's own and where the box has none."""
    weight, bias = model.weight.detach(), model.bias.detach()
    if len(bias) == 1:
        weight, bias = torch.cat([torch.zeros_like(weight), weight]), torch.cat([torch.zeros_like(bias), bias])
    found = []
    for row, label in zip(x, y.tolist(), strict=True):
        low = -row if box else torch.full_like(row, -math.inf)
        high = 1 - row if box else torch.full_like(row, math.inf)
        if mask is not None:
            low, high = torch.where(mask, low, 0.0), torch.where(mask, high, 0.0)
        lengths = [math.inf] * len(bias)
        for other in set(range(len(bias))) - {label}:
            w = weight[other] - weight[label]
            gain = -float(w @ row + bias[other] - bias[label])
            lengths[other] = shortest(norm, w.numpy(), gain, low.numpy(), high.numpy())
        found.append(lengths)
    return torch.tensor(found, dtype=torch.float64)


def _spec(name: str, steps: int) -> str:
    """The recipe with this many steps; Adam is slow to leave the corners of the box, and gets four times as many.

    The first of three searches is too weak on most rows, the second strong enough, the third halfway: all there is.
    """
    return f"cw:steps={4 * steps},searches=3" if name == "cw" else f"{name}:steps={steps}"


def _smallest(outcome: ss.Outcome) -> Tensor:
    assert outcome.smallest is not None
    return outcome.smallest


def _threat(norm: str, eps: float | Tensor | None = None, **options: Tensor | int) -> ss.ThreatModel:
    return ss.threat_model(norm, eps, **options)  # type: ignore[arg-type]


@pytest.mark.pairwise
@over_pairs
@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("setting", ["no box", "box", "mask"])
def test_on_linear_models_the_nearest_point_is_found(name: str, norm: str, classes: int, setting: str) -> None:
    recipe, slack, loss = written_down(ENOUGH, name, "options, nearness to the truth and loss")
    model, x, y = _linear(classes)
    mask = torch.arange(FEATURES) % 3 > 0 if setting == "mask" else None
    box = setting != "no box"
    to_class = _nearest(model, x, y, norm, box=box, mask=mask)
    truth = to_class.amin(1)
    # eps=None needs a box; so large an eps is none.
    threat = ss.threat_model(norm, None if box else 100.0, box=(0, 1) if box else None, mask=mask)
    outcome = ss.attack(model, x, y, threat=threat, recipe=recipe, search=ss.Search(loss=loss))
    reachable = torch.isfinite(truth)
    assert int(reachable.sum()) >= ROWS // 2
    found = _smallest(outcome)
    assert torch.equal(torch.isfinite(found), reachable)
    assert torch.equal(outcome.fooled, reachable)
    assert bool((found[reachable] >= truth[reachable] * (1 - 1e-9)).all())
    assert isinstance(outcome.distance, Tensor)
    torch.testing.assert_close(outcome.distance[reachable], found[reachable], rtol=1e-12, atol=0)
    if name == "deepfool" and box:
        return  # its steps are those of a world without a box
    # The class whose score is nearest need not be the one whose boundary is: who follows scores is measured by the
    # class that it came to. Only FAB-T visits all of them.
    reached = to_class.gather(1, outcome.answer[:, None])[:, 0]
    wanted = truth if name in ("fab", "deepfool") else reached
    assert float((found / wanted)[reachable].max()) <= 1 + slack
    assert float((found / truth)[reachable].median()) <= 1 + slack


@over_pairs
def test_every_smallest_is_real(name: str, norm: str) -> None:
    model, x = mlp(scale=3), rand(30, 2, 3, 3, seed=2)
    y = labels(model, x)
    recipe = _spec(name, 30)
    free = _smallest(ss.attack(model, x, y, threat=_threat(norm), recipe=recipe))
    assert bool(torch.isfinite(free).all())
    assert bool((free > 0).all())
    beyond = ss.attack(model, x, y, threat=_threat(norm, free * (1 + 1e-6)), recipe=recipe)
    assert bool(beyond.fooled.all())
    assert bool(beyond.verified.all())
    assert torch.equal(_smallest(beyond), free)
    # eps does not steer the search; what lies beyond it is projected, and may fool there as well.
    eps = free * 0.9
    short = ss.attack(model, x, y, threat=_threat(norm, eps), recipe=recipe)
    assert bool(short.verified.all())
    assert torch.equal(short.fooled, _smallest(short) <= eps * (1 + 1e-9))
    assert torch.equal(_smallest(short)[~short.fooled], free[~short.fooled])
    assert not bool(short.fooled.all())


@pytest.mark.pairwise
@over_pairs
@pytest.mark.parametrize("setting", ["box", "mask", "grid", "one-sided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_box_mask_and_grid_hold(name: str, norm: str, setting: str, dtype: torch.dtype) -> None:
    if setting == "grid" and dtype == torch.bfloat16:
        pytest.skip("half precision cannot hold a grid")
    model, x = mlp(scale=3, dtype=dtype), (rand(12, 2, 3, 3, seed=3) * 255).round().div(255).to(dtype)
    y = labels(model, x)
    mask = rand(2, 3, 3, seed=4) < 0.7
    threat = ss.threat_model(
        norm, None, mask=mask if setting == "mask" else None, grid=255 if setting == "grid" else None
    )
    if setting == "one-sided":
        threat = ss.threat_model(norm, 8.0, box=(0, None))
    outcome = ss.attack(model, x, y, threat=threat, recipe=_spec(name, 30))
    assert isinstance(outcome.x, Tensor)
    assert bool(outcome.verified.all())
    assert int(outcome.fooled.sum()) >= 10
    assert float(outcome.x.min()) >= 0
    if setting == "mask":
        assert torch.equal(outcome.x[:, ~mask], x[:, ~mask])
    if setting == "grid":
        level = outcome.x.double() * 255
        assert float((level - level.round()).abs().max()) < 1e-4
        free = ss.attack(model, x, y, threat=_threat(norm), recipe=_spec(name, 30))
        # Rounding to the grid costs about half a step where it matters, not the success.
        costs = {"linf": 1.0, "l2": math.sqrt(18), "l1": 18.0}
        cost = written_down(costs, norm, "the length of one level everywhere") / 255
        assert bool((_smallest(outcome) <= 1.1 * _smallest(free) + cost).all())


@pytest.mark.kernels
@over_pairs
def test_rows_do_not_see_each_other(name: str, norm: str) -> None:
    model, x = filled(RowNet()), rand(9, 2, 3, 3, seed=5)
    y = labels(model, x)
    recipe = _spec(name, 12) + (",restarts=2" if name == "fab" else "")
    whole = ss.attack(model, x, y, threat=_threat(norm), recipe=recipe)
    for index in ([4], [8, 1, 4], [2, 2]):
        order = torch.tensor(index)
        part = ss.attack(model, x[order], y[order], threat=_threat(norm), recipe=recipe)
        for field in ("x", "smallest", "fooled", "loss", "forwards", "backwards"):
            assert torch.equal(getattr(part, field), getattr(whole, field)[order]), field


def _margins(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """By how much the label's score is ahead (R,); negative where another is."""
    with torch.no_grad():
        z = model(x)
    z = torch.cat([-z, torch.zeros_like(z)], 1).flip(1) if z.shape[1] == 1 else z
    return z.gather(1, y[:, None])[:, 0] - z.scatter(1, y[:, None], -math.inf).amax(1)


@pytest.mark.parametrize("confidence", [0.5, 2.0])
@pytest.mark.parametrize("setting", ["no box", "box", "mask"])
def test_confidence_is_reached_by_the_nearest_point_that_can(confidence: float, setting: str) -> None:
    """On linear models of two classes: (1 + confidence) times as far as the boundary where no box is in the way."""
    model, x, y = _linear(2)
    mask = torch.arange(FEATURES) % 3 > 0 if setting == "mask" else None
    before = _margins(model, x, y)
    wanted = []
    weight = model.weight.detach()
    for row, label, margin in zip(x, y.tolist(), before.tolist(), strict=True):
        low, high = (
            (torch.full_like(row, end) for end in (-math.inf, math.inf)) if setting == "no box" else (-row, 1 - row)
        )
        if mask is not None:
            low, high = torch.where(mask, low, 0.0), torch.where(mask, high, 0.0)
        w = (weight[1 - label] - weight[label]).numpy()
        wanted.append([shortest("l2", w, (1 + more) * margin, low.numpy(), high.numpy()) for more in (0, confidence)])
    boundary, far = torch.tensor(wanted, dtype=torch.float64).T
    threat = ss.threat_model("l2", None, mask=mask) if setting != "no box" else ss.threat_model("l2", 100.0, box=None)
    outcome = ss.attack(model, x, y, threat=threat, recipe=f"cw:steps=150,searches=4,confidence={confidence}")
    assert isinstance(outcome.x, Tensor)
    assert isinstance(outcome.distance, Tensor)
    after = _margins(model, outcome.x, y)
    assert torch.equal(outcome.fooled, torch.isfinite(boundary))
    # Where only a corner of the box is that far, Adam need not have come there.
    sure = far < 2 * boundary * (1 + confidence)
    assert bool(sure.all()) if setting == "no box" else bool(sure.any())
    assert bool((after[sure] <= -confidence * before[sure] * (1 - 1e-9)).all())
    assert bool((outcome.distance[sure] >= far[sure] * (1 - 1e-9)).all())
    assert float((outcome.distance / far)[sure].median()) < 1.02
    short = outcome.fooled & (after > -confidence * before * (1 - 1e-9))
    assert bool(short.any()) == any("less far beyond the boundary" in note for note in outcome.notes)
    assert bool((_smallest(outcome) <= outcome.distance)[outcome.fooled].all())


def test_confidence_gives_way_to_eps() -> None:
    """A point that fools within eps is better than a surer one beyond it; how near the nearest lies is one number."""
    model, x = mlp(scale=3), rand(20, 2, 3, 3, seed=2)
    y = labels(model, x)
    before, recipe = _margins(model, x, y), "cw:steps=60,searches=4,confidence=0.6"
    free = ss.attack(model, x, y, threat=_threat("l2"), recipe=recipe)
    assert isinstance(free.distance, Tensor)
    assert isinstance(free.x, Tensor)
    assert bool(free.fooled.all())
    reached = _margins(model, free.x, y) <= -0.6 * before
    assert int(reached.sum()) >= 15
    assert bool((free.distance >= _smallest(free)).all())
    between = (_smallest(free) + free.distance) / 2
    short = ss.attack(model, x, y, threat=_threat("l2", between), recipe=recipe)
    assert isinstance(short.distance, Tensor)
    assert isinstance(short.x, Tensor)
    assert bool(short.fooled.all())
    assert bool((short.distance <= between * (1 + 1e-9)).all())
    assert torch.equal(_smallest(short), _smallest(free))
    margin = _margins(model, short.x, y)
    assert bool((margin[reached] > -0.6 * before[reached]).all())
    assert any("less far beyond the boundary" in note for note in short.notes)
    # Of those within eps the surest: no less sure than the nearest of a run that asks for nothing.
    plain = ss.attack(model, x, y, threat=_threat("l2", between), recipe="cw:steps=60,searches=4")
    assert isinstance(plain.x, Tensor)
    assert bool((margin <= _margins(model, plain.x, y) + 1e-9).all())


def test_confidence_of_a_surrogate_is_its_own() -> None:
    """Surer points of the surrogate fool another model more often."""
    model, other = mlp(scale=3), mlp(seed=1, scale=3)
    x = rand(80, 2, 3, 3, seed=9)
    y = labels(model, x)
    x, y = x[labels(other, x) == y], y[labels(other, x) == y]
    fooled = []
    for confidence in (0, 2):
        recipe = f"cw:steps=50,searches=4,confidence={confidence}"
        outcome = ss.attack(model, x, y, threat=_threat("l2"), recipe=recipe, search=ss.Search(surrogate=other))
        assert isinstance(outcome.x, Tensor)
        fooled.append(int(outcome.fooled.sum()))
        finite = torch.isfinite(_smallest(outcome))
        assert bool((labels(model, outcome.x) != y)[outcome.fooled].all())
        assert bool((finite | ~outcome.fooled).all())
    assert fooled[1] > fooled[0]


@pytest.mark.parametrize("value", ["-0.1", "nan", "inf"])
def test_a_confidence_that_is_none(value: str) -> None:
    with pytest.raises(InputError, match=f"confidence=.?{value}"):
        ss.recipe(f"cw:confidence={value}")


class _Bent(RowNet):
    """Linear between kinks, as most networks are: where two linear pieces meet, a secant is exact."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = (x.flatten(1).unsqueeze(1) * self.first).sum(2).relu()
        return (hidden.unsqueeze(1) * self.second).sum(2)


class _Rounding(nn.Module):
    """Another model as kernels round it: by what is in the batch, here by up to a few times 1e-13 of each score."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.model(x)
        return z * (1 + 3e-13 * torch.cos(1e9 * z.detach() + len(x)))


@over_pairs
def test_rounding_in_the_model_decides_nothing(name: str, norm: str) -> None:
    """Matrix products round differently in every batch; no decision may hang on that, or the distance would."""
    model, x = _Rounding(filled(_Bent(), scale=2)), rand(24, 2, 3, 3, seed=5)
    y = labels(model, x)
    recipe = "cw:steps=60,searches=3" if name == "cw" else _spec(name, 30)
    whole = _smallest(ss.attack(model, x, y, threat=_threat(norm), recipe=recipe))
    assert bool(torch.isfinite(whole).all())
    # A part of another size, so that every look is rounded in another way.
    part = _smallest(ss.attack(model, x[:23], y[:23], threat=_threat(norm), recipe=recipe))
    torch.testing.assert_close(part, whole[:23], rtol=1e-9, atol=0)
    assert not torch.equal(part, whole[:23])


@over_pairs
def test_the_scale_of_the_logits_hardly_matters(name: str, norm: str) -> None:
    """Cross-entropy is another question at another temperature; the margin is not."""
    model, x = mlp(scale=3, dtype=torch.float32), rand(20, 2, 3, 3, seed=6, dtype=torch.float32)
    y = labels(model, x)
    loss = "margin" if name == "ddn" else None
    one, large, small = (
        _smallest(ss.attack(each, x, y, threat=_threat(norm), recipe=_spec(name, 30), search=ss.Search(loss=loss)))
        for each in (model, Scaled(model, 1e4), Scaled(model, 1e-4))
    )
    for other in (large, small):
        assert float((other / one - 1).abs().max()) < 0.02


@over_pairs
def test_the_scale_of_the_inputs_hardly_matters(name: str, norm: str) -> None:
    model, x = mlp(scale=3), rand(12, 2, 3, 3, seed=7)
    y = labels(model, x)
    one = _smallest(ss.attack(model, x, y, threat=_threat(norm), recipe=_spec(name, 20)))
    for factor in (255.0, 1e-3):

        def scaled(u: Tensor, factor: float = factor) -> Tensor:
            found: Tensor = model(u / factor)
            return found

        threat = ss.threat_model(norm, None, box=(0, factor))
        other = _smallest(ss.attack(scaled, x * factor, y, threat=threat, recipe=_spec(name, 20)))
        torch.testing.assert_close(other / factor, one, rtol=0.01, atol=0)


@over_recipes
def test_a_row_that_is_wrong_untouched_has_distance_zero(name: str) -> None:
    model, x = mlp(scale=3), rand(8, 2, 3, 3, seed=8)
    y = labels(model, x)
    y[:3] = (y[:3] + 1) % 4
    outcome = ss.attack(model, x, y, threat=_threat("l2"), recipe=_spec(name, 20))
    assert torch.equal(_smallest(outcome) == 0, torch.arange(8) < 3)
    assert bool(outcome.fooled.all())


@over_recipes
def test_a_surrogate_leads_and_the_model_judges(name: str) -> None:
    model, other = mlp(scale=3), mlp(seed=1, scale=3)
    x = rand(40, 2, 3, 3, seed=9)
    y = labels(model, x)
    keep = labels(other, x) == y
    x, y = x[keep], y[keep]
    for surrogate in (other, [other, mlp(seed=2, scale=3)]):
        outcome = ss.attack(
            model,
            x,
            y,
            threat=_threat("l2"),
            recipe=_spec(name, 20),
            search=ss.Search(loss="margin", surrogate=surrogate),
        )
        finite = torch.isfinite(_smallest(outcome))
        assert torch.equal(finite, outcome.fooled)
        assert bool((labels(model, torch.as_tensor(outcome.x)) != y)[finite].all())
    # The model itself is a perfect surrogate; as the surrogate of a model that never errs it finds nothing.
    same = ss.attack(model, x, y, threat=_threat("l2"), recipe=_spec(name, 20), search=ss.Search(surrogate=model))
    assert bool(same.fooled.all())
    never = ss.attack(
        _right_always(y), x, y, threat=_threat("l2"), recipe=_spec(name, 20), search=ss.Search(surrogate=model)
    )
    assert not bool(never.fooled.any())
    assert bool(torch.isinf(_smallest(never)).all())


def _right_always(y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda u: torch.nn.functional.one_hot(y[: len(u)], 4).to(u) * 5 + 0 * u.flatten(1).sum(1, keepdim=True)


@over_recipes
def test_a_twin_is_believed_only_where_the_model_agrees(name: str) -> None:
    """The twin's boundaries lie elsewhere; a point counts only once the model itself is fooled."""
    model, x = mlp(scale=3), rand(10, 2, 3, 3, seed=10)
    y = labels(model, x)

    bias = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)

    class Wishful(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            z: Tensor = model(u)
            return z + bias

    honest = Twin(Predictor(model, None, "logits", None))
    wishful = Twin(Predictor(Wishful(), None, "logits", None))
    for oracle, all_found in ((honest, True), (wishful, False)):
        attack = ss.recipe(_spec(name, 30), oracle=oracle)
        outcome = ss.attack(model, x, y, threat=_threat("l2"), recipe=attack)
        finite = torch.isfinite(_smallest(outcome))
        assert bool(finite.all()) or not all_found
        # Who goes by what fools goes on until the model agrees.
        assert bool(finite.all()) or name != "ddn"
        assert torch.equal(outcome.fooled, finite)
        assert torch.equal(labels(model, torch.as_tensor(outcome.x)) != y, finite)


@over_recipes
def test_other_tasks(name: str) -> None:
    x = rand(10, 2, 3, 3, seed=11)
    two = mlp(classes=3, scale=2)
    with torch.no_grad():
        z = two(x)
    recipe = _spec(name, 40)
    for task, y, model in (
        (ss.Multilabel(), z > 0, two),
        (ss.Multilabel("all"), z > 0, two),
        (ss.Multilabel(1), z > 0, two),
        (ss.Regression(0.1), z + 0.02, two),
        ("binary", z[:, 0] > 0, lambda u: two(u)[:, :1]),
    ):
        labels_ = y.to(torch.int64) if y.dtype == torch.bool and y.ndim == 1 else y
        outcome = ss.attack(ss.Model(model, task=task), x, labels_, threat=_threat("l2"), recipe=recipe)  # type: ignore[arg-type]
        found = int(torch.isfinite(_smallest(outcome)).sum())
        assert found >= (2 if task == ss.Multilabel("all") else 9), task
        assert bool(outcome.verified.all())


@over_recipes
def test_a_target_is_reached(name: str) -> None:
    model, x = mlp(scale=3), rand(12, 2, 3, 3, seed=12)
    y = labels(model, x)
    outcome = ss.attack(model, x, y, target="next", threat=_threat("l2"), recipe=_spec(name, 40))
    free = ss.attack(model, x, y, threat=_threat("l2"), recipe=_spec(name, 40))
    assert int(outcome.fooled.sum()) >= 10
    assert torch.equal(labels(model, torch.as_tensor(outcome.x)) == (y + 1) % 4, outcome.fooled)
    assert bool((_smallest(outcome) >= 0.98 * _smallest(free)).all())


class _Pixels(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return torch.stack([u[:, 0] - 0.5, 0.5 - u[:, 0]], 1)


@over_recipes
def test_segmentation_is_for_ddn(name: str) -> None:
    x = rand(6, 2, 3, 3, seed=13)
    y = _Pixels()(x).argmax(1)
    if name != "ddn":
        with pytest.raises(InputError, match=f"{name} follows differences of scores.*ddn"):
            ss.attack(ss.Model(_Pixels(), task="segmentation"), x, y, threat=_threat("l2"), recipe=name)
        return
    outcome = ss.attack(ss.Model(_Pixels(), task="segmentation"), x, y, threat=_threat("l2"), recipe=name)
    assert bool(torch.isfinite(_smallest(outcome)).all())


@over_recipes
def test_what_is_not_defined_says_what_is(name: str) -> None:
    model, x = mlp(), rand(2, 2, 3, 3, seed=14)
    y = labels(model, x)
    with pytest.raises(InputError, match=rf"{name} is defined for l.*grouped\(0\)"):
        ss.attack(model, x, y, threat=_threat("pixel"), recipe=name)
    with pytest.raises(InputError, match="several inputs"):
        ss.attack(
            lambda a, b: model(a + b),
            {"a": x / 2, "b": x / 2},
            y,
            threat={"a": _threat("l2", 0.1), "b": _threat("l2", 0.1)},
            recipe=name,
        )
    with pytest.raises(InputError, match="steps=0"):
        ss.attack(model, x, y, threat=_threat("l2"), recipe=f"{name}:steps=0")


@pytest.mark.parametrize(
    "spec",
    [
        "ddn:gamma=1",
        "ddn:init=0",
        "fmn:step=0",
        "fmn:gamma=0",
        "cw:rate=0",
        "cw:c=-1",
        "cw:searches=0",
        "deepfool:candidates=0",
        "deepfool:overshoot=-1",
        "fab:restarts=0",
        "fab:targets=-1",
        "fab:backward=2",
    ],
)
def test_wrong_options_say_what_is_right(spec: str) -> None:
    option = spec.partition(":")[2].partition("=")[0]
    with pytest.raises(InputError, match=rf"{option}=.*pass"):
        ss.recipe(spec)


@over_recipes
def test_a_gradient_that_vanished_leaves_the_row_undetermined(name: str) -> None:
    x = rand(3, 5, seed=15)

    def model(u: Tensor) -> Tensor:
        z = 0 * u.sum(1)
        return torch.stack([z + 3, z - 2], 1)

    outcome = ss.attack(model, x, torch.zeros(3, dtype=torch.int64), threat=_threat("l2"), recipe=_spec(name, 5))
    assert bool(outcome.undetermined.all())
    assert bool(torch.isinf(_smallest(outcome)).all())
    assert isinstance(outcome.x, Tensor)
    assert bool(torch.isfinite(outcome.x).all())


@over_recipes
def test_passes_are_booked(name: str) -> None:
    calls: list[int] = []
    inner = mlp(scale=3)

    def model(u: Tensor) -> Tensor:
        calls.append(len(u))
        out: Tensor = inner(u)
        return out

    x = rand(8, 2, 3, 3, seed=16)
    y = labels(inner, x)
    ss.attack(model, x, y, threat=_threat("l2"), recipe=f"{name}:steps=7")  # is it random? Asked once for each model
    calls.clear()
    outcome = ss.attack(model, x, y, threat=_threat("l2"), recipe=f"{name}:steps=7")
    # The pass that checks the labels is the search's first.
    assert sum(calls) == int(outcome.forwards.sum())
    booked = {"deepfool": None, "ddn": 7, "fmn": 7, "cw": 6 * 7 + 1, "fab": 3 * 7}
    backwards = written_down(booked, name, "the backward passes in 7 steps")
    assert backwards is None or outcome.backwards.tolist() == [backwards] * 8


def test_targeted_runs_and_restarts_find_no_less() -> None:
    model, x = mlp(scale=3), rand(30, 2, 3, 3, seed=17)
    y = labels(model, x)
    once, more, led = (
        _smallest(ss.attack(model, x, y, threat=_threat("l2"), recipe=spec))
        for spec in ("fab:steps=10", "fab:steps=10,restarts=4", "fab:steps=10,targets=3")
    )
    assert bool((more <= once * 1.01).all())
    assert float(led.median()) <= float(once.median()) * 1.01


def test_a_random_model_is_asked_again() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp(scale=3)

        def forward(self, u: Tensor) -> Tensor:
            z: Tensor = self.inner(u)
            return z + 0.05 * torch.randn_like(z)

    x = rand(10, 2, 3, 3, seed=18)
    model = Noisy()
    y = labels(model.inner, x)
    outcome = ss.attack(model, x, y, threat=_threat("l2"), recipe="ddn:steps=40")
    finite = torch.isfinite(_smallest(outcome))
    assert torch.equal(finite, outcome.fooled)
    assert outcome.passes == 32
    assert int(finite.sum()) > 0


@pytest.mark.parametrize("name", ["deepfool", "fab"])
def test_the_nearest_boundary_is_not_that_of_the_nearest_score(name: str) -> None:
    """Class 1 is 0.2 away in score and 2 in length, class 2 is 5 away in score and 0.5 in length."""

    def model(u: Tensor) -> Tensor:
        return torch.stack([0 * u[:, 0], 0.1 * u[:, 0] - 0.2, 10 * u[:, 1] - 5], 1)

    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    outcome = ss.attack(model, x, y, threat=ss.threat_model("l2", None, box=(-4, 4)), recipe=name)
    assert 0.5 <= float(_smallest(outcome)) < 0.515
    assert outcome.answer.tolist() == [2]
