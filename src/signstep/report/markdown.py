"""The checklist as Markdown, for the appendix of a paper."""

from signstep.auditing.result import Result
from signstep.auditing.table import sentence
from signstep.plain import markdown
from signstep.report.attacks import overview
from signstep.report.checklist import checklist
from signstep.report.rungs import ladder_table
from signstep.report.table import Table


def checklist_markdown(result: Result) -> str:
    """Sentence, table of attacks and every item of the checklist."""
    lines = ["# Reporting checklist", "", markdown(sentence(result)), ""]
    lines += _table(ladder_table(result) if result.ladder else overview(result))
    lines += ["", *(f"- **{item.name}.** {markdown(item.text)}" for item in checklist(result))]
    lines += [f"- **Note.** {markdown(note)}." for note in result.notes]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    head = [column.name for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [[markdown(str(cell)) for cell in row] for row in table.rows]
    return [f"| {' | '.join(row)} |" for row in [head, rule, *rows]]
