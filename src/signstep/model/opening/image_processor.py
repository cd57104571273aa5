"""What an image processor of transformers does to pixels: the size it makes, and (x - mean) / std for raw x in [0, 1].

Its attributes say so; what they mean is seen on plain colours that it is given. Where the two differ (a second
normalisation, an offset, channels in another order), what is seen counts, if it is the same arithmetic for every pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from signstep.errors import LoadError, MissingExtraError
from signstep.frames import named
from signstep.messages import Arg
from signstep.model.opening.pretrained import quiet, transformers

FILES = ("preprocessor_config.json", "processor_config.json")

Stated: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]

# Sizes that none of the usual processors makes, upright and lying: what it does not resize comes back as it was.
_SIZES = ((40, 56), (56, 40), (40, 56))
_COLOURS = ((10, 100, 200), (250, 30, 120), (90, 220, 40))
# Of a normalised value: float32 arithmetic in another order.
_ROUNDED = 1e-4


@dataclass(frozen=True)
class Preparation:
    """What happens to an image.

    Attributes:
        mean: of raw values in [0, 1], by channel; None where they are passed as they are.
        std: see ``mean``.
        flipped: whether the network wants the channels in the opposite order.
        height: of the image that the network gets; None where it depends on the image.
        width: see ``height``.
        notes: what differs from taking images of that size as they are.
    """

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    flipped: bool
    height: int | None
    width: int | None
    notes: tuple[str, ...]


def preparation(folder: Path, channels: int, *, trust: bool) -> Preparation:
    """What the processor of a folder does.

    Raises:
        LoadError: there is none, or it does something else to pixels than (x - mean) / std.
    """
    if not any((folder / name).is_file() for name in FILES):
        raise LoadError(
            f"{folder} has no {FILES[0]}, which says how images are normalised",
            remedy=("download it too, or pass a factory with", Arg("mean"), "and", Arg("std")),
        )
    try:
        with quiet():
            processor = transformers().AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust
            )
            seen = [_seen(processor, folder, *given, channels) for given in zip(_SIZES, _COLOURS, strict=True)]
    except (LoadError, MissingExtraError):
        raise
    except ImportError as error:
        raise LoadError(f"the image processor of {folder} needs more ({named(error)})", remedy="install it") from error
    except Exception as error:
        raise LoadError(
            f"the image processor of {folder} cannot be read ({named(error)})", remedy="save or download it again"
        ) from error
    mean, std, flipped = _arithmetic(processor, seen, channels, folder)
    sizes = {one.shape[1:] for one in seen}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    plain = mean is None or (set(mean) == {0.0} and std is not None and set(std) == {1.0})
    return Preparation(
        None if plain else mean,
        None if plain else std,
        flipped,
        None if height is None else int(height),
        None if width is None else int(width),
        tuple(_notes(processor, height)),
    )


def _seen(
    processor: Any, folder: Path, size: tuple[int, int], colour: Sequence[int], channels: int
) -> NDArray[np.float64]:
    """What comes of an image of one colour, (C, H, W).

    Raises:
        LoadError: no image.
    """
    whose = f"the image processor of {folder}"
    image = np.empty((*size, channels), dtype=np.uint8)
    image[:] = [colour[number % len(colour)] for number in range(channels)]
    made = processor(images=image, return_tensors="pt", input_data_format="channels_last")
    if "pixel_values" not in made:
        raise LoadError(f"{whose} makes {', '.join(made)} of images, and no pixel_values", remedy="pass a factory")
    values: NDArray[np.float64] = np.asarray(made["pixel_values"], dtype=np.float64)
    if values.ndim != 4 or len(values) != 1:
        raise LoadError(f"{whose} makes pixel_values of shape {values.shape} of one image", remedy="pass a factory")
    if np.ptp(values[0], axis=(1, 2)).max() > _ROUNDED:
        raise LoadError(
            f"{whose} does not leave an image of one colour at one colour, so it pads or masks", remedy="pass a factory"
        )
    image_seen: NDArray[np.float64] = values[0]
    return image_seen


def _arithmetic(
    processor: Any, seen: Sequence[NDArray[np.float64]], channels: int, folder: Path
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, bool]:
    """Mean, std and whether channels change places: as the attributes say, else as it was seen."""
    levels = np.array([one[:, 0, 0] for one in seen])  # (probe, channel)
    if levels.shape[1] != channels:
        raise LoadError(
            f"the image processor of {folder} makes {levels.shape[1]} channels, and the network takes {channels}",
            remedy="pass a factory",
        )
    raw = np.array([[colour[number % len(colour)] / 255 for number in range(channels)] for colour in _COLOURS])
    stated = _stated(processor, channels)
    for flipped in (False, True) if channels > 1 else (False,):
        shown = levels[:, ::-1] if flipped else levels
        for mean, std in _orders(stated, flipped=flipped):
            if _agree((raw - np.array(mean)) / np.array(std), shown):
                return mean, std, flipped
        slope = (shown[1] - shown[0]) / (raw[1] - raw[0])
        start = shown[0] - slope * raw[0]
        if bool((slope > 0).all()) and _agree(slope * raw + start, shown):
            return _short(-start / slope), _short(1 / slope), flipped
    raise LoadError(
        f"the image processor of {folder} does something else to colours than (x - mean) / std",
        remedy="pass a factory whose network does it",
    )


def _orders(stated: Stated | None, *, flipped: bool) -> list[Stated]:
    """What is stated, for channels as they come; where they change places, perhaps in the order behind that."""
    if stated is None:
        return []
    return [stated, (stated[0][::-1], stated[1][::-1])] if flipped else [stated]


def _short(values: NDArray[np.float64]) -> tuple[float, ...]:
    """What was seen in float32, without the digits that this does not have."""
    return tuple(float(f"{value:.7g}") for value in values)


def _stated(processor: Any, channels: int) -> Stated | None:
    """Mean and std of raw values by the usual attributes; None where these are not all that there is."""
    factor = (
        255 * float(getattr(processor, "rescale_factor", 1 / 255)) if getattr(processor, "do_rescale", True) else 255.0
    )
    factor = 1.0 if abs(factor - 1) < 1e-6 else factor  # 1 / 255 as it is written in files
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if not getattr(processor, "do_normalize", False) or mean is None or std is None:
        mean, std = 0.0, 1.0
    try:
        parts = [[float(v) for v in part] if isinstance(part, (list, tuple)) else [float(part)] for part in (mean, std)]
    except (TypeError, ValueError):
        return None
    wide = [tuple(part * channels if len(part) == 1 else part) for part in parts]
    if any(len(part) != channels for part in wide) or min(wide[1]) <= 0:
        return None
    return tuple(value / factor for value in wide[0]), tuple(value / factor for value in wide[1])


def _agree(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool((np.abs(one - other) <= _ROUNDED * (1 + np.abs(one))).all())


def _notes(processor: Any, height: int | None) -> list[str]:
    """What the processor does to the geometry of images that are larger or smaller."""
    crops = bool(getattr(processor, "do_center_crop", False)) or getattr(processor, "crop_pct", None) is not None
    if not getattr(processor, "do_resize", False):
        return []
    if height is None:
        return ["its processor resizes images by their shorter side: images are taken in the size that they have here"]
    if crops:
        return ["its processor also cuts the borders off when it resizes: images are taken whole here"]
    return []
