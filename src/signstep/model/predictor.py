"""Calling the user's model and reading logits from whatever it returns."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from signstep.engine.origin import foreign
from signstep.engine.outputs import Outputs, no_path
from signstep.engine.tree import Tree, leaves, rows, tree_map
from signstep.engine.untouched import guard_of, inference_weights
from signstep.errors import InputError, ModelError, SignstepWarning
from signstep.messages import Arg, Part
from signstep.model.batch_sizes import Sizes
from signstep.model.heads import HeadWatch
from signstep.model.shapes import Shape, refuse_other

Selector: TypeAlias = str | int | Callable[[Any], Tensor] | None
Kind: TypeAlias = Literal["auto", "logits", "probabilities", "labels"]

# Fewer one-logit outputs than this, all in [0, 1], may be either.
_ENOUGH = 8
_FROM_NUMPY = "pass signstep.model.victims.from_numpy(function) for one that works on NumPy arrays"
_IF_LOGITS = ("pass", Arg("outputs", "logits"), "if they are logits")
_NAMED = 8  # parts of what a model returned that a message lists


@dataclass
class Predictor:
    """The user's model as a function from inputs in search units to `Outputs`.

    Args:
        model: any callable; tensors are passed as the one argument, a dict of inputs as keyword arguments.
        output: where the logits are in what the model returns: a key, an index, a function, or None to find them
            (a tensor; ``.logits``; the first tensor of a tuple; the entry "logits" or the only tensor of a dict).
        kind: "logits", "probabilities", "labels", or "auto" to recognise a final softmax or sigmoid, and labels by
            their integer dtype. Integers that are declared to be "logits" are scores.
        prepare: applied to the inputs before the model (normalisation).
        notes: what the reader of a result must know of how the model was read.
        sizes: the batch sizes that the model takes; None to find out as it is called.
        shape: of one input that the model takes, where that is known.
        passed: what inputs pass through in ``prepare`` beside the normalisation, in words; "" for nothing.

    A model that ends in a softmax or sigmoid saturates: its gradients round to zero and a gradient attack sees
    nothing. Where the output is that of a softmax or sigmoid, unchanged (`model.heads`), its *input* is used for the
    search; the verdict stays on the output.
    Where the lost logits cannot be had, log-probabilities are searched and vanished examples are undetermined.
    """

    model: Callable[..., Any]
    output: Selector = None
    kind: Kind = "auto"
    prepare: Callable[[Tree], Tree] | None = None
    notes: list[str] = field(default_factory=list)
    sizes: Sizes | None = None
    shape: Shape = None
    passed: str = ""
    _looks_like_probabilities: bool | None = None
    _chose: bool = False
    _head_proved: bool = False
    _writes_on_heads: bool = False

    def __post_init__(self) -> None:
        check_network(self.model, self.kind)
        if self.sizes is None:
            self.sizes = Sizes.of(self.model)

    def __call__(self, u: Tree) -> Outputs:
        """Run the model on inputs in search units; differentiable."""
        assert self.sizes is not None
        refuse_other(self.shape, u)
        raw, *behind = self.sizes.call(self._ask, u)
        if self.kind == "labels" or not (raw.is_floating_point() or raw.is_complex()):
            answers = _answers(raw)
            self._say("the model answers with labels alone: attacks on it can use nothing else")
            return Outputs(answers, answers, "labels")
        wide = raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw
        if behind:
            before = behind[0]
            self._say(
                "the model ends in a softmax or sigmoid, which saturates: the search runs on its input (the logits), "
                "the verdict on its output"
            )
            return Outputs(raw, before.float() if before.dtype in (torch.float16, torch.bfloat16) else before, "behind")
        return Outputs(raw, wide, "lost" if self._are_probabilities(wide, raw.dtype) else "logits")

    def _ask(self, u: Tree) -> tuple[Tensor, ...]:
        """What the model answers, and the logits behind its head where it ends in one; a row for each row."""
        inputs = u if self.prepare is None else self.prepare(u)
        # A model may work in place on what it is given (ReLU(inplace=True), x.sub_(mean)): it gets its own copy.
        inputs = tree_map(lambda given, own: given.clone() if given is own else given, inputs, u)
        if self.kind in ("logits", "labels") or _opaque(self.model):
            raw = self._read(self._run(inputs))
            watch = None
        else:
            with HeadWatch(spare=self._writes_on_heads) as watch:
                raw = self._read(self._run(inputs))
            if watch.overwritten and not self._writes_on_heads:
                self._writes_on_heads = True
                if raw.requires_grad:  # the gradient of this pass is lost, and only of this one
                    return self._ask(u)
        if raw.shape[:1] != (rows(inputs),):
            raise ModelError(
                f"the model returned scores of shape {tuple(raw.shape)} for a batch of {rows(inputs)}, and the "
                "first dimension must be the examples",
                remedy=("return a row for each, or pass", Arg("output"), "to pick the right tensor"),
            )
        if self.kind == "logits":
            raw = _numbers(raw)
        before = None if watch is None else watch.behind(raw, proved=self._head_proved)
        self._head_proved |= before is not None
        return (raw,) if before is None else (raw, before)

    def _read(self, returned: Any) -> Tensor:
        if not callable(self.output):
            raw = select(returned, self.output)
        else:
            with foreign("output="):
                raw = select(returned, self.output)
        if self.output is None and not self._chose:
            self._chose = True
            note = _choice(returned, raw)
            if note is not None:
                self._say(note)
        return raw

    def _run(self, inputs: Tree) -> Any:
        guard = guard_of(self.model)
        try:
            with foreign("the model"), nullcontext() if guard is None else guard.watching(self.model):
                return self.model(**inputs) if isinstance(inputs, dict) else self.model(inputs)
        except RuntimeError as error:
            if "numpy() on Tensor that requires grad" in str(error):
                raise no_path() from error
            if "Inference tensors cannot be saved" in str(error):
                raise inference_weights() from error
            told = self._mismatch(inputs, str(error)) or _misfit(inputs, error)
            if told is None:
                raise
            raise told from error
        except (AttributeError, TypeError) as error:
            if isinstance(self.model, nn.Module) or "Tensor" not in str(error):
                raise
            raise ModelError(f"the model cannot be called with tensors ({error})", remedy=_FROM_NUMPY) from error

    def _mismatch(self, inputs: Tree, said: str) -> ModelError | None:
        """What differs between inputs and weights, when the model could not be called and ``said`` why."""
        if not isinstance(self.model, nn.Module):
            return None
        weights = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        values = next((part for part in leaves(inputs) if part.is_floating_point()), None)
        if weights is None or values is None:
            return None
        if weights.device != values.device:
            return ModelError(
                Arg("x"),
                f"is on {values.device}, the model on {weights.device}",
                remedy=f"pass x.to({str(weights.device)!r})",
            )
        # A model may cast for itself and have failed for another reason.
        if weights.dtype != values.dtype and any(word in said.lower() for word in ("dtype", "type", "double", "half")):
            return ModelError(
                Arg("x"),
                f"is {values.dtype}, the model's weights {weights.dtype}",
                remedy=f"pass x.to({weights.dtype})",
            )
        return None

    def _are_probabilities(self, raw: Tensor, dtype: torch.dtype) -> bool:
        if self.kind != "auto":
            return self.kind == "probabilities"
        if self._looks_like_probabilities is None:
            self._looks_like_probabilities = self._judge(raw.detach(), dtype)
        return self._looks_like_probabilities

    def _judge(self, raw: Tensor, dtype: torch.dtype) -> bool:
        if bool(raw.amin() < 0):
            return False
        inside = bool((raw <= 1).all())  # false for NaN too
        if not inside or raw.ndim < 2 or raw.shape[1] < 2:
            if inside and len(raw) < _ENOUGH:
                raise InputError(
                    f"the model's {len(raw)} outputs all lie in [0, 1]: logits or probabilities? Too few to tell",
                    remedy=("pass", Arg("outputs", "logits"), "or", Arg("outputs", "probabilities")),
                )
            if inside:
                self._doubt("every output lies in [0, 1]: taken for probabilities of a one-logit model", *_IF_LOGITS)
                return True
            return False
        slack = max(1e-3, 2 * torch.finfo(dtype).eps * raw.shape[1] ** 0.5)
        if bool(((raw.sum(1) - 1).abs() < slack).all()):
            self._doubt(
                "the model returns probabilities and the logits behind them cannot be reached: examples whose gradient "
                "has rounded to zero are undetermined",
                "let the model return logits",
            )
            return True
        return False

    def reread(self, outputs: Outputs) -> Outputs:
        """For several independent labels: outputs that all lie in [0, 1] are probabilities, whatever they sum to."""
        if self.kind != "auto" or outputs.form != "logits" or not bool(((outputs.raw >= 0) & (outputs.raw <= 1)).all()):
            return outputs
        self._doubt("every output lies in [0, 1]: taken for probabilities of labels", *_IF_LOGITS)
        self._looks_like_probabilities = True
        return outputs._replace(form="lost")

    def _say(self, note: str) -> None:
        """Keep a note for the result."""
        if note not in self.notes:
            self.notes.append(note)

    def _doubt(self, text: str, *remedy: Part) -> None:
        """Keep a note, and warn as well, since the reading may be wrong."""
        warning = SignstepWarning(text, remedy=remedy)
        self._say(str(warning))
        warnings.warn(warning, stacklevel=6)


def check_network(network: object, kind: Kind) -> None:
    """See that a network can be called, and that the kind of its outputs is one.

    Raises:
        InputError: it cannot, or it is none.
    """
    if not callable(network):
        raise InputError(
            Arg("model"),
            f"is a {type(network).__name__}, which cannot be called",
            remedy="pass an nn.Module or a function",
        )
    if isinstance(network, torch.export.ExportedProgram):
        raise InputError(
            Arg("model"), "is an ExportedProgram, which cannot be called itself", remedy="pass its program.module()"
        )
    if kind not in ("auto", "logits", "probabilities", "labels"):
        raise InputError(Arg("outputs", kind), remedy="pass 'auto', 'logits', 'probabilities' or 'labels'")


def _numbers(raw: Tensor) -> Tensor:
    """Scores that are declared as such; counts and the integers of a quantised layer as floating point."""
    if raw.is_floating_point() or raw.is_complex():
        return raw
    exact = raw.dtype in (torch.int32, torch.int64) and raw.device.type != "mps"  # float32 holds 24 bits
    return raw.to(torch.float64 if exact else torch.float32)


def _answers(raw: Tensor) -> Tensor:
    """Class labels (R,) int64.

    Raises:
        ModelError: the shape or the values are not those of labels.
    """
    flat = raw.reshape(len(raw)) if raw.shape[1:] in ((), (1,)) else None
    if flat is None or (flat.is_floating_point() and not bool((flat == flat.round()).all())):
        raise ModelError(
            f"the model returned {raw.dtype} values of shape {tuple(raw.shape)}; labels are whole numbers, "
            "one for each example, (R,); scores are floating point, (R, classes)",
            remedy=("say which they are with", Arg("outputs"), "and", Arg("output")),
        )
    return flat.detach().long()


def _misfit(inputs: Tree, error: RuntimeError) -> ModelError | None:
    """What to say where torch complains about shapes; None where it complains about something else."""
    said = str(error).partition("\n")[0]
    if not any(word in said for word in ("shapes cannot be multiplied", "channels, but got", "size of tensor")):
        return None
    shapes = " and ".join(str(tuple(part.shape[1:])) for part in leaves(inputs))
    return ModelError(
        f"the model does not take examples of shape {shapes} ({said})",
        remedy=("pass inputs of the shape it was built for, for images", Arg("resize"), "may bring them there"),
    )


def select(returned: Any, output: Selector = None) -> Tensor:
    """Find the tensor of scores in what a model returned.

    Raises:
        ModelError: there is none, or it cannot be told which; the message lists what was returned.
    """
    if callable(output):
        found: Any = output(returned)
    elif output is not None:
        try:
            if isinstance(output, str) and isinstance(returned, Tensor):
                raise KeyError(output)  # torch would take the letters for indices, and warn of them
            found = (
                getattr(returned, output) if isinstance(output, str) and hasattr(returned, output) else returned[output]
            )
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(
                Arg("output", output),
                f"is not in what the model returned: {_shape_of(returned)}",
                remedy="pass what is",
            ) from error
    else:
        found = _find(returned)
    if isinstance(returned, np.ndarray) and output is None:
        raise ModelError(f"the model returned an array of shape {returned.shape}", remedy=_FROM_NUMPY)
    if not isinstance(found, Tensor):
        raise ModelError(
            f"the model returned {_shape_of(returned)}, which holds no scores that can be recognised",
            remedy=("pass", Arg("output"), "with a key, an index or a function that picks the tensor of logits"),
        )
    return found


def _find(returned: Any) -> Any:
    if isinstance(returned, Tensor):
        return returned
    logits = getattr(returned, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(returned, Mapping):
        if isinstance(returned.get("logits"), Tensor):
            return returned["logits"]
        tensors = [value for value in returned.values() if isinstance(value, Tensor)]
        return tensors[0] if len(tensors) == 1 else None
    if isinstance(returned, Sequence) and not isinstance(returned, str):
        return next((value for value in returned if isinstance(value, Tensor)), None)
    return None


def _choice(returned: Any, taken: Tensor) -> str | None:
    """What was taken for the scores, where the model returned several tensors and named none of them logits."""
    if isinstance(returned, Tensor) or getattr(returned, "logits", None) is taken:
        return None
    if isinstance(returned, Mapping):
        if returned.get("logits") is taken:
            return None
        parts: list[tuple[Any, Any]] = list(returned.items())
    else:
        parts = list(enumerate(returned))
    seen = _some([f"{name!r}: {_inside(value)}" for name, value in parts])
    if sum(1 for _, value in parts for _ in _held(value)) < 2:
        return None
    place = next(name for name, value in parts if value is taken)
    return (
        f"the model returned a {type(returned).__name__} of {{{seen}}}, and {place!r} was taken for the "
        "scores; if they are elsewhere pass output= with a key, an index or a function"
    )


def _held(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """The tensors in a value, or in mappings and sequences inside it."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, Mapping):
        for part in value.values():
            yield from _held(part, depth - 1)
    elif depth and isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from _held(part, depth - 1)


def _inside(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"({', '.join(('R', *map(str, value.shape[1:])))})" if value.ndim else "()"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} of {list(value)}"
    return type(value).__name__


def _shape_of(returned: Any) -> str:
    if isinstance(returned, Tensor):
        return f"a tensor of shape {tuple(returned.shape)}"
    if isinstance(returned, Mapping):
        return f"a {type(returned).__name__} with the keys [{_some([repr(key) for key in returned])}]"
    if isinstance(returned, (list, tuple)):
        return f"a {type(returned).__name__} of [{_some([type(value).__name__ for value in returned])}]"
    return f"a {type(returned).__name__}"


def _some(words: list[str]) -> str:
    """The words of a list, the first few where they are many: one for each example, say."""
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return f"{', '.join(words[:_NAMED])}{more}"


def _opaque(model: object) -> bool:
    """Whether calls inside the model cannot be watched: compiled or scripted code."""
    return isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod")
