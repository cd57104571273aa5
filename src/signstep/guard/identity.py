"""Who asks: the API key, else the address of the peer, else what a trusted proxy says. Never what a client may write.

Keys are random and long, so that a SHA-256 at rest is enough: there is nothing to guess. They are compared in constant
time, and a key that is not known is compared too.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from signstep.errors import InputError
from signstep.guard.store import Store
from signstep.messages import Arg
from signstep.plain import one_line

ROLES = ("client", "person", "metrics")
_KEY = re.compile(r"ss_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_NOBODY = hashlib.sha256(b"nobody").hexdigest()
_FRESH = 5.0  # seconds that a key is remembered, and a revoked one lives on
_MOST = 10_000
_READ = 2000  # characters of a header, from its end


@dataclass(frozen=True)
class Key:
    """A key at rest.

    Attributes:
        id: its public half, which names the client in log and alarms.
        hash: SHA-256 of its secret half.
        name: that its owner gave it.
        role: "client" asks, "person" also sees /ui and /metrics, "metrics" reads /metrics and does nothing else.
    """

    id: str
    hash: str
    name: str
    role: str


def new_key(store: Store, name: str, role: str = "client") -> str:
    """Make a key and keep its hash; the key is returned, and nobody can find it again.

    Raises:
        InputError: there is no such role.
    """
    if role not in ROLES:
        raise InputError(Arg("role", role), remedy=f"pass {' or '.join(ROLES)}")
    ident, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = {"id": ident, "hash": hashed(secret), "name": one_line(name)[:100], "role": role, "made": time.time()}
    store.change(store.tables.keys.insert().values(**row, revoked=None))
    return f"ss_{ident}_{secret}"


def revoke(store: Store, ident: str) -> bool:
    """Revoke a key by its id; whether there was one."""
    keys = store.tables.keys
    return (
        store.change(keys.update().where(keys.c.id == ident, keys.c.revoked.is_(None)).values(revoked=time.time())) > 0
    )


def hashed(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Keys:
    """The keys of a store, a few seconds fresh."""

    store: Store
    _known: dict[str, tuple[float, Key | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, text: str) -> Key | None:
        """The key that somebody shows, or None where it is none that counts."""
        found = _KEY.fullmatch(text)
        ident, secret = (found[1], found[2]) if found else ("", text[:200])
        key = self._kept(ident) if ident else None
        same = hmac.compare_digest(hashed(secret), _NOBODY if key is None else key.hash)
        return key if same else None

    def is_person(self, ident: str) -> bool:
        """Whether the key of an id counts, and is a person's."""
        key = self._kept(ident)
        return key is not None and key.role == "person"

    def _kept(self, ident: str) -> Key | None:
        now = time.monotonic()
        with self._lock:
            known = self._known.get(ident)
        if known is not None and now - known[0] < _FRESH:
            return known[1]
        keys = self.store.tables.keys
        rows = self.store.read(keys.select().where(keys.c.id == ident, keys.c.revoked.is_(None)))
        key = Key(*(str(rows[0][name]) for name in ("id", "hash", "name", "role"))) if rows else None
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[ident] = (now, key)
        return key


@dataclass(frozen=True)
class Proxies:
    """Whose word about a client's address counts.

    Attributes:
        networks: of the proxies.
        header: in which they say it, such as "x-forwarded-for"; "" trusts nobody.
    """

    networks: tuple[Any, ...] = ()
    header: str = ""

    @classmethod
    def of(cls, networks: Sequence[str], header: str) -> "Proxies":
        """Read addresses such as 10.0.0.0/8.

        Raises:
            InputError: one is none, or only one of the two is given.
        """
        if bool(networks) != bool(header):
            raise InputError(
                Arg("client_header", header), "and", Arg("trust_proxy", list(networks)), "go together",
                remedy="pass both, or neither",
            )  # fmt: skip
        if header and not re.fullmatch(r"[A-Za-z0-9-]{1,60}", header):
            raise InputError(Arg("client_header", header), "is no header", remedy="pass X-Forwarded-For, say")
        try:
            return cls(tuple(ipaddress.ip_network(one, strict=False) for one in networks), header.lower())
        except ValueError as error:
            raise InputError(
                Arg("trust_proxy", list(networks)), f"has what is no network ({error})", remedy="pass 10.0.0.0/8, say"
            ) from error

    def address(self, peer: str, headers: Mapping[str, str]) -> str:
        """The address of the client: the peer's, or where that is a proxy's, the last that no proxy of ours has.

        Whatever stands before that in the header was written by the client, or by whom it chose, and is not read.
        """
        here = _address(peer)
        if here is None or not self.header or not self._ours(here):
            return _named(here, peer)
        for text in reversed(_ending(headers.get(self.header, "")).split(",")):
            said = _address(text.strip())
            if said is None:
                break
            here = said
            if not self._ours(said):
                break
        return _named(here, peer)

    def secure(self, scheme: str, peer: str, headers: Mapping[str, str]) -> bool:
        """Whether the client came by https: to us, or to a proxy of ours, which says so in X-Forwarded-Proto.

        What is said there by somebody else is not read; the last word is that of the proxy that asks us.
        """
        if scheme == "https":
            return True
        here = _address(peer)
        if here is None or not self._ours(here):
            return False
        return _ending(headers.get("x-forwarded-proto", "")).rpartition(",")[2].strip().lower() == "https"

    def local(self, peer: str, headers: Mapping[str, str]) -> bool:
        """Whether somebody on this machine asks, and no proxy on it for somebody else."""
        here = _address(peer)
        return here is not None and here.is_loopback and not any(name in headers for name in (*_FORWARDED, self.header))

    def _ours(self, address: Any) -> bool:
        return any(address.version == one.version and address in one for one in self.networks)


def _ending(text: str) -> str:
    """Of what a proxy says the end, which is its own: what stands before may be as long as a client likes."""
    return text if len(text) <= _READ else text[-_READ:].partition(",")[2]


def _address(text: str) -> Any:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found


def _named(address: Any, peer: str) -> str:
    """As the client is called: an IPv6 one by its /64, of which one customer has all."""
    if address is None:
        return f"peer {one_line(peer)[:60]}"
    if address.version == 6:
        return f"ip {ipaddress.ip_network((address, 64), strict=False).network_address}/64"
    return f"ip {address}"
