"""A folder of images, one folder per class: ``root/<class>/*.png``."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from signstep.data.batches import DataSource
from signstep.data.images import MAX_PIXELS, Picture, read_images, survey, treatment
from signstep.data.targets import ClassIndex
from signstep.errors import LoadError
from signstep.io.files import is_writable, refuse_unwritable

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)

# What lies beside images and is none.
_BESIDE = (".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".rst", ".txt", ".xml", ".yaml", ".yml")
_TEXTS = ("readme", "license", "licence", "copying", "notice", "authors", "makefile")
_NAMED = 4  # endings that are named one by one
_FAR = 100_000  # entries that are looked at in folders that are not read


def open_folder(
    root: Path,
    *,
    resize: tuple[int, int] | None,
    batch_size: int,
    limit: int | None,
    classes: tuple[str, ...] | None,
    skip_bad: bool,
    max_pixels: int = MAX_PIXELS,
) -> DataSource:
    """The images of a folder, read in turn from each class, so that the first few cover all classes.

    ``signstep.data.images`` states what becomes of each image. What is not read is counted in ``left_out`` and named in
    a note: files with other endings, images deeper than the class folders or beside them, what is no file. Hidden files
    and texts (README, .txt, .json, Thumbs.db, ...) are no images and are not. Links are followed; where they lead out
    of the folder, a note says so.

    Args:
        root: Holds one folder per class.
        resize: (height, width) to bring all images to; without it they must be equally large.
        batch_size: Rows per batch.
        limit: Use the first few only.
        classes: The order of the classes; the order of their names as text where it is not given. With it, a class
            folder may be empty.
        skip_bad: Leave out images that cannot be read. Every image up to the limit is decoded once to find them.
        max_pixels: Of an image.

    Raises:
        MissingExtraError: Without Pillow.
        LoadError: If there are no classes, they are not those given, a class has no images, an image cannot be read,
            or sizes differ.
    """
    folders = sorted(path.name for path in root.iterdir() if _is_class(path))
    for folder in folders:
        refuse_unwritable(folder, "the name of the class folder")
    names = tuple(folders) if classes is None else classes
    places = dict(enumerate(folders)) if classes is None else _in_order(root, folders, classes)
    images = [
        _images(root / places[label], may_be_empty=classes is not None) if label in places else []
        for label in range(len(names))
    ]
    turns = zip_longest(*([(path, label) for path in paths] for label, paths in enumerate(images)))
    everything = [item for turn in turns for item in turn if item is not None]
    if not everything:
        raise LoadError(f"all class folders of {root} are empty", remedy=f"put images ({' '.join(SUFFIXES)}) into them")
    pictures = [Picture(str(path), partial(Path, path)) for path, _ in everything]
    looked = survey(pictures, resize=resize, limit=limit, skip_bad=skip_bad, max_pixels=max_pixels)
    unread = _unread(root, folders)
    chosen = [pictures[position] for position in looked.usable]
    used = [everything[position] for position in looked.usable]
    looked_at = len(everything) if limit is None or len(used) < limit else max(looked.usable, default=-1) + 1

    def read(sizes: Sequence[int]) -> Iterator[Tensor]:
        return read_images(chosen, looked.shape, resize, sizes, max_pixels)

    return DataSource(
        name=f"{root} ({len(names)} classes)",
        labels=torch.tensor([label for _, label in used], dtype=torch.int64, device="cpu"),
        shape=looked.shape,
        read=read,
        # Also those beyond the limit: the digest says which data set it is, not how much of it was looked at.
        files={path.relative_to(root).as_posix(): path for path, _ in (*used, *everything[looked_at:])},
        batch_size=batch_size,
        total=len(everything) - looked.skipped,
        bounds=(0.0, 1.0),
        classes=names,
        notes=(
            "images are read in turn from each class",
            *looked.notes,
            *unread.notes,
            *_linked(root, [path for path, _ in used]),
            *_notes(names, [len(paths) for paths in images], given=classes is not None),
        ),
        treatment=treatment(looked.shape, resize),
        skipped=looked.skipped,
        unread=unread.counts,
    )


class _Unread:
    """What a folder of images holds beside those that are read: counts, and the first of each kind."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, list[Path]] = {}

    def add(self, kind: str, path: Path) -> None:
        """One more."""
        self._found.setdefault(kind, []).append(path)

    @property
    def counts(self) -> dict[str, int]:
        """By kind, in words that follow a count."""
        return {kind: len(paths) for kind, paths in self._kinds.items()}

    @property
    def notes(self) -> list[str]:
        """A sentence for each kind."""
        return [
            f"not read: {len(paths)} {kind}, such as {_written(min(paths).relative_to(self._root).as_posix())}"
            for kind, paths in self._kinds.items()
        ]

    @property
    def _kinds(self) -> dict[str, list[Path]]:
        """At most a few endings by name, the others together."""
        kinds = dict(sorted(self._found.items(), key=lambda item: (-len(item[1]), item[0])))
        endings = [kind for kind in kinds if kind.startswith(_ENDING)]
        rest = [path for kind in endings[_NAMED:] for path in kinds.pop(kind)]
        return {**kinds, "files with other endings": rest} if rest else kinds


def _written(name: str) -> str:
    """A name that may hold any bytes, as records can hold it."""
    return name if is_writable(name) else ascii(name)


_ENDING = "files with the ending "


def _unread(root: Path, folders: Sequence[str]) -> _Unread:
    found = _Unread(root)
    for path in root.iterdir():
        if is_image(path):
            found.add("images beside the class folders", path)
    for folder in folders:
        for path in (root / folder).iterdir():
            if path.name.startswith(".") or is_image(path):
                continue
            if path.is_dir():
                for image in _images_below(path):
                    found.add("images in folders inside of class folders", image)
            elif not path.is_file():
                found.add("entries that are no files (links to nothing, pipes, devices)", path)
            elif path.suffix.lower() not in _BESIDE and path.stem.lower() not in _TEXTS:
                ending = f"{_ENDING}{_written(path.suffix.lower())}" if path.suffix else "files without an ending"
                found.add(ending, path)
    return found


def _images_below(folder: Path) -> Iterator[Path]:
    """Images at any depth, as far as a bound goes; links to folders are not followed: they may lead in circles."""
    seen = 0
    for here, _, names in os.walk(folder):
        for name in names:
            seen += 1
            if seen > _FAR:
                return
            if is_image(Path(here, name)):
                yield Path(here, name)


def _linked(root: Path, paths: Sequence[Path]) -> list[str]:
    """Images that lie elsewhere."""
    real = root.resolve()
    parents = {parent: parent.resolve().is_relative_to(real) for parent in {path.parent for path in paths}}
    outside = [
        path
        for path in paths
        if not parents[path.parent] or (path.is_symlink() and not path.resolve().is_relative_to(real))
    ]
    if not outside:
        return []
    return [f"{len(outside)} of {len(paths)} images are links to files outside of the folder"]


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
            f"the class folder {root / unlisted[0]} is not among the {len(classes)} classes given",
            remedy="add its name to them or move the folder away",
        )
    return {index.number(name, f"the class folder {root / name}"): name for name in folders}


def _images(folder: Path, *, may_be_empty: bool) -> list[Path]:
    images = sorted(path for path in folder.iterdir() if is_image(path))
    for path in images:
        refuse_unwritable(path.name, f"in {folder} the name of the image")
    others = [] if images else [path for path in folder.iterdir() if not path.name.startswith(".")]
    if not images and (others or not may_be_empty):
        nested = any(path.is_dir() for path in others)
        remedy = f"pass {folder} if its folders are the classes" if nested else "fill it or remove it"
        raise LoadError(f"the class folder {folder} holds no images ({' '.join(SUFFIXES)})", remedy=remedy)
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
