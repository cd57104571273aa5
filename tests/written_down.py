"""Tables that tests keep by the names of rows: what a new row lacks there is said in a sentence, not as a KeyError."""

from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


def written_down(table: Mapping[str, Entry], name: str, what: str) -> Entry:
    """The entry of a row.

    Args:
        table: kept in a test, by the names of rows.
        name: of the row.
        what: the entry is: "the size at which norms are tested".
    """
    assert name in table, f"write down {what} of {name!r}, in the table of this test"
    return table[name]
