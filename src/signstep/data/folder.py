"""A folder of images, one folder per class: ``root/<class>/*.png``."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from signstep.data.batches import DataSource
from signstep.data.images import Picture, read_images, survey, treatment
from signstep.data.targets import ClassIndex
from signstep.errors import LoadError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def open_folder(
    root: Path,
    *,
    resize: tuple[int, int] | None,
    batch_size: int,
    limit: int | None,
    classes: tuple[str, ...] | None,
    skip_bad: bool,
) -> DataSource:
    """The images of a folder, read in turn from each class, so that the first few cover all classes.

    ``signstep.data.images`` states what becomes of each image.

    Args:
        root: Holds one folder per class.
        resize: (height, width) to bring all images to; without it they must be equally large.
        batch_size: Rows per batch.
        limit: Use the first few only.
        classes: The order of the classes; the order of their names as text where it is not given. With it, a class
            folder may be empty.
        skip_bad: Leave out images that cannot be read. Every image up to the limit is decoded once to find them.

    Raises:
        MissingExtraError: Without Pillow.
        LoadError: If there are no classes, they are not those given, a class has no images, an image cannot be read,
            or sizes differ.
    """
    folders = sorted(path.name for path in root.iterdir() if _is_class(path))
    names = tuple(folders) if classes is None else classes
    places = dict(enumerate(folders)) if classes is None else _in_order(root, folders, classes)
    images = [
        _images(root / places[label], may_be_empty=classes is not None) if label in places else []
        for label in range(len(names))
    ]
    turns = zip_longest(*([(path, label) for path in paths] for label, paths in enumerate(images)))
    everything = [item for turn in turns for item in turn if item is not None]
    if not everything:
        raise LoadError(f"all class folders of {root} are empty: put images ({' '.join(SUFFIXES)}) into them")
    pictures = [Picture(str(path), partial(Path, path)) for path, _ in everything]
    looked = survey(pictures, resize=resize, limit=limit, skip_bad=skip_bad)
    chosen = [pictures[position] for position in looked.usable]
    used = [everything[position] for position in looked.usable]

    def read(sizes: Sequence[int]) -> Iterator[Tensor]:
        return read_images(chosen, looked.shape, resize, sizes)

    return DataSource(
        name=f"{root} ({len(names)} classes)",
        labels=torch.tensor([label for _, label in used]),
        shape=looked.shape,
        read=read,
        # All of them, whatever the limit: the digest says which data set it is, not how much of it was looked at.
        files={path.relative_to(root).as_posix(): path for path, _ in everything},
        batch_size=batch_size,
        total=len(everything) - looked.skipped,
        bounds=(0.0, 1.0),
        classes=names,
        notes=(
            "images are read in turn from each class",
            *looked.notes,
            *_notes(names, [len(paths) for paths in images], given=classes is not None),
        ),
        treatment=treatment(looked.shape, resize),
        skipped=looked.skipped,
    )


def holds_classes(root: Path) -> bool:
    """Whether a folder holds folders."""
    return any(_is_class(path) for path in root.iterdir())


def holds_images(root: Path) -> bool:
    """Whether a folder holds images in folders."""
    return any(is_image(file) for folder in root.iterdir() if _is_class(folder) for file in folder.iterdir())


def is_image(path: Path) -> bool:
    """Whether a file has the suffix of an image and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _in_order(root: Path, folders: list[str], classes: tuple[str, ...]) -> dict[int, str]:
    """The folder of each class that has one, by the number of the class."""
    index = ClassIndex(classes)
    unlisted = [name for name in folders if name not in index]
    if unlisted:
        raise LoadError(
            f"the class folder {root / unlisted[0]} is not among the {len(classes)} classes given: "
            "add its name to them or move the folder away"
        )
    return {index.number(name, f"the class folder {root / name}"): name for name in folders}


def _images(folder: Path, *, may_be_empty: bool) -> list[Path]:
    images = sorted(path for path in folder.iterdir() if is_image(path))
    others = [] if images else [path for path in folder.iterdir() if not path.name.startswith(".")]
    if not images and (others or not may_be_empty):
        nested = any(path.is_dir() for path in others)
        remedy = f"pass {folder} if its folders are the classes" if nested else "fill it or remove it"
        raise LoadError(f"the class folder {folder} holds no images ({' '.join(SUFFIXES)}): {remedy}")
    return images


def _notes(names: tuple[str, ...], counts: list[int], *, given: bool) -> list[str]:
    if not given:
        renumbered = all(name.isdecimal() for name in names) and [int(name) for name in names] != list(
            range(len(names))
        )
        text = (
            f"the folders {', '.join(names[:4])}, ... are taken for the classes 0, 1, 2, ... in the order of their "
            "names as text; list them in the order of the model's outputs (classes) if it numbers them otherwise"
        )
        return [text] if renumbered else []
    empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
    return ["classes are numbered in the order given"] + (
        [f"no images of {len(empty)} classes: {_list(empty)}"] if empty else []
    )


def _list(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
