"""The gate in front of everything else: whoever would wait too long is answered before the body of the request is read.

Refusing has to cost next to nothing, or else who is refused slows down who is answered: no route is looked for, no key,
no body, no JSON; the answer is made beforehand.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from signstep.guard.service import FULL, Service

_ASKED = re.compile(r"/predict|/v2/models/[^/]+/infer")
_BODY = b'{"error":"%s"}' % FULL.encode("ascii")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Gate:
    """An ASGI application that asks another one, or refuses.

    Args:
        app: that is asked.
        service: whose pace counts.
        headers: of a refusal, beside its own.
    """

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], service: Service, headers: Mapping[str, str]
    ) -> None:
        self._app, self._service = app, service
        known = {**headers, "content-type": "application/json", "content-length": str(len(_BODY))}
        self._headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in known.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        asks = scope["type"] == "http" and scope["method"] == "POST" and _ASKED.fullmatch(scope["path"]) is not None
        wait = self._service.pace.arrived() if asks else 0
        if not wait:
            await self._app(scope, receive, send)
            return
        again = (b"retry-after", b"%d" % wait)
        await send({"type": "http.response.start", "status": 429, "headers": [*self._headers, again]})
        await send({"type": "http.response.body", "body": _BODY})
        self._service.metrics.answered(429, 0.0)
