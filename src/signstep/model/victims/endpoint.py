"""A model behind an HTTP endpoint: batched, retried, bounded, and honest when it falls silent."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from signstep.errors import InputError, ModelError, VictimError
from signstep.io.documents import json_value
from signstep.messages import Arg
from signstep.model.victims.arrays import Array, ArrayVictim

Encode = Callable[[Array], bytes]
Decode = Callable[[bytes], Any]

_LONGEST = 2**28  # bytes of an answer
_LATER = (408, 425, 429)  # the server asks to come again; so do all 5xx


class HttpVictim:
    """A model behind an endpoint, as a function from inputs (R, ...) to scores or labels.

    Once it has given up, or the bound on requests is reached, every further call raises at once; `revive` lets it try
    again.

    Attributes:
        requests: HTTP requests sent so far, repeated ones included.
        dead: why it has given up, or None.
    """

    gradients: ClassVar[bool] = False

    def __init__(
        self,
        url: str,
        *,
        encode: Encode,
        decode: Decode,
        batch: int,
        timeout: float,
        retries: int,
        backoff: float,
        max_requests: int | None,
        headers: Mapping[str, str],
    ) -> None:
        self._url, self._encode, self._decode, self._headers = url, encode, decode, dict(headers)
        self._timeout, self._retries, self._backoff, self._most = timeout, retries, backoff, max_requests
        self._arrays = ArrayVictim(self._ask, batch)
        self.requests = 0
        self.dead: str | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Scores (R, classes) or labels (R,) of a batch, in as many requests as its size needs.

        Raises:
            VictimError: the endpoint did not answer usefully, however often it was asked, or may not be asked again.
        """
        return self._arrays(x)

    def revive(self) -> None:
        """Ask the endpoint again after it had been given up; the bound on requests stays."""
        self.dead = None

    def _ask(self, part: Array) -> Array:
        if self.dead is not None:
            raise VictimError(self.dead)
        body, reason = self._encode(part), ""
        for attempt in range(self._retries + 1):
            if self._most is not None and self.requests >= self._most:
                raise self._gone(f"{self._url} was asked {self.requests} times, as often as max_requests allows")
            if attempt:
                time.sleep(self._backoff * 2 ** (attempt - 1))
            try:
                return self._once(body, len(part))
            except _TryAgain as error:
                reason = str(error)
        raise self._gone(f"{self._url} did not answer in {self._retries + 1} attempts; the last one: {reason}")

    def _once(self, body: bytes, rows: int) -> Array:
        self.requests += 1
        request = urllib.request.Request(self._url, body, self._headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as reply:
                raw = reply.read(_LONGEST)
        except urllib.error.HTTPError as error:
            said = f"HTTP {error.code} {error.reason}"
            if error.code >= 500 or error.code in _LATER:
                raise _TryAgain(said) from error
            words = error.read(200).decode(errors="replace")
            raise self._gone(f"{self._url} refused the request: {said}: {words}") from error
        except (OSError, HTTPException) as error:
            raise _TryAgain(f"{type(error).__name__}: {error}") from error
        try:
            answer = np.asarray(self._decode(raw))
        except (ValueError, KeyError, TypeError, ModelError) as error:
            raise _TryAgain(f"an answer that decode= cannot read ({error!r}): {raw[:80]!r}") from error
        if answer.shape[:1] != (rows,) or answer.dtype.kind not in "fiub":
            raise _TryAgain(f"an answer of shape {answer.shape} and type {answer.dtype} to {rows} inputs")
        return answer

    def _gone(self, reason: str) -> VictimError:
        self.dead = reason
        return VictimError(reason)


class _TryAgain(Exception):  # noqa: N818
    """One request came to nothing; another one may not."""


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
    list for each input, or ``{"labels": [...]}`` with whole numbers.

    A request that times out, is refused a connection, gets HTTP 408, 425, 429 or 5xx, or an unreadable answer, is
    repeated ``retries`` times, after backoff, 2 backoff, 4 backoff, ... seconds. Any other status ends it at once.

    Args:
        url: http or https.
        encode: from inputs (R, ...) to the body of a request.
        decode: from the body of an answer to scores (R, classes) or whole-number labels (R,).
        batch: inputs of a request at most.
        timeout: seconds that a connection may stay silent.
        retries: how often a failed request is repeated.
        backoff: seconds before the first repetition.
        max_requests: requests that may be sent in all, repetitions included; None for no bound.
        headers: of every request, beside or instead of the content type.

    Raises:
        InputError: a number out of range, or not an http address.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(Arg("url", url), remedy="pass an address that begins with http:// or https://")
    if batch < 1 or retries < 0 or not timeout > 0 or backoff < 0:
        raise InputError(
            Arg("batch", batch),
            Arg("timeout", timeout),
            Arg("retries", retries),
            Arg("backoff", backoff),
            remedy="pass batch >= 1, timeout > 0, retries >= 0 and backoff >= 0",
        )
    if max_requests is not None and max_requests < 1:
        raise InputError(Arg("max_requests", max_requests), remedy="pass at least 1, or None for no bound")
    return HttpVictim(
        url,
        encode=encode or _to_json,
        decode=decode or _from_json,
        batch=batch,
        timeout=timeout,
        retries=retries,
        backoff=backoff,
        max_requests=max_requests,
        headers={"Content-Type": "application/json", **(headers or {})},
    )


def _to_json(inputs: Array) -> bytes:
    return json.dumps({"inputs": inputs.tolist()}).encode()


def _from_json(body: bytes) -> Array:
    answer = json_value(body, "the answer", _LONGEST)
    if "scores" in answer:
        return np.asarray(answer["scores"], dtype=np.float64)
    return np.asarray(answer["labels"], dtype=np.int64)
