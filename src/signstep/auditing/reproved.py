"""What a record says is proved, proved again with the verifier's own model and data."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from signstep.auditing.bracket import Bounds, Bracket
from signstep.auditing.checks import Check
from signstep.auditing.parts import spread
from signstep.auditing.result import Result
from signstep.auditing.run import sliced
from signstep.certify.methods import LETTERS, OPEN
from signstep.engine.keys import Key
from signstep.engine.threat import Threat
from signstep.engine.tree import Tree, rows, tree_map
from signstep.errors import SignstepError
from signstep.model.declaration import Model
from signstep.model.search import Search
from signstep.model.subject import Subject


def proved_again(
    result: Result,
    data: Iterable[tuple[Tree, Tensor | None]],
    *,
    model: Model,
    threat: Threat,
    search: Search,
    device: torch.device,
) -> Check:
    """Whether each example is proved by the method that the record names, and those that are open by none.

    What exact search did not decide again in its time leaves the check open: clocks differ.

    Args:
        result: a record whose examples are those of the data, in their order.
        data: batches of them, and perhaps of more behind them.
        model: the verifier's.
        threat: in raw units.
        search: units of the budget.
        device: where the model is.
    """
    if result.contradictions:
        return Check("bounds", False, f"examples {list(result.contradictions[:5])} are proved, and a point fools them")
    bounds = Bounds.of_terms(result.terms)
    if bounds is None:
        return Check("bounds", True, "none were taken")
    bracket, subject = Bracket(bounds, model, search.budget), Subject.of(model, search)
    found = ""
    levels = [point.eps for point in next(iter(result.curves.values()), ())]
    sizes: list[float | None] = []
    given = result.terms.get("labels") == "given"
    for x, y in data:
        left = result.examples - len(found)  # the record may be of the first ones alone
        if left <= 0:
            break
        part = tree_map(lambda leaf, left=left: leaf[:left].to(device), x)
        labels = None if y is None or not given else y[:left]
        here = sliced(threat, len(found), len(found) + rows(part), part, spread(result.terms.get("shard")))
        with subject.opened():
            try:
                question = subject.ask(part, labels, here, key=Key(0))
                letters = bracket.letters(question)
                sizes += [] if letters is None else bracket.sizes(question, letters, levels) or []
            except SignstepError as error:
                return Check("bounds", False, f"nothing can be proved of the model ({error})")
        if letters is None:
            return Check("bounds", False, f"nothing can be proved of the model: {bracket.reason}")
        found += letters
    return _compared(result, found, sizes)


def _compared(result: Result, found: str, sizes: Sequence[float | None]) -> Check:
    """What the record says beside what came out now."""
    stated, exact = result.per_example.bounds, LETTERS["exact"]
    pairs = list(zip(stated, found, strict=False))
    slow = [row for row, (then, now) in enumerate(pairs) if then != now and {then, now} == {exact, OPEN}]
    other = [row for row, (then, now) in enumerate(pairs) if then != now and row not in slow]
    if other or len(found) != len(stated):
        row = other[0] if other else len(pairs)
        said = f"example {row} is {_said(stated[row : row + 1])} in the record, {_said(found[row : row + 1])} here"
        return Check("bounds", False, f"{len(other)} differ: {said}")
    before = result.per_example.proved_eps
    moved = [row for row, (then, now) in enumerate(zip(before, sizes, strict=False)) if then != now and row not in slow]
    if len(before) != len(sizes) or moved:
        row = moved[0] if moved else min(len(before), len(sizes))
        said = f"example {row} up to {[*before[row : row + 1]]} in the record, {[*sizes[row : row + 1]]} here"
        return Check("bounds", False, f"{len(moved)} are proved at other sizes of the curve: {said}")
    seen = f"{len(found) - found.count(OPEN)} of {len(found)} proved again"
    return Check("bounds", True, seen if not slow else f"{seen}, {len(slow)} not decided in time", complete=not slow)


def _said(letter: str) -> str:
    name = next((name for name, sign in LETTERS.items() if sign == letter), None)
    return "open" if name is None else f"proved by {name}"
