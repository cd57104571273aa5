"""The terms of an audit: what its figures can be compared with, and what they are figures of."""

import math
from dataclasses import replace

from signstep.auditing.findings.rule import FindingRow, Rule
from signstep.auditing.findings.specimens import CLEAN, healthy, result
from signstep.auditing.input_spaces import EXAMPLES, TERM, fit_of
from signstep.auditing.record import Record
from signstep.messages import Message

# Sizes that papers and leaderboards report, inputs in [0, 1].
_USUAL = {
    "linf": [k / 255 for k in (0.5, 1, 2, 4, 8, 12, 16)] + [0.1, 0.2, 0.25, 0.3],
    "l2": [0.25, 0.5, 1.0, 128 / 255, 2.0, 3.0],
    "l1": [12.0, 10.0, 20.0, 60.0, 75.0],
}


def _unusual_eps(result: Record) -> str:
    norm, eps, span = (result.terms.get(name) for name in ("norm", "eps_value", "box_span"))
    usual = _USUAL.get(str(norm))
    if eps is None or usual is None or span != 1.0:
        return ""
    near = any(math.isclose(eps, value, rel_tol=1e-3) for value in usual)
    return "" if near else f"eps = {eps:.4g} in {norm} (8-bit steps: {eps * 255:.4g})"


UNUSUAL_EPS = FindingRow(
    Rule(
        "SS201",
        "unusual eps",
        "A figure at an unusual size cannot be compared with published ones.",
        "Report it beside a usual size (L-infinity 8/255 or 4/255, MNIST 0.3; L2 0.5; L1 12).",
    ),
    _unusual_eps,
    provoked=lambda: healthy(eps_value=8.01 / 255),
    just_not=lambda: healthy(eps_value=8.005 / 255),
)


def _random_model(result: Record) -> str:
    """A transform that was declared makes answers random too, and is not the model's doing."""
    declared = result.terms.get("transform") and not any("the model draws random" in note for note in result.notes)
    return "two passes over the same input differ" if result.terms.get("random_model") and not declared else ""


RANDOM_MODEL = FindingRow(
    Rule(
        "SS202",
        "the model is random",
        "Each example was judged by the majority of 32 held-out passes; a gradient of one pass is noisy.",
        "Attack the expectation over the randomness (EOT), or switch it off.",
    ),
    _random_model,
    provoked=lambda: healthy(random_model=True),
    just_not=lambda: healthy(random_model=True, transform="Noise(std=0.1)"),
)


def _probabilities(result: Record) -> str:
    form = result.terms.get("outputs_form", "logits")
    said = {"behind": "the logits behind them were searched", "lost": "the logits behind them could not be reached"}
    return said.get(str(form), "")


PROBABILITIES = FindingRow(
    Rule(
        "SS203",
        "the model returns probabilities",
        "Softmax and sigmoid saturate; the search used their input where it could be had, else their logarithm.",
        "Return logits.",
    ),
    _probabilities,
    provoked=lambda: healthy(outputs_form="lost"),
    just_not=lambda: healthy(outputs_form="logits"),
)

OWN_LABELS = FindingRow(
    Rule(
        "SS204",
        "labels are the model's own predictions",
        "This is agreement with the model itself, not accuracy.",
        "Give true labels where there are any.",
    ),
    lambda result: "no labels were given" if result.terms.get("labels") == "predicted" else "",
    provoked=lambda: healthy(labels="predicted"),
    just_not=lambda: healthy(labels="given"),
)

NORMALISED_BUDGET = FindingRow(
    Rule(
        "SS205",
        "eps measured in normalised coordinates",
        "The same number means a different change for each channel, and no published figure is stated so.",
        "Leave budget at raw.",
    ),
    lambda result: (
        "budget is normalised" if (result.terms.get("input_space") or {}).get("budget") == "normalised" else ""
    ),
    provoked=lambda: healthy(input_space={"inputs": "normalised", "budget": "normalised"}),
    just_not=lambda: healthy(input_space={"inputs": "normalised", "budget": "raw"}),
)


def _other_space(record: Record) -> str | Message:
    fit, part = fit_of(record), record.terms.get("threat_terms")
    if fit is None:
        return ""
    ends = [part.get(name) for name in ("low", "high")] if isinstance(part, dict) else [None]
    whole = len(ends) == 2 and all(type(end) in (int, float) for end in ends)
    stated = (record.terms.get("input_space") or {}).get("mean") is not None
    return fit.message(*(ends if whole else (0.0, 1.0)), stated=stated)


def _looked(wrong: int) -> Record:
    """Of 64 examples of ten classes so many wrong as declared, and none with the statistics of ImageNet."""
    clean = "w" * wrong + "r" * (EXAMPLES - wrong) + CLEAN
    check = {"rows": list(range(EXAMPLES)), "right": {"imagenet": "r" * EXAMPLES}, "most": EXAMPLES}
    column = "f" * 600 + "h" * (len(clean) - 600)
    found = result(clean, {"fgsm": column, "pgd": column}, threat_terms={"low": 0.0, "high": 1.0}, **{TERM: check})
    labels = tuple(place % 10 for place in range(len(clean)))
    return replace(found, per_example=replace(found.per_example, labels=labels))


OTHER_SPACE = FindingRow(
    Rule(
        "SS206",
        "another input space fits far better",
        "The model is not given the inputs that it was trained on; what is robust then is no model that anybody uses.",
        "Declare the space that the model was trained in; where its own file declares it (a processor, an ss.Model), "
        "correct it there.",
    ),
    _other_space,
    # Bonferroni's correction has nothing to correct here: 13 of 64 are 20 points, 12 are not.
    provoked=lambda: _looked(13),
    just_not=lambda: _looked(12),
)


ROWS = (UNUSUAL_EPS, RANDOM_MODEL, PROBABILITIES, OWN_LABELS, NORMALISED_BUDGET, OTHER_SPACE)
