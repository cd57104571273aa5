"""The embedded example: scikit-learn's breast cancer table and a small network, trained on the spot in seconds."""

import importlib

import numpy as np
import torch
from torch import nn

from signstep.domains.tabular.cells import Cells
from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.forms import TabularNet
from signstep.domains.tabular.records import Records, read_records
from signstep.domains.tabular.schema import Feature, Schema, Target, read_relations
from signstep.engine.defaults import plain_tensor, plain_torch
from signstep.errors import MissingExtraError

_HELD_OUT = 5  # every fifth record is audited, the others train
_EPOCHS = 150
_RATE = 0.1
_DECAY = 1e-3


def example() -> tuple[Schema, Records, TabularNet]:
    """The schema, the records to audit (114 of 569) and the trained network; the same at each call.

    Each cell nucleus was measured ten ways; a record has the mean, the standard error and the mean of the three worst.
    So no mean can exceed its worst, which the schema says as ten relations.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "tabular") from error
    table = datasets.load_breast_cancer()
    values = np.asarray(table.data, dtype=np.float64)
    names = [str(name) for name in table.feature_names]
    schema = _schema(names, values)
    columns = {name: [f"{value:.10g}" for value in values[:, number]] for number, name in enumerate(names)}
    columns["diagnosis"] = [str(table.target_names[label]) for label in table.target]
    cells = Cells("breast_cancer", "row", tuple(range(len(values))), columns, {})
    records = read_records(cells, schema)
    assert records.labels is not None
    held = np.arange(len(records)) % _HELD_OUT == 0
    net = _trained(schema, records.values[~held], records.labels[~held])
    kept = Records(
        records.values[held],
        records.labels[held],
        {},
        tuple(name for name, here in zip(records.names, held, strict=True) if here),
    )
    return schema, kept, TabularNet(net, schema).eval()


def _schema(names: list[str], values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> Schema:
    features = tuple(
        Feature(
            name,
            "continuous",
            0.0,
            float(f"{1.2 * values[:, number].max():.3g}"),
            centre=float(values[:, number].mean()),
            spread=float(values[:, number].std()),
            budget="0.5 sd",
        )
        for number, name in enumerate(names)
    )
    rules = [f"'{name}' <= 'worst {name.removeprefix('mean ')}'" for name in names if name.startswith("mean ")]
    target = Target("diagnosis", ("malignant", "benign"), "benign", "called benign", "called malignant")
    return Schema(features, target, read_relations(rules), changes=5)


@plain_torch()
def _trained(schema: Schema, values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", labels: object) -> nn.Module:
    layout = Layout(schema)
    x = layout.standardise(layout.widen(torch.from_numpy(values))).float()
    y = plain_tensor(labels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = nn.Sequential(nn.Linear(layout.width, 16), nn.ReLU(), nn.Linear(16, 2))
    # Gradient descent with momentum, written out: torch.optim alone takes seconds to import.
    weights = list(net.parameters())
    speed = [torch.zeros_like(weight) for weight in weights]
    for _ in range(_EPOCHS):
        loss = nn.functional.cross_entropy(net(x), y) + _DECAY * sum(weight.square().sum() for weight in weights)
        for weight, moving, slope in zip(weights, speed, torch.autograd.grad(loss, weights), strict=True):
            moving.mul_(0.9).sub_(slope, alpha=_RATE)
            weight.data.add_(moving)
    return net
