"""Alarms to one address: as JSON, from a thread of their own, with nothing followed and nothing lost in silence."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import signstep as ss
from signstep.guard.watch import Alarm
from signstep.guard.webhook import Webhook


class Taking(BaseHTTPRequestHandler):
    got: list[bytes] = []  # noqa: RUF012 - of one test
    status = 200

    def do_POST(self) -> None:
        self.got.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(self.status)
        self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Taking.got.clear()
    taking = HTTPServer(("127.0.0.1", 0), Taking)
    thread = threading.Thread(target=taking.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{taking.server_port}/hook"
    taking.shutdown()
    thread.join()
    taking.server_close()


@pytest.mark.parametrize(("status", "taken"), [(200, True), (500, False), (307, False)])
def test_alarms_are_posted_once(address: str, status: int, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Taking, "status", status)
    hook = Webhook(address)
    hook(Alarm("flags", 'ip 1.2.3.4"\r\nX: y', "\x1b[2J7 of 9", "abc"))
    hook.close()
    (body,) = Taking.got
    plain = json.loads(body)
    assert {name: plain[name] for name in ("kind", "decision")} == {"kind": "flags", "decision": "abc"}
    assert "\x1b" not in plain["text"]
    assert "\n" not in plain["client"]
    assert (hook.sent, hook.failed) == (int(taken), int(not taken))


def test_nobody_there_is_counted_and_no_address_is_refused() -> None:
    hook = Webhook("http://127.0.0.1:9/hook", timeout=1)
    hook(Alarm("flags", "a", "b"))
    hook.close()
    assert (hook.sent, hook.failed) == (0, 1)
    for wrong in ("http://example.com/hook", "ftp://x", "https://u:p@example.com/"):
        with pytest.raises(ss.SignstepError):
            Webhook(wrong)
