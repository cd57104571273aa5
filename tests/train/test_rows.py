"""Rows from memory, from files and from Datasets: the same training, bit for bit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import signstep as ss
from signstep.errors import InputError, LoadError, ThreatError
from signstep.train import Settings, fit
from signstep.train.disk_rows import remove_rows, rows_on_disk
from signstep.train.held_out import common_rows, held_rows
from signstep.train.rows import rows_of

THREAT, QUICK = ss.linf(0.1), Settings(epochs=2, batch=32)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (96, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return levels.float().div_(255), torch.randint(3, (96,), generator=generator)


def weights(x: object, y: Tensor | None, **changes: object) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    settings = Settings(epochs=2, batch=32, **changes)  # type: ignore[arg-type]
    fit(model, x, y, threat=THREAT, settings=settings)
    return torch.cat([part.detach().flatten() for part in model.parameters()])


def test_files_and_datasets_train_as_memory_does(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    x, y = data
    wanted = weights(x, y, crop=1)
    np.save(tmp_path / "bytes.npy", (x * 255).round().to(torch.uint8).numpy())
    np.save(tmp_path / "floats.npy", x.numpy())
    for name in ("bytes", "floats"):
        assert torch.equal(weights(np.load(tmp_path / f"{name}.npy", mmap_mode="r"), y, crop=1), wanted)
    assert torch.equal(weights(x.numpy(), y, crop=1), wanted)
    assert torch.equal(weights(TensorDataset(x, y), None, crop=1), wanted)


def test_only_the_rows_of_a_step_are_read(data: tuple[Tensor, Tensor]) -> None:
    asked: list[int] = []

    class Counting(Dataset[tuple[Tensor, Tensor]]):
        def __len__(self) -> int:
            return 96

        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            asked.append(row)
            return data[0][row], data[1][row]

    taken = rows_of(Counting(), None)
    assert torch.equal(taken.take(torch.tensor([5, 2]))[0], data[0][[5, 2]])
    assert asked == [5, 2]


def test_a_value_outside_of_the_box_is_found_also_in_a_file(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    x = data[0].clone()
    x[40, 0, 1, 1] = 3.0
    np.save(tmp_path / "x.npy", x.numpy())
    with pytest.raises(InputError, match="3"):
        weights(np.load(tmp_path / "x.npy", mmap_mode="r"), data[1])
    with pytest.raises(InputError, match="3"):
        weights(TensorDataset(x, data[1]), None)


def test_a_run_from_a_file_goes_on(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    x, y = data
    (tmp_path / "run").mkdir()
    np.save(tmp_path / "x.npy", x.numpy())
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    asked = iter([False, True])
    where = tmp_path / "run"
    first = fit(model, rows, y, threat=THREAT, settings=QUICK, folder=where, watch=lambda _: next(asked))
    assert (first.steps, first.partial) == (2, True)
    second = fit(model, rows, y, threat=THREAT, settings=QUICK, folder=where)
    assert (second.steps, second.notes[0]) == (6, "went on from step 2")
    with pytest.raises(InputError, match="other settings, data or model"):
        fit(model, np.flip(x.numpy(), 0), y, threat=THREAT, settings=QUICK, folder=where)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(9, 4, dtype=torch.int64), torch.zeros(9).long(), "floating point"),
        (np.zeros((9, 4), np.int32), torch.zeros(9).long(), "array of int32"),
        (np.zeros((9, 4), np.float32), torch.zeros(8).long(), "for 9 rows"),
        (TensorDataset(torch.zeros(9, 4), torch.zeros(9)), torch.zeros(9).long(), "leave y out"),
        (TensorDataset(torch.zeros(9, 4)), None, "make each a pair"),
        (TensorDataset(torch.zeros(9, 4).long(), torch.zeros(9)), None, "example 0 of x"),
        ([[0.0]], torch.zeros(1).long(), "list"),
    ],
)
def test_what_cannot_be_trained_on_is_told(x: object, y: Tensor | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit(nn.Linear(4, 2), x, y, threat=THREAT)


def test_threats_of_examples_are_refused() -> None:
    with pytest.raises(ThreatError):
        fit(nn.Linear(4, 2), torch.zeros(9, 4), torch.zeros(9).long(), threat=ss.linf(-1))


class Source:
    """What `spooled` reads."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.labels, self.shape, self.reads = x, y, tuple(x.shape[1:]), 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.reads += 1
        yield from zip(torch.split(self.x, 20), torch.split(self.labels, 20), strict=True)

    def fingerprint(self) -> str:
        return f"{int(self.x.sum() * 1e3):064x}"


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_spooled_rows_are_the_rows(kind: str, data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    x, y = data
    source = Source(x if kind == "bytes" else x / 3, y)
    rows, labels = rows_on_disk(source, tmp_path)
    assert isinstance(rows, np.memmap)
    assert rows.dtype == (np.uint8 if kind == "bytes" else np.float32)
    assert torch.equal(rows_of(rows, labels).take(torch.arange(96))[0], source.x)
    reads = source.reads
    assert rows_on_disk(source, tmp_path)[0].shape == x.shape
    assert source.reads == reads, "written twice"
    assert common_rows(rows, labels, source.x[:5]) == 5
    held = held_rows(rows, labels, QUICK)
    assert torch.equal(held[0], held_rows(source.x, y, QUICK)[0])
    remove_rows(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="leave out on_disk="):
        rows_on_disk(Source(*data), tmp_path / "nowhere")
