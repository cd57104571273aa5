"""A model in an ONNX file, run by ONNX Runtime."""

from collections.abc import Callable, Sequence
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
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    path = Path(path)
    if not path.is_file():
        raise LoadError(f"the model {path} does not exist", remedy="check the path")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=list(providers))
    except Exception as error:
        raise LoadError(
            f"{path} cannot be loaded as an ONNX model ({type(error).__name__}: {error})", remedy="export it again"
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in _TYPES:
        listed = ", ".join(f"{part.name} {part.type}" for part in inputs)
        raise InputError(f"{path} takes the inputs {listed}", remedy="attack a model with one floating-point input")
    rows = inputs[0].shape[0] if inputs[0].shape else None
    fixed = rows if isinstance(rows, int) else None
    ask = _asked(session, inputs[0].name, _output(session, output, path), fixed)
    return from_numpy(ask, batch=fixed or batch, dtype=_TYPES[inputs[0].type])


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
