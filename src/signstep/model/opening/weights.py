"""Weights from a file, without ever running code from it."""

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from signstep.errors import LoadError
from signstep.io.archives import check_held, check_safetensors, check_sums
from signstep.io.caps import current
from signstep.io.files import missing

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_REMEDY = "save the weights alone with torch.save(model.state_dict(), path) or safetensors.torch.save_file"


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Load the weights in a file into a model, in place, and return notes on what had to be unwrapped.

    Checkpoints that hold the weights under "state_dict", "model_state_dict", "model" or "net", and names prefixed by
    "module.", "model." or "_orig_mod.", are unwrapped where that makes them fit.

    Raises:
        LoadError: If the file cannot be read safely, does not fit the model, or holds NaN or infinity.
    """
    expected = model.state_dict()
    candidates = [_Candidate.of(weights, notes, expected) for weights, notes in _readings(_read(path))]
    if not candidates:
        raise LoadError(f"{path} holds no named tensors", remedy=_REMEDY)
    best = min(candidates, key=lambda candidate: candidate.misfits)
    if best.misfits:
        raise LoadError(
            f"{path} does not fit the model: {best.complaint()}", remedy="pass the architecture it was trained with"
        )
    for name, tensor in best.weights.items():
        check_held(tensor.numel() * tensor.element_size(), f"{path}: {name}")
    _refuse_odd(path, best.weights, expected)
    refuse_non_finite(path, best.weights)
    model.load_state_dict(best.weights, strict=False)  # what may be missing was decided above
    return best.notes


def _read(path: Path) -> object:
    if not path.is_file():
        raise missing(path, "the weights file")
    if path.suffix.lower() == ".safetensors":
        check_safetensors(path)
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise LoadError(
                f"{path} is no readable safetensors file ({error})", remedy="save or download it again"
            ) from error
    if _is_torchscript(path):
        raise LoadError(f"{path} is a TorchScript program, and loading one runs code from it", remedy=_REMEDY)
    if _is_zip(path):
        check_sums(path, "PyTorch weights file", current().unpacked_weights(path.stat().st_size))
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        # A whole model, or a checkpoint with other objects beside the weights.
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise LoadError(f"{path} is no PyTorch weights file or is damaged", remedy=_REMEDY) from error
        raise LoadError(
            f"{path} holds Python objects ({found[1]}) besides tensors, and unpickling those can run code",
            remedy=_REMEDY,
        ) from error
    except Exception as error:  # PyTorch's reader raises whatever its parts raise
        raise LoadError(
            f"{path} is no PyTorch weights file or is damaged", remedy="save or download it again"
        ) from error


def _is_zip(path: Path) -> bool:
    """By how it begins: an archive with a damaged end is one too. Files that torch wrote before 1.6 are none."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())
    except Exception:  # no archive, or a damaged one: what reads it says so
        return False


def _readings(content: object) -> Iterator[tuple[dict[str, Tensor], tuple[str, ...]]]:
    """All ways to read a checkpoint as named tensors, the plainest first."""
    levels: list[tuple[object, tuple[str, ...]]] = [(content, ())]
    while levels:
        level, notes = levels.pop(0)
        if not isinstance(level, Mapping):
            continue
        named = {name: value for name, value in level.items() if isinstance(name, str)}
        if len(named) > current().names:
            continue
        if named and len(named) == len(level) and all(isinstance(value, Tensor) for value in named.values()):
            yield from _without_prefixes(named, notes)
        levels += [(named[key], (*notes, f"weights taken from the entry {key!r}")) for key in _WRAPPERS if key in named]


def _without_prefixes(
    weights: dict[str, Tensor], notes: tuple[str, ...]
) -> Iterator[tuple[dict[str, Tensor], tuple[str, ...]]]:
    yield weights, notes
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            bare = {name.removeprefix(prefix): value for name, value in weights.items()}
            yield from _without_prefixes(bare, (*notes, f"the prefix {prefix!r} removed from all names"))


@dataclass(frozen=True)
class _Candidate:
    """One reading of a checkpoint, compared with what the model expects."""

    weights: dict[str, Tensor]
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    @classmethod
    def of(cls, weights: dict[str, Tensor], notes: tuple[str, ...], expected: Mapping[str, Tensor]) -> "_Candidate":
        missing = [name for name in expected if name not in weights]
        # Old checkpoints have no such counters, and safetensors keeps one name of tensors that are shared.
        counters = [name for name in missing if name.endswith("num_batches_tracked")]
        loaded = {expected[name].data_ptr() for name in expected.keys() & weights.keys() if not is_lazy(expected[name])}
        shared = [name for name in missing if not is_lazy(expected[name]) and expected[name].data_ptr() in loaded - {0}]
        reshaped = [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in weights and not is_lazy(tensor) and weights[name].shape != tensor.shape
        ]
        if counters:
            notes = (*notes, f"{len(counters)} BatchNorm counter(s) missing, which do not matter")
        stored = sorted(
            {_dtype(weights[n]) for n in expected.keys() & weights.keys() if _cast(weights[n], expected[n])}
        )
        if stored:
            notes = (*notes, f"weights stored as {', '.join(stored)} converted to the model's own precision")
        return cls(
            weights,
            notes,
            tuple(name for name in missing if name not in counters and name not in shared),
            tuple(name for name in weights if name not in expected),
            tuple(reshaped),
        )

    @property
    def misfits(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def complaint(self) -> str:
        """What does not fit, with counts and the first few names."""
        parts = (("missing", self.missing), ("not in the model", self.unexpected), ("of another shape", self.reshaped))
        return "; ".join(
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in parts
            if names
        )


def _cast(stored: Tensor, wanted: Tensor) -> bool:
    return wanted.is_floating_point() and stored.dtype != wanted.dtype


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refuse_odd(path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Tensors whose values the weights of a model cannot take over as they are, since those are of another kind.

    Raises:
        LoadError: there is one.
    """
    for name in expected.keys() & weights.keys():
        plain = is_lazy(expected[name])
        kinds = (word for word, odd in _ODD.items() if odd(weights[name]) and (plain or not odd(expected[name])))
        kind = next(kinds, None)
        if kind is not None:
            raise LoadError(
                f"{path}: {name} is a {kind} tensor", remedy="save plain ones, of floating point numbers or integers"
            )


_ODD: Mapping[str, Callable[[Tensor], bool]] = {
    "nested": lambda tensor: bool(tensor.is_nested),
    "meta": lambda tensor: bool(tensor.is_meta),
    "quantised": lambda tensor: bool(tensor.is_quantized),
    "sparse": lambda tensor: tensor.layout != torch.strided,
    "complex": lambda tensor: bool(tensor.is_complex()),
}


def refuse_non_finite(path: Path | str, weights: Mapping[str, Tensor]) -> None:
    """Weights that no training should leave behind.

    Raises:
        LoadError: a tensor has NaN or infinite values.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise LoadError(
                f"{path}: {name} holds {bad} NaN or infinite value(s) of {tensor.numel()}: the training diverged or "
                "the file is damaged",
                remedy="pass another checkpoint",
            )
