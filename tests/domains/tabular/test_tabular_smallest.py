from pathlib import Path

import pytest
import torch
from exact_flip import costs
from small_credit import credit, network, people
from torch import nn

from signstep.domains.tabular import Decider, Effort, Layout, TabularNet, cheapest_flips, moves_of
from signstep.domains.tabular.neighbours import cost_of
from signstep.domains.tabular.reach import Set
from signstep.domains.tabular.schema import Schema

COUNT = 25


def logistic(schema: Schema) -> TabularNet:
    draw = torch.Generator().manual_seed(2)
    layer = nn.Linear(Layout(schema).width, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw) * 0.6)
        layer.bias.copy_(torch.tensor([0.2, -0.2]))
    return TabularNet(nn.Sequential(layer), schema).eval()


@pytest.mark.parametrize("gradients", [True, False], ids=["gradients", "queries"])
@pytest.mark.parametrize("kind", ["logistic", "relu"])
def test_the_cheapest_flip_is_within_five_per_cent_of_the_optimum(kind: str, gradients: bool) -> None:
    schema = credit()
    layout, decoded = Layout(schema), people(schema, COUNT, seed=8)
    model = logistic(schema) if kind == "logistic" else network(schema, hidden=5, seed=2)
    found = cheapest_flips(Decider(model, layout), moves_of(layout), decoded, Effort(gradients=gradients))
    exact = costs(model.net, layout, decoded, found.granted)
    assert [cost is not None for cost in exact] == found.found.tolist()
    ratios = torch.tensor(
        [float(ours) / best for ours, best in zip(found.cost, exact, strict=True) if best is not None and best > 0]
    )
    assert len(ratios) > COUNT // 2
    assert float(ratios.min()) > 1 - 1e-4  # nobody beats the optimum
    assert float(ratios.median()) < 1.05


def test_flips_are_real_allowed_and_cost_what_is_said() -> None:
    schema = credit()
    layout, decoded, model = Layout(schema), people(schema, 40, seed=1), network(schema, seed=5)
    found = cheapest_flips(Decider(model, layout), moves_of(layout), decoded)
    before, after = (model(layout.widen(part)).argmax(1) for part in (decoded, found.records))
    assert torch.equal(before != after, found.found)
    assert int(found.found.sum()) > 20
    allowed = Set.around(layout, moves_of(layout), decoded, None)
    assert bool(allowed.holds(found.records[:, layout.numeric]).all())
    assert torch.equal(found.records[:, schema.number("age")], decoded[:, schema.number("age")])
    assert bool((found.records[:, schema.number("cards")] <= decoded[:, schema.number("cards")]).all())
    assert bool((found.records[:, schema.number("school")] >= decoded[:, schema.number("school")]).all())
    assert torch.equal(found.records[:, schema.number("cards")], found.records[:, schema.number("cards")].round())
    cost = cost_of(allowed, found.records, decoded)
    torch.testing.assert_close(cost[found.found], found.cost[found.found])
    assert bool(torch.isinf(found.cost[~found.found]).all())


def test_fixing_a_feature_can_only_make_a_flip_dearer() -> None:
    schema = credit()
    plain = schema.plain()
    for part in plain["features"]:
        part["change"] = "none" if part["name"] in ("income", "debt") else part["change"]
    fixed = Schema.of(plain)
    layout, decoded, model = Layout(schema), people(schema, 30, seed=1), network(schema, seed=5)
    free = cheapest_flips(Decider(model, layout), moves_of(layout), decoded)
    held = cheapest_flips(Decider(model, Layout(fixed)), moves_of(Layout(fixed)), decoded)
    moved = (held.records != decoded)[:, [schema.number("income"), schema.number("debt")]]
    assert not bool(moved.any())
    assert float((held.cost >= free.cost * 0.99).double().mean()) > 0.9


def test_every_question_is_counted() -> None:
    schema = credit()
    layout = Layout(schema)
    model = network(schema)
    asked = []
    model.register_forward_hook(lambda *call: asked.append(len(call[1][0])))
    decider = Decider(model, layout)
    found = cheapest_flips(decider, moves_of(layout), people(schema, 10))
    assert sum(asked) == found.forwards == decider.forwards
    assert 0 < found.backwards < found.forwards


def test_on_real_records_of_german_credit() -> None:
    folder = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "tabular"
    table = folder / "german_credit_named.csv"
    if not table.is_file():
        pytest.skip(f"no {table}")
    from signstep.domains.tabular import read_schema
    from signstep.domains.tabular.cells import read_cells
    from signstep.domains.tabular.records import read_records

    schema = read_schema(Path(__file__).resolve().parents[3] / "examples" / "credit" / "german.toml")
    records = read_records(read_cells(table), schema)
    assert len(records) == 1000
    layout, decoded = Layout(schema), torch.from_numpy(records.values[:COUNT])
    model = logistic(schema)
    found = cheapest_flips(Decider(model, layout), moves_of(layout), decoded)
    exact = costs(model.net, layout, decoded, found.granted)
    ratios = torch.tensor([float(a) / b for a, b in zip(found.cost, exact, strict=True) if b])
    assert len(ratios) > COUNT // 2
    assert float(ratios.median()) < 1.05
