"""The record of a transfer: what was crafted on whom, and whom it fooled."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from operator import index
from pathlib import Path
from typing import Any

from signstep.engine.counts import Count
from signstep.errors import LoadError
from signstep.io.documents import json_value, read_json
from signstep.io.files import write_whole
from signstep.plain import one_line, plain_json

FORMAT = 1
MARK = "transfer.json"


@dataclass(frozen=True)
class Cell:
    """Inputs crafted on one source and shown to one victim.

    Attributes:
        source: what they were crafted on.
        victim: the model that was asked.
        fooled: examples that the victim gets right untouched, and now fails on.
        right: examples that the victim gets right untouched.
        white_box: source and victim are the same model: its own gradients, and a row stops when it is fooled.
    """

    source: str
    victim: str
    fooled: int
    right: int
    white_box: bool = False

    @property
    def success(self) -> Count:
        """Fooled, of those right untouched."""
        return Count(self.fooled, self.right)


@dataclass(frozen=True)
class TransferMatrix:
    """Success of inputs crafted on each source, at each victim.

    Attributes:
        sources: names, in order; "all" is the mean gradient over all surrogates but the victim itself, "random-sign"
            the control that looks at no model.
        victims: names, in order.
        cells: one for each source and victim.
        clean: for each victim the examples right untouched.
        examples: their number.
        terms: threat, recipe, goal, seed.
        notes: what a reader must know.
        versions: of what made it.
        partial: it was interrupted, and covers the examples before that.
        seen: for each victim that was not shown all examples, how many it was shown: of an endpoint whose bound on
            requests was reached, or that stopped answering.
        requests: for each victim that is an endpoint, what it was sent, as ``terms["requests"]`` of a `Result`.
    """

    sources: tuple[str, ...]
    victims: tuple[str, ...]
    cells: tuple[Cell, ...]
    clean: Mapping[str, int]
    examples: int
    terms: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False
    seen: Mapping[str, int] = field(default_factory=dict)
    requests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def cell(self, source: str, victim: str) -> Cell:
        """The cell of two names.

        Raises:
            KeyError: there is none.
        """
        for cell in self.cells:
            if (cell.source, cell.victim) == (source, victim):
                return cell
        raise KeyError((source, victim))

    def accuracy(self, victim: str) -> Count:
        """Examples right untouched, of all that the victim was shown."""
        return Count(self.clean[victim], self.seen.get(victim, self.examples))

    def to_json(self) -> str:
        """The record as JSON."""
        plain = {"format": FORMAT, **asdict(self)}
        return plain_json(json.dumps(plain, indent=1)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TransferMatrix":
        """Read what `to_json` wrote.

        Raises:
            LoadError: the text is something else, or of a newer format.
        """
        return cls._of(json_value(text, "the record of a transfer"))

    @classmethod
    def _of(cls, plain: Any) -> "TransferMatrix":
        try:
            if plain.pop("format") != FORMAT:
                raise LoadError(
                    f"the transfer record has another format than {FORMAT}",
                    remedy="read it with the version that wrote it",
                )
            found = cls(
                sources=_names(plain["sources"]),
                victims=_names(plain["victims"]),
                cells=tuple(_cell(**cell) for cell in plain["cells"]),
                clean={_text(name): index(count) for name, count in plain["clean"].items()},
                examples=index(plain["examples"]),
                terms=dict(plain["terms"]),
                notes=_names(plain["notes"]),
                versions={_text(name): _text(version) for name, version in plain["versions"].items()},
                partial=_flag(plain.get("partial", False)),
                seen={_text(name): index(count) for name, count in plain.get("seen", {}).items()},
                requests={_text(name): dict(asked) for name, asked in plain.get("requests", {}).items()},
            )
            found._check()
            return found
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, LoadError):
                raise
            raise LoadError(
                f"this is no record of a transfer ({error!r})", remedy="pass what signstep transfer wrote"
            ) from error

    def _check(self) -> None:
        """See that there is a cell for each source and victim, and that no count is more than there can be.

        Raises:
            ValueError: it is not so.
        """
        pairs = [(cell.source, cell.victim) for cell in self.cells]
        if sorted(pairs) != sorted((source, victim) for source in self.sources for victim in self.victims):
            raise ValueError("the cells are not those of its sources and victims")
        if set(self.clean) != set(self.victims) or len(set(self.victims)) != len(self.victims):
            raise ValueError("clean does not name the victims")
        if any(not 0 <= cell.fooled <= cell.right <= self.examples for cell in self.cells):
            raise ValueError("a cell counts more than there is")
        if any(not 0 <= count <= self.examples for count in (*self.clean.values(), *self.seen.values())):
            raise ValueError("clean counts more than there is")
        if not {*self.seen, *self.requests} <= set(self.victims):
            raise ValueError("seen or requests name other models than the victims")
        if any(self.clean[name] > count for name, count in self.seen.items()):
            raise ValueError("clean counts more than was shown")

    def save(self, path: str | Path) -> None:
        """Write the record; the file appears whole or not at all.

        Raises:
            LoadError: it cannot be written.
        """
        write_whole(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "TransferMatrix":
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing or something else.
        """
        return cls._of(read_json(Path(path), "the record of a transfer"))

    def __str__(self) -> str:
        """The matrix as text: one row for each source, one column for each victim."""
        first = ["crafted on", *map(one_line, self.sources), "right untouched"]
        columns = [first]
        for victim in self.victims:
            cells = [self.cell(source, victim) for source in self.sources]
            shown = [
                f"{_percent(cell.success)}{'*' if cell.white_box else ' '} {cell.fooled}/{cell.right}" for cell in cells
            ]
            clean = self.accuracy(victim)
            columns.append([one_line(victim), *shown, f"{_percent(clean)}  {clean.hits}/{clean.of}"])
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(
                column[row].ljust(width) if number == 0 else column[row].rjust(width)
                for number, (column, width) in enumerate(zip(columns, widths, strict=True))
            ).rstrip()
            for row in range(len(first))
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines.insert(-1, lines[1])
        told = [f"{self.terms.get('recipe', '')}, {self.terms.get('threat', '')}: fooled of those right untouched"]
        if any(cell.white_box for cell in self.cells):
            told.append("* the model's own gradients (white box)")
        return "\n".join(map(one_line, [told[0], "", *lines, "", *told[1:], *self.notes])).rstrip()


def _text(plain: Any) -> str:
    if not isinstance(plain, str):
        raise TypeError(f"{type(plain).__name__} instead of text")
    return plain


def _flag(plain: Any) -> bool:
    if not isinstance(plain, bool):
        raise TypeError(f"{plain!r} is neither true nor false")
    return plain


def _names(plain: Any) -> tuple[str, ...]:
    if not isinstance(plain, list):
        raise TypeError(f"{type(plain).__name__} instead of a list")
    return tuple(map(_text, plain))


def _cell(source: Any, victim: Any, fooled: Any, right: Any, white_box: Any) -> Cell:
    if not isinstance(white_box, bool):
        raise TypeError(f"white_box is {type(white_box).__name__}")
    return Cell(_text(source), _text(victim), index(fooled), index(right), white_box)


def _percent(count: Count) -> str:
    return "-" if count.share is None else f"{100 * count.share:.1f} %"
