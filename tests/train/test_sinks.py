"""Other places for the log, with the packages stood in for."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from signstep.errors import InputError, LoadError, MissingExtraError, SignstepWarning
from signstep.train import Reading
from signstep.train.sinks import metrics, sinks

READING = Reading(40, 1.0, 0, "fgsm", 50, 1.0, 0.3, 0.9, 45, 40, 30, 0.9, 0.8)


def test_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            seen.append(folder)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def close(self) -> None:
            seen.append("closed")

    board, flow = ModuleType("torch.utils.tensorboard"), ModuleType("mlflow")
    board.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    flow.log_metrics = lambda numbers, step: seen.append((dict(numbers), step))  # type: ignore[attr-defined]
    flow.active_run = lambda: None  # type: ignore[attr-defined]
    flow.start_run = lambda: seen.append("begun")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "mlflow", flow)
    for sink in sinks(["tensorboard", "mlflow"], tmp_path):
        sink.add(READING)
        sink.close()
    assert seen[0] == str(tmp_path)
    assert ("accuracy/pgd", 0.6, 40) in seen
    assert "closed" in seen
    assert "begun" in seen
    assert seen[-1] == (metrics(READING), 40)


def test_what_is_not_installed_and_what_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=name):
            sinks([name], tmp_path)
    with pytest.raises(InputError, match="wandb"):
        sinks(["wandb"], tmp_path)


def test_a_server_that_is_not_there_is_said_before_training_and_lost_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ConnectionError("refused\nin detail")

    flow = ModuleType("mlflow")
    flow.active_run = lambda: None  # type: ignore[attr-defined]
    flow.start_run = fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", flow)
    with pytest.raises(LoadError, match=r"cannot begin a run \(refused\); set MLFLOW_TRACKING_URI"):
        sinks(["mlflow"], tmp_path)
    flow.start_run = lambda: None  # type: ignore[attr-defined]
    flow.log_metrics = fails  # type: ignore[attr-defined]
    (sink,) = sinks(["mlflow"], tmp_path)
    with pytest.warns(SignstepWarning, match="training goes on"):
        sink.add(READING)
    sink.add(READING)  # no second warning


def test_with_the_real_packages(tmp_path: Path) -> None:
    """TensorBoard's own reader finds what was written."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    (sink,) = sinks(["tensorboard"], tmp_path)
    sink.add(READING)
    sink.close()
    found = events.EventAccumulator(str(tmp_path))
    found.Reload()
    assert set(found.Tags()["scalars"]) == set(metrics(READING))
    assert found.Scalars("accuracy/pgd")[0].step == READING.step
