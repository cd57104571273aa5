"""What clients send, read as an enemy's: JSON with numbers or records, images, tensors of the Open Inference Protocol.

Every cap is looked at before the work and the memory that it bounds. Whatever cannot be read is one `Refused`, with a
status and a sentence that repeats nothing of the client's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signstep.data.images import Picture, read_images
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.io.documents import json_value
from signstep.messages import Arg

Array = np.ndarray[Any, Any]
MANY = "an input has too many numbers, or one that no model takes"
SMALL = 64 * 2**10  # bytes of a body that count as few
IMAGES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/tiff")
# Their decoders alone are within reach of whoever reaches the port. What a file is its bytes say, and not its sender.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
# Of the protocol's names; what a float32 cannot hold exactly is rounded, as in any network.
DATATYPES = {
    **dict.fromkeys(("FP32", "FP64", "FP16"), np.float32),
    **dict.fromkeys(("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "BOOL"), np.int64),
}


class Refused(Exception):  # noqa: N818
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        text: for its sender.
        wait: seconds after which it may be sent again; None where that would not help.
    """

    def __init__(self, status: int, text: str, *, wait: int | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.wait = status, text, wait


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        body: bytes.
        bodies: bytes of all bodies that are held at once; who sends more gets 429. The first 64 KiB of each do not
            count, so that whoever sends large ones slowly keeps nobody out who sends small ones.
        rows: inputs of one request.
        pixels: of one image before it is made the model's size.
        body_seconds: for a request to arrive.
        seconds: for its answer.
        waiting: inputs that wait for the model, over all clients; more get 429.
        longest_wait: seconds that a request of a burst may be expected to wait; where it would be more it gets 429 at
            once, before its body is read. Where more is asked than can be done for as long, none waits for longer than
            two passes of the model and the store take, of a size from which on larger ones gain little.
        rate: inputs a second of one client on average; 0 for no bound.
        burst: inputs of one client at once, before its rate counts.
        connections: open at a time.

    Raises:
        InputError: a number that makes no sense.
    """

    body: int = 8 * 2**20
    bodies: int = 64 * 2**20
    rows: int = 64
    pixels: int = 4_000_000
    body_seconds: float = 10.0
    seconds: float = 30.0
    waiting: int = 256
    longest_wait: float = 0.25
    rate: float = 0.0
    burst: int = 64
    connections: int = 512

    def __post_init__(self) -> None:
        for name in (
            "body",
            "bodies",
            "rows",
            "pixels",
            "body_seconds",
            "seconds",
            "waiting",
            "longest_wait",
            "burst",
            "connections",
        ):
            if not getattr(self, name) > 0:
                raise InputError(Arg(name, getattr(self, name)), remedy="pass a number above 0")
        if not self.rate >= 0 or self.rows > self.waiting:
            raise InputError(
                Arg("rate", self.rate) if not self.rate >= 0 else Arg("rows", self.rows),
                "makes no sense" if not self.rate >= 0 else "is more than may wait",
                remedy="pass a number from 0 on" if not self.rate >= 0 else "pass fewer",
            )
        if self.bodies < self.body:
            raise InputError(
                Arg("bodies", self.bodies), f"is less than one may have, {self.body}", remedy="pass at least that"
            )


@dataclass(frozen=True)
class Wanted:
    """What the model takes.

    Attributes:
        shape: of one input.
        fields: names of the numbers of a record, in the model's order; () where it takes none.
        resize: whether images of another size are made the model's.
    """

    shape: tuple[int, ...]
    fields: tuple[str, ...] = ()
    resize: bool = False

    @property
    def size(self) -> int:
        """Numbers in an input."""
        return math.prod(self.shape)


def reader_of(kind: str) -> Callable[[bytes, Wanted, Limits], Tensor]:
    """What reads the inputs (R, ...) of a plain request of this content type; it raises `Refused`.

    Raises:
        Refused: nothing reads it.
    """
    kind = kind.partition(";")[0].strip().lower()
    if kind == "application/json":
        return read_json
    if kind in IMAGES:
        return read_image
    raise Refused(415, "send application/json, or an image such as image/png")


def read_json(content: bytes, wanted: Wanted, limits: Limits) -> Tensor:
    """``{"inputs": [...]}`` with the numbers of each input, or a record of named numbers for each.

    Raises:
        Refused: it is none.
    """
    document = json_object(content, limits)
    rows = document.get("inputs")
    if not isinstance(rows, list) or not rows:
        raise Refused(400, 'the JSON has no "inputs", a list with an entry for each input')
    _few(len(rows), limits)
    if all(isinstance(row, dict) for row in rows):
        if not wanted.fields:
            raise Refused(400, "this model takes no records; send lists of numbers")
        rows = [_record(row, wanted.fields) for row in rows]
    return _shaped(_numbers(rows, len(rows) * wanted.size), (len(rows), *wanted.shape))


def json_object(content: bytes, limits: Limits) -> dict[str, Any]:
    """A document of JSON that is an object.

    Raises:
        Refused: it is none.
    """
    try:
        document = json_value(content, "it", limits.body)
    except LoadError as error:
        raise Refused(400, "the body is no JSON that is read: malformed, nested too deep, or not finite") from error
    if not isinstance(document, dict):
        raise Refused(400, "the JSON is no object")
    return document


def read_image(content: bytes, wanted: Wanted, limits: Limits) -> Tensor:
    """One image in [0, 1], by the rules of `signstep.data.images`.

    Raises:
        Refused: it is none, too large, or of another size than the model's.
    """
    if len(wanted.shape) != 3 or wanted.shape[0] not in (1, 3):
        raise Refused(415, "this model takes no images")
    channels, height, width = wanted.shape
    picture = Picture("the image", lambda: BytesIO(content))
    size = (height, width) if wanted.resize else None
    try:
        (block,) = read_images([picture], (channels, height, width), size, [1], limits.pixels, _FORMATS)
    except MissingExtraError:
        raise Refused(415, "this service reads no images; send numbers") from None
    except (LoadError, MemoryError) as error:
        raise Refused(
            400,
            "the image is no PNG, JPEG, WebP, BMP or TIFF that can be read,"
            f" has more than {limits.pixels} pixels, or is not {height}x{width}",
        ) from error
    return block


def read_infer(content: bytes, wanted: Wanted, limits: Limits) -> tuple[str | None, Tensor]:
    """The id and the one input of a request of the Open Inference Protocol v2, in JSON.

    Raises:
        Refused: it is none.
    """
    document = json_object(content, limits)
    ident = document.get("id")
    if ident is not None and (not isinstance(ident, str) or len(ident) > 200):
        raise Refused(400, "the id is no short text")
    return ident, read_tensors(document, wanted, limits)


def read_tensors(document: dict[str, Any], wanted: Wanted, limits: Limits) -> Tensor:
    """The one input of a request of the Open Inference Protocol v2, (R, ...).

    Raises:
        Refused: it is none.
    """
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(400, 'the request has not the one tensor in "inputs" that this model takes')
    tensor = inputs[0]
    shape, kind = tensor.get("shape"), tensor.get("datatype")
    if not isinstance(tensor.get("name"), str):
        raise Refused(400, "the tensor has no name")
    if not isinstance(kind, str) or kind not in DATATYPES:
        raise Refused(400, f"the datatype is none of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size >= 0 for size in shape):
        raise Refused(400, "the shape is no list of whole numbers")
    if tuple(shape[1:]) != wanted.shape or shape[0] < 1:
        raise Refused(400, f"the shape is not [rows, {', '.join(map(str, wanted.shape))}]")
    _few(shape[0], limits)
    if "data" not in tensor:
        raise Refused(400, "the tensor has no data; binary data is not taken")
    return _shaped(_numbers(tensor["data"], shape[0] * wanted.size), tuple(shape))


def _few(rows: int, limits: Limits) -> None:
    if rows > limits.rows:
        raise Refused(413, f"a request has at most {limits.rows} inputs")


def _record(row: dict[str, Any], fields: Sequence[str]) -> list[Any]:
    if set(row) != set(fields):
        raise Refused(400, f"a record has not the fields {', '.join(fields)[:500]}")
    return [row[name] for name in fields]


def _numbers(values: Any, most: int) -> Array:
    """All numbers in lists of lists, in order; the shape is that of the model, whatever the nesting says.

    Raises:
        Refused: something is no number, or there are more or fewer.
    """
    found: list[float] = []
    waiting: list[Any] = [values] if isinstance(values, list) else []
    while waiting:
        here = waiting.pop()
        kinds = set(map(type, here))  # as JSON is read there are no others than these
        if kinds <= {int, float, bool}:  # true and false are 1 and 0, as BOOL sends them
            if len(found) + len(here) > most:
                raise Refused(400, MANY)
            found += here
        elif kinds == {list}:
            waiting += reversed(here)
        elif list in kinds and kinds <= {list, int, float, bool}:
            waiting += [one if isinstance(one, list) else [one] for one in reversed(here)]
        else:
            raise Refused(400, "an input has something else than numbers")
    if len(found) != most:
        raise Refused(400, "an input has too few numbers")
    try:
        numbers = np.array(found, dtype=np.float64)
    except OverflowError:  # a whole number of hundreds of digits
        raise Refused(400, MANY) from None
    if not bool((np.abs(numbers) < 1e38).all()):
        raise Refused(400, MANY)
    return numbers


def _shaped(numbers: Array, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32)).reshape(shape)
