"""The pages of /ui: what a person works with. Rendered here, behind a key, under a strict policy, one small script.

A person shows a key once and gets a session: a random cookie that scripts and other sites cannot send, and a token that
every form repeats. Sessions live in this process, eight hours at most, and no longer than the key.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import numpy as np

from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.guard.bodies import Refused
from signstep.guard.facts import gathered
from signstep.guard.identity import Keys
from signstep.guard.pages import asset, rendered
from signstep.guard.reading import review, when
from signstep.guard.report import challenge_table, summary
from signstep.guard.rows import Array, Decided, unpacked
from signstep.guard.service import Service, refuse_foreign_page
from signstep.guard.standards import judged
from signstep.guard.store import Store
from signstep.model.victims.encoding import png

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
COOKIE = "signstep_guard"
_LIVES = 8 * 3600.0
_SESSIONS = 1000
_FORM = 4096
_SHOWN = 200


@dataclass(frozen=True)
class Session:
    """Somebody who showed the key of a person.

    Attributes:
        who: the id of the key.
        token: that every form repeats.
        ends: of the clock.
    """

    who: str
    token: str
    ends: float


@dataclass
class Sessions:
    """Those that are open, by their cookie.

    Attributes:
        keys: of the service.
    """

    keys: Keys | None
    _open: dict[str, Session] = field(default_factory=dict)

    def begin(self, who: str) -> str:
        """A new one; its cookie."""
        now = time.monotonic()
        self._open = {name: one for name, one in self._open.items() if one.ends > now}
        while len(self._open) >= _SESSIONS:
            del self._open[next(iter(self._open))]
        cookie = secrets.token_urlsafe(32)
        self._open[cookie] = Session(who, secrets.token_urlsafe(32), now + _LIVES)
        return cookie

    def of(self, cookie: str) -> Session | None:
        """The one of a cookie, while its key counts.

        Raises:
            LoadError: the store of the keys does not answer.
        """
        found = self._open.get(cookie)
        if found is None or found.ends <= time.monotonic() or self.keys is None:
            return None
        return found if self.keys.is_person(found.who) else None

    def end(self, cookie: str) -> None:
        """Forget one."""
        self._open.pop(cookie, None)


@dataclass
class Pages:
    """The pages, by the session that asks for them.

    Attributes:
        service: whose pages they are.
        store: of it.
    """

    service: Service
    store: Store

    def by_https(self, request: "Request") -> bool:
        """Whether the browser came by https, so that its cookie is for that alone."""
        peer = request.client.host if request.client else ""
        service = self.service
        return service.offered.secure_cookie or service.proxies.secure(request.url.scheme, peer, request.headers)

    def page(self, template: str, session: Session | None, status: int = 200, **given: Any) -> "Response":
        """A page; with the way to the others for those who have a session."""
        from fastapi.responses import HTMLResponse

        if session is not None:
            (sums,) = self.store.read(self.store.tables.sums())
            given |= {"nav": True, "waiting": sums["queue"] or 0, "token": session.token}
        return HTMLResponse(rendered(template, **given), status, HEADERS)

    def table(
        self, session: Session, title: str, heads: list[str], rows: list[list[Any]], lead: str = ""
    ) -> "Response":
        """A page with a table."""
        here = "overview" if title == "Decisions" else title.lower()
        return self.page(
            "list.html.j2", session, title=title, here=here, lead=lead, heads=heads, rows=rows, empty="None yet."
        )

    def overview(self, session: Session) -> "Response":
        """The last decisions."""
        rows = [_row(Decided.of(row)) for row in self.store.read(self.store.tables.log(limit=_SHOWN))]
        return self.table(
            session, "Decisions", ["Time", "Decision", "Client", "Answer", "p", "Decided", "Reasons"], rows
        )

    def queue(self, session: Session) -> "Response":
        """The decision of the queue that came last."""
        rows = self.store.read(self.store.tables.log(queue="open", limit=1))
        return self.decision(session, Decided.of(rows[0]) if rows else None, "Review", "The queue is empty.")

    def one(self, session: Session, ident: str) -> "Response":
        """One decision."""
        rows = self.store.read(self.store.tables.log(ident=ident, limit=1))
        return self.decision(session, Decided.of(rows[0]) if rows else None, "Decision", "There is no such decision.")

    def decision(self, session: Session, one: Decided | None, title: str, empty: str) -> "Response":
        """A decision, with what a person needs to judge it."""
        x = _input(one)
        answer = "none" if one is None or one.label is None else f"{one.name} ({one.label})"
        if one is not None and one.confidence is not None:
            answer += f", {one.confidence:.1%}"
        return self.page(
            "decision.html.j2",
            session,
            title=title,
            here="queue" if title == "Review" else "",
            one=one,
            empty=empty,
            picture=x is not None and _is_picture(x),
            numbers=[] if x is None or _is_picture(x) else _numbers(x, self.service.offered.wanted.fields),
            answer=answer,
            time="" if one is None else when(one.at),
            reviewed="" if one is None else f"label {one.reviewed}, by {one.reviewer}",
            classes=[*self.service.guard.model.classes][:1000],
        )

    def picture(self, ident: str, *, squeezed: bool) -> "Response":
        """An input as a picture."""
        from fastapi import Response

        rows = self.store.read(self.store.tables.log(ident=ident, limit=1))
        x = _input(Decided.of(rows[0])) if rows else None
        if x is None or not _is_picture(x):
            return Response("none", 404, HEADERS)
        return Response(png(_pixels(x, squeezed=squeezed)), 200, HEADERS, "image/png")

    def clients(self, session: Session) -> "Response":
        """Clients, by suspicion."""
        watch = self.service.guard.watch
        rows = [
            [
                row["client"],
                row["inputs"],
                row["flagged"],
                row["low"],
                f"{watch.suspicion(row['client']):.0%}",
                watch.alarm_of(row["client"]) or "",
                when(row["last"]),
            ]
            for row in self.store.read(self.store.tables.clients(_SHOWN))
        ]
        heads = ["Client", "Inputs", "Flagged", "Unsure", "Way to an alarm", "Under alarm", "Last"]
        return self.table(session, "Clients", heads, rows, "Those most often flagged first.")

    def alarms(self, session: Session) -> "Response":
        """The last alarms."""
        rows = [
            [when(row["at"]), row["kind"], row["client"] or "all", row["text"], _link(row["decision"])]
            for row in self.store.read(self.store.tables.alarm_log(limit=_SHOWN))
        ]
        return self.table(session, "Alarms", ["Time", "Kind", "Client", "What", "Decision"], rows)

    def health(self, session: Session) -> "Response":
        """Whether calibration, store and refusing are well, and the last challenge."""
        facts, guard = gathered(self.store), self.service.guard
        state = [
            ("Store", self.store.failing or f"stores; {self.store.lost} decisions were lost"),
            ("Refusing", f"stopped: {', '.join(guard.held)}" if guard.held else "goes on"),
        ]
        return self.page(
            "health.html.j2",
            session,
            title="Health",
            here="health",
            facts=[*summary(facts), *state],
            table=challenge_table(facts),
            lines=judged(facts),
        )


def add_ui(app: "FastAPI", service: Service, store: Store) -> None:
    """Put the pages into an application.

    Raises:
        MissingExtraError: the extra guard is not installed.
    """
    try:
        from fastapi import Request, Response
        from fastapi.responses import HTMLResponse
    except ImportError as error:
        raise MissingExtraError("fastapi", "guard") from error
    sessions, pages = Sessions(service.keys), Pages(service, store)

    async def shown(request: Request, make: Callable[[Session], Response]) -> Response:
        try:
            session = await asyncio.to_thread(sessions.of, request.cookies.get(COOKIE, ""))
            if session is None:
                return pages.page("login.html.j2", None, 401, title="Enter", wrong=False)
            return await asyncio.to_thread(make, session)
        except LoadError:
            return HTMLResponse("The store cannot be read.", 503, HEADERS)

    for path, make in (
        ("/ui", pages.overview),
        ("/ui/queue", pages.queue),
        ("/ui/clients", pages.clients),
        ("/ui/alarms", pages.alarms),
        ("/ui/health", pages.health),
    ):

        async def listed(request: Request, make: Callable[[Session], Response] = make) -> Response:
            return await shown(request, make)

        _show(app, path, listed)

    async def decision(request: Request) -> Response:
        return await shown(request, lambda session: pages.one(session, request.path_params["ident"]))

    async def picture(request: Request) -> Response:
        squeezed = "squeezed" in request.query_params
        return await shown(request, lambda _: pages.picture(request.path_params["ident"], squeezed=squeezed))

    _show(app, "/ui/decision/{ident}", decision)
    _show(app, "/ui/input/{ident}.png", picture)
    for name, kind in (("style.css", "text/css"), ("keys.js", "text/javascript")):
        _show(app, f"/ui/{name}", _static(name, kind))
    _add_forms(app, pages, sessions)


def _show(app: "FastAPI", path: str, answer: Any) -> None:
    """A page that is no part of the API: by Starlette, which reads nothing out of a signature."""
    app.router.add_route(path, answer, methods=["GET"], include_in_schema=False)


def _add_forms(app: "FastAPI", pages: Pages, sessions: Sessions) -> None:
    """What is sent by forms: entering, leaving, reviewing."""
    from fastapi import Request, Response
    from fastapi.responses import HTMLResponse, RedirectResponse

    keys, store = pages.service.keys, pages.store

    def away(path: str) -> Response:
        return RedirectResponse(path, 303, HEADERS)

    async def posted(request: Request) -> tuple[Session | None, dict[str, str]]:
        """The session, if the form repeats its token, and the form.

        Raises:
            LoadError: the store of the keys does not answer.
        """
        form = await _form(request)
        session = await asyncio.to_thread(sessions.of, request.cookies.get(COOKIE, ""))
        same = session is not None and hmac.compare_digest(form.get("token", "").encode(), session.token.encode())
        return (session if same else None), form

    async def reviewed(request: Request) -> Response:
        try:
            session, form = await posted(request)
            label = form.get("label", "")
            if session is None or not (label == "" or _is_label(label, len(pages.service.guard.model.classes))):
                return HTMLResponse("This form is too old, or was changed.", 403, HEADERS)
            ident = request.path_params["ident"]
            await asyncio.to_thread(review, store, ident, int(label) if label else None, f"key {session.who}")
        except LoadError:
            return HTMLResponse("The store cannot be written.", 503, HEADERS)
        return away("/ui/queue")

    async def enter(request: Request) -> Response:
        form = await _form(request)
        try:
            key = None if keys is None else await asyncio.to_thread(keys.of, form.get("key", ""))
        except LoadError:
            return HTMLResponse("The store cannot be read.", 503, HEADERS)
        if key is None or key.role != "person":
            return pages.page("login.html.j2", None, 403, title="Enter", wrong=True)
        answer, secure = away("/ui"), pages.by_https(request)
        cookie = sessions.begin(key.id)
        answer.set_cookie(
            COOKIE, cookie, max_age=int(_LIVES), path="/ui", secure=secure, httponly=True, samesite="strict"
        )
        return answer

    async def leave(request: Request) -> Response:
        with suppress(LoadError):
            session, _ = await posted(request)
            if session is not None:
                sessions.end(request.cookies.get(COOKIE, ""))
        answer = away("/ui")
        answer.delete_cookie(COOKIE, path="/ui")
        return answer

    for path, answer in (("/ui/review/{ident}", reviewed), ("/ui/enter", enter), ("/ui/leave", leave)):
        app.router.add_route(path, _of_this_site(answer), methods=["POST"], include_in_schema=False)


def _of_this_site(answer: Callable[["Request"], Any]) -> Callable[["Request"], Any]:
    """The same for forms of our own pages; who enters by one of another site would work in somebody else's name."""
    from fastapi import Request, Response
    from fastapi.responses import HTMLResponse

    async def asked(request: Request) -> Response:
        try:
            refuse_foreign_page(request.headers)
        except Refused:
            return HTMLResponse("This form is of another site.", 403, HEADERS)
        said: Response = await answer(request)
        return said

    return asked


def _is_label(text: str, classes: int) -> bool:
    """Whether it is the number of a class, of so many where they are known."""
    known = text.isascii() and text.isdigit() and len(text) < 10
    return known and (not classes or int(text) < classes)


def _static(name: str, kind: str) -> Callable[["Request"], Any]:
    from fastapi import Request, Response

    async def served(_: Request) -> Response:
        return Response(asset(name), 200, HEADERS, kind)

    return served


async def _form(request: "Request") -> dict[str, str]:
    """The fields of a small form; empty of what is none."""
    whole = b""
    async for part in request.stream():
        whole += part
        if len(whole) > _FORM:
            return {}
    try:
        fields = parse_qs(whole.decode("ascii"), max_num_fields=10, keep_blank_values=True)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _row(one: Decided) -> list[Any]:
    label = "-" if one.label is None else f"{one.name} {one.confidence:.0%}" if one.confidence is not None else one.name
    p = "-" if one.p_value is None else f"{one.p_value:.3g}"
    why = "; ".join(reason.text for reason in one.reasons)
    return [when(one.at), _link(one.id), one.client, label, p, one.decided, why]


def _link(ident: str) -> Any:
    known = ident.isascii() and ident.isalnum()
    return {"to": f"/ui/decision/{ident}", "text": ident} if known else ident


def _input(one: Decided | None) -> Array | None:
    if one is None or one.input is None:
        return None
    try:
        return unpacked(one.input)
    except (LoadError, InputError):
        return None


def _is_picture(x: Array) -> bool:
    return x.ndim == 3 and x.shape[0] in (1, 3) and min(x.shape[1:]) > 1 and max(x.shape[1:]) <= 4096


def _pixels(x: Array, *, squeezed: bool) -> Array:
    """Levels (H, W) or (H, W, 3) of 8 bits, the ends of the input for black and white where it leaves [0, 1]."""
    plain = np.nan_to_num(np.asarray(x, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = min(float(plain.min()), 0.0), max(float(plain.max()), 1.0)
    share = (plain - low) / (high - low)
    if squeezed:
        share = np.round(share * 7) / 7
    levels = np.round(share * 255).astype(np.uint8)
    return levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, -1))


def _numbers(x: Array, fields: tuple[str, ...]) -> list[tuple[str, str]]:
    flat = x.reshape(-1)[:_SHOWN]
    return [(fields[place] if place < len(fields) else str(place), f"{value:.6g}") for place, value in enumerate(flat)]
