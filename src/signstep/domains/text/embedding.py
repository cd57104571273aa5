"""FGSM in the embedding: an audit of the network behind it, of vectors that no text has.

A token's vector is moved by at most so much of a stated length: the median L2 length of the vectors of the data's own
tokens. ``embedding-l2:0.1`` moves each vector by at most 0.1 of it in L2 (FGM as in Miyato, Dai & Goodfellow 2017,
section 3, with a radius for each token); ``embedding-linf:0.1`` each coordinate by at most 0.1 of it divided by the
square root of the number of coordinates (its root mean square). Special tokens and padding stay.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.auditing.result import Result
from signstep.auditing.sections import Section
from signstep.domains.case import Case, Request
from signstep.domains.language.victim import IDS, Channel, Victim
from signstep.domains.text.opening import Given
from signstep.domains.text.reading import TokenReader
from signstep.domains.text.schema import EMBEDDING
from signstep.engine.threat import threat_model
from signstep.errors import InputError, ThreatError
from signstep.messages import Arg
from signstep.model.declaration import Model

_NAME = "text"
_NORMS = {"embedding-l2": "token", "embedding-linf": "linf"}
_NO_TEXT = (
    "No text has these embeddings: the figures are about the network behind the embedding, and bound nothing about "
    "texts that can be typed, in either direction."
)


def asked_for(threat: str | None) -> bool:
    """Whether a threat is one of the embedding."""
    return threat is not None and threat.partition(":")[0].strip() in EMBEDDING


@dataclass(frozen=True)
class Scale:
    """What sizes are relative to: the median L2 length of the vectors of ``tokens`` tokens, ``wide`` numbers each."""

    length: float
    tokens: int
    wide: int

    def eps(self, kind: str, share: float) -> float:
        """The size in the embedding's own units."""
        return share * (self.length if kind == "embedding-l2" else self.length / math.sqrt(self.wide))


def embedding_case(
    request: Request, given: Given, texts: tuple[str, ...], labels: Tensor | None, data: str, hashes: Mapping[str, str]
) -> Case:
    """The audit of a network behind its embedding.

    Raises:
        InputError: the model has no embedding.
        ThreatError: the threat cannot be read.
    """
    assert request.threat is not None
    kind, share = _read(request.threat)
    reader = given.network.tokens
    if reader is None:
        raise InputError(
            f"{given.model.title} gives scores alone, and has no embedding to move", remedy="pass a threat of words"
        )
    if not reader.argument:
        raise InputError("the network does not name the argument that takes tokens", remedy="give its forward a name")
    embedding = reader.embedding
    ids = _ids(reader, texts)
    special = _special(reader)
    scale = _scale(reader, ids, special)
    free = ~torch.isin(ids, torch.tensor(sorted(special), dtype=torch.int64, device="cpu"))
    mask = free.unsqueeze(2).expand(*ids.shape, embedding.embedding_dim)
    threat = threat_model(_NORMS[kind], scale.eps(kind, share), box=None, mask=mask)
    path = next(name for name, module in reader.network.named_modules() if module is embedding)
    pad = 0 if reader.pad is None else reader.pad
    channel = Channel(_NAME, reader.argument, "embedding", path, reader.mask, pad)
    victim = Victim(reader.network, [channel], output=reader.output)
    measured = (
        f"sizes are relative to {scale.length:.4g}, the median L2 length of the vectors of the data's {scale.tokens} "
        f"different tokens: {request.threat} is "
        + (
            f"{scale.eps(kind, share):.4g} in L2 for each token"
            if kind == "embedding-l2"
            else f"{scale.eps(kind, share):.4g} in each of {scale.wide} coordinates "
            f"({share:g} times {scale.length / math.sqrt(scale.wide):.4g}, the root mean square of a coordinate)"
        )
    )
    return Case(
        domain="text",
        model=Model(
            victim,
            classes=given.model.classes,
            name=f"{given.model.title}, behind its embedding",
            hashes=given.model.hashes,
            notes=given.model.notes,
        ),
        batches=_batches(embedding, ids, labels, request.rows),
        threat={_NAME: threat},
        data=data,
        summary=_told,
        attacks=("random-sign", "fgsm", "pgd"),
        curve=False,
        opening=(measured, _NO_TEXT),
        notes=(measured, _NO_TEXT.rstrip(".")),
        hashes=hashes,
        search=request.search,
        total=len(texts),
        terms={"embedding": kind, "share": share, "length": scale.length, "tokens": scale.tokens},
    )


def _read(threat: str) -> tuple[str, float]:
    kind, _, size = threat.strip().partition(":")
    try:
        share = float(size)
    except ValueError:
        share = -1.0
    if not 0 < share < math.inf:
        raise ThreatError(
            f"threat {threat!r}",
            remedy=f"write a size above 0, relative to the length of a token's vector, such as {kind}:0.1",
        )
    return kind, share


def _ids(reader: TokenReader, texts: tuple[str, ...]) -> Tensor:
    reads = [reader.read(text).ids for text in texts]
    wide = max(map(len, reads))
    if reader.pad is None and any(len(read) != wide for read in reads):
        raise InputError("the tokenizer has no padding token", remedy="set tokenizer.pad_token")
    pad = 0 if reader.pad is None else reader.pad
    return torch.tensor([[*read, *[pad] * (wide - len(read))] for read in reads], dtype=torch.int64, device="cpu")


def _special(reader: TokenReader) -> frozenset[int]:
    """Tokens that no text spells; the unknown one stands for words, and is moved like them."""
    tokenizer = getattr(reader.speller, "tokenizer", None)
    special = frozenset(getattr(tokenizer, "special", ()))
    unknown = getattr(tokenizer, "unknown", None)
    return (special - {unknown}) | ({reader.pad} if reader.pad is not None else frozenset())


def _scale(reader: TokenReader, ids: Tensor, special: frozenset[int]) -> Scale:
    used = sorted(set(ids.flatten().tolist()) - special)
    if not used:
        raise InputError(Arg("data"), "has no tokens but special ones", remedy="pass texts with words")
    weight = reader.embedding.weight.detach().cpu()
    vectors = weight[torch.tensor(used, dtype=torch.int64, device="cpu")].double()
    return Scale(float(vectors.square().sum(1).sqrt().median()), len(used), vectors.shape[1])


def _batches(
    embedding: torch.nn.Embedding, ids: Tensor, labels: Tensor | None, size: int
) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        with torch.no_grad():
            vectors = embedding(part.to(embedding.weight.device)).detach().cpu()
        yield {_NAME: vectors, _NAME + IDS: part}, None if labels is None else labels[start : start + size]


def _told(result: Result, points: Mapping[str, Tensor]) -> tuple[Section, ...]:  # noqa: ARG001
    return (Section("What was moved", (_NO_TEXT,)),)
