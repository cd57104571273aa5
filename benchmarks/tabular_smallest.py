"""The smallest change beside an exhaustive scan of single features, on small networks that were trained.

The scan is written here and shares no code with the search: every value of a feature that has at most 2,000, else so
many evenly apart, each put to the model. Networks 20-18-9-3-2 on a synthetic table of 20 features (counts, boxes,
amounts) at three learning rates: the higher, the more units die, and the more gradients are zero. Then a random forest,
which has none; with --credit also the tables of ../shared.
"""

import argparse
import importlib
import itertools
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from harness import machine, need_shared, table
from signstep.domains.tabular import (
    Decider,
    Effort,
    Feature,
    Layout,
    Schema,
    TabularNet,
    Target,
    cheapest_flips,
    moves_of,
    read_schema,
)
from signstep.domains.tabular.cells import read_cells
from signstep.domains.tabular.forms import estimator_model
from signstep.domains.tabular.records import read_records
from signstep.model.declaration import Callee

ROOT = Path(__file__).resolve().parents[1]
GRID = 2000
CREDIT = (("german", "german_credit_named.csv"), ("taiwan", "taiwan_credit.csv.gz"))


def synthetic(rows: int) -> tuple[Schema, Tensor, Tensor]:
    """A table of 20 features, and a rule with products that a line cannot follow."""
    x = torch.randn(rows, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features, columns = [], []
    for number in range(20):
        if number % 4 == 3:
            features.append(Feature(f"count {number}", "integer", 0, 20, centre=10, spread=3))
            columns.append((x[:, number] * 3 + 10).round().clamp(0, 20))
        elif number % 10 == 8:
            features.append(Feature(f"box {number}", "binary", levels=("no", "yes"), centre=0.5, spread=0.5))
            columns.append((x[:, number] > 0).double())
        else:
            features.append(Feature(f"amount {number}", "continuous", 0, 200, centre=100, spread=20))
            columns.append((x[:, number] * 20 + 100).clamp(0, 200))
    score = x[:, 0] * x[:, 1] + torch.sin(2 * x[:, 2]) + x[:, 3] - 0.5 * x[:, 4].square() + 0.5 * x[:, 5:9].sum(1)
    return Schema(tuple(features), Target("y", ("no", "yes"), "yes")), torch.stack(columns, 1), (score > -0.3).long()


def trained(schema: Schema, decoded: Tensor, y: Tensor, rate: float, seed: int = 0) -> TabularNet:
    """A network F-18-9-3-2 after 400 steps of Adam on all rows."""
    torch.manual_seed(seed)
    layout = Layout(schema)
    widths = [layout.width, 18, 9, 3]
    layers: list[nn.Module] = []
    for one, two in itertools.pairwise(widths):
        layers += [nn.Linear(one, two), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(widths[-1], 2))
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    rows = layout.standardise(layout.widen(decoded)).float()
    for _ in range(400):
        optimiser.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(net(rows), y))
        optimiser.step()
    return TabularNet(net, schema).eval()


def forest(schema: Schema, decoded: Tensor, y: Tensor) -> Callee:
    """Twenty trees of scikit-learn."""
    made = importlib.import_module("sklearn.ensemble").RandomForestClassifier(20, random_state=0)
    layout = Layout(schema)
    made.fit(layout.standardise(layout.widen(decoded)).numpy(), [schema.target.classes[label] for label in y.tolist()])
    return estimator_model(made, schema)


@torch.no_grad()
def scan(model: Callee, schema: Schema, decoded: Tensor) -> Tensor:
    """The lowest cost at which one feature alone flips each record (R,), inf where none does."""
    layout, good = Layout(schema), schema.target.good
    best = []
    for record in decoded:
        tried, costs = [], []
        for number, feature in enumerate(schema.features):
            if feature.change == "none":
                continue
            count = 1 + round((feature.high - feature.low) / feature.step) if feature.step else GRID
            values = torch.linspace(feature.low, feature.high, min(count, GRID), dtype=torch.float64)
            if feature.step:
                values = (values / feature.step).round() * feature.step
            if feature.change != "both":
                values = values[(values >= record[number]) if feature.change == "up" else (values <= record[number])]
            rows = record.repeat(len(values), 1)
            rows[:, number] = values
            change = (values - record[number]).abs()
            tried.append(rows)
            costs.append(
                (change > 0).double() * feature.price if feature.kind == "categorical" else change * feature.price
            )
        rows, cost = torch.cat(tried), torch.cat(costs)
        for relation in schema.relations:
            total = sum(weight * rows[:, schema.number(name)] for name, weight in relation.weights)
            assert isinstance(total, Tensor)
            over = total - relation.bound
            cost[(over.abs() if relation.equal else over) > 1e-7] = torch.inf
        said = torch.cat([model(layout.widen(part)).argmax(1) == good for part in torch.split(rows, 20_000)])
        before = bool(model(layout.widen(record[None])).argmax(1) == good)
        best.append(cost[said != before].min() if bool((said != before).any()) else torch.tensor(torch.inf))
    return torch.stack(best).double()


def dead(model: Callee, schema: Schema, decoded: Tensor) -> int:
    """How many records have no gradient at all."""
    if not isinstance(model, TabularNet):
        return len(decoded)
    return int((Decider(model, Layout(schema)).slope(decoded) == 0).all(1).sum())


def compared(name: str, model: Callee, schema: Schema, decoded: Tensor) -> list[str]:
    """One row of the table: the search beside the scan."""
    layout = Layout(schema)
    decider = Decider(model, layout)
    began = time.perf_counter()
    found = cheapest_flips(decider, moves_of(layout), decoded, Effort(gradients=isinstance(model, TabularNet)))
    seconds = time.perf_counter() - began
    scanned = scan(model, schema, decoded)
    both = torch.isfinite(scanned) & found.found
    return [
        name,
        str(len(decoded)),
        str(dead(model, schema, decoded)),
        f"{int(found.found.sum())} / {int(torch.isfinite(scanned).sum())}",
        f"{float(found.cost[both].mean()):.3f}",
        f"{float(scanned[both].mean()):.3f}",
        str(int((scanned < found.cost * (1 - 1e-4)).sum())),
        str(int(getattr(found, "alone", torch.zeros(0)).sum())),
        f"{decider.forwards / len(decoded):.0f}",
        f"{1000 * seconds / len(decoded):.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=60)
    parser.add_argument("--credit", action="store_true", help="the tables of ../shared as well")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    schema, decoded, y = synthetic(600)
    rows = []
    for rate in (0.01, 0.05, 0.1):
        model = trained(schema, decoded, y, rate)
        rows.append(compared(f"20-18-9-3-2, rate {rate:g}", model, schema, decoded[: chosen.records]))
    rows.append(compared("forest of 20 trees", forest(schema, decoded, y), schema, decoded[: chosen.records]))
    for name, file in CREDIT if chosen.credit else ():
        schema = read_schema(ROOT / "examples" / "credit" / f"{name}.toml")
        records = read_records(read_cells(need_shared("data", "tabular", file)), schema, skip_bad=True)
        assert records.labels is not None
        decoded, y = torch.from_numpy(records.values)[:2000], torch.from_numpy(records.labels)[:2000]
        model = trained(schema, decoded, y, 0.01, seed=1)
        rows.append(compared(f"{name} credit, rate 0.01", model, schema, decoded[: chosen.records]))
    head = ["model", "records", "no gradient", "found / by the scan", "mean cost", "of the scan", "scan wins"]
    print(table([*head, "each feature in full", "questions each", "ms each"], rows))


if __name__ == "__main__":
    main()
