"""Asking an endpoint one question: counted, paced, repeated where that may help, and given up with a reason."""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote, quote_plus

from signstep.errors import VictimError
from signstep.io.caps import current, how
from signstep.messages import Arg, Key, Part
from signstep.model.victims.address import Address
from signstep.model.victims.pace import Clock, Limits, Pace
from signstep.model.victims.wire import Reply, Silence, Wire
from signstep.plain import one_line

Answer = TypeVar("Answer")

_LATER = (408, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529)
_HIDDEN = "***"
_EXCERPT = 120
_SHORTEST = 4  # letters of a secret that is looked for in what others write


class Unreadable(Exception):  # noqa: N818
    """An answer that is none, in parts of a message."""

    def __init__(self, *parts: Part, remedy: Part | tuple[Part, ...]) -> None:
        super().__init__()
        self.parts = parts
        self.remedy = (remedy,) if isinstance(remedy, (str, Arg)) else tuple(remedy)


class Exchange:
    """Questions to one endpoint.

    Attributes:
        pace: what was spent.
        dead: the error it was given up with, or None.
        interrupted: whether somebody interrupted it.
        headers: of every request, secrets filled in.
        query: likewise.
    """

    def __init__(
        self,
        address: Address,
        limits: Limits,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self.address, self.limits = address, limits
        self.headers, self.query = dict(headers or {}), dict(query or {})
        self.pace = Pace(limits, clock)
        self.dead: VictimError | None = None
        self.interrupted = False
        self._secrets = sorted(
            {form for text in secrets if len(text) >= _SHORTEST for form in _forms(text)}, key=len, reverse=True
        )
        self._wire = Wire(address, method, limits.timeout)
        self._answered = False

    def ask(self, body: bytes, kind: str, read: Callable[[bytes], Answer]) -> Answer:
        """The answer to one question.

        A request is repeated where none or a passing trouble came back (no answer in time, HTTP 408, 425, 429, 5xx).
        What cannot be read is repeated only after an answer that could: before, the description is wrong, and nothing
        but money comes of asking again.

        Raises:
            VictimError: it has been given up.
        """
        if self.dead is not None:
            raise self.dead.with_traceback(None)
        said = ""
        for number in range(self.limits.retries + 1):
            self._afford(1)
            try:
                self.pace.take(again=number > 0)
                reply = self._wire.send(body, {"Content-Type": kind, **self.headers}, self.query)
                found, said, asked = self._read(reply, read)
                if found is not None:
                    self._answered = True
                    return found
                self._pause(number, asked, said)
            except Silence as error:
                said = self.hidden(str(error))
                if not error.again or (not error.reached and not self._answered):
                    raise self._gone(
                        f"{self.address.url} cannot be reached: {said}", remedy="check the address and the network"
                    ) from error
                self._interruptible_pause(number, None, said)
            except KeyboardInterrupt:
                raise self._interrupt() from None
        raise self._gone(
            f"{self.address.url} did not answer in {self.limits.retries + 1} attempts; the last one: {said}",
            remedy="ask it later, or slower (requests_per_second)",
        )

    def afford(self, requests: int) -> None:
        """See that so many requests may still be sent, before the first of a question that needs them all.

        Raises:
            VictimError: they may not; none was sent. A smaller question may still be asked.
        """
        if self.dead is not None:
            raise self.dead.with_traceback(None)
        self._afford(requests)

    def _afford(self, requests: int) -> None:
        left = self.pace.left
        if left is None or requests <= left:
            return
        needs = "" if left == 0 else f"; {requests} more are needed for the next question"
        raise VictimError(
            f"{self.address.url} was asked {self.pace.requests} times{needs}, and",
            Arg("max_requests", self.limits.max_requests),
            "allows no more",
            remedy=("raise it, or use fewer examples", Arg("limit")),
        )

    def _read(self, reply: Reply, read: Callable[[bytes], Answer]) -> tuple[Answer | None, str, str | None]:
        """The answer; or None, what came instead, and how long the server asks to wait."""
        if reply.status in _LATER:
            return None, self.hidden(reply.said), reply.headers.get("retry-after")
        if not 200 <= reply.status < 300:
            raise self._refused(reply)
        try:
            if len(reply.body) > (most := current().text):
                raise Unreadable(f"is longer than {most} bytes", remedy=how("text"))
            if _is_page(reply):
                raise Unreadable(
                    f"is an HTML page: {self._excerpt(reply.body)}",
                    remedy="pass the address of the API itself, not that of a page about it",
                )
            return read(reply.body), "", None
        except Unreadable as error:
            parts = [self.hidden(part) if isinstance(part, str) else part for part in error.parts]
            if not self._answered:
                raise self._gone(f"the answer of {self.address.url}", *parts, remedy=error.remedy) from error
            said = " ".join(str(part) for part in (VictimError(*parts, remedy="").text,))
            return None, f"an answer that {said}", None

    def _pause(self, number: int, asked: str | None, said: str) -> None:
        """Wait before the next attempt, where there is one.

        Raises:
            VictimError: the server asks for more than is waited.
        """
        if number == self.limits.retries:
            return
        seconds = self.pace.before_repetition(number + 1, asked)
        if seconds is None:
            wanted = self.hidden(one_line(asked or ""))[:60]
            raise self._gone(
                f"{self.address.url} asks to be left alone, Retry-After: {wanted} ({said}), "
                f"more than {self.limits.longest_wait:g} s",
                remedy=("come back then, or raise", Key("longest_wait")),
            )
        self.pace.wait(seconds)

    def _interruptible_pause(self, number: int, asked: str | None, said: str) -> None:
        try:
            self._pause(number, asked, said)
        except KeyboardInterrupt:
            raise self._interrupt() from None

    def _interrupt(self) -> VictimError:
        self.interrupted = True
        return self._gone("it was interrupted", remedy="run it again")

    def _refused(self, reply: Reply) -> VictimError:
        """The error for a status that no repetition changes."""
        url, said = self.address.url, self.hidden(one_line(reply.said))[:80]
        if reply.status in (401, 403, 407):
            names = ", ".join(self.headers) or "none"
            sent = f"the headers sent are {names}"
            return self._gone(f"{url} refuses who asks ({said}); {sent}", remedy=("correct", Key("headers")))
        if 300 <= reply.status < 400:
            there = self.hidden(_bare_location(reply.headers.get("location", "")))
            return self._gone(
                f"{url} sends elsewhere ({said}), to {there}, which is not followed: headers would go along",
                remedy="pass that address itself, if you trust it",
            )
        if reply.status in (404, 410):
            return self._gone(f"{url} has nothing there ({said})", remedy="check the address, its path above all")
        if reply.status in (402, 405, 413):
            key = {402: "price", 405: "request.method", 413: "request.batch"}[reply.status]
            what = {402: "wants to be paid", 405: "takes another method", 413: "takes less at once"}[reply.status]
            return self._gone(f"{url} {what} ({said})", remedy=("see", Key(key), "and the API's own pages"))
        return self._gone(
            f"{url} refused the request: {said}: {self._excerpt(reply.body)}",
            remedy=("compare what is sent,", Arg("dry_run", True), ", with what the API takes"),
        )

    def _excerpt(self, body: bytes) -> str:
        """The first of what a server said, with nothing secret in it."""
        text = self.hidden(body[: 4 * _EXCERPT].decode("utf-8", errors="replace"))
        return repr(one_line(" ".join(text.split()))[:_EXCERPT]) if text.strip() else "nothing"

    def hidden(self, text: str) -> str:
        """Text without secrets, whoever wrote it: servers repeat them."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text

    def _gone(self, *parts: Part, remedy: Part | tuple[Part, ...]) -> VictimError:
        self.dead = VictimError(*parts, remedy=remedy)
        return self.dead

    def revive(self) -> None:
        """Ask again after it had been given up; the bound on requests stays."""
        self.dead, self.interrupted = None, False


def _forms(secret: str) -> tuple[str, ...]:
    """A secret in the spellings in which a server may repeat it."""
    coded = b64encode(secret.encode()).decode()
    return secret, quote(secret), quote_plus(secret), coded, json.dumps(secret)[1:-1], repr(secret)[1:-1]


def _is_page(reply: Reply) -> bool:
    start = reply.body[:200].lstrip().lower()
    marked = "text/html" in reply.headers.get("content-type", "")  # which some servers say of JSON too
    return start.startswith((b"<!doctype html", b"<html")) or (marked and start.startswith(b"<"))


def _bare_location(location: str) -> str:
    """Where a redirect leads: host and path."""
    text = one_line(location)
    for mark in "?#":
        text = text.partition(mark)[0]
    head, scheme, rest = text.rpartition("://")
    return f"{head}{scheme}{rest.rpartition('@')[2]}"[:_EXCERPT] or "nowhere"
