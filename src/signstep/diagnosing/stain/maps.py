"""Maps of one example: where its layers changed, and where attention went before and after."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from signstep.auditing.sections import Chart, Line, Section
from signstep.diagnosing.stain.moved import Moved

# Sides of a map; larger ones are averaged down.
SIDE = 24
LAYERS = 3


def ripples(seen: Moved, row: int) -> list[Section]:
    """The change of the input and of some layers with places, of one example."""
    if not isinstance(seen.x, Tensor) or not isinstance(seen.point, Tensor) or seen.x.ndim != 4:
        return []
    placed = [name for name, part in seen.clean.outside.items() if part.ndim == 4 and min(part.shape[2:]) > 1]
    placed = [name for name in placed if name in seen.attacked.outside]
    if not placed:
        return []
    chosen = [placed[round(n * (len(placed) - 1) / max(1, min(LAYERS, len(placed)) - 1))]
              for n in range(min(LAYERS, len(placed)))]  # fmt: skip
    change = (seen.point - seen.x)[row].double().cpu().abs().mean(0)
    found = [("The change of the input", change)]
    found += [
        (f"The change in {name}", (seen.attacked.outside[name][row] - seen.clean.outside[name][row]).abs().mean(0))
        for name in dict.fromkeys(chosen)
    ]
    return [Section(title, chart=cells(title, values)) for title, values in found]


def attention(seen: Moved, row: int) -> list[Section]:
    """How much attention each token received in the last map, of one example, before and after."""
    if not seen.clean.maps or len(seen.attacked.maps) != len(seen.clean.maps):
        return []
    both = [part.maps[-1][row].mean((0, 1)) for part in (seen.clean, seen.attacked)]  # (tokens,)
    count = len(both[0])
    side = math.isqrt(count)
    names = ("Attention before the attack", "Attention after the attack")
    if side * side in (count, count - 1) and side > 1:  # with a class token in front, or without
        most = float(torch.stack(both).max())
        grids = [part[count - side * side :].reshape(side, side) for part in both]
        return [Section(name, chart=cells(name, grid, most=most)) for name, grid in zip(names, grids, strict=True)]
    lines = tuple(
        Line(word, tuple(map(float, range(count))), tuple(map(float, part)))
        for word, part in zip(("before", "after"), both, strict=True)
    )
    chart = Chart("lines", "Attention received", "Attention that each token receives, before and after", "token",
                  "share", lines)  # fmt: skip
    return [Section("Attention before and after", chart=chart)]


def cells(title: str, values: Tensor, *, most: float | None = None) -> Chart:
    """A map (H, W) as a chart."""
    shown = functional.adaptive_avg_pool2d(
        values.reshape(1, 1, *values.shape), (min(SIDE, values.shape[0]), min(SIDE, values.shape[1]))
    )[0, 0]
    shown = shown.nan_to_num(0.0, 0.0, 0.0).clamp(-1e290, 1e290)
    across = tuple(map(float, range(shown.shape[1])))
    limits = () if most is None else (("most", most),)
    return Chart("cells", title, title, "column", "row", tuple(
        Line(str(number), across, tuple(map(float, part))) for number, part in enumerate(shown)
    ), limits=limits)  # fmt: skip


def clearest(fell: Sequence[bool]) -> int:
    """The example to draw: the first that fell, or the first."""
    return next((row for row, down in enumerate(fell) if down), 0)
