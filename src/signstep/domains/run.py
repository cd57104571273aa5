"""Running a case: the audit that all domains share, then the domain's own words about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from signstep.attacks.recipes import canonical
from signstep.auditing.evidence import Evidence
from signstep.auditing.ladder import Rung
from signstep.auditing.result import Result
from signstep.auditing.run import Curve, Job, Run
from signstep.domains.case import IMAGE, Case
from signstep.engine.attack import Attack
from signstep.engine.origin import contained
from signstep.errors import InputError
from signstep.model.search import Search
from signstep.scale.work import Reached


@contained
def audit_case(
    case: Case,
    *,
    attacks: Sequence[str | Attack] | None = None,
    ladder: str | Sequence[str | Attack | Rung] | None = None,
    curve: bool | Sequence[float] | Curve | None = None,
    search: Search | None = None,
    run: Run | None = None,
) -> Result:
    """Audit a case and let its domain say what was found.

    Args:
        case: what a domain made of its data.
        attacks: recipes instead of the case's own.
        ladder: a preset or a list of recipes, each for what the ones before have left standing, instead of ``attacks``.
        curve: as for `signstep.audit`; None, or sizes alone, trace random signs and the strongest attack too.
        search: how the attacker searches; None for the case's own way.
        run: as for `signstep.audit`; what the domain says of a shard is about the shard.

    Returns:
        A `Result` with the domain's sections.

    Raises:
        InputError: attacks and a ladder are both given; see also `signstep.audit`.
    """
    if attacks is not None and ladder is not None:
        raise InputError(
            "attacks and ladder are both given", remedy="pass one of them (a ladder may be a list of recipes)"
        )
    run = run or Run()
    kept = Evidence() if run.evidence is None else run.evidence
    model = case.model if run.device is None else case.model.to(run.device)
    data: Any = case.batches
    if run.executor is not None and case.again is not None and case.total is not None:
        data = Reached(case.batches, _Anew(case.again, attacks, ladder, curve, search), case.total)
    job = replace(_job(case, attacks, ladder, curve, search), model=model)
    result = job.audited(data, replace(run, data=case.data, hashes={**case.hashes, **run.hashes}, evidence=kept))
    if case.domain != IMAGE:
        stated = {**result.terms, "domain": case.domain, "domain_terms": dict(case.terms)}
        result = replace(result, terms=stated)
    result = replace(result, notes=(*result.notes, *case.notes))
    return replace(result, sections=case.summary(result, kept.tensors()))


@dataclass(frozen=True)
class _Anew:
    """The same audit, made anew from what was asked for, wherever it is called."""

    case: Callable[[], Case]
    attacks: Sequence[str | Attack] | None
    ladder: str | Sequence[str | Attack | Rung] | None
    curve: bool | Sequence[float] | Curve | None
    search: Search | None

    def __call__(self) -> Job:
        return _job(self.case(), self.attacks, self.ladder, self.curve, self.search)


def _job(
    case: Case,
    attacks: Sequence[str | Attack] | None,
    ladder: str | Sequence[str | Attack | Rung] | None,
    curve: bool | Sequence[float] | Curve | None,
    search: Search | None,
) -> Job:
    """What is to be run of a case: the domain's own attacks, and the curve that it draws by default."""
    given = None if ladder is not None else case.attacks if attacks is None else attacks
    chosen = None if given is None else [_own(case, spec) for spec in given]
    if isinstance(ladder, str):
        found = case.named(ladder)
        ladder = ladder if found is None else [found]
    elif ladder is not None:
        ladder = [_own_rung(case, spec) for spec in ladder]
    if not isinstance(curve, Curve):
        curve = Curve(case.curve if curve is None else curve, ("random-sign",) if ladder is not None else _last(chosen))
    run = Run(data=case.data, hashes=case.hashes)
    return Job(case.model, case.batches, case.threat, chosen, ladder, curve, None, search or case.search, run)


def _last(chosen: Sequence[str | Attack] | None) -> list[str]:
    """Random signs, where they are run, and the last attack, which is to be the strongest."""
    names = [canonical(spec) for spec in chosen or () if isinstance(spec, str)]
    return [name for name in names if name in ("random-sign", *names[-1:])]


def _own(case: Case, spec: str | Attack) -> str | Attack:
    """The domain's own attack of that name, or what was given."""
    found = case.named(spec) if isinstance(spec, str) else None
    return spec if found is None else found


def _own_rung(case: Case, spec: str | Attack | Rung) -> str | Attack | Rung:
    """A rung likewise; "pgd on image near<=0.3" is the attack "pgd on image" with a condition."""
    if not isinstance(spec, str):
        return spec
    name, near, number = spec.partition(" near<=")
    found = case.named(name)
    return spec if found is None else replace(Rung.of(f"rung{near}{number}"), recipe=found)
