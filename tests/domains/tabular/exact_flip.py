"""The cheapest flip of a small network as a mixed-integer program: the exact optimum, by other people's code."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from signstep.domains.tabular.encode import Layout

Array = NDArray[np.float64]
_BEYOND = 1e-6  # how far the lead must be beyond zero


def exact_cost(net: nn.Module, layout: Layout, record: Array, *, granted: bool) -> float | None:
    """The lowest cost at which a network of linear layers and ReLUs, on standardised rows, decides otherwise.

    Variables: the wide row, the rise and the fall of each number, and for each hidden unit its value and whether it is
    on (big-M from interval bounds). None where no allowed record flips.
    """
    program = _Program()
    wide = layout.widen(torch.from_numpy(record)[None])[0].numpy()
    row: list[int] = []
    centre, spread = (part.numpy() for part in layout.scale)
    for number, (feature, start) in enumerate(zip(layout.schema.features, layout.starts, strict=True)):
        if feature.kind == "categorical":
            fixed = feature.change == "none"
            here = []
            for level in range(feature.width):
                stays = wide[start + level]
                low, high = (stays, stays) if fixed else (0.0, 1.0)
                cost = -feature.price if stays == 1 else 0.0
                here.append(program.variable(low, high, whole=True, cost=cost))
            program.equal([(one, 1.0) for one in here], 1.0)
            program.constant += feature.price
            row += here
            continue
        value = float(record[number])
        up = feature.high - value if feature.change in ("both", "up") else 0.0
        down = value - feature.low if feature.change in ("both", "down") else 0.0
        size = feature.step or 1.0
        whole = feature.step > 0
        rise = program.variable(0, up / size, whole=whole, cost=feature.price * size)
        fall = program.variable(0, down / size, whole=whole, cost=feature.price * size)
        here_ = program.variable(-np.inf, np.inf)
        program.equal([(here_, 1.0), (rise, -size), (fall, size)], value)
        row.append(here_)
    for relation in layout.schema.relations:
        terms = [(row[layout.starts[layout.schema.number(name)]], weight) for name, weight in relation.weights]
        (program.equal if relation.equal else program.below)(terms, relation.bound)
    low = np.array([0.0 if f.kind == "categorical" else f.low for f in layout.schema.features for _ in range(f.width)])
    high = np.array(
        [1.0 if f.kind == "categorical" else f.high for f in layout.schema.features for _ in range(f.width)]
    )
    layers = list(net)  # type: ignore[call-overload]
    units, ends = row, ((low - centre) / spread, (high - centre) / spread)
    first = True
    for position, layer in enumerate(layers):
        if not isinstance(layer, nn.Linear):
            continue
        weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
        least = bias + np.minimum(weight * ends[0], weight * ends[1]).sum(1)
        most = bias + np.maximum(weight * ends[0], weight * ends[1]).sum(1)
        if first:
            bias, weight = bias - weight @ (centre / spread), weight / spread
        first = False
        last = not any(isinstance(later, nn.Linear) for later in layers[position + 1 :])
        units = [
            program.neuron(units, weight[unit], bias[unit], least[unit], most[unit], linear=last)
            for unit in range(len(bias))
        ]
        ends = (least, most) if last else (np.maximum(least, 0), np.maximum(most, 0))
    good = layout.schema.target.good
    other = 1 - good
    winner, loser = (other, good) if granted else (good, other)
    program.below([(units[loser], 1.0), (units[winner], -1.0)], -_BEYOND)
    return program.solve()


class _Program:
    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []
        self.whole: list[int] = []
        self.cost: list[float] = []
        self.rows: list[tuple[list[tuple[int, float]], float, float]] = []
        self.constant = 0.0

    def variable(self, low: float, high: float, *, whole: bool = False, cost: float = 0.0) -> int:
        self.ends.append((low, max(low, high)))
        self.whole.append(int(whole))
        self.cost.append(cost)
        return len(self.ends) - 1

    def equal(self, terms: list[tuple[int, float]], value: float) -> None:
        self.rows.append((terms, value, value))

    def below(self, terms: list[tuple[int, float]], value: float) -> None:
        self.rows.append((terms, -np.inf, value))

    def neuron(self, units: list[int], weight: Array, bias: float, least: float, most: float, *, linear: bool) -> int:
        sum_ = [(unit, float(one)) for unit, one in zip(units, weight, strict=True)]
        if linear:
            out = self.variable(-np.inf, np.inf)
            self.equal([*sum_, (out, -1.0)], -bias)
            return out
        out = self.variable(0.0, max(0.0, most))
        if most <= 0:
            return out
        on = self.variable(1.0 if least >= 0 else 0.0, 1.0, whole=True)
        self.below([*sum_, (out, -1.0)], -bias)  # out >= sum
        self.below([(out, 1.0), *((unit, -one) for unit, one in sum_), (on, -least)], bias - least)
        self.below([(out, 1.0), (on, -most)], 0.0)
        return out

    def solve(self) -> float | None:
        matrix = np.zeros((len(self.rows), len(self.ends)))
        for number, (terms, _, _) in enumerate(self.rows):
            for place, weight in terms:
                matrix[number, place] += weight
        low, high = np.array([row[1] for row in self.rows]), np.array([row[2] for row in self.rows])
        found: Any = milp(
            np.array(self.cost),
            integrality=np.array(self.whole),
            bounds=Bounds(np.array([end[0] for end in self.ends]), np.array([end[1] for end in self.ends])),
            constraints=LinearConstraint(matrix, low, high),
            options={"time_limit": 20, "mip_rel_gap": 1e-6},
        )
        return None if found.x is None or found.status != 0 else float(found.fun + self.constant)


def costs(net: nn.Module, layout: Layout, records: Tensor, granted: Tensor) -> list[float | None]:
    """`exact_cost` of each record."""
    return [
        exact_cost(net, layout, record.numpy(), granted=bool(was)) for record, was in zip(records, granted, strict=True)
    ]
