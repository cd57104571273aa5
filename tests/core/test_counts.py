"""Laws of threats that count what changes: brute force over all sets is the oracle."""

import math
from itertools import combinations, product

import pytest
import torch
from small_nets import RowNet, Scaled, filled, labels, mlp, rand
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.search.sparse_rs import swapped_share
from signstep.certify.bounds.around import ends
from signstep.engine.around import region_around
from signstep.engine.keys import Key
from signstep.engine.norms import L0, NORMS, norm
from signstep.engine.region import BallRegion
from signstep.engine.threat import parse_threat
from signstep.errors import InputError, ThreatError
from signstep.train import adversarial_loss

SHAPE = (2, 3)
COUNTS = [L0(), L0((0,)), L0((-1,)), L0((0, 1))]
over_counts = pytest.mark.parametrize("rule", COUNTS, ids=lambda rule: rule.name)
over_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def _case(rows: int = 30, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of very different sizes with zeros, counts, and a box with one-sided and frozen coordinates."""
    random = torch.Generator().manual_seed(0)
    g = torch.randn((rows, *SHAPE), generator=random, dtype=dtype)
    g = g * 10 ** torch.randn(g.shape, generator=random, dtype=dtype)
    g[torch.rand(g.shape, generator=random) < 0.1] = 0
    low, high = (torch.rand(g.shape, generator=random, dtype=dtype) for _ in range(2))
    low[torch.rand(g.shape, generator=random) < 0.2] = 0
    high[torch.rand(g.shape, generator=random) < 0.2] = 0
    return g, torch.randint(0, 5, (rows,), generator=random).to(dtype), -low, high


def _sets(rule: L0, d: Tensor, most: float) -> Tensor:
    """Every set of at most so many units, as coordinates (sets, *SHAPE) bool; by the axes alone."""
    axes = {axis % len(SHAPE) for axis in rule.axes}
    places = list(product(*map(range, SHAPE)))
    unit = [tuple(at for axis, at in enumerate(place) if axis not in axes) for place in places]
    units = sorted(set(unit))
    chosen = [set(some) for size in range(min(int(most), len(units)) + 1) for some in combinations(units, size)]
    return torch.tensor([[one in some for one in unit] for some in chosen]).reshape(-1, *d.shape[1:])


@over_counts
@over_dtypes
def test_the_step_is_the_best_of_all_sets(rule: L0, dtype: torch.dtype) -> None:
    g, radius, low, high = _case(dtype=dtype)
    d = rule.steepest(g, radius, low, high)
    assert d.dtype == dtype
    assert bool(((d >= low) & (d <= high)).all())
    assert bool((d[g == 0] == 0).all())
    ends_ = torch.maximum(g * low, g * high).double()
    for row, most in enumerate(radius.tolist()):
        sets = _sets(rule, g, most)
        best = float((sets * ends_[row]).flatten(1).sum(1).max())
        assert float((g[row].double() * d[row].double()).sum()) == pytest.approx(best, rel=1e-6)
        assert bool((sets == (d[row] != 0)).flatten(1).all(1).any()) or bool((d[row] == 0).any())
    assert bool((rule.length(d) <= radius).all())


@over_counts
@over_dtypes
def test_the_projection_is_the_nearest_of_all_sets(rule: L0, dtype: torch.dtype) -> None:
    v, radius, low, high = _case(dtype=dtype)
    for box in ((low, high), (None, None)):
        p = rule.project(v, radius, *box)
        assert bool((rule.length(p) <= radius).all())
        assert torch.equal(rule.project(p, radius, *box), p)
        inside = v if box[0] is None else v.clamp(low, high)
        for row, most in enumerate(radius.tolist()):
            candidates = torch.where(_sets(rule, v, most), inside[row], 0.0).double()
            nearest = float((candidates - v[row].double()).square().flatten(1).sum(1).min())
            found = float((p[row].double() - v[row].double()).square().sum())
            assert found == pytest.approx(nearest, rel=1e-5, abs=1e-9 if dtype == torch.float64 else 1e-4)
        everything = torch.full_like(radius, math.inf)
        assert torch.equal(rule.project(v, everything, *box), inside)


@over_counts
def test_a_turn_stays_in_the_set_and_only_climbs_to_the_best(rule: L0) -> None:
    """On one gradient, turns of a unit at a time come to the steepest point, and never lose on the way."""
    g, radius, low, high = _case()
    d = rule.project(torch.where(rand(*g.shape, seed=3) < 0.5, low, high), radius)
    gain = (g * d).flatten(1).sum(1)
    for _ in range(12):
        moved = rule.turned(d, g, torch.full_like(radius, 0.3), radius, low, high)  # less than one counts as one
        assert bool((rule.length(moved) <= radius).all())
        assert bool(((moved >= low) & (moved <= high)).all())
        fresh = (rule.parts(moved) != rule.parts(d)) & (rule.parts(moved) != 0)
        assert int(fresh.any(2).sum(1).max()) <= 1
        climbed = (g * moved).flatten(1).sum(1)
        assert bool((climbed >= gain - 1e-12).all())
        d, gain = moved, climbed
    best = rule.steepest(g, radius, low, high)
    torch.testing.assert_close(gain, (g * best).flatten(1).sum(1), rtol=1e-9, atol=1e-12)


def test_of_equal_ones_the_first_are_taken() -> None:
    g, box = torch.tensor([[1.0, -2.0, 2.0, -2.0, 1.0]]), torch.full((1, 5), 0.5)
    step = L0().steepest(g, torch.tensor([2.0]), -box, box)
    assert step.tolist() == [[0.0, -0.5, 0.5, 0.0, 0.0]]
    assert L0().project(g.sign(), torch.tensor([2.9])).tolist() == [[1.0, -1.0, 0.0, 0.0, 0.0]]


@over_counts
@pytest.mark.parametrize("power", [-120, -40, 60])
def test_neither_the_scale_of_the_loss_nor_of_the_input_matters(rule: L0, power: int) -> None:
    g, radius, low, high = _case(dtype=torch.float32)
    g = torch.where(g.abs() < 1e-2, 0.0, g)
    step, point = rule.steepest(g, radius, low, high), rule.project(g, radius, low, high)
    assert torch.equal(rule.steepest(g * 2.0 ** max(power, -110), radius, low, high), step)
    scale = 2.0 ** max(power, -60)
    assert torch.equal(rule.steepest(g, radius, low * scale, high * scale) / scale, step)
    assert torch.equal(rule.project(g * scale, radius, low * scale, high * scale) / scale, point)


@pytest.mark.kernels
@over_counts
def test_a_row_does_not_see_its_batch(rule: L0) -> None:
    g, radius, low, high = _case()
    d = rule.project(torch.where(rand(*g.shape, seed=3) < 0.5, low, high), radius)
    count = torch.linspace(0, 3, len(g), dtype=g.dtype)
    whole = (
        rule.steepest(g, radius, low, high),
        rule.project(g, radius, low, high),
        rule.turned(d, g, count, radius, low, high),
        rule.length(d),
    )
    for index in ([4], [29, 3, 3], list(range(17))):
        part = [each[index] for each in (g, radius, low, high, d, count)]
        alone = (
            rule.steepest(*part[:4]),
            rule.project(*part[:4]),
            rule.turned(part[4], part[0], part[5], *part[1:4]),
            rule.length(part[4]),
        )
        assert all(torch.equal(one, other[index]) for one, other in zip(alone, whole, strict=True))


def test_starts_are_uniform_over_units_and_box() -> None:
    x, rows = torch.full((3000, 2, 3), 0.25, dtype=torch.float64), 3000
    draws = Key(0).draws(torch.arange(rows), torch.device("cpu"))
    for threat, units in ((ss.l0(2), 6), (ss.l0(1, axes=(0,)), 3)):
        most = int(float(threat.eps))  # type: ignore[arg-type]
        region = region_around(x, threat)
        assert isinstance(region, BallRegion)
        d = region.sample(draws)
        changed = region.norm.parts(d != 0).any(2)  # type: ignore[attr-defined]
        assert changed.sum(1).tolist() == [most] * rows
        assert float((changed.double().mean(0) - most / units).abs().max()) < 0.04
        values = x[0, 0, 0] + d[d != 0]
        assert float(values.mean()) == pytest.approx(0.5, abs=0.02)
        assert 0 <= float(values.min()) < 0.01
        assert 0.99 < float(values.max()) <= 1


def test_without_a_box_there_is_no_step() -> None:
    for rule in COUNTS:
        with pytest.raises(ThreatError, match=r"how many .* not how far.*box=\(low, high\)"):
            rule.steepest(torch.ones(1, 2, 3), torch.ones(1))
        assert rule.dual_length(torch.tensor([[[1.0, 0, 0], [0, 0, 0]], [[0.0] * 3] * 2])).tolist() == [math.inf, 0]


# The threat


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ss.l0(2.5), r"^eps=2\.5 is no whole number, and l0 counts what changes; pass 10"),
        (lambda: ss.l0("8/255"), "no whole number"),
        (lambda: ss.l0(torch.tensor([1.0, 1.5])), "no whole number"),
        (lambda: ss.l0(-1), "negative"),
        (lambda: ss.l0(3, box=None), r"^box has an open end, and l0 alone.*pass box=\(low, high\)"),
        (lambda: ss.l0(3, box=(0, None)), "open end"),
        (lambda: ss.l0(3, box=(0, torch.tensor([1.0, math.inf]))), "open end"),
        (lambda: ss.l0(3, axes=(0,), box=None), r"l0\(0\) alone"),
        (lambda: parse_threat("l0:0.5"), "no whole number"),
        (lambda: ss.fgsm(mlp(), rand(2, 2, 3, 3), eps=19, norm="l0"), r"more than the 18 that can change in l0"),
        (lambda: ss.fgsm(mlp(), rand(2, 2, 3, 3), eps=10, norm="l0-pixel"), r"more than the 9 that can change"),
        (lambda: ss.fgsm(mlp(), rand(2, 18), eps=2, norm="l0(1)"), r"l0\(1\) groups axes that .* do not have"),
    ],
)
def test_what_cannot_be_counted_is_refused(make: object, message: str) -> None:
    with pytest.raises(ThreatError, match=message):
        make()  # type: ignore[operator]


def test_half_of_what_can_change_is_warned_of() -> None:
    x = rand(2, 2, 3, 3)
    with pytest.warns(ss.SignstepWarning, match="reaches half of the 18 that can change in l0: between any two inputs"):
        ss.fgsm(mlp(), x, eps=9, norm="l0")
    ss.fgsm(mlp(), x, eps=8, norm="l0")


def test_names_and_words() -> None:
    assert str(parse_threat("l0:10")) == "l0 eps=10, box=[0, 1]"
    assert parse_threat("l0-pixel:2") == ss.l0(2, axes=(0,)) == parse_threat("l0(0):2")
    assert ss.l0(2, axes=(0,)).terms().axes == (0,)
    assert ss.l0(2, axes=(0,)).terms().kind == "l0"
    assert all(norm(rule.name) == rule for rule in COUNTS)
    assert NORMS["l0"] == L0()


def test_bounds_go_to_the_ends_of_the_box() -> None:
    x = torch.full((2, 3), 100.0)
    threat = ss.l0(torch.tensor([1.0, 0.0]), box=(0, 255))
    region = region_around(x, threat)
    assert isinstance(region, BallRegion)
    low, high = ends(region)
    assert low.tolist() == [[0.0] * 3, [100.0] * 3]
    assert high.tolist() == [[255.0] * 3, [100.0] * 3]


def test_who_has_no_use_for_a_count_says_so() -> None:
    x = rand(8, 2, 3, 3)
    y = labels(mlp(), x)
    with pytest.raises(ThreatError, match="norm l0: one change for all"):
        ss.universal(mlp(), (x, y), threat=ss.l0(3))
    with pytest.raises(ThreatError, match="norm l0: training starts and steps outside the box"):
        adversarial_loss(mlp(), x, y, threat=ss.l0(3))
    with pytest.raises(ThreatError, match=r"norm linf: sparse-rs is defined for l0; .*ss\.l0\(10\)"):
        ss.attack(mlp(), x, y, threat=ss.linf(0.1), recipe="sparse-rs")
    with pytest.raises(InputError, match="ddn is defined for l2, the threat is in l0"):
        ss.attack(mlp(), x, y, threat=ss.l0(3), recipe="ddn")
    with pytest.raises(InputError, match=r"curve=\[1\.0, 2\.5\] has a size that is no whole number"):
        ss.audit(mlp(), (x, y), threat=ss.l0(3), attacks=["fgsm"], curve=[1, 2.5])


def test_a_security_curve_has_whole_sizes() -> None:
    x = rand(20, 2, 3, 3)
    y = labels(mlp(), x)
    result = ss.audit(mlp(), (x, y), threat=ss.l0(5), attacks=["fgsm"])
    assert [point.eps for point in result.curve] == [1, 2, 4, 5, 8, 10]
    smallest = [eps for eps in result.per_example.smallest_eps if eps is not None]
    assert len(smallest) > 5
    assert all(eps == int(eps) for eps in smallest)


def test_a_preset_sets_aside_what_is_not_for_counts() -> None:
    x = rand(10, 2, 3, 3)
    result = ss.audit(mlp(), (x, labels(mlp(), x)), threat=ss.l0(2), ladder="standard@1", curve=False)
    told = [note for note in result.notes if "not defined for this threat" in note]
    assert told
    assert all(note.startswith("rung square") for note in told)


# Attacks


def _all_corners(model: nn.Module, x: Tensor, y: Tensor, threat: ss.ThreatModel) -> Tensor:
    """Whether any point fools that differs from x (D,) in at most k units, each at ends of the box; by trying all."""
    rule, most = threat.norm, float(threat.eps)  # type: ignore[arg-type]
    assert isinstance(rule, L0)
    found = []
    for row, label in zip(x, y.tolist(), strict=True):
        sets = _sets(rule, x[:1], most)
        corners = torch.tensor(list(product((0.0, 1.0), repeat=row.numel())), dtype=x.dtype).reshape(-1, *row.shape)
        points = torch.where(sets[:, None], corners, row).reshape(-1, *row.shape)
        found.append(bool((labels(model, points) != label).any()))
    return torch.tensor(found)


@pytest.mark.parametrize("threat", [ss.l0(1), ss.l0(1, axes=(0,))], ids=str)
def test_attacks_find_what_trying_all_sets_finds(threat: ss.ThreatModel) -> None:
    model, x = mlp(6, 3), rand(40, *SHAPE, seed=5)
    y = labels(model, x)
    truth = _all_corners(model, x, y, threat)
    assert int(truth.sum()) > 20
    share = {}
    for recipe in ("sparse-rs:queries=400", "apgd:loss=margin,restarts=5", "sigma-zero", "random-direction:queries=5"):
        outcome = ss.attack(model, x, y, threat=threat, recipe=recipe)
        assert bool(outcome.verified.all())
        share[recipe.partition(":")[0]] = float(outcome.fooled[truth].double().mean())
        if recipe.startswith("sparse-rs"):
            assert torch.equal(outcome.fooled, truth)  # it tries corners, and has queries for all of them
    assert share["apgd"] >= 0.9
    assert share["sigma-zero"] >= 0.8
    assert share["random-direction"] < share["sigma-zero"]


def test_the_fewest_changes_of_a_linear_model() -> None:
    """Gains add up there: the largest are taken until they make up for the margin."""
    model, x = filled(nn.Linear(12, 3), seed=3), rand(20, 12, seed=1)
    y = labels(model, x)
    weight, bias = model.weight.detach(), model.bias.detach()
    truth = []
    for row, label in zip(x, y.tolist(), strict=True):
        fewest = math.inf
        for other in {0, 1, 2} - {label}:
            w = weight[other] - weight[label]
            gains = torch.maximum(w * (1 - row), -w * row).sort(descending=True).values.cumsum(0)
            enough = (gains > -(float(w @ row) + float(bias[other] - bias[label]))).nonzero()
            fewest = min(fewest, int(enough[0]) + 1 if len(enough) else math.inf)
        truth.append(fewest)
    fewest_ = torch.tensor(truth)
    outcome = ss.attack(model, x, y, threat=ss.l0(None), recipe="sigma-zero")
    assert outcome.smallest is not None
    assert bool((outcome.smallest >= fewest_).all())
    assert torch.equal(torch.isfinite(outcome.smallest), torch.isfinite(fewest_))
    there = torch.isfinite(fewest_)
    assert float((outcome.smallest == fewest_)[there].double().mean()) >= 0.8
    assert bool(((outcome.smallest - fewest_)[there] <= 1).all())


@pytest.mark.parametrize("axes", [(), (0,)])
def test_what_sigma_zero_counts_is_real_and_eps_does_not_steer_it(axes: tuple[int, ...]) -> None:
    model, x = mlp(scale=3), rand(20, 2, 3, 3, seed=2)
    y = labels(model, x)
    free = ss.attack(model, x, y, threat=ss.l0(None, axes=axes), recipe="sigma-zero:steps=60")
    assert free.smallest is not None
    assert bool(torch.isfinite(free.smallest).all())
    assert torch.equal(free.smallest, free.smallest.round())
    assert isinstance(free.distance, Tensor)
    assert torch.equal(free.distance.double(), free.smallest)
    again = ss.attack(model, x, y, threat=ss.l0(free.smallest, axes=axes), recipe="sigma-zero:steps=60")
    assert bool(again.fooled.all())
    assert bool(again.verified.all())
    for scale in (1e4, 1e-4):
        loud = ss.attack(Scaled(model, scale), x, y, threat=ss.l0(None, axes=axes), recipe="sigma-zero:steps=60")
        assert loud.smallest is not None
        assert float((loud.smallest - free.smallest).abs().max()) <= 1


@pytest.mark.kernels
@pytest.mark.parametrize("axes", [(), (0,)])
def test_rows_of_sigma_zero_do_not_see_each_other(axes: tuple[int, ...]) -> None:
    model, x = filled(RowNet()), rand(9, 2, 3, 3, seed=5)
    y = labels(model, x)
    whole = ss.attack(model, x, y, threat=ss.l0(3, axes=axes), recipe="sigma-zero:steps=20")
    for index in ([4], [8, 1, 4], [2, 2]):
        part = ss.attack(model, x[index], y[index], threat=ss.l0(3, axes=axes), recipe="sigma-zero:steps=20")
        for field in ("x", "smallest", "fooled", "loss", "forwards", "backwards"):
            assert torch.equal(getattr(part, field), getattr(whole, field)[index]), field


def test_sparse_rs_moves_what_the_schedule_says_and_never_what_is_frozen() -> None:
    asked: list[Tensor] = []
    x, mask = torch.full((3, 2, 4, 4), 0.5), torch.ones(2, 4, 4, dtype=torch.bool)
    mask[:, 0] = False

    def model(u: Tensor) -> Tensor:
        asked.append(u.clone())
        return torch.tensor([[2.0, 1.0]]).expand(len(u), 2)

    threat = ss.l0(4, axes=(0,), mask=mask)
    outcome = ss.attack(
        ss.Model(model, outputs="logits"), x, torch.zeros(3).long(), threat=threat, recipe="sparse-rs:queries=40"
    )
    assert bool(outcome.verified.all())
    points = [point for point in asked if len(point) == 3 and not torch.equal(point, x)][:40]
    most = 0
    for number, point in enumerate(points):
        changed = (point != x).any(1)
        assert changed.flatten(1).sum(1).tolist() == [4] * 3
        assert not bool(changed[:, 0].any())
        assert set(point[(point != x)].tolist()) <= {0.0, 1.0}
        if number:  # nothing was better, so each is compared with the first
            moved = (changed & ~(points[0] != x).any(1)).flatten(1).sum(1)
            assert int(moved.max()) <= max(1, int(4 * swapped_share(number, 40, 0.3)))
            most = max(most, int(moved.max()))
    assert most == 1


def test_sparse_rs_without_room_still_tries_other_ends() -> None:
    """Where all that may change does, other ends of the same coordinates are all that is left to try."""
    x = torch.full((4, 3), 0.5, dtype=torch.float64)

    def model(u: Tensor) -> Tensor:
        hits = (u == torch.tensor([1.0, 0.0, 1.0], dtype=u.dtype)).to(u.dtype).sum(1)
        return torch.stack([2.5 + 0 * hits, hits], 1)

    outcome = ss.attack(model, x, torch.zeros(4).long(), threat=ss.l0(None), recipe="sparse-rs:queries=100")
    assert bool(outcome.fooled.all())
