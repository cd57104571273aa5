"""One look at a running model: held-out rows, FGSM and a stronger PGD, and the alignment of gradients.

The attacks are those of `signstep.attack`: in evaluation mode, inside the threat model, with randomness keyed by the
example; the model and the process are left as they were found.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from signstep.api import attack
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel
from signstep.engine.untouched import untouched
from signstep.model.search import Search
from signstep.train.craft import ball, input_gradient, noise
from signstep.train.draws import BatchDraws

# Of the PGD that looks for a collapse, which parts from FGSM widely, and of the one that chooses between weights.
_LOOK_STEPS, _CHOICE_STEPS = 7, 10


@dataclass(frozen=True)
class Look:
    """See `Reading`, whose numbers these are."""

    examples: int
    clean_loss: float
    adversarial_loss: float
    clean: int
    fgsm: int
    pgd: int
    weight_cosine: float
    input_cosine: float


def cost() -> float:
    """Of `look` for each row, in forward passes: at most, since rows that PGD has fooled leave it."""
    return (2 * _LOOK_STEPS + 2) + 4 + 2 * 3 + 4


def cost_of_selection() -> float:
    """Of `robust_rows` for each row, in forward passes."""
    return 2 * _CHOICE_STEPS + 2


def look(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int = 0) -> Look:
    """Look at a model on rows x (R, ...) with labels y (R,)."""
    weak = attack(model, x, y, threat=threat, recipe="fgsm", search=Search(seed=seed))
    strong = attack(model, x, y, threat=threat, recipe=f"pgd:steps={_LOOK_STEPS}", search=Search(seed=seed))
    assert isinstance(weak.x, Tensor)
    assert isinstance(strong.x, Tensor)
    with untouched(model), torch.no_grad():
        outputs = model(x)
        clean_loss = float(F.cross_entropy(outputs, y))
        adversarial_loss = float(F.cross_entropy(model(weak.x), y))
    return Look(
        examples=len(x),
        clean_loss=clean_loss,
        adversarial_loss=adversarial_loss,
        clean=int((outputs.argmax(1) == y).sum()),
        fgsm=int((~weak.fooled).sum()),
        pgd=int((~strong.fooled).sum()),
        weight_cosine=_weight_cosine(model, weak.x, strong.x, y),
        input_cosine=_input_cosine(model, x, y, threat, seed),
    )


def robust_rows(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int = 0) -> int:
    """Rows that PGD does not fool: what the best weights are chosen by."""
    found = 0
    for part, labels in zip(torch.split(x, 512), torch.split(y, 512), strict=True):
        found += int(
            (
                ~attack(
                    model, part, labels, threat=threat, recipe=f"pgd:steps={_CHOICE_STEPS}", search=Search(seed=seed)
                ).fooled
            ).sum()
        )
    return found


def _weight_cosine(model: nn.Module, weak: Tensor, strong: Tensor, y: Tensor) -> float:
    """Cosine of the two weight gradients, in evaluation mode; 1.0 where both points agree."""
    weights = [part for part in model.parameters() if part.requires_grad]
    gradients = []
    with untouched(model):
        for part in weights:  # frozen for attacks
            part.requires_grad_(True)
        for x in (weak, strong):
            found = torch.autograd.grad(F.cross_entropy(model(x), y), weights, allow_unused=True)
            gradients.append(torch.cat([part.detach().flatten() for part in found if part is not None]))
    return float(F.cosine_similarity(gradients[0], gradients[1], dim=0))


def _input_cosine(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> float:
    """Mean cosine of the input gradients at x and at a neighbour, uniform in the ball and landed in the box."""
    region = ball(x, threat, check=False)
    generator = torch.Generator(device="cpu").manual_seed(Key(seed).fold("neighbour").integer())
    near = region.land(region.project(region.restrict(noise(region, BatchDraws(len(x), x.device, generator), 1.0))))

    def climbed(outputs: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y, reduction="sum")

    with untouched(model):
        here, _ = input_gradient(model, climbed, x)
        there, _ = input_gradient(model, climbed, near)
    return float(F.cosine_similarity(here.flatten(1), there.flatten(1), dim=1).mean())
