"""Small tables, models of every kind that a table meets, and searches that need no code of the library."""

import importlib
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import torch
from small_credit import credit, people
from torch import Tensor, nn

from signstep.domains.tabular import Feature, Layout, Schema, TabularNet, Target
from signstep.domains.tabular.check import check_rows
from signstep.domains.tabular.forms import estimator_model
from signstep.model.declaration import Callee

TARGET = Target("y", ("no", "yes"), "yes")


def numbers(count: int = 8) -> Schema:
    """Continuous features with unlike costs, bounds close enough to be met; one rises only, one cannot change."""
    change = {1: "up", 2: "none"}
    return Schema(
        tuple(
            Feature(
                f"c{place}",
                "continuous",
                -30.0,
                40.0,
                centre=2.0,
                spread=10.0,
                cost=0.05 + 0.03 * place,
                change=change.get(place, "both"),  # type: ignore[arg-type]
            )
            for place in range(count)
        ),
        TARGET,
    )


def tiny() -> Schema:
    """Five discrete features with few values and unlike costs: 4 * 4 * 3 * 2 * 5 records."""
    return Schema(
        (
            Feature("a", "integer", 0, 3, centre=1, spread=1, cost=0.7),
            Feature("b", "categorical", levels=("p", "q", "r", "s"), cost=1.1),
            Feature("c", "ordinal", levels=("low", "middle", "high"), cost=0.9, centre=1, spread=1),
            Feature("d", "binary", levels=("no", "yes"), cost=1.6),
            Feature("e", "integer", 0, 8, step=2, centre=4, spread=2, cost=0.31, change="up"),
        ),
        TARGET,
    )


def table(schema: Schema, count: int, seed: int = 0) -> Tensor:
    """Decoded records (count, F) of a schema without relations, over the middle of each range."""
    draw = torch.Generator().manual_seed(seed)
    columns = []
    for feature in schema.features:
        share = torch.rand(count, generator=draw, dtype=torch.float64)
        steps = (feature.high - feature.low) / (feature.step or 1.0)
        if feature.step:
            columns.append(feature.low + torch.floor(share * (steps + 1)).clamp_max(steps) * feature.step)
        else:
            columns.append(feature.low + (0.2 + 0.6 * share) * (feature.high - feature.low))
    return torch.stack(columns, 1)


def answers(decoded: Tensor) -> Tensor:
    """A rule with products, which no line separates, balanced: what models are fitted to (R,) int64."""
    z = (decoded - decoded.mean(0)) / decoded.std(0).clamp_min(1e-9)
    score = z[:, 0] * z[:, 3] + z[:, 1] - 0.7 * z[:, 4].square() + 0.5 * z[:, 3:].sum(1)
    return (score > score.median()).long()


def relu_net(schema: Schema, seed: int = 0, sizes: tuple[int, ...] = (12, 6, 3), size: float = 1.0) -> TabularNet:
    """Random weights, so that decisions have islands; balanced on a table of the schema."""
    return _net(schema, nn.ReLU, seed, sizes, size)


def tanh_net(schema: Schema, seed: int = 0) -> TabularNet:
    """Smooth, so that it cannot be read."""
    return _net(schema, nn.Tanh, seed, (8,), 1.0)


def flat_net(schema: Schema, seed: int = 0) -> TabularNet:
    """Its gradient is zero everywhere: scores come in steps."""

    class Steps(nn.Module):
        def forward(self, scores: Tensor) -> Tensor:
            return (scores * 4).round() / 4 + 0 * scores

    inner = relu_net(schema, seed)
    return TabularNet(nn.Sequential(inner.net, Steps()), schema).eval()


def linear_net(schema: Schema, seed: int = 0) -> TabularNet:
    """Logistic regression."""
    return _net(schema, nn.ReLU, seed, (), 1.0)


def _net(schema: Schema, kind: type[nn.Module], seed: int, sizes: tuple[int, ...], size: float) -> TabularNet:
    draw = torch.Generator().manual_seed(seed)
    widths = [Layout(schema).width, *sizes, 2]
    layers: list[Any] = []
    for one, two in pairwise(widths):
        layers += [nn.Linear(one, two), kind()]
    net = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for weight in net.parameters():
            scale = size * (2.0 / weight.shape[1]) ** 0.5 if weight.ndim == 2 else 0.3
            weight.copy_(torch.randn(weight.shape, generator=draw) * scale)
        model = TabularNet(net, schema).eval()
        scores = model(Layout(schema).widen(records(schema, 400, seed=9)))
        ahead = scores[:, 1] - scores[:, 0]
        # Not the median itself: where units are dead many rows share it, and would be decided by rounding.
        layers[-2].bias[1] -= ahead.median() + 0.05 * ahead.std()
    return model


def records(schema: Schema, count: int, seed: int = 0) -> Tensor:
    """Decoded records of a schema of this file or of `small_credit`."""
    return people(schema, count, seed) if schema.relations else table(schema, count, seed)


def fitted(kind: str, schema: Schema, seed: int = 0) -> Callee:
    """A fitted scikit-learn classifier as a model of wide rows."""
    module, _, name = kind.rpartition(".")
    options: dict[str, Any] = {"RandomForestClassifier": {"n_estimators": 5}}.get(name, {})
    options |= {"GradientBoostingClassifier": {"n_estimators": 15}}.get(name, {})
    options |= {"HistGradientBoostingClassifier": {"max_iter": 12, "min_samples_leaf": 5}}.get(name, {})
    made = getattr(importlib.import_module(f"sklearn.{module.removeprefix('scaled:')}"), name)(**options)
    if hasattr(made, "random_state"):
        made.random_state = seed
    if kind.startswith("scaled:"):
        pipeline, scaling = (
            importlib.import_module("sklearn.pipeline"),
            importlib.import_module("sklearn.preprocessing"),
        )
        made = pipeline.make_pipeline(scaling.StandardScaler(), made)
    layout, decoded = Layout(schema), records(schema, 300, seed=11)
    made.fit(layout.standardise(layout.widen(decoded)).numpy(), [TARGET.classes[v] for v in answers(decoded)])
    return estimator_model(made, schema)


def labels_alone(schema: Schema, seed: int = 0) -> Callee:
    """A function that says the class and nothing else."""
    inner = relu_net(schema, seed)
    return lambda wide: inner(wide).argmax(1)


NETS: dict[str, Callable[[Schema], Callee]] = {
    "relu": relu_net,
    "relu, islands": lambda schema: relu_net(schema, 3, (20, 10), 2.5),
    "tanh": tanh_net,
    "linear": linear_net,
    "flat": flat_net,
    "labels": labels_alone,
}
TREES = (
    "tree.DecisionTreeClassifier",
    "ensemble.RandomForestClassifier",
    "ensemble.GradientBoostingClassifier",
    "ensemble.HistGradientBoostingClassifier",
    "scaled:ensemble.RandomForestClassifier",
)
READ = ("relu", "relu, islands", "linear", *TREES[:4])


def model_of(kind: str, schema: Schema) -> Callee:
    return NETS[kind](schema) if kind in NETS else fitted(kind, schema)


SCHEMAS: dict[str, Callable[[], Schema]] = {"credit": credit, "numbers": numbers, "tiny": tiny}


def granted(model: Callee, schema: Schema, decoded: Tensor) -> Tensor:
    """The decision for each record (R,) bool."""
    with torch.no_grad():
        said: Tensor = model(Layout(schema).widen(decoded))
    return (said if said.ndim == 1 else said.argmax(1)).eq(TARGET.classes.index("yes"))


def allowed(schema: Schema, before: Tensor, after: Tensor) -> Tensor:
    """What the independent checker says of decoded records, whatever the size of the change (R,) bool."""
    layout = Layout(schema)
    found: Tensor = check_rows(schema, 1e12, layout.widen(before), layout.widen(after)).ok
    return found


def price(schema: Schema, before: Tensor, after: Tensor) -> Tensor:
    """What changes of decoded records cost (R,)."""
    change = (after - before).abs()
    for number, feature in enumerate(schema.features):
        if feature.kind == "categorical":
            change[:, number] = (change[:, number] != 0).double()
    return change @ torch.tensor([feature.price for feature in schema.features], dtype=torch.float64)


def scan(model: Callee, schema: Schema, record: Tensor, grid: int = 400) -> float:
    """The cheapest flip of a record (F,) that changes one feature: every discrete value, others on a fine grid."""
    tried = []
    for number, feature in enumerate(schema.features):
        if feature.step:
            values = torch.arange(feature.low, feature.high + feature.step / 2, feature.step, dtype=torch.float64)
        else:
            values = torch.linspace(feature.low, feature.high, grid, dtype=torch.float64)
        rows = record.repeat(len(values), 1)
        rows[:, number] = values
        tried.append(rows)
    return _cheapest(model, schema, record, torch.cat(tried))


def every(model: Callee, schema: Schema, record: Tensor) -> float:
    """The cheapest flip of a record of a discrete schema, of all its records."""
    ranges = [torch.arange(f.low, f.high + f.step / 2, f.step).tolist() for f in schema.features]
    return _cheapest(model, schema, record, torch.tensor(list(product(*ranges)), dtype=torch.float64))


def _cheapest(model: Callee, schema: Schema, record: Tensor, tried: Tensor) -> float:
    before = record.expand_as(tried)
    fits = allowed(schema, before, tried)
    tried, before = tried[fits], before[fits]
    flips = granted(model, schema, tried) != granted(model, schema, record[None])
    return float(price(schema, before, tried)[flips].min()) if bool(flips.any()) else float("inf")
