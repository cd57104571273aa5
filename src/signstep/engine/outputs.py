"""What a model said of a batch, and what the engine needs of whatever asks the model."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

from signstep.engine.tree import Tree
from signstep.errors import GradientError
from signstep.messages import Arg, Blank


def no_path() -> GradientError:
    """The error about an output that no gradient leads back from."""
    return GradientError(
        "the model's output does not depend on its input through differentiable operations (detach(), no_grad(), "
        "argmax, rounding, NumPy or a quantised layer on the way?)",
        remedy=(
            "attack a surrogate (",
            Arg("surrogate", Blank("other_model")),
            "), use an attack that only asks (square, hop-skip-jump), or remove the break",
        ),
    )


class Outputs(NamedTuple):
    """What the model said.

    ``raw`` decides the verdict; ``scores`` is what the search differentiates: the logits ("logits"), the logits behind
    a final softmax or sigmoid ("behind"), or probabilities whose logits cannot be had ("lost"). A model that answers
    with "labels" has no scores: both are its answers (R,) int64.
    """

    raw: Tensor
    scores: Tensor
    form: Literal["logits", "behind", "lost", "labels"]


class Asked(Protocol):
    """A model as a function from inputs in search units to `Outputs`; `signstep.model.predictor.Predictor` is one.

    Attributes:
        model: what is called in the end.
        notes: what the reader of a result must know of how the model was read.
    """

    notes: list[str]

    @property
    def model(self) -> Callable[..., Any]:
        """What is called in the end."""

    def __call__(self, u: Tree) -> Outputs:
        """What the model says of inputs (R, ...); differentiable."""
