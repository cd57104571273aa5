"""The one place where a name or a file becomes a model that can be called."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from signstep.errors import InputError, LoadError
from signstep.io.files import expanded, refuse_unwritable
from signstep.model.opening.exported import load_exported
from signstep.model.opening.factory import build, module_of
from signstep.model.opening.sources import code_hash, source_files
from signstep.model.opening.weights import load_weights, refuse_non_finite

_WEIGHTS = (".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin")


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, and where it came from.

    Attributes:
        model: The model.
        description: One line for people.
        notes: What was unwrapped or assumed on the way, one sentence each.
        sha256: Of the file of weights or of the program, or None if there is none.
        code: SHA-256 of the Python files that define the model (`signstep.model.opening.sources`); None for a program.
    """

    model: nn.Module
    description: str
    notes: tuple[str, ...]
    sha256: str | None
    code: str | None = None


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    args: Mapping[str, object] | None = None,
    trust: bool = False,
    keep_mode: bool = False,
) -> LoadedModel:
    """Load a model by its name or path, without running code from files of weights.

    Args:
        spec: "module:factory", where the factory is a function, a class or an ``nn.Module``, or the path of a
            ``torch.export`` program (.pt2).
        weights: A file of weights for the factory's model: .safetensors, or whatever ``torch.save`` wrote.
        args: Keyword arguments for the factory.
        trust: Allow a .pt2, since loading one can run code.
        keep_mode: Leave every submodule in the mode the factory gave it, instead of evaluation mode.

    Raises:
        InputError: If the spec or the arguments do not fit.
        LoadError: If a file or the user's module cannot be used.
    """
    suffix = Path(spec).suffix.lower()
    if suffix in _WEIGHTS:
        raise InputError(
            f"{spec} holds weights, which need an architecture: pass --model module:factory --weights {spec}"
        )
    if suffix == ".onnx":
        raise InputError(
            f"{spec} is an ONNX file, which has no gradients here: pass --model module:factory --weights FILE"
        )
    if suffix == ".pt2":
        return _exported(spec, weights, args, trust=trust)
    model = build(spec, args or {})
    if not keep_mode:
        model.eval()
    code = code_hash(source_files(module_of(spec), model))
    if weights is None:
        refuse_non_finite(spec, model.state_dict())
        return LoadedModel(model, spec, ("no file of weights given: the model is as the factory made it",), None, code)
    path = expanded(weights)
    refuse_unwritable(path, "the name of the weights file")
    notes = load_weights(model, path)
    return LoadedModel(model, f"{spec} with {path}", notes, _sha256(path), code)


def _exported(spec: str, weights: str | Path | None, args: Mapping[str, object] | None, *, trust: bool) -> LoadedModel:
    if weights is not None or args:
        extra = f"weights={weights}" if weights is not None else f"arguments {dict(args or {})}"
        raise InputError(f"{spec} is a whole program with its own weights, got {extra}: leave them out")
    path = expanded(spec)
    model = load_exported(path, trust=trust)
    return LoadedModel(model, f"exported program {path}", ("its mode was fixed when it was exported",), _sha256(path))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise LoadError(f"{path} cannot be read ({error}): check its permissions") from error
