"""Does the loss hide it?"""

from signstep.diagnosing.battery.pairs import LEVEL, Pair, adjusted, pair
from signstep.diagnosing.bench import Bench, Cure, TooDearError, ladder_of
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked

SATURATED, IMBALANCED = "saturated loss", "imbalanced loss"
_OTHERS = ("ce", "margin", "dlr")
STEPS = 20


def _run(bench: Bench) -> Observed:
    if ladder_of(bench.attack) is not None or bench.classes is None:
        return not_asked("a ladder has losses of its own" if bench.classes is not None else "the task has one loss")
    if bench.form == "labels" or bench.seen.get("cut"):
        return not_asked("there is no gradient to lead by a loss, see graph")
    own, on = bench.search.loss or "ce", bench.held
    pairs: list[Pair] = []
    names: list[str] = []
    try:
        # One step more is another run of the same search: what a second try of one's own loss finds.
        again = bench.run(f"pgd:steps={STEPS + 1}", on=on)
        for other in _OTHERS:
            if other == own or (other == "dlr" and bench.classes < 4):
                continue
            ran = bench.run(f"pgd:steps={STEPS}", on=on, changes={"loss": None if other == "ce" else other})
            pairs.append(pair(f"{other} finds no more than {own}", ran.fooled, again.fooled))
            names.append(other)
    except TooDearError as error:
        if not pairs:
            return not_asked(str(error))
    ps = adjusted(pairs)
    best = max(range(len(pairs)), key=lambda number: pairs[number].won - pairs[number].lost)
    told = "; ".join(
        f"{name} alone fells {one.won}, {own} alone {one.lost}" for name, one in zip(names, pairs, strict=True)
    )
    value = float(pairs[best].won - pairs[best].lost)
    if ps[best] >= LEVEL:
        return Observed(value, False, told, ps[best])
    chosen = names[best]
    cause = SATURATED if chosen == "ce" or own == "plain-ce" else IMBALANCED
    changes = {"loss": None if chosen == "ce" else chosen}
    cures = (Cure(f"pgd:steps={2 * STEPS}", changes), Cure("apgd:loss=margin,steps=30,targets=4"))
    return Observed(value, True, told, ps[best], (Suspect(cause, told, cures),))


ROW = Test(
    "losses",
    "Does the loss hide it?",
    "examples felled under the log-odds, the margin or DLR alone, less those under the attack's own loss alone",
    f"exact paired p < {LEVEL}, by Holm's rule",
    "Croce & Hein 2020 (arXiv:2003.01690), section 4; imbalanced gradients: arXiv:2006.13726",
    (SATURATED, IMBALANCED),
    "the loss that found most; targeted margins",
    f"{STEPS} steps of pgd for each loss, on what the attack left standing",
    _run,
)
