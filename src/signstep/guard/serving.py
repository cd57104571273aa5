"""The application, run by uvicorn with bounds on slow and idle connections."""

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from signstep.errors import InputError, MissingExtraError
from signstep.guard.bodies import Limits
from signstep.messages import Arg

if TYPE_CHECKING:
    from uvicorn import Server


def refuse_host(host: str) -> None:
    """See that something can be listened at.

    Raises:
        InputError: it is neither an address nor localhost.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        if host != "localhost":
            raise InputError(Arg("host", host), remedy="pass an address such as 127.0.0.1, or localhost") from error


def server(app: Any, limits: Limits, *, host: str = "127.0.0.1", port: int = 8080, drain: float = 20.0) -> "Server":
    """A server, not yet running; ``server.run()`` runs it until SIGTERM or SIGINT, then answers what waits.

    Args:
        app: an ASGI application.
        limits: of connections, and of seconds for a request to arrive.
        host: to listen at.
        port: likewise; 0 for any.
        drain: seconds that requests have to end in after a signal.

    Raises:
        MissingExtraError: the extra guard is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("uvicorn", "guard") from error
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_patient(limits.body_seconds),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="error",  # a warning is written for each request that is none, as many as somebody likes to send
        access_log=False,
        proxy_headers=False,  # what a proxy says is read where the operator names it, and nowhere else
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(drain),
        h11_max_incomplete_event_size=16 * 2**10,
    )
    return uvicorn.Server(config)


def _patient(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which also leaves those that take longer for the head of a request."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Patient(H11Protocol):
        """Leaves a connection on which no whole head has come in time."""

        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
                # asyncio does so for sockets of its own. Else the second part of an answer waits for the client to
                # acknowledge the first, which it puts off for 40 ms.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._expect()

        def data_received(self, data: bytes) -> None:
            if self._idle():
                self._expect()
            super().data_received(data)
            if not self._idle():
                self._forget()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _expect(self) -> None:
            if self.late is None:
                self.late = asyncio.get_running_loop().call_later(seconds, self._leave)

        def _forget(self) -> None:
            if self.late is not None:
                self.late.cancel()
                self.late = None

        def _leave(self) -> None:
            self.late = None
            if self._idle() and not self.transport.is_closing():
                self.transport.close()

    return Patient
