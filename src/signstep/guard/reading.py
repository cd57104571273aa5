"""What people ask of the log: times as they write them, rows as lines, reviewed inputs to take away."""

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from signstep.errors import InputError, LoadError
from signstep.guard.rows import Decided, unpacked
from signstep.guard.store import Store
from signstep.guard.tables import MOST
from signstep.io.files import written
from signstep.messages import Arg
from signstep.plain import one_line

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_HEAD = b"SQLite format 3\0"


def since(text: str, now: float | None = None) -> float:
    """Seconds since 1970 of "90s", "2h", "3d" before now, or of a time such as 2026-11-30T10:00.

    Raises:
        InputError: it is neither.
    """
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if found:
        return (time.time() if now is None else now) - int(found[1]) * _UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(Arg("since", text), remedy="pass 2h, 3d, or a time such as 2026-11-30T10:00") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def existing(url: str) -> str:
    """An address of a store that is there: nobody who only reads makes an empty one by a slip of the hand.

    Raises:
        LoadError: it is a file of SQLite, and not there, or none.
    """
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///").partition("?")[0])
        try:
            with path.open("rb") as file:
                head = file.read(len(_HEAD))
        except OSError as error:
            raise LoadError(f"the store {path} cannot be read ({error.strerror})", remedy="check its path") from error
        if head not in (_HEAD, b""):
            raise LoadError(f"{path} is no store of SQLite", remedy="check its path")
    return url


def line(one: Decided) -> str:
    """A decision on one line."""
    label = "-" if one.label is None else one.name or str(one.label)
    sure = "" if one.confidence is None else f" {one.confidence:.1%}"
    p = "" if one.p_value is None else f"  p={one.p_value:.3g}"
    why = "; ".join(reason.text for reason in one.reasons)
    return f"{when(one.at)}  {one.id}  {one.decided:<6}  {one.client}  {one_line(label)}{sure}{p}  {why}".rstrip()


def alarm_line(row: Mapping[str, Any]) -> str:
    """An alarm on one line."""
    return f"{when(row['at'])}  {row['kind']:<8}  {row['client'] or 'all'}  {row['text']}  ({row['decision'] or '-'})"


def when(at: float) -> str:
    """A time, as it is shown: UTC, to the second; what others wrote in its place may be none."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, OSError, TypeError, ValueError):
        return "no time"


def review(store: Store, ident: str, label: int | None, reviewer: str) -> bool:
    """Take a decision out of the queue with the label that a person gave; whether it was open.

    Two who review the same at once: the second is told.
    """
    table = store.tables.decisions
    statement = table.update().where(table.c.id == ident, table.c.queue == "open")
    return store.change(statement.values(queue="done", reviewed=label, reviewer=one_line(reviewer)[:100])) == 1


def export(store: Store, path: Path) -> int:
    """Write reviewed inputs and their labels as .npz (x, y, id); how many. Nothing flows back by itself.

    Raises:
        InputError: there are none.
        LoadError: it cannot be written.
    """
    rows = [Decided.of(row) for row in store.read(store.tables.log(queue="done", limit=MOST))]
    kept = [row for row in rows if row.reviewed is not None and row.input is not None]
    if not kept:
        raise InputError("no reviewed input with a label is in the store", remedy="review some first")
    inputs = [unpacked(row.input) for row in kept if row.input is not None]
    shape = inputs[0].shape
    same = [place for place, x in enumerate(inputs) if x.shape == shape]
    with written(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            x=np.stack([inputs[place] for place in same]),
            y=np.asarray([kept[place].reviewed for place in same], np.int64),
            id=np.asarray([kept[place].id for place in same]),
        )
    return len(same)


def logged(rows: Sequence[Decided]) -> list[dict[str, Any]]:
    """Decisions for JSON; inputs are left in the store."""
    return [
        {
            **{name: value for name, value in vars(row).items() if name not in ("input", "reasons")},
            "reasons": [[reason.code, reason.text] for reason in row.reasons],
        }
        for row in rows
    ]
