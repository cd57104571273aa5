"""The checklist as Markdown, for the appendix of a paper."""

import re

from signstep.auditing.result import Result
from signstep.auditing.table import sentence
from signstep.report.attacks import overview
from signstep.report.checklist import checklist
from signstep.report.plain import plain
from signstep.report.rungs import ladder_table
from signstep.report.table import Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def checklist_markdown(result: Result) -> str:
    """Sentence, table of attacks and every item of the checklist."""
    lines = ["# Reporting checklist", "", escape(sentence(result)), ""]
    lines += _table(ladder_table(result) if result.ladder else overview(result))
    lines += ["", *(f"- **{item.name}.** {escape(item.text)}" for item in checklist(result))]
    lines += [f"- **Note.** {escape(note)}." for note in result.notes]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    r"""Text that Markdown and the HTML inside it leave alone.

    >>> print(escape("a_b|<script>"))
    a\_b\|\<script\>
    """
    return _SPECIAL.sub(r"\\\1", " ".join(plain(text).replace("\u00a0", " ").split()))


def _table(table: Table) -> list[str]:
    head = [column.name for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [[escape(str(cell)) for cell in row] for row in table.rows]
    return [f"| {' | '.join(row)} |" for row in [head, rule, *rows]]
