"""Models that say of an image and a text whether they fit, as a classifier."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from signstep.errors import ModelError
from signstep.messages import Arg


def pair_scores(threshold: float) -> Callable[[Any], Tensor]:
    """For CLIP-like models, as the ``output`` of a `Victim`: does the text of a row fit its image?

    Scores (R, 2) for no and yes. Yes is the row's own entry of ``logits_per_image`` less the threshold, no is 0. Other
    rows' texts do not enter.
    """

    def read(returned: Any) -> Tensor:
        square = getattr(returned, "logits_per_image", None)
        if not isinstance(square, Tensor) or square.ndim != 2 or square.shape[0] != square.shape[1]:
            raise ModelError(
                Arg("read", "pair"),
                "reads logits_per_image, one text for each image",
                remedy="pass a model that returns it, as CLIPModel does",
            )
        yes = square.diagonal() - threshold
        return torch.stack([torch.zeros_like(yes), yes], 1)

    return read
