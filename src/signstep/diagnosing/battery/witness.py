"""Must something fall? At a size that reaches other data, what another datum fools the attack must fool too."""

import warnings

import torch
from torch import Tensor

from signstep.diagnosing.bench import Bench, TooDearError
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.threat import ThreatModel, span_of

FEW = 32
# Of the examples that another datum fools.
MISSED = 0.05
CAUSE = "masked gradients"


def _run(bench: Bench) -> Observed:
    threat = bench.threat
    plain = type(threat) is ThreatModel and threat.norm.name == "linf" and threat.mask is None
    span = span_of({"": threat}) if isinstance(threat, ThreatModel) else None
    if span is None or not plain or not isinstance(threat, ThreatModel) or not isinstance(bench.x, Tensor):
        return not_asked("it needs an L-infinity ball in a box of two numbers, without mask")
    if bench.classes is None:
        return not_asked("it needs classes")
    index = bench.few(FEW)
    with bench.asking(index) as question:
        answers = question.predicted.cpu()
    # Every other datum lies within the box: one with another answer shows that a change to that answer exists.
    able = torch.zeros_like(bench.right)
    for place, answer in zip(index.tolist(), answers.tolist(), strict=True):
        able[place] = bool((answers != answer).any())
    if not bool(able.any()):
        return not_asked("all examples have one answer")
    try:
        ran = bench.run(bench.attack, on=able, threat=_whole(threat, span))
    except TooDearError as error:
        return not_asked(str(error))
    missed = int((able & bench.right & ~ran.fooled).sum())
    whole = int((able & bench.right).sum())
    told = f"with the whole box allowed the attack misses {missed} of {whole} examples that another datum fools"
    if whole == 0 or missed / whole <= MISSED:
        return Observed(missed / max(1, whole), False, told)
    return Observed(missed / whole, True, told, suspects=(Suspect(CAUSE, told, blocks=True),))


def _whole(threat: ThreatModel, span: tuple[float, float]) -> ThreatModel:
    """The threat at the size of the box."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that everything may change is what is wanted
        return threat.with_eps(span[1] - span[0])


ROW = Test(
    "witness",
    "Must something fall?",
    "share of examples that another datum within the box fools, and the attack with the whole box allowed does not",
    f"above {MISSED}",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 3.1; Pintor et al. 2022 (arXiv:2106.09947), F6",
    (CAUSE,),
    "none of its own",
    f"the attack once more, on at most {FEW} examples",
    _run,
)
