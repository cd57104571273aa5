"""How models are written where weights and arguments belong to the same word: MODEL:OPTION=VALUE,...@WEIGHTS."""

import re
from dataclasses import dataclass
from pathlib import Path

from signstep.model.opening.table import opener_of

_OPTIONS = re.compile(r":(?=[A-Za-z_]\w*=)")


@dataclass(frozen=True)
class Spelled:
    """A model in words.

    Attributes:
        spec: what `signstep.open` takes.
        args: name=value, one each.
        weights: a file, or None.
    """

    spec: str
    args: tuple[str, ...] = ()
    weights: Path | None = None


def spelled(text: str) -> Spelled:
    """The parts of MODEL:OPTION=VALUE,...@WEIGHTS, of which all but the model may be left out.

    What a row opens that takes no weights may have an @ of its own.

    >>> spelled("nets:net:width=32,mean=(0.5,0.5)@w.pt")
    Spelled(spec='nets:net', args=('width=32', 'mean=(0.5,0.5)'), weights=PosixPath('w.pt'))
    >>> spelled("net.onnx"), spelled("https://me@host:8000/a?b=1").spec
    (Spelled(spec='net.onnx', args=(), weights=None), 'https://me@host:8000/a?b=1')
    """
    body, at, weights = text.partition("@")
    row = opener_of(body)
    if text.startswith(("http://", "https://")) or (at and row is not None and row.prefixes and not row.weights):
        body, weights = text, ""
    options = _OPTIONS.search(body)
    spec, rest = (body, "") if options is None else (body[: options.start()], body[options.end() :])
    return Spelled(spec, split_options(rest), Path(weights) if weights else None)


def split_options(text: str) -> tuple[str, ...]:
    """Pieces at commas outside of brackets: ``mean=(0.5,0.5)`` is one."""
    pieces = re.split(r",(?![^(\[]*[)\]])", text)
    return tuple(piece.strip() for piece in pieces if piece.strip())
