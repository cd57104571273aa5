"""From tokens and a declared threat to the tensor that is attacked and the channel that takes it to the model."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from signstep.domains.language.embeddings import embedding_at, find_embedding
from signstep.domains.language.tokenizers import Tokenizer
from signstep.domains.language.victim import IDS, Channel
from signstep.domains.multimodal.choices import Offers, offers
from signstep.domains.multimodal.threat import substitutions
from signstep.engine.threat import ThreatModel, threat_model
from signstep.errors import ThreatError

SUBSTITUTIONS = "substitutions"


class Text(NamedTuple):
    """A text, ready: its tensors by name, its channel, and its threat (None where it is left alone)."""

    inputs: dict[str, Tensor]
    channel: Channel
    threat: ThreatModel | None
    offers: Offers | None = None


def text_input(
    model: nn.Module,
    name: str,
    ids: Tensor,
    tokenizer: Tokenizer,
    threat: str,
    *,
    argument: str = "",
    mask: str = "",
    embedding: str = "",
    others: Mapping[str, Tensor] | None = None,
    nearest: int = 8,
    protected: Sequence[str] = (),
    groups: Sequence[Sequence[str]] = (),
) -> Text:
    """A text input under a threat.

    Args:
        model: the user's own.
        name: of the input.
        ids: tokens (N, L) int64, see `choices.ids_of`.
        tokenizer: that made them.
        threat: "substitutions:2"; "token:0.5" or another norm for its embedding, special tokens and padding frozen; ""
            leaves the text alone.
        argument: of the model's forward; the name where it is not given.
        mask: argument for 1 at tokens and 0 at padding; "" for none.
        embedding: path of the model's nn.Embedding; "" finds it by calling the model once.
        others: what the model takes beside it, by argument, to find the embedding with.
        nearest: see `choices.offers`.
        protected: likewise.
        groups: likewise.

    Raises:
        ThreatError: the threat cannot be read, or nothing may be replaced.
        ModelError: there is no such embedding, or several.
    """
    argument = argument or name
    if not threat:
        return Text({name: ids}, Channel(name, argument, "tokens", "", mask, tokenizer.pad), None)

    def run() -> object:
        few = {argument: ids[:2], **{key: part[:2] for key, part in (others or {}).items()}}
        return model(**few, **({mask: (ids[:2] != tokenizer.pad).long()} if mask else {}))

    path = embedding or find_embedding(model, run, ids[:2])
    module = embedding_at(model, path)
    kind, _, size = threat.partition(":")
    if kind == SUBSTITUTIONS:
        found = offers(tokenizer, module.weight, nearest=nearest, protected=protected, groups=groups)
        channel = Channel(name, argument, "choices", path, mask, tokenizer.pad)
        declared = substitutions(_whole(size, threat), tokenizer, protected=found.protected)
        return Text({name: found.choices(ids)}, channel, declared, found)
    if protected or groups:
        raise ThreatError(
            f"{name}: protected and groups are for substitutions, the threat is {threat!r}", remedy="drop them"
        )
    with torch.no_grad():
        vectors = module(ids).detach()
    free = ~torch.isin(ids, torch.tensor(sorted(tokenizer.special), dtype=torch.int64, device="cpu"))
    declared_ball = threat_model(kind, size, box=None, mask=free.unsqueeze(2).expand_as(vectors))
    channel = Channel(name, argument, "embedding", path, mask, tokenizer.pad)
    return Text({name: vectors, name + IDS: ids}, channel, declared_ball)


def _whole(size: str, threat: str) -> int:
    if not size.isdecimal():
        raise ThreatError(f"threat {threat!r}", remedy="pass a whole number of substitutions, such as substitutions:2")
    return int(size)
