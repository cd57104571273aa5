"""Findings in the manner of a linter: what in a result should make its reader doubt or act.

Each has a code, the evidence as figures, what it means and what to do; `CATALOGUE` holds the texts, `examine` looks for
them. 1xx doubts the attack, 2xx the terms, 3xx the sample.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from signstep.auditing.compare import mcnemar
from signstep.auditing.result import AttackResult, Result
from signstep.core.statistics import wilson
from signstep.errors import InputError


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
        return f"{self.code} {self.title}: {self.evidence}{tail}"


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
            "A gradient attack cannot see anything where the gradient is zero or not finite; such examples are "
            "undetermined and not robust.",
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


def _only(result: Result, first: str, second: str) -> tuple[int, int]:
    """Right examples that only the first, and only the second, of two attacks fooled."""
    one, other = result.per_example.verdicts[first], result.per_example.verdicts[second]
    pairs = [
        (a == "f", b == "f") for a, b, clean in zip(one, other, result.per_example.clean, strict=True) if clean == "r"
    ]
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _named(result: Result, name: str) -> AttackResult | None:
    return next((entry for entry in result.attacks if entry.name.partition(":")[0] == name), None)


def _pgd_weaker(result: Result) -> str:
    single = _named(result, "fgsm")
    for entry in _iterated(result) if single else ():
        assert single is not None
        fgsm_only, other_only = _only(result, single.name, entry.name)
        if fgsm_only > other_only and mcnemar(fgsm_only, other_only) < 0.05:
            return (
                f"{entry.name} fools {entry.fooled} of {result.clean_right}, fgsm {single.fooled}; {fgsm_only} fall to "
                f"fgsm only, {other_only} to {entry.name} only"
            )
    return ""


def _fgsm_fails(result: Result) -> str:
    single, others = _named(result, "fgsm"), _iterated(result)
    if single is None or not others or not result.clean_right:
        return ""
    best = max(others, key=lambda entry: entry.fooled)
    gap = (best.fooled - single.fooled) / result.clean_right
    if gap < 0.25 or best.fooled < 2 * single.fooled:
        return ""
    return f"fgsm fools {single.fooled} of {result.clean_right}, {best.name} {best.fooled}"


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


def _leaks(result: Result) -> str:
    single = _named(result, "fgsm")
    if single is None or single.right_after is None or single.right_after <= result.clean_right:
        return ""
    return f"{single.right_after} of {result.examples} right at the FGSM points, {result.clean_right} untouched"


def _noise(result: Result) -> str:
    noise = _named(result, "random-sign")
    gradient = [entry for entry in result.attacks if entry.backwards > 0]
    if noise is None or not gradient or noise.fooled == 0:
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
    return "" if _iterated(result) else f"attacks run: {', '.join(entry.name for entry in result.attacks)}"


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
    if low > 1 / classes:  # better than guessing, by more than chance
        return ""
    return f"clean accuracy {100 * result.clean_accuracy:.1f} % with {classes} classes"


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
    "SS201": _unusual,
    "SS202": lambda result: "two passes over the same input differ" if result.terms.get("random_model") else "",
    "SS203": _probabilities,
    "SS204": lambda result: "no labels were given" if result.terms.get("labels") == "predicted" else "",
    "SS205": lambda result: (
        "budget is normalised" if (result.terms.get("input_space") or {}).get("budget") == "normalised" else ""
    ),
    "SS301": _few,
    "SS302": _chance,
    "SS303": lambda result: f"stopped after {result.examples} examples" if result.partial else "",
}
