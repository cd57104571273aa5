"""What a stored image becomes: the one place that decodes pictures, for folders and for saved data sets.

The rules, of which a data source notes those that its images needed:

- The first image that can be read decides: where it is grey, all become one channel, otherwise all become RGB. Grey
  images among coloured ones are repeated in three channels; colour becomes grey as 0.299 R + 0.587 G + 0.114 B.
- 8 bits are divided by 255. 16-bit greyscale (PNG, TIFF, PGM) is divided by 65535. Of 16 bits per colour channel,
  Pillow keeps the upper 8, which are divided by 255. Other depths (32-bit integers, floats) have no known scale and
  are refused.
- An EXIF orientation is applied, so that the image stands upright.
- A palette is replaced by its colours.
- Transparency is composited onto white: a pixel of opacity a becomes a * colour + (1 - a) * white, whatever colour
  hides beneath it. (Loaders that call ``convert("RGB")`` show that hidden colour instead.)
- CMYK becomes RGB by Pillow's arithmetic, R = (1 - C)(1 - K). Colour profiles are never applied.
- Of an animation or of a file with several pages, the first is used.
- ``resize`` comes last: bilinear with antialiasing, the aspect ratio not kept.

An image that cannot be decoded to its end is named. So is one with more than 25 million pixels, before any is decoded
(a decompression bomb; ``max_pixels`` raises that), and a file in a format that no photograph comes in, whatever its
name says: Pillow would run other programs for some.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from signstep.errors import LoadError, MissingExtraError
from signstep.io.caps import Caps
from signstep.messages import Arg, Blank, Part

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, np.dtype[np.float32]]

_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
_GREY = ("1", "L", "LA", *_DEEP)
# Mode "I" holds 32 bits; of these formats Pillow fills 16 of them (PNG before Pillow 10.3).
_DEEP_AS_I = ("PNG", "PPM")
_KNOWN = (*_GREY, "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
_ORIENTATION = 0x0112

# Of all that Pillow opens. PostScript, for one, is handed to Ghostscript.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

MAX_PIXELS = Caps().pixels

_RULES = {
    "orientation": "turned upright by the EXIF orientation",
    "palette": "with a palette, replaced by its colours",
    "alpha": "with transparency, composited onto white",
    "cmyk": "in CMYK, converted to RGB without a colour profile",
    "frames": "with several frames or pages, of which the first is used",
    "deep grey": "in 16-bit greyscale, divided by 65535",
    "deep colour": "with 16 bits per colour channel, of which the upper 8 are used",
    "to colour": "in grey, repeated in three channels as the first image has colour",
    "to grey": "in colour, turned grey as the first image is grey",
}


@dataclass(frozen=True)
class Picture:
    """A stored image: what messages call it, and how to get at its bytes."""

    name: str
    load: Callable[[], Path | BytesIO]


class _UnusableError(LoadError):
    """An image that cannot be used: what is wrong with it, and what to do where it is not skipped."""

    def __init__(self, fault: str, *remedy: Part) -> None:
        super().__init__(fault, remedy=(*remedy, ", or skip such images (", Arg("skip_bad", True), ")"))


class _LargeError(Exception):
    """More pixels than allowed."""


def _fault(error: LoadError) -> str:
    return error.text if isinstance(error, _UnusableError) else str(error)


@dataclass(frozen=True)
class Survey:
    """Images that were looked at before the first batch.

    Attributes:
        usable: Positions of those that are used.
        shape: Channels, height and width of all of them.
        skipped: How many cannot be read.
        notes: What happens to them.
    """

    usable: tuple[int, ...]
    shape: tuple[int, int, int]
    skipped: int
    notes: tuple[str, ...]


def survey(
    pictures: Sequence[Picture],
    *,
    resize: tuple[int, int] | None,
    limit: int | None,
    skip_bad: bool,
    max_pixels: int = MAX_PIXELS,
) -> Survey:
    """Look at each image up to the limit: at its header, or at every pixel where bad ones are to be skipped.

    Raises:
        MissingExtraError: Without Pillow.
        LoadError: If an image cannot be read and ``skip_bad`` is off, or if none can be.
    """
    _require_pillow()
    usable: list[int] = []
    bad: list[LoadError] = []
    seen: Counter[str] = Counter()
    shape: tuple[int, int, int] | None = None
    for position, picture in enumerate(pictures):
        if len(usable) == limit:
            break
        try:
            image, needs = _decoded(picture, max_pixels, whole=skip_bad or shape is None)
        except LoadError as error:
            if not skip_bad:
                raise
            bad.append(error)
            continue
        grey = image.mode in (*_GREY, "I")
        shape = shape or (1 if grey else 3, *(resize or (image.height, image.width)))
        seen.update(needs)
        seen.update(["to colour"] * (grey and shape[0] == 3) + ["to grey"] * (not grey and shape[0] == 1))
        usable.append(position)
    if shape is None:
        raise LoadError(f"none of {len(bad)} images can be used; the first: {_fault(bad[0])}", remedy="save them again")
    notes = [] if seen["deep grey"] == len(usable) else ["bytes 0..255 divided by 255"]
    if resize is not None:
        notes.append(f"images resized to {resize[0]}x{resize[1]} (bilinear, aspect ratio not kept)")
    notes += [f"{seen[need]} of {len(usable)} images {rule}" for need, rule in _RULES.items() if seen[need]]
    if bad:
        notes.append(f"{len(bad)} images skipped because they cannot be read; the first: {_fault(bad[0])}")
    return Survey(tuple(usable), shape, len(bad), tuple(notes))


def treatment(shape: tuple[int, int, int], resize: tuple[int, int] | None) -> tuple[str, ...]:
    """Everything that is done to pixels: all rules, since the hash of it must not depend on which images need them."""
    size = "size kept" if resize is None else f"resized to {resize[0]}x{resize[1]}, bilinear with antialiasing, last"
    return (f"{shape[0]} channel(s)", "bytes / 255", *_RULES.values(), size, "float32")


def read_images(
    pictures: Sequence[Picture],
    shape: tuple[int, int, int],
    resize: tuple[int, int] | None,
    sizes: Sequence[int],
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] = _FORMATS,
) -> Iterator[Tensor]:
    """Blocks of float32 (B, C, H, W) in [0, 1], of files in these of Pillow's formats, whatever their names say.

    Raises:
        LoadError: If an image cannot be decoded to its end, or is not as large as the first one and there is no resize.
    """
    _require_pillow()
    rest = iter(pictures)
    for size in sizes:
        block = np.empty((size, *shape), np.float32)  # NumPy: torch's threads cost more than they gain on one image
        for row in range(size):
            block[row] = _pixels(next(rest), pictures[0], shape, resize, max_pixels, formats)
        yield torch.from_numpy(block)


def _require_pillow() -> None:
    try:
        import PIL.Image
    except ImportError as error:
        raise MissingExtraError("pillow", "images") from error
    PIL.Image.init()  # all formats, not only the five that it knows at first


def _decoded(
    picture: Picture, max_pixels: int, *, whole: bool, formats: Sequence[str] = _FORMATS
) -> tuple["Image", tuple[str, ...]]:
    """The image and the rules that it needs; upright and with all pixels read, or only its header."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = picture.load()
    try:
        with warnings.catch_warnings():
            # Pillow writes a line for each tag that is damaged. Of that module alone: what is set here may stay where
            # several threads read images.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            # Pillow warns at a cap of its own, which only those who raise ours may pass by.
            warnings.simplefilter("error" if max_pixels <= MAX_PIXELS else "ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=[name for name in formats if name in Image.OPEN]) as image:
                if image.width * image.height > max_pixels:
                    raise _LargeError(f"{image.height}x{image.width} is over {max_pixels} pixels")
                needs = _needs(image)
                if whole:
                    sixteen = image.mode == "I" and image.format in _DEEP_AS_I
                    upright = ImageOps.exif_transpose(image.convert("I;16") if sixteen else image)
                else:
                    upright = image
    except _LargeError as error:
        raise _UnusableError(
            f"the image {picture.name} is too large ({error})",
            "make it smaller, pass",
            Arg("max_pixels"),
        ) from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        reason = str(error).replace(f" {str(file)!r}", "") if isinstance(file, Path) else str(error)
        if isinstance(file, BytesIO) and isinstance(error, UnidentifiedImageError):
            reason = "cannot identify image file"
        raise _UnusableError(
            f"the image {picture.name} cannot be read ({reason})", "replace it or remove it"
        ) from error
    if upright.mode not in _KNOWN and not (upright.mode == "I" and upright.format in _DEEP_AS_I):
        raise _UnusableError(
            f"the image {picture.name} has mode {upright.mode}, whose scale is unknown",
            "convert it to 8 bits per channel",
        )
    return upright, needs


def _needs(image: "Image") -> tuple[str, ...]:
    """The rules that an opened image needs."""
    late = (
        image.format == "PNG" and "exif" not in image.info
    )  # getexif would decode the image to look behind its pixels
    deep = image.mode in _DEEP or (image.mode == "I" and image.format in _DEEP_AS_I)
    needs = {
        "orientation": not late and image.getexif().get(_ORIENTATION, 1) in range(2, 9),
        "palette": image.mode in ("P", "PA"),
        "alpha": _transparent(image),
        "cmyk": image.mode == "CMYK",
        "frames": image.format != "MPO" and getattr(image, "is_animated", False),  # the second of those is a preview
        "deep grey": deep,
        "deep colour": not deep and any(";16" in str(tile[3]) for tile in image.tile),  # type: ignore[attr-defined]
    }
    return tuple(name for name, needed in needs.items() if needed)


def _transparent(image: "Image") -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _pixels(
    picture: Picture,
    first: Picture,
    shape: tuple[int, int, int],
    resize: tuple[int, int] | None,
    max_pixels: int,
    formats: Sequence[str],
) -> Array:
    """One image as float32 (C, H, W) in [0, 1], or (1, H, W) to be repeated."""
    channels, height, width = shape
    image, _ = _decoded(picture, max_pixels, whole=True, formats=formats)
    if resize is None and image.size != (width, height):
        raise LoadError(
            f"{picture.name} is {image.height}x{image.width} but {first.name} is {height}x{width} (height x width)",
            remedy=(
                "pass",
                Arg("resize", Blank("height", "width")),
                ", e.g.",
                Arg("resize", (height, width)),
            ),
        )
    return levels(image, channels, resize)


def levels(image: "Image", channels: int, resize: tuple[int, int] | None = None) -> Array:
    """An image that has been decoded as float32 (C, H, W) in [0, 1]; of deep greyscale (1, H, W), to be repeated.

    Raises:
        LoadError: of a mode whose scale is unknown.
    """
    from PIL import Image

    if image.mode not in _KNOWN:
        fault = f"an image has mode {image.mode}, whose scale is unknown"
        raise _UnusableError(fault, "convert it to 8 bits per channel")
    deep = image.mode in _DEEP
    flat = _deep(image) if deep else _opaque(image).convert("L" if channels == 1 else "RGB")
    if resize is not None:
        flat = flat.resize(resize[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(flat).reshape(flat.height, flat.width, -1).transpose(2, 0, 1)
    return pixels.astype(np.float32) / np.float32(65535 if deep else 255)


def _deep(image: "Image") -> "Image":
    """16-bit greyscale as floats 0..65535, its transparent value made white."""
    from PIL import Image

    values = np.asarray(image).astype(np.float32)
    if "transparency" in image.info:
        values[values == image.info["transparency"]] = 65535
    return Image.fromarray(values)


def _opaque(image: "Image") -> "Image":
    from PIL import Image

    if not _transparent(image):
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
