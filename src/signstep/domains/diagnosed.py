"""An audit with a diagnosis: the number of its last attack is doubted, and the record says what came of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from signstep.attacks.recipes import canonical
from signstep.auditing.ladder import LADDERS, Rung
from signstep.auditing.ladder import ladder as find_ladder
from signstep.auditing.result import Result
from signstep.auditing.run import Run
from signstep.diagnosing.choosing import MOST
from signstep.diagnosing.run import diagnose
from signstep.domains.case import Case
from signstep.engine.attack import Attack
from signstep.errors import SignstepError


@dataclass(frozen=True)
class Doubt:
    """What is to be diagnosed after an audit.

    Attributes:
        examples: to look at.
        show: what to show beside the verdict, see `signstep.diagnose`.
        limit: choose among so many first examples.
        stated: options that say model, data and threat, for the commands that it prints.
    """

    examples: int = MOST
    show: tuple[str, ...] = ()
    limit: int | None = None
    stated: tuple[str, ...] = ()


def kept(case: Case) -> Case:
    """The case with batches that can be gone through twice: those that come once are held in memory."""
    return replace(case, batches=list(case.batches)) if isinstance(case.batches, Iterator) else case


def doubted(
    case: Case,
    attacks: Sequence[str | Attack] | None = None,
    ladder: str | Sequence[str | Attack | Rung] | None = None,
) -> str | Attack:
    """What of an audit is diagnosed: its preset, or the last of its attacks, which is to be the strongest."""
    if isinstance(ladder, str) and case.named(ladder) is None:
        return find_ladder(ladder).name
    last = ([ladder] if isinstance(ladder, str) else ladder or attacks or case.attacks)[-1]
    if isinstance(last, str):
        bare = last.partition(" near<=")[0]
        return case.named(bare) or (bare if bare in LADDERS else canonical(bare))
    found = last.recipe if isinstance(last, Rung) else last
    return canonical(found) if isinstance(found, str) else found


def diagnosed(case: Case, result: Result, attack: str | Attack, doubt: Doubt, run: Run) -> Result:
    """The result with a diagnosis of the case under an attack; a result stays what it is where none can be made.

    The audit is done by then: what goes wrong, or Ctrl-C, leaves a note.

    Args:
        case: what was audited, see `kept`.
        result: of the audit; one that was interrupted is not diagnosed.
        attack: see `doubted`.
        doubt: how.
        run: device, and what is called with the number of tests done.
    """
    if result.partial:
        return replace(result, notes=(*result.notes, "no diagnosis was made: the audit was interrupted"))
    try:
        found = diagnose(
            case.model,
            case.batches,
            threat=case.threat,
            attack=attack,
            examples=doubt.examples,
            limit=doubt.limit,
            search=case.search,
            show=doubt.show,
            run=Run(device=run.device, data=case.data, progress=run.progress),
        )
        return replace(found, stated=doubt.stated or found.stated).attach(result)
    except (SignstepError, KeyboardInterrupt) as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        return replace(result, notes=(*result.notes, f"no diagnosis was made: {why}"))
