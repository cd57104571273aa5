"""Gradients that are not there, that lead astray, or that were not followed."""

from signstep.auditing.findings.counting import MATTERS, base, exceeds, felled, more, named, names, only
from signstep.auditing.findings.rule import FindingRow, Rule
from signstep.auditing.findings.specimens import changed, healthy, ladder, with_attack
from signstep.auditing.record import AttackResult, Record, aside_note
from signstep.auditing.table import asks


def _vanish(result: Record) -> str:
    for entry in result.attacks:
        if entry.gradients and (entry.dead_gradients > 0.01 * entry.gradients or entry.undetermined):
            return (
                f"{entry.name}: {entry.dead_gradients} of {entry.gradients} gradients had no usable coordinate, "
                f"{entry.undetermined} examples undetermined"
            )
    return ""


VANISH = FindingRow(
    Rule(
        "SS104",
        "gradients vanish",
        "A gradient attack cannot see anything where the gradient is zero or not finite. An example that no other "
        "attack could search is undetermined and not robust; one that was searched by queries alone is held on "
        "their word, which is worth less.",
        "Return logits, not probabilities or hard decisions; remove detach, rounding and saturating layers or attack "
        "through a surrogate; use query-only attacks.",
    ),
    _vanish,
    provoked=lambda: with_attack("fgsm", dead_gradients=11),
    just_not=lambda: with_attack("fgsm", dead_gradients=10),
)


def _noise_as_good(result: Record) -> str:
    noise = named(result, "random-sign")
    gradient = [entry for entry in result.attacks if entry.backwards > 0]
    # On a ladder gradients meet only what noise has left, so their counts cannot be set side by side.
    if noise is None or not gradient or noise.fooled == 0 or result.ladder:
        return ""
    best = max(gradient, key=lambda entry: entry.fooled)
    return f"random-sign fools {noise.fooled}, {best.name} {best.fooled}" if noise.fooled >= best.fooled else ""


NOISE_AS_GOOD = FindingRow(
    Rule(
        "SS106",
        "random signs fool as often as the gradient",
        "If noise of the same size does as well, the gradient is worth nothing here: masked gradients, or a budget at "
        "which anything goes.",
        "Check the gradient path and the size of eps; use query-only attacks.",
    ),
    _noise_as_good,
    provoked=lambda: changed("random-sign", "f" * 400 + "h" * 600),
    just_not=lambda: changed("random-sign", "f" * 399 + "h" * 601),
)


def _survive(result: Record) -> str:
    span = result.terms.get("box_span")
    if not span or result.terms.get("norm") != "linf" or result.terms.get("goal") != "untargeted":
        return ""
    eps, held, classes = result.terms.get("eps_value"), result.held, result.terms.get("classes")
    if eps is not None and classes and eps >= span / 2 and result.interval(held)[0] > 1 / classes:
        return f"{held} of {result.examples} survive every attack at eps {eps:.4g}, half of the box"
    return ""


SURVIVE = FindingRow(
    Rule(
        "SS107",
        "examples survive a budget that destroys the image",
        "At half of the box every input can be turned into plain grey, so accuracy above chance cannot be real.",
        "Treat the model as masking its gradients: use random restarts, query-only and transfer attacks.",
    ),
    _survive,
    provoked=lambda: healthy(eps_value=0.5),
    just_not=lambda: healthy(eps_value=127 / 255),
)

# Gradients for each example after which one may say that gradients were tried: one run of APGD.
_SERIOUS = 80


def _queries_find_more(result: Record) -> str:
    """On a ladder: what query-only rungs felled after gradients; else what all gradients together left to them."""
    gradient = [entry for entry in result.attacks if entry.needs == "gradients" and entry.steps > 1]
    asking = [entry for entry in result.attacks if asks(entry)]
    if result.ladder:
        asking = [entry for entry, spent in zip(result.attacks, _spent(result), strict=True) if spent >= _SERIOUS]
        asking = [entry for entry in asking if asks(entry)]
        if asking and exceeds(sum(felled(result, *asking)), result.clean_right, MATTERS):
            told = (f"{entry.name} {entry.fooled} of {entry.entered}" for entry in asking if entry.fooled)
            return (
                f"of {result.clean_right} right answers, felled by queries after {_SERIOUS} or more gradients for each "
                f"example: {', '.join(told)}"
            )
        return ""
    for entry in asking if gradient else ():
        asked, led = only(felled(result, entry), felled(result, *gradient))
        if exceeds(asked, result.clean_right, MATTERS):
            return (
                f"{asked} of {result.clean_right} right answers fall to {entry.name}, which asks for {entry.needs} "
                f"alone, and not to {names(gradient)}; {led} the other way round"
            )
    return ""


def _spent(result: Record) -> list[float]:
    """For each rung the backward passes that the rungs before have spent on each example they met."""
    spent, found = 0.0, []
    for entry in result.attacks:
        found.append(spent)
        if entry.needs == "gradients" and entry.entered:
            spent += entry.backwards * result.examples / entry.entered
    return found


QUERIES_FIND_MORE = FindingRow(
    Rule(
        "SS110",
        "a query-only attack finds more than the gradients did",
        "Who asks for scores or labels alone sees less than who has gradients. Finding what gradients missed, by an "
        "exact test more than 1 % of the right answers, is the classic sign of masked gradients.",
        "Do not trust gradient attacks on this model alone: give the query-only attack more queries and restarts, "
        "attack through a smooth surrogate (smooth-pgd, BPDA), and look for what hides the gradient.",
    ),
    _queries_find_more,
    # 14 of 900 beyond what PGD finds may be chance where 1 % is expected.
    provoked=lambda: changed("square", "h" * 385 + "f" * 30 + "h" * 585),
    just_not=lambda: changed("square", "h" * 386 + "f" * 28 + "h" * 586),
)

# The share of those that a later rung met from which on it felled many.
_MANY = 0.05


def _smoothing_finds_more(result: Record) -> str:
    for place, entry in enumerate(result.attacks):
        if not _smooth(entry):
            continue
        others = result.attacks[:place] if result.ladder else result.attacks
        plain = [other for other in others if other.needs == "gradients" and other.steps > 1 and not _smooth(other)]
        if not plain:
            continue
        if result.ladder:
            if exceeds(entry.fooled, entry.entered, _MANY):
                return f"{entry.name} fools {entry.fooled} of the {entry.entered} that {names(plain)} left standing"
            continue
        smoothed, led = only(felled(result, entry), felled(result, *plain))
        if more(smoothed, led) and exceeds(smoothed, result.clean_right, MATTERS):
            return f"{smoothed} fall to {entry.name} only, {led} only to {names(plain)}, of {result.clean_right} right"
    return ""


def _smooth(entry: AttackResult) -> bool:
    return base(entry) == "smooth-pgd"


SMOOTHING_FINDS_MORE = FindingRow(
    Rule(
        "SS111",
        "smoothed gradients find more than plain ones",
        "With the rectifiers softened in the backward pass the same search finds clearly more, so that plain "
        "gradients lead astray here: the loss surface is shattered.",
        "Rely on smooth-pgd and on query-only attacks for this model, and compare it with others by these alone.",
    ),
    _smoothing_finds_more,
    provoked=lambda: changed("smooth-pgd", "f" * 415 + "h" * 585),
    just_not=lambda: changed("smooth-pgd", "f" * 414 + "h" * 586),
)


def _none_followed(result: Record) -> str:
    """Rungs that need gradients, of which all were set aside; one that was set aside for its norm leaves others."""
    aside = result.set_aside
    led = [entry for entry in result.attacks if entry.needs == "gradients"]
    if not led or not all(entry.name in aside and not entry.entered for entry in led):
        return ""
    rest = [f"{entry.name} ({entry.needs})" for entry in result.tried if entry.needs != "nothing"]
    return (
        f"{len(led)} of {len(result.attacks)} rungs need gradients and were not run; tried: {', '.join(rest) or 'none'}"
    )


def _set_aside(**more_rungs: str) -> Record:
    """A ladder whose PGD was not run, with a query-only rung and others after it."""
    columns = {"pgd": "-" * 1000, "square": "f" * 400 + "h" * 500 + "-" * 100, **more_rungs}
    return ladder(columns, notes=(aside_note("pgd", "no way back"),))


NONE_FOLLOWED = FindingRow(
    Rule(
        "SS114",
        "no gradient was followed",
        "Every rung that follows gradients was set aside: there are none to follow. What was tried only asks, which "
        "makes a far weaker attacker; that it failed says little.",
        "Attack a differentiable surrogate (surrogate=, --surrogate), let the model return scores without detach, "
        "rounding or NumPy on the way, or state the figure as one of a query-only attack, with its queries.",
    ),
    _none_followed,
    provoked=_set_aside,
    just_not=lambda: _set_aside(apgd="-" * 400 + "h" + "-" * 599),
)


ROWS = (VANISH, NOISE_AS_GOOD, SURVIVE, QUERIES_FIND_MORE, SMOOTHING_FINDS_MORE, NONE_FOLLOWED)
