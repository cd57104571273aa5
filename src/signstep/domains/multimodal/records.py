"""Rows of data: a table of JSON lines or CSV, each row with a path, a sentence or numbers for every input."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstep.data.csv_text import SUFFIXES, open_comma, text_lines
from signstep.data.images import Picture, read_images
from signstep.domains.language.tokenizers import Tokenizer, fitted
from signstep.domains.multimodal.choices import fault
from signstep.domains.multimodal.schema import InputRow, LabelRow, Schema
from signstep.engine.defaults import plain_tensor
from signstep.errors import InputError, LoadError
from signstep.io.documents import json_value
from signstep.messages import Arg

_REMEDY = (", or leave such rows out with", Arg("skip_bad", True))


class _BadError(Exception):
    """What is wrong with a row, and what to do about it."""

    def __init__(self, fault: str, remedy: str) -> None:
        super().__init__(f"{fault}; {remedy}")
        self.fault, self.remedy = fault, remedy


@dataclass(frozen=True, eq=False)
class Records:
    """Rows that can be used.

    Attributes:
        inputs: by name: images (N, 3, H, W) in [0, 1], tokens (N, L) int64, numbers (N, ...).
        labels: (N,) int64.
        numbers: of the rows in the file, from 1.
        bad: sentences about the rows left out.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    numbers: tuple[int, ...]
    bad: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of a result must know of rows left out."""
        if not self.bad:
            return ()
        shown = "; ".join(self.bad[:5]) + (f"; and {len(self.bad) - 5} more" if len(self.bad) > 5 else "")
        return (f"{len(self.bad)} of {len(self.bad) + len(self.numbers)} rows left out (skip-bad): {shown}",)


def read_records(
    path: Path, schema: Schema, tokenizer: Tokenizer | None, *, limit: int | None = None, skip_bad: bool = False
) -> Records:
    """Read a table whose columns the schema names; paths of images are from where the table lies.

    Raises:
        LoadError: the table cannot be read.
        InputError: a row cannot be used, by row and column and with the remedy, and bad rows are not skipped.
    """
    kept: list[tuple[int, dict[str, Tensor], int]] = []
    bad: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for number, row in _table(path):
        if len(kept) == limit:
            break
        try:
            label = _label(row, schema.label)
            values = {part.name: _value(row, part, path.parent, tokenizer, shapes) for part in schema.inputs}
        except _BadError as error:
            if not skip_bad:
                fault = f"{path.name}, row {number}, {error.fault}"
                raise InputError(fault, remedy=(error.remedy, *_REMEDY)) from error
            bad.append(f"row {number}, {error}")
            continue
        shapes.update({name: tuple(value.shape) for name, value in values.items()})
        kept.append((number, values, label))
    if not kept:
        seen = f"none of its {len(bad)} rows can be used; the first: {bad[0]}" if bad else "it has no rows"
        raise InputError(f"{path.name}: {seen}", remedy="pass another table")
    inputs = {part.name: torch.stack([values[part.name] for _, values, _ in kept]) for part in schema.inputs}
    labels = plain_tensor([label for _, _, label in kept])
    return Records(inputs, labels, tuple(number for number, _, _ in kept), tuple(bad))


def _table(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with their numbers, from 1; of a row of too few or too many cells none is there."""
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        table = open_comma(path)
        for number, line in enumerate(table.lines(), 1):
            yield number, dict(zip(table.columns, line.cells, strict=False))
        return
    if not name.endswith((".jsonl", ".jsonl.gz")):
        suffix = path.suffix or "file without suffix"
        raise LoadError(f"{path} is a {suffix}", remedy="pass a table .jsonl or .csv, a row a pair")
    with text_lines(path) as texts:
        for number, text in enumerate((text for text in texts if text.strip()), 1):
            row = json_value(text, f"{path.name}, row {number}", finite=False)  # such a row is bad by itself
            if not isinstance(row, dict):
                raise LoadError(
                    f"{path.name}, row {number} is a {type(row).__name__}", remedy="write one object on each line"
                )
            yield number, row


def _cell(row: Mapping[str, Any], column: str) -> Any:
    found = row.get(column)
    if found is None or found == "":
        raise _BadError(f"column {column!r} is missing", "fill it in")
    return found


def _label(row: Mapping[str, Any], label: LabelRow) -> int:
    found = str(_cell(row, label.column)).strip()
    if label.classes:
        if found.lower() not in [name.lower() for name in label.classes]:
            raise _BadError(
                f"column {label.column!r}: {found!r} is not one of {', '.join(label.classes)}", "write one of them"
            )
        return [name.lower() for name in label.classes].index(found.lower())
    if not found.isdecimal():
        raise _BadError(f"column {label.column!r}: {found!r} is not a class", "write 0, 1, ... or name them in [label]")
    return int(found)


def _value(
    row: Mapping[str, Any],
    part: InputRow,
    folder: Path,
    tokenizer: Tokenizer | None,
    shapes: Mapping[str, tuple[int, ...]],
) -> Tensor:
    column = part.column or part.name
    cell = _cell(row, column)
    if part.kind == "text":
        assert tokenizer is not None
        ids = tokenizer.encode(str(cell))
        wrong = fault(tokenizer, str(cell), ids, part.length)
        if wrong is not None:
            raise _BadError(f"column {column!r}: {wrong[0]}", wrong[1])
        return torch.tensor(fitted(ids, part.length, tokenizer.pad), dtype=torch.int64, device="cpu")
    found = _image(str(cell), part, folder, shapes.get(part.name)) if part.kind == "image" else _numbers(cell, column)
    known = shapes.get(part.name, tuple(found.shape))
    if tuple(found.shape) != known:
        raise _BadError(
            f"column {column!r} has the shape {tuple(found.shape)}, the rows before {known}", "make them equally long"
        )
    return found


def _image(cell: str, part: InputRow, folder: Path, known: tuple[int, ...] | None) -> Tensor:
    """An image (3, H, W), in colour."""
    file = folder / cell
    if not file.is_file():
        raise _BadError(f"column {part.column or part.name!r}: there is no file {cell!r}", "put it there")
    size = (part.size[0], part.size[1]) if part.size else None
    shape = (3, *(size or (_size(file, part) if known is None else known[1:])))
    try:
        return next(read_images([Picture(cell, lambda: file)], shape, size, [1]))[0]  # type: ignore[arg-type]
    except LoadError as error:
        if known is not None and size is None and "cannot be read" not in str(error):
            raise _BadError(
                f"column {part.column or part.name!r}: {cell!r} is not as large as the images before",
                "set size in the schema",
            ) from error
        raise _BadError(f"column {part.column or part.name!r}: {error.text}", "replace it or remove it") from error


def _size(file: Path, part: InputRow) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.height, image.width
    except OSError as error:
        raise _BadError(f"column {part.column or part.name!r}: {file.name!r} is not an image", "replace it") from error


def _numbers(cell: Any, column: str) -> Tensor:
    try:
        plain = json_value(cell, "a cell") if isinstance(cell, str) else cell
        found = torch.tensor(plain, dtype=torch.float32, device="cpu")
    except (ValueError, TypeError) as error:
        raise _BadError(f"column {column!r}: {str(cell)[:40]!r} is not a list of numbers", "write [0.1, 2]") from error
    if found.ndim == 0 or not bool(torch.isfinite(found).all()):
        raise _BadError(f"column {column!r}: {str(cell)[:40]!r} is not a list of finite numbers", "write [0.1, 2]")
    return found
