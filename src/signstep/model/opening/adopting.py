"""From whatever somebody's own code returns to a `Model`: a module, a victim, an estimator, any callable."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from signstep.errors import InputError
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.model.opening.estimators import estimator_model, is_estimator

# Kinds of models that live elsewhere, by the package that made them, and how one gets from there to here.
_ELSEWHERE = {
    "tensorflow": "export it to ONNX (tf2onnx) and pass the .onnx file",
    "keras": "export it to ONNX (model.export(path, format='onnx')) and pass the .onnx file",
    "jax": "return signstep.model.victims.from_numpy(function), or export it to ONNX and pass the .onnx file",
    "flax": "return signstep.model.victims.from_numpy(function), or export it to ONNX and pass the .onnx file",
    "onnxruntime": "pass the .onnx file itself",
    "onnx": "save it and pass the .onnx file",
    "coremltools": "pass the model that it was converted from",
}


def finished(thing: object) -> bool:
    """Whether something is a model already, and no function or class that makes one."""
    if isinstance(thing, (Model, nn.Module, torch.export.ExportedProgram)):
        return True
    return not isinstance(thing, type) and (
        is_estimator(thing) or _is_pipeline(thing) or getattr(thing, "gradients", None) is False
    )


def adopted(thing: object, spec: str) -> Model:
    """The model that a factory returned, or that a name stands for.

    Args:
        thing: the object.
        spec: "module:name", for messages.

    Raises:
        InputError: it is none; the message says what to return instead.
    """
    if isinstance(thing, Model):
        return thing
    if isinstance(thing, nn.Module):
        return Model(thing)
    if _is_pipeline(thing):
        raise InputError(
            f"{spec} is a transformers pipeline, which hides its gradients",
            remedy=(
                "pass",
                Arg("model", Blank("hf:FOLDER"), python="'hf:FOLDER'"),
                "with the folder or name that it was made from",
            ),
        )
    root = type(thing).__module__.partition(".")[0]
    if root in _ELSEWHERE:
        raise InputError(f"{spec} is a {type(thing).__name__} of {root}", remedy=_ELSEWHERE[root])
    if is_estimator(thing):
        return estimator_model(thing)
    if isinstance(thing, Mapping) and thing and all(isinstance(part, Tensor) for part in thing.values()):
        raise InputError(
            f"{spec} returned a state dict",
            remedy=("return the module with these weights, or pass", Arg("weights", Blank("FILE"))),
        )
    if not callable(thing) or isinstance(thing, type):
        raise InputError(
            f"{spec} returned a {type(thing).__name__}",
            remedy=(
                "the factory must return a torch.nn.Module, or another callable from inputs to scores "
                "(signstep.model.victims makes some)"
            ),
        )
    return Model(thing)


def module_from(model: Model, spec: str, weights: Path) -> nn.Module:
    """The module that weights are to be loaded into.

    Raises:
        InputError: the model is none.
    """
    if not isinstance(model.network, nn.Module):
        raise InputError(
            Arg("weights", weights),
            f"need an nn.Module, and {spec} returned a {type(model.network).__name__}",
            remedy="load them in the factory",
        )
    return model.network


def asks_for_inputs(factory: Callable[..., Any]) -> bool:
    """Whether a function looks as if it answered inputs itself, rather than making what does."""
    import inspect

    try:
        parts = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [part for part in parts if part.default is part.empty and part.kind is part.POSITIONAL_OR_KEYWORD]
    return inspect.isroutine(factory) and len(needed) == 1


def _is_pipeline(thing: object) -> bool:
    return any(
        kind.__module__.startswith("transformers.pipelines") or kind.__module__.startswith("diffusers")
        for kind in type(thing).__mro__
    )
