"""What a diagnosis found, as it stands in a record: frozen, plain, and the same after a round trip through JSON.

It is read as an enemy may have written it: what no diagnosis can say of itself is refused.
"""

import shlex
import textwrap
from dataclasses import dataclass, field
from typing import Literal

from signstep.auditing.sections import Section
from signstep.engine.statistics import wilson
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.plain import one_line

# The median dual norm of the gradients: by this name `compare` puts models side by side.
GRADIENT_SIZE = "gradient size"

# A number is inflated where more than this share of the examples falls to a better attack.
POINTS = 0.02

Word = Literal["real", "inflated", "undetermined"]


@dataclass(frozen=True)
class Verdict:
    """One word, and the sentence that it begins."""

    word: Word
    text: str

    def __post_init__(self) -> None:
        if not self.text.startswith(self.word):
            raise InputError(Arg("text", self.text), remedy=f"let it begin with {self.word}")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Cause:
    """Why the number is too high.

    Attributes:
        name: of the cause.
        test: that named it.
        because: what was seen.
        cure: the attack that took most away, with what it changes.
        takes: examples that its cures felled, of those that the attack left standing.
    """

    name: str
    test: str
    because: str
    cure: str
    takes: int


@dataclass(frozen=True)
class Tested:
    """What one test found: see `Test`; ``asked`` is False where it could not be asked, and ``told`` says why."""

    id: str
    question: str
    asked: bool
    fired: bool
    statistic: str
    threshold: str
    value: float | None
    p: float | None
    told: str
    passes: int


@dataclass(frozen=True)
class Cost:
    """Passes, forwards and backwards, an example each.

    Attributes:
        attack: of the attack that is diagnosed.
        standard: of the ladder `standard`.
        tests: of all tests and cures.
        allowed: that these might have cost.
        shown: of what was asked for beside the verdict.
    """

    attack: int
    standard: int
    tests: int
    allowed: int
    shown: int = 0


@dataclass(frozen=True)
class Diagnosed:
    """Whether the number that an attack gives can be believed, as plain values.

    Attributes:
        model: description.
        data: description.
        threat: what may change.
        attack: that is diagnosed.
        examples: looked at, out of ``seen``.
        right: of these, answered rightly untouched.
        before: right examples that the attack left standing.
        after: right examples that nothing felled that was tried; of a random model, that the best single run left.
        standard: right examples that the ladder `standard` left standing; None where it could not be run.
        verdict: of the attack; its text begins with real, inflated or undetermined.
        standard_verdict: the same of `standard`; None where it could not be run.
        causes: by what each takes away, the largest first.
        signs: causes that a test named, and whose cures found nothing more.
        tests: the battery.
        cost: in passes.
        commands: options of `signstep audit`, beside those that are ``stated``, that give the adapted number again;
            where there are several an example has fallen when it falls in one of them.
        stated: options that say model, data and threat.
        needs: what a person must provide for a verdict, where it is undetermined.
        ineligible: why RobustBench would not admit the model; empty where nothing speaks against it.
        notes: what the reader must know.
        measures: numbers of what was shown beside the verdict, by name: what `compare` puts side by side.
        partial: it was interrupted.
        versions: of Signstep and torch.
    """

    model: str
    data: str
    threat: str
    attack: str
    examples: int
    seen: int
    right: int
    before: int
    after: int
    standard: int | None
    verdict: Verdict
    standard_verdict: Verdict | None
    causes: tuple[Cause, ...]
    signs: tuple[str, ...]
    tests: tuple[Tested, ...]
    cost: Cost
    commands: tuple[tuple[str, ...], ...]
    stated: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    ineligible: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    partial: bool = False
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for wrong, why in self._impossible():
            if wrong:
                raise InputError(f"no diagnosis says that {why}", remedy="pass what signstep diagnose gave")

    def _contradicted(self) -> list[tuple[bool, str]]:
        """Verdicts that are others than the counts they begin with. A random model may fall further than they say."""
        found = []
        for name, verdict, left in (
            ("it", self.verdict, self.before),
            ("standard", self.standard_verdict, self.standard),
        ):
            if verdict is None or left is None:
                continue
            fell, some = left - self.after > POINTS * self.examples, left > POINTS * self.examples
            share = f"{left / max(1, self.examples):.1%}"
            said = f"{name} is {verdict.word} where {left} stand, and {self.after} after all that was tried"
            found += [
                (fell and verdict.word != "inflated", said),
                (not fell and self.partial and some and verdict.word == "real", f"{said}, which was not all"),
                (not some and verdict.word == "undetermined", said),
                (share not in verdict.text, f"{name} has another share than {share} in its verdict"),
            ]
        return found

    def _impossible(self) -> list[tuple[bool, str]]:
        counts = f"{self.after} of {self.before} of {self.right} of {self.examples} of {self.seen} examples are left"
        ids = [one.id for one in self.tests]
        spent = (self.cost.attack, self.cost.standard, self.cost.tests, self.cost.allowed, self.cost.shown)
        return [
            (not 0 <= self.after <= self.before <= self.right <= self.examples <= self.seen, counts),
            (self.examples < 1, "no example was looked at"),
            (self.standard is not None and not 0 <= self.standard <= self.right, f"standard leaves {self.standard}"),
            ((self.standard is None) != (self.standard_verdict is None), "standard has half a verdict"),
            (any(not 0 <= one.takes <= self.before for one in self.causes), "a cause takes more than there was"),
            (any(one.p is not None and not 0 <= one.p <= 1 for one in self.tests), "a p-value is beyond 0 and 1"),
            (any(one.fired and not one.asked for one in self.tests), "a test fires that was not asked"),
            (len(set(ids)) < len(ids), "a test was asked twice"),
            (any(passes < 0 for passes in (*spent, *(one.passes for one in self.tests))), "it cost less than nothing"),
            (self.verdict.word == "inflated" and not self.causes, "a number is inflated without a cause"),
            *self._contradicted(),
        ]

    @property
    def commands_text(self) -> tuple[str, ...]:
        """The commands as they are typed."""
        return tuple(f"signstep audit {shlex.join((*self.stated, *words))}" for words in self.commands)

    def share(self, count: int) -> str:
        """A count of all examples in percent, with its 95 % interval."""
        low, high = wilson(count, self.examples)
        return f"{count / self.examples:.1%} [{low:.1%}, {high:.1%}]"

    def section(self) -> Section:
        """What a report says of it."""
        text = [str(self.verdict)]
        text += [] if self.standard_verdict is None else [f"standard: {self.standard_verdict}"]
        text.append(
            f"Of {self.examples} examples {self.share(self.before)} stand after {self.attack}, and "
            f"{self.share(self.after)} after all that was tried."
        )
        text += [
            f"{cause.name}: {cause.because}; {cause.cure} takes {cause.takes} example{'s'[: cause.takes != 1]} away"
            for cause in self.causes
        ]
        text += list(self.needs)
        text += [f"The adapted number again: {command}" for command in self.commands_text]
        rows = tuple((one.id, _word(one), one_line(one.told)) for one in self.tests)
        return Section("Is the number real?", tuple(map(one_line, text)), ("test", "", "what was seen"), rows)

    def __str__(self) -> str:
        return printed(self)


def _word(test: Tested) -> str:
    return "fires" if test.fired else "quiet" if test.asked else "not asked"


def printed(d: Diagnosed) -> str:
    """The diagnosis as text."""
    lines = [f"{d.model} under {d.attack}, {d.threat}", f"verdict   {d.verdict}"]
    if d.standard_verdict is not None:
        lines.append(f"standard  {d.standard_verdict}")
    lines.append(f"examples  {d.examples} of {d.seen}, {d.right} right untouched")
    lines.append(f"standing  after {d.attack} {d.share(d.before)}; after all that was tried {d.share(d.after)}")
    if d.causes:
        lines += ["", "causes, by the examples that each takes away"]
        for cause in d.causes:
            lines += _wrapped(
                f"{cause.takes:>4}  {cause.name} (test {cause.test}): {cause.because}; cure: {cause.cure}", 6
            )
    if d.signs:
        lines += ["", "suspected, and no cure found more"]
        for sign in d.signs:
            lines += _wrapped(f"      {sign}", 6)
    lines += ["", "tests"]
    for test in d.tests:
        p = "" if test.p is None else f" (p {test.p:.2g})"
        lines += _wrapped(f"  {test.id:<11} {_word(test):<10} {test.told}{p}", 25)
    if d.needs:
        lines += ["", "to settle it"]
        for need in d.needs:
            lines += _wrapped(f"  {need}", 4)
    if d.commands:
        lines += [
            "",
            "the adapted number again" + ("; fallen is what falls in one of these" if len(d.commands) > 1 else ""),
        ]
        lines += [f"  {command}" for command in d.commands_text]
    admitted = "nothing that was tested speaks against it" if not d.ineligible else f"no: {'; '.join(d.ineligible)}"
    cost = f"{d.cost.tests} passes for tests and cures, at most {d.cost.allowed}; attack {d.cost.attack}"
    lines += ["", f"RobustBench would admit the model: {admitted}", f"cost: {cost}, standard {d.cost.standard}"]
    lines += [f"measured: {name} {value:.4g}" for name, value in d.measures.items()]
    lines += [line for note in d.notes for line in _wrapped(f"note: {note}", 6)]
    return "\n".join(one_line(line) if line.strip() else line for line in lines)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(one_line(text) if not text.startswith(" ") else text, 110, subsequent_indent=" " * indent) or [
        text
    ]
