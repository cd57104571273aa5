"""One request as it would be sent, for people to look at: nothing is sent, and nothing secret is shown."""

from torch import Tensor

from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.victims.endpoint import HttpVictim
from signstep.plain import one_line

_SHOWN = 400  # characters of a body
_PNG = b"\x89PNG\r\n\x1a\n"


def dry_run(victim: HttpVictim, x: Tensor) -> str:
    """The request with the first inputs of a batch, and what is expected of its answer.

    Raises:
        InputError: the inputs do not go this way, or the endpoint was made by `from_http`, which has no description.
    """
    described = victim.described
    if described is None or described.shown is None:
        raise InputError("this endpoint has no description to show", remedy=("pass", Arg("endpoint")))
    first = x[: victim.batch].detach().cpu().float().numpy()
    body, kind = described.shown(first)
    size = len(described.encoding(first)[0])
    query = "".join(f"{'&' if place else '?'}{name}=***" for place, name in enumerate(described.query))
    lines = [f"{described.method} {victim.address}{query}", f"Content-Type: {kind}", f"Content-Length: {size}"]
    for name in described.headers:
        named = ", ".join(f"${variable}" for variable in described.variables.get(name, ()))
        lines.append(f"{name}: ***{f' (from {named})' if named else ''}")
    lines += ["", *_body(body), "", f"expected: HTTP 200, {described.answers.expected(len(first))}", _limits(victim)]
    return "\n".join([*map(one_line, lines), "dry run: nothing was sent"])


def _body(body: bytes) -> list[str]:
    """A body for the eye: files by their size, text by its beginning."""
    before, mark, file = body.partition(_PNG)
    if not mark:
        text = body.decode("utf-8", errors="replace")
        more = f" ... ({len(text)} characters in all)" if len(text) > _SHOWN else ""
        return [text[:_SHOWN] + more]
    tail = file[file.rfind(b"IEND\xaeB`\x82") + 8 :] if before else b""
    middle = f"(a PNG file of {len(mark) + len(file) - len(tail)} bytes)"
    return [*before.decode("utf-8", "replace").splitlines(), middle, *tail.decode("utf-8", "replace").split()]


def _limits(victim: HttpVictim) -> str:
    limits = victim.exchange.limits
    most = "any number of" if limits.max_requests is None else f"at most {limits.max_requests}"
    parts = [f"limits: {most} requests", f"{limits.timeout:g} s each", f"{limits.retries} repetitions of one"]
    if limits.requests_per_second is not None:
        parts.append(f"{limits.requests_per_second:g} a second")
    if limits.price is not None:
        parts.append(f"{limits.price:g} {limits.currency} each".replace("  ", " "))
        if limits.max_requests is not None:
            parts.append(f"{limits.price * limits.max_requests:g} {limits.currency} at most".replace("  ", " "))
    return ", ".join(parts)
