"""A row of the table of openers: which spellings it takes, and how it makes a `Model` of one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signstep.engine.untouched import Mode
from signstep.errors import InputError
from signstep.importing import Spelling
from signstep.io.files import expanded
from signstep.model.declaration import Model
from signstep.model.shapes import Shape
from signstep.registry import Brought


@dataclass(frozen=True)
class Wanted:
    """What a person asked to be opened.

    Attributes:
        spec: as it was typed.
        rest: the same without the prefix of the row.
        weights: a file of weights, for rows that take one.
        args: name=value, for rows that take some.
        trust: whether files may be loaded that can run code.
        mode: "eval", or "keep" to leave modules in the mode that they come in.
        shape: of one input of the data, where that is known.
        endpoint: what an address takes and answers: a file, or what it would say.
    """

    spec: str
    rest: str
    weights: Path | None = None
    args: Mapping[str, Any] = ()  # type: ignore[assignment]
    trust: bool = False
    mode: Mode = "eval"
    shape: Shape = None
    endpoint: str | Path | Mapping[str, Any] | None = None

    @property
    def path(self) -> Path:
        """The file or folder that it names, the home folder written out."""
        return expanded(self.rest)


@dataclass(frozen=True)
class Opener:
    """A row.

    Attributes:
        name: of the row.
        title: what it opens, in words.
        example: how it is spelled.
        opens: makes the model; raises an `InputError` or a `LoadError` of one sentence. What it declares holds.
        prefixes: a spelling begins with one of these, ...
        suffixes: ... or is a path that ends in one of these.
        weights: whether it takes a file of weights.
        args: what arguments it takes, in words; empty for none.
        extra: of Signstep, which installs what it needs; empty where nothing is.
    """

    name: str
    title: str
    example: str
    opens: Callable[[Wanted], Model]
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    weights: bool = False
    args: str = ""
    extra: str = ""

    def rest(self, spec: str) -> str | None:
        """A spelling without its prefix, if it is one of this row; else None."""
        for prefix in self.prefixes:
            if spec.startswith(prefix):
                return spec.removeprefix(prefix)
        return spec if spec.lower().endswith(self.suffixes) and self.suffixes else None

    def refuse(self, wanted: Wanted) -> None:
        """See that nothing is given that the row does not take.

        Raises:
            InputError: something is.
        """
        given = [f"weights={wanted.weights}"] if wanted.weights is not None and not self.weights else []
        given += [f"arguments {dict(wanted.args)}"] if wanted.args and not self.args else []
        if given:
            whole = "is a whole model with its own weights" if not self.weights else "takes no arguments"
            raise InputError(f"{wanted.spec} {whole}, got {' and '.join(given)}", remedy="leave them out")


SPELLING = Spelling("an opener", "row", "my_openers:row")


def row_of(brought: Brought) -> Opener:
    """A row from outside, checked; it is spelled by its name, or by an ending of files.

    Raises:
        InputError: it is none.
    """
    row = brought.thing
    if not isinstance(row, Opener):
        raise InputError(f"it is a {type(row).__name__}", remedy="name a signstep.model.opening.Opener")
    if row.name != brought.name:
        raise InputError(f"the row calls itself {row.name!r}", remedy=f"give it the name {brought.name!r}")
    if row.prefixes not in ((), (f"{row.name}:",)) or not all(text.startswith(".") for text in row.suffixes):
        raise InputError(
            f"it takes {row.prefixes} and {row.suffixes}", remedy=f"let it take '{row.name}:' or endings such as .x"
        )
    if not (row.prefixes or row.suffixes) or not callable(row.opens):
        raise InputError(
            "it opens nothing", remedy="give it a prefix or suffixes, and opens, a function that makes the model"
        )
    return row
