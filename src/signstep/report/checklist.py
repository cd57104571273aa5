"""The reporting checklist: what a reader must know to believe, compare or repeat the figures."""

from dataclasses import dataclass
from typing import Any

from signstep.auditing.record import UPPER_BOUND, AttackResult
from signstep.auditing.result import Result
from signstep.auditing.table import asks, claim, clean_word, requests_said
from signstep.report.attacks import strongest, success, targeted
from signstep.report.numerals import fraction, interval, percent, seconds, share

_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Item:
    """One entry: what is asked, and what is stated."""

    name: str
    text: str


def checklist(result: Result) -> tuple[Item, ...]:
    """Every item, in the order in which papers report them."""
    terms = result.terms
    return (
        Item("Model", result.model),
        Item("Data", result.data),
        Item("Attacker's knowledge", _knowledge(result)),
        Item(
            "Digital or physical",
            "Digital: the attacker sets the values of the input directly. Nothing was printed, played or filmed.",
        ),
        Item("Input scale", _scale(result)),
        Item("Threat", f"{terms.get('threat', _UNKNOWN)}."),
        Item("Norm", f"{terms.get('norm', _UNKNOWN)}."),
        Item("Size of the change (eps)", _size(terms)),
        Item("Goal and target rule", _goal(result)),
        Item("Loss", f"{terms.get('loss', _UNKNOWN)}, for the task {terms.get('task', _UNKNOWN)}."),
        Item("Gradient path", _gradient_path(result)),
        Item("Clipping", _clipping(result)),
        Item("Model mode", _mode(terms)),
        Item("Which examples count", _counted(result)),
        Item("Label source", _labels(terms)),
        Item("Baselines", _baselines(result)),
        Item("Attacks run; stronger ones", _stronger(result)),
        Item("Results", _results(result)),
        Item("Uncertainty", UPPER_BOUND),
        Item("Randomness and seed", _randomness(terms)),
        Item("Engine", _engine(result)),
        Item("Checks", _checks(result)),
        Item("Completeness", _complete(result)),
        Item("Cost and device", _cost(result)),
        Item("Versions", "; ".join(f"{name} {version}" for name, version in result.versions.items()) + "."),
        Item("SHA-256 of the weights", result.hashes.get("weights", _UNKNOWN)),
        Item("SHA-256 of the data", result.hashes.get("data", _UNKNOWN)),
        Item("SHA-256 of the model's code", _code(result)),
        Item("SHA-256 of the preprocessing", _preprocessing(result)),
    )


def _knowledge(result: Result) -> str:
    asking = [entry for entry in result.tried if asks(entry)]
    if not any(entry.needs == "gradients" for entry in result.tried):
        if asking:
            return f"Queries alone: {_asked(asking)}. No attack used gradients."
        return "None but the model's verdict on the returned points: no attack used gradients."
    if result.terms.get("gradients_from") == "surrogate":
        return (
            "Transfer: gradients of surrogate models; the attacked model gave verdicts alone. A white-box attacker can "
            "do more."
        )
    text = "White box: weights and gradients of the model itself; the attacker knows everything but random draws."
    return f"{text} Attacks that only asked: {_asked(asking)}." if asking else text


def _asked(entries: list[AttackResult]) -> str:
    words = {"scores": "for scores", "labels": "for the answer alone"}
    return "; ".join(f"{entry.name} {words[entry.needs]}" for entry in entries)


def _engine(result: Result) -> str:
    engine = result.terms.get("engine", _UNKNOWN)
    verdict = "The verdict on every returned point is by the model itself, in its own precision."
    if engine == "exact":
        return f"exact: the search ran on the model itself. {verdict}"
    made = [note for note in result.notes if note.startswith("search on a copy")]
    how = " ".join(f"{note}." for note in made) or "What was done to make a copy was not recorded."
    return f"{engine}: {how} {verdict}"


def _scale(result: Result) -> str:
    space: dict[str, Any] = result.terms.get("input_space") or {}
    mean, std = space.get("mean"), space.get("std")
    loader = "already normalised" if space.get("inputs") == "normalised" else "in raw units"
    normal = (
        "no normalisation was declared: the model takes them as they are, or normalises inside"
        if mean is None
        else f"the model is called with (x - mean) / std, mean = {_numbers(mean)}, std = {_numbers(std)}"
    )
    unit = "the model's normalised coordinates" if space.get("budget") == "normalised" else "raw input units"
    return f"The data came {loader}; {normal}. eps is measured in {unit}. {_box(result)}"


def _box(result: Result) -> str:
    span = result.terms.get("box_span")
    return "" if span is None else f"The range of valid inputs is {span:g} wide."


def _cost(result: Result) -> str:
    asked = result.terms.get("requests")
    sent = f" Sent to the endpoint: {requests_said(asked)}." if asked else ""
    return f"{seconds(result.seconds)} on {result.terms.get('device', _UNKNOWN)}; {_passes(result)}.{sent}"


def _size(terms: dict[str, Any]) -> str:
    written, value, span = terms.get("eps"), terms.get("eps_value"), terms.get("box_span")
    if value is None:
        threat = terms.get("threat", _UNKNOWN)
        return f"No single number: {written or threat}."
    same = "" if str(written) == f"{value:.6g}" else f"{written} = "
    if str(terms.get("norm")).partition("(")[0] == "l0":
        what = "coordinates" if terms.get("norm") == "l0" else f"groups of coordinates, {terms.get('norm')},"
        return f"At most {value:.0f} {what} change, each as far as the valid range allows."
    text = f"eps = {same}{value:.6g} in input units"
    if (terms.get("input_space") or {}).get("budget") == "normalised":
        return f"eps = {written} = {value:.6g} in normalised coordinates; in 1/255 it differs for each channel."
    if not span:
        return f"{text}; in 1/255: not defined, since the inputs have no single range."
    per = "" if terms.get("norm") == "linf" else f" (a length in {terms.get('norm')}, not the change of one coordinate)"
    return f"{text} = {255 * value / span:.4g}/255 of the valid range{per}."


def _goal(result: Result) -> str:
    if not targeted(result):
        return "Untargeted: any wrong answer counts. No target rule."
    rule = result.terms.get("target") or _UNKNOWN
    return (
        f"Targeted: only the target class counts. Target rule: {rule}. Examples that were at their target without the "
        "attack are left out of the success rate."
    )


def _gradient_path(result: Result) -> str:
    terms = result.terms
    if not any(entry.gradients for entry in result.attacks):
        return "No attack used gradients."
    space = terms.get("input_space") or {}
    parts = [
        "Gradients ran through the surrogates, not through the model"
        if terms.get("gradients_from") == "surrogate"
        else "Gradients ran through everything that the given model computes, defences inside it included",
        "through the declared normalisation" if space.get("mean") is not None else "no normalisation outside it",
        "what happened to the data before that (decoding, resizing) was not attacked",
    ]
    if terms.get("transform"):
        parts.append(f"inputs passed through a declared transform on their way to the model, {terms['transform']}")
    if isinstance(terms.get("defences"), dict):
        parts.append(
            "attacks went every way past it: by stand-ins, the identity, draws, and points of the undefended model"
            if terms["defences"].get("path") == "aware"
            else "attacks did not know of it: points were crafted on the undefended model"
        )
    if terms.get("eot", 1) > 1:
        parts.append(f"each gradient was the mean over {terms['eot']} draws (expectation over transformation)")
    behind = {
        "behind": "the model returns probabilities, and the logits behind them were searched",
        "lost": "the model returns probabilities whose logits could not be reached",
    }.get(str(terms.get("outputs_form")))
    dead = sum(entry.dead_gradients for entry in result.attacks)
    looked = sum(entry.gradients for entry in result.attacks)
    parts += [behind] if behind else []
    parts.append(f"{fraction(dead, looked)} gradients were dead")
    return "; ".join(parts) + "."


def _clipping(result: Result) -> str:
    text = str(result.terms.get("threat", ""))
    box = "Points were projected onto the ball" + (
        "; no box limits the values" if "no box" in text else " and the box in every step"
    )
    mask = ", inside the mask" if "mask (" in text else ""
    grid = ", and lie on the grid of the threat" if "grid of" in text else "; they were not rounded to 8 bits"
    return f"{box}{mask}{grid}."


def _mode(terms: dict[str, Any]) -> str:
    mode = terms.get("mode")
    if mode == "eval":
        return "Evaluation mode in every submodule (dropout off, BatchNorm with its stored statistics)."
    return "As given: no submodule's mode was changed." if mode == "keep" else f"{mode or _UNKNOWN}."


def _counted(result: Result) -> str:
    right = fraction(result.clean_right, result.examples)
    if result.ladder:
        return (
            f"The {result.clean_right} initially right of {result.examples} examples of the data named above were "
            "attacked, by each rung those still standing. Robust accuracy counts all examples, clean errors as errors; "
            f"attack success counts the initially right, {right}. {result.undetermined} undetermined examples count as "
            "not robust and not fooled."
        )
    return (
        f"All {result.examples} examples of the data named above were attacked. Robust accuracy counts all of them, "
        f"clean errors as errors; attack success counts the initially right, {right}. "
        f"{result.undetermined} undetermined examples count as not robust and not fooled."
    )


def _labels(terms: dict[str, Any]) -> str:
    labels = terms.get("labels")
    if labels == "given":
        return "True labels, given with the data."
    if labels == "predicted":
        return "The model's own predictions: accuracy here is agreement with itself."
    return f"{labels or _UNKNOWN}."


def _baselines(result: Result) -> str:
    controls = [entry for entry in result.attacks if entry.name.partition(":")[0] == "random-sign"]
    if not controls:
        return "No control was run: how much noise of the same size does is not known."
    return (
        "; ".join(
            f"{entry.name} (random signs, no gradient): {percent(share(*success(result, entry)))} success, "
            f"{fraction(*success(result, entry))}"
            for entry in controls
        )
        + "."
    )


def _stronger(result: Result) -> str:
    start = f"Ladder {result.ladder}: " if result.ladder else ""
    names = start + "; ".join(
        f"{entry.name}" + (f" ({entry.source})" if entry.source else "") for entry in result.tried
    )
    if result.set_aside:
        names += f"; not run: {', '.join(result.set_aside)}"
    return f"{names or 'none'}. {claim(result)}"


def _results(result: Result) -> str:
    parts = [f"{clean_word(result)} {_counted_share(result.clean_right, result.examples)}"]
    best = strongest(result)
    if targeted(result):
        if best is not None:
            parts.append(f"targeted success of {best.name} {_counted_share(*success(result, best))}")
        parts.append(f"right and kept off the target {_counted_share(result.held, result.examples)}")
    else:
        parts.append(f"robust accuracy, all attacks combined, {_counted_share(result.held, result.examples)}")
        parts.append(f"attack success {_counted_share(result.fooled, result.clean_right)}")
    parts.append(f"undetermined {fraction(result.undetermined, result.examples)}")
    return "; ".join(parts) + "."


def _counted_share(count: int, whole: int) -> str:
    return f"{percent(share(count, whole))} ({fraction(count, whole)}; 95 % interval {interval(count, whole)})"


def _randomness(terms: dict[str, Any]) -> str:
    model = (
        "The model is random; a point counts as fooling when most of 32 held-out passes fail"
        if terms.get("random_model")
        else "The model is deterministic as far as was seen"
    )
    return f"Seed {terms.get('seed', _UNKNOWN)}; draws depend on the seed and each example alone. {model}."


def _checks(result: Result) -> str:
    bad = sum(entry.unverified for entry in result.attacks)
    tolerance = result.terms.get("tolerance")
    limit = "" if tolerance is None else f" (tolerance {tolerance:.2g})"
    return (
        f"Every returned point was scored by the model itself and checked in float64 against the threat{limit}; {bad} "
        "failed the check and were not counted."
    )


def _complete(result: Result) -> str:
    if result.partial:
        return f"PARTIAL: the audit was interrupted after {result.examples} examples; the rest may differ."
    shard = result.terms.get("shard")
    if shard is not None and len(shard) == 3:
        return f"Of the data, examples {shard[0]} to {shard[1] - 1} alone, to the end of these."
    if shard is not None:
        return f"Shard {shard[0]}/{shard[1]}: every {shard[1]}-th example from number {shard[0]} on, to its end."
    return "The audit ran to its end."


def _code(result: Result) -> str:
    digest = result.hashes.get("code")
    if digest is None:
        return _UNKNOWN
    return f"{digest} (the Python files of the factory and the model's classes, with what they do to the input)"


def _preprocessing(result: Result) -> str:
    digest = result.hashes.get("preprocessing")
    if digest is None:
        return _UNKNOWN
    return f"{digest} (what Signstep does to the data: scale, colours, size, normalisation; in canonical words)"


def _passes(result: Result) -> str:
    return "; ".join(
        f"{entry.name} {entry.forwards:.1f} forward and {entry.backwards:.1f} backward passes per example"
        for entry in result.attacks
    )


def _numbers(values: object) -> str:
    return ", ".join(f"{value:.6g}" for value in values) if isinstance(values, list) else str(values)
