r"""Trains a small network and gradient-boosted trees on a credit table, for `signstep audit --domain tabular`.

Run ``python train.py TABLE.csv german.toml OUT``: four fifths of the rows train, every fifth goes to ``OUT/held.csv``;
the models are ``OUT/net.safetensors`` (for ``train:net``) and ``OUT/trees.joblib``. Then

    signstep audit --domain tabular --model train:net --model-arg width=37 --weights OUT/net.safetensors \
        --data OUT/held.csv --schema german.toml
"""

import csv
import sys
from pathlib import Path

import joblib
import torch
from safetensors.torch import save_file
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn

from signstep.domains.tabular import Layout, read_schema
from signstep.domains.tabular.cells import read_cells
from signstep.domains.tabular.records import read_records

HELD_OUT = 5


def net(width: int) -> nn.Module:
    """A network of two hidden layers on encoded records of this width."""
    return nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))


def main(table: str, schema_file: str, out: str) -> None:
    """Train both, and say how good they are on the rows held out."""
    torch.manual_seed(0)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    schema, cells = read_schema(schema_file), read_cells(table)
    records, layout = read_records(cells, schema), Layout(schema)
    assert records.labels is not None
    x = layout.standardise(layout.widen(torch.from_numpy(records.values)))
    y = torch.from_numpy(records.labels)
    held = torch.arange(len(x)) % HELD_OUT == 0
    model = net(layout.width)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-3)
    for _ in range(20):
        for rows in torch.split(torch.randperm(int((~held).sum())), 64):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(x[~held][rows].float()), y[~held][rows])
            torch.autograd.backward(loss)
            optimiser.step()
    trees = HistGradientBoostingClassifier(max_iter=100, random_state=0)
    trees.fit(x[~held].numpy(), [schema.target.classes[label] for label in y[~held].tolist()])
    save_file(model.state_dict(), folder / "net.safetensors")
    joblib.dump(trees, folder / "trees.joblib")
    with (folder / "held.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(cells.columns)
        rows_of = list(zip(*cells.columns.values(), strict=True))
        writer.writerows(rows_of[row] for row in held.nonzero().squeeze(1).tolist())
    right = (model(x[held].float()).argmax(1) == y[held]).double().mean()
    answers = [schema.target.classes.index(name) for name in trees.predict(x[held].numpy())]
    forest = (torch.tensor(answers) == y[held]).double().mean()
    print(f"width {layout.width}; held out: {int(held.sum())} rows, network {right:.1%}, trees {forest:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
