"""Translation-invariant gradients: one convolution in place of many shifted copies."""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv1d

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.images import check_images
from signstep.engine.moves import Move, State, View, chain, momentum, steepest
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.region import Region
from signstep.engine.tree import Tree, tree_map
from signstep.errors import InputError
from signstep.messages import Arg

# The paper's kernel of 15 for images of 299 pixels, as a share of the shorter side.
_SHARE = 15 / 299


def smoothed(kernel: int = 0) -> Move:
    """W * g: the gradient of each channel convolved with a Gaussian, zeros beyond the border.

    W_ij ~ exp(-(i^2 + j^2) / (2 sigma^2)), sigma = k / sqrt(3), for a kernel of 2k + 1 (Dong et al. 2019,
    arXiv:1904.02884, section 3.3). It stands for the mean gradient over shifted images, as far as the model treats
    shifts alike. The program of the paper takes sigma = k / 3 instead; this follows the text.

    Args:
        kernel: odd, in pixels; 1 changes nothing. 0 scales the paper's 15 of 299 pixels to the shorter side.

    Raises:
        InputError: an even or negative kernel; when it runs, inputs that are not images (R, C, H, W).
    """
    if kernel < 0 or (kernel and kernel % 2 == 0):
        raise InputError(
            Arg("kernel", kernel), remedy="pass an odd number of pixels, such as 15, or 0 to fit the image"
        )

    def init(region: Region, d: Tree) -> State:  # noqa: ARG001
        check_images(d, "ti-fgsm, which smooths over neighbouring pixels,")
        return None

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        spread = tree_map(lambda part: _smooth(part, kernel or fitting(part)), gradient)
        return view.region.restrict(spread), state  # nothing leaks into what the mask freezes

    return Move(init, update)


def fitting(image: Tensor) -> int:
    """The odd kernel that is to this image what 15 is to 299 pixels.

    >>> fitting(torch.zeros(1, 3, 299, 299)), fitting(torch.zeros(1, 3, 64, 64)), fitting(torch.zeros(1, 1, 8, 8))
    (15, 3, 1)
    """
    return 2 * round((_SHARE * min(image.shape[-2:]) - 1) / 2) + 1 if min(image.shape[-2:]) > 20 else 1


def _gaussian(kernel: int, sigma: float, like: Tensor) -> Tensor:
    """Weights (kernel,) that sum to 1."""
    places = torch.arange(kernel, dtype=torch.float64, device="cpu") - kernel // 2
    weights = torch.exp(-places.square() / (2 * sigma * sigma))
    return (weights / weights.sum()).to(like)


def _smooth(part: Tensor, kernel: int) -> Tensor:
    if kernel == 1:
        return part
    weights = _gaussian(kernel, (kernel // 2) / math.sqrt(3), part)
    return _along(_along(part, weights, 2), weights, 3)


def _along(part: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Convolved along one axis, zeros beyond the ends."""
    turned = part.movedim(axis, -1)
    lines = turned.reshape(-1, 1, turned.shape[-1])
    done = conv1d(lines, weights.reshape(1, 1, -1), padding=len(weights) // 2)
    return done.reshape(turned.shape).movedim(-1, axis)


def ti_fgsm(
    *, steps: int = 10, step: float | None = None, decay: float = 1.0, kernel: int = 0, oracle: Oracle | None = None
) -> GradientAttack:
    """MI-FGSM along smoothed gradients: TI-MI-FGSM (Dong et al. 2019, section 3.3)."""
    move = chain(smoothed(kernel), momentum(decay), steepest(step_length(step, 1.0, steps)))
    return GradientAttack("ti-fgsm", move, steps, oracle=oracle or Autograd())


ROW = Recipe(
    "ti-fgsm",
    ti_fgsm,
    "MI-FGSM along smoothed gradients; images",
    "Dong et al. 2019 (arXiv:1904.02884), section 3.3",
    WHITE_BOX,
    "steps + 1 forwards, steps backwards",
    images=True,
)
