"""One example asked at several sizes of its change: what a reader turns on the page, and what a verifier asks again.

The change is one that was found and saved, made shorter or longer along its own line. So nothing more is saved: whoever
has the points has these too, and the record holds what the model said to them. Reaches nothing that attacks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from signstep.engine.outputs import Asked
from signstep.engine.tasks import Multiclass, Task, TaskName, task_for

SHARES = (1 / 4, 1 / 2, 1.0, 2.0)
"""The sizes, as shares of eps."""

# Sizes along a line are those of the norm; of other sets they are not.
_NORMS = ("linf", "l2", "l1", "grouped")
_SAME = 1e-3  # relative: a change that is as long as eps, but for rounding


@dataclass(frozen=True)
class Knob:
    """What the model says to one example as its change grows.

    Attributes:
        row: of the example, among all.
        eps: the sizes, `SHARES` of the threat's.
        answers: the model's answer at each, by class.
        confidence: the probability of each of these; empty where the model gives none.
    """

    row: int
    eps: tuple[float, ...]
    answers: tuple[int, ...]
    confidence: tuple[float, ...] = ()


def unfit(terms: Mapping[str, Any], answers: Mapping[str, Any]) -> str:
    """Why no example can be asked so: nothing where one can.

    Args:
        terms: of the record.
        answers: of the record's examples; empty where answers are no classes.
    """
    numbers = terms.get("threat_terms") or {}
    drawn = terms.get("random_model") or terms.get("transform") or terms.get("mode") != "eval"
    boxed = numbers.get("low") is not None and numbers.get("high") is not None
    reasons = {
        "the inputs are no images": "domain" in terms,
        "the answers are no classes": not answers,
        "the model answers the same input differently from time to time": drawn,
        "the threat has no single size to turn": numbers.get("kind") not in _NORMS or not terms.get("eps_value"),
        "the grid has no single box to lie in": numbers.get("grid") and not boxed,
    }
    return next((why for why, so in reasons.items() if so), "")


def pictured(x: Tensor | None) -> bool:
    """Whether saved inputs (n, ...) are images, and there are any."""
    return x is not None and len(x) > 0 and x.ndim == 4 and x.shape[1] in (1, 3) and x.is_floating_point()


def preferred(smallest: float | None, eps: float) -> bool:
    """Whether the answer changes between the sizes along the FGSM step, as far as that was looked at."""
    return smallest is not None and SHARES[0] * eps < smallest <= eps


def chosen(rows: Sequence[int], smallest: Sequence[float | None], eps: float) -> int:
    """The place, among examples with saved points, of the one to ask.

    The first one whose answer changes between the sizes along the FGSM step; the first one of all if none does so.
    """
    return min(range(len(rows)), key=lambda place: (not preferred(smallest[rows[place]], eps), rows[place]))


def sizes_of(eps: float) -> tuple[float, ...]:
    """The sizes that are asked at."""
    return tuple(share * eps for share in SHARES)


def turned(point: Mapping[str, Tensor], terms: Mapping[str, Any], distance: float) -> Tensor:
    """The inputs to ask, (sizes, C, H, W): the saved change at each size, cut by the box, on the grid if there is one.

    Args:
        point: the saved point, tensors of one row.
        terms: of the record.
        distance: of the point, in the threat's norm.
    """
    before, after = (point[name].double() for name in ("x", "x_adv"))
    numbers, eps = terms["threat_terms"], float(terms["eps_value"])
    low, high = (point[name].double() if name in point else numbers[name] for name in ("low", "high"))
    whole = 1.0 if abs(distance / eps - 1) <= _SAME else eps / distance
    found = []
    for share in SHARES:
        if share * whole == 1.0:
            found.append(after)
            continue
        moved = before + share * whole * (after - before)
        if numbers["grid"]:
            step = (high - low) / numbers["grid"]
            moved = low + step * ((moved - low) / step).round()
        moved = moved if low is None else moved.clamp_min(low)
        found.append(moved if high is None else moved.clamp_max(high))
    return torch.cat(found).to(point["x"].dtype)


def answered(
    predictor: Asked, task: Task | TaskName, x: Tensor, most: int | None = None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """What the model says to these inputs: its answers, and the probability of each where there are scores.

    Args:
        predictor: the model, on the device of ``x``.
        task: what its outputs mean.
        x: inputs.
        most: at most so many at a time.
    """
    answers: list[int] = []
    sure: list[float] = []
    for piece in torch.split(x, most or len(x)):
        outputs = predictor(piece)
        given = task_for(task, outputs.scores)
        answers += [int(answer) for answer in given.predict(outputs).tolist()]
        if isinstance(given, Multiclass) and outputs.form != "labels":
            sure += given.logits(outputs).softmax(1).amax(1).tolist()
    whole = len(sure) == len(answers) and all(map(math.isfinite, sure))
    return tuple(answers), tuple(sure) if whole else ()
