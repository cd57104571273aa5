"""Do the signs of the gradient agree in float64, float32 and bfloat16?"""

import copy
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from signstep.diagnosing.bench import Bench, Cure, flat, median
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.keys import Key
from signstep.errors import GradientError
from signstep.model.declaration import Model

FEW = 16
AGREE = 0.9
CAUSE = "precision"
WIDE, NARROW = "the model in float64", "the model in float32"
OTHERS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHARES = ", its scores as probabilities"


class Wide(nn.Module):
    """A network in another precision, float64 if none is named, for inputs and scores in its own."""

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, x: Tensor) -> object:
        """What the network says of x in that precision."""
        return self.network(x.to(self.dtype))


def widened(bench: Bench, dtype: torch.dtype = torch.float64) -> Model | None:
    """The model in another precision, as it is declared; None where there can be none."""
    network = bench.model.network
    if unfit(bench) or not isinstance(network, nn.Module):
        return None
    return replace(bench.model, network=Wide(copy.deepcopy(network), dtype))


def _run(bench: Bench) -> Observed:
    why = unfit(bench) or ("" if bench.seen.get("path", True) else "there is no gradient, see graph")
    wide = widened(bench)
    if why or wide is None:
        return not_asked(why)
    try:
        own, truth = _gradients(bench, bench.model), _gradients(bench, wide)
    except GradientError:
        return not_asked("there is no path for gradients, see graph")
    except Exception as error:  # a network that fixes its precision in the code
        return not_asked(f"the model does not run in float64 ({type(error).__name__})")
    agreed = {"its own": _agreed(own, truth)}
    for name, dtype in OTHERS.items():
        if dtype == _precision(bench):
            continue
        with suppress(Exception):  # kernels are missing, or the code fixes its precision: the others tell
            other = widened(bench, dtype)
            assert other is not None
            agreed[name] = _agreed(_gradients(bench, other), truth)
    share = agreed["its own"]
    told = "of the signs in float64 " + ", ".join(f"{part:.1%} agree in {name}" for name, part in agreed.items())
    if share >= AGREE:
        return Observed(1 - share, False, told)
    # The narrowest one that agrees: what differs from float64 in float32 too is a matter of magnitude.
    narrow = widened(bench, torch.float32) if agreed.get("float32", 0.0) >= AGREE else None
    # Where gradients die altogether their signs say nothing, and the scores inside have them.
    dead = bench.seen.get("dead") and bench.seen.get("inside")
    cures = () if dead else (Cure("pgd:steps=40", {"surrogate": narrow or wide}, NARROW if narrow else WIDE),)
    return Observed(1 - share, True, told, suspects=(Suspect(CAUSE, told, cures),))


def _precision(bench: Bench) -> torch.dtype:
    """Of the first weight."""
    network = bench.model.network
    assert isinstance(network, nn.Module)
    return next(part.dtype for part in network.parameters() if part.is_floating_point())


def _gradients(bench: Bench, model: Model) -> Tensor:
    """Gradients (R, D) of a few examples by this model in the place of the own one."""
    held = bench.model
    try:
        bench.model = model
        with bench.asking(bench.few(FEW)) as question:
            return flat(bench.gradient(question, question.x, Key(bench.search.seed).fold("numerics"))[1])
    finally:
        bench.model = held


def _agreed(own: Tensor, truth: Tensor) -> float:
    """The median share of the coordinates that matter whose sign is that of the truth; (R, D) each."""
    large = truth.abs() > 1e-3 * truth.abs().amax(1, keepdim=True)
    share = ((own.sign() == truth.sign()) & large).double().sum(1) / large.sum(1).clamp_min(1)
    return median(share[large.any(1)]) if bool(large.any()) else 1.0


def unfit(bench: Bench) -> str:
    """Why the question makes no sense; nothing where it does."""
    network = bench.model.network
    parts = network.parameters() if isinstance(network, nn.Module) else ()
    weights = [part for part in parts if part.is_floating_point()]
    if not weights or not isinstance(bench.x, Tensor):
        return "only a module with weights and one input tensor can be put into float64"
    if weights[0].dtype == torch.float64 or weights[0].device.type == "mps":
        return "the model works in float64 already, or the device has none"
    return "a random model draws other numbers in another precision" if bench.random else ""


ROW = Test(
    "numerics",
    "Do the signs agree in float64, float32 and bfloat16?",
    "median share of signs that differ from float64, of coordinates above a thousandth of the largest",
    f"above {1 - AGREE:.1f}",
    "Lee et al. 2020, Rethinking Empirical Evaluation of Adversarial Robustness Using First-Order Attack Methods",
    (CAUSE,),
    "gradients in the narrowest precision that agrees",
    "up to 4 forwards and 4 backwards on 16 examples",
    _run,
)
