"""Pictures of fooled examples: clean, the change made visible, adversarial.

They are for the eye: rounded to 8 bits and, where small, enlarged. What fooled the model is in the saved tensors.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from signstep.auditing.result import Result
from signstep.engine.defaults import plain_tensor
from signstep.io.files import write_whole
from signstep.report.attacks import strongest
from signstep.report.classes import class_name
from signstep.version import VERSION

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 12
SMALL, _LARGE = 112, 160  # pixels of the longer side: below, enlarged in strips; above, reduced on the page
_GAP = 4
_FACTORS = (0.5, 1, 1.5, 2, 3, 4, 5, 8, 10, 15, 20, 25, 30, 40, 50, 75, 100, 200, 500, 1000)
_SOFTWARE = f"signstep {VERSION}"


@dataclass(frozen=True)
class Picture:
    """One example: three PNG images as data URIs, what is said about them, and the strip for the disk."""

    clean: str
    change: str
    adversarial: str
    label: str
    before_class: str
    before: str
    after: str
    attack: str
    row: int
    strip: bytes


@dataclass(frozen=True)
class Gallery:
    """Pictures, or the sentence that says why there are none.

    Attributes:
        pictures: at most `MOST`.
        factor: by which changes are amplified around middle grey.
        sentence: says why there are no pictures, or how they were made.
        large: photographs, which are to be smoothed when scaled; else pixels stay squares.
    """

    pictures: tuple[Picture, ...]
    factor: float
    sentence: str
    large: bool = False


def gallery(result: Result, points: Mapping[str, Tensor] | None) -> Gallery:
    """Choose fooled examples of different classes and draw them."""
    reason = _reason(points)
    if reason or points is None:
        return Gallery((), 1.0, reason)
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return Gallery((), 1.0, "The pictures need signstep[images]: pip install 'signstep[images]'.")
    chosen = choose(result, points)
    low, high, how = window(result, points, chosen)
    clean, adversarial = (shown_between(result, points[name][chosen], low, high) for name in ("x", "x_adv"))
    change = adversarial - clean
    factor = amplification(float(change.abs().max()))
    drawn = tuple(
        _picture(result, points, row, *views)
        for row, *views in zip(chosen, clean, change * factor + 0.5, adversarial, strict=True)
    )
    side = max(points["x"].shape[-2:])
    smaller = " Reduced on this page; the strips in the folder pictures have every pixel." if side > _LARGE else ""
    return Gallery(
        drawn,
        factor,
        f"{len(drawn)} of the {len(points['x'])} points that were kept. The middle picture is the change times "
        f"{factor:g} around middle grey, the same factor for all of them. {how}{smaller}",
        side >= SMALL,
    )


def save_strips(shown: Gallery, folder: Path) -> None:
    """Write each picture as ``NN.png``.

    Raises:
        LoadError: a file cannot be written.
    """
    if shown.pictures:
        folder.mkdir(exist_ok=True)
    for number, picture in enumerate(shown.pictures, start=1):
        write_whole(folder / f"{number:02d}.png", picture.strip)


def places(folder: Path) -> list[Path]:
    """What lies in a folder under a name that a strip could have."""
    names = {f"{number:02d}.png" for number in range(1, MOST + 1)}
    return sorted(path for path in folder.iterdir() if path.name in names) if folder.is_dir() else []


def choose(result: Result, points: Mapping[str, Tensor]) -> list[int]:
    """Rows of the points, one of each class in turn, those of the strongest attack first."""
    best = strongest(result)
    names = [entry.name for entry in result.attacks]
    number = names.index(best.name) if best else -1
    count = len(points["x"])
    classes = column(points, "y", column(points, "answer", [0] * count))
    order = column(points, "row", list(range(count)))
    by = column(points, "attack", [number] * count)
    groups: dict[int, list[int]] = {}
    for row in sorted(range(count), key=lambda row: (by[row] != number, order[row])):
        groups.setdefault(classes[row], []).append(row)
    turns = [(turn, by[row] != number, label, row) for label, rows in groups.items() for turn, row in enumerate(rows)]
    return [row for *_, row in sorted(turns)[:MOST]]


def amplification(largest: float) -> float:
    """The largest round factor at which no change leaves black to white around middle grey.

    >>> amplification(8 / 255), amplification(0.3), amplification(0.0)
    (15, 1.5, 1)
    """
    if largest <= 0:
        return 1
    return max((factor for factor in _FACTORS if factor * largest <= 0.5 * (1 + 1e-3)), default=0.5)


def ends(result: Result) -> tuple[float, float] | None:
    """The ends of the box, where it is one pair of numbers."""
    terms = result.terms.get("threat_terms") or {}
    low, high = terms.get("low"), terms.get("high")
    if low is None or high is None:  # records of earlier versions have them in words alone
        written = re.search(r"box=\[(-?[\d.e+-]+), (-?[\d.e+-]+)\]", str(result.terms.get("threat", "")))
        if written is None or result.terms.get("box_span") is None:
            return None
        low, high = float(written[1]), float(written[2])
    return (low, high) if low < high else None


def _reason(points: Mapping[str, Tensor] | None) -> str:
    if points is None:
        return "No points were kept, so there are no pictures."
    if "x" not in points or "x_adv" not in points or len(points["x"]) == 0:
        return "No fooled example was kept, so there are no pictures."
    shape = tuple(points["x"].shape[1:])
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        return f"The inputs, of shape {'x'.join(map(str, shape)) or 'scalar'}, are no images: there are no pictures."
    return ""


def window(result: Result, points: Mapping[str, Tensor], chosen: Sequence[int]) -> tuple[float, float, str]:
    """The values shown as black and white: the ends of the box, or what occurs in the pictures."""
    box = ends(result)
    if box is not None:
        return *box, f"Black is {box[0]:g} and white {box[1]:g}, the ends of the box."
    both = torch.stack([_raw(result, points[name][list(chosen)]) for name in ("x", "x_adv")])
    finite = both[torch.isfinite(both)]
    low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (0.0, 1.0)
    return (
        low,
        max(high, low + 1e-12),
        f"There is no single box: black is {low:.4g} and white {high:.4g}, the least and the largest value shown.",
    )


def _raw(result: Result, x: Tensor) -> Tensor:
    """Undo a normalisation if the points lie in the model's coordinates."""
    space = result.terms.get("input_space") or {}
    x = x.double()
    if space.get("budget") != "normalised" or space.get("mean") is None:
        return x
    mean, std = (plain_tensor(space[name], dtype=torch.float64).reshape(-1, 1, 1) for name in ("mean", "std"))
    return x * std + mean


def shown_between(result: Result, x: Tensor, low: float, high: float) -> Tensor:
    """Inputs (n, C, H, W) from 0 at black to 1 at white."""
    return torch.nan_to_num((_raw(result, x) - low) / (high - low), 0.0, 1.0, 0.0)


def _picture(
    result: Result, points: Mapping[str, Tensor], row: int, clean: Tensor, change: Tensor, adversarial: Tensor
) -> Picture:
    from PIL.Image import Resampling

    images = [picture_of(view) for view in (clean, change, adversarial)]
    kinds = (Resampling.LANCZOS, Resampling.NEAREST, Resampling.LANCZOS)
    first, second, third = (uri(reduced(image, kind)) for image, kind in zip(images, kinds, strict=True))
    attack = column(points, "attack", [-1] * len(points["x"]))[row]
    named = 0 <= attack < len(result.attacks)
    return Picture(
        first,
        second,
        third,
        label=answer_at(result, points, "y", "", row),
        before_class=answer_at(result, points, "answer", "", row),
        before=answer_at(result, points, "answer", "confidence", row),
        after=answer_at(result, points, "answer_adv", "confidence_adv", row),
        attack=result.attacks[attack].name if named else "",
        row=column(points, "row", list(range(len(points["x"]))))[row],
        strip=_png(_strip(images)),
    )


def answer_at(result: Result, points: Mapping[str, Tensor], name: str, confidence: str, row: int) -> str:
    """A class with the confidence in it, where the points tell them."""
    numbers = column(points, name, [])
    if not numbers:
        return ""
    text = class_name(result, numbers[row])
    sure = points.get(confidence)
    return text if sure is None or sure.ndim != 1 else f"{text} ({100 * float(sure[row]):.0f}\u00a0%)"


def column(points: Mapping[str, Tensor], name: str, default: list[int]) -> list[int]:
    """Whole numbers, one for each row; the default where the points have none."""
    column = points.get(name)
    if column is None or column.ndim != 1 or column.is_floating_point():
        return default
    return [int(value) for value in column.tolist()]


def picture_of(view: Tensor) -> "Image":
    """A view (C, H, W) from 0 to 1 as a picture of 8 bits."""
    from PIL import Image

    levels = (view.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu()
    height, width, channels = levels.shape
    return Image.frombytes("RGB" if channels == 3 else "L", (width, height), levels.numpy().tobytes())


def reduced(image: "Image", kind: int, side: int = _LARGE) -> "Image":
    """A picture whose longer side has at most so many pixels, for the page."""
    from PIL.Image import Resampling

    scale = side / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Resampling(kind))


def _strip(images: Sequence["Image"]) -> "Image":
    """Side by side; small ones enlarged by a whole number, so that pixels stay squares."""
    from PIL import Image

    times = max(1, -(-SMALL // max(images[0].size)))
    width, height = (side * times for side in images[0].size)
    strip = Image.new(images[0].mode, (3 * width + 2 * _GAP, height), "white")
    for place, image in enumerate(images):
        strip.paste(image.resize((width, height), Image.Resampling.NEAREST), (place * (width + _GAP), 0))
    return strip


def _png(image: "Image") -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info, buffer = PngInfo(), io.BytesIO()
    info.add_text("Software", _SOFTWARE)
    image.save(buffer, "PNG", pnginfo=info, optimize=True)
    return buffer.getvalue()


def uri(image: "Image") -> str:
    """A picture as a PNG in a data URI."""
    return "data:image/png;base64," + base64.b64encode(_png(image)).decode("ascii")


def of_a_report(path: Path) -> bool:
    """Whether a file is a strip that a report wrote."""
    return path.is_file() and b"Software\x00signstep " in path.read_bytes()[:200]
