"""All records cheaper than a flip, one by one, where every feature is discrete and there are few of them."""

import torch
from torch import Tensor

from signstep.domains.tabular.incumbents import Best
from signstep.domains.tabular.neighbours import prices
from signstep.domains.tabular.reach import Set

_HELD = 2**16  # records of a row held at once, before relations are looked at
_WAVE = 256


def ask_all(best: Best, most: int) -> Tensor:
    """Ask for all allowed records that are cheaper than the best flip of their row, cheapest first.

    Args:
        best: what is known; it learns.
        most: rows with more such records, or with a continuous feature that may change, are left alone.

    Returns:
        (R,) bool: whether no cheaper flip than the row's exists.
    """
    allowed = best.allowed
    done = torch.zeros(len(best.cost), dtype=torch.bool, device="cpu")
    for row in range(len(done) if most else 0):
        found = _cheaper(
            allowed.take(torch.tensor([row], dtype=torch.int64, device="cpu")), float(best.cost[row]), most
        )
        if found is None:
            continue
        records, cost = found
        owner = torch.full((len(cost),), row, dtype=torch.int64, device="cpu")
        for part in torch.split(torch.arange(len(cost), dtype=torch.int64, device="cpu"), _WAVE):
            if len(part) == 0 or float(cost[part[0]]) >= float(best.cost[row]):
                break
            best.ask(records[part], cost[part], owner[part])
        done[row] = True
    return done


def _cheaper(here: Set, limit: float, most: int) -> tuple[Tensor, Tensor] | None:
    """The other records (P, F) of one row that cost less than ``limit``, and their costs (P,), sorted; None if many."""
    layout, price, start = here.layout, prices(here), here.start[0]
    options: list[tuple[int, Tensor, Tensor]] = []  # feature, its values, their costs
    for place, number in enumerate(layout.numeric.tolist()):
        low, high = float(here.low[0, place]), float(here.high[0, place])
        step = layout.schema.features[number].step
        if high <= low:
            continue
        if step == 0 or (high - low) / step > _HELD:
            return None
        down, up = round((float(start[number]) - low) / step), round((high - float(start[number])) / step)
        away = torch.arange(-down, up + 1, dtype=torch.float64, device="cpu") * step
        options.append((number, start[number] + away, away.abs() * price[number]))
    for column, (number, _, width) in enumerate(layout.groups):
        if bool(here.open_groups[0, column]):
            levels = torch.arange(width, dtype=torch.float64, device="cpu")
            options.append((number, levels, (levels != start[number]).double() * price[number]))
    records, cost = start.unsqueeze(0), torch.zeros(1, dtype=torch.float64, device="cpu")
    for number, every, prices_ in options:
        values, extra = every[prices_ < limit], prices_[prices_ < limit]
        if len(cost) * len(values) > 16 * _HELD:
            return None
        total = cost.unsqueeze(1) + extra
        which, value = (total < limit).nonzero().unbind(1)
        if len(which) > _HELD:
            return None
        records, cost = records[which].clone(), total[which, value]
        records[:, number] = values[value]
    kept = here.holds(records[:, layout.numeric]) & (cost > 0) if len(records) else cost > 0
    order = cost[kept].argsort(stable=True)
    return None if len(order) > most else (records[kept][order], cost[kept][order])
