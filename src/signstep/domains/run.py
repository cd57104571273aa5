"""Running a case: the audit that all domains share, then the domain's own words about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from signstep.attacks.recipes import canonical
from signstep.auditing.evidence import Evidence
from signstep.auditing.ladder import Rung
from signstep.auditing.result import Result
from signstep.auditing.run import audit
from signstep.domains.case import Case
from signstep.engine.attack import Attack
from signstep.engine.origin import contained
from signstep.model.subject import Model
from signstep.model.twin import Engine


@contained
def audit_case(
    case: Case,
    *,
    attacks: Sequence[str | Attack] | None = None,
    ladder: str | Sequence[str | Attack | Rung] | None = None,
    curve: bool | Sequence[float] | None = None,
    curve_attacks: Sequence[str] | None = None,
    transfer_to: Mapping[str, Model] | None = None,
    engine: Engine = "exact",
    eot: int = 1,
    seed: int = 0,
    shard: tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    evidence: Evidence | None = None,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Audit a case and let its domain say what was found.

    Args:
        case: what a domain made of its data.
        attacks: recipes instead of the case's own.
        ladder: a preset or a list of recipes, each for what the ones before have left standing, instead of ``attacks``.
        curve: sizes, as for `signstep.audit`; None for the case's own.
        curve_attacks: as for `signstep.audit`; None for random signs and the strongest.
        transfer_to: other models by name.
        engine: see `signstep.attack`.
        eot: see `signstep.attack`.
        seed: all randomness, together with each example's content.
        shard: (i, n) for every n-th example from the i-th on; what the domain says is then about these.
        device: where the work is done.
        evidence: collects the points that fooled.
        progress: called with the number of examples done.

    Returns:
        A `Result` with the domain's sections.
    """
    kept = Evidence() if evidence is None else evidence
    given = None if ladder is not None else case.attacks if attacks is None else attacks
    chosen = None if given is None else [_own(case, spec) for spec in given]
    if isinstance(ladder, str):
        found = case.named(ladder)
        ladder = ladder if found is None else [found]
    elif ladder is not None:
        ladder = [_own_rung(case, spec) for spec in ladder]
    names = [canonical(spec) for spec in chosen or () if isinstance(spec, str)]
    traced = [name for name in names if name in ("random-sign", *names[-1:])]
    result = audit(
        case.model,
        case.batches,
        threat=case.threat,
        attacks=chosen,
        ladder=ladder,
        curve=case.curve if curve is None else curve,
        transfer_to=transfer_to,
        task=case.task,
        loss=case.loss,
        engine=engine,
        eot=eot,
        seed=seed,
        shard=shard,
        device=device,
        describe_model=case.description,
        describe_data=case.data,
        classes=case.classes,
        hashes=case.hashes,
        curve_attacks=(("random-sign",) if ladder is not None else traced) if curve_attacks is None else curve_attacks,
        evidence=kept,
        progress=progress,
    )
    stated = {**result.terms, "domain": case.domain, "domain_terms": dict(case.terms)}
    result = replace(result, terms=stated, notes=(*result.notes, *case.notes))
    return replace(result, sections=case.summary(result, kept.tensors()))


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
