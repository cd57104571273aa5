"""The search itself: points that do not count, a ladder that stopped early, more effort that found less."""

from signstep.auditing.findings.counting import base, felled, more, only, scope
from signstep.auditing.findings.rule import FindingRow, Rule
from signstep.auditing.findings.specimens import changed, rungs, watched, with_attack
from signstep.auditing.record import AttackResult, Record
from signstep.importing import name_and_options


def _unverified(result: Record) -> str:
    bad = sum(entry.unverified for entry in result.attacks)
    return f"{bad} points" if bad else ""


UNVERIFIED = FindingRow(
    Rule(
        "SS108",
        "returned points failed verification",
        "A point outside ball, box, mask or grid proves nothing; it was not counted.",
        "Please report it: this is a defect of the attack, not of the model.",
    ),
    _unverified,
    provoked=lambda: with_attack("pgd", unverified=1),
    just_not=lambda: with_attack("pgd", unverified=0),
)

# The share of the right answers that the last rung may still fell on a ladder that has settled.
_SETTLED = 0.001


def _not_settled(result: Record) -> str:
    """The numbers of the last rungs, and nothing beyond them."""
    tried = result.tried
    if not result.ladder or result.partial or result.held == 0 or len(tried) < 2:
        return ""
    last = tried[-1]
    if last.fooled <= _SETTLED * result.clean_right:
        return ""
    tail = (f"{entry.name} felled {entry.fooled} of {entry.entered}" for entry in tried[-3:])
    return f"of {result.clean_right} right answers the last rungs, in their order: {'; '.join(tail)}"


NOT_SETTLED = FindingRow(
    Rule(
        "SS112",
        "the ladder had not settled",
        "The last rung still felled more than 1 in 1,000 of the right answers. A further one may find more; how much "
        "cannot be said from these numbers.",
        "Climb a longer ladder (thorough), or add rungs of the kind that still pays, and state how the last ones went.",
    ),
    _not_settled,
    provoked=lambda: rungs(400, 1, names=("pgd", "apgd")),
    just_not=lambda: rungs(400, 0, names=("pgd", "apgd")),
)

# Options of which more makes an attack stronger, with the value where they are not written; None where it depends.
_STRENGTH: dict[str, str | None] = {"steps": None, "restarts": "1", "targets": "0", "queries": None, "searches": None}


def _stronger_worse(result: Record) -> str:
    if result.ladder:
        return ""
    for strong in result.attacks:
        for weak in result.attacks:
            if not _contains(strong, weak):
                continue
            weak_only, strong_only = only(felled(result, weak), felled(result, strong))
            if more(weak_only, strong_only):
                return (
                    f"{strong.name} fools {strong.fooled} of {result.clean_right}, {weak.name} {weak.fooled}; "
                    f"{weak_only} fall to {weak.name} only, {strong_only} to {strong.name} only"
                )
    return ""


def _contains(strong: AttackResult, weak: AttackResult) -> bool:
    """The same recipe with nothing less, and something more, of what makes an attack stronger."""
    if base(strong) != base(weak) or scope(strong) != scope(weak):
        return False
    one, other = _options(strong), _options(weak)
    if {name: value for name, value in one.items() if name not in _STRENGTH} != {
        name: value for name, value in other.items() if name not in _STRENGTH
    }:
        return False
    beyond = [float(strong.steps - weak.steps)]
    for name, default in _STRENGTH.items():
        if name == "steps" or (name not in one and name not in other):
            continue
        first, second = one.get(name, default), other.get(name, default)
        if first is None or second is None:  # a default that is not known here
            return False
        beyond.append(float(first) - float(second))
    return min(beyond) >= 0 and max(beyond) > 0


def _options(entry: AttackResult) -> dict[str, str]:
    told = name_and_options(entry.name.partition(" on ")[0])[1]
    parts = (part.partition("=") for part in told.split(",") if part)
    return {name: value for name, _, value in parts}


STRONGER_WORSE = FindingRow(
    Rule(
        "SS113",
        "a stronger attack does worse",
        "The same attack with more steps, restarts, targets or queries contains the smaller one or outlasts it; "
        "finding less on the same examples, by more than chance, means that its step size or loss does not suit this "
        "model.",
        "Use apgd, which chooses its step itself, or set step= for the longer run; report the worst case over both.",
    ),
    _stronger_worse,
    # Of 400 that fall to 20 steps, 100 steps miss 10 and find 2 others; of 13 so different, 3 others may be chance.
    provoked=lambda: changed("pgd:steps=100", "h" * 10 + "f" * 392 + "h" * 598),
    just_not=lambda: changed("pgd:steps=100", "h" * 10 + "f" * 393 + "h" * 597),
)


def _implausible(result: Record) -> str:
    """Examples that stand behind detectors at eps and fall without at half of it, and the other way round."""
    eps, found = result.terms.get("eps_value"), result.detection
    if found is None or eps is None or not found.detectors:
        return ""
    flagged = [found.flagged(p) for p in found.clean()]
    rows = list(zip(result.per_example.smallest_eps, result.per_example.clean, flagged, found.evaded, strict=True))
    right = [(small, flag, letter) for small, clean, flag, letter in rows if clean == "r"]
    stands = [not flag and letter != "f" for _, flag, letter in right]
    falls = [small is not None and small <= eps / 2 for small, _, _ in right]
    kept = sum(one and other for one, other in zip(stands, falls, strict=True))
    lost = sum(not one and not other for one, other in zip(stands, falls, strict=True))
    if not more(kept, lost):
        return ""
    return (
        f"behind the detectors {sum(stands)} of {len(right)} right answers stand at eps {eps:.4g}; {kept} of these "
        f"fall to FGSM at {eps / 2:.4g} without"
    )


IMPLAUSIBLE = FindingRow(
    Rule(
        "SS115",
        "detectors stronger than is plausible",
        "A detector that is robust at eps gives a classifier that is robust at eps / 2 (Tramer 2022, "
        "arXiv:2107.11630, by a search that may take for ever). More examples stand behind these detectors at eps than "
        "this model answers rightly at half of it, by more than chance: 12 of 14 such claims fell to a better attack.",
        "Believe that the attack is too weak before you believe this: go more ways (Run(ways=...)), or write one aimed "
        "at these detectors.",
    ),
    _implausible,
    # Of 900 right answers 300 fall at half the eps, and 10 (300) are evaded at the whole.
    provoked=lambda: watched(10),
    just_not=lambda: watched(600),
)


ROWS = (UNVERIFIED, NOT_SETTLED, STRONGER_WORSE, IMPLAUSIBLE)
