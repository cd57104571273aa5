"""The log of a run as CSV: one line for each look, written anew as a whole, so that it never has half a line."""

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from signstep.io.files import write_whole
from signstep.train.alarm import Reading


def log_text(readings: Sequence[Reading]) -> str:
    """The names of `Reading` as header, then one line for each."""
    out = io.StringIO()
    names = [field.name for field in fields(Reading)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for reading in readings:
        row = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in reading.plain().items()}
        writer.writerow(row)
    return out.getvalue()


def write_log(path: Path, readings: Sequence[Reading]) -> None:
    """Write it.

    Raises:
        LoadError: it cannot be written.
    """
    write_whole(path, log_text(readings))
