"""The pages: who sees them, what they show of others' text, and a review from end to end in a browser."""

import base64
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guard_bench import Asking, made, odd, service

from signstep.guard.app import make_app
from signstep.guard.bodies import Limits
from signstep.guard.guard import Guard
from signstep.guard.identity import Proxies, new_key, revoke
from signstep.guard.reading import export
from signstep.guard.rows import Decided
from signstep.guard.serving import server
from signstep.guard.ui import COOKIE, add_ui

pytest.importorskip("fastapi")
sys.path.append(str(Path(__file__).parent.parent / "report"))
import headless_chromium

sys.path.pop()
PAGES = ("/ui", "/ui/queue", "/ui/clients", "/ui/alarms", "/ui/health")
EVIL = "<script>alert(1)</script>"


def app_of(guard: Guard) -> Any:
    assert guard.store is not None
    whole = service(guard)
    app = make_app(whole)
    add_ui(app, whole, guard.store)
    return app


def entered(asking: Asking, key: str) -> dict[str, str]:
    reply = asking.ask("POST", "/ui/enter", f"key={key}".encode())
    assert reply.status == 303
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert key not in cookie
    return {"cookie": cookie.partition(";")[0]}


def test_pages_show_themselves_to_persons_alone(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    person, client = new_key(guard.store, "alice", "person"), new_key(guard.store, "shop")
    with Asking(app_of(guard)) as asking:
        held = asking.predict(odd(0.85)).json["id"]
        everything = (*PAGES, f"/ui/decision/{held}", f"/ui/input/{held}.png")
        for path in everything:
            for cookie in ({}, {"cookie": f"{COOKIE}=nonsense"}):
                reply = asking.ask("GET", path, headers=cookie)
                assert reply.status == 401, path
                assert held not in reply.body.decode()
        for key in (client, "nonsense", "", person[:-1]):
            assert asking.ask("POST", "/ui/enter", f"key={key}".encode()).status == 403
        session = entered(asking, person)
        for path in everything:
            reply = asking.ask("GET", path, headers=session)
            assert reply.status == 200, path
            assert "script-src 'self'" in reply.headers["content-security-policy"]
            assert "unsafe" not in reply.headers["content-security-policy"]
        assert asking.ask("GET", f"/ui/input/{held}.png", headers=session).body.startswith(b"\x89PNG")
        # No form counts without the token that the page has.
        for body in (b"", b"token=nonsense&label=1", b"label=1"):
            assert asking.ask("POST", f"/ui/review/{held}", body, session).status == 403
        page = asking.ask("GET", "/ui/queue", headers=session).body.decode()
        token = re.search(r'name="token" value="([^"]+)"', page)
        assert token is not None
        for label in ("-1", "1e5", "x", "9" * 12):
            body = f"token={token[1]}&label={label}".encode()
            assert asking.ask("POST", f"/ui/review/{held}", body, session).status == 403
        done = asking.ask("POST", f"/ui/review/{held}", f"token={token[1]}&label=1".encode(), session)
        assert (done.status, done.headers["location"]) == (303, "/ui/queue")
        (row,) = [Decided.of(row) for row in guard.store.read(guard.store.tables.log(ident=held))]
        assert (row.queue, row.reviewed, row.reviewer) == ("done", 1, f"key {person.split('_')[1]}")
        assert export(guard.store, tmp_path / "reviewed.npz") == 1
        asking.ask("POST", "/ui/leave", f"token={token[1]}".encode(), session)
        assert asking.ask("GET", "/ui", headers=session).status == 401


def test_the_cookie_is_for_https_alone_where_the_browser_came_by_it(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    key = new_key(guard.store, "alice", "person")
    ours, form = Proxies.of(["10.0.0.0/8"], "x-forwarded-for"), f"key={key}".encode()
    cases: list[tuple[dict[str, Any], str, bool]] = [
        ({}, "10.1.1.1", True),
        ({}, "203.0.113.9", False),
        ({"secure_cookie": True}, "203.0.113.9", True),
    ]
    for offered, peer, secure in cases:
        whole = service(guard, proxies=ours, **offered)
        app = make_app(whole)
        add_ui(app, whole, guard.store)
        asking = Asking(app)  # not begun: the store outlives it
        reply = asking.ask("POST", "/ui/enter", form, {"x-forwarded-proto": "https"}, peer)
        assert ("secure" in reply.headers["set-cookie"].lower().split("; ")) == secure
        asking.loop.run_until_complete(asking.loop.shutdown_default_executor())
        asking.loop.close()
    guard.close()


def test_whatever_others_wrote_stays_text(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    person = new_key(guard.store, EVIL, "person")
    guard.names[0] = f'"><img src=x onerror=alert(1)>{EVIL}'
    bright = odd(0.85)
    bright[:] = 0.85
    answer = guard(bright, client=f"{EVIL}\x1b[2J\u202e' OR 1=1")
    with Asking(app_of(guard)) as asking:
        session = entered(asking, person)
        for path in (*PAGES, f"/ui/decision/{answer.id}", f"/ui/decision/{EVIL}", "/ui/decision/%22%3E%3Cb%3E"):
            text = asking.ask("GET", path, headers=session).body.decode()
            assert "<script>alert" not in text
            assert "onerror=alert(1)>" not in text.replace("onerror=alert(1)&gt;", "")
            assert "\x1b" not in text
            assert "\u202e" not in text
        assert "&lt;script&gt;alert(1)" in asking.ask("GET", "/ui", headers=session).body.decode()


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The application behind a socket of this machine."""
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    whole = server(app, Limits(body_seconds=0.5), port=0)
    thread = threading.Thread(target=whole.run, kwargs={"sockets": [free]})
    thread.start()
    while not whole.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{free.getsockname()[1]}"
    finally:
        whole.should_exit = True
        thread.join()


def test_a_connection_that_trickles_its_head_is_left_and_others_are_answered(tmp_path: Path) -> None:
    with running(app_of(made(tmp_path / "guard.db"))) as url:
        port = int(url.rpartition(":")[2])
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for one in slow:
            one.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
        with socket.create_connection(("127.0.0.1", port)) as quick:
            quick.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert quick.recv(100).startswith(b"HTTP/1.1 200")
        for one in slow:
            one.settimeout(30)
            assert one.recv(1000) == b""  # closed, without an answer
            one.close()


@pytest.mark.skipif(headless_chromium.FOUND is None, reason="Chromium is not installed (apt: chromium)")
def test_a_flagged_image_is_reviewed_in_a_browser(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    person = new_key(guard.store, "alice", "person")
    bright = odd(0.85)
    bright[0, 0, 1:] = 0.9
    ids = [guard(x, client=EVIL).id for x in (odd(0.85), bright)]
    with running(app_of(guard)) as url, headless_chromium.browser(tmp_path / "profile") as tab:

        def visit(path: str, width: int = 390, *, dark: bool = False) -> None:
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
            tab.call("Emulation.setEmulatedMedia", media="", features=[scheme])
            wait(lambda: tab.call("Page.navigate", url=f"{url}{path}"))

        def wait(act: Any) -> None:
            tab.events.clear()
            act()
            tab._until("Page.loadEventFired")

        def key(letter: str) -> None:
            for kind in ("keyDown", "keyUp"):
                tab.call("Input.dispatchKeyEvent", type=kind, key=letter, text=letter if kind == "keyDown" else "")

        def refused() -> list[str]:
            return [text for text in tab.complaints() if not text.startswith(f"request for {url}/")]

        visit("/ui")
        tab.value(f"document.getElementById('key').value = '{person}'")
        wait(lambda: tab.value("document.querySelector('main form').submit()"))
        assert tab.value("document.querySelector('h1').innerText") == "Decisions"
        for path in PAGES:
            for width, dark in ((390, False), (1200, True)):
                visit(path, width, dark=dark)
                assert refused() == [], path
                assert tab.value("document.documentElement.scrollWidth") <= width, path
                # No cell is so narrow that its words are broken letter by letter.
                cells = "[...document.querySelectorAll('td')].map(cell => cell.getBoundingClientRect().width)"
                assert min(tab.value(f"{cells}.filter(wide => wide > 0)"), default=99) >= 80, path
        tab.value("window.alert = () => { window.alerted = true }")
        visit("/ui/queue")
        assert tab.value("document.getElementById('waiting').innerText") == "2"
        assert tab.value("document.getElementById('decision').innerText") == ids[1]
        assert EVIL in tab.value("document.getElementById('answer').innerText")
        assert EVIL in tab.value("document.querySelector('main').innerText")
        assert tab.value("window.alerted") is None
        assert tab.value("[...document.images].map(image => image.naturalWidth)") == [4, 4]
        wait(lambda: key("a"))
        assert tab.value("document.getElementById('waiting').innerText") == "1"
        assert tab.value("document.getElementById('decision').innerText") == ids[0]
        wait(lambda: key("r"))
        assert tab.value("document.getElementById('none').innerText") == "The queue is empty."
        tab.picture(tmp_path / "queue.png")
        assert (tmp_path / "queue.png").read_bytes().startswith(base64.b64decode("iVBORw0KGgo="))
    rows = {row["id"]: row for row in guard_rows(tmp_path)}
    assert [(rows[ident]["queue"], rows[ident]["reviewed"]) for ident in ids] == [("done", None), ("done", 1)]


def guard_rows(folder: Path) -> list[dict[str, Any]]:
    import sqlite3

    with sqlite3.connect(folder / "guard.db") as opened:
        opened.row_factory = sqlite3.Row
        rows = [dict(row) for row in opened.execute("select * from guard_decisions")]
    opened.close()
    return rows


def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    keys = {name: new_key(guard.store, name, "person") for name in ("alice", "bob")}
    app = app_of(guard)
    with Asking(app) as asking:
        held = asking.predict(odd(0.85)).json["id"]
        sessions = {name: entered(asking, key) for name, key in keys.items()}
        page = asking.ask("GET", "/ui/queue", headers=sessions["alice"]).body.decode()
        token = re.search(r'name="token" value="([^"]+)"', page)
        assert token is not None
        revoke(guard.store, keys["alice"].split("_")[1])
        app.state.service.keys._known.clear()  # a few seconds later
        for path in (*PAGES, f"/ui/decision/{held}", f"/ui/input/{held}.png"):
            assert asking.ask("GET", path, headers=sessions["alice"]).status == 401, path
        body = f"token={token[1]}&label=1".encode()
        assert asking.ask("POST", f"/ui/review/{held}", body, sessions["alice"]).status == 403
        assert asking.ask("GET", "/ui", headers=sessions["bob"]).status == 200


def test_no_form_of_another_site_counts(tmp_path: Path) -> None:
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    person = new_key(guard.store, "mallory", "person")
    with Asking(app_of(guard)) as asking:
        held = asking.predict(odd(0.85)).json["id"]
        session = entered(asking, person)
        page = asking.ask("GET", "/ui/queue", headers=session).body.decode()
        token = re.search(r'name="token" value="([^"]+)"', page)
        assert token is not None
        foreign = {"sec-fetch-site": "cross-site", "origin": "https://elsewhere.example"}
        form = {"content-type": "application/x-www-form-urlencoded"}
        for path, body in (
            ("/ui/enter", f"key={person}"),  # its visitor would work in somebody else's name
            ("/ui/leave", f"token={token[1]}"),
            (f"/ui/review/{held}", f"token={token[1]}&label=1"),
        ):
            reply = asking.ask("POST", path, body.encode(), {**session, **form, **foreign})
            assert (reply.status, reply.headers.get("set-cookie")) == (403, None), path
        own = {**session, **form, "sec-fetch-site": "same-origin"}
        # A label that is no class of the model does not reach what is exported.
        assert asking.ask("POST", f"/ui/review/{held}", f"token={token[1]}&label=2".encode(), own).status == 403
        assert asking.ask("POST", f"/ui/review/{held}", f"token={token[1]}&label=1".encode(), own).status == 303
