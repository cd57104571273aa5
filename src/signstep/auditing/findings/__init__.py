"""Findings in the manner of a linter: what in a result should make its reader doubt or act.

Each is one `FindingRow`: a rule with its text, the look that finds its evidence, and two results that provoke it and
just do not. `FINDINGS` holds them all, `examine` looks for them. Codes 1xx doubt the attack, 2xx the terms, 3xx the
sample.

>>> examine(FINDINGS["SS303"].provoked())[0].evidence
'stopped after 1000 examples'
>>> examine(FINDINGS["SS303"].just_not())
()
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from signstep.auditing.findings import masked_gradients, sample, single_step, strength, terms
from signstep.auditing.findings.external import SPELLING, row_of
from signstep.auditing.findings.rule import FindingRow, Rule
from signstep.auditing.record import Record
from signstep.errors import InputError
from signstep.frames import named, place
from signstep.messages import Arg, Message
from signstep.plain import one_line
from signstep.registry import Registry

__all__ = ["CATALOGUE", "FINDINGS", "Finding", "FindingRow", "Rule", "check_ignored", "examine"]

_ROWS = (*single_step.ROWS, *masked_gradients.ROWS, *strength.ROWS, *terms.ROWS, *sample.ROWS)

FINDINGS: Registry[FindingRow] = Registry(
    "signstep.findings",
    SPELLING,
    row_of,
    {row.code: row for row in _ROWS},
    argument="finding",
    under=lambda row: row.code,
)


class _Catalogue(Mapping[str, Rule]):
    """The rules that are looked for, in the order of their codes, whenever it is asked.

    One that an installed package brings is among them once somebody has asked for it (`FINDINGS.find`): what is found
    in a result must not depend on what else is installed where it is read.
    """

    def __getitem__(self, code: str) -> Rule:
        return FINDINGS.asked_for[code].rule

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(FINDINGS.asked_for))

    def __len__(self) -> int:
        return len(FINDINGS.asked_for)


CATALOGUE: Mapping[str, Rule] = _Catalogue()


@dataclass(frozen=True)
class Finding:
    """A rule that applies, with its evidence; ``ignored`` holds the reason if the configuration sets it aside.

    ``message`` is the evidence in parts, where it names arguments.
    """

    code: str
    title: str
    evidence: str
    meaning: str
    remedy: str
    ignored: str | None = None
    message: Message | None = field(default=None, compare=False)

    def said(self, words: Callable[[Message], str] = str) -> str:
        """On one line; ``words`` writes a message, as the command line does with the names of its options."""
        tail = f" (ignored: {self.ignored})" if self.ignored else ""
        evidence = self.evidence if self.message is None else words(self.message)
        return one_line(f"{self.code} {self.title}: {evidence}{tail}")

    def __str__(self) -> str:
        return self.said()


def examine(result: Record, ignore: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """The findings of a result, in the order of their codes.

    Args:
        result: what an audit returned.
        ignore: codes to set aside, each with the reason.

    Raises:
        InputError: an ignored code does not exist or has no reason.
    """
    check_ignored(ignore or {})
    found = []
    for code, rule in CATALOGUE.items():
        evidence = _looked(code, result)
        if evidence:
            message = evidence if isinstance(evidence, Message) else None
            why = (ignore or {}).get(code)
            found.append(Finding(code, rule.title, str(evidence), rule.meaning, rule.remedy, why, message))
    return tuple(found)


def _looked(code: str, result: Record) -> str | Message:
    """The evidence; of a look of somebody else's that fails, how."""
    look = FINDINGS[code].look
    if code in FINDINGS.own:
        return look(result)
    try:
        return str(look(result))
    except Exception as error:  # a result must not be lost for it
        return f"its look failed with {named(error)}{place(error)}; mend it"


def check_ignored(ignore: Mapping[str, str]) -> None:
    """Whether the codes to set aside exist and have reasons.

    Raises:
        InputError: one does not, or has none.
    """
    for code, reason in ignore.items():
        if code not in CATALOGUE:
            raise InputError(
                Arg("ignore"), f"names {code!r}, which is no finding", remedy=f"pass one of {', '.join(CATALOGUE)}"
            )
        if not reason.strip():
            raise InputError(
                Arg("ignore"),
                f"sets {code} aside without a reason",
                remedy="write one, it is printed with the finding",
            )
