"""Laws that every recipe obeys, over the table of recipes: a new row is tested by being there."""

from functools import cache
from itertools import product

import pytest
import torch
from small_nets import RowNet, Scaled, filled, fits, labels, mlp, rand, short
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import signstep as ss
from signstep.attacks.recipes import options_of
from signstep.engine.norms import NORMS
from signstep.errors import InputError, ThreatError
from written_down import written_down

SHAPE = (2, 3, 3)
ROWS = 8
SIZES = {"linf": 0.08, "l2": 0.3, "l1": 0.6, "pixel": 0.15, "l0": 3.0, "l0(0)": 2.0}
SETTINGS = ["box", "no box", "one-sided", "feature box", "mask", "row mask"]
MASK = torch.tensor([True, False, True, True, False, True]).repeat(3).reshape(SHAPE)


def size_of(norm: str) -> float:
    return written_down(SIZES, norm, "the size of a change for the laws in the norm")


def test_every_norm_is_under_these_laws() -> None:
    assert all(size_of(norm) for norm in NORMS.own)


def _fits(name: str, norm: str) -> bool:
    return fits(ss.RECIPES[name], norm)


def _counts(norm: str) -> bool:
    """Whether the sizes of the norm are whole numbers."""
    return norm.startswith("l0")


# Attacks that go up a gradient, or an estimate of one, within a given eps.
CLIMBERS = [name for name, row in ss.RECIPES.items() if row.needs == "gradients" and not row.smallest]
LOOKING_AHEAD = ("ni-fgsm", "si-fgsm")
FIXED = [name for name, row in ss.RECIPES.items() if not row.smallest]
PAIRS = [(name, norm) for name, norm in product(ss.RECIPES, SIZES) if _fits(name, norm)]

over_recipes = pytest.mark.parametrize("name", [name for name in ss.RECIPES if _fits(name, "linf")])
over_gradient_recipes = pytest.mark.parametrize("name", CLIMBERS)
over_pairs = pytest.mark.parametrize(("name", "norm"), PAIRS)
# A count says nothing of how far a coordinate goes: it needs a box with two sides.
POSSIBLE = [
    (norm, setting)
    for norm, setting in product(SIZES, SETTINGS)
    if not _counts(norm) or setting not in ("no box", "one-sided")
]
over_fixed_pairs = pytest.mark.parametrize(("name", "norm"), [pair for pair in PAIRS if pair[0] in FIXED])
over_gradient_pairs = pytest.mark.parametrize(("name", "norm"), [pair for pair in PAIRS if pair[0] in CLIMBERS])
over_measures = pytest.mark.parametrize("norm", [norm for norm in SIZES if not _counts(norm)])
over_norms_and_settings = pytest.mark.parametrize(("norm", "setting"), POSSIBLE)
over_fixed_pairs_and_settings = pytest.mark.parametrize(
    ("name", "norm", "setting"),
    [(name, norm, setting) for name, norm in PAIRS for other, setting in POSSIBLE if name in FIXED and other == norm],
)


def _steps(name: str, steps: int) -> str:
    return short(ss.RECIPES[name], steps)


def _batch(dtype: torch.dtype = torch.float64) -> Tensor:
    x = rand(ROWS, *SHAPE, seed=1, dtype=dtype)
    x[0, 0], x[1, :, 1] = 0.0, 1.0
    return x


def _row_mask() -> Tensor:
    return rand(ROWS, *SHAPE, seed=2) < 0.6


def _threat(norm: str, setting: str = "box", eps: float | Tensor | str | None = None) -> ss.ThreatModel:
    size = size_of(norm) if eps is None else eps
    box: tuple[float | Tensor | None, float | Tensor | None] | None = (0.0, 1.0)
    mask = None
    if setting == "no box":
        box = None
    elif setting == "one-sided":
        box = (0.0, None)
    elif setting == "feature box":
        box = (-rand(*SHAPE, seed=3) / 4, 1 + rand(*SHAPE, seed=4).round() / 8)
    elif setting == "mask":
        mask = MASK
    elif setting == "row mask":
        mask = _row_mask()
    return ss.threat_model(norm, size, box=box, mask=mask)


def _length(norm: str, change: Tensor) -> Tensor:
    """The length of each row, written down once more and in float64."""
    change = change.double()
    if norm == "l0(0)":
        return (change != 0).any(1).flatten(1).sum(1).double()
    if norm == "pixel":
        return change.square().sum(1).sqrt().flatten(1).amax(1)
    flat = change.flatten(1)
    lengths = {"linf": flat.abs().amax(1), "l1": flat.abs().sum(1), "l2": flat.square().sum(1).sqrt()}
    lengths["l0"] = (flat != 0).sum(1).double()
    return written_down(lengths, norm, "once more the length")


def _moved(first: Tensor, second: Tensor) -> Tensor:
    return (first != second).flatten(1).any(1)


@pytest.mark.pairwise
@over_fixed_pairs_and_settings
def test_one_step_moves_every_row(name: str, norm: str, setting: str) -> None:
    model, x = mlp(), _batch()
    outcome = ss.attack(model, x, labels(model, x), threat=_threat(norm, setting), recipe=_steps(name, 1))
    assert isinstance(outcome.x, Tensor)
    assert bool(_moved(outcome.x, x).all())


@pytest.mark.pairwise
@over_pairs
@pytest.mark.parametrize(
    ("setting", "dtype"), [*((setting, torch.float32) for setting in SETTINGS), ("box", torch.float64)], ids=str
)
def test_what_is_returned_is_allowed_and_scored(name: str, norm: str, setting: str, dtype: torch.dtype) -> None:
    if (norm, setting) not in POSSIBLE:
        with pytest.raises(ThreatError, match="open end"):
            _threat(norm, setting)
        return
    model, x = mlp(dtype=dtype), _batch(dtype)
    y = labels(model, x)
    threat = _threat(norm, setting)
    outcome = ss.attack(model, x, y, threat=threat, recipe=_steps(name, 4))
    assert isinstance(outcome.x, Tensor)
    assert isinstance(outcome.distance, Tensor)
    assert outcome.x.dtype == dtype
    assert outcome.x.shape == x.shape
    with torch.no_grad():
        answer = model(outcome.x)
    assert torch.equal(outcome.fooled, answer.argmax(1) != y)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(outcome.loss, cross_entropy(answer, y, reduction="none"), rtol=tolerance, atol=tolerance)
    change = outcome.x.double() - x.double()
    assert bool((_length(norm, change) <= size_of(norm) + torch.finfo(dtype).eps).all())
    torch.testing.assert_close(outcome.distance.double(), _length(norm, change), rtol=1e-6, atol=1e-12)
    assert bool(outcome.verified.all())
    assert not bool(outcome.undetermined.any())
    if setting in ("box", "mask", "row mask"):
        assert float(outcome.x.min()) >= 0
        assert float(outcome.x.max()) <= 1
    if setting == "one-sided":
        assert float(outcome.x.min()) >= 0
    if setting == "feature box":
        assert bool((outcome.x >= -rand(*SHAPE, seed=3) / 4 - 1e-7).all())
        assert bool((outcome.x <= 1 + rand(*SHAPE, seed=4).round() / 8 + 1e-7).all())
    for masked, mask in (("mask", MASK), ("row mask", _row_mask())):
        if setting == masked:
            frozen = ~mask.expand_as(x)
            assert torch.equal(outcome.x[frozen], x[frozen])


@over_measures
def test_no_box_is_left_where_there_is_none(norm: str) -> None:
    """Guards the test above: the settings differ, the open sides are used."""
    model, x = mlp(), _batch()
    crafted = ss.fgsm(model, x, labels(model, x), eps=size_of(norm), norm=norm, box=(0.0, None))
    free = ss.fgsm(model, x, labels(model, x), eps=size_of(norm), norm=norm, box=None)
    assert float(crafted.min()) >= 0
    assert float(free.min()) < 0
    assert float(free.max()) > 1


@pytest.mark.pairwise
@pytest.mark.kernels
@over_pairs
@pytest.mark.parametrize("setting", ["box", "row mask"])
def test_a_row_gets_the_same_alone_and_in_any_batch(name: str, norm: str, setting: str) -> None:
    model, x = filled(RowNet()), _batch()
    y = labels(model, x)
    recipe = _steps(name, 4)
    whole = ss.attack(model, x, y, threat=_threat(norm, setting), recipe=recipe)
    assert isinstance(whole.x, Tensor)
    for index in ([3], [6, 2, 5], [7, 6, 5, 4, 3, 2, 1, 0], [1, 1]):
        order = torch.tensor(index)
        threat = _threat(norm, setting)
        if threat.mask is not None and setting == "row mask":
            threat = ss.threat_model(norm, size_of(norm), mask=threat.mask[order])
        part = ss.attack(model, x[order], y[order], threat=threat, recipe=recipe)
        assert isinstance(part.x, Tensor)
        assert torch.equal(part.x, whole.x[order])
        for field in ("fooled", "loss", "distance", "rate", "forwards", "backwards"):
            assert torch.equal(getattr(part, field), getattr(whole, field)[order]), field


@pytest.mark.kernels
@over_recipes
def test_batches_agree_on_a_network_with_matrix_products(name: str) -> None:
    model, x = mlp(), _batch()
    y = labels(model, x)
    recipe = _steps(name, 3)
    whole = ss.attack(model, x, y, threat=_threat("linf"), recipe=recipe)
    assert isinstance(whole.x, Tensor)
    for row in range(0, ROWS, 2):
        alone = ss.attack(model, x[row : row + 1], y[row : row + 1], threat=_threat("linf"), recipe=recipe)
        assert isinstance(alone.x, Tensor)
        # A row may leave at the place a look-ahead led to, which moves with the gradient's last bit; signs do not.
        # Smallest changes are as long as gradients say, and so move with that bit too.
        tolerance = 1e-13 if name in LOOKING_AHEAD or ss.RECIPES[name].smallest else 0
        torch.testing.assert_close(alone.x, whole.x[row : row + 1], rtol=0, atol=tolerance)


@over_pairs
def test_a_vector_of_eps_is_its_numbers(name: str, norm: str) -> None:
    model, x = filled(RowNet()), _batch()
    y, recipe = labels(model, x), _steps(name, 3)
    scalar = ss.attack(model, x, y, threat=_threat(norm), recipe=recipe).x
    same = ss.attack(
        model, x, y, threat=_threat(norm, eps=torch.full((ROWS,), size_of(norm), dtype=torch.float64)), recipe=recipe
    ).x
    assert isinstance(scalar, Tensor)
    assert isinstance(same, Tensor)
    assert torch.equal(scalar, same)
    sizes = size_of(norm) * torch.tensor([0.0, 0.5, 1.0, 1.3, 0.0, 0.7, 0.1, 0.01], dtype=torch.float64)
    sizes = sizes.round() if _counts(norm) else sizes
    mixed = ss.attack(model, x, y, threat=_threat(norm, eps=sizes), recipe=recipe).x
    assert isinstance(mixed, Tensor)
    for row in (0, 1, 3, 7):
        part = slice(row, row + 1)
        alone = ss.attack(model, x[part], y[part], threat=_threat(norm, eps=float(sizes[row])), recipe=recipe).x
        assert isinstance(alone, Tensor)
        assert torch.equal(mixed[part], alone)


@pytest.mark.pairwise
@over_pairs
@pytest.mark.parametrize("setting", ["box", "feature box"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_eps_zero_returns_the_input(name: str, norm: str, setting: str, dtype: torch.dtype) -> None:
    model, x = mlp(dtype=dtype), _batch(dtype)
    y = labels(model, x)
    outcome = ss.attack(model, x, y, threat=_threat(norm, setting, eps=0), recipe=_steps(name, 2))
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(outcome.x, x)
    assert not bool(outcome.fooled.any())
    assert not bool(outcome.undetermined.any())


@over_norms_and_settings
def test_fgsm_is_the_attack_called_fgsm(norm: str, setting: str) -> None:
    model, x = mlp(), _batch()
    y, threat = labels(model, x), _threat(norm, setting)
    outcome = ss.attack(model, x, y, threat=threat)
    crafted = ss.fgsm(model, x, y, eps=size_of(norm), norm=norm, box=threat.box, mask=threat.mask)
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(crafted, outcome.x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_fgsm_follows_the_signs_of_the_float64_cross_entropy(dtype: torch.dtype) -> None:
    exact, x = mlp(features=40, seed=5), rand(64, 40, seed=6, dtype=torch.float32).double()
    model = mlp(features=40, seed=5, dtype=dtype)
    exact.load_state_dict({name: part.double() for name, part in model.state_dict().items()})
    y = labels(exact, x)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(exact(leaf), y, reduction="sum"), leaf)
    crafted = ss.fgsm(model, x.to(dtype), y, eps=0.03, box=None)
    clear = gradient.abs() > 1e-5 * gradient.abs().amax(1, keepdim=True)
    assert float(clear.double().mean()) > 0.999
    assert torch.equal((crafted.double() - x).sign()[clear], gradient.sign()[clear])
    torch.testing.assert_close(crafted.double(), x + 0.03 * (crafted.double() - x).sign(), rtol=0, atol=1e-7)


@over_fixed_pairs
def test_the_scale_of_the_loss_changes_nothing(name: str, norm: str) -> None:
    model, x = filled(RowNet()), _batch()
    y, recipe = labels(model, x), _steps(name, 3)

    def task(factor: float) -> ss.Custom:
        def loss(z: Tensor, k: Tensor | None) -> Tensor:
            assert k is not None
            return cross_entropy(z, k, reduction="none") * factor

        def success(z: Tensor, k: Tensor | None) -> Tensor:
            assert k is not None
            return z.argmax(1) != k

        return ss.Custom(loss, success)

    one = ss.attack(ss.Model(model, task=task(1.0)), x, y, threat=_threat(norm), recipe=recipe)
    assert isinstance(one.x, Tensor)
    for power in (-60, 9):
        other = ss.attack(ss.Model(model, task=task(2.0**power)), x, y, threat=_threat(norm), recipe=recipe)
        assert isinstance(other.x, Tensor)
        assert torch.equal(one.x, other.x), power
        assert torch.equal(one.fooled, other.fooled), power


@pytest.mark.pairwise
@over_fixed_pairs
@pytest.mark.parametrize(("loss", "classes"), [("ce", 2), ("margin", 4), ("dlr", 4)])
def test_the_scale_of_the_logits_changes_nothing(name: str, norm: str, loss: str, classes: int) -> None:
    """For cross-entropy only with two classes: with more, temperature changes what it asks for."""
    model, x = filled(RowNet(classes=classes)), _batch()
    y, recipe = labels(model, x), _steps(name, 3)
    one = ss.attack(model, x, y, threat=_threat(norm), recipe=recipe, search=ss.Search(loss=loss))
    assert isinstance(one.x, Tensor)
    for power in (-40, 9):
        scaled = Scaled(model, 2.0**power)
        other = ss.attack(scaled, x, y, threat=_threat(norm), recipe=recipe, search=ss.Search(loss=loss))
        assert isinstance(other.x, Tensor)
        assert torch.equal(one.x, other.x), power
        assert torch.equal(one.fooled, other.fooled), power


@pytest.mark.pairwise
@over_pairs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_answers_on_the_grid(name: str, norm: str, dtype: torch.dtype) -> None:
    grid = 255
    levels = (rand(ROWS, *SHAPE, seed=7) * grid).round()
    x = (levels / grid).to(dtype)
    model = mlp(dtype=dtype)
    y = labels(model, x)
    threat = ss.threat_model(norm, 3 / grid if norm in ("linf", "pixel") else size_of(norm), grid=grid)
    outcome = ss.attack(model, x, y, threat=threat, recipe=_steps(name, 3))
    assert isinstance(outcome.x, Tensor)
    steps = outcome.x.double() * grid
    assert torch.equal(outcome.x, (steps.round() / grid).to(dtype))
    change = steps.round() - levels
    assert bool((_length(norm, change / grid) <= float(threat.eps or 0) * (1 + 1e-9)).all())
    assert bool(outcome.verified.all())
    assert torch.equal(outcome.fooled, labels(model, outcome.x) != y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("steps", [1, 3, 3.9])
@pytest.mark.parametrize(("low", "high", "grid"), [(0, 1, 255), (-1, 1, 255), (0, 255, 255), (0, 1, 10), (0, 1, 65535)])
def test_fgsm_on_the_grid_is_exact(low: int, high: int, grid: int, steps: float, dtype: torch.dtype) -> None:
    """Every level, up and down: clip(k + steps * sign, 0, grid) to the last bit, also where the box stops the step."""
    k = torch.arange(0, grid + 1, max(1, grid // 255)).repeat(2, 1)

    def value(level: Tensor) -> Tensor:
        return (low + (level.double() / grid) * (high - low)).to(dtype)

    model = filled(nn.Linear(k.shape[1], 2, bias=False), dtype=dtype)
    sign = (model.weight[1] - model.weight[0]).sign() * torch.tensor([[1], [-1]])
    threat = ss.linf(steps / grid * (high - low), box=(low, high), grid=grid)
    outcome = ss.attack(model, value(k), torch.tensor([0, 1]), threat=threat)
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(outcome.x, value((k + int(steps) * sign).clamp(0, grid)))
    assert bool(outcome.verified.all())


def test_a_step_just_short_of_the_grid_is_truncated() -> None:
    x = torch.full((1, 4), 100 / 255, dtype=torch.float64)
    model = filled(nn.Linear(4, 2))
    outcome = ss.attack(model, x, torch.tensor([0]), threat=ss.linf((8 - 1e-7) / 255, grid=255))
    assert isinstance(outcome.x, Tensor)
    assert ((outcome.x - x).abs() * 255).round().tolist() == [[7.0] * 4]
    assert bool(outcome.verified.all())


def test_half_precision_cannot_hold_a_grid() -> None:
    x = torch.full((1, 4), 0.5, dtype=torch.bfloat16)
    model = filled(nn.Linear(4, 2), dtype=torch.bfloat16)
    with pytest.raises(InputError, match=r"cannot hold.*x\.float"):
        ss.attack(model, x, torch.tensor([0]), threat=ss.linf("8/255", grid=2))


@over_gradient_pairs
def test_a_targeted_attack_lowers_the_loss_of_its_target(name: str, norm: str) -> None:
    model, x = mlp(), _batch()
    y = labels(model, x)
    target = (y + 1) % 4
    outcome = ss.attack(model, x, y, target=target, threat=_threat(norm), recipe=_steps(name, 10))
    assert isinstance(outcome.x, Tensor)
    with torch.no_grad():
        before = cross_entropy(model(x), target, reduction="none")
        after = cross_entropy(model(outcome.x), target, reduction="none")
    assert bool((after < before).all())
    torch.testing.assert_close(outcome.loss, -after)
    assert torch.equal(outcome.fooled, labels(model, outcome.x) == target)


@pytest.mark.parametrize("rule", ["random", "least-likely", "next"])
def test_targets_by_rule(rule: str) -> None:
    model, x = mlp(), _batch()
    y = labels(model, x)
    outcome = ss.attack(model, x, y, target=rule, threat=ss.linf(0.4), recipe="pgd:steps=40")  # type: ignore[arg-type]
    assert isinstance(outcome.x, Tensor)
    with torch.no_grad():
        z = model(x)
    reached = labels(model, outcome.x)[outcome.fooled]
    assert len(reached) > 0
    if rule == "next":
        assert torch.equal(reached, ((y + 1) % 4)[outcome.fooled])
    if rule == "least-likely":
        assert torch.equal(reached, z.argmin(1)[outcome.fooled])
    assert bool((reached != y[outcome.fooled]).all())


def test_random_targets_cover_all_other_classes() -> None:
    model, x = mlp(), rand(300, *SHAPE, seed=8)
    y = labels(model, x)
    with pytest.warns(ss.SignstepWarning, match="half"):
        threat = ss.linf(0.9)
    outcome = ss.attack(model, x, y, target="random", threat=threat, recipe="pgd:steps=20")
    assert isinstance(outcome.x, Tensor)
    reached = labels(model, outcome.x)[outcome.fooled]
    assert set(reached.tolist()) == {0, 1, 2, 3}


def _best_gain(norm: str, w: Tensor, low: Tensor, high: Tensor, eps: float) -> float:
    """max w.d over ball and box, by another route than the code: greedy, or bisection on the multiplier."""
    room = torch.where(w > 0, high, -low)
    if norm == "linf":
        return float((w.abs() * room.clamp_max(eps)).sum())
    if norm == "l1":
        gain, left = 0.0, eps
        for index in w.abs().flatten().argsort(descending=True).tolist():
            used = min(left, float(room.flatten()[index]))
            gain, left = gain + used * float(w.abs().flatten()[index]), left - used
        return gain
    if _counts(norm):
        gains = (w.abs() * room).sum(0) if norm == "l0(0)" else w.abs() * room
        return float(gains.flatten().sort(descending=True).values[: int(eps)].sum())
    if norm == "pixel":
        spots = product(range(SHAPE[1]), range(SHAPE[2]))
        return sum(_best_gain("l2", w[:, i, j], low[:, i, j], high[:, i, j], eps) for i, j in spots)
    small, large = 0.0, 1e6
    for _ in range(200):
        middle = (small + large) / 2
        fits = float(torch.minimum(w.abs() * middle, room).square().sum().sqrt()) <= eps
        small, large = (middle, large) if fits else (small, middle)
    return float((w.abs() * torch.minimum(w.abs() * small, room)).sum())


@cache
def _linear(norm: str, masked: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights, examples, what may change, and the best gain of each example; the same for every recipe."""
    w = rand(*SHAPE, seed=9) - 0.5
    x = rand(8, *SHAPE, seed=10)
    x[:2] = x[:2].round()
    mask = MASK if masked else torch.ones(SHAPE, dtype=torch.bool)
    zero = torch.zeros(())
    best = torch.tensor(
        [
            _best_gain(norm, w, torch.where(mask, -row, zero), torch.where(mask, 1 - row, zero), size_of(norm))
            for row in x
        ]
    )
    return w, x, mask, best


# Single steps from the clean input are exact on a linear model; iterated ones hover within a few of their steps.
ENOUGH = {
    "fgsm": ("fgsm", 1e-9),
    "fgsm-rs": ("fgsm-rs:step=2", 1e-9),
    "bim": ("bim:steps=40,step=0.1", 0.05),
    "mi-fgsm": ("mi-fgsm:steps=40,step=0.1", 0.05),
    "pgd": ("pgd:steps=40,step=0.1", 0.05),
    "apgd": ("apgd:steps=60", 0.03),
    "smooth-pgd": ("smooth-pgd:steps=40", 0.06),
    "bpda-pgd": ("bpda-pgd:steps=40,step=0.1", 0.05),
    "averaged-pgd": ("averaged-pgd:steps=40,step=0.1,samples=3", 0.05),
    "odi-pgd": ("odi-pgd:steps=40,step=0.1", 0.05),
    "mt-pgd": ("mt-pgd:steps=40,step=0.1", 0.05),
    "ni-fgsm": ("ni-fgsm:steps=40,step=0.1", 0.05),
    "si-fgsm": ("si-fgsm:steps=40,step=0.1", 0.05),
    "di-fgsm": ("di-fgsm:steps=40,step=0.1,prob=0", 0.05),
    "ti-fgsm": ("ti-fgsm:steps=40,step=0.1,kernel=1", 0.05),
    "vmi-fgsm": ("vmi-fgsm:steps=40,step=0.1,samples=3", 0.05),
}


@pytest.mark.pairwise
@pytest.mark.parametrize(
    ("name", "norm"),
    # One step from a random start reaches the best corner in L-infinity only; a control finds nothing on purpose.
    [(name, norm) for name, norm in PAIRS if name in CLIMBERS and (name != "fgsm-rs" or norm == "linf")],
)
@pytest.mark.parametrize("masked", [False, True])
def test_a_linear_model_hides_no_adversarial_point(name: str, norm: str, masked: bool) -> None:
    """sign(w.x + b - c_i) with thresholds just short of and just beyond what the best allowed change can reach."""
    recipe, slack = written_down(ENOUGH, name, "options and nearness to the best change on a linear model")
    w, x, mask, best = _linear(norm, masked)
    # The logit of "fooled" is w.(u - x) - best * share; the bound travels as a second input that is left alone. Every
    # example is there twice, with either threshold.
    share = torch.tensor([1 - slack - 1e-6, 1 + 1e-6], dtype=torch.float64).repeat_interleave(len(x))
    x, best = x.repeat(2, 1, 1, 1), best.repeat(2)

    def model(u: Tensor, bound: Tensor) -> Tensor:
        gain = (u * w).flatten(1).sum(1) - bound
        return torch.stack([-gain, gain], 1)

    inputs: dict[str, Tensor] = {"u": x, "bound": (x * w).flatten(1).sum(1) + best * share}
    threat = {"u": ss.threat_model(norm, size_of(norm), mask=mask)}
    outcome = ss.attack(model, inputs, torch.zeros(len(x), dtype=torch.int64), threat=threat, recipe=recipe)
    assert torch.equal(outcome.fooled, share < 1)


def _by_hand(model: nn.Module, x: Tensor, y: int, rule: str, steps: int, eps: float) -> Tensor:
    """BIM and MI-FGSM as the papers write them, one example, stopping at the first iterate that fools."""
    u, memory = x.clone(), torch.zeros_like(x)
    for _ in range(steps):
        leaf = u.clone().requires_grad_()
        loss = cross_entropy(model(leaf[None]), torch.tensor([y]))
        if rule == "mi-fgsm without its norm":
            loss = torch.log(torch.expm1(loss))  # the log-odds: cross-entropy is softplus of it
        (gradient,) = torch.autograd.grad(loss, leaf)
        scale = 1.0 if rule == "mi-fgsm without its norm" else gradient.abs().sum()
        memory = gradient if rule == "bim" else memory + gradient / scale
        u = torch.minimum(torch.maximum(u + eps / steps * memory.sign(), x - eps), x + eps).clamp(0, 1)
        if int(model(u[None]).argmax()) != y:
            break
    return u


@pytest.mark.parametrize("name", ["bim", "mi-fgsm"])
def test_iterated_recipes_follow_their_papers(name: str) -> None:
    model, x = mlp(scale=3), rand(40, *SHAPE, seed=14)
    y = labels(model, x)
    outcome = ss.attack(model, x, y, threat=ss.linf(0.1), recipe=f"{name}:steps=9")
    assert isinstance(outcome.x, Tensor)
    assert 0 < int(outcome.fooled.sum()) < len(x)
    others = {"bim", "mi-fgsm", "mi-fgsm without its norm"} - {name}
    differ = dict.fromkeys(others, 0)
    for row in range(len(x)):
        wanted = _by_hand(model, x[row], int(y[row]), name, 9, 0.1)
        torch.testing.assert_close(outcome.x[row], wanted, rtol=0, atol=1e-12)
        for other in others:
            differ[other] += not torch.allclose(_by_hand(model, x[row], int(y[row]), other, 9, 0.1), wanted)
    assert min(differ.values()) > 0  # the rules can be told apart on this model


def test_a_fooled_row_leaves_and_costs_nothing_more() -> None:
    calls: list[int] = []
    inner = mlp()

    def model(u: Tensor) -> Tensor:
        calls.append(len(u))
        out: Tensor = inner(u)
        return out

    x = _batch()
    y = labels(inner, x)
    outcome = ss.attack(model, x, y, threat=ss.linf(0.1), recipe="pgd:steps=30,restarts=3")
    assert 0 < int(outcome.fooled.sum()) < ROWS
    standing = ~outcome.fooled
    assert bool((outcome.forwards[standing] == 3 * 31).all())
    assert bool((outcome.backwards[standing] == 3 * 30).all())
    assert bool((outcome.forwards[outcome.fooled] < 3 * 31).all())
    clean_pass, second_look = ROWS, 2 * 8  # a model that is new is asked twice about 8 rows: is it random?
    assert sum(calls) == int(outcome.forwards.sum()) + clean_pass + second_look
    calls.clear()
    again = ss.attack(model, x, y, threat=ss.linf(0.1), recipe="pgd:steps=30,restarts=3")
    assert sum(calls) == int(again.forwards.sum()) + clean_pass


def test_a_row_that_is_wrong_to_begin_with_takes_its_step() -> None:
    model, x = mlp(), _batch()
    y = (labels(model, x) + 1) % 4
    outcome = ss.attack(model, x, y, threat=ss.linf(0.05))
    assert isinstance(outcome.x, Tensor)
    assert bool(_moved(outcome.x, x).all())


def test_restarts_find_no_less() -> None:
    model, x = mlp(), rand(40, *SHAPE, seed=11)
    y = labels(model, x)
    once = ss.attack(model, x, y, threat=ss.linf(0.06), recipe="fgsm-rs")
    often = ss.attack(model, x, y, threat=ss.linf(0.06), recipe="fgsm-rs:restarts=20")
    assert bool((often.fooled | ~once.fooled).all())
    assert bool((often.loss[~often.fooled] >= once.loss[~often.fooled]).all())
    assert float((often.loss - once.loss).max()) > 0


def test_every_gradient_recipe_beats_the_control() -> None:
    model, x = mlp(), rand(60, *SHAPE, seed=12)
    y = labels(model, x)
    names = ["random-sign", *(name for name in CLIMBERS if _fits(name, "linf"))]
    success = {name: int(ss.attack(model, x, y, threat=ss.linf(0.06), recipe=name).fooled.sum()) for name in names}
    control = success.pop("random-sign")
    assert all(count > control for count in success.values()), (control, success)


@pytest.mark.usefixtures("no_global_seed")
@over_recipes
def test_the_seed_decides_and_the_global_one_does_not(name: str) -> None:
    model, x = mlp(), _batch()
    y, recipe = labels(model, x), _steps(name, 1)
    points = []
    for global_seed, seed in ((0, 5), (1, 5), (2, 6)):
        torch.manual_seed(global_seed)
        points.append(ss.attack(model, x, y, threat=ss.linf(0.05), recipe=recipe, search=ss.Search(seed=seed)).x)
    first, same, other = (point for point in points if isinstance(point, Tensor))
    assert torch.equal(first, same)
    assert torch.equal(first, other) == (not ss.recipe(recipe).draws)


@pytest.mark.parametrize("name", [name for name in CLIMBERS if not ss.RECIPES[name].images])
def test_health_counts_what_gradients_were_worth(name: str) -> None:
    tiny = torch.finfo(torch.float64).tiny
    w = torch.tensor([2.0, 0.0, tiny / 8, -1.0, 0.0, 3.0], dtype=torch.float64)
    mask = torch.tensor([True, True, True, True, False, False])
    x = rand(3, 6, seed=13)

    def model(u: Tensor) -> Tensor:
        z = (u * w).sum(1)
        return torch.stack([torch.zeros_like(z), z - 100], 1)

    outcome = ss.attack(
        model, x, torch.zeros(3, dtype=torch.int64), threat=ss.linf(0.1, mask=mask), recipe=_steps(name, 2)
    )
    gradients = outcome.health.gradients
    assert gradients.tolist() == [2 if "steps" in options_of(ss.RECIPES[name]) else 1] * 3
    assert torch.equal(outcome.health.coordinates, 4 * gradients)
    assert torch.equal(outcome.health.zero, gradients)
    assert torch.equal(outcome.health.underflow, gradients)
    assert outcome.health.nonfinite.tolist() == [0, 0, 0]
    assert outcome.health.dead.tolist() == [0, 0, 0]


def test_nothing_free_to_change_is_a_determined_answer() -> None:
    model, x = mlp(), _batch()
    frozen = torch.zeros(SHAPE, dtype=torch.bool)
    outcome = ss.attack(model, x, labels(model, x), threat=ss.linf(0.1, mask=frozen))
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(outcome.x, x)
    assert not bool(outcome.undetermined.any())


@over_recipes
def test_the_box_alone(name: str) -> None:
    model, x = mlp(), _batch()
    y = labels(model, x)
    outcome = ss.attack(model, x, y, threat=ss.linf(None, mask=MASK), recipe=_steps(name, 2))
    assert isinstance(outcome.x, Tensor)
    assert bool(torch.isfinite(outcome.x).all())
    assert bool(outcome.verified.all())
    assert torch.equal(outcome.x[:, ~MASK], x[:, ~MASK])
    if name == "fgsm":
        assert set(outcome.x[:, MASK].flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fsgm", "is not known"),
        ("pgd:stepz=3", "no option"),
        ("pgd:steps", "no option"),
        ("pgd:steps=many", "whole number"),
        ("pgd:steps=2.5", "whole number"),
        ("pgd:steps=0", "at least 1"),
        ("pgd:step=-1", "above 0"),
        ("pgd:step=nan", "above 0"),
        ("pgd:restarts=0", "restarts"),
        ("mi-fgsm:decay=-1", "decay"),
    ],
)
def test_wrong_recipes_say_what_is_right(spec: str, message: str) -> None:
    model, x = mlp(), _batch()
    with pytest.raises(InputError, match=message):
        ss.attack(model, x, labels(model, x), threat=ss.linf(0.1), recipe=spec)


def test_a_recipe_that_is_no_recipe() -> None:
    model, x = mlp(), _batch()
    with pytest.raises(InputError, match="recipe"):
        ss.attack(model, x, labels(model, x), threat=ss.linf(0.1), recipe=3)  # type: ignore[arg-type]
