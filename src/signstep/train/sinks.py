"""Other places for the log, where they are installed: TensorBoard, MLflow."""

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from signstep.errors import InputError, LoadError, MissingExtraError, SignstepWarning
from signstep.messages import Arg
from signstep.train.alarm import Reading


class Sink(Protocol):
    """Takes readings as they come."""

    def add(self, reading: Reading) -> None:
        """One look."""

    def close(self) -> None:
        """Nothing more comes."""


class TensorBoard:
    """Event files in ``folder``.

    Raises:
        MissingExtraError: the package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            module = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard") from error
        self._writer: Any = module.SummaryWriter(str(folder))

    def add(self, reading: Reading) -> None:
        """One scalar for each number."""
        for name, value in metrics(reading).items():
            self._writer.add_scalar(name, value, reading.step)

    def close(self) -> None:
        """Write out."""
        self._writer.close()


class MLflow:
    """Metrics of the active run; one is begun where there is none.

    Raises:
        MissingExtraError: the package is not installed.
        LoadError: it has no place to log to.
    """

    def __init__(self) -> None:
        try:
            self._module: Any = importlib.import_module("mlflow")
        except ImportError as error:
            raise MissingExtraError("mlflow", "mlflow") from error
        try:
            if self._module.active_run() is None:
                self._module.start_run()
        except Exception as error:  # servers, files and databases fail each in their own way
            raise LoadError(
                f"mlflow cannot begin a run ({_short(error)})",
                remedy="set MLFLOW_TRACKING_URI to a place that it can write to, or leave mlflow out",
            ) from error
        self._lost = False

    def add(self, reading: Reading) -> None:
        """One metric for each number; where a server is gone, training goes on and says so once."""
        if self._lost:
            return
        try:
            self._module.log_metrics(metrics(reading), step=reading.step)
        except Exception as error:
            self._lost = True
            text = f"mlflow takes no metrics any more ({_short(error)}); training goes on, and log.csv has them all"
            warnings.warn(SignstepWarning(text), stacklevel=2)

    def close(self) -> None:
        """The run stays the caller's to end."""


def sinks(names: Sequence[str], folder: Path) -> list[Sink]:
    """Those named "tensorboard" and "mlflow".

    Raises:
        InputError: another name.
        MissingExtraError: the package is not installed.
    """
    for name in names:
        if name not in ("tensorboard", "mlflow"):
            raise InputError(Arg("log_to", name), remedy="pass tensorboard, mlflow or both")
    return [TensorBoard(folder) if name == "tensorboard" else MLflow() for name in names]


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def metrics(reading: Reading) -> dict[str, float]:
    """The numbers of a reading under the names they have in every sink; accuracies are shares."""
    shares = {f"accuracy/{name}": reading.share(getattr(reading, name)) for name in ("clean", "fgsm", "pgd")}
    losses = {
        "loss/train": reading.loss,
        "loss/clean": reading.clean_loss,
        "loss/fgsm": reading.adversarial_loss,
    }
    cosines = {"cosine/weights": reading.weight_cosine, "cosine/inputs": reading.input_cosine}
    return {**losses, **shares, **cosines, "rows per second": reading.speed}
