"""Is it set up as deployed?"""

import copy
from dataclasses import replace

from torch import nn

from signstep.diagnosing.bench import Bench, Cure, TooDearError
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked

CAUSE = "set-up fault"
COPY = "the evaluation copy"
_BY_MODE = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def _run(bench: Bench) -> Observed:
    network = bench.model.network
    if not isinstance(network, nn.Module):
        return not_asked("the model is a function, and has no mode that can be seen")
    live = [name for name, part in network.named_modules() if part.training and isinstance(part, _BY_MODE)]
    mixing = [note for note in bench.notes if note.startswith("BatchNorm takes its statistics from the batch")]
    if bench.model.mode != "keep" or not live:
        if mixing:
            told = "BatchNorm takes its statistics from the batch in evaluation mode too: answers depend on neighbours"
            remedy = "track running statistics: nn.BatchNorm2d(..., track_running_stats=True)"
            return Observed(1.0, True, told, suspects=(Suspect(CAUSE, told, remedy=remedy, blocks=True),))
        return Observed(0.0, False, "evaluation mode; no layer takes statistics from the batch or drops units")
    still = copy.deepcopy(network).eval()
    other = replace(bench.model, network=still, mode="eval")
    try:
        ran = bench.run("pgd:steps=20", model=other, name=COPY)
        there = f"; in evaluation mode pgd leaves {int((ran.met & ~ran.fooled).sum())} of {int(ran.met.sum())}"
    except TooDearError:
        there = ""
    told = f"{len(live)} layers are in training mode ({', '.join(live[:3])}){there}"
    copied = replace(other, mode="keep")
    cure = Cure("pgd:steps=40", {"surrogate": copied}, COPY)
    return Observed(
        float(len(live)),
        True,
        told,
        suspects=(Suspect(CAUSE, told, (cure,), "call model.eval()"),),
    )


ROW = Test(
    "mode",
    "Is it set up as deployed?",
    "layers in training mode that act otherwise there (BatchNorm, dropout), statistics taken from the batch",
    "any",
    "Carlini et al. 2019 (arXiv:1902.06705), section 5",
    (CAUSE,),
    "gradients of a copy in evaluation mode",
    "for such models alone: 20 steps of pgd",
    _run,
)
