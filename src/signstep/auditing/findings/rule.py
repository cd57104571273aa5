"""What a finding is: a rule with its text, the look that applies it, and two results that show when it does."""

from collections.abc import Callable
from dataclasses import dataclass

from signstep.auditing.record import Record
from signstep.messages import Message


@dataclass(frozen=True)
class Rule:
    """One entry of the catalogue."""

    code: str
    title: str
    meaning: str
    remedy: str


@dataclass(frozen=True)
class FindingRow:
    """One row of the table of findings: everything about one of them.

    Attributes:
        rule: its code and its text.
        look: the evidence in a result, as one line with figures; empty text where there is none. A `Message` where it
            names arguments, so that the command line can name its options.
        provoked: makes a result that has it.
        just_not: makes one that is as near to it as may be, and does not have it.
    """

    rule: Rule
    look: Callable[[Record], str | Message]
    provoked: Callable[[], Record]
    just_not: Callable[[], Record]

    @property
    def code(self) -> str:
        """What it is called by, in a configuration and on a page."""
        return self.rule.code
