"""What a test of the battery is: a question to the model, and what follows from the answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from signstep.diagnosing.bench import Bench, Cure
from signstep.errors import InputError
from signstep.registry import Brought

Unit = Literal["passes of the model", "runs of the attack"]


@dataclass(frozen=True)
class Suspect:
    """A cause that a test names, and what to try about it.

    Attributes:
        cause: in the words of the table.
        because: what was seen.
        cures: attacks that adapt to it, the first ones first.
        remedy: what the user may do that no attack can; a line of code, if there is one.
        blocks: whether the model cannot be judged as long as it stands and no cure has found more.
    """

    cause: str
    because: str
    cures: tuple[Cure, ...] = ()
    remedy: str = ""
    blocks: bool = False


@dataclass(frozen=True)
class Observed:
    """What one test has seen.

    Attributes:
        value: the statistic.
        fired: whether it is beyond the threshold.
        told: the evidence in a sentence.
        p: of a paired test, exact; None for others. Adjusted by Holm's rule for all paired tests of the battery.
        suspects: the causes that it names.
        asked: False where the model cannot be asked this; ``told`` says why.
    """

    value: float | None
    fired: bool
    told: str
    p: float | None = None
    suspects: tuple[Suspect, ...] = ()
    asked: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


def not_asked(why: str) -> Observed:
    """There is nothing to be asked."""
    return Observed(None, False, why, asked=False)


@dataclass(frozen=True)
class Test:
    """One row of the battery.

    Attributes:
        id: as in records and on the command line.
        question: that it puts to model and attack.
        statistic: what is measured.
        threshold: beyond which it fires.
        paper: where the question comes from.
        causes: that it can name.
        cures: that it proposes, in words.
        cost: in passes for each example, in words.
        run: asks it.
    """

    __test__: ClassVar[bool] = False  # pytest is not meant

    id: str
    question: str
    statistic: str
    threshold: str
    paper: str
    causes: tuple[str, ...]
    cures: str
    cost: str
    run: Callable[[Bench], Observed]

    @property
    def name(self) -> str:
        """As tables know it."""
        return self.id


def row_of(brought: Brought) -> Test:
    """The row that was brought.

    Raises:
        InputError: it is none.
    """
    if not isinstance(brought.thing, Test):
        raise InputError(f"it is a {type(brought.thing).__name__}", remedy="name a signstep.diagnosing Test")
    return brought.thing
