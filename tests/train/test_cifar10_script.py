"""The script for CIFAR-10: every form of the data, and a run on a handful of rows."""

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from signstep.errors import LoadError

ROOT = Path(__file__).resolve().parents[2]
SUBSET = ROOT / ".." / "shared" / "data" / "cifar10"


@pytest.fixture
def script() -> Iterator[ModuleType]:
    folder = str(ROOT / "benchmarks")
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("cifar10")
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if name.startswith("cifar10") or name == "harness":
                del sys.modules[name]


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    return draws.integers(0, 256, (60, 3072), np.uint8), draws.integers(0, 10, 60).astype(np.uint8)


def written(folder: Path, kind: str, x: np.ndarray, y: np.ndarray) -> Path:
    """60 images in one of the official forms: 10 in each of five files, and 10 to test on."""
    if kind == "npz":
        images = x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        path = folder / "cifar10.npz"
        np.savez(path, x_train=images[:50], y_train=y[:50, None], x_test=images[50:], y_test=y[50:, None])
        return path
    inner = folder / ("cifar-10-batches-bin" if kind == "binary" else "cifar-10-batches-py")
    inner.mkdir()
    for number in range(6):
        part, labels = x[10 * number : 10 * number + 10], y[10 * number : 10 * number + 10]
        name = "test_batch" if number == 5 else f"data_batch_{number + 1}"
        if kind == "binary":
            np.concatenate([labels[:, None], part], 1).tofile(inner / f"{name}.bin")
        else:
            (inner / name).write_bytes(pickle.dumps({b"data": part, b"labels": labels.tolist()}, protocol=2))
    return folder


@pytest.mark.parametrize("kind", ["python", "binary", "npz"])
def test_every_form_gives_the_same_images(
    kind: str,
    script: ModuleType,
    pictures: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    x, y = pictures
    data = script.load_cifar10(written(tmp_path, kind, x, y))
    assert torch.equal(data.x, torch.from_numpy(x[:50].reshape(-1, 3, 32, 32)))
    assert torch.equal(data.test_x, torch.from_numpy(x[50:].reshape(-1, 3, 32, 32)))
    assert data.y.tolist() == y[:50].tolist()
    assert data.test_y.tolist() == y[50:].tolist()


def test_a_pickle_that_would_run_code_is_refused(
    script: ModuleType,
    pictures: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harmed",))

    folder = written(tmp_path, "python", *pictures)
    (folder / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({b"data": Harmful()}))
    with pytest.raises(LoadError, match=r"which CIFAR-10 does not need"):
        script.load_cifar10(folder)
    assert not (tmp_path / "harmed").exists()
    (folder / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"")
    with pytest.raises(LoadError, match="no batch of CIFAR-10"):
        script.load_cifar10(folder)


def test_what_is_not_there_is_told(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="holds no CIFAR-10: pass the folder cifar-10-batches-py"):
        script.load_cifar10(tmp_path)


@pytest.mark.kernels
def test_a_run_on_a_handful_of_rows(
    script: ModuleType,
    pictures: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    words = ["--data", str(written(tmp_path, "npz", *pictures)), "--width", "2", "--batch", "16", "--epochs", "2"]
    given = script.arguments([*words, "--recipe", "fgsm-pgi", "--device", "cpu", "--ladder", "quick@1"])
    trained, result = script.run(given)
    assert trained.steps == trained.total == 2 * 3
    assert trained.settings.crop == 4
    assert (result.examples, result.ladder) == (10, "quick@1")
    assert result.terms["threat"].startswith("linf eps=8/255")


@pytest.mark.skipif(not SUBSET.is_dir(), reason="needs ../shared/data/cifar10 beside the checkout")
def test_the_subset(script: ModuleType) -> None:
    pytest.importorskip("PIL", reason="needs pillow")
    data = script.load_cifar10(SUBSET)
    assert data.x.shape == (10_000, 3, 32, 32)
    assert len(data.test_x) == 1000
    assert len(data.y.unique()) == 10
    # Neighbouring pixels of a photograph are alike; tiles that were cut wrongly would be no photographs.
    images = data.x[:500].float()
    assert float((images[..., 1:] - images[..., :-1]).abs().mean()) < 15
