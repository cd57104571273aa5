"""Do the signs of the gradient agree in other precisions?"""

import copy
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
WIDE = "the model in float64"
SHARES = ", its scores as probabilities"


class Wide(nn.Module):
    """A network in float64, for inputs and scores in another precision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: Tensor) -> object:
        """What the network says of x in float64."""
        return self.network(x.double())


def widened(bench: Bench) -> Model | None:
    """The model in float64, as it is declared; None where there can be none."""
    network = bench.model.network
    if unfit(bench) or not isinstance(network, nn.Module):
        return None
    return replace(bench.model, network=Wide(copy.deepcopy(network)))


def _run(bench: Bench) -> Observed:
    why = unfit(bench) or ("" if bench.seen.get("path", True) else "there is no gradient, see graph")
    wide = widened(bench)
    if why or wide is None:
        return not_asked(why)
    key, held = Key(bench.search.seed).fold("numerics"), bench.model
    found = []
    try:
        for model in (held, wide):
            bench.model = model
            with bench.asking(bench.few(FEW)) as question:
                found.append(flat(bench.gradient(question, question.x, key)[1]))
    except GradientError:
        return not_asked("there is no path for gradients, see graph")
    except Exception as error:  # a network that fixes its precision in the code
        return not_asked(f"the model does not run in float64 ({type(error).__name__})")
    finally:
        bench.model = held
    own, other = found
    large = other.abs() > 1e-3 * other.abs().amax(1, keepdim=True)
    share = ((own.sign() == other.sign()) & large).double().sum(1) / large.sum(1).clamp_min(1)
    agreed = median(share[large.any(1)]) if bool(large.any()) else 1.0
    told = f"{agreed:.1%} of the signs agree with those in float64"
    if agreed >= AGREE:
        return Observed(1 - agreed, False, told)
    cure = Cure("pgd:steps=40", {"surrogate": wide}, WIDE)
    return Observed(1 - agreed, True, told, suspects=(Suspect(CAUSE, told, (cure,)),))


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
    "Do the signs agree in other precisions?",
    "median share of signs that differ in float64, of coordinates above a thousandth of the largest",
    f"above {1 - AGREE:.1f}",
    "Lee et al. 2020, Rethinking Empirical Evaluation of Adversarial Robustness Using First-Order Attack Methods",
    (CAUSE,),
    "gradients in float64",
    "2 forwards and 2 backwards on 16 examples",
    _run,
)
