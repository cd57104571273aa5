"""The cost table: a row for each defence, with one sentence that says what it is worth."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from signstep.io.files import write_whole
from signstep.plain import one_line

SCHEMA = 1
SURE = 0.01  # of an exact paired test, below which a difference is taken for one
SMALL, LARGE = 1.0, 5.0  # points: less is not called a gain; as much may be one where the test is not sure


@dataclass(frozen=True)
class CostRow:
    """One defence, measured on the examples of the table.

    Attributes:
        name: as it is typed.
        kind: "none", "transformation", "smoothing", "training", "detector", or somebody's own word.
        clean: share of examples answered rightly untouched (of a detector: and not refused).
        unaware: robust accuracy against an attacker who does not know of the defence; None where there is no such.
        aware: robust accuracy against one who does; None where the defence is not measured so.
        p: of the exact McNemar test of ``aware`` against the undefended model, example by example; None without.
        latency: time for a batch of 1 and of 64, as a multiple of the undefended model's; None where not measured.
        training: what it costs to make, in words.
        ease: "low", "medium" or "high": how hard it is to bring into use, and why.
        verdict: one sentence.
        note: what the reader must know.
    """

    name: str
    kind: str
    clean: float
    unaware: float | None
    aware: float | None
    p: float | None
    latency: tuple[float, float] | None
    training: str
    ease: str
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class CostTable:
    """What defences cost and are worth on one model, the same examples for all.

    Attributes:
        model: description.
        data: description.
        examples: how many.
        threat: in words.
        attacks: that every row met; the worst of them counts for each example.
        rows: the undefended model first.
        notes: rows that could not be measured, with the reason.
        versions: of Signstep, torch and the libraries of the defences.
        partial: whether it was interrupted: rows are missing.
    """

    model: str
    data: str
    examples: int
    threat: str
    attacks: tuple[str, ...]
    rows: tuple[CostRow, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    partial: bool = False

    def __getitem__(self, name: str) -> CostRow:
        found = next((row for row in self.rows if row.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def __str__(self) -> str:
        widest = max(len(one_line(row.name)) for row in self.rows)
        head = f"{'defence':{widest}}   clean  unaware   aware   batch 1   batch 64   to bring in"
        lines = [
            one_line(f"{self.model} on {self.examples} examples of {self.data}"),
            one_line(f"{self.threat}; {', '.join(self.attacks)}; robust accuracy in percent, time as a multiple"),
            "",
            head,
        ]
        for row in self.rows:
            times = ("-", "-") if row.latency is None else tuple(f"{part:.2f}x" for part in row.latency)
            shares = f"{_percent(row.clean):>6}  {_percent(row.unaware):>7}  {_percent(row.aware):>6}"
            ease = row.ease.partition(":")[0]
            lines.append(f"{one_line(row.name):{widest}}  {shares}  {times[0]:>8}  {times[1]:>9}   {ease}")
        lines += ["", *(one_line(f"{row.name}: {row.verdict}") for row in self.rows if row.verdict)]
        lines += [one_line(f"note: {note}") for note in self.notes]
        return "\n".join([*lines, *(["PARTIAL: interrupted, rows are missing"] if self.partial else [])])

    def to_json(self) -> str:
        """The record as JSON."""
        plain = asdict(self)
        return json.dumps({"kind": "defences", "schema": SCHEMA, **plain}, indent=1)

    def save(self, path: str | Path) -> Path:
        """Write the record; the file appears whole or not at all."""
        path = Path(path)
        write_whole(path, self.to_json() + "\n")
        return path


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def worth(clean: float, robust: float, row: CostRow) -> str:
    """The sentence on a row, beside the clean and robust accuracy of the undefended model.

    A gain counts where the aware attacker loses by it, by an exact test, and more than the clean accuracy does.
    """
    costs = f"costs {_points(clean - row.clean)} points clean"
    if row.aware is None:
        return costs
    gained, sure = 100 * (row.aware - robust), row.p is not None and row.p < SURE
    holds = sure and gained >= max(SMALL, 100 * (clean - row.clean))
    end = "worth something against these attacks, and nothing is proved" if holds else "usability, not security"
    if row.unaware is None:
        return f"{costs}, gains {gained:.1f} robust: {end if holds else 'no security'}"
    apparent = 100 * (row.unaware - robust)
    if sure and not holds and gained >= SMALL:
        end = "it costs more than it gains"
    elif not sure and gained >= LARGE:
        end = "too few examples, or too weak attacks, to call the aware gain real"
    elif not holds and max(apparent, gained) < SMALL:
        end = "not even an unaware attacker is held off"
    return f"{costs}, gains {apparent:.1f} unaware, {gained:.1f} aware: {end}"


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-0.0", "0.0")
