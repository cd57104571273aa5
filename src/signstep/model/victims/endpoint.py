"""A model behind an HTTP endpoint: batched, paced, bounded, and honest when it falls silent."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from signstep.errors import GradientError, InputError, ModelError
from signstep.io.documents import json_value
from signstep.messages import Arg
from signstep.model.victims.address import Address
from signstep.model.victims.arrays import Array, ArrayVictim
from signstep.model.victims.described import Description
from signstep.model.victims.encoding import plain_bytes
from signstep.model.victims.exchange import Exchange, Unreadable
from signstep.model.victims.pace import Clock, Limits, Spent

Encode = Callable[[Array], bytes]
Decode = Callable[[bytes], Any]

_KEPT = 2**25  # bytes of answers that are remembered, to see whether the endpoint changes its mind
_CLOSE = 1e-5  # relative, of two answers that are the same


class HttpVictim:
    """A model behind an endpoint, as a function from inputs (R, ...) to scores or labels.

    Once it has given up, or the bound on requests is reached, every further call raises at once; `revive` lets it try
    again.

    Attributes:
        batch: inputs of a request at most.
        levels: steps on which the endpoint sees an input, 255 for images of 8 bits; None where it sees the numbers.
        ends: what the first and the last of them stand for.
        described: the description it was made from, or None.
    """

    gradients: ClassVar[bool] = False

    def __init__(
        self,
        exchange: Exchange,
        encode: Callable[[Array], tuple[bytes, str]],
        decode: Callable[[bytes, int], Array],
        batch: int,
        *,
        levels: int | None = None,
        ends: tuple[float, float] = (0.0, 1.0),
        described: Description | None = None,
    ) -> None:
        self._exchange, self._encode, self._decode = exchange, encode, decode
        self.batch, self.levels, self.ends, self.described = batch, levels, ends, described
        self._arrays = ArrayVictim(self._ask, batch)
        self._said: OrderedDict[bytes, Array] = OrderedDict()
        self._size = self._contradictions = 0
        self._opening: Array | None = None

    @classmethod
    def of(cls, address: Address, described: Description, clock: Clock | None = None) -> "HttpVictim":
        """The endpoint of a description."""
        exchange = Exchange(
            address,
            described.limits,
            method=described.method,
            headers={"Accept": "application/json", "User-Agent": "signstep", **described.headers},
            query=described.query,
            secrets=described.secrets,
            clock=clock,
        )
        encoding = described.encoding
        return cls(
            exchange,
            encoding,
            described.answers,
            described.batch,
            levels=encoding.levels,
            ends=encoding.ends,
            described=described,
        )

    @property
    def exchange(self) -> Exchange:
        """What sends requests."""
        return self._exchange

    @property
    def address(self) -> str:
        """Its address, without anything secret."""
        return self._exchange.address.url

    @property
    def requests(self) -> int:
        """HTTP requests sent so far, repeated ones included."""
        return self._exchange.pace.requests

    @property
    def dead(self) -> str | None:
        """Why it has given up, or None."""
        return None if self._exchange.dead is None else str(self._exchange.dead)

    @property
    def interrupted(self) -> bool:
        """Whether it has given up because somebody interrupted it."""
        return self._exchange.interrupted

    def spent(self) -> Spent:
        """What has been asked so far."""
        pace, limits = self._exchange.pace, self._exchange.limits
        cost = None if limits.price is None else round(pace.requests * limits.price, 9)
        return Spent(
            pace.requests, pace.retries, pace.waited, limits.max_requests, cost, limits.currency, self._contradictions
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Scores (R, classes) or labels (R,) of a batch, in as many requests as its size needs.

        Raises:
            GradientError: the answer is to be differentiated; nothing was sent.
            VictimError: the endpoint did not answer usefully, however often it was asked, or may not be asked again.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise GradientError(
                f"{self.address} is asked and not differentiated: it has no gradients",
                remedy=("use square, nes or hop-skip-jump, which only ask, or pass", Arg("surrogate")),
            )
        self._exchange.afford(ceil(len(x) / self.batch))
        self._opening = None
        return self._arrays(x)

    def answers_differ(self) -> bool:
        """Whether it answers the first inputs of the last call otherwise when it is asked once more: one request.

        Raises:
            VictimError: see `__call__`.
        """
        if self._opening is None:
            return False
        before = self._contradictions
        known = hashlib.sha256(self._encode(self._opening)[0]).digest() in self._said
        first = self._ask(self._opening)
        return self._contradictions > before if known else not _alike(first, self._ask(self._opening))

    def revive(self) -> None:
        """Ask the endpoint again after it had been given up; the bound on requests stays."""
        self._exchange.revive()

    def _ask(self, part: Array) -> Array:
        body, kind = self._encode(part)
        if self._opening is None:
            self._opening = part.copy()
        answer = self._exchange.ask(body, kind, lambda raw: self._decode(raw, len(part)))
        self._remember(body, answer)
        return answer

    def _remember(self, body: bytes, answer: Array) -> None:
        """Count an answer that differs from an earlier one to the same question."""
        question = hashlib.sha256(body).digest()
        before = self._said.get(question)
        if before is not None:
            self._contradictions += not _alike(before, answer)
            return
        self._said[question] = answer
        self._size += answer.nbytes
        while self._size > _KEPT and len(self._said) > 1:
            self._size -= self._said.popitem(last=False)[1].nbytes


def _alike(one: Array, other: Array) -> bool:
    """Whether two answers are the same, but for rounding."""
    if one.shape != other.shape or one.dtype.kind != other.dtype.kind:
        return False
    if one.dtype.kind != "f":
        return bool((one == other).all())
    scale = max(float(np.nan_to_num(np.abs(one), posinf=0.0).max(initial=0.0)), 1e-6)
    return bool(np.nan_to_num(np.abs(one - other)).max(initial=0.0) <= _CLOSE * scale)


def from_http(
    url: str,
    *,
    encode: Encode | None = None,
    decode: Decode | None = None,
    batch: int = 64,
    timeout: float = 10.0,
    retries: int = 3,
    backoff: float = 0.5,
    max_requests: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpVictim:
    """A model behind an HTTP endpoint that answers POST requests.

    The default request is ``{"inputs": [[...], ...]}`` in JSON, the default answer ``{"scores": [[...], ...]}`` with a
    list for each input, or ``{"labels": [...]}`` with whole numbers. Whatever else is said of an endpoint, a file says:
    ``ss.open(url, endpoint="victim.toml")``.

    A request that times out, or gets HTTP 408, 425, 429 or 5xx, is repeated ``retries`` times, after waits that begin
    with ``backoff`` and double, or as long as ``Retry-After`` asks for. So is an unreadable answer after one that could
    be read. Any other status, a redirect, and an unreadable first answer end it at once.

    Args:
        url: https, or http on this machine; with neither password nor query.
        encode: from inputs (R, ...) to the body of a request.
        decode: from the body of an answer to scores (R, classes) or whole-number labels (R,).
        batch: inputs of a request at most.
        timeout: seconds that a request may take.
        retries: how often a failed request is repeated.
        backoff: seconds before the first repetition, at most.
        max_requests: requests that may be sent in all, repetitions included; None for no bound.
        headers: of every request; what they hold is shown nowhere.

    Raises:
        InputError: a number out of range, or not an address that can be asked.
    """
    address = Address.of(url)
    if batch < 1:
        raise InputError(Arg("batch", batch), remedy="pass how many inputs go at once, at least 1")
    limits = Limits(timeout=timeout, retries=retries, backoff=backoff, max_requests=max_requests)
    given = dict(headers or {})
    exchange = Exchange(address, limits, headers=given, secrets=tuple(given.values()))
    return HttpVictim(exchange, plain_bytes(encode or _to_json), _checked(decode or _from_json), batch)


def _to_json(inputs: Array) -> bytes:
    return json.dumps({"inputs": inputs.tolist()}).encode()


def _from_json(body: bytes) -> Array:
    answer = json_value(body, "it")
    if "scores" in answer:
        return np.asarray(answer["scores"], dtype=np.float64)
    return np.asarray(answer["labels"], dtype=np.int64)


def _checked(decode: Decode) -> Callable[[bytes, int], Array]:
    """What it returns has a row for each input, or is no answer."""

    def read(body: bytes, rows: int) -> Array:
        cure = "let the endpoint answer {'scores': [...]} or {'labels': [...]}, or pass decode= that reads what it says"
        try:
            answer = np.asarray(decode(body))
        except (ValueError, KeyError, TypeError, ModelError) as error:
            raise Unreadable(f"cannot be read by decode= ({error!r}): {body[:80]!r}", remedy=cure) from error
        if answer.shape[:1] != (rows,) or answer.dtype.kind not in "fiub":
            raise Unreadable(f"has the shape {answer.shape} and type {answer.dtype} for {rows} inputs", remedy=cure)
        return answer

    return read
