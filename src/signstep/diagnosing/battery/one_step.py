"""FGSM held and iterated attacks fell: which of the three reasons?"""

import torch

from signstep.attacks.recipes import recipe
from signstep.diagnosing.battery.pairs import LEVEL, pair
from signstep.diagnosing.bench import Bench, Cure, TooDearError, flat, ladder_of, median
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.keys import Key
from signstep.engine.tree import tree_map
from signstep.errors import GradientError

FEW = 32
TRAINED, CURVED, MORE = "trained against one step", "curved loss", "more than one step needed"
# Of the change that the gradient predicts; beyond, the loss is not near its linearisation.
ERROR = 0.75
# Of examples whose loss is lower at the end of the step than half-way: the step leads over what it should find.
OVER, SOME = 0.5, 0.25
# Of the right answers that one step leaves standing: as good as untouched.
ALL = 0.9
STEPS = (2, 4, 8)


def _run(bench: Bench) -> Observed:
    if ladder_of(bench.attack) is not None or recipe(bench.attack).steps != 1:
        return not_asked("the attack takes several steps")
    if not bench.seen.get("path", True):
        return not_asked("there is no gradient, see graph")
    assert bench.named is not None
    try:
        iterated = bench.run("pgd:steps=20")
    except TooDearError as error:
        return not_asked(str(error))
    found = pair("several steps find no more than one", iterated.fooled, bench.named.fooled)
    told = f"pgd alone fells {found.won}, {bench.named.spec} alone {found.lost}"
    if found.p >= LEVEL:
        return Observed(float(found.won - found.lost), False, told, found.p)
    try:
        missed, fell = _linearity(bench)
    except GradientError:
        return not_asked("there is no path for gradients, see graph")
    told += f"; along the step the loss misses its linearisation by {missed:.0%} of it"
    told += f", and is lower at its end than half-way for {fell:.0%} of examples"
    kept = int((bench.right & ~bench.named.fooled).sum()) / max(1, int(bench.right.sum()))
    told += f"; one step leaves {kept:.0%} of the right answers"
    told += _left(bench, found.won)
    over = fell > OVER or (kept >= ALL and fell > SOME)
    cause = TRAINED if over else CURVED if missed > ERROR else MORE
    cures = (Cure("pgd:steps=40"), Cure("apgd:loss=margin,steps=30,targets=4"))
    return Observed(float(found.won - found.lost), True, told, found.p, (Suspect(cause, told, cures),))


def _left(bench: Bench, won: int) -> str:
    """After how many steps half of what several steps find has left the basin."""
    for steps in STEPS:
        try:
            ran = bench.run(f"bim:steps={steps}", on=bench.held)
        except TooDearError:
            return ""
        if 2 * int((ran.fooled & bench.held).sum()) >= won:
            return f"; {steps} steps find half of what 20 find"
    return f"; {STEPS[-1]} steps find less than half of what 20 find"


def _linearity(bench: Bench) -> tuple[float, float]:
    """The median of |J(x + d) - J(x) - g.d| / |g.d| for FGSM's step d; for how many J(x + d) < J(x + d / 2)."""
    with bench.asking(bench.few(FEW)) as question:
        key = Key(bench.search.seed).fold("one-step")
        problem = question.problem
        before, gradient = bench.gradient(question, question.x, key)
        step = question.region.step(None, question.region.restrict(gradient), question.region.radius)
        bench.need(2 * len(problem.ids))
        bench.spend(2 * len(problem.ids))
        with torch.no_grad():
            end = problem(question.region.land(step), key).loss
            half = problem(question.region.land(tree_map(lambda part: part / 2, step)), key).loss
        gain = (flat(gradient) * flat(step)).sum(1)
        missed = (end.double() - before.loss.double() - gain).abs() / gain.abs().clamp_min(1e-30)
    return median(missed[torch.isfinite(missed)].cpu()), float((end < half).double().mean())


ROW = Test(
    "one-step",
    "FGSM held and iterated attacks fell: why?",
    "examples felled by pgd alone, less those by the single step alone; error of the linearisation along the step",
    f"exact paired p < {LEVEL}; the reason by the shape of the loss along the step",
    "Tramèr et al. 2018 (arXiv:1705.07204), section 4.1; Andriushchenko & Flammarion 2020 (arXiv:2007.02617)",
    (TRAINED, CURVED, MORE),
    "pgd and apgd",
    f"20 steps of pgd, up to {sum(STEPS)} of bim; 3 forwards and 1 backward on 32 examples",
    _run,
)
