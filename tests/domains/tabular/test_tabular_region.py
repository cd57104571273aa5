"""The steepest feasible move against slower referees, and laws that every point of the region obeys."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from small_credit import RULES, credit, people, wide
from torch import Tensor

from signstep.domains.tabular import Feature, Layout, Schema, Target, check, moves_of, read_relations, tabular_threat
from signstep.domains.tabular.check import check_rows
from signstep.domains.tabular.reach import budgets
from signstep.domains.tabular.region import TabularRegion
from signstep.engine.keys import Key
from signstep.errors import InputError, ThreatError

SHAPES = [
    pytest.param(credit(), id="rules"),
    pytest.param(credit(changes=2), id="rules, two changes"),
    pytest.param(credit(rules=()), id="free"),
    pytest.param(credit(rules=(), changes=3), id="free, three changes"),
]


def region_of(schema: Schema, x: Tensor, eps: float = 1.0) -> TabularRegion:
    return tabular_threat(schema, eps).around(x)


def random_gradient(x: Tensor, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=draw, dtype=torch.float64) * 10 ** (
        2 * torch.randn(x.shape, generator=draw, dtype=torch.float64)
    )


@pytest.mark.parametrize("schema", SHAPES)
@pytest.mark.parametrize("eps", [0.3, 1.0, 2.5])
def test_every_point_of_the_region_passes_the_checker(schema: Schema, eps: float) -> None:
    x = wide(schema, 60)
    region = region_of(schema, x, eps)
    draws = Key(3).draws(torch.arange(len(x)), x.device)
    points = [region.steepest(random_gradient(x, 1)), region.sample(draws), region.vertex(draws)]
    d = region.zero()
    for step in range(6):
        length = region.radius * (0.2 + 0.3 * step)
        d = region.project(d + region.step(d, region.restrict(random_gradient(x, step)), length))
        points.append(d)
    points.append(region.project(300 * random_gradient(x, 7)))
    for d in points:
        seen = check_rows(schema, eps, x, region.land(d))
        assert bool(seen.ok.all())
    assert bool((region.land(points[0]) != x).any())


@pytest.mark.parametrize("schema", SHAPES)
def test_a_projected_point_stays_where_it_is(schema: Schema) -> None:
    x = wide(schema, 40)
    region = region_of(schema, x)
    d = region.project(300 * random_gradient(x, 7))
    assert torch.equal(region.land(region.project(d)), region.land(d))
    assert torch.equal(region.land(region.zero()), x)


@pytest.mark.kernels
@pytest.mark.parametrize("schema", SHAPES)
def test_a_batch_is_its_rows(schema: Schema) -> None:
    x = wide(schema, 12)
    gradient = random_gradient(x, 5)
    region = region_of(schema, x)
    together = region.step(region.zero(), gradient, 0.5 * region.radius)
    for row in range(len(x)):
        alone = region.take(torch.tensor([row]))
        single = alone.step(alone.zero(), gradient[row : row + 1], 0.5 * alone.radius)
        assert torch.equal(single[0], together[row])


def test_no_budget_changes_nothing() -> None:
    x = wide(credit(), 10)
    region = region_of(credit(), x, 0.0)
    assert torch.equal(region.land(region.steepest(random_gradient(x, 0))), x)


def optimum(schema: Schema, record: Tensor, gradient: Tensor, eps: float) -> float:
    """The largest <gradient, change> over the allowed records, by scipy's mixed-integer solver."""
    layout = Layout(schema)
    reach = budgets(layout, record[None])[0] * eps
    low: list[float] = []
    high: list[float] = []
    whole: list[int] = []
    gain: list[float] = []
    rows: list[tuple[Any, float, float]] = []
    place: dict[str, tuple[int, float]] = {}
    constant = 0.0
    for number, (feature, start) in enumerate(zip(schema.features, layout.starts, strict=True)):
        value = float(record[number])
        if feature.kind == "categorical":
            free = feature.change != "none" and float(reach[number]) >= 1
            first = len(low)
            for level in range(feature.width):
                here = float(level == value)
                low.append(0.0 if free else here)
                high.append(1.0 if free else here)
                whole.append(1)
                gain.append(float(gradient[start + level]))
            constant -= float(gradient[start + int(value)])
            row = np.zeros(200)
            row[first : first + feature.width] = 1
            rows.append((row, 1.0, 1.0))
            continue
        size = feature.step or 1.0
        down = min(value - feature.low, float(reach[number])) if feature.change in ("both", "down") else 0.0
        up = min(feature.high - value, float(reach[number])) if feature.change in ("both", "up") else 0.0
        place[feature.name] = (len(low), size)
        low.append(-np.floor(down / size + 1e-9) if feature.step else -down)
        high.append(np.floor(up / size + 1e-9) if feature.step else up)
        whole.append(int(feature.step > 0))
        gain.append(float(gradient[start]) * size)
    for relation in schema.relations:
        row, here = np.zeros(200), 0.0
        for name, weight in relation.weights:
            column, size = place[name]
            row[column] = weight * size
            here += weight * float(record[schema.number(name)])
        room = relation.bound - here
        rows.append((row, room if relation.equal else -np.inf, room + 1e-9))
    matrix = np.array([row[: len(low)] for row, _, _ in rows])
    found = milp(
        -np.array(gain),
        integrality=np.array(whole),
        bounds=Bounds(np.array(low), np.array(high)),
        constraints=LinearConstraint(matrix, np.array([a for _, a, _ in rows]), np.array([b for _, _, b in rows])),
    )
    assert found.x is not None
    return float(-found.fun) + constant


@pytest.mark.parametrize("rules", [(), *((rule,) for rule in RULES), RULES])
def test_the_steepest_move_is_that_of_a_mixed_integer_solver(rules: tuple[str, ...]) -> None:
    schema = credit(rules=rules)
    decoded = people(schema, 25, seed=4)
    x = Layout(schema).widen(decoded)
    gradient = random_gradient(x, 11)
    found = (gradient * region_of(schema, x, 1.5).steepest(gradient)).sum(1)
    exact = [optimum(schema, *pair, 1.5) for pair in zip(decoded, gradient, strict=True)]
    best = torch.tensor(exact, dtype=torch.float64)
    torch.testing.assert_close(found, best, rtol=1e-5, atol=1e-6)


def test_with_a_limit_on_changes_the_best_ones_are_made() -> None:
    features = (
        Feature("a", "integer", -3, 3, budget="2"),
        Feature("b", "integer", -3, 3, budget="1"),
        Feature("c", "categorical", levels=("p", "q", "r")),
        Feature("d", "binary", levels=("0", "1")),
    )
    schema = Schema(features, Target("y", ("0", "1"), "1"), changes=2)
    layout = Layout(schema)
    start = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    x = layout.widen(start)
    for seed in range(20):
        gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        best = max(
            float((gradient * (layout.widen(torch.tensor([[float(v) for v in choice]]).double()) - x)).sum())
            for choice in product(range(-1, 4), range(-1, 2), range(3), range(2))
            if sum(v != w for v, w in zip(choice, (1, 0, 1, 0), strict=True)) <= 2
        )
        assert float((gradient * region_of(schema, x).steepest(gradient)).sum()) == pytest.approx(best)


def test_with_a_limit_on_changes_a_step_gives_up_a_worse_change_for_a_better_one() -> None:
    features = tuple(Feature(name, "continuous", -9, 9, budget="1") for name in "abc")
    schema = Schema(features, Target("y", ("0", "1"), "1"), changes=1)
    x = torch.zeros(1, 3, dtype=torch.float64)
    region = region_of(schema, x)
    d = torch.tensor([[0.2, 0.0, 0.0]], dtype=torch.float64)
    gradient = torch.tensor([[1.0, 5.0, 0.0]], dtype=torch.float64)
    step = region.step(d, gradient, 0.25 * region.radius)
    assert region.project(d + step).tolist() == [[0.0, 0.25, 0.0]]


def test_moves_keep_equalities_and_never_touch_what_is_fixed() -> None:
    moves = moves_of(Layout(credit()))
    drift = moves.vectors @ moves.weights.T
    assert bool((drift[:, moves.equal] == 0).all())
    numeric = [feature.name for feature in credit().features if feature.kind != "categorical"]
    assert bool((moves.vectors[:, numeric.index("age")] == 0).all())
    assert bool((moves.vectors[:, numeric.index("assets")] != 0).any())


BREAKS = [
    ("a fractional category", "purpose=car", 0.5),
    ("two categories", "purpose=car", 1.0),
    ("a fixed category", "sex=f", 1.0),
    ("a fixed number", "age", +1.0),
    ("half a card", "cards", -0.5),
    ("a card more", "cards", +1.0),
    ("three cards fewer", "cards", -3.0),
    ("beyond a bound", "income", -1e6),
    ("beyond a budget", "income", +501.0),
    ("beyond a share", "debt", -300.0),
    ("off the step", "savings", +5.0),
    ("a total that is none", "assets", +10.0),
    ("backwards", "school", -1.0),
    ("half a box", "phone", 0.5),
    ("not a number", "income", float("nan")),
]


@pytest.mark.parametrize(("what", "column", "change"), BREAKS, ids=[one[0] for one in BREAKS])
def test_the_checker_refuses_each_broken_constraint(what: str, column: str, change: float) -> None:  # noqa: ARG001
    schema = credit()
    layout = Layout(schema)
    start = people(schema, 1)
    for name, value in (("income", 5000.0), ("debt", 1000.0), ("cards", 5.0), ("late", 1.0), ("school", 1.0)):
        start[0, schema.number(name)] = value
    start[0, schema.number("purpose")] = 1.0
    start[0, schema.number("sex")] = 1.0
    start[0, schema.number("phone")] = 0.0
    x = layout.widen(start)
    assert bool(check_rows(schema, 1.0, x, x).ok.all())
    broken = x.clone()
    broken[0, layout.names.index(column)] += change
    assert not bool(check_rows(schema, 1.0, x, broken).ok.any())


def test_the_checker_counts_changes_and_reads_the_record() -> None:
    schema = credit(changes=1)
    layout = Layout(schema)
    x = wide(schema, 5)
    moved = x.clone()
    moved[:, layout.names.index("income")] += 10.0
    terms = {"domain_terms": {"schema": schema.plain()}, "eps_value": 1.0}
    assert bool(check(terms, x, moved).ok.all())
    torch.testing.assert_close(check(terms, x, moved).size, torch.full((5,), 10 / 500, dtype=torch.float64))
    moved[:, layout.names.index("savings")] += 10.0
    moved[:, layout.names.index("assets")] += 10.0
    assert not bool(check(terms, x, moved).ok.any())
    assert not bool(check({**terms, "eps_value": 0.01}, x, moved).ok.any())


def test_rows_that_are_no_records_are_refused() -> None:
    schema = credit()
    layout, x = Layout(schema), wide(schema, 3)
    threat = tabular_threat(schema)
    with pytest.raises(InputError, match=r"pass x\.double\(\)"):
        threat.around(x.float())
    with pytest.raises(ThreatError, match="have 16 columns"):
        threat.around(x[:, :-1])
    broken = x.clone()
    broken[1, layout.names.index("assets")] += 10
    with pytest.raises(InputError, match="row 1 of the batch is no record"):
        threat.around(broken)
    with pytest.raises(ThreatError, match="eps=None"):
        tabular_threat(schema, None)


def test_triples_are_found_where_two_relations_meet() -> None:
    features = tuple(Feature(name, "integer", 0, 9, budget="3") for name in "abcd")
    target = Target("y", ("0", "1"), "1")
    schema = Schema(features, target, read_relations(["a = b + c", "d = a + b"]))
    layout = Layout(schema)
    start = torch.tensor([[5.0, 2.0, 3.0, 7.0]], dtype=torch.float64)
    x = layout.widen(start)
    gradient = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    assert optimum(schema, start[0], gradient[0], 1.0) == pytest.approx(2.0)
    assert float((gradient * region_of(schema, x).steepest(gradient)).sum()) == pytest.approx(2.0)
