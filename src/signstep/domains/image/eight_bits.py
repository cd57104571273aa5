"""Endpoints that take images of 8 bits: what is looked for, checked and saved is what they are sent."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from signstep.domains.case import Request
from signstep.errors import InputError
from signstep.messages import Arg, Key
from signstep.model.declaration import Model
from signstep.model.victims.endpoint import HttpVictim

Ends = tuple[float, float]


def ends_of(models: Iterable[Model]) -> Ends | None:
    """What the levels 0 and 255 stand for, where one of the models takes images of 8 bits.

    Raises:
        InputError: two of them take different ones.
    """
    found: dict[Ends, str] = {}
    for model in models:
        if isinstance(model.network, HttpVictim) and model.network.levels is not None:
            found.setdefault(model.network.ends, model.title)
    if len(found) > 1:
        raise InputError(
            f"{' and '.join(found.values())} take images with different ends",
            Key("request.pixels"),
            remedy="ask one after the other",
        )
    return next(iter(found), None)


def gridded(request: Request, ends: Ends | None, bounds: Ends | None) -> Request:
    """The request with changes that stay on the grid that such an endpoint sees.

    Raises:
        InputError: the box or the grid is another.
    """
    if ends is None:
        return request
    box = (bounds or (0.0, 1.0)) if request.box == "of the data" else request.box
    if box != ends:
        raise InputError(
            Arg("box", box),
            "is not where the endpoint's images begin and end,",
            Key("request.pixels", list(ends)),
            remedy="correct one of the two",
        )
    if request.grid not in (None, 255):
        raise InputError(
            Arg("grid", request.grid), "is not that of the endpoint, whose images have 8 bits", remedy="leave it out"
        )
    return replace(request, grid=255)


def snapped(x: Tensor, ends: Ends | None) -> Tensor:
    """Inputs as such an endpoint sees them: on the nearest of 256 levels."""
    if ends is None or not x.is_floating_point():
        return x
    low, high = ends
    levels = ((x.double() - low) * (255 / (high - low))).round()
    return (low + levels * ((high - low) / 255)).to(x.dtype)


class Snapped:
    """Batches whose inputs are `snapped`.

    Args:
        batches: to be gone through, perhaps several times.
        ends: of the endpoint's images.
    """

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor | None]], ends: Ends | None) -> None:
        self._batches, self._ends = batches, ends

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for x, y in self._batches:
            yield snapped(x, self._ends), y
