"""Substitution in texts for a text classifier: the same attack with one input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from signstep.api import attack as run_attack
from signstep.domains.language.tokenizers import Tokenizer, fitted
from signstep.domains.language.victim import Channel, Victim, tokens_of
from signstep.domains.multimodal.attacks import on
from signstep.domains.multimodal.choices import ids_of
from signstep.domains.multimodal.prepare import SUBSTITUTIONS, text_input
from signstep.engine.outcome import Outcome
from signstep.engine.untouched import untouched
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.search import Search

_NAME = "text"


@dataclass(frozen=True, eq=False)
class Substituted:
    """Texts before and after.

    Attributes:
        before: as they were given.
        after: as they would have to be typed; with no substitution the tokens' own text.
        fooled: (N,) whether the model fails on the text ``after``, tokenised again and scored without any hook.
        changed: for each text its substitutions (word, word).
        outcome: of the attack.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    fooled: Tensor
    changed: tuple[tuple[tuple[str, str], ...], ...]
    outcome: Outcome

    def __str__(self) -> str:
        return f"{int(self.fooled.sum())} of {len(self.fooled)} texts fooled, as typed"


@dataclass(frozen=True)
class TokenArguments:
    """How a text model takes its tokens.

    Attributes:
        argument: of its forward that takes them (N, L).
        mask: argument for 1 at tokens and 0 at padding; "" for none.
        embedding: path of its nn.Embedding; "" finds it by calling the model once.
    """

    argument: str = "input_ids"
    mask: str = "attention_mask"
    embedding: str = ""


def substitute(
    model: Model | nn.Module,
    texts: Sequence[str],
    y: Tensor,
    tokenizer: Tokenizer,
    *,
    substitutions: int = 2,
    recipe: str = "pgd",
    reads: TokenArguments = TokenArguments(),
    length: int | None = None,
    nearest: int = 8,
    protected: Sequence[str] = (),
    groups: Sequence[Sequence[str]] = (),
    search: Search | None = None,
) -> Substituted:
    """Replace a few tokens of each text so that the model fails.

    Args:
        model: takes tokens (N, L) as an argument that ``reads`` names; an `ss.Model` says where its scores are.
        texts: sentences.
        y: labels (N,).
        tokenizer: of the model.
        substitutions: tokens that may be replaced in each text.
        recipe: "fgsm" takes the best from one gradient, "pgd" searches on, "random-sign" is the control.
        reads: how the model takes tokens.
        length: tokens that the model takes; None for those of the longest text.
        nearest: see `choices.offers`.
        protected: likewise.
        groups: likewise.
        search: as for `signstep.attack`.

    Raises:
        InputError: a text cannot be used; the sentence says which and why.
    """
    declared = Model.of(model)
    if declared.mean is not None or declared.transform is not None:
        raise InputError(
            Arg("mean"),
            "or",
            Arg("transform"),
            "is declared, and tokens have neither units nor pixels",
            remedy="leave both out",
        )
    assert isinstance(declared.network, nn.Module)
    ids = ids_of(tokenizer, texts, length)
    text = text_input(
        declared.network,
        _NAME,
        ids,
        tokenizer,
        f"{SUBSTITUTIONS}:{substitutions}",
        argument=reads.argument,
        mask=reads.mask,
        embedding=reads.embedding,
        nearest=nearest,
        protected=protected,
        groups=groups,
    )
    assert text.threat is not None
    victim = Victim(declared.network, [text.channel], output=declared.output)
    asked = replace(declared, network=victim, output=None)
    outcome = run_attack(asked, text.inputs, y, threat={_NAME: text.threat}, recipe=on(recipe, [_NAME]), search=search)
    assert isinstance(outcome.x, dict)
    found = tokens_of(outcome.x[_NAME])
    after = tuple(tokenizer.decode(row) for row in found.tolist())
    with untouched(victim), torch.no_grad():
        seen = victim(**outcome.x)
        typed = typed_scores(victim, text.channel, tokenizer, after, ids.shape[1])
    survived = (typed.ids == found).all(1)
    same = torch.isclose(seen, typed.scores, rtol=1e-4, atol=1e-5).flatten(1).all(1)
    changed = tuple(
        tuple((tokenizer.decode([a]), tokenizer.decode([b])) for a, b in zip(was, now, strict=True) if a != b)
        for was, now in zip(ids.tolist(), found.tolist(), strict=True)
    )
    return Substituted(tuple(texts), after, outcome.fooled & survived & same, changed, outcome)


@dataclass(frozen=True, eq=False)
class Typed:
    """Texts as they are read: tokens (N, L) and the model's scores (N, ...)."""

    ids: Tensor
    scores: Tensor


def typed_scores(victim: Victim, channel: Channel, tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Typed:
    """What the model says of texts from their letters on, without any hook on its embedding."""
    ids = torch.tensor(
        [fitted(tokenizer.encode(text), length, tokenizer.pad)[:length] for text in texts],
        dtype=torch.int64,
        device="cpu",
    )
    plain = Victim(victim.model, [replace(channel, form="tokens")], output=victim.output)
    return Typed(ids, plain(**{channel.name: ids}))
