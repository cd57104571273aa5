"""A model in an ONNX file, run by ONNX Runtime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.messages import Arg
from signstep.model.victims.arrays import Array, ArrayVictim, from_numpy

_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}


def from_onnx(
    path: str | Path,
    *,
    output: str | int | None = None,
    batch: int | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> ArrayVictim:
    """A model from an ONNX file with one floating-point input, run by ONNX Runtime.

    A file that was exported for a fixed number of rows is fed that many, the last ones filled up.

    Args:
        path: the file.
        output: which output has the scores (R, classes) or labels (R,), by name or position; None for the first with
            floating-point numbers, else the first.
        batch: rows of a call at most, or None for all at once.
        providers: of ONNX Runtime, in order of preference.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        LoadError: there is no such file, or it is not a model that can be read.
        InputError: the model has several inputs, or one that is not floating point, or no such output.
    """
    return Session.of(path, output=output, providers=providers).victim(batch)


@dataclass(frozen=True, eq=False)
class Session:
    """A file that ONNX Runtime has opened, with one input and one output chosen.

    Attributes:
        session: of ONNX Runtime.
        given: the name of the input.
        shape: of the input with its rows; names and None where a size is free.
        kind: of the numbers that go in, such as "float32".
        output: the name of the output.
        others: the names of all outputs.
    """

    session: Any
    given: str
    shape: tuple[int | str | None, ...]
    kind: str
    output: str
    others: tuple[str, ...]

    @classmethod
    def of(
        cls,
        path: str | Path,
        *,
        output: str | int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> "Session":
        """Open a file; see `from_onnx`."""
        runtime = library()
        path = Path(path)
        if not path.is_file():
            raise LoadError(f"the model {path} does not exist", remedy="check the path")
        try:
            session = runtime.InferenceSession(str(path), providers=list(providers))
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise LoadError(
                f"{path} cannot be loaded as an ONNX model ({type(error).__name__}: {said})", remedy="export it again"
            ) from error
        inputs = session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _TYPES:
            listed = ", ".join(f"{part.name} {part.type}" for part in inputs)
            raise InputError(f"{path} takes the inputs {listed}", remedy="attack a model with one floating-point input")
        names = tuple(str(part.name) for part in session.get_outputs())
        given = inputs[0]
        chosen = _output(session, output, path)
        return cls(session, given.name, tuple(given.shape or ()), _TYPES[given.type], chosen, names)

    @property
    def rows(self) -> int | None:
        """The number of rows that it was exported for; None where that is free."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None

    def victim(self, batch: int | None = None) -> ArrayVictim:
        """The model that asks it, at most so many rows at once."""
        ask = _asked(self.session, self.given, self.output, self.rows)
        return from_numpy(ask, batch=self.rows or batch, dtype=self.kind)


def library() -> Any:
    """ONNX Runtime.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    return onnxruntime


def _output(session: Any, output: str | int | None, path: Path) -> str:
    outputs = session.get_outputs()
    names = [part.name for part in outputs]
    if output is None:
        floating = [part.name for part in outputs if part.type in _TYPES]
        return str((floating or names)[0])
    if isinstance(output, int) and -len(names) <= output < len(names):
        return str(names[output])
    if output in names:
        return str(output)
    raise InputError(
        Arg("output", output), f": {path} has the outputs {', '.join(names)}", remedy="pass one of them or its position"
    )


def _asked(session: Any, name: str, output: str, fixed: int | None) -> Callable[[Array], Array]:
    def ask(x: Array) -> Array:
        count = len(x)
        if fixed is not None and count < fixed:
            x = np.concatenate([x, np.repeat(x[-1:], fixed - count, axis=0)])
        (answer,) = session.run([output], {name: x})
        return np.asarray(answer)[:count]

    return ask
