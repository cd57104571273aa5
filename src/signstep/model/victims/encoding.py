"""How inputs go to an endpoint: a PNG file, alone, in a form or in JSON; numbers in JSON; a JSON record."""

import hashlib
import io
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from signstep.errors import InputError, MissingExtraError
from signstep.messages import Arg, Key
from signstep.model.victims.arrays import Array
from signstep.model.victims.place import Place

Form = Literal["png", "multipart", "base64", "array", "record"]
FORMS: tuple[Form, ...] = ("png", "multipart", "base64", "array", "record")
IMAGES: tuple[Form, ...] = ("png", "multipart", "base64")
LEVELS = 255


@dataclass(frozen=True)
class Encoding:
    """From inputs (R, ...) to the body of a request and its content type.

    Attributes:
        form: "png" is the file itself; "multipart" a form with it; "base64" JSON with it; "array" JSON with numbers;
            "record" JSON with a number for each field.
        place: where it stands in JSON; of a form the name of its field.
        ends: (low, high): the inputs that the levels 0 and 255 of an image stand for.
        layout: of numbers: "chw" as they come, "hwc" with the channels last.
        fields: names of a record's numbers, in the order of the features.
        prefix: before base64, such as "data:image/png;base64,".
        beside: constants beside it, at the top of the JSON or as further fields of the form.
    """

    form: Form
    place: Place
    ends: tuple[float, float] = (0.0, 1.0)
    layout: Literal["chw", "hwc"] = "chw"
    fields: tuple[str, ...] = ()
    prefix: str = ""
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def levels(self) -> int | None:
        """Steps between the ends that the endpoint sees; None where it sees the numbers."""
        return LEVELS if self.form in IMAGES else None

    def __call__(self, inputs: Array) -> tuple[bytes, str]:
        """The body and its type.

        Raises:
            InputError: the inputs are not what goes this way; nothing has been sent.
        """
        if self.form == "png":
            return png(self.pixels(inputs)[0]), "image/png"
        if self.form == "multipart":
            return self._form(png(self.pixels(inputs)[0]))
        values: list[Any]
        if self.form == "base64":
            values = [self.prefix + b64encode(png(image)).decode() for image in self.pixels(inputs)]
        elif self.form == "record":
            values = self._records(inputs)
        else:
            laid = np.moveaxis(inputs, 1, -1) if self.layout == "hwc" and inputs.ndim > 2 else inputs
            values = laid.tolist()
        document = self.place.put(values)
        if self.beside:
            document = {**self.beside, **document}
        return json.dumps(document, allow_nan=False, separators=(",", ":")).encode(), "application/json"

    def pixels(self, inputs: Array) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """The images that go, (R, H, W, C) or (R, H, W), of 8 bits.

        Raises:
            InputError: no images, or values beyond the ends.
        """
        low, high = self.ends
        if inputs.ndim != 4 or inputs.shape[1] not in (1, 3, 4):
            raise InputError(
                f"inputs of shape {inputs.shape[1:]} are no images, and",
                Key("request.as", self.form),
                "sends images",
                remedy=("write", Key("request.as", "array"), "or", Key("request.as", "record")),
            )
        levels = (inputs.astype(np.float64) - low) * (LEVELS / (high - low))
        least, most = float(inputs.min()), float(inputs.max())
        if not (levels.min() > -0.501 and levels.max() < LEVELS + 0.501):
            raise InputError(
                f"inputs go from {least:.4g} to {most:.4g}, and",
                Key("request.pixels", [low, high]),
                "are the ends of the images that are sent",
                remedy=(
                    "drop",
                    Arg("mean"),
                    "and",
                    Arg("std"),
                    ", which are the endpoint's own business, or correct",
                    Key("request.pixels"),
                ),
            )
        made: np.ndarray[Any, np.dtype[np.uint8]] = levels.round().clip(0, LEVELS).astype(np.uint8)
        return made[:, 0] if made.shape[1] == 1 else np.ascontiguousarray(np.moveaxis(made, 1, -1))

    def _records(self, inputs: Array) -> list[dict[str, float]]:
        flat = inputs.reshape(len(inputs), -1)
        if flat.shape[1] != len(self.fields):
            raise InputError(
                f"an input has {flat.shape[1]} numbers, and",
                Key("request.fields"),
                f"names {len(self.fields)}",
                remedy="name each number once, in the order of the data's columns",
            )
        return [dict(zip(self.fields, row, strict=True)) for row in flat.tolist()]

    def _form(self, image: bytes) -> tuple[bytes, str]:
        name = str(self.place.steps[0])
        texts = "".join(_quoted(part) for part in (name, *self.beside)) + "".join(map(str, self.beside.values()))
        border = f"signstep-{hashlib.sha256(image + texts.encode()).hexdigest()[:32]}"
        parts = [
            f'--{border}\r\nContent-Disposition: form-data; name="{_quoted(key)}"\r\n\r\n{_said(value)}\r\n'.encode()
            for key, value in self.beside.items()
        ]
        head = f'Content-Disposition: form-data; name="{_quoted(name)}"; filename="input.png"'
        parts.append(f"--{border}\r\n{head}\r\nContent-Type: image/png\r\n\r\n".encode() + image + b"\r\n")
        return b"".join([*parts, f"--{border}--\r\n".encode()]), f"multipart/form-data; boundary={border}"


def png(pixels: "np.ndarray[Any, np.dtype[np.uint8]]") -> bytes:
    """An image (H, W) or (H, W, C) of 8 bits as a PNG file.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "images") from error
    kept = io.BytesIO()
    Image.fromarray(pixels).save(kept, format="PNG")
    return kept.getvalue()


def plain_bytes(encode: Callable[[Array], bytes]) -> Callable[[Array], tuple[bytes, str]]:
    """A function of somebody's own that makes JSON."""
    return lambda inputs: (encode(inputs), "application/json")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
