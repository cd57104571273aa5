"""Does the loss hide it?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from signstep.diagnosing.battery import graph
from signstep.diagnosing.battery.pairs import LEVEL, Pair, adjusted, pair
from signstep.diagnosing.bench import Bench, Cure, TooDearError, ladder_of
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.diagnosing.weighed import Tempered, Term

SATURATED, IMBALANCED = "saturated loss", "imbalanced loss"
_OTHERS = ("ce", "margin", "dlr")
# In units of the spread of a row's scores.
TEMPERATURES = (0.01, 0.1, 10.0, 100.0)
TERMS = ("the answer's score", "the runner-up's score")
STEPS = 20


@dataclass(frozen=True)
class _Loss:
    """A loss by its name, as changes of a search; ``copied`` names the surrogate among them."""

    name: str
    changes: dict[str, Any]
    copied: str = ""


def _run(bench: Bench) -> Observed:
    if ladder_of(bench.attack) is not None or bench.classes is None:
        return not_asked("a ladder has losses of its own" if bench.classes is not None else "the task has one loss")
    cut = bool(bench.seen.get("cut"))
    if bench.form == "labels" or (cut and not bench.seen.get("bridged")):
        return not_asked("there is no gradient to lead by a loss, see graph")
    own, on, path = bench.search.loss or "ce", bench.held, "bpda-pgd" if cut else "pgd"
    pairs: list[Pair] = []
    tried: list[_Loss] = []
    try:
        # One step more is another run of the same search: what a second try of one's own loss finds.
        again = bench.run(f"{path}:steps={STEPS + 1}", on=on)
        for loss in _losses(bench, own):
            if loss.copied and (min(adjusted(pairs), default=1.0) < LEVEL or not bool(bench.standing.any())):
                break  # a loss that has a name is enough
            ran = bench.run(f"{path}:steps={STEPS}", on=on, changes=loss.changes, name=loss.copied)
            pairs.append(pair(f"{loss.name} finds no more than {own}", ran.fooled, again.fooled))
            tried.append(loss)
    except TooDearError as error:
        if not pairs:
            return not_asked(str(error))
    if not pairs:
        return not_asked("the task has one loss")
    ps = adjusted(pairs)
    best = max(range(len(pairs)), key=lambda number: pairs[number].won - pairs[number].lost)
    told = "; ".join(
        f"{loss.name} alone fells {one.won}, {own} alone {one.lost}" for loss, one in zip(tried, pairs, strict=True)
    )
    value = float(pairs[best].won - pairs[best].lost)
    if ps[best] >= LEVEL:
        return Observed(value, False, told, ps[best])
    chosen = tried[best]
    cause = SATURATED if chosen.name == "ce" or own == "plain-ce" else IMBALANCED
    upon = graph.CAUSE if cut else ""
    first = Cure(f"{path}:steps={2 * STEPS}", chosen.changes, chosen.copied, upon=upon)
    cures = (first,) if cut or chosen.copied else (first, Cure("apgd:loss=margin,steps=30,targets=4"))
    return Observed(value, True, told, ps[best], (Suspect(cause, told, cures),))


def _losses(bench: Bench, own: str) -> Iterator[_Loss]:
    """Others than the attack's own: those that have names, then temperatures and the terms of the margin."""
    for other in _OTHERS:
        if other != own and not (other == "dlr" and (bench.classes or 0) < 4):
            yield _Loss(other, {"loss": None if other == "ce" else other})
    declared = bench.model
    if bench.form != "logits" or declared.output is not None or declared.inputs != "raw" or bench.search.surrogates:
        return  # there are no scores to be weighed
    network = declared.network
    for temperature in TEMPERATURES:
        made = replace(declared, network=Tempered(network, temperature), outputs="logits")
        name = f"scores at temperature {temperature:g}"
        yield _Loss(name, {"surrogate": made, "loss": None}, name)
    for rank, name in enumerate(TERMS):
        made = replace(declared, network=Term(network, rank), outputs="logits")
        yield _Loss(name, {"surrogate": made, "loss": None}, name)


ROW = Test(
    "losses",
    "Does the loss hide it?",
    "examples felled under another loss alone, less those under the attack's own loss alone: log-odds, margin, DLR, "
    f"temperatures from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g}, each term of the margin",
    f"exact paired p < {LEVEL}, by Holm's rule",
    "Croce & Hein 2020 (arXiv:2003.01690), section 4; margin decomposition: Ma et al. 2020 (arXiv:2006.13726)",
    (SATURATED, IMBALANCED),
    "the loss that found most; targeted margins",
    f"{STEPS} steps of pgd for each loss, on what the attack left standing; through stand-ins where a step is cut",
    _run,
)
