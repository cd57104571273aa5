"""Laws of the cheapest flip, over models of every kind: never dearer than a scan, real, allowed, and a row's own."""

import pytest
import torch
from exact_flip import costs
from small_credit import credit
from small_models import (
    NETS,
    READ,
    SCHEMAS,
    TREES,
    allowed,
    every,
    granted,
    linear_net,
    model_of,
    numbers,
    price,
    relu_net,
    scan,
    tiny,
)
from small_models import records as people

from signstep.domains.tabular import Cheapest, Decider, Effort, Layout, Schema, cheapest_flips, moves_of
from signstep.domains.tabular.directions import Moves
from signstep.errors import VictimError

COUNT = 3
KINDS = (*NETS, *TREES)
# Every kind on one table of each sort; a network and an ensemble on all.
PAIRS = [(name, kind) for kind in NETS for name in ("credit", "numbers")] + [("numbers", kind) for kind in TREES]
PAIRS += [("tiny", "relu"), ("tiny", "labels"), ("credit", "ensemble.GradientBoostingClassifier")]
FEW = ("relu", "tanh", "flat", "labels", "ensemble.GradientBoostingClassifier")


def flips(kind: str, schema: Schema, decoded: torch.Tensor, **effort: object) -> Cheapest:
    if kind in TREES:
        pytest.importorskip("sklearn")
    layout = Layout(schema)
    gradients = kind in NETS and kind != "labels"
    decider = Decider(model_of(kind, schema), layout)
    return cheapest_flips(decider, moves_of(layout), decoded, Effort(gradients=gradients, **effort))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_flip_is_real_allowed_and_never_dearer_than_a_scan_of_single_features(name: str, kind: str) -> None:
    schema = SCHEMAS[name]()
    decoded = people(schema, COUNT, seed=4)
    found = flips(kind, schema, decoded)
    model = model_of(kind, schema)
    assert torch.equal(granted(model, schema, decoded) != granted(model, schema, found.records), found.found)
    assert bool(allowed(schema, decoded, found.records).all())
    torch.testing.assert_close(price(schema, decoded, found.records)[found.found], found.cost[found.found])
    scanned = [scan(model, schema, record) for record in decoded]
    assert all(ours <= one * (1 + 1e-4) for ours, one in zip(found.cost.tolist(), scanned, strict=True))
    if kind in READ or all(feature.step for feature in schema.features):
        assert bool(found.alone.all())
    elif kind in ("tanh", "flat", "labels") and name == "numbers":
        assert not bool(found.alone.any())  # a grid leaves values out, and that is said


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_small_discrete_table_it_is_the_optimum(kind: str) -> None:
    schema = tiny()
    decoded = people(schema, 8, seed=2)
    found = flips(kind, schema, decoded)
    best = [every(model_of(kind, schema), schema, record) for record in decoded]
    assert found.cost.tolist() == pytest.approx(best)
    assert bool(found.whole.all())
    assert bool(found.alone.all())
    # Without all combinations too, nearly always; what is not shown to be the least is not called so.
    partly = flips(kind, schema, decoded, combinations=0)
    assert not bool(partly.whole.any())
    ratios = partly.cost / found.cost
    assert float(ratios[found.found].max()) < 1.35


@pytest.mark.parametrize("cut", ["no grad", "detach"])
def test_a_model_without_gradients_is_searched_by_asking(cut: str) -> None:
    """Nobody has to say that there are none: the slope is zero, and a slope of zero ranks nothing."""
    schema = tiny()
    decoded, net = people(schema, 4, seed=2), model_of("relu", schema)
    model = torch.no_grad()(net) if cut == "no grad" else lambda wide: net(wide.detach())
    decider = Decider(model, Layout(schema))
    assert not bool(decider.slope(decoded).any())
    found = cheapest_flips(decider, moves_of(decider.layout), decoded, Effort())
    assert torch.equal(found.cost, flips("relu", schema, decoded).cost)


@pytest.mark.parametrize("gradients", [True, False], ids=["gradients", "queries"])
def test_of_a_linear_model_it_is_the_closed_form(gradients: bool) -> None:
    """Costs are linear: features in the order of their gain for the price, each to its end, until the sum flips."""
    schema = numbers()
    decoded, model, layout = people(schema, 20, seed=3), linear_net(schema, seed=4), Layout(schema)
    found = cheapest_flips(Decider(model, layout), moves_of(layout), decoded, Effort(gradients=gradients))
    with torch.no_grad():
        both = next(model.net.parameters())
        weight = (both[1] - both[0]).double() / layout.scale[1]
        scores = model(layout.widen(decoded)).double()
    for row, record in enumerate(decoded):
        lead = float(scores[row, 1] - scores[row, 0])
        left, cost, options = abs(lead), 0.0, []
        for number, feature in enumerate(schema.features):
            towards = -1.0 if (lead > 0) == (float(weight[number]) > 0) else 1.0
            if feature.change == "none" or (feature.change == "up" and towards < 0):
                continue
            room = feature.high - float(record[number]) if towards > 0 else float(record[number]) - feature.low
            options.append((float(weight[number].abs()) / feature.price, room * feature.price))
        for rate, room in sorted(options, reverse=True):
            spent = min(room, left / rate)
            cost, left = cost + spent, left - spent * rate
        assert (left < 1e-9) == bool(found.found[row])
        if found.found[row]:
            assert float(found.cost[row]) == pytest.approx(cost, rel=2e-4)
            assert float(found.cost[row]) > cost * (1 - 1e-5)


@pytest.mark.parametrize("kind", ["relu", "flat", "tree.DecisionTreeClassifier"])
def test_a_row_gets_the_same_alone_and_in_any_batch(kind: str) -> None:
    """Up to the last places of float32 scores, which depend on the batch, and decide where bisecting ends."""
    schema = credit()
    decoded = people(schema, 4, seed=6)
    whole = flips(kind, schema, decoded)
    back = flips(kind, schema, decoded.flip(0))
    for row in range(4):
        others = [(back, 3 - row)] + ([(flips(kind, schema, decoded[row : row + 1]), 0)] if row == 1 else [])
        for other, place in others:
            if kind.startswith("tree"):
                assert torch.equal(other.records[place], whole.records[row])
            assert float(other.cost[place]) == pytest.approx(float(whole.cost[row]), rel=1e-4)
            assert bool(other.alone[place]) == bool(whole.alone[row])
            assert bool(other.whole[place]) == bool(whole.whole[row])


@pytest.mark.parametrize("kind", FEW)
def test_no_part_of_a_flip_can_be_left_out_or_made_a_unit_smaller(kind: str) -> None:
    schema = Schema(credit().features, credit().target)
    decoded = people(schema, COUNT, seed=5)
    found, model = flips(kind, schema, decoded), model_of(kind, schema)
    looked = 0
    for row in found.found.nonzero().squeeze(1).tolist():
        before, after = decoded[row], found.records[row]
        for number in (before != after).nonzero().squeeze(1).tolist():
            feature = schema.features[number]
            nearer = [float(before[number])]
            if feature.kind != "categorical":
                towards = float(before[number] - after[number])
                unit = feature.step or 1e-3 * abs(towards)
                if feature.step or unit * feature.price > 2e-4 * float(found.cost[row]):  # what is left to gain
                    nearer.append(float(after[number]) + (unit if towards > 0 else -unit))
            for value in nearer:
                tried = after.clone()
                tried[number] = value
                assert torch.equal(granted(model, schema, tried[None]), granted(model, schema, before[None]))
                looked += 1
    assert looked > 3


def test_on_relu_networks_it_is_near_the_optimum_of_a_solver() -> None:
    schema = credit()
    layout, ratios = Layout(schema), []
    for seed in range(2):
        model, decoded = relu_net(schema, seed, (5, 3)), people(schema, 5, seed=seed)
        found = cheapest_flips(Decider(model, layout), moves_of(layout), decoded)
        exact = costs(model.net, layout, decoded, found.granted)
        ratios += [float(ours) / one for ours, one in zip(found.cost, exact, strict=True) if one]
    assert len(ratios) >= 8
    assert min(ratios) > 1 - 1e-4
    assert max(ratios) < 1.1
    assert sum(ratio < 1.001 for ratio in ratios) > len(ratios) / 2


class _Ending:
    """Answers so many rows, then no more."""

    def __init__(self, rows: int, schema: Schema) -> None:
        self.left, self.inner = rows, relu_net(schema)

    def __call__(self, wide: torch.Tensor) -> torch.Tensor:
        self.left -= len(wide)
        if self.left < 0:
            raise VictimError("no questions are left")
        scores: torch.Tensor = self.inner(wide).detach()
        return scores


def test_no_records_are_no_error() -> None:
    schema = tiny()
    found = cheapest_flips(Decider(relu_net(schema), Layout(schema)), moves_of(Layout(schema)), people(schema, 3)[:0])
    assert (found.records.shape, found.cost.shape, found.alone.shape) == ((0, 5), (0,), (0,))


def test_a_victim_that_answers_no_more_leaves_what_was_found() -> None:
    schema = credit()
    layout, decoded = Layout(schema), people(schema, 3, seed=1)
    moves: Moves = moves_of(layout)
    done = cheapest_flips(Decider(_Ending(10**7, schema), layout), moves, decoded, Effort(gradients=False))
    assert done.ended is None
    for rows in (5, 900):
        found = cheapest_flips(Decider(_Ending(rows, schema), layout), moves, decoded, Effort(gradients=False))
        assert found.ended == "no questions are left"
        assert len(found.records) == 3
        assert bool((found.cost >= done.cost * (1 - 1e-9)).all())
        assert not bool(found.alone.any())
        real = granted(relu_net(schema), schema, decoded) != granted(relu_net(schema), schema, found.records)
        assert torch.equal(real, found.found)
