"""The model of a domain whose schema says what inputs and outputs mean: a network alone, without a declaration."""

from torch import nn

from signstep.domains.case import Request
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.opening import is_address, open_model, parse_args
from signstep.model.victims.address import bare

# Of a declaration, what would have to be heeded.
_SAID = ("mean", "std", "inputs", "output", "outputs", "task", "mode", "transform")


def bare_model(request: Request) -> Model:
    """The model that a request names, with its name, hashes and notes.

    Raises:
        InputError: it declares what the schema says in such a domain, or cannot be opened as it is written.
        LoadError: a file, or code of somebody's own, cannot be used.
    """
    assert request.model is not None
    if is_address(request.model):
        raise InputError(
            f"{bare(request.model)} is an address, which is asked about inputs that are one tensor",
            remedy=(
                "drop",
                Arg("domain"),
                ", or pass",
                Arg("model", "module:factory", python="a function"),
                "that asks it",
            ),
        )
    model = open_model(request.model, weights=request.weights, args=parse_args(request.model_args), trust=request.trust)
    said = next((name for name in _SAID if model.says(name)), None)
    if said is not None:
        raise InputError(
            f"{request.model} declares {said} itself, and here a schema says what inputs and outputs mean",
            remedy="pass a factory of the bare network",
        )
    return model


def bare_module(request: Request) -> tuple[nn.Module, Model]:
    """The same as a module with gradients, and the model that it came as.

    Raises:
        InputError: it is none.
        LoadError: as `bare_model`.
    """
    model = bare_model(request)
    return model.module, model
