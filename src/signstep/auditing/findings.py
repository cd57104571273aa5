"""Findings in the manner of a linter: what in a result should make its reader doubt or act.

Each has a code, the evidence as figures, what it means and what to do; `CATALOGUE` holds the texts, `examine` looks for
them. 1xx doubts the attack, 2xx the terms, 3xx the sample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from signstep.auditing.compare import mcnemar
from signstep.auditing.result import AttackResult, Result
from signstep.auditing.table import asks, iterated
from signstep.engine.statistics import wilson
from signstep.errors import InputError
from signstep.importing import name_and_options
from signstep.plain import one_line


@dataclass(frozen=True)
class Rule:
    """One entry of the catalogue."""

    code: str
    title: str
    meaning: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """A rule that applies, with its evidence; ``ignored`` holds the reason if the configuration sets it aside."""

    code: str
    title: str
    evidence: str
    meaning: str
    remedy: str
    ignored: str | None = None

    def __str__(self) -> str:
        tail = f" (ignored: {self.ignored})" if self.ignored else ""
        return one_line(f"{self.code} {self.title}: {self.evidence}{tail}")


CATALOGUE: dict[str, Rule] = {
    rule.code: rule
    for rule in (
        Rule(
            "SS101",
            "iterated attack weaker than FGSM",
            "PGD contains FGSM's step; if it finds less, its step size, projection, mode or loss is wrong for this "
            "model, "
            "or gradients away from the clean input are masked.",
            "Try more steps with a smaller step (pgd:steps=100), other losses (--loss margin), and restarts; attack "
            "the "
            "whole pipeline.",
        ),
        Rule(
            "SS102",
            "FGSM fails where PGD succeeds",
            "The loss is strongly curved or masked around the data, as after FGSM training that collapsed: one step "
            "says "
            "nothing about this model.",
            "Never report the FGSM figure alone; for training see catastrophic overfitting (random start, N-FGSM, "
            "GradAlign).",
        ),
        Rule(
            "SS103",
            "success falls as eps grows",
            "A larger ball contains the smaller one, so a sound attack cannot find less; FGSM alone may overshoot, and "
            "label leaking makes it worse.",
            "Rely on attacks that search inside the ball (pgd), not on the single step, at these sizes.",
        ),
        Rule(
            "SS104",
            "gradients vanish",
            "A gradient attack cannot see anything where the gradient is zero or not finite. An example that no other "
            "attack could search is undetermined and not robust; one that was searched by queries alone is held on "
            "their word, which is worth less.",
            "Return logits, not probabilities or hard decisions; remove detach, rounding and saturating layers or "
            "attack "
            "through a surrogate; use query-only attacks.",
        ),
        Rule(
            "SS105",
            "accuracy under FGSM above clean accuracy",
            "The perturbation tells the model the right label (label leaking): the sign of FGSM training from the "
            "clean "
            "point that has collapsed.",
            "Look at PGD; retrain with a random start and watch a held-out PGD accuracy.",
        ),
        Rule(
            "SS106",
            "random signs fool as often as the gradient",
            "If noise of the same size does as well, the gradient is worth nothing here: masked gradients, or a "
            "budget at "
            "which anything goes.",
            "Check the gradient path and the size of eps; use query-only attacks.",
        ),
        Rule(
            "SS107",
            "examples survive a budget that destroys the image",
            "At half of the box every input can be turned into plain grey, so accuracy above chance cannot be real.",
            "Treat the model as masking its gradients: use random restarts, query-only and transfer attacks.",
        ),
        Rule(
            "SS108",
            "returned points failed verification",
            "A point outside ball, box, mask or grid proves nothing; it was not counted.",
            "Please report it: this is a defect of the attack, not of the model.",
        ),
        Rule(
            "SS109",
            "no iterated attack was run",
            "FGSM is one linear step. Models that survive it often fall to PGD entirely.",
            "Add pgd, with steps and restarts.",
        ),
        Rule(
            "SS110",
            "a query-only attack finds more than the gradients did",
            "Who asks for scores or labels alone sees less than who has gradients. Finding what gradients missed, by "
            "an exact test more than 1 % of the right answers, is the classic sign of masked gradients.",
            "Do not trust gradient attacks on this model alone: give the query-only attack more queries and restarts, "
            "attack through a smooth surrogate (smooth-pgd, BPDA), and look for what hides the gradient.",
        ),
        Rule(
            "SS111",
            "smoothed gradients find more than plain ones",
            "With the rectifiers softened in the backward pass the same search finds clearly more, so that plain "
            "gradients lead astray here: the loss surface is shattered.",
            "Rely on smooth-pgd and on query-only attacks for this model, and compare it with others by these alone.",
        ),
        Rule(
            "SS112",
            "the ladder had not settled",
            "The last rung still felled more than 1 in 1,000 of the right answers. A further one may find more; how "
            "much cannot be said from these numbers.",
            "Climb a longer ladder (thorough), or add rungs of the kind that still pays, and state how the last ones "
            "went.",
        ),
        Rule(
            "SS113",
            "a stronger attack does worse",
            "The same attack with more steps, restarts, targets or queries contains the smaller one or outlasts it; "
            "finding less on the same examples, by more than chance, means that its step size or loss does not suit "
            "this model.",
            "Use apgd, which chooses its step itself, or set step= for the longer run; report the worst case over "
            "both.",
        ),
        Rule(
            "SS114",
            "no gradient was followed",
            "Every rung that follows gradients was set aside: there are none to follow. What was tried only asks, "
            "which makes a far weaker attacker; that it failed says little.",
            "Attack a differentiable surrogate (surrogate=, --surrogate), let the model return scores without detach, "
            "rounding or NumPy on the way, or state the figure as one of a query-only attack, with its queries.",
        ),
        Rule(
            "SS201",
            "unusual eps",
            "A figure at an unusual size cannot be compared with published ones.",
            "Report it beside a usual size (L-infinity 8/255 or 4/255, MNIST 0.3; L2 0.5; L1 12).",
        ),
        Rule(
            "SS202",
            "the model is random",
            "Each example was judged by the majority of 32 held-out passes; a gradient of one pass is noisy.",
            "Attack the expectation over the randomness (EOT), or switch it off.",
        ),
        Rule(
            "SS203",
            "the model returns probabilities",
            "Softmax and sigmoid saturate; the search used their input where it could be had, else their logarithm.",
            "Return logits.",
        ),
        Rule(
            "SS204",
            "labels are the model's own predictions",
            "This is agreement with the model itself, not accuracy.",
            "Give true labels where there are any.",
        ),
        Rule(
            "SS205",
            "eps measured in normalised coordinates",
            "The same number means a different change for each channel, and no published figure is stated so.",
            "Leave budget at raw.",
        ),
        Rule(
            "SS301",
            "few examples",
            "The interval of robust accuracy is wide.",
            "Use more examples: 1,000 give about +-3 points.",
        ),
        Rule(
            "SS302",
            "clean accuracy near chance",
            "Wrong scale, wrong class order or untrained weights look like this; robustness of such a model means "
            "nothing.",
            "Check mean, std, box and the order of classes with data the model was trained on.",
        ),
        Rule(
            "SS303",
            "the audit was interrupted",
            "The figures cover the examples seen so far, which may not be like the rest.",
            "Run it to the end; a partial result passes no gate.",
        ),
    )
}


def examine(result: Result, ignore: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """The findings of a result, in the order of their codes.

    Args:
        result: what an audit returned.
        ignore: codes to set aside, each with the reason.

    Raises:
        InputError: an ignored code does not exist or has no reason.
    """
    check_ignored(ignore or {})
    found = []
    for code, look in _LOOKS.items():
        evidence = look(result)
        if evidence:
            rule = CATALOGUE[code]
            found.append(Finding(code, rule.title, evidence, rule.meaning, rule.remedy, (ignore or {}).get(code)))
    return tuple(found)


def check_ignored(ignore: Mapping[str, str]) -> None:
    """Whether the codes to set aside exist and have reasons.

    Raises:
        InputError: one does not, or has none.
    """
    for code, reason in ignore.items():
        if code not in CATALOGUE:
            raise InputError(f"ignore names {code!r}, which is no finding; the codes are {', '.join(CATALOGUE)}")
        if not reason.strip():
            raise InputError(f"ignore sets {code} aside without a reason; write one, it is printed with the finding")


def _iterated(result: Result) -> list[AttackResult]:
    return [entry for entry in result.attacks if entry.steps > 1]


def _felled(result: Result, *entries: AttackResult) -> list[bool]:
    """For each right example whether any of these attacks fooled it."""
    columns = [result.per_example.verdicts[entry.name] for entry in entries]
    right = [row for row, letter in enumerate(result.per_example.clean) if letter == "r"]
    return [any(column[row] == "f" for column in columns) for row in right]


def _only(one: list[bool], other: list[bool]) -> tuple[int, int]:
    """Right examples that only the first, and only the second, of two fooled."""
    pairs = list(zip(one, other, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _more(one: int, other: int) -> bool:
    """Whether the first felled more that the second did not than the other way round, by more than chance."""
    return one > other and mcnemar(one, other) < 0.05


def _exceeds(count: int, whole: int, share: float) -> bool:
    """Whether a count is more than this share of the whole, by an exact binomial test at 5 %.

    >>> _exceeds(15, 1000, 0.01), _exceeds(16, 1000, 0.01)
    (False, True)
    """
    below = math.fsum(
        math.exp(
            math.lgamma(whole + 1)
            - math.lgamma(k + 1)
            - math.lgamma(whole - k + 1)
            + k * math.log(share)
            + (whole - k) * math.log1p(-share)
        )
        for k in range(min(count, whole + 1))
    )
    return count > share * whole and 1 - below < 0.05


def _named(result: Result, name: str) -> AttackResult | None:
    return next((entry for entry in result.attacks if _base(entry) == name), None)


def _scope(entry: AttackResult) -> str:
    """The inputs that an attack changes, where a domain says so in its name ("fgsm on text"); else nothing."""
    return entry.name.partition(" on ")[2]


def _pairs(result: Result) -> list[tuple[AttackResult, list[AttackResult]]]:
    """FGSM, and the iterated attacks that change the same inputs."""
    singles = [entry for entry in result.attacks if _base(entry) == "fgsm"]
    return [(single, [entry for entry in _iterated(result) if _scope(entry) == _scope(single)]) for single in singles]


def _base(entry: AttackResult) -> str:
    """The recipe without options, and without what a ladder adds to it."""
    return name_and_options(entry.name.partition(" ")[0])[0]


def _pgd_weaker(result: Result) -> str:
    # On a ladder the two never met the same examples.
    for single, others in () if result.ladder else _pairs(result):
        for entry in others:
            fgsm_only, other_only = _only(_felled(result, single), _felled(result, entry))
            if _more(fgsm_only, other_only):
                return (
                    f"{entry.name} fools {entry.fooled} of {result.clean_right}, {single.name} {single.fooled}; "
                    f"{fgsm_only} fall to {single.name} only, {other_only} to {entry.name} only"
                )
    return ""


def _fgsm_fails(result: Result) -> str:
    return next(filter(None, (_single_fails(result, single, others) for single, others in _pairs(result))), "")


def _single_fails(result: Result, single: AttackResult, others: Sequence[AttackResult]) -> str:
    if not others or not result.clean_right:
        return ""
    if result.ladder:
        # A rung that met all right examples, beside what fell to it and to the iterated rungs together.
        count = sum(_felled(result, single, *others)) if single.entered >= result.clean_right else 0
        best, name = count, "with the iterated rungs"
    else:
        strongest = max(others, key=lambda entry: entry.fooled)
        best, name = strongest.fooled, strongest.name
    gap = (best - single.fooled) / result.clean_right
    if gap < 0.25 or best < 2 * single.fooled:
        return ""
    return f"{single.name} fools {single.fooled} of {result.clean_right}, {name} {best}"


def _queries_find_more(result: Result) -> str:
    """On a ladder: what query-only rungs felled after gradients; else what all gradients together left to them."""
    gradient = [entry for entry in result.attacks if entry.needs == "gradients" and entry.steps > 1]
    asking = [entry for entry in result.attacks if asks(entry)]
    if result.ladder:
        asking = [entry for entry, spent in zip(result.attacks, _spent(result), strict=True) if spent >= _SERIOUS]
        asking = [entry for entry in asking if asks(entry)]
        if asking and _exceeds(sum(_felled(result, *asking)), result.clean_right, _MATTERS):
            felled = (f"{entry.name} {entry.fooled} of {entry.entered}" for entry in asking if entry.fooled)
            return (
                f"of {result.clean_right} right answers, felled by queries after {_SERIOUS} or more gradients for each "
                f"example: {', '.join(felled)}"
            )
        return ""
    for entry in asking if gradient else ():
        asked, led = _only(_felled(result, entry), _felled(result, *gradient))
        if _exceeds(asked, result.clean_right, _MATTERS):
            return (
                f"{asked} of {result.clean_right} right answers fall to {entry.name}, which asks for {entry.needs} "
                f"alone, and not to {_names(gradient)}; {led} the other way round"
            )
    return ""


def _spent(result: Result) -> list[float]:
    """For each rung the backward passes that the rungs before have spent on each example they met."""
    spent, found = 0.0, []
    for entry in result.attacks:
        found.append(spent)
        if entry.needs == "gradients" and entry.entered:
            spent += entry.backwards * result.examples / entry.entered
    return found


def _smoothing_finds_more(result: Result) -> str:
    for place, entry in enumerate(result.attacks):
        if not _smooth(entry):
            continue
        others = result.attacks[:place] if result.ladder else result.attacks
        plain = [other for other in others if other.needs == "gradients" and other.steps > 1 and not _smooth(other)]
        if not plain:
            continue
        if result.ladder:
            if _exceeds(entry.fooled, entry.entered, _MANY):
                return f"{entry.name} fools {entry.fooled} of the {entry.entered} that {_names(plain)} left standing"
            continue
        smoothed, led = _only(_felled(result, entry), _felled(result, *plain))
        if _more(smoothed, led) and _exceeds(smoothed, result.clean_right, _MATTERS):
            return f"{smoothed} fall to {entry.name} only, {led} only to {_names(plain)}, of {result.clean_right} right"
    return ""


def _not_settled(result: Result) -> str:
    """The numbers of the last rungs, and nothing beyond them."""
    tried = result.tried
    if not result.ladder or result.partial or result.held == 0 or len(tried) < 2:
        return ""
    last = tried[-1]
    if last.fooled <= _SETTLED * result.clean_right:
        return ""
    tail = (f"{entry.name} felled {entry.fooled} of {entry.entered}" for entry in tried[-3:])
    return f"of {result.clean_right} right answers the last rungs, in their order: {'; '.join(tail)}"


def _stronger_worse(result: Result) -> str:
    if result.ladder:
        return ""
    for strong in result.attacks:
        for weak in result.attacks:
            if not _contains(strong, weak):
                continue
            weak_only, strong_only = _only(_felled(result, weak), _felled(result, strong))
            if _more(weak_only, strong_only):
                return (
                    f"{strong.name} fools {strong.fooled} of {result.clean_right}, {weak.name} {weak.fooled}; "
                    f"{weak_only} fall to {weak.name} only, {strong_only} to {strong.name} only"
                )
    return ""


def _contains(strong: AttackResult, weak: AttackResult) -> bool:
    """The same recipe with nothing less, and something more, of what makes an attack stronger."""
    if _base(strong) != _base(weak) or _scope(strong) != _scope(weak):
        return False
    one, other = _options(strong), _options(weak)
    if {name: value for name, value in one.items() if name not in _STRENGTH} != {
        name: value for name, value in other.items() if name not in _STRENGTH
    }:
        return False
    more = [float(strong.steps - weak.steps)]
    for name, default in _STRENGTH.items():
        if name == "steps" or (name not in one and name not in other):
            continue
        first, second = one.get(name, default), other.get(name, default)
        if first is None or second is None:  # a default that is not known here
            return False
        more.append(float(first) - float(second))
    return min(more) >= 0 and max(more) > 0


def _options(entry: AttackResult) -> dict[str, str]:
    told = name_and_options(entry.name.partition(" on ")[0])[1]
    parts = (part.partition("=") for part in told.split(",") if part)
    return {name: value for name, _, value in parts}


def _smooth(entry: AttackResult) -> bool:
    return _base(entry) == "smooth-pgd"


def _names(entries: Sequence[AttackResult]) -> str:
    return " and ".join(entry.name for entry in entries)


def _falls(result: Result) -> str:
    for before, after in zip(result.curve, result.curve[1:], strict=False):
        if before.fooled > after.fooled and result.clean_right:
            low, _ = wilson(before.fooled, result.clean_right)
            _, high = wilson(after.fooled, result.clean_right)
            if high < low:
                return f"fgsm fools {before.fooled} at eps {before.eps:.4g} and {after.fooled} at eps {after.eps:.4g}"
    return ""


def _vanish(result: Result) -> str:
    for entry in result.attacks:
        if entry.gradients and (entry.dead_gradients > 0.01 * entry.gradients or entry.undetermined):
            return (
                f"{entry.name}: {entry.dead_gradients} of {entry.gradients} gradients had no usable coordinate, "
                f"{entry.undetermined} examples undetermined"
            )
    return ""


def _unled(result: Result) -> str:
    """Rungs that need gradients, of which all were set aside; one that was set aside for its norm leaves others."""
    aside = result.set_aside
    led = [entry for entry in result.attacks if entry.needs == "gradients"]
    if not led or not all(entry.name in aside and not entry.entered for entry in led):
        return ""
    rest = [f"{entry.name} ({entry.needs})" for entry in result.tried if entry.needs != "nothing"]
    return (
        f"{len(led)} of {len(result.attacks)} rungs need gradients and were not run; tried: {', '.join(rest) or 'none'}"
    )


def _leaks(result: Result) -> str:
    single = _named(result, "fgsm")
    if single is None or single.right_after is None or single.right_after <= result.clean_right:
        return ""
    return f"{single.right_after} of {result.examples} right at the FGSM points, {result.clean_right} untouched"


def _noise(result: Result) -> str:
    noise = _named(result, "random-sign")
    gradient = [entry for entry in result.attacks if entry.backwards > 0]
    # On a ladder gradients meet only what noise has left, so their counts cannot be set side by side.
    if noise is None or not gradient or noise.fooled == 0 or result.ladder:
        return ""
    best = max(gradient, key=lambda entry: entry.fooled)
    return f"random-sign fools {noise.fooled}, {best.name} {best.fooled}" if noise.fooled >= best.fooled else ""


def _survive(result: Result) -> str:
    span = result.terms.get("box_span")
    if not span or result.terms.get("norm") != "linf" or result.terms.get("goal") != "untargeted":
        return ""
    eps, held, classes = result.terms.get("eps_value"), result.held, result.terms.get("classes")
    if eps is not None and classes and eps >= span / 2 and result.interval(held)[0] > 1 / classes:
        return f"{held} of {result.examples} survive every attack at eps {eps:.4g}, half of the box"
    return ""


def _unverified(result: Result) -> str:
    bad = sum(entry.unverified for entry in result.attacks)
    return f"{bad} points" if bad else ""


def _no_iterated(result: Result) -> str:
    return (
        ""
        if any(iterated(entry) for entry in result.tried)
        else f"attacks run: {', '.join(entry.name for entry in result.tried) or 'none'}"
    )


def _random(result: Result) -> str:
    """A transform that was declared makes answers random too, and is not the model's doing."""
    declared = result.terms.get("transform") and not any("the model draws random" in note for note in result.notes)
    return "two passes over the same input differ" if result.terms.get("random_model") and not declared else ""


def _unusual(result: Result) -> str:
    norm, eps, span = (result.terms.get(name) for name in ("norm", "eps_value", "box_span"))
    usual = _USUAL.get(str(norm))
    if eps is None or usual is None or span != 1.0:
        return ""
    near = any(math.isclose(eps, value, rel_tol=1e-3) for value in usual)
    return "" if near else f"eps = {eps:.4g} in {norm} (8-bit steps: {eps * 255:.4g})"


def _probabilities(result: Result) -> str:
    form = result.terms.get("outputs_form", "logits")
    said = {"behind": "the logits behind them were searched", "lost": "the logits behind them could not be reached"}
    return said.get(str(form), "")


def _few(result: Result) -> str:
    low, high = result.interval(result.held)
    if not result.examples or high - low <= 0.1:
        return ""
    return f"{result.examples} examples: robust accuracy lies between {100 * low:.1f} % and {100 * high:.1f} %"


def _chance(result: Result) -> str:
    classes = result.terms.get("classes")
    if not classes or result.terms.get("labels") == "predicted" or not result.examples:
        return ""
    low, _ = result.interval(result.clean_right)
    # Better than guessing by more than chance; of a handful that were all right nothing else is to be said either.
    if low > 1 / classes or result.clean_right == result.examples:
        return ""
    return f"clean accuracy {100 * result.clean_accuracy:.1f} % with {classes} classes"


# Shares of the right answers: what makes a missed example matter; of those a later rung met: what counts as many; and
# what the last rung may still fell on a ladder that has settled.
_MATTERS, _MANY, _SETTLED = 0.01, 0.05, 0.001

# Gradients for each example after which one may say that gradients were tried: one run of APGD.
_SERIOUS = 80

# Options of which more makes an attack stronger, with the value where they are not written; None where it depends.
_STRENGTH: dict[str, str | None] = {"steps": None, "restarts": "1", "targets": "0", "queries": None, "searches": None}

# Sizes that papers and leaderboards report, inputs in [0, 1].
_USUAL = {
    "linf": [k / 255 for k in (0.5, 1, 2, 4, 8, 12, 16)] + [0.1, 0.2, 0.25, 0.3],
    "l2": [0.25, 0.5, 1.0, 128 / 255, 2.0, 3.0],
    "l1": [12.0, 10.0, 20.0, 60.0, 75.0],
}

_LOOKS: dict[str, Callable[[Result], str]] = {
    "SS101": _pgd_weaker,
    "SS102": _fgsm_fails,
    "SS103": _falls,
    "SS104": _vanish,
    "SS105": _leaks,
    "SS106": _noise,
    "SS107": _survive,
    "SS108": _unverified,
    "SS109": _no_iterated,
    "SS110": _queries_find_more,
    "SS111": _smoothing_finds_more,
    "SS112": _not_settled,
    "SS113": _stronger_worse,
    "SS114": _unled,
    "SS201": _unusual,
    "SS202": _random,
    "SS203": _probabilities,
    "SS204": lambda result: "no labels were given" if result.terms.get("labels") == "predicted" else "",
    "SS205": lambda result: (
        "budget is normalised" if (result.terms.get("input_space") or {}).get("budget") == "normalised" else ""
    ),
    "SS301": _few,
    "SS302": _chance,
    "SS303": lambda result: f"stopped after {result.examples} examples" if result.partial else "",
}
