"""The address of an endpoint: https, or http on this machine, with nothing secret in it."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from signstep.errors import InputError
from signstep.messages import Arg, Key
from signstep.plain import one_line

SCHEMES = ("https://", "http://")
_LONGEST = 2000


@dataclass(frozen=True)
class Address:
    """Where requests go.

    Attributes:
        url: with neither user, query nor fragment; what messages and records say.
        host: of it.
        loopback: whether it is this machine.
    """

    url: str
    host: str
    loopback: bool

    @classmethod
    def of(cls, url: str) -> "Address":
        """Read an address.

        Raises:
            InputError: it is none, says a secret (a password, a query), or would send one in the clear.
        """
        if not url.startswith(SCHEMES):
            raise InputError(Arg("url", url), remedy="pass an address that begins with http:// or https://")
        shown = bare(url)
        if "@" in url:  # wherever it stands: a password may have any characters
            raise InputError(
                f"the address {shown} has a user or a password before an @, which records would repeat",
                remedy=("write it as a header in the file of", Arg("endpoint"), ", Authorization = 'Basic $NAME'"),
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise _none(url) from error
        del port
        if parts.query or parts.fragment or url.endswith(("?", "#")):
            raise InputError(
                f"the address {shown} has a query or a fragment, which records would repeat",
                remedy=("write it under [query] of the file of", Arg("endpoint"), ", with $NAME for what is secret"),
            )
        if not host or len(url) > _LONGEST or not url.isascii() or re.search(r"[\x00-\x20\x7f\"<>\\^`{|}]", url):
            raise _none(url)
        here = is_loopback(host)
        if parts.scheme == "http" and not here:
            raise InputError(
                f"{shown} is not encrypted: whoever is on the way reads the headers and changes the answers",
                remedy="pass its https:// address; http:// is for this machine (127.0.0.1, localhost)",
            )
        return cls(url, host, here)

    def full(self, query: dict[str, str]) -> str:
        """The address that is asked, with its query."""
        return f"{self.url}?{urlencode(query)}" if query else self.url


def bare(url: str) -> str:
    """An address without whatever in it may be secret, for messages: scheme, host and path."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    rest = re.split(r"[?#]", rest.rpartition("@")[2], maxsplit=1)[0]
    return one_line(f"{scheme}{mark}{rest}")[:200]


def refuse_secrets(text: str) -> None:
    """See that no address in a text that a person typed has something secret in it, before messages repeat the text.

    Raises:
        InputError: one has.
    """
    found = re.search(r"https?://\S*", text)
    if found and re.search("[@?#]", found[0]):
        Address.of(found[0])


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _none(url: str) -> InputError:
    return InputError(f"{bare(url)} is no address that can be asked", remedy="write https://host/path, in ASCII")


def header(name: str, value: str) -> None:
    """See that a header can be sent, and is none that the protocol itself needs.

    Raises:
        InputError: it cannot; its value is not said.
    """
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", name) or name.lower() in _OWN:
        raise InputError(Key("headers"), f"has {one_line(name)!r}", remedy="name a header that the API asks for")
    if not value.isascii() or not value.isprintable() or len(value) > 2**14:
        raise InputError(
            Key(f"headers.{name}"),
            "has characters that no header has",
            remedy="write printable ASCII, in one line; is the environment variable what it should be?",
        )


_OWN = ("host", "content-length", "transfer-encoding", "connection", "content-type", "accept-encoding")
