"""One look of the model at a batch, which all detectors share: inputs in raw units, scores, penultimate features."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from signstep.engine import arrays
from signstep.engine.keys import Key, content_ids
from signstep.engine.origin import foreign
from signstep.engine.outputs import Outputs
from signstep.engine.tasks import Labels, Multiclass, task_for
from signstep.engine.untouched import untouched
from signstep.errors import InputError, ModelError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.predictor import Predictor
from signstep.model.space import InputSpace

_NO_FEATURES = (
    "pass a detector that reads scores or inputs, or let the network end in a linear layer, or in a convolution after "
    "pooling"
)


class Tap:
    """What the network says before its last word in this thread: the input (R, F) of the layer that makes the scores.

    That is the linear layer that ran last, or a layer behind it that is one by its weight: a convolution over a whole
    map, such as 1 x 1 after pooling, or somebody's own. Other threads may run the same network meanwhile; what they do
    is not seen.
    """

    def __init__(self) -> None:
        self._linear: Tensor | None = None
        self._behind: dict[int, Tensor] = {}  # by width of what it makes

    def __enter__(self) -> "Tap":
        self._thread = threading.get_ident()
        self._hook = nn.modules.module.register_module_forward_hook(self._see)
        return self

    def __exit__(self, *_: Any) -> None:
        self._hook.remove()

    def features(self, scores: Tensor) -> Tensor | None:
        """The input (R, F) of the layer that made scores (R, ...); None where no layer of the kind ran."""
        made = self._behind.get(scores[:1].numel())
        if made is None:
            made = self._linear
        return made if made is not None else next(reversed(self._behind.values()), None)

    def _see(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() != self._thread or not inputs or not isinstance(inputs[0], Tensor):
            return
        given = inputs[0]
        if isinstance(module, nn.Linear):
            self._linear = given.flatten(1)
            self._behind.clear()
        elif _is_linear(module, given, output):
            width = output[0].numel()
            self._behind.pop(width, None)
            self._behind[width] = given.flatten(1)


def _is_linear(module: nn.Module, given: Tensor, output: Any) -> bool:
    """Whether a module without parts makes each of K numbers of all F of a row, by a weight of K F numbers."""
    if not isinstance(output, Tensor) or given.ndim < 2 or output.ndim < 2 or len(output) != len(given):
        return False
    if not len(given) or next(module.children(), None) is not None:
        return False
    size = given[0].numel() * output[0].numel()
    return any(weight.ndim > 1 and weight.numel() == size for weight in module.parameters(recurse=False))


@dataclass(frozen=True, eq=False)
class Reader:
    """How a declared model is looked at; made once, used for every batch.

    Attributes:
        model: as declared.
        predictor: calls it on raw inputs.
        space: its input space.
    """

    model: Model
    predictor: Predictor
    space: InputSpace
    _modules: tuple[nn.Module, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, model: Model | Callee) -> "Reader":
        """The reader of a model."""
        declared = Model.of(model)
        network = declared.network
        parts = tuple(network.modules()) if isinstance(network, nn.Module) else ()
        return cls(declared, declared.predictor(), declared.space(), parts)

    def __reduce__(self) -> tuple[object, ...]:
        """To another process goes the declaration: what calls it is made there."""
        return Reader.of, (self.model,)

    def see(self, x: Tensor | arrays.Array) -> "Seen":
        """A look at inputs (R, ...) in the declared units.

        Raises:
            InputError: they are several inputs, or no floating point numbers.
        """
        made = arrays.inputs(x, [], home=arrays.Home(self.model.network))
        if not isinstance(made, Tensor):
            raise InputError(
                Arg("x"), "has several inputs, and detectors look at one tensor", remedy="pass the one that may change"
            )
        if not made.is_floating_point():
            raise InputError(
                Arg("x", made.dtype, of="dtype"), ", and detectors look at numbers", remedy="pass floating point inputs"
            )
        return Seen(self, self.space.to_raw(made))

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """No gradients, and the network as it is declared to work; nothing is done where it stands so already."""
        in_training = self.model.mode == "eval" and any(part.training for part in self._modules)
        if self._modules and not in_training:
            with torch.no_grad():
                yield
            return
        with untouched(self.model.network, mode=self.model.mode), torch.no_grad():
            yield

    def ask(self, raw: Tensor) -> Outputs:
        """One pass; a declared transform is drawn from each input's content, as `Model` itself does."""
        transform = self.model.transform
        if transform is not None:
            draws = Key(0).fold("transform").draws(content_ids(raw), raw.device)
            with foreign("transform="):
                raw = transform(raw, draws)
        return self.predictor(raw)


class Seen:
    """What can be read of a batch; every part is asked for once, when it is first needed.

    Attributes:
        reader: of the model.
        raw: inputs (R, ...) in raw units.
        passes: forward passes made so far.
    """

    def __init__(self, reader: Reader, raw: Tensor, ask: Callable[[Tensor], Outputs] | None = None) -> None:
        """See `Seen`; ``ask`` stands in for the reader's own pass, for searches that ask a problem."""
        self.reader, self.raw, self.passes = reader, raw, 0
        self._ask = ask or reader.ask
        self._outputs: Outputs | None = None
        self._features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def looked(self) -> bool:
        """Whether the model has been asked about the inputs themselves."""
        return self._outputs is not None

    @property
    def outputs(self) -> Outputs:
        """What the model says of the inputs."""
        if self._outputs is None:
            with Tap() as tap:
                self._outputs = self._ask(self.raw)
            self.passes += 1
            self._features = tap.features(self._outputs.raw)
        return self._outputs

    @property
    def logits(self) -> Tensor:
        """Scores (R, K) whose softmax are the probabilities.

        Raises:
            ModelError: the model does not choose one class by scores.
        """
        return self._classified(self.outputs)

    @property
    def classes(self) -> Tensor:
        """The class (R,) that the model answers.

        Raises:
            ModelError: it answers with no class.
        """
        task = self._task(self.outputs)
        return task.predict(self.outputs)

    @property
    def features(self) -> Tensor:
        """Penultimate features (R, F): the input of the layer that makes the scores, see `Tap`.

        Raises:
            ModelError: no such layer runs, or it sees other rows.
        """
        found = self._features if self.outputs is not None else None
        if found is None or len(found) != len(self.raw):
            raise ModelError(
                "no linear layer of the network sees a row for each example, so that it has no penultimate features",
                remedy=_NO_FEATURES,
            )
        return found

    def ask(self, raw: Tensor) -> Tensor:
        """Scores (S, K) of other inputs (S, ...), in one further pass."""
        self.passes += 1
        return self._classified(self._ask(raw))

    def answer(self) -> Tensor | None:
        """Scores (R, K) where the model was asked and gives such, else None."""
        if self._outputs is None or self._outputs.form == "labels":
            return None
        return self._outputs.raw

    def _classified(self, outputs: Outputs) -> Tensor:
        task = self._task(outputs)
        if isinstance(task, Labels):
            raise ModelError(
                "this detector reads scores, and the model answers with labels alone",
                remedy="let it return scores, or pass a detector that reads inputs",
            )
        return task.logits(outputs)

    def _task(self, outputs: Outputs) -> Multiclass:
        task = task_for(self.reader.model.task, outputs.raw)
        if not isinstance(task, Multiclass):
            raise ModelError(
                f"detectors that read answers are for models that choose one class, and this task is {task.name}",
                remedy="pass a detector that reads inputs alone",
            )
        return task
