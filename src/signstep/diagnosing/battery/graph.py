"""Is there a path for gradients, and where is it cut?"""

from contextlib import suppress

from signstep.attacks.gradient.bpda_pgd import Lent, names_of
from signstep.attacks.stand_ins import StandIns
from signstep.diagnosing.bench import Bench, Cure, cosine, flat
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.keys import Key
from signstep.errors import GradientError

FEW = 16
# Between the model's gradient and the one through stand-ins; below, steps without a gradient lead it astray.
TURNED = 0.9
# Of the examples whose gradient is turned; below, the steps matter little.
MANY = 0.25

CAUSE = "non-differentiable step"


def _run(bench: Bench) -> Observed:
    if bench.form == "labels":
        return not_asked("the model answers with labels alone, and they have no gradient")
    with bench.asking(bench.few(FEW), {"loss": None}) as question:  # the user's loss may hide it as well
        mode = StandIns(names=dict(names_of(question.problem.predictor.model)))
        key = Key(bench.search.seed).fold("graph")
        point = question.region.land(question.region.sample(key.draws(question.problem.ids, bench.right.device)))
        lent = question.problem.by(Lent(question.problem.predictor, mode=mode))  # type: ignore[arg-type]
        plain = bridged = None
        why = ""
        try:
            plain = bench.gradient(question, point, key)[1]
        except GradientError as error:
            why = error.text
        with suppress(GradientError):
            bridged = bench.gradient(question, point, key, problem=lent)[1]
    crossed = tuple(mode.crossings)
    bench.seen["crossings"] = crossed
    bench.seen["path"] = plain is not None and bool((flat(plain) != 0).any())
    where = "; ".join(str(one) for one in crossed[:3]) + (f" and {len(crossed) - 3} more" if len(crossed) > 3 else "")
    bench.seen["bridged"] = bridged is not None
    if bridged is None:
        bench.seen["cut"] = True
        told = f"no gradient leads back to the input{f', cut at {where}' if where else ''}: {why}"
        return Observed(1.0, True, told, suspects=(_blind(told),))
    if plain is None:
        turned = 1.0
    else:
        usable = flat(bridged).abs().sum(1) > 0
        turned = float((usable & (cosine(plain, bridged) < TURNED)).double().mean())
    if not crossed or turned <= MANY:
        steps = (
            f"{len(crossed)} steps without a gradient that matter little" if crossed else "no step without a gradient"
        )
        return Observed(turned, False, f"{steps}; {turned:.0%} of gradients are turned by stand-ins")
    bench.seen["cut"] = True
    told = f"{'no path' if plain is None else f'{turned:.0%} of gradients are turned'} for want of one at {where}"
    cures = [Cure("bpda-pgd:steps=40")]
    if any(one.step.startswith(("round", "floor", "ceil", "trunc")) for one in crossed):
        cures.append(Cure("bpda-pgd:steps=40,backward=soft"))
    return Observed(turned, True, told, suspects=(Suspect(CAUSE, told, tuple(cures)),))


def _blind(told: str) -> Suspect:
    return Suspect(
        CAUSE,
        told,
        remedy="name the step and a likeness of it: model = nn.Sequential(ss.bpda(step, backward=likeness), rest)",
        blocks=True,
    )


ROW = Test(
    "graph",
    "Is there a path for gradients?",
    "share of examples whose gradient differs from the one through stand-ins (cosine below 0.9)",
    f"above {MANY}, or no path at all",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 3; Pintor et al. 2022 (arXiv:2106.09947), F1",
    (CAUSE,),
    "bpda-pgd, with the identity and with a soft staircase for rounding",
    "2 forwards and 2 backwards on 16 examples",
    _run,
)
