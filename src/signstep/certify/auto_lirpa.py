"""auto_LiRPA, where the user has it, as another engine of linear bounds: never a dependency, and met here alone."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from signstep.errors import ModelError


def margins(network: nn.Module, low: Tensor, high: Tensor, ways: Tensor) -> Tensor:
    """Lower bounds of ways @ z over a box by its CROWN, z being the network's scores; (S,).

    What it says is believed as it stands; it is asked in float64, and its margins have to exceed the same slack.

    Source: Xu et al. (2020), "Automatic perturbation analysis for scalable certified robustness and beyond".

    Args:
        network: in float64.
        low: the least inputs (1, ...).
        high: the largest ones.
        ways: coefficients (S, K).

    Raises:
        ModelError: it cannot take the network.
    """
    from auto_LiRPA import BoundedModule, BoundedTensor
    from auto_LiRPA.perturbations import PerturbationLpNorm

    centre = (low + high) / 2
    try:
        bounded: Any = BoundedModule(network, torch.empty_like(centre), device=centre.device)
        around = BoundedTensor(centre, PerturbationLpNorm(norm=math.inf, x_L=low, x_U=high))
        found = bounded.compute_bounds(x=(around,), C=ways.unsqueeze(0), method="CROWN", bound_upper=False)[0]
    except Exception as error:  # another project's code fails in as many ways as there are
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise ModelError(
            f"auto_LiRPA cannot take {type(network).__name__} ({type(error).__name__}: {reason})",
            remedy="pass crown, whose rules are other ones",
        ) from error
    bound: Tensor = found.detach().to(ways).flatten()
    if bound.shape != ways.shape[:1]:
        raise ModelError(
            f"auto_LiRPA gave {tuple(bound.shape)} bounds of {len(ways)} margins", remedy="pass crown instead"
        )
    return bound
