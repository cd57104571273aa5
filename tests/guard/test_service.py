"""The service, asked without a socket: what clients may send, who they are, what they meet."""

import asyncio
import io
import json
import logging
import random
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guard_bench import SHAPE, Asking, clean, made, odd, service

import signstep as ss
from signstep.guard.app import make_app
from signstep.guard.bodies import Limits, Wanted
from signstep.guard.decide import Rules
from signstep.guard.guard import Guard
from signstep.guard.identity import Proxies, new_key, revoke
from signstep.guard.metrics import LABELS
from signstep.guard.pace import Pace
from signstep.guard.serving import server
from signstep.io.documents import json_value

pytest.importorskip("fastapi")
ServerState = pytest.importorskip("uvicorn.server").ServerState
JSON = {"content-type": "application/json"}
HERE = "127.0.0.1"


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return made(tmp_path / "guard.db")


@pytest.fixture
def asking(guard: Guard) -> Iterator[Asking]:
    with Asking(make_app(service(guard, Limits(body=4096, pixels=10_000, rows=8)))) as opened:
        yield opened


def clients(guard: Guard) -> list[str]:
    assert guard.store is not None
    return [row["client"] for row in guard.store.read(guard.store.tables.log())]


def png(width: int, height: int, grey: int = 60) -> bytes:
    from PIL import Image

    held = io.BytesIO()
    Image.new("L", (width, height), grey).save(held, "PNG")
    return held.getvalue()


def test_inputs_are_answered_held_or_refused(asking: Asking) -> None:
    answers = [asking.predict(odd(first)) for first in (0.1, 0.85, 0.95)]
    assert [one.status for one in answers] == [200, 202, 422]
    assert answers[0].json | {"id": "", "confidence": 1} == {
        "id": "", "action": "accept", "label": 0, "name": "dark", "confidence": 1,
    }  # fmt: skip
    assert set(answers[1].json) == {"id", "action"}
    several = asking.predict(np.concatenate([odd(0.1), odd(0.95)]))
    assert several.status == 200
    assert [row["action"] for row in several.json["results"]] == ["accept", "reject"]
    image = asking.ask("POST", "/predict", png(4, 4), {"content-type": "image/png"})
    assert (image.status, image.json["label"]) == (200, 0)


def test_a_refusal_looks_the_same_whatever_it_is_for(asking: Asking, guard: Guard) -> None:
    nearly = odd(0.1)
    nearly[0, 0, 1, 1] = 3.0  # outside of the declared ends
    seen = [asking.predict(x) for x in (odd(0.95), nearly)]
    guard.policy.decide = None  # type: ignore[method-assign, assignment]
    seen.append(asking.predict(odd(0.1)))  # cannot be judged

    def without_id(reply: Any) -> tuple[int, dict[str, Any], int, dict[str, str]]:
        return reply.status, {**reply.json, "id": ""}, len(reply.body), reply.headers

    assert [without_id(one) for one in seen] == [without_id(seen[0])] * 3
    assert seen[0].json["error"] == "the input was not answered"


def test_reasons_and_p_values_leave_only_where_the_operator_says_so(tmp_path: Path) -> None:
    with Asking(make_app(service(made(tmp_path / "a.db"), tell=True, scores=True))) as asking:
        told = asking.predict(odd(0.95)).json
        assert told["p_value"] == pytest.approx(0.001)
        assert told["reasons"][0]["code"] == "detector"
        assert len(asking.predict(odd(0.1)).json["scores"]) == 2


def tensor(**more: Any) -> bytes:
    """A request of the Open Inference Protocol."""
    one = {"name": "input", "shape": [1, *SHAPE], "datatype": "FP32", "data": odd(0.1).tolist()}
    return json.dumps({"inputs": [one], **more}).encode()


INFER = "/v2/models/net/infer"


# Whatever is sent, the answer is one of ours: a status below 500 and one sentence that repeats nothing of it.
MALFORMED: list[tuple[str, bytes, int]] = [
    ("application/json", b"", 400),
    ("application/json", b"{", 400),
    ("application/json", b"[]", 400),
    ("application/json", b"\xff\xfe", 400),
    ("application/json", b'{"inputs": 3}', 400),
    ("application/json", b'{"inputs": []}', 400),
    ("application/json", b'{"inputs": [[1, 2]]}', 400),
    ("application/json", b'{"inputs": [["<script>"]]}', 400),
    ("application/json", b'{"inputs": [[NaN]]}', 400),
    ("application/json", b'{"inputs": [[1e999]]}', 400),
    ("application/json", b'{"inputs": [[1e300' + b",1" * 15 + b"]]}", 400),
    ("application/json", b'{"inputs": [' + b"[" * 500 + b"]" * 500 + b"]}", 400),
    ("application/json", b'{"inputs": [[null' + b",1" * 15 + b"]]}", 400),
    ("application/json", b'{"inputs": [{"a": 1}]}', 400),
    ("application/json", b'{"inputs": [[' + b"1," * 16 + b"1]]}", 400),
    ("application/json", b'{"inputs": [' + b"0," * 8 + b"0]}", 413),
    ("application/json", b'{"a": 1, "a": 2}', 400),
    ("application/json", b" " * 5000, 413),
    ("application/json", b'{"inputs": [[' + b"9" * 4000 + b"]]}", 400),
    ("text/html", b"<script>", 415),
    ("", b"x", 415),
    ("multipart/form-data; boundary=x", b"--x", 415),
    ("image/png", b"", 400),
    ("image/png", b"\x89PNG\r\n\x1a\n", 400),
    ("image/png", png(5, 5), 400),
    ("image/png", png(4, 4)[:-20], 400),
    ("image/jpeg", b"GIF89a", 400),
    ("image/svg+xml", b"<svg/>", 415),
]


def test_what_cannot_be_read_is_refused_in_a_sentence(asking: Asking, guard: Guard) -> None:
    for kind, body, status in MALFORMED:
        reply = asking.ask("POST", "/predict", body, {"content-type": kind})
        assert reply.status == status, (kind, body)
        assert set(reply.json) == {"error"}
        assert b"<" not in reply.body
    assert clients(guard) == []  # nothing was judged
    assert asking.predict(odd(0.1)).status == 200


FORMATS: list[tuple[str, bool]] = [
    *((kind, True) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")),
    *((kind, False) for kind in ("GIF", "AVIF", "JPEG2000", "PPM", "DIB", "TGA", "PCX", "ICO", "EPS", "SGI")),
]


@pytest.mark.parametrize(("kind", "read"), FORMATS)
def test_only_the_formats_of_the_documentation_are_decoded(kind: str, read: bool, asking: Asking) -> None:
    """Whatever the sender says that it is: each decoder more is one more that an enemy may try."""
    from PIL import Image, features

    needed = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}.get(kind)
    if needed is not None and not features.check(needed):
        pytest.skip(f"this Pillow writes no {kind}")
    held = io.BytesIO()
    Image.new("RGB" if kind == "EPS" else "L", (4, 4), 60).save(held, kind)
    for said in ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/tiff"):
        reply = asking.ask("POST", "/predict", held.getvalue(), {"content-type": said})
        assert reply.status == (200 if read else 400), said
        assert read or reply.json["error"].startswith("the image is no PNG, JPEG, WebP, BMP or TIFF that can be read")
    other = asking.ask("POST", "/predict", held.getvalue(), {"content-type": f"image/{kind.lower()}"})
    assert other.status == (200 if read else 415)


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels and has none of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 5000)) + chunk(b"IEND", b"")
    )


def test_hostile_images_and_mutated_requests_end_no_worker(asking: Asking) -> None:
    draws = random.Random(7)
    good = png(4, 4)
    text = json.dumps({"inputs": odd(0.1).tolist()}).encode()
    asked: list[tuple[bytes, str]] = [(bomb(*size), "image/png") for size in ((2**31 - 1, 2**31 - 1), (60000, 60000))]
    for _ in range(150):
        for whole, kind in ((good, "image/png"), (text, "application/json")):
            changed = bytearray(whole)
            for _ in range(draws.randint(1, 4)):
                at = draws.randrange(len(changed))
                match draws.randrange(4):
                    case 0:
                        changed[at] = draws.randrange(256)
                    case 1:
                        del changed[at : at + draws.randint(1, 20)]
                    case 2:
                        changed[at:at] = bytes(draws.randrange(256) for _ in range(draws.randint(1, 8)))
                    case _:
                        changed[at:at] = changed[: draws.randint(1, 40)]
                if not changed:
                    changed = bytearray(b"x")
            asked.append((bytes(changed), kind))
    replies = [asking.ask("POST", "/predict", body, {"content-type": kind}) for body, kind in asked]
    seen = {reply.status for reply in replies}
    assert seen <= {200, 202, 400, 413, 422}, seen
    assert 400 in seen
    assert asking.predict(odd(0.1)).status == 200


def test_the_open_inference_protocol_is_answered(asking: Asking) -> None:
    def infer(tensor: dict[str, Any], name: str = "net", **more: Any) -> Any:
        body = json.dumps({"inputs": [tensor], **more}).encode()
        return asking.ask("POST", f"/v2/models/{name}/infer", body, JSON)

    tensor = {"name": "input", "shape": [2, *SHAPE], "datatype": "FP32", "data": clean(2).tolist()}
    reply = infer(tensor, id="r1")
    assert reply.status == 200
    said = reply.json
    assert (said["model_name"], said["id"]) == ("net", "r1")
    assert said["outputs"] == [{"name": "label", "datatype": "INT64", "shape": [2], "data": said["outputs"][0]["data"]}]
    assert said["parameters"]["action"] == "accept,accept"
    assert all(isinstance(value, (str, int, float, bool)) for value in said["parameters"].values())
    flat = {**tensor, "data": np.concatenate([odd(0.1), odd(0.95)]).reshape(-1).tolist(), "datatype": "FP64"}
    mixed = infer(flat).json
    assert mixed["parameters"]["action"] == "accept,reject"
    assert mixed["outputs"][0]["data"] == [0, -1]
    alone = infer({**tensor, "shape": [1, *SHAPE], "data": odd(0.95).tolist()})
    assert (alone.status, alone.json["error"]) == (422, "the input was not answered")
    assert infer(tensor, name="other").status == 404
    refused: list[dict[str, Any]] = [
        {"shape": [2, 1, 4, 5]}, {"shape": "2"}, {"shape": []}, {"shape": [-1, *SHAPE]}, {"shape": [True, *SHAPE]},
        {"datatype": "BYTES"}, {"datatype": None}, {"data": [1]}, {"data": "x"}, {"name": 3}, {"shape": [9, *SHAPE]},
        {"shape": [0, *SHAPE], "data": []}, {"shape": [10**30, *SHAPE]},
    ]  # fmt: skip
    for wrong in refused:
        assert infer({**tensor, **wrong}).status in (400, 413), wrong
    assert asking.ask("GET", "/v2/models/net").json["inputs"][0]["shape"] == [-1, *SHAPE]
    assert asking.ask("GET", "/v2/health/ready").json == {"ready": True}
    assert asking.ask("GET", "/v2/health/live").status == 200
    assert asking.ask("GET", "/v2").json["name"] == "signstep-guard"


def test_records_are_read_by_their_names(tmp_path: Path) -> None:
    fields = tuple(f"f{number}" for number in range(16))
    with Asking(make_app(service(made(tmp_path / "a.db"), wanted=Wanted(SHAPE, fields)))) as asking:
        row = dict(zip(reversed(fields), reversed(odd(0.1).reshape(-1).tolist()), strict=True))
        assert asking.ask("POST", "/predict", json.dumps({"inputs": [row]}).encode(), JSON).status == 200
        for wrong in ({**row, "more": 1}, {"f0": 1}, {**row, "f0": "1"}, {**row, "f0": None}):
            assert asking.ask("POST", "/predict", json.dumps({"inputs": [wrong]}).encode(), JSON).status == 400
        said = asking.ask("GET", "/openapi.json").json
        assert "/predict" in said["paths"]
        assert "f15" in json.dumps(said)


# Who reads the numbers: who may by the operator's choice, the peer, its headers; {key} is that of the role before it.
FORWARDED = {"x-forwarded-for": HERE}
NUMBERS: list[tuple[str, str, dict[str, str], str, int]] = [
    ("local", HERE, {}, "", 200), ("local", "::1", {}, "", 200), ("local", "::ffff:127.0.0.1", {}, "", 200),
    ("local", "203.0.113.9", {}, "", 401), ("local", "unix:", {}, "", 401),
    *(("local", HERE, {name: HERE}, "", 401) for name in ("x-forwarded-for", "x-real-ip", "forwarded", "via")),
    ("local", "203.0.113.9", FORWARDED, "", 401), ("local", "203.0.113.9", {"host": "localhost"}, "", 401),
    ("local", "203.0.113.9", {}, "metrics", 200), ("local", HERE, FORWARDED, "person", 200),
    ("key", HERE, {}, "", 401), ("key", HERE, {}, "client", 401), ("key", HERE, {}, "metrics", 200),
    ("key", HERE, {}, "person", 200), ("key", HERE, {"authorization": "Bearer ss_x"}, "", 401),
    ("all", "203.0.113.9", {}, "", 200), ("none", HERE, {}, "person", 404),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(NUMBERS)))
def test_the_numbers_are_for_those_whom_the_operator_names(case: int, tmp_path: Path) -> None:
    who, peer, headers, role, status = NUMBERS[case]
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    shown = {"authorization": f"Bearer {new_key(guard.store, 'x', role)}"} if role else {}
    with Asking(make_app(service(guard, metrics=who))) as asking:
        reply = asking.ask("GET", "/metrics", headers={**headers, **shown}, peer=peer)
        assert reply.status == status
        assert (b"signstep_guard_decisions" in reply.body) == (status == 200)
        # A key that reads numbers does nothing else.
        if role == "metrics":
            assert asking.predict(odd(0.1), shown).status == 403
            assert clients(guard) == []


def test_whoever_comes_through_a_proxy_on_this_machine_is_not_local() -> None:
    """By whatever header the operator's own proxy says who asks."""
    known = Proxies.of(["127.0.0.1/32"], "CF-Connecting-IP")
    assert not known.local(HERE, {"cf-connecting-ip": "203.0.113.7"})
    assert not Proxies.of(["10.0.0.0/8"], "X-Asker").local(HERE, {"x-asker": HERE})
    assert known.local(HERE, {"host": "localhost"})
    assert Proxies().local(HERE, {"cf-connecting-ip": "203.0.113.7"})  # nobody said that this is a proxy's


# Who came by https: scheme, peer, headers. Nobody but the operator's own proxy is believed.
HTTPS = [
    ("https", "203.0.113.9", {}, True),
    ("http", "203.0.113.9", {"x-forwarded-proto": "https"}, False),
    ("http", "10.1.1.1", {"x-forwarded-proto": "https"}, True),
    ("http", "10.1.1.1", {"x-forwarded-proto": "HTTPS "}, True),
    ("http", "10.1.1.1", {"x-forwarded-proto": "https, http"}, False),
    ("http", "10.1.1.1", {"x-forwarded-proto": "http,https"}, True),
    ("http", "10.1.1.1", {"x-forwarded-proto": "httpsx"}, False),
    ("http", "10.1.1.1", {"x-forwarded-proto": "https" + "," * 10_000}, False),
    ("http", "10.1.1.1", {"forwarded": "proto=https", "x-forwarded-ssl": "on"}, False),
    ("http", "10.1.1.1", {}, False),
]


@pytest.mark.parametrize("case", range(len(HTTPS)))
def test_who_came_by_https_is_what_our_own_proxy_says(case: int) -> None:
    scheme, peer, headers, secure = HTTPS[case]
    assert Proxies.of(PROXY["trust"], PROXY["header"]).secure(scheme, peer, headers) == secure
    assert Proxies().secure(scheme, peer, headers) == (scheme == "https")


# Who asked: peer, headers, trusted proxies -> client. What a client may write changes nothing.
PROXY: dict[str, Any] = {"trust": ["10.0.0.0/8"], "header": "X-Forwarded-For"}
WHO: list[tuple[str, dict[str, str], dict[str, Any], str]] = [
    ("203.0.113.9", {}, {}, "ip 203.0.113.9"),
    ("203.0.113.9", {"x-forwarded-for": "1.2.3.4"}, {}, "ip 203.0.113.9"),
    ("203.0.113.9", {"x-real-ip": "1.2.3.4", "forwarded": "for=1.2.3.4"}, {}, "ip 203.0.113.9"),
    ("203.0.113.9", {"x-forwarded-for": "1.2.3.4"}, PROXY, "ip 203.0.113.9"),
    ("10.1.1.1", {"x-forwarded-for": "198.51.100.7"}, PROXY, "ip 198.51.100.7"),
    ("10.1.1.1", {"x-forwarded-for": "6.6.6.6, 198.51.100.7"}, PROXY, "ip 198.51.100.7"),
    ("10.1.1.1", {"x-forwarded-for": "6.6.6.6, 198.51.100.7, 10.2.2.2"}, PROXY, "ip 198.51.100.7"),
    ("10.1.1.1", {"x-forwarded-for": "198.51.100.7, nonsense"}, PROXY, "ip 10.1.1.1"),
    ("10.1.1.1", {"x-forwarded-for": "key admin"}, PROXY, "ip 10.1.1.1"),
    ("10.1.1.1", {}, PROXY, "ip 10.1.1.1"),
    # However much a client writes before: what the proxy adds stands at the end, and is never cut.
    *(
        ("10.1.1.1", {"x-forwarded-for": f"{'a' * (size - 8)},6.6.6.6, 198.51.100.7"}, PROXY, "ip 198.51.100.7")
        for size in (100, 1990, 2000, 2013, 2014, 15_000)
    ),
    ("10.1.1.1", {"x-forwarded-for": "6.6.6.6," + "10.2.2.2," * 222 + "10.2.2.2"}, PROXY, "ip 10.2.2.2"),
    ("2001:db8:1:2:3::4", {}, {}, "ip 2001:db8:1:2::/64"),
    ("2001:db8:1:2:ffff::1", {}, {}, "ip 2001:db8:1:2::/64"),
    ("::ffff:203.0.113.9", {}, {}, "ip 203.0.113.9"),
    ("fe80::1%eth0", {}, {}, "ip fe80::/64"),
    ("unix:", {"client": "x"}, {}, "peer unix:"),
]


@pytest.mark.parametrize("case", range(len(WHO)))
def test_who_asks_is_nothing_that_a_client_may_write(case: int) -> None:
    peer, headers, proxies, client = WHO[case]
    known = Proxies.of(proxies.get("trust", []), proxies.get("header", ""))
    assert known.address(peer, headers) == client


def test_keys_name_their_client_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    key, other = new_key(guard.store, "shop"), new_key(guard.store, "gone")
    revoke(guard.store, other.split("_")[1])
    with Asking(make_app(service(guard, keys_only=True))) as asking:
        for headers, status in (
            ({"authorization": f"Bearer {key}"}, 200),
            ({"authorization": f"bearer  {key}"}, 200),
            ({"x-api-key": key}, 200),
            ({}, 401),
            ({"authorization": f"Bearer {other}"}, 401),
            ({"authorization": "Bearer "}, 401),
            ({"authorization": f"Basic {key}"}, 401),
            ({"authorization": f"Bearer {key[:-1]}x"}, 401),
            ({"authorization": f"Bearer {key} {key}"}, 401),
            ({"x-api-key": "' OR 1=1 --"}, 401),
            ({"x-api-key": "\xe9" * 3000}, 401),
        ):
            assert asking.predict(odd(0.1), headers).status == status, headers
        reply = asking.predict(odd(0.1))
        assert reply.headers["www-authenticate"] == "Bearer"
        assert clients(guard) == [f"key {key.split('_')[1]}"] * 3


def test_a_client_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    with Asking(make_app(service(guard, Limits(rate=0.5, burst=3)))) as asking:
        statuses = [asking.predict(odd(0.1)) for _ in range(5)]
        assert [one.status for one in statuses] == [200, 200, 200, 429, 429]
        assert 1 <= int(statuses[3].headers["retry-after"]) <= 3
        assert asking.predict(odd(0.1), peer="203.0.113.10").status == 200


def test_more_than_may_wait_is_refused_and_the_rest_is_answered(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    with Asking(make_app(service(guard, Limits(waiting=16, rows=1), rows=4))) as asking:
        body = json.dumps({"inputs": odd(0.1).tolist()}).encode()
        replies = asking.many(*[("POST", "/predict", body, JSON, f"203.0.113.{n}", 0.0) for n in range(60)])
        counts = {status: [one.status for one in replies].count(status) for status in (200, 429)}
        assert sum(counts.values()) == 60
        assert counts[200] >= 16
        assert counts[429] > 0
        assert all(one.headers["retry-after"] for one in replies if one.status == 429)
        assert len(clients(guard)) == counts[200]
        assert asking.predict(odd(0.1)).status == 200


class Simulated:
    """A pace whose requests take so long each, one after the other, on a clock of its own."""

    def __init__(self, takes: float, a_pass: float = 0.0) -> None:
        self.now, self.takes, self.waits = 0.0, takes, [0.0]
        self.pace = Pace(1.0, lambda: self.now, lambda: 2 * a_pass)
        self._ends: list[tuple[float, float]] = []  # of those inside: when it ends, when it came

    def until(self, when: float) -> None:
        while self._ends and self._ends[0][0] <= when:
            self.now, came = self._ends.pop(0)
            self.pace.end()
            self.waits.append(self.now - came)
        self.now = when

    def ask(self, when: float) -> bool:
        self.until(when)
        if self.pace.arrived() or self.pace.begin():
            return False
        self._ends.append((max(self._ends[-1][0] if self._ends else 0.0, when) + self.takes, when))
        return True

    def at(self, load: float, seconds: float) -> float:
        """The share that is let in, of what is asked at this load for so long; `waits` then is of the last half."""
        count = round(load * seconds / self.takes)
        began, let_in = self.now, 0
        for number in range(count):
            let_in += self.ask(began + number * seconds / count)
            if number == count // 2:
                self.waits.clear()
        return let_in / count


@pytest.mark.parametrize("takes", [0.004, 0.02, 0.1])
@pytest.mark.parametrize("load", [1.5, 3.0, 30.0])
def test_under_too_much_load_those_let_in_wait_for_few_and_the_model_never_idles(takes: float, load: float) -> None:
    simulated = Simulated(takes, a_pass=takes)
    assert simulated.at(0.6, 100 * takes + 5) == 1.0  # what can be done is done
    share = simulated.at(load, 100 * takes + 10)
    assert share * load == pytest.approx(1.0, abs=0.1)
    assert max(simulated.waits) <= max(4.01 * takes, 0.05 + 1.01 * takes)  # not the second that a burst may wait
    simulated.until(simulated.now + 10)
    assert simulated.at(0.6, 100 * takes + 5) == 1.0  # and it is over when it is over


def test_a_burst_waits_and_what_would_wait_longer_is_told_how_long() -> None:
    simulated = Simulated(0.02)
    simulated.at(0.9, 10)
    simulated.until(simulated.now + 5)
    let_in = [simulated.ask(simulated.now) for _ in range(100)]
    assert let_in == [True] * let_in.count(True) + [False] * let_in.count(False)
    assert 30 <= let_in.count(True) <= 51  # of a second's worth
    assert simulated.pace.arrived() == 1
    slow = Simulated(1.5)
    slow.at(1.0, 60)
    assert [slow.ask(slow.now) for _ in range(9)][-1] is False
    assert slow.pace.arrived() >= 4


def test_who_is_refused_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    whole = service(guard, keys_only=True)
    app = make_app(whole)
    whole.pace.inside, whole.pace.seconds = 10, 5.0
    with Asking(app) as asking:
        for path, method, status in (
            ("/predict", "POST", 429), ("/v2/models/net/infer", "POST", 429), ("/v2/models/other/infer", "POST", 429),
            ("/predict", "GET", 405), ("/v2/health/ready", "GET", 200), ("/x", "POST", 404),
        ):  # fmt: skip
            reply = asking.ask(method, path, [], {**JSON, "x-api-key": "wrong"})  # who reads on finds nobody there
            assert reply.status == status, path
            if status == 429:
                assert reply.headers["retry-after"] == "50"
                assert reply.json == {"error": "too much waits; send it again later"}
                assert reply.headers["x-content-type-options"] == "nosniff"
        assert 'signstep_guard_http_total{status="429"} 3.0' in asking.ask("GET", "/metrics", peer=HERE).body.decode()
        whole.pace.inside = 0
        assert asking.predict(odd(0.1)).status == 401


def test_a_large_body_is_read_aside_and_others_are_answered_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    read_one = json_value

    def waiting(content: bytes, *given: Any) -> Any:
        if len(content) > 100_000:
            reading.set()
            assert go_on.wait(60)
        return read_one(content, *given)

    monkeypatch.setattr("signstep.guard.bodies.json_value", waiting)
    plain = json.dumps({"inputs": odd(0.1).tolist()}).encode()
    with Asking(make_app(service(made(tmp_path / "guard.db")))) as asking:

        async def both(path: str, body: bytes) -> Any:
            reading.clear()
            go_on.clear()
            large = asyncio.create_task(asking._ask("POST", path, body + b" " * 200_000, JSON, "::1", 0.0))
            await asyncio.to_thread(reading.wait, 60)
            assert (await asking._ask("GET", "/v2/health/ready", b"", {}, "::1", 0.0)).status == 200
            assert (await asking._ask("POST", "/predict", plain, JSON, "::1", 0.0)).status == 200
            assert not large.done()
            go_on.set()
            return (await large).status

        for path, body in (("/predict", plain), (INFER, tensor())):
            assert asking.loop.run_until_complete(both(path, body)) == 200


def test_inputs_of_many_clients_share_passes(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    network: Any = guard.model.network
    with Asking(make_app(service(guard, rows=8, wait=0.2))) as asking:
        network.passes.clear()
        body = json.dumps({"inputs": odd(0.1).tolist()}).encode()
        replies = asking.many(*[("POST", "/predict", body, JSON, f"203.0.113.{n}", 0.0) for n in range(24)])
        assert [one.status for one in replies] == [200] * 24
        assert sum(network.passes) == 24
        assert len(network.passes) <= 6
        assert len(set(clients(guard))) == 24


def test_slow_and_large_bodies_are_given_up(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    with Asking(make_app(service(guard, Limits(body=1000, body_seconds=0.1)))) as asking:
        assert asking.ask("POST", "/predict", [b"{"] * 50, JSON, pause=0.05).status == 408
        assert asking.ask("POST", "/predict", [b"x" * 400] * 4, JSON).status == 413
        assert asking.ask("POST", "/predict", b"", {**JSON, "content-length": "999999999999"}).status == 413
        assert asking.ask("POST", "/predict", b"", {**JSON, "content-encoding": "gzip"}).status == 415
        assert asking.ask("POST", "/predict", [b"{"], JSON).status == 400


@pytest.mark.parametrize("path", ["/predict", INFER])
def test_all_large_bodies_together_are_bounded_and_small_ones_always_come_in(path: str, tmp_path: Path) -> None:
    """Five who never end a body of 100 KB, of which 36 KB count, where 150 KB may be held."""
    whole = service(made(tmp_path / "guard.db"), Limits(body=120_000, bodies=150_000))
    plain = tensor()
    usual = plain if path == INFER else json.dumps({"inputs": odd(0.1).tolist()}).encode()
    with Asking(make_app(whole)) as asking:

        async def fill() -> list[Any]:
            stopped = asyncio.Event()
            sent: list[list[dict[str, Any]]] = [[] for _ in range(5)]
            scope = {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
                "raw_path": path.encode(), "query_string": b"", "scheme": "http", "client": ("::1", 1), "root_path": "",
                "headers": [(b"content-type", b"application/json")], "server": ("guard", 80),
            }  # fmt: skip

            def one(number: int) -> Any:
                parts = [b" " * 50_000] * 2

                async def receive() -> dict[str, Any]:
                    if parts:
                        return {"type": "http.request", "body": parts.pop(), "more_body": True}
                    await stopped.wait()
                    return {"type": "http.disconnect"}

                async def send(message: dict[str, Any]) -> None:
                    sent[number].append(message)

                return asyncio.create_task(whole_app({**scope}, receive, send))

            whole_app = asking.app
            tasks = [one(number) for number in range(5)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            statuses = [reply[0]["status"] for reply in sent if reply]
            beside = await asking._ask("POST", path, usual, JSON, "::1", 0.0)
            large = await asking._ask("POST", path, usual + b" " * 100_000, JSON, "::1", 0.0)
            stopped.set()
            await asyncio.gather(*tasks)
            return [*statuses, beside.status, large]

        refused, beside, large = asking.loop.run_until_complete(fill())
        assert (refused, beside, large.status) == (429, 200, 429)
        assert large.headers["retry-after"] == "1"
        assert large.json == {"error": "too many large bodies are on their way; send it again later"}
        # Whoever left, was refused or was answered holds nothing.
        for _ in range(9):
            assert asking.ask("POST", path, [usual, b" " * 100_000], JSON).status == 200
            assert asking.ask("POST", path, [b" " * 119_999] * 2, JSON).status == 413
            assert asking.ask("POST", path, usual[:-1] + b" " * 100_000, JSON).status == 400


def test_an_answer_leaves_after_its_commit(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    commit = guard.store._commit

    def late(group: Any) -> None:
        time.sleep(0.3)  # an answer that did not wait would be here by now, and its decision not there
        commit(group)

    guard.store._commit = late  # type: ignore[method-assign]
    with Asking(make_app(service(guard))) as asking:
        reply = asking.predict(odd(0.1))
        assert len(guard.store.read(guard.store.tables.log(ident=reply.json["id"]))) == 1


def test_who_gives_up_waiting_takes_nothing_with_him(tmp_path: Path) -> None:
    """A request that takes too long is told so, its decision is stored, and the next one is answered."""
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    commit, judge, wait = guard.store._commit, guard.judge, threading.Event()

    def late(group: Any) -> None:
        wait.wait(30)
        commit(group)

    guard.store._commit = late  # type: ignore[method-assign]
    with Asking(make_app(service(guard, Limits(seconds=0.2)))) as asking:
        reply = asking.predict(odd(0.1))
        assert (reply.status, int(reply.headers["retry-after"]) >= 1) == (503, True)
        wait.set()
        guard.store._commit = commit  # type: ignore[method-assign]
        assert asking.predict(odd(0.1)).status == 200
        assert len(clients(guard)) == 2

        def hanging(*given: Any) -> Any:
            wait.clear()
            wait.wait(0.5)
            return judge(*given)

        guard.judge = hanging  # type: ignore[method-assign, assignment]
        assert asking.predict(odd(0.1)).status == 503
        guard.judge = judge  # type: ignore[method-assign]
        assert asking.predict(odd(0.1)).status in (200, 503)


def test_a_full_disk_leaves_answers_and_shows_in_the_numbers(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    guard.store.engine.begin = broken  # type: ignore[method-assign, assignment]
    with Asking(make_app(service(guard))) as asking:
        assert asking.predict(odd(0.1)).status == 200
        numbers = asking.ask("GET", "/metrics", peer=HERE).body.decode()
        assert "signstep_guard_store_failing 1.0" in numbers
        assert "signstep_guard_store_lost 1.0" in numbers


def test_clients_are_never_labels(asking: Asking) -> None:
    for number in range(5):
        asking.predict(odd(0.95), peer=f"198.51.100.{number}")
        asking.ask("POST", "/predict", b"{", {**JSON, "x-api-key": 'evil"} 1\nsignstep_guard_alarms{x="'})
    numbers = asking.ask("GET", "/metrics", peer=HERE).body.decode()
    assert "198.51.100" not in numbers
    assert "evil" not in numbers
    for name, labels in LABELS.items():
        lines = [line for line in numbers.splitlines() if line.startswith(f"{name}_total")]
        assert len(lines) <= 12
        assert all(line.count('="') == len(labels) for line in lines)


def test_logs_hold_no_lines_of_clients(asking: Asking, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "signstep.guard")
    asking.ask("POST", "/predict", b"{", {**JSON, "traceparent": "00-evil\nERROR alarm\x1b[2J"})
    good = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    asking.ask("POST", "/predict", b"{", {**JSON, "traceparent": good})
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["answered 400 -", f"answered 400 {good}"]


def test_what_is_no_http_writes_no_line_of_the_log() -> None:
    """Whoever likes to could fill a disk with them."""
    config = server(None, Limits()).config
    lines: list[logging.LogRecord] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record)

    keeper = Keeper(logging.WARNING)
    log = logging.getLogger("uvicorn.error")
    log.addHandler(keeper)

    async def talk() -> bytes:
        config.load()
        protocol: Any = config.http_protocol_class
        state = ServerState()
        listening = await asyncio.get_running_loop().create_server(
            lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1"
        )
        async with listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
            said = await reader.read()
            writer.close()
        return said

    try:
        assert asyncio.run(talk()).startswith(b"HTTP/1.1 400 ")
    finally:
        log.removeHandler(keeper)
    assert lines == []


PATHS = [
    *("/v2/models/../../etc/passwd", "/v2/models/%2e%2e/infer", "/predict/", "/predict%00", "/../guard.db"),
    *("/guard.db", "/v2/models/net%0d%0aX: y/infer", "//evil.example/predict", "/docs", "/redoc", "/ui/../predict"),
]


def test_no_path_leads_elsewhere(asking: Asking) -> None:
    for path in PATHS:
        for method in ("GET", "POST", "DELETE", "TRACE"):
            reply = asking.ask(method, path, b"{}", JSON)
            assert reply.status in (307, 400, 404, 405), (method, path)
            assert "evil" not in reply.headers.get("location", "")


def test_every_answer_has_the_headers_that_keep_browsers_still(asking: Asking) -> None:
    for reply in (asking.predict(odd(0.1)), asking.ask("GET", "/v2"), asking.ask("GET", "/metrics", peer=HERE)):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_what_waits_is_answered_at_the_end(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db", Rules())
    made_service = service(guard, rows=2, wait=0.01)
    with Asking(make_app(made_service)) as asking:

        async def ask_and_leave() -> list[Any]:
            body = json.dumps({"inputs": odd(0.1).tolist()}).encode()
            asked = [asyncio.create_task(asking._ask("POST", "/predict", body, JSON, "::1", 0.0)) for _ in range(10)]
            while made_service.batcher is None or not made_service.batcher.depth:
                await asyncio.sleep(0.001)
            made_service.started = False
            return list(await asyncio.gather(*asked))

        replies = asking.loop.run_until_complete(ask_and_leave())
        assert {reply.status for reply in replies} <= {200, 503}
        assert 200 in {reply.status for reply in replies}
        assert asking.ask("GET", "/v2/health/ready").status == 503
        late = asking.predict(odd(0.1))
        assert (late.status, late.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("wrong", [{"body": 0}, {"rows": 300}, {"rate": -1.0}, {"pixels": -5}, {"bodies": 2**20}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ss.SignstepError):
        Limits(**wrong)
    with pytest.raises(ss.SignstepError):
        Proxies.of(["10.0.0.0/8"], "")
    with pytest.raises(ss.SignstepError):
        Proxies.of(["everywhere"], "x-forwarded-for")


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\0", "\u202e", "\r\nset-cookie: a=b", "é", '"'])
def test_whatever_id_a_client_sends_comes_back_as_it_was(text: str, asking: Asking) -> None:
    reply = asking.ask("POST", INFER, tensor(id=text), JSON)
    assert (reply.status, reply.json["id"]) == (200, text)
    assert all(32 <= byte < 127 for byte in reply.body)
    assert "set-cookie" not in reply.headers


def test_no_answer_leads_to_a_host_that_the_request_names(asking: Asking) -> None:
    for method, path in (("GET", "/v2/"), ("POST", "/predict/"), ("GET", "//elsewhere.example/v2/"), ("GET", "/v2//")):
        reply = asking.ask(method, path, headers={"host": "elsewhere.example"})
        assert (reply.status, reply.headers.get("location")) == (404, None)


def test_no_page_of_another_site_asks_in_its_visitors_name(asking: Asking, guard: Guard) -> None:
    """A browser sends what a form can send and does not ask the service; the visitor would be the attacker."""
    forms = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "")
    for kind in forms:
        for site in ("cross-site", "same-site", "Cross-Site"):
            for path in ("/predict", INFER):
                assert asking.ask("POST", path, tensor(), {"content-type": kind, "sec-fetch-site": site}).status == 415
    assert clients(guard) == []
    for more in ({"content-type": "text/plain"}, {**JSON, "sec-fetch-site": "same-site"}, {"sec-fetch-site": "none"}):
        assert asking.ask("POST", INFER, tensor(), more).status == 200
