"""A declared model as a module that can be trained: from raw inputs to scores."""

from torch import Tensor, nn

from signstep.engine.tasks import Multiclass
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.predictor import select


class Deployed(nn.Module):
    """``select(network((x - mean) / std))``; holds the network itself, whose weights are trained in place.

    Args:
        model: what wants normalised inputs, or returns more than its scores.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        assert isinstance(model.network, nn.Module)
        self.model = model.network
        self.space, self.output = model.space(), model.output

    def forward(self, x: Tensor) -> Tensor:
        """From raw inputs (R, ...)."""
        return select(self.model(x if self.space.mean is None else self.space.normalise(x)), self.output)

    def extra_repr(self) -> str:
        """Mean, std and where the scores are, which belong to what is trained."""
        return str(self.space.describe()) if self.output is None else f"{self.space.describe()}, output={self.output!r}"


def trained_module(model: Model) -> nn.Module:
    """What is trained: the network itself, or the network behind its declaration.

    Raises:
        InputError: it is no module, or its declaration says something that training knows nothing of.
    """
    if not isinstance(model.network, nn.Module):
        raise InputError(
            Arg("model"),
            f"is a {type(model.network).__name__}, which has no weights to train",
            remedy="pass an nn.Module",
        )
    for name, fits, reason in (
        ("transform", model.transform is None, "it sees inputs as they are; augment the data instead"),
        ("inputs", model.inputs == "raw", "an attacker changes raw inputs; pass raw data, mean and std"),
        ("outputs", model.outputs in ("auto", "logits"), "losses need logits; return what stands before the softmax"),
        ("task", model.task in ("auto", "multiclass") or type(model.task) is Multiclass, "it trains classifiers"),
        ("mode", model.mode == "eval", "it trains in training mode and looks in evaluation mode"),
    ):
        if not fits:
            raise InputError(
                Arg(name, getattr(model, name)), f"has no meaning for fit: {reason}", remedy="leave it out"
            )
    return model.network if model.mean is None and model.output is None else Deployed(model)
