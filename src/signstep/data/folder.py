"""A folder of images, one folder per class: ``root/<class>/*.png``."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from signstep.data.batches import DataSource
from signstep.errors import LoadError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_GREY = ("1", "L", "LA")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def open_folder(root: Path, *, resize: tuple[int, int] | None, batch_size: int, limit: int | None) -> DataSource:
    """The images of a folder, read in turn from each class, so that the first few cover all classes.

    Classes are numbered in the order of their names. Images become RGB, or one channel where the first one is grey;
    transparency is dropped, EXIF orientation applied, bytes divided by 255.

    Args:
        root: Holds one folder per class.
        resize: (height, width) to bring all images to; without it they must be equally large.
        batch_size: Rows per batch.
        limit: Use the first few only.

    Raises:
        MissingExtraError: Without Pillow.
        LoadError: If there are no classes, a class has no images, an image cannot be read, or sizes differ.
    """
    _require_pillow()
    classes = sorted(path.name for path in root.iterdir() if _is_class(path))
    images = [_images(root / name) for name in classes]
    turns = zip_longest(*([(path, label) for path in paths] for label, paths in enumerate(images)))
    everything = [item for turn in turns for item in turn if item is not None]
    chosen = everything[:limit]
    with _decoded(chosen[0][0]) as first:
        grey = first.mode in _GREY
        shape = (1 if grey else 3, *(resize or (first.height, first.width)))
        notes = _notes(first, classes, resize)

    def read(sizes: Sequence[int]) -> Iterator[Tensor]:
        paths = (path for path, _ in chosen)
        for size in sizes:
            block = np.stack([_pixels(next(paths), chosen[0][0], shape, resize) for _ in range(size)])
            yield torch.from_numpy(block).permute(0, 3, 1, 2).contiguous().float() / 255

    return DataSource(
        name=f"{root} ({len(classes)} classes)",
        labels=torch.tensor([label for _, label in chosen]),
        shape=shape,
        read=read,
        files={path.relative_to(root).as_posix(): path for path, _ in chosen},
        batch_size=batch_size,
        total=len(everything),
        bounds=(0.0, 1.0),
        classes=tuple(classes),
        notes=notes,
    )


def holds_classes(root: Path) -> bool:
    """Whether a folder holds folders."""
    return any(_is_class(path) for path in root.iterdir())


def is_image(path: Path) -> bool:
    """Whether a file has the suffix of an image and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _images(folder: Path) -> list[Path]:
    images = sorted(path for path in folder.iterdir() if is_image(path))
    if not images:
        inside = next((path.name for path in sorted(folder.iterdir()) if path.is_dir()), None)
        remedy = f"pass {folder} if its folders are the classes" if inside else "fill it or remove it"
        raise LoadError(f"the class folder {folder} holds no images ({' '.join(SUFFIXES)}): {remedy}")
    return images


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pillow", "images") from error


def _decoded(path: Path) -> "Image":
    """The upright image, all pixels read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.mode in _DEEP:
                raise LoadError(f"{path} has more than 8 bits per channel (mode {image.mode}): convert it to 8 bits")
            return ImageOps.exif_transpose(image)
    except LoadError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f" {str(path)!r}", "")
        raise LoadError(f"the image {path} cannot be read ({reason}): replace it or remove it") from error


def _pixels(
    path: Path, first: Path, shape: tuple[int, ...], resize: tuple[int, int] | None
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One image as uint8 (H, W, C)."""
    from PIL import Image

    channels, height, width = shape
    with _decoded(path) as decoded:
        image = decoded.convert("L" if channels == 1 else "RGB")
    if resize is not None:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    elif image.size != (width, height):
        raise LoadError(
            f"{path} is {image.height}x{image.width} but {first} is {height}x{width} (height x width): "
            f"pass resize=(height, width), e.g. resize=({height}, {width})"
        )
    return np.asarray(image).reshape(height, width, channels)


def _notes(first: "Image", classes: list[str], resize: tuple[int, int] | None) -> tuple[str, ...]:
    notes = ["images are read in turn from each class; bytes 0..255 divided by 255"]
    if resize is not None:
        notes.append(f"images resized to {resize[0]}x{resize[1]} (bilinear, aspect ratio not kept)")
    if "A" in first.getbands() or "transparency" in first.info:
        notes.append("the first image has transparency, which is dropped")
    if all(name.isdecimal() for name in classes) and classes != sorted(classes, key=int):
        notes.append(f"classes are numbered in the order of their names, as text: {', '.join(classes[:4])}, ...")
    return tuple(notes)
