"""What a record says of detectors, asked again of the verifier's own: p-values of clean rows and of the kept points."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from signstep.auditing.checks import Book, Check
from signstep.auditing.detection import Detection
from signstep.auditing.result import Result
from signstep.detectors.detector import Detector
from signstep.detectors.policy import Policy
from signstep.detectors.seen import Reader, Seen
from signstep.engine.tree import Tree
from signstep.errors import SignstepError
from signstep.model.declaration import Model

_NAME = "detection"
_ROWS = 256
_ROUNDING = 1e-9


def unasked(result: Result) -> Check | None:
    """What is to be said where nobody brings detectors; None of a record that has none."""
    if result.detection is None:
        return None
    names = ", ".join(judge.name for judge in result.detection.detectors) or "none"
    return Check(_NAME, True, f"not asked again: that needs the detectors ({names}) and their rates", complete=False)


def detected_again(
    result: Result,
    points: Mapping[str, Tensor],
    data: Iterable[tuple[Tree, Tensor | None]],
    *,
    model: Model,
    policy: Policy,
    device: torch.device,
) -> Check:
    """Whether the verifier's detectors are those of the record, and give its p-values.

    A p-value may be that of any score within what rounding makes of it; letters of the attacker who knows are not
    searched for again.

    Args:
        result: a record whose examples are those of the data, in their order.
        points: the saved points.
        data: batches of inputs in raw units.
        model: the verifier's.
        policy: the verifier's detectors, calibrated with that model.
        device: where the model is.

    Returns:
        The check; open where the model draws random numbers, where fallen examples have no saved point, or where a
        detector cannot be asked.
    """
    stated = result.detection
    if stated is None:
        return Check(_NAME, False, f"the record has no detectors, here there are {len(policy.detectors)}")
    if (other := _another(stated, policy)) is not None:
        return Check(_NAME, False, other)
    if result.terms.get("random_model"):
        return Check(_NAME, True, "the same detectors; what they say of a random model differs", complete=False)
    if not policy.detectors:
        return Check(_NAME, True, "no detector, as in the record")
    try:
        return _asked(result, stated, points, data, policy, Reader.of(model), device)
    except SignstepError as error:
        return Check(_NAME, False, f"the detectors cannot be asked here ({error})")


def _asked(
    result: Result,
    stated: Detection,
    points: Mapping[str, Tensor],
    data: Iterable[tuple[Tree, Tensor | None]],
    policy: Policy,
    reader: Reader,
    device: torch.device,
) -> Check:
    """The p-values of clean rows and of saved points, beside those of the record."""
    book, start = Book(), 0
    for x, _ in data:
        if not isinstance(x, Tensor):
            return Check(_NAME, False, "detectors look at one tensor, and the data has several inputs")
        rows = range(start, min(start + len(x), result.examples))
        here = x[: len(rows)].to(device)
        for judge, detector in zip(stated.detectors, policy.detectors, strict=True):
            _compare(book, judge.name, rows, [judge.clean[row] for row in rows], detector, reader, here)
        start = rows.stop
    asked = _points(result, stated, points, policy, reader, book, device)
    found = sum(p is not None for column in stated.detectors[0].attacked.values() for p in column)
    missing = len({row for row, letter in enumerate(result.worst_case) if letter == "f"}) - asked
    seen = (
        f"{len(policy.detectors)} asked again: p-values of {start} examples untouched and of {asked} of {found} "
        "attacked points, those that were saved"
    )
    check = book.check(_NAME, seen + (f"; {missing} fooled examples have none" if missing else ""))
    return Check(check.name, check.holds, check.seen, complete=not missing)


def _another(stated: Detection, policy: Policy) -> str | None:
    """In what the verifier's policy is another than the record's, in words."""
    pairs: list[tuple[str, object, object]] = [
        ("rule", stated.rule, policy.rule),
        ("detectors", len(stated.detectors), len(policy.detectors)),
    ]
    for judge, one in zip(stated.detectors, policy.detectors, strict=False):
        pairs += [
            ("detector", judge.name.partition(" #")[0], one.title),
            (f"{one.title}: calibration rows", judge.rows, len(one.calibration)),
            (f"{one.title}: passes", judge.passes, one.passes),
            (f"{one.title}: by class", judge.by_class, one.classes is not None),
            (f"{one.title}: attacks that it was trained on", list(judge.recipes), list(one.recipes)),
        ]
        names = sorted({*judge.digests, *one.digests})
        pairs += [(f"{one.title}: SHA-256 of {name}", judge.digests.get(name), one.digests.get(name)) for name in names]
    for name, then, now in pairs:
        if then != now:
            return f"{name} is {then!r} in the record, {now!r} here"
    for name, then, now in (("reject", stated.reject, policy.reject), ("review", stated.review, policy.review)):
        if not math.isclose(then, now, rel_tol=_ROUNDING):
            return f"{name} is {then!r} in the record, {now!r} here"
    return None


def _points(
    result: Result,
    stated: Detection,
    points: Mapping[str, Tensor],
    policy: Policy,
    reader: Reader,
    book: Book,
    device: torch.device,
) -> int:
    """Ask about the saved points; how many there are."""
    rows, numbers = (points[name].tolist() if points else [] for name in ("row", "attack"))
    names = [result.attacks[number].name for number in numbers]
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        x = points["x_adv"][part].to(device)
        for judge, detector in zip(stated.detectors, policy.detectors, strict=True):
            said = [judge.attacked[name][row] for name, row in zip(names[part], rows[part], strict=True)]
            _compare(book, f"{judge.name}, attacked", rows[part], said, detector, reader, x)
    return len(rows)


def _compare(
    book: Book,
    name: str,
    rows: Sequence[int],
    stated: Sequence[float | None],
    detector: Detector,
    reader: Reader,
    x: Tensor,
) -> None:
    """Note the rows whose p-value the detector does not give, of inputs (R, ...) in raw units."""
    if not len(x):
        return
    with reader.quiet():
        low, high = detector.p_between(Seen(reader, x))
    for row, p, least, most in zip(rows, stated, low.tolist(), high.tolist(), strict=True):
        near = p is not None and least - _ROUNDING <= p <= most + _ROUNDING
        book.need(near, f"{name}: example {row} has p = {p} in the record, {least:.6g} to {most:.6g} here")
