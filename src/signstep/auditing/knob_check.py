"""The example that was asked at several sizes of its change, asked again by the verifier's model."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from signstep.auditing.checks import Book, Check
from signstep.auditing.knob import answered, chosen, pictured, sizes_of, turned, unfit
from signstep.auditing.rescore import home
from signstep.auditing.result import Result
from signstep.engine.tasks import Task, TaskName
from signstep.engine.untouched import untouched
from signstep.model.predictor import Predictor


def knob(
    result: Result, points: Mapping[str, Tensor], predictor: Predictor | None = None, task: Task | TaskName = "auto"
) -> Check:
    """Whether the example that was asked at several sizes is the one of the rule, and is answered so by the model.

    The change of its saved point is turned again, on the verifier's machine. Without a model that is all of it.
    """
    stated, book = result.knob, Book()
    if stated is None:
        return Check("knob", True, "no example was asked at several sizes")
    if not points:
        return Check("knob", True, "the point that it turns was not saved", complete=False)
    why = unfit(result.terms, result.per_example.answers)
    why = why or ("" if pictured(points.get("x")) else "no image was saved")
    rows = points["row"].tolist()
    if not book.need(not why, f"an example was asked at several sizes, and {why}"):
        return book.check("knob", "")
    eps = result.terms["eps_value"]
    place = chosen(rows, result.per_example.smallest_eps, eps)
    book.same("the example", stated.row, rows[place])
    book.same("sizes", stated.eps, sizes_of(eps))
    count = len(stated.eps)
    book.need(len(stated.answers) == count, f"there are {len(stated.answers)} answers at {count} sizes")
    book.need(len(stated.confidence) in (0, count), f"there are {len(stated.confidence)} confidences at {count} sizes")
    asked = f"example {stated.row} at {count} sizes"
    if book.wrong or predictor is None:
        check = book.check("knob", f"{asked}: not asked again, which needs your model")
        return replace(check, complete=not check.holds)
    entry = result.attacks[int(points["attack"][place])]
    distance = result.per_example.distances[entry.name][stated.row]
    if not book.need(distance is not None, f"example {stated.row} has no distance") or distance is None:
        return book.check("knob", "")
    one = {name: part[place : place + 1] for name, part in points.items()}
    with untouched(predictor.model, mode="keep"), torch.no_grad():
        answers, sure = answered(predictor, task, turned(one, result.terms, distance).to(home(predictor)))
    book.need(answers == stated.answers, f"the answers are {answers} here, {stated.answers} in the record")
    pairs = zip(sure, stated.confidence, strict=False)
    near = all(math.isclose(here, there, rel_tol=1e-3, abs_tol=1e-4) for here, there in pairs)
    book.need(near and len(sure) == len(stated.confidence), f"the confidences are others than {stated.confidence}")
    return book.check("knob", f"{asked} answered as recorded")
