"""The guard as a service: what happens to a request, from its first byte to its answer; no framework in here.

A rejected input gets the same status and body whatever it was rejected for, after the same passes. An answer leaves
after its decision is stored. Reasons and p-values are for the operator: told to a client they would be an oracle, so
they leave only where the operator says so (``tell``).
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from signstep.errors import InputError
from signstep.guard.batching import Batcher
from signstep.guard.bodies import SMALL, Limits, Refused, Wanted, read_image, read_infer, reader_of
from signstep.guard.guard import Answer, Guard, Judged
from signstep.guard.identity import Key, Keys, Proxies
from signstep.guard.metrics import Metrics
from signstep.guard.pace import Pace
from signstep.guard.rates import Rates
from signstep.messages import Arg

REJECTED = {"error": "the input was not answered"}
STATUS = {"accept": 200, "review": 202, "reject": 422}
PLATFORM = "signstep-guard"
READERS = ("local", "key", "all", "none")
_READERS = 2  # threads
Read = TypeVar("Read")
FULL = "too much waits; send it again later"


@dataclass(frozen=True)
class Asked:
    """A request, whatever framework took it.

    Attributes:
        headers: by name in lower case.
        peer: the address at the other end.
        body: its bytes, as they come.
    """

    headers: Mapping[str, str]
    peer: str
    body: AsyncIterator[bytes]


@dataclass(frozen=True)
class Offered:
    """How a model is offered.

    Attributes:
        name: in the paths of the Open Inference Protocol.
        wanted: what it takes.
        keys_only: whether a request without a key is refused.
        tell: whether clients see reasons and p-values.
        scores: whether they see all scores, or the label alone.
        rows: of a pass, at most.
        wait: seconds that the first input of a pass waits for others.
        metrics: who reads /metrics: "local" for whoever asks from this machine, others with a key; "key" for those with
            a key alone; "all"; or "none".
        secure_cookie: whether browsers may send the cookie of /ui by https alone, also where nobody said that they
            come by it.

    Raises:
        InputError: nobody of that name reads metrics.
    """

    name: str
    wanted: Wanted
    keys_only: bool = False
    tell: bool = False
    scores: bool = False
    rows: int = 32
    wait: float = 0.002
    metrics: str = "local"
    secure_cookie: bool = False

    def __post_init__(self) -> None:
        if self.metrics not in READERS:
            raise InputError(Arg("metrics", self.metrics), remedy=f"pass {', '.join(READERS[:-1])} or {READERS[-1]}")


@dataclass
class Service:
    """A guard that is asked over HTTP.

    Attributes:
        guard: that judges.
        offered: how.
        limits: what a request may ask for.
        proxies: whose word about addresses counts.
        started: whether it takes requests.
    """

    guard: Guard
    offered: Offered
    limits: Limits = field(default_factory=Limits)
    proxies: Proxies = field(default_factory=Proxies)
    started: bool = False

    def __post_init__(self) -> None:
        self.keys = None if self.guard.store is None else Keys(self.guard.store)
        self.metrics = Metrics(self.guard)
        self._rates = Rates(self.limits.rate, self.limits.burst, time.monotonic)
        self.pace = Pace(self.limits.longest_wait, time.monotonic, self._steady)
        self.batcher: Batcher | None = None
        self._held = 0  # bytes of large bodies
        self._storing = 0.0  # seconds from a judgement to its commit, a moving mean
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="signstep-guard-reader")

    def start(self) -> None:
        """Begin, within the event loop."""
        self.batcher = Batcher(self.guard, rows=self.offered.rows, wait=self.offered.wait, waiting=self.limits.waiting)
        self.batcher.start()
        self.started = True

    async def stop(self) -> None:
        """Take nothing more, answer what waits, store it."""
        self.started = False
        if self.batcher is not None:
            await self.batcher.stop()
        self._readers.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.guard.close)

    @property
    def ready(self) -> bool:
        """Whether a request would be answered."""
        return self.started

    def key_of(self, asked: Asked) -> Key | None:
        """The key that a request shows.

        Raises:
            Refused: it shows one that does not count.
        """
        said = asked.headers.get("authorization", "")
        scheme, _, shown = said.partition(" ")
        text = shown.strip() if scheme.lower() == "bearer" else asked.headers.get("x-api-key", "")
        if said and scheme.lower() != "bearer":
            raise Refused(401, "send the key as Authorization: Bearer KEY")
        if not text:
            return None
        key = None if self.keys is None else self.keys.of(text)
        if key is None:
            raise Refused(401, "this key is not known")
        return key

    async def client_of(self, asked: Asked) -> str:
        """How the client is called: by its key, else by its address.

        Raises:
            Refused: it shows no key and has to, or one that does not count.
        """
        key = await asyncio.to_thread(self.key_of, asked) if self._shows_key(asked) else None
        if key is not None:
            if key.role == "metrics":
                raise Refused(403, "this key reads /metrics alone")
            return f"key {key.id}"
        if self.offered.keys_only:
            raise Refused(401, "send a key, as Authorization: Bearer KEY")
        return self.proxies.address(asked.peer, asked.headers)

    async def numbers(self, asked: Asked) -> bytes:
        """The numbers for Prometheus.

        Raises:
            Refused: they are not for this client.
        """
        who = self.offered.metrics
        if who == "none":
            raise Refused(404, "there are no metrics here")
        if who == "key" or (who == "local" and not self.proxies.local(asked.peer, asked.headers)):
            key = await asyncio.to_thread(self.key_of, asked)
            if key is None or key.role == "client":
                raise Refused(401, "send a key of the role metrics or person, as Authorization: Bearer KEY")
        return self.metrics.text()

    async def predict(self, asked: Asked) -> tuple[int, dict[str, Any]]:
        """Answer a plain request: status and document.

        Raises:
            Refused: it is not answered.
        """
        client = await self.client_of(asked)
        async with self._body(asked) as content:
            with self._room():
                x = await self._read(reader_of(asked.headers.get("content-type", "")), content)
                answers = await self._answers(x, client)
        if len(answers) == 1:
            return STATUS[answers[0].action], self._said(answers[0])
        return 200, {"results": [self._said(one) for one in answers]}

    async def infer(self, asked: Asked) -> tuple[int, dict[str, Any]]:
        """Answer a request of the Open Inference Protocol v2: status and document.

        Raises:
            Refused: it is not answered.
        """
        client = await self.client_of(asked)
        if "inference-header-content-length" in asked.headers:
            raise Refused(400, "binary data is not taken; send JSON")
        refuse_foreign_page(asked.headers)
        async with self._body(asked) as content:
            with self._room():
                return await self._inferred(content, client)

    async def _inferred(self, content: bytes, client: str) -> tuple[int, dict[str, Any]]:
        ident, x = await self._read(read_infer, content)
        answers = await self._answers(x, client)
        if len(answers) == 1 and answers[0].action == "reject":
            return STATUS["reject"], self._said(answers[0])
        return 200, {**({} if ident is None else {"id": ident}), **self._tensors(answers)}

    def described(self) -> dict[str, Any]:
        """The model, as the Open Inference Protocol describes it."""
        shape = list(self.offered.wanted.shape)
        outputs = [{"name": "label", "datatype": "INT64", "shape": [-1]}]
        if self.offered.scores:
            outputs.append({"name": "scores", "datatype": "FP32", "shape": [-1, -1]})
        return {
            "name": self.offered.name,
            "versions": [self.guard.digest[:12] or "unknown"],
            "platform": PLATFORM,
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, *shape]}],
            "outputs": outputs,
        }

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Within it a request is worked on; while its body comes it is not, so that who sends slowly takes no room.

        The gate in front has asked the same before the body was read; what came in since then counts here.

        Raises:
            Refused: it would wait for too long.
        """
        wait = self.pace.begin()
        if wait:
            raise Refused(429, FULL, wait=wait)
        try:
            yield
        finally:
            self.pace.end()

    def _steady(self) -> float:
        """Seconds of the pass in work and the next, until they are stored: while one is, the next is judged."""
        return 2 * (self._storing + (0.0 if self.batcher is None else self.batcher.passes.seconds))

    @staticmethod
    def _shows_key(asked: Asked) -> bool:
        return bool(asked.headers.get("authorization") or asked.headers.get("x-api-key"))

    @asynccontextmanager
    async def _body(self, asked: Asked) -> AsyncIterator[bytes]:
        """A body, within which its bytes count as held.

        Raises:
            Refused: it is too large, too slow, encoded, or too much is held already.
        """
        stated = asked.headers.get("content-length", "")
        if stated.isdigit() and len(stated) < 20 and int(stated) > self.limits.body:
            raise Refused(413, f"a body has at most {self.limits.body} bytes")
        if asked.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "send the body as it is, without a content encoding")
        whole, size = bytearray(), 0
        try:
            try:
                await asyncio.wait_for(self._gather(asked, whole), self.limits.body_seconds)
            except TimeoutError:
                raise Refused(408, f"the body did not come within {self.limits.body_seconds:g} seconds") from None
            finally:
                size = len(whole)
            content = bytes(whole)
            whole.clear()
            yield content
        finally:
            self._held -= max(0, size - SMALL)

    async def _gather(self, asked: Asked, whole: bytearray) -> None:
        async for part in asked.body:
            before = len(whole)
            if before + len(part) > self.limits.body:
                raise Refused(413, f"a body has at most {self.limits.body} bytes")
            more = max(0, before + len(part) - SMALL) - max(0, before - SMALL)
            if more and self._held + more > self.limits.bodies:
                raise Refused(429, "too many large bodies are on their way; send it again later", wait=1)
            whole += part
            self._held += more

    async def _read(self, read: Callable[[bytes, Wanted, Limits], Read], content: bytes) -> Read:
        """What a body says: a small one at once, in a millisecond or two; a large one aside, while others are answered.

        Few are read at a time, since what is read takes many times the memory of its bytes.
        """
        if len(content) <= SMALL and read is not read_image:
            return read(content, self.offered.wanted, self.limits)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, read, content, self.offered.wanted, self.limits)

    async def _answers(self, x: Tensor, client: str) -> list[Answer]:
        if self.batcher is None or not self.started:
            raise Refused(503, "the service is starting or ending", wait=1)
        wait = self._rates.take(client, len(x))
        if wait:
            raise Refused(429, "this client asks too often", wait=wait)
        try:
            return await asyncio.wait_for(self._stored(self.batcher, x, client), self.limits.seconds)
        except TimeoutError:
            raise Refused(503, "the answer took too long", wait=self.batcher.patience()) from None

    async def _stored(self, batcher: Batcher, x: Tensor, client: str) -> list[Answer]:
        judged: list[Judged] = await batcher.ask(x, client)
        began = time.monotonic()
        await asyncio.gather(*(asyncio.wrap_future(one.stored) for one in judged))
        self._storing += 0.1 * (time.monotonic() - began - self._storing)
        return [one.answer for one in judged]

    def _said(self, answer: Answer) -> dict[str, Any]:
        """What a client may know of an answer."""
        said: dict[str, Any] = {"id": answer.id, "action": answer.action}
        if answer.action == "reject":
            said |= REJECTED
        if answer.label is not None:
            said |= {"label": answer.label, "name": answer.name, "confidence": answer.confidence}
            if self.offered.scores:
                said["scores"] = _finite(answer.scores or ())
        if self.offered.tell:
            reasons = [{"code": one.code, "text": one.text} for one in answer.reasons]
            said |= {"decided": answer.decided, "p_value": answer.p_value, "reasons": reasons}
        return said

    def _tensors(self, answers: Sequence[Answer]) -> dict[str, Any]:
        labels = [-1 if one.label is None else one.label for one in answers]
        outputs: list[dict[str, Any]] = [
            {"name": "label", "datatype": "INT64", "shape": [len(answers)], "data": labels}
        ]
        if self.offered.scores:
            wide = max((len(one.scores or ()) for one in answers), default=0)
            rows = [_finite(one.scores) if one.scores else [0.0] * wide for one in answers]
            flat = [score for row in rows for score in row]
            outputs.append({"name": "scores", "datatype": "FP32", "shape": [len(answers), wide], "data": flat})
        # The protocol's parameters are texts, numbers and truth values: one text, with an entry for each row.
        parameters: dict[str, Any] = {
            "action": ",".join(one.action for one in answers),
            "decision": ",".join(one.id for one in answers),
        }
        if self.offered.tell:
            parameters["p_value"] = ",".join("" if one.p_value is None else f"{one.p_value:.6g}" for one in answers)
            parameters["reasons"] = ",".join("+".join(r.code for r in one.reasons) for one in answers)
        return {
            "model_name": self.offered.name,
            "model_version": self.guard.digest[:12] or "unknown",
            "parameters": parameters,
            "outputs": outputs,
        }


def refuse_foreign_page(headers: Mapping[str, str]) -> None:
    """See that no page of another site asks in the name of whoever looks at it.

    A browser asks the service beforehand whether a page of another site may send JSON, and it may not; of what a form
    can send it does not ask, and says where the page is from (W3C, "Fetch Metadata Request Headers", section 2.4).

    Raises:
        Refused: one does.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and headers.get("sec-fetch-site", "none").lower() in ("cross-site", "same-site"):
        raise Refused(415, "send application/json")


def _finite(scores: Sequence[float]) -> list[float]:
    """Scores that JSON has words for."""
    return [min(max(score, -3.4e38), 3.4e38) if not math.isnan(score) else 0.0 for score in scores]
