"""What a view is: something about model and attack that is shown beside the verdict, and judges nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field

from signstep.auditing.sections import Section
from signstep.diagnosing.bench import Bench
from signstep.errors import InputError
from signstep.registry import Brought


@dataclass(frozen=True)
class Shown:
    """What one view has to show.

    Attributes:
        sections: parts of the page.
        measures: numbers for the record, by name; what is not finite is left out.
    """

    sections: tuple[Section, ...]
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """One row of the table of views.

    Attributes:
        id: as on the command line.
        title: of its sections.
        question: that it answers.
        paper: where it comes from.
        cost: in passes, in words.
        run: makes it.
    """

    id: str
    title: str
    question: str
    paper: str
    cost: str
    run: Callable[[Bench], Shown]

    @property
    def name(self) -> str:
        """As tables know it."""
        return self.id


def row_of(brought: Brought) -> View:
    """The row that was brought.

    Raises:
        InputError: it is none.
    """
    if not isinstance(brought.thing, View):
        raise InputError(f"it is a {type(brought.thing).__name__}", remedy="name a signstep.diagnosing View")
    return brought.thing


def unseen(title: str, why: str) -> Shown:
    """There is nothing to show, and why."""
    return Shown((Section(title, (f"Not shown: {why}.",)),))
