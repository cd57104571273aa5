"""Other places for the log, where they are installed: TensorBoard, MLflow."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from signstep.errors import InputError, MissingExtraError
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
    """

    def __init__(self) -> None:
        try:
            self._module: Any = importlib.import_module("mlflow")
        except ImportError as error:
            raise MissingExtraError("mlflow", "mlflow") from error

    def add(self, reading: Reading) -> None:
        """One metric for each number."""
        self._module.log_metrics(metrics(reading), step=reading.step)

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
            raise InputError(f"log_to={name!r}; pass tensorboard, mlflow or both")
    return [TensorBoard(folder) if name == "tensorboard" else MLflow() for name in names]


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
