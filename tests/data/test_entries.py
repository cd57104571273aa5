"""Data of other libraries, told by what it gives: torchvision's pairs and class names, dicts of Hugging Face."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

import signstep as ss
from signstep.data.entries import order_of
from signstep.data.forms import Batches
from signstep.errors import InputError, LabelError, LoadError

COUNT, SIDE = 12, 6
PIXELS = torch.randint(0, 256, (COUNT, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
NUMBERS = [place % 3 for place in range(COUNT)]
UNIT = PIXELS.permute(0, 3, 1, 2).float() / 255


class Folder(Dataset[Any]):
    """What a data set of torchvision is: pairs by number, with ``classes``, and a transform or none."""

    def __init__(self, transform: Any = None, mode: str = "RGB", classes: tuple[str, ...] = ("cat", "dog", "emu")):
        self.transform, self.mode, self.classes = transform, mode, list(classes)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, number: int) -> tuple[Any, int]:
        image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
        picture = image.fromarray(PIXELS[number].numpy()).convert(self.mode)
        return (picture if self.transform is None else self.transform(picture)), NUMBERS[number]


def read(data: Any, **options: Any) -> tuple[Tensor, Tensor, Batches]:
    batches = Batches(data, 5, **options)
    found = list(batches)
    return (
        torch.cat([x for x, _ in found if isinstance(x, Tensor)]),
        torch.cat([y for _, y in found if y is not None]),
        batches,
    )


def test_images_of_pillow_are_read_in_raw_pixels() -> None:
    x, y, batches = read(Folder())
    assert torch.equal(x, UNIT)
    assert y.tolist() == NUMBERS
    assert batches.notes == ["images of Pillow are read in raw pixels: bytes 0..255 divided by 255"]


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("RGBA", 3), ("P", 3), ("CMYK", 3), ("1", 1), ("LA", 1), ("YCbCr", 3)]
)
def test_every_known_mode_becomes_grey_or_colour(mode: str, channels: int) -> None:
    x, _, _ = read(Folder(mode=mode))
    assert x.shape == (COUNT, channels, SIDE, SIDE)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_mode_without_a_scale_is_refused(mode: str) -> None:
    with pytest.raises(LoadError, match=f"an image has mode {mode}, whose scale is unknown; convert it to 8 bits"):
        read(Folder(mode=mode))


def test_images_of_several_sizes_name_the_remedy() -> None:
    sizes = iter([(6, 6), (6, 6), (4, 8)] * COUNT)
    with pytest.raises(InputError, match=r"images of 6x6 and of 8x4 \(height x width\); bring them to one size in the"):
        read(Folder(lambda picture: picture.resize(next(sizes))))


def test_a_transform_that_makes_tensors_is_heeded() -> None:
    def to_tensor(picture: Any) -> Tensor:
        return torch.tensor(list(picture.tobytes()), dtype=torch.uint8).reshape(SIDE, SIDE, 3).permute(2, 0, 1) / 255

    data = Folder(to_tensor)
    x, _, batches = read(data)
    assert torch.equal(x, UNIT)
    assert batches.notes == []
    again, _, _ = read(DataLoader(data, batch_size=4))
    assert torch.equal(again, UNIT)


def test_a_data_set_with_normalise_in_its_transform_is_told_apart_by_its_box() -> None:
    data = Folder(lambda picture: (UNIT[0] + 0 * torch.tensor(picture.size[0]) - 0.5) / 0.2)
    with pytest.raises(InputError, match=r"normalised\? Pass mean"):
        ss.audit(nn.Sequential(nn.Flatten(), nn.Linear(108, 3)), data, threat=ss.linf(0.1))


@pytest.mark.parametrize("wrapped", [lambda data: data, lambda data: Subset(data, range(COUNT))])
def test_classes_are_numbered_by_name(wrapped: Any) -> None:
    """A model with cat at 2 and dog at 0: folders in the order of their names would be numbered wrong in silence."""
    x, y, batches = read(wrapped(Folder()), classes=("dog", "emu", "cat", "fox"))
    assert y.tolist() == [[2, 0, 1][number] for number in NUMBERS]
    assert torch.equal(x, UNIT)
    assert "labels are numbered as the model numbers the classes of the same names" in batches.notes


def test_an_audit_numbers_them_so_and_verify_too(tmp_path: Any) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3))
    model = ss.Model(network, classes=("emu", "cat", "dog"))
    found = ss.audit(model, Folder(), threat=ss.linf(0.1), attacks=["fgsm"], curve=False)
    assert list(found.per_example.labels) == [[1, 2, 0][number] for number in NUMBERS]
    found.save(tmp_path / "result.json")
    seen = ss.verify(tmp_path, model, Folder(), threat=ss.linf(0.1))
    assert {check.name for check in seen.checks if not check.holds} <= {"files"}


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (
            ("cat", "cow", "emu"),
            "has the class 'dog', which is none of the model's 3 .*, and 2 that are",
        ),
        (("a", "b"), r"has 3 classes, and none of them has a name of the model's 2 \('cat' beside 'a'\)"),
        (("cat", "cat", "dog", "emu"), r"has the class 'cat', and the model has two of that name"),
    ],
)
def test_names_that_differ_are_refused(known: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Batches(Folder(), classes=known)


def test_names_of_which_none_is_known_stay_in_their_order_with_a_note() -> None:
    said: list[str] = []
    assert order_of(("n01", "n02"), ("tench", "goldfish"), said.append) is None
    assert len(said) == 1
    assert "numbered in their own order" in said[0]
    assert order_of((), ("tench",), said.append) is None
    assert order_of(("a", "b"), ("a", "b"), said.append) is None
    assert len(said) == 1


def test_labels_beyond_the_classes_are_an_error_and_those_for_none_stay() -> None:
    order = order_of(("a", "b"), ("b", "a"), lambda _: None)
    assert order is not None
    numbered = order.numbered(torch.tensor([0, 1, -100]))
    assert numbered is not None
    assert numbered.tolist() == [1, 0, -100]
    with pytest.raises(LabelError, match="has the label 2 and 2 classes"):
        order.numbered(torch.tensor([2]))


class Dicts(Dataset[Any]):
    """What a data set of Hugging Face gives."""

    def __init__(self, label: str = "label", **more: Any) -> None:
        self.label, self.more = label, more

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"pixel_values": UNIT[number], self.label: NUMBERS[number], **self.more}


@pytest.mark.parametrize("label", ["label", "labels", "y", "target"])
def test_dicts_with_a_label_are_examples_and_their_loader_gives_batches(label: str) -> None:
    for data in (
        Dicts(label),
        DataLoader(Dicts(label), batch_size=5),
        [Dicts(label)[number] for number in range(COUNT)],
    ):
        x, y, batches = read(data)
        assert torch.equal(x, UNIT)
        assert y.tolist() == NUMBERS
        assert batches.notes == [f"of each entry 'pixel_values' is the input and {label!r} the label"]


def test_what_lies_beside_a_picture_is_named() -> None:
    _, _, batches = read(Dicts(path="somewhere"))
    assert batches.notes == ["of each entry 'pixel_values' is the input and 'label' the label; path are left aside"]


def test_several_inputs_stay_a_dict() -> None:
    (batch,) = Batches([{"input_ids": torch.ones(3, 4), "attention_mask": torch.ones(3, 4), "labels": [0, 1, 2]}])
    assert isinstance(batch[0], dict)
    assert list(batch[0]) == ["input_ids", "attention_mask"]
    (both,) = Batches([{"pixel_values": UNIT[:3], "bool_masked_pos": torch.ones(3, 4), "labels": [0, 1, 2]}])
    assert isinstance(both[0], dict)
    assert list(both[0]) == ["pixel_values", "bool_masked_pos"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"image": 1, "fine_label": 2}, "has no labels; make each batch a pair"),
        ({"image": 1, "label": 2, "labels": 3}, "has several labels"),
        ({"label": 2}, "has nothing but labels"),
        ((1, 2, 3), "gave a tuple of length 3 as batch 0"),
    ],
)
def test_a_dict_without_one_label_says_what_to_pass(entry: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        list(Batches([entry]))


def test_images_beside_other_inputs_are_refused() -> None:
    def mixed() -> Iterator[Any]:
        yield Folder()[0]
        yield UNIT[0], 1

    with pytest.raises(InputError, match="has images of Pillow and a Tensor; give one kind"):
        list(Batches(mixed()))
