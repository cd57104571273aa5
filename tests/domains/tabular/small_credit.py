"""A small credit table with every kind of feature and rule, records that keep them, and a small network."""

import torch
from torch import Tensor, nn

from signstep.domains.tabular import Feature, Layout, Schema, TabularNet, Target, read_relations

RULES = ("assets = savings + shares", "debt <= 2 * income", "late <= cards")


def credit(*, changes: int = 0, rules: tuple[str, ...] = RULES) -> Schema:
    return Schema(
        (
            Feature("income", "continuous", 0, 10_000, unit="EUR", budget="500", centre=3000, spread=1500),
            Feature("debt", "continuous", 0, 20_000, unit="EUR", budget="2 %", centre=3000, spread=2000),
            Feature("age", "integer", 18, 99, change="none", centre=45, spread=15),
            Feature("cards", "integer", 0, 9, change="down", budget="2", centre=4, spread=2),
            Feature("late", "integer", 0, 9, budget="1", centre=2, spread=2),
            Feature("savings", "integer", 0, 5000, step=10, budget="200", centre=2000, spread=1000),
            Feature("shares", "integer", 0, 5000, step=10, budget="200", centre=2000, spread=1000),
            Feature("assets", "integer", 0, 10_000, step=10, budget="300", centre=4000, spread=1500),
            Feature("school", "ordinal", levels=("none", "school", "degree"), change="up", centre=1, spread=1),
            Feature("purpose", "categorical", levels=("car", "home", "tv", "trip")),
            Feature("sex", "categorical", levels=("f", "m"), change="none"),
            Feature("phone", "binary", levels=("no", "yes"), centre=0.5, spread=0.5),
        ),
        Target("granted", ("no", "yes"), "yes"),
        read_relations(rules),
        changes,
        groups=("sex", "age < 30"),
    )


def people(schema: Schema, count: int, seed: int = 0) -> Tensor:
    """Decoded records (R, F) float64 that keep every rule."""
    draw = torch.Generator().manual_seed(seed)
    columns = []
    for feature in schema.features:
        share = torch.rand(count, generator=draw, dtype=torch.float64)
        value = (
            share * len(feature.levels) if feature.named else feature.low + share * (feature.high - feature.low) * 0.6
        )
        columns.append(torch.floor(value / feature.step) * feature.step if feature.step else value)
    found = torch.stack(columns, 1)
    found[:, schema.number("age")].clamp_(min=18)
    found[:, schema.number("assets")] = found[:, schema.number("savings")] + found[:, schema.number("shares")]
    found[:, schema.number("debt")] = found[:, schema.number("income")] * torch.rand(
        count, generator=draw, dtype=torch.float64
    )
    found[:, schema.number("late")] = torch.minimum(found[:, schema.number("late")], found[:, schema.number("cards")])
    return found


def network(schema: Schema, hidden: int = 8, seed: int = 0) -> TabularNet:
    draw = torch.Generator().manual_seed(seed)
    width = Layout(schema).width
    net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.6)
    return TabularNet(net, schema).eval()


def wide(schema: Schema, count: int, seed: int = 0) -> Tensor:
    return Layout(schema).widen(people(schema, count, seed))
