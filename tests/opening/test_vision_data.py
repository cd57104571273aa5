"""Data sets of torchvision itself, with and without transforms. Nothing is downloaded here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from samples import needs
from torch import nn

import signstep as ss
from signstep.data import open_data
from signstep.data.forms import Batches

COUNT, SIDE = 6, 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``root/class/number.png``, as ImageFolder reads it."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
    draw = torch.Generator().manual_seed(0)
    for kind in ("emu", "cat", "dog"):
        (tmp_path / kind).mkdir()
        for number in range(COUNT // 3):
            pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=draw, dtype=torch.uint8)
            image.fromarray(pixels.numpy()).save(tmp_path / kind / f"{number}.png")
    return tmp_path


def read(data: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    found = list(Batches(data, 4, **options))
    return torch.cat([x for x, _ in found if isinstance(x, torch.Tensor)]), torch.cat(
        [y for _, y in found if y is not None]
    )


@pytest.mark.vision
@pytest.mark.parametrize("transformed", [False, True])
def test_image_folder_is_read_as_the_folder_itself(folder: Path, transformed: bool) -> None:
    needs("torchvision")
    from torchvision import datasets, transforms

    data = datasets.ImageFolder(str(folder), transforms.ToTensor() if transformed else None)
    x, y = read(data)
    source = open_data(folder)
    own = torch.cat([part for part, _ in source])  # in turn from each class
    order = source.labels.argsort(stable=True)
    torch.testing.assert_close(x, own[order], rtol=0, atol=1e-6)
    assert y.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.vision
def test_classes_of_image_folder_are_numbered_as_the_model_numbers_them(folder: Path) -> None:
    needs("torchvision")
    from torchvision import datasets

    model = ss.Model(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3)), classes=("dog", "emu", "cat"))
    found = ss.audit(model, datasets.ImageFolder(str(folder)), threat=ss.linf(0.1), attacks=["fgsm"], curve=False)
    assert found.per_example.labels == (2, 2, 0, 0, 1, 1)


@pytest.mark.vision
def test_fake_data_in_raw_pixels_and_behind_a_loader() -> None:
    needs("torchvision")
    from torchvision import datasets, transforms

    bare = datasets.FakeData(COUNT, (3, SIDE, SIDE), 4)
    made = datasets.FakeData(COUNT, (3, SIDE, SIDE), 4, transform=transforms.ToTensor())
    x, y = read(bare)
    again, labels = read(torch.utils.data.DataLoader(made, batch_size=4))
    torch.testing.assert_close(x, again, rtol=0, atol=1e-6)
    assert torch.equal(y, labels)
