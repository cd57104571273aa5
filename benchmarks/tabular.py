"""Cheapest flips beside the exact optimum, and attacks within budgets, on the German credit table of ../shared.

The optimum is that of a mixed-integer program (tests/domains/tabular/exact_flip.py, solved by scipy's HiGHS) over the
same bounds, steps, directions, relations and costs; a logistic model and small ReLU networks are small enough for it.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import signstep as ss
from harness import machine, need_shared, table
from signstep.domains.tabular import (
    CoordinateSearch,
    Decider,
    Effort,
    Layout,
    TabularNet,
    cheapest_flips,
    moves_of,
    read_schema,
    tabular_threat,
)
from signstep.domains.tabular.cells import read_cells
from signstep.domains.tabular.records import read_records

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("random-sign", "random-direction:queries=200", "fgsm", "mi-fgsm", "pgd", "pgd:restarts=5", "apgd:steps=50")


def trained(layout: Layout, x: Tensor, y: Tensor, hidden: int) -> TabularNet:
    """A logistic model (hidden 0) or a network of one hidden layer."""
    torch.manual_seed(0)
    layers = (
        [nn.Linear(layout.width, hidden), nn.ReLU(), nn.Linear(hidden, 2)] if hidden else [nn.Linear(layout.width, 2)]
    )
    net = nn.Sequential(*layers)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=1e-3)
    rows = layout.standardise(x).float()
    for _ in range(150):
        optimiser.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(net(rows), y))
        optimiser.step()
    return TabularNet(net, layout.schema).eval()


def beside_the_optimum(layout: Layout, decoded: Tensor, model: TabularNet, name: str) -> list[list[str]]:
    """Cost over the optimum's, for the search with gradients and without."""
    sys.path.insert(0, str(ROOT / "tests" / "domains" / "tabular"))
    costs = importlib.import_module("exact_flip").costs
    rows: list[list[str]] = []
    exact: list[float | None] = []
    solver = 0.0
    for gradients in (True, False):
        decider = Decider(model, layout)
        began = time.perf_counter()
        found = cheapest_flips(decider, moves_of(layout), decoded, Effort(gradients=gradients))
        seconds = time.perf_counter() - began
        if not exact:
            began = time.perf_counter()
            exact = costs(model.net, layout, decoded, found.granted)
            solver = time.perf_counter() - began
        ratios = torch.tensor([float(a) / b for a, b in zip(found.cost, exact, strict=True) if b])
        lost = sum(b is not None for b in exact) - int(found.found.sum())
        rows.append(
            [
                name,
                "gradients" if gradients else "queries",
                f"{ratios.median():.4f}",
                f"{ratios.quantile(0.9):.3f}",
                f"{ratios.max():.3f}",
                str(lost),
                f"{found.forwards / len(decoded):.0f}",
                f"{1000 * seconds / len(decoded):.0f}",
                f"{1000 * solver / len(decoded):.0f}",
            ]
        )
    return rows


def within_budgets(layout: Layout, x: Tensor, model: TabularNet) -> list[list[str]]:
    """How many decisions each attack turns at eps 1, and what it costs."""
    rows = []
    threat = tabular_threat(layout.schema)
    for recipe in (*RECIPES, CoordinateSearch(100), CoordinateSearch(500)):
        began = time.perf_counter()
        found = ss.attack(model, x, threat=threat, recipe=recipe)
        seconds = time.perf_counter() - began
        name = recipe if isinstance(recipe, str) else f"{recipe.name} ({recipe.queries})"
        passes = (found.forwards + found.backwards).double().mean()
        verified = "all" if bool(found.verified.all()) else "NO"
        rows.append([name, f"{found.fooled.double().mean():.1%}", f"{passes:.1f}", verified, f"{seconds:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--hidden", type=int, nargs="*", default=[0, 6, 12])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    file = need_shared("data", "tabular", "german_credit_named.csv")
    schema = read_schema(ROOT / "examples" / "credit" / "german.toml")
    records, layout = read_records(read_cells(file), schema), Layout(schema)
    assert records.labels is not None
    decoded, y = torch.from_numpy(records.values), torch.from_numpy(records.labels)
    x = layout.widen(decoded)
    print(machine())
    rows = []
    for hidden in chosen.hidden:
        model = trained(layout, x, y, hidden)
        name = f"ReLU, {hidden} units" if hidden else "logistic"
        rows += beside_the_optimum(layout, decoded[: chosen.records], model, name)
    print(f"\nCheapest flip of {chosen.records} applicants: cost over the exact optimum's\n")
    head = ["model", "search", "median", "90 %", "max", "lost", "asked", "ms each", "solver ms"]
    print(table(head, rows))
    print("\nTurned within the budgets (all 1,000 applicants, the model's own decisions), ReLU network of 12 units\n")
    attacked = within_budgets(layout, x, trained(layout, x, y, 12))
    print(table(["attack", "turned", "passes each", "verified", "seconds"], attacked))


if __name__ == "__main__":
    main()
