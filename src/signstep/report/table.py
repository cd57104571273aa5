"""A table of a report before it has a form: caption, columns, rows."""

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Column:
    """A column; numbers stand right, words left."""

    name: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of ready text; the first cell of each names it.

    Attributes:
        ident: for anchors; unique on the page.
        caption: what the table says.
        columns: as many as each row has cells.
        rows: cells are text from anywhere, and are escaped when rendered, unless they are Markup.
        total: the last row sums the others up.
    """

    ident: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Markup, ...], ...]
    total: bool = False
