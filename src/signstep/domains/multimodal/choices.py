"""A text as something that can be attacked: at each place a choice among a few tokens.

The attacked tensor of a text is (R, L, 2, C). ``[..., 0, :]`` is the choice, a one-hot row for each of L places;
``[..., 1, :]`` says which tokens are on offer there: the text's own in slot 0, then its substitutes, -1 where there are
no more. So a row carries all that is needed to read it, to attack it and to check it. Tokens are whole numbers held as
floats, which float32 does exactly up to 16,777,216.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.domains.language.neighbours import nearest as near
from signstep.domains.language.tokenizers import Tokenizer, fitted, whole
from signstep.errors import InputError, ThreatError
from signstep.messages import Arg


def choices_of(ids: Tensor, offers: Tensor) -> Tensor:
    """The untouched choice: tokens ``ids`` (R, L) with the substitutes ``offers`` (R, L, K), -1 for none.

    Returns:
        (R, L, 2, K + 1) float32.
    """
    listed = torch.cat([ids.unsqueeze(2), offers], 2).float()
    chosen = torch.zeros_like(listed)
    chosen[..., 0] = 1
    return torch.stack([chosen, listed], 2)


@dataclass(frozen=True, eq=False)
class Offers:
    """Which tokens may stand in for which.

    Attributes:
        table: (V, K) int64, the substitutes of each token, the nearest first; -1 for none.
        protected: tokens that may neither be replaced nor put in; special ones are among them.
    """

    table: Tensor
    protected: frozenset[int]

    def choices(self, ids: Tensor) -> Tensor:
        """The attacked tensor (R, L, 2, K + 1) of texts (R, L) int64."""
        return choices_of(ids, self.table[ids])


def offers(
    tokenizer: Tokenizer,
    weight: Tensor,
    *,
    nearest: int = 8,
    protected: Sequence[str] = (),
    groups: Sequence[Sequence[str]] = (),
) -> Offers:
    """The nearest allowed tokens by the cosine of their embeddings.

    Only tokens that are words of their own are replaced and put in: a text with them can be typed. Closeness in the
    embedding space is not sameness of meaning: put words that carry the label into ``protected``, or say with
    ``groups`` which words may stand for each other.

    Args:
        tokenizer: of the model.
        weight: the embedding table (V, D).
        nearest: substitutes for each token, K.
        protected: words that may neither be replaced nor put in.
        groups: words that may stand for each other; with it no others may.

    Raises:
        ThreatError: a protected or grouped word is not a token of its own, or nothing may be replaced.
    """
    if nearest < 1:
        raise ThreatError(Arg("nearest", nearest), remedy="pass the number of substitutes for each token, at least 1")
    kept = frozenset(tokenizer.special) | {token for word in protected for token in _tokens(tokenizer, word, weight)}
    count = min(tokenizer.size, len(weight))
    free = torch.tensor(
        [token not in kept and whole(tokenizer, token) for token in range(count)], dtype=torch.bool, device="cpu"
    )
    if not bool(free.any()):
        raise ThreatError(
            f"none of the {count} tokens may be replaced", remedy=f"protect fewer words than {len(protected)}"
        )
    table = torch.full((len(weight), nearest), -1, dtype=torch.int64, device="cpu")
    if groups:
        for group in groups:
            words = [_one(tokenizer, word, weight) for word in group]
            members = torch.tensor([word for word in words if word not in kept], dtype=torch.int64, device="cpu")
            table[members] = near(weight, members, members, nearest).tokens
    else:
        members = free.nonzero().squeeze(1)
        table[members] = near(weight, members, members, nearest).tokens
    return Offers(table, kept)


def ids_of(tokenizer: Tokenizer, texts: Sequence[str], length: int | None = None) -> Tensor:
    """Texts as tokens (R, L) int64, filled up to ``length`` (of the longest where it is None).

    Raises:
        InputError: a text is too long, has unknown words or no words, or does not survive decode and encode.
    """
    rows = [tokenizer.encode(text) for text in texts]
    longest = max((len(row) for row in rows), default=0) if length is None else length
    for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
        wrong = fault(tokenizer, text, row, longest)
        if wrong is not None:
            raise InputError(f"text {number}: {wrong[0]}", remedy=wrong[1])
    return torch.tensor([fitted(row, longest, tokenizer.pad) for row in rows], dtype=torch.int64, device="cpu")


def fault(tokenizer: Tokenizer, text: str, ids: Sequence[int], length: int) -> tuple[str, str] | None:
    """What is wrong with a text, and the remedy; None if it can be used."""
    if all(token in tokenizer.special and token != tokenizer.unknown for token in ids):
        return f"{text!r} has no words", "write a sentence"
    if tokenizer.unknown is not None and tokenizer.unknown in ids:
        unknown = next((word for word in text.split() if tokenizer.unknown in tokenizer.encode(word)), text)
        return f"the vocabulary has no {unknown!r}", "correct the word, or add it to the vocabulary and the model"
    if len(ids) > length:
        return f"the text has {len(ids)} tokens, the model takes {length}", "shorten it or raise length"
    if tokenizer.encode(tokenizer.decode(ids)) != list(ids):
        typed = tokenizer.decode(ids)
        return (
            f"{text!r} is read otherwise when its tokens are typed again ({typed!r})",
            "write it as the tokenizer does",
        )
    return None


def _tokens(tokenizer: Tokenizer, word: str, weight: Tensor) -> list[int]:
    found = [token for token in tokenizer.encode(word) if token not in tokenizer.special]
    if not found or max(found) >= len(weight):
        raise ThreatError(
            f"the word {word!r} is not in the vocabulary", remedy="correct it or leave it out of the list"
        )
    return found


def _one(tokenizer: Tokenizer, word: str, weight: Tensor) -> int:
    found = _tokens(tokenizer, word, weight)
    if len(found) > 1 or not whole(tokenizer, found[0]):
        raise ThreatError(
            f"the word {word!r} is {len(found)} tokens, and only words of one token can stand for others",
            remedy="leave it out of the list",
        )
    return found[0]
