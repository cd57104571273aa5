"""One request and its answer: no redirect is followed, TLS is verified, time and size are bounded."""

import select
import socket
import ssl
import time
import weakref
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from signstep.io.caps import current
from signstep.model.victims.address import Address

_PIECE = 2**16
_PROXY_PORT = 8080


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: such as 200.
        reason: its words.
        headers: by name in lower case.
        body: at most as long as the cap ``text``, and one byte more where it is longer.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> str:
        """The status, as people say it."""
        return f"HTTP {self.status} {self.reason}".rstrip()


class Silence(Exception):  # noqa: N818
    """No answer came.

    Attributes:
        again: whether one may come later.
        reached: whether somebody was there.
    """

    def __init__(self, reason: str, *, again: bool, reached: bool = True) -> None:
        super().__init__(reason)
        self.again, self.reached = again, reached


class Wire:
    """Sends requests to one address, over one connection as long as the server keeps it open.

    Args:
        address: where to.
        method: such as "POST".
        timeout: seconds that a request may take.
    """

    def __init__(self, address: Address, method: str, timeout: float) -> None:
        self.address, self.method, self.timeout = address, method, timeout
        self._open: list[HTTPConnection] = []
        weakref.finalize(self, _closed, self._open)

    def send(self, body: bytes, headers: Mapping[str, str], query: Mapping[str, str]) -> Reply:
        """Send one request, once, and read its answer, whatever its status.

        Raises:
            Silence: there was none.
        """
        ends = time.monotonic() + self.timeout
        parts = urlsplit(self.address.full(dict(query)))
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        done = False
        try:
            connection = self._connection()
            connection.request(self.method, path, body, {"Connection": "keep-alive", **headers})
            reply = self._read(connection.getresponse(), ends)
            done = True
        except (OSError, HTTPException) as error:
            raise _silence(error) from error
        finally:
            if not done:  # an interruption too leaves half an answer on the way
                self.close()
        return reply

    def close(self) -> None:
        """Leave the connection."""
        _closed(self._open)

    def _connection(self) -> HTTPConnection:
        """The one that is open; another where the server has closed it meanwhile."""
        if self._open and (self._open[0].sock is None or _readable(self._open[0].sock)):
            self.close()
        if not self._open:
            self._open.append(self._made())
            self._open[0].connect()
        return self._open[0]

    def _made(self) -> HTTPConnection:
        parts = urlsplit(self.address.url)
        host, port = self.address.host, parts.port
        if parts.scheme == "http":  # this machine, whatever proxies there are
            return HTTPConnection(host, port, timeout=self.timeout)
        context = ssl.create_default_context()
        proxy = None if self.address.loopback or proxy_bypass(host) else getproxies().get("https")
        if not proxy:
            return HTTPSConnection(host, port, timeout=self.timeout, context=context)
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        through = HTTPSConnection(via.hostname or "", via.port or _PROXY_PORT, timeout=self.timeout, context=context)
        who = f"{unquote(via.username)}:{unquote(via.password or '')}" if via.username else ""
        through.set_tunnel(
            host, port, {"Proxy-Authorization": f"Basic {b64encode(who.encode()).decode()}"} if who else {}
        )
        return through

    def _read(self, response: HTTPResponse, ends: float) -> Reply:
        # ``read1`` does not count down the length in every version of Python.
        most, whole, size, parts = current().text, response.length, 0, list[bytes]()
        while size <= most and (whole is None or size < whole):
            piece = response.read1(_PIECE if whole is None else min(_PIECE, whole - size))
            if not piece:
                break
            parts.append(piece)
            size += len(piece)
            if time.monotonic() > ends:  # each piece came in time, and all of them do not
                raise TimeoutError
        given = {name.lower(): value for name, value in response.headers.items()}
        if size > most or response.will_close:
            self.close()
        response.close()  # so that the connection takes the next request
        if whole is not None and size < whole and size <= most:
            raise IncompleteRead(b"", whole - size)
        return Reply(response.status, response.reason or "", given, b"".join(parts)[: most + 1])


def _closed(connections: list[HTTPConnection]) -> None:
    """Close what is open."""
    while connections:
        with suppress(OSError):
            connections.pop().close()


def _readable(there: socket.socket) -> bool:
    """Whether something has come without being asked for: the end of the connection, or what is no answer to us."""
    try:
        return bool(select.select([there], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def _silence(reason: Exception) -> Silence:
    """What a failure of the network means."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Silence(f"its certificate is not trusted ({reason.verify_message})", again=False, reached=False)
    if isinstance(reason, ssl.SSLError):
        return Silence(f"no encrypted connection can be made ({reason.reason or reason})", again=False, reached=False)
    if isinstance(reason, TimeoutError):
        return Silence("no answer in time", again=True)
    if isinstance(reason, ConnectionRefusedError):
        return Silence("nobody listens there (connection refused)", again=True, reached=False)
    if isinstance(reason, socket.gaierror):
        return Silence("there is no host of that name", again=True, reached=False)
    return Silence(f"the connection broke ({type(reason).__name__})", again=True)
