"""The diagnosis in a record against the rest of it: of the same model and threat, and the report says what it says."""

from signstep.auditing.checks import Book, Check
from signstep.auditing.result import Result


def agreement(result: Result) -> Check:
    """Whether the diagnosis is of this audit, as far as the record alone can tell.

    What it found is not found again: that is what its commands are for.
    """
    stated, book = result.diagnosis, Book()
    if stated is None:
        return Check("diagnosis", True, "there is none")
    book.same("model", stated.model, result.model)
    book.same("threat", stated.threat, result.terms.get("threat"))
    book.need(
        stated.seen <= result.examples or "left_out" in result.terms,
        f"it chose among {stated.seen} examples, and the audit saw {result.examples}",
    )
    book.need(stated.section() in result.sections, "the report's section is another one than it gives")
    return book.check("diagnosis", f"{stated.verdict.word}; it agrees with the record, and was not made again")
