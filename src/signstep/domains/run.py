"""Running a case: the audit that all domains share, then the domain's own words about it."""

from collections.abc import Sequence
from dataclasses import replace

from signstep.attacks.recipes import canonical
from signstep.auditing.evidence import Evidence
from signstep.auditing.ladder import Rung
from signstep.auditing.result import Result
from signstep.auditing.run import Curve, Run, audit
from signstep.domains.case import IMAGE, Case
from signstep.engine.attack import Attack
from signstep.engine.origin import contained
from signstep.model.search import Search


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
    """
    run = run or Run()
    kept = Evidence() if run.evidence is None else run.evidence
    given = None if ladder is not None else case.attacks if attacks is None else attacks
    chosen = None if given is None else [_own(case, spec) for spec in given]
    if isinstance(ladder, str):
        found = case.named(ladder)
        ladder = ladder if found is None else [found]
    elif ladder is not None:
        ladder = [_own_rung(case, spec) for spec in ladder]
    if not isinstance(curve, Curve):
        curve = Curve(case.curve if curve is None else curve, ("random-sign",) if ladder is not None else _last(chosen))
    model = case.model if run.device is None else case.model.to(run.device)
    result = audit(
        model,
        case.batches,
        threat=case.threat,
        attacks=chosen,
        ladder=ladder,
        curve=curve,
        search=search or case.search,
        run=replace(run, data=case.data, hashes={**case.hashes, **run.hashes}, evidence=kept),
    )
    if case.domain != IMAGE:
        stated = {**result.terms, "domain": case.domain, "domain_terms": dict(case.terms)}
        result = replace(result, terms=stated)
    result = replace(result, notes=(*result.notes, *case.notes))
    return replace(result, sections=case.summary(result, kept.tensors()))


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
