"""Requests and images as an enemy makes them, from valid ones; the same for the same seed."""

import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

SHAPE = (1, 8, 8)
FIELDS = tuple(f"f{number}" for number in range(64))
NUMBERS = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e308", "1e38", "-0", "-0.0", "1E+2", "0x10", "01", "1.", ".5",
    "+1", "--1", "1e", "null", "true", "false", '"1"', '""', "[]", "{}", "[[]]", "9" * 400, "9" * 5000,
    "0." + "1" * 5000, "1e-400", "1e999999999", "\\ud800", '"\\ud800"', '"\\u0000"',
)  # fmt: skip
KINDS = (
    "application/json", "APPLICATION/JSON; charset=utf-16", "application/json;;;", "text/plain", "", "x", "/", "\xff",
    "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=", "image/png",
    "image/jpeg", "image/gif", "image/svg+xml", "image/*", "*/*", "application/octet-stream", "a" * 4000,
)  # fmt: skip
METHODS = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "POST", "get", "P\x00ST", "\xe9", "")
PATHS = (
    "/", "*", "//", "/predict/", "/predict?x=%00", "/predict#a", "/v2", "/v2/", "/v2/models/", "/v2/models/net",
    "/v2/models/net/ready", "/v2/models/%00/infer", "/v2/models/../../etc/passwd", "/v2/models/%2e%2e/infer",
    "/v2/models/" + "n" * 3000, "/v2/models/%ff%fe", "/v2/models/%", "/openapi.json", "/metrics", "/ui", "/docs",
    "http://elsewhere.example/predict", "predict", "/\xff", "/v2/health/ready?" + "a=b&" * 500, "\\", "/%0d%0ax: y",
)  # fmt: skip
HEADERS = (
    ("content-length", "-1"), ("content-length", "1e3"), ("content-length", "9" * 30), ("content-length", " 5"),
    ("content-length", "5, 5"), ("content-length", "\xb2"), ("transfer-encoding", "chunked"),
    ("transfer-encoding", "gzip, chunked"), ("transfer-encoding", "\x0bchunked"), ("content-encoding", "gzip"),
    ("content-encoding", "identity, br"), ("expect", "100-continue"), ("expect", "x"), ("upgrade", "websocket"),
    ("upgrade", "h2c"), ("connection", "upgrade, http2-settings"), ("connection", "close"), ("te", "trailers"),
    ("authorization", "Bearer"), ("authorization", "Bearer \xff"), ("authorization", "Basic eDp5"),
    ("authorization", "Bearer ss_" + "0" * 12 + "_" + "A" * 43), ("authorization", "\x00"), ("x-api-key", "' OR 1=1"),
    ("x-api-key", "k" * 9000), ("x-forwarded-for", "1.2.3.4, " * 300), ("forwarded", "for=\xff"),
    ("cookie", "a" * 8000), ("cookie", "signstep_ui=;;=;"), ("host", ""),
    ("host", "evil\t.example"), ("range", "bytes=0-" + ",0-" * 900),
    ("inference-header-content-length", "9" * 25), ("traceparent", "00-" + "z" * 55), ("accept", "*/*;q=" + "9" * 900),
    ("sec-fetch-site", "cross-site"), ("a b", "c"), ("", "x"), ("a", "x\r\n y"), ("a", "\x00"), ("\xe9", "\xe9"),
    ("x" * 9000, "1"), ("if-none-match", "*"), ("origin", "null"),
)  # fmt: skip


class Sent(NamedTuple):
    """A request as it goes over the wire.

    Attributes:
        kind: of what is wrong with it.
        parts: its bytes, each sent by itself.
        whole: whether the server has all that it was told to wait for: an answer is due.
        method: as an answer's reader has to know it.
    """

    kind: str
    parts: tuple[bytes, ...]
    whole: bool
    method: str = "POST"


def inputs(draws: random.Random) -> Any:
    """A document that /predict takes."""
    rows = draws.choice((1, 1, 1, 2, 5))
    if draws.random() < 0.3:
        return {"inputs": [{name: round(draws.random(), 3) for name in FIELDS} for _ in range(rows)]}
    return {"inputs": [[[[round(draws.random(), 3) for _ in range(8)] for _ in range(8)]] for _ in range(rows)]}


def tensor(draws: random.Random) -> Any:
    """A document that /v2/models/net/infer takes."""
    data = [round(draws.random(), 3) for _ in range(64)]
    return {"id": "r", "inputs": [{"name": "input", "shape": [1, *SHAPE], "datatype": "FP32", "data": data}]}


def bent(draws: random.Random, document: Any) -> Any:
    """The document with another value somewhere, or without one, or with one more."""
    odd: list[Any] = [
        None, True, -1, 0, 2**63, 10**40, 1e37, -1e37, "", "x" * 300, "\ud800", "\0", [], {}, [[]], [None], {"a": 1},
        ["FP32"], "BYTES", [-1, *SHAPE], [2**62, *SHAPE], [1e9], "<script>", [[[0] * 8] * 8] * 70,
    ]  # fmt: skip
    place = document
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key: Any = draws.choice(keys)
        if not isinstance(place[key], dict | list) or not place[key] or draws.random() < 0.3:
            match draws.randrange(4):
                case 0:
                    del place[key]
                case 1 if isinstance(place, list):
                    place.insert(key, draws.choice(odd))
                case _:
                    place[key] = draws.choice(odd)
            break
        place = place[key]
    return document


def flipped(draws: random.Random, whole: bytes, most: int = 6) -> bytes:
    """Bytes changed, taken out, put in, said again."""
    changed = bytearray(whole)
    for _ in range(draws.randint(1, most)):
        at = draws.randrange(len(changed)) if changed else 0
        match draws.randrange(5):
            case 0 if changed:
                changed[at] ^= 1 << draws.randrange(8)
            case 1 if changed:
                changed[at] = draws.choice((0, 255, 127, 128, draws.randrange(256)))
            case 2:
                del changed[at : at + draws.randint(1, 20)]
            case 3:
                changed[at:at] = draws.randbytes(draws.randint(1, 9))
            case _:
                changed[at:at] = changed[: draws.randint(1, 60)]
    return bytes(changed)


def body(draws: random.Random, path: str) -> tuple[str, bytes]:  # noqa: PLR0911 - a table of ways
    """A body of JSON that is wrong in one way, and the name of the way."""
    document = inputs(draws) if path == "/predict" else tensor(draws)
    text = json.dumps(document)
    match draws.randrange(11):
        case 0:
            return "flipped", flipped(draws, text.encode())
        case 1:
            return "truncated", text.encode()[: draws.randrange(len(text))]
        case 2:
            deep = draws.choice((20, 64, 200, 5000, 100_000))
            opening, closing = draws.choice((("[", "]"), ('{"inputs":', "}")))
            inner = opening * deep + draws.choice(("", "1")) + closing * draws.choice((deep, deep, 0))
            return "deep", draws.choice((inner, '{"inputs": [' + inner + "]}")).encode()
        case 3:
            numbers = [str(round(draws.random(), 2)) for _ in range(64)]
            numbers[draws.randrange(64)] = draws.choice(NUMBERS)
            row = ",".join(numbers)
            if path == "/predict":
                return "numbers", ('{"inputs": [[' + row + "]]}").encode()
            one = '{"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [' + row + "]}"
            return "numbers", ('{"inputs": [' + one + "]}").encode()
        case 4 | 5 | 6:
            for _ in range(draws.randint(1, 3)):
                document = bent(draws, document)
            return "bent", json.dumps(document).encode()
        case 7:
            return "keys twice", text.replace('"', '"inputs": 1, "', 1).encode() if draws.random() < 0.5 else (
                b'{"a":1,' * 30 + b'"a":2' + b"}" * 30
            )
        case 8:
            junk = draws.choice(
                (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x00", b"\xef\xbb\xbf")
            )
            at = draws.randrange(len(text))
            return "no UTF-8", text.encode()[:at] + junk + text.encode()[at:]
        case 9:
            return "encoded", text.encode(draws.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-be")))
        case _:
            return "random", draws.randbytes(draws.choice((0, 1, 17, 900)))


def head(
    method: str, path: str, headers: Sequence[tuple[str, str]], version: str = "HTTP/1.1", end: str = "\r\n"
) -> bytes:
    """The head of a request, whatever its parts hold."""
    lines = [f"{method} {path} {version}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return end.join(lines).encode("latin-1", "replace")


def request(draws: random.Random) -> Sent:  # noqa: PLR0911, PLR0912 - likewise
    """A request that is wrong in one way at least."""
    path = draws.choice(("/predict", "/predict", "/v2/models/net/infer"))
    kind, content = body(draws, path)
    usual = [("host", "guard"), ("content-type", "application/json")]
    length = ("content-length", str(len(content)))
    match draws.randrange(20):
        case 0:
            usual[1] = ("content-type", draws.choice(KINDS))
            return Sent("content type", (head("POST", path, [*usual, length]) + content,), whole=True)
        case 1:
            more = draws.sample(HEADERS, draws.randint(1, 4))
            return Sent("headers", (head("POST", path, [*usual, length, *more]) + content,), whole=False)
        case 2:
            size = str(len(content) + draws.choice((-5, -1, 1, 1000)))
            return Sent(
                "wrong length", (head("POST", path, [*usual, ("content-length", size)]) + content,), whole=False
            )
        case 3:
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:50], content[50:]) if part)
            chunked = chunks + b"0\r\n\r\n"
            if draws.random() < 0.7:
                trailer = chunks + b"0\r\nhost: b\r\n\r\n"
                junk = (b"-1\r\nx\r\n", b"f" * 40 + b"\r\n", b"5;" + b"e" * 9000, b"zz\r\n", b"1\r\nab\r\n0\r\n\r\n")
                chunked = draws.choice((flipped(draws, chunked, 2), *junk, trailer))
            both = [length] if draws.random() < 0.2 else []
            chunks_head = head("POST", path, [*usual, ("transfer-encoding", "chunked"), *both])
            return Sent("chunks", (chunks_head, chunked), whole=False)
        case 4:
            method, target = draws.choice(METHODS), draws.choice((*PATHS, path))
            sent = head(method, target, [*usual, length]) + content
            return Sent("methods and paths", (sent,), whole=False, method=method)
        case 5:
            match draws.randrange(6):
                case 0:
                    sent = draws.randbytes(draws.randint(1, 300)) + b"\r\n\r\n"
                case 1:
                    sent = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draws.randbytes(500)
                case 2:
                    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + draws.randbytes(20)
                case 3:
                    many = [(f"h{number}", "x" * 20) for number in range(draws.choice((50, 200, 2000)))]
                    sent = head("POST", path, [*usual, length, *many]) + content
                case 4:
                    version = draws.choice(("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.1x", "", "http/1.1"))
                    sent = head("POST", path, [*usual, length], version, draws.choice(("\r\n", "\n", "\r"))) + content
                case _:
                    sent = flipped(draws, head("POST", path, [*usual, length]), 3) + content
            return Sent("no HTTP", (sent,), whole=False)
        case 6:
            sent = head("POST", path, [*usual, length]) + content
            return Sent("pipelined", (sent * draws.randint(2, 5),), whole=False)
        case 7:
            large = content + b" " * draws.choice((2**16, 2**20))
            return Sent("large", (head("POST", path, [*usual, ("content-length", str(len(large)))]), large), whole=True)
        case _:
            sent = head("POST", path, [*usual, length]) + content
            return Sent(kind, (sent,), whole=True)


def saved(image: Image.Image, kind: str, **more: Any) -> bytes:
    """An image as a file."""
    held = BytesIO()
    image.save(held, kind, **more)
    return held.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 0, data: bytes | None = None, more: bytes = b""
) -> bytes:
    """A PNG of any words; black without data."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    line = 1 + (width * channels * depth + 7) // 8
    if data is None:
        packer = zlib.compressobj(9)
        rows = [packer.compress(bytes(min(line * height, 2**26)))]
        data = b"".join(rows) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def valid_images(seed: int = 0) -> list[tuple[str, bytes]]:
    """Small valid ones of every format that is read, in many modes."""
    rng = np.random.default_rng(seed)
    rgb = Image.fromarray(rng.integers(0, 255, (24, 17, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65535, (9, 9), dtype=np.uint16))
    frames = [rgb.rotate(angle) for angle in range(0, 360, 40)]
    exif = Image.Exif()
    exif[0x0112] = 6
    found: list[tuple[str, bytes]] = []
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        found.append(("png", saved(rgb.convert(mode), "PNG")))
    for mode in ("L", "RGB", "CMYK"):
        found.append(("jpeg", saved(rgb.convert(mode), "JPEG", progressive=mode == "RGB", exif=exif)))
    for mode in ("1", "L", "P", "RGB"):
        found.append(("bmp", saved(rgb.convert(mode), "BMP")))
    for mode in ("1", "L", "RGB", "RGBA", "CMYK"):
        found.append(("tiff", saved(rgb.convert(mode), "TIFF")))
    for packing in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        found.append(("tiff", saved(rgb, "TIFF", compression=packing)))
    found += [("png", saved(deep, "PNG")), ("tiff", saved(deep, "TIFF")), ("gif", saved(rgb.convert("P"), "GIF"))]
    found += [("webp", saved(rgb, "WEBP")), ("webp", saved(rgb.convert("RGBA"), "WEBP", lossless=True))]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        found.append((kind.lower(), saved(frames[0], kind, save_all=True, append_images=frames[1:])))
    words = PngImagePlugin.PngInfo()
    words.add_text("a", "b" * 900, zip=True)
    found.append(("png", saved(rgb, "PNG", pnginfo=words, icc_profile=b"\0" * 300, exif=exif)))
    for kind in ("JPEG2000", "AVIF", "PPM"):
        try:
            found.append((kind.lower(), saved(rgb, kind)))
        except (OSError, KeyError):  # a Pillow without it
            continue
    return found


def tiff_pages(pages: int, *, loop: bool = False) -> bytes:
    """A TIFF of that many pages, or of one that leads to itself again."""
    whole = bytearray(saved(Image.new("L", (8, 8)), "TIFF"))
    at = int.from_bytes(whole[4:8], "little")
    entries = int.from_bytes(whole[at : at + 2], "little")
    after = at + 2 + 12 * entries
    whole[after : after + 4] = struct.pack("<I", at if loop else len(whole))
    if loop:
        return bytes(whole)
    page = bytes(whole[at:after])
    for number in range(pages):
        following = len(whole) + len(page) + 4
        whole += page + struct.pack("<I", 0 if number == pages - 1 else following)
    return bytes(whole)


def bombs(draws: random.Random) -> tuple[str, bytes]:  # noqa: PLR0911, PLR0912 - likewise
    """Few bytes that ask for much: pixels, texts, frames, pages, scans."""
    size = draws.choice(((2**31 - 1, 2**31 - 1), (60_000, 60_000), (1, 2**31 - 1), (0, 0), (2001, 2001)))
    match draws.randrange(12):
        case 0:
            return "huge PNG", png(*size, data=zlib.compress(b"\0" * 5000), colour=draws.choice((0, 2, 3, 4, 6)))
        case 1:
            return "largest PNG", png(2000, 2000, colour=draws.choice((0, 2, 6)), depth=draws.choice((8, 16)))
        case 2:
            strip = draws.choice(((4_000_000, 1), (1, 4_000_000), (1, 4_000_001), (3_999_999, 1)))
            return "strip", png(*strip)
        case 3:
            text = zlib.compress(b"a" * draws.choice((2**16, 2**24, 2**26)))
            kind, words = draws.choice(((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")))
            return "text bomb", png(8, 8, more=chunk(kind, words + text) * draws.choice((1, 20)))
        case 4:
            whole = saved(Image.new("P", (8, 8)), "GIF")
            at = whole.index(b",", 13)
            return "frames", whole[:-1] + whole[at:-1] * draws.choice((100, 5000, 100_000)) + b";"
        case 5:
            return "pages", tiff_pages(draws.choice((100, 3000, 50_000)), loop=draws.random() < 0.3)
        case 6:
            whole = saved(Image.new("RGB", (1000, 1000)), "JPEG", progressive=True)
            at = whole.rindex(b"\xff\xda")
            return "scans", whole[:-2] + whole[at:-2] * draws.choice((10, 100, 300)) + b"\xff\xd9"
        case 7:
            held = bytearray(saved(Image.new("RGB", (8, 8)), "BMP"))
            held[18:26] = struct.pack("<ii", *(draws.choice((size[0], -size[0], 2**31 - 1, -(2**31))) for _ in "wh"))
            return "huge BMP", bytes(held)
        case 8:
            held = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
            held[6:10] = struct.pack("<HH", *draws.choice(((65535, 65535), (0, 0), (2000, 2000), (65535, 61))))
            return "huge GIF", bytes(held)
        case 9:
            held = bytearray(saved(Image.new("RGB", (8, 8)), "JPEG"))
            at = held.index(b"\xff\xc0")
            held[at + 5 : at + 9] = struct.pack(
                ">HH", *draws.choice(((65535, 65535), (0, 8), (2000, 2000), (65500, 61)))
            )
            return "huge JPEG", bytes(held)
        case 10:
            held = bytearray(saved(Image.new("L", (8, 8)), "TIFF"))
            at = int.from_bytes(held[4:8], "little")
            for entry in range(int.from_bytes(held[at : at + 2], "little")):
                if draws.random() < 0.3:
                    place = at + 2 + 12 * entry + draws.choice((2, 4, 8))
                    held[place : place + 4] = struct.pack("<I", draws.choice((0, 1, 2**16, 2**31, 2**32 - 1)))
            return "tags", bytes(held)
        case _:
            segment = b"\xff\xe1" + struct.pack(">H", 65535) + b"Exif\0\0" + draws.randbytes(65527)
            whole = saved(Image.new("L", (8, 8)), "JPEG")
            return "EXIF", whole[:2] + segment * draws.choice((1, 100)) + whole[2:]


def image(draws: random.Random, valid: Sequence[tuple[str, bytes]]) -> tuple[str, bytes, str]:
    """A hostile image: the way in which it is one, its bytes, and what its sender says it is."""
    kind, whole = draws.choice(valid)
    said = (
        f"image/{kind}"
        if draws.random() < 0.8
        else draws.choice(("image/png", "image/tiff", "image/bmp", "image/webp"))
    )
    if said.partition("/")[2] not in ("png", "jpeg", "webp", "bmp", "tiff"):
        said = "image/png"  # what is decoded is what the bytes say
    ways: list[Callable[[], tuple[str, bytes]]] = [
        lambda: ("flipped", flipped(draws, whole)),
        lambda: ("flipped", flipped(draws, whole)),
        lambda: ("head flipped", flipped(draws, whole[:80], 3) + whole[80:]),
        lambda: ("truncated", whole[: draws.randrange(len(whole))]),
        lambda: ("spliced", whole[: draws.randrange(len(whole))] + draws.choice(valid)[1][draws.randrange(60) :]),
        lambda: ("wrong magic", draws.choice(valid)[1][:12] + whole[12:]),
        lambda: ("polyglot", whole + b"PK\x03\x04<script>" + draws.choice(valid)[1]),
        lambda: ("junk inside", _junk_inside(draws, kind, whole)),
        lambda: ("valid", whole),
    ]
    if draws.random() < 0.12:
        way, content = bombs(draws)
    else:
        way, content = draws.choice(ways)()
    return way, content, said


def _junk_inside(draws: random.Random, kind: str, whole: bytes) -> bytes:
    junk = draws.randbytes(draws.choice((0, 3, 300)))
    if kind == "png":  # behind the first chunk
        name = draws.choice(
            (b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"gAMA", b"IHDR", b"IEND", b"zTXt")
        )
        return whole[:33] + chunk(name, junk) + whole[33:]
    if kind == "jpeg":
        marker = draws.choice((0xE0, 0xE1, 0xE2, 0xEE, 0xDB, 0xC4, 0xC0, 0xDD, 0xFE))
        return whole[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(junk) + 2) + junk + whole[2:]
    at = draws.randrange(8, 40)
    return whole[:at] + junk + whole[at + len(junk) :]
