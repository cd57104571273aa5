"""Reading texts: a table of CSV or JSON lines with a column of text and one of labels, as strangers wrote it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstep.data.csv_text import SUFFIXES, open_comma, text_lines
from signstep.errors import InputError, LoadError
from signstep.io.documents import json_value
from signstep.messages import Arg

LONGEST = 20_000
"""Characters of a text, at most: far more than classifiers read."""

_REMEDY = (", or leave such rows out with", Arg("skip_bad", True))


@dataclass(frozen=True, eq=False)
class Records:
    """Texts that can be used.

    Attributes:
        texts: as they stand in the file, letter for letter; blanks at the ends of cells of CSV are not kept.
        labels: (N,) int64; None where the table has no column of labels.
        bad: sentences about the rows left out.
    """

    texts: tuple[str, ...]
    labels: Tensor | None
    bad: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of a result must know of rows left out."""
        if not self.bad:
            return ()
        shown = "; ".join(self.bad[:5]) + (f"; and {len(self.bad) - 5} more" if len(self.bad) > 5 else "")
        return (f"{len(self.bad)} of {len(self.bad) + len(self.texts)} rows left out (skip-bad): {shown}",)

    def first(self, limit: int | None) -> "Records":
        """The first so many.

        Raises:
            InputError: fewer than one.
        """
        if limit is None:
            return self
        if limit < 1:
            raise InputError(Arg("limit", limit), remedy="pass the number of texts to audit, at least 1")
        return Records(self.texts[:limit], None if self.labels is None else self.labels[:limit], self.bad)


class _BadError(Exception):
    """What is wrong with a row, and what to do about it."""

    def __init__(self, fault: str, remedy: str) -> None:
        super().__init__(f"{fault}; {remedy}")
        self.fault, self.remedy = fault, remedy


def read_records(path: Path, text: str, label: str, classes: Sequence[str], *, skip_bad: bool = False) -> Records:
    """Read a table.

    Args:
        path: .csv or .jsonl, perhaps .gz.
        text: the column of the text.
        label: that of the label; a table without it has no labels.
        classes: names that labels may have, in the order of the outputs; whole numbers from 0 do in any case.
        skip_bad: leave rows out that cannot be used, instead of an error.

    Raises:
        LoadError: the table cannot be read.
        InputError: it lacks the column of text, or a row cannot be used.
    """
    texts: list[str] = []
    labels: list[int] = []
    bad: list[str] = []
    labelled: bool | None = None
    for number, row, columns, fault in _table(path):
        if text not in columns:
            raise InputError(
                f"{path.name}, row {number} has no column {text!r}, but {', '.join(map(repr, columns[:6])) or 'none'}",
                remedy='name it in a schema: [data] with text = "..."',
            )
        labelled = label in columns if labelled is None else labelled
        try:
            if fault:
                raise _BadError(fault, "correct it")
            found = _text(row.get(text), text)
            of = _label(row.get(label), label, classes) if labelled else 0
        except _BadError as error:
            if not skip_bad:
                raise InputError(
                    f"{path.name}, row {number}, {error.fault}", remedy=(error.remedy, *_REMEDY)
                ) from error
            bad.append(f"row {number}, {error}")
            continue
        texts.append(found)
        labels.append(of)
    if not texts:
        seen = f"none of its {len(bad)} rows can be used; the first: {bad[0]}" if bad else "it has no rows"
        raise InputError(f"{path.name}: {seen}", remedy="pass another table")
    return Records(
        tuple(texts), torch.tensor(labels, dtype=torch.int64, device="cpu") if labelled else None, tuple(bad)
    )


def _table(path: Path) -> Iterator[tuple[int, Mapping[str, Any], Sequence[str], str]]:
    """Rows with their numbers, from 1, the columns that they have, and why one cannot be read ("": it can)."""
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        table = open_comma(path)
        for number, line in enumerate(table.lines(), 1):
            yield number, dict(zip(table.columns, line.cells, strict=False)), table.columns, line.fault
        return
    if not name.endswith((".jsonl", ".jsonl.gz")):
        suffix = path.suffix or "file without suffix"
        raise LoadError(f"{path} is a {suffix}", remedy="pass a table .csv or .jsonl, a row a text")
    with text_lines(path) as lines:
        for number, written in enumerate((one for one in lines if one.strip()), 1):
            row = json_value(written, f"{path.name}, row {number},", finite=False)
            if not isinstance(row, dict):
                raise LoadError(
                    f"{path.name}, row {number} is a {type(row).__name__}", remedy="write one object on each line"
                )
            yield number, row, tuple(row), ""


def _text(cell: Any, column: str) -> str:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise _BadError(f"column {column!r} has no text", "fill it in")
    if not isinstance(cell, str):
        raise _BadError(f"column {column!r} is a {type(cell).__name__}", "write a text in quotes")
    if len(cell) > LONGEST:
        raise _BadError(f"column {column!r} has {len(cell)} characters, at most {LONGEST} are read", "shorten it")
    if not any(letter.isalnum() for letter in cell):
        raise _BadError(f"column {column!r} has no letters or digits", "write a text with words")
    broken = next((letter for letter in cell if letter == "\0" or 0xD800 <= ord(letter) <= 0xDFFF), None)
    if broken is not None:
        raise _BadError(f"column {column!r} holds \\u{ord(broken):04x}, which is no letter of a text", "remove it")
    return cell


def _label(cell: Any, column: str, classes: Sequence[str]) -> int:
    found = "" if cell is None or isinstance(cell, bool) else str(cell).strip()
    if not found:
        raise _BadError(f"column {column!r} has no label", "fill it in")
    same = [place for place, name in enumerate(classes) if name == found]
    same = same or [place for place, name in enumerate(classes) if name.casefold() == found.casefold()]
    if same:
        return same[0]
    shown = repr(found if len(found) <= 40 else f"{found[:40]}...")
    if not (found.isascii() and found.isdecimal() and len(found) < 10):
        if classes:
            raise _BadError(f"column {column!r}: {shown} is not one of {', '.join(classes)}", "write one of them")
        raise _BadError(
            f"column {column!r}: {shown} is a name, and nothing says which class it is",
            "write 0, 1, ..., or name the classes in a schema: [label] with classes = [...]",
        )
    if classes and int(found) >= len(classes):
        raise _BadError(f"column {column!r}: there is no class {found} of {len(classes)}", "correct it")
    return int(found)
