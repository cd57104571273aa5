"""The sample: whether these examples can carry the figure."""

from dataclasses import replace

from signstep.auditing.findings.rule import FindingRow, Rule
from signstep.auditing.findings.specimens import healthy, result
from signstep.auditing.record import Record


def _few_examples(result: Record) -> str:
    low, high = result.interval(result.held)
    if not result.examples or high - low <= 0.1:
        return ""
    return f"{result.examples} examples: robust accuracy lies between {100 * low:.1f} % and {100 * high:.1f} %"


def _half_held(count: int) -> Record:
    column = "f" * (count // 2) + "h" * (count - count // 2)
    return result("r" * count, {"fgsm": column, "pgd": column})


FEW_EXAMPLES = FindingRow(
    Rule(
        "SS301",
        "few examples",
        "The interval of robust accuracy is wide.",
        "Use more examples: 1,000 give about +-3 points.",
    ),
    _few_examples,
    provoked=lambda: _half_held(380),
    just_not=lambda: _half_held(382),
)


def _near_chance(result: Record) -> str:
    classes = result.terms.get("classes")
    if not classes or result.terms.get("labels") == "predicted" or not result.examples:
        return ""
    low, _ = result.interval(result.clean_right)
    # Better than guessing by more than chance; of a handful that were all right nothing else is to be said either.
    if low > 1 / classes or result.clean_right == result.examples:
        return ""
    return f"clean accuracy {100 * result.clean_accuracy:.1f} % with {classes} classes"


def _right(count: int) -> Record:
    return result("r" * count + "w" * (1000 - count), {"fgsm": "h" * 1000, "pgd": "h" * 1000})


NEAR_CHANCE = FindingRow(
    Rule(
        "SS302",
        "clean accuracy near chance",
        "Wrong scale, wrong class order or untrained weights look like this; robustness of such a model means nothing.",
        "Check mean, std, box and the order of classes with data the model was trained on.",
    ),
    _near_chance,
    # Of ten classes, 100 of 1,000 are right by chance.
    provoked=lambda: _right(118),
    just_not=lambda: _right(119),
)

INTERRUPTED = FindingRow(
    Rule(
        "SS303",
        "the audit was interrupted",
        "The figures cover the examples seen so far, which may not be like the rest.",
        "Run it to the end; a partial result passes no gate.",
    ),
    lambda result: f"stopped after {result.examples} examples" if result.partial else "",
    provoked=lambda: replace(healthy(), partial=True),
    just_not=healthy,
)


ROWS = (FEW_EXAMPLES, NEAR_CHANCE, INTERRUPTED)
