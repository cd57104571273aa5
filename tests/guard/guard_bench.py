"""What the tests of the guard share: a tiny model, a policy that flags what is bright, a service without a socket."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.detectors.digests import model_digest
from signstep.guard.bodies import Limits, Wanted
from signstep.guard.calibration import Calibration
from signstep.guard.decide import Rules
from signstep.guard.guard import Guard
from signstep.guard.service import Offered, Service

SHAPE = (1, 4, 4)


class Counted(nn.Module):
    """Two classes by the mean of the input; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(8.0))
        self.passes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        middle = x.flatten(1).mean(1) - 0.5
        return torch.stack([-middle, middle], 1) * self.weight


@dataclass
class Said:
    action: Tensor
    p_value: Tensor
    by: Tensor
    answers: Tensor


@dataclass
class Bright:
    """Rejects what has a first number above 0.9, sends to a person what has one above 0.8."""

    model: Any
    reject: float = 0.01
    review: float = 0.01
    detectors: tuple[Any, ...] = field(default_factory=lambda: (type("Bright", (), {"name": "bright"})(),))

    def decide(self, x: Tensor) -> Said:
        answers = self.model(x)
        first = x.flatten(1)[:, 0]
        action = (first > 0.8).long() + (first > 0.9).long()
        p = torch.where(action == 2, 0.001, torch.where(action == 1, 0.015, 0.2 + 0.7 * first.clamp(0, 1)))
        return Said(action, p, torch.zeros(len(x), dtype=torch.long), answers)


def clean(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows that the policy accepts."""
    rows = np.random.default_rng(seed).random((count, *SHAPE), dtype=np.float32)
    rows[:, 0, 0, 0] *= 0.7
    return rows


def odd(first: float) -> Tensor:
    """One input with that first number."""
    x = torch.full((1, *SHAPE), 0.25)
    x[0, 0, 0, 0] = first
    return x


@cache
def calibrated(digest: str) -> Calibration:
    """What is known of clean rows."""
    return Calibration.of(clean(400), digest, box=(0.0, 1.0))


def made(store: Path | str | None = None, rules: Rules | None = None, **more: Any) -> Guard:
    """A guard around a fresh model."""
    network = Counted()
    model = ss.Model(network, classes=("dark", "<script>alert(1)</script>"))
    known = more.pop("calibration", None) or calibrated(model_digest(model))
    address = f"sqlite:///{store}" if isinstance(store, Path) else store
    return Guard(model, Bright(model), store=address, rules=rules, calibration=known, **more)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Asking:
    """Asks an ASGI application, within one event loop that lives as long as this does."""

    def __init__(self, app: Any) -> None:
        self.app, self.loop = app, asyncio.new_event_loop()
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def __enter__(self) -> "Asking":
        async def begin() -> None:
            scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
            self._life = asyncio.create_task(self.app(scope, self._to_app.get, self._from_app.put))
            await self._to_app.put({"type": "lifespan.startup"})
            said = await self._from_app.get()
            assert said["type"] == "lifespan.startup.complete", said

        self.loop.run_until_complete(begin())
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            await self._to_app.put({"type": "lifespan.shutdown"})
            await self._from_app.get()
            await self._life

        self.loop.run_until_complete(end())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def many(self, *asked: Any) -> list[Reply]:
        """Requests at once."""

        async def all_of_them() -> list[Reply]:
            return list(await asyncio.gather(*(self._ask(*one) for one in asked)))

        return self.loop.run_until_complete(all_of_them())

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | list[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        peer: str = "203.0.113.9",
        pause: float = 0.0,
    ) -> Reply:
        return self.many((method, path, body, headers or {}, peer, pause))[0]

    def predict(self, x: Any, headers: Mapping[str, str] | None = None, peer: str = "203.0.113.9") -> Reply:
        """Numbers, as plain JSON."""
        body = json.dumps({"inputs": np.asarray(x).tolist()}).encode()
        return self.ask("POST", "/predict", body, {"content-type": "application/json", **(headers or {})}, peer)

    async def _ask(
        self, method: str, path: str, body: bytes | list[bytes], headers: Mapping[str, str], peer: str, pause: float
    ) -> Reply:
        parts = list(body) if isinstance(body, list) else [body]
        path, _, query = path.partition("?")
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode("latin-1", "replace"), "query_string": query.encode("latin-1", "replace"),
            "scheme": "http", "headers": pairs, "client": (peer, 1), "server": ("guard", 80), "root_path": "",
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if pause:
                await asyncio.sleep(pause)
            if not parts:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        begun = next(one for one in sent if one["type"] == "http.response.start")
        whole = b"".join(one.get("body", b"") for one in sent if one["type"] == "http.response.body")
        return Reply(begun["status"], {k.decode(): v.decode() for k, v in begun["headers"]}, whole)


def service(guard: Guard, limits: Limits | None = None, **offered: Any) -> Service:
    wanted = offered.pop("wanted", Wanted(SHAPE))
    more = {name: offered.pop(name) for name in ("proxies",) if name in offered}
    return Service(guard, Offered("net", wanted, **offered), limits or Limits(), **more)
