"""Which words are on offer for which: the declared synonyms, and the neighbours in the model's own embedding."""

from collections.abc import Iterable, Mapping

import torch

from signstep.domains.language.neighbours import nearest
from signstep.domains.language.tokenizers import PretrainedTokenizer, WordTokenizer
from signstep.domains.text.reading import TokenReader
from signstep.domains.text.schema import NeighbourRow, Schema
from signstep.domains.text.words import words_of
from signstep.errors import ThreatError

_SHORTEST = 3  # letters of a neighbour: shorter tokens are pieces and particles


def vocabulary(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of texts in small letters, each once, in order."""
    return tuple(sorted({word.core.lower() for text in texts for word in words_of(text) if word.core}))


def offers_of(schema: Schema, words: tuple[str, ...], reader: TokenReader | None) -> dict[str, tuple[str, ...]]:
    """What is on offer for the words of the data, which a record holds so that its points can be checked.

    Raises:
        ThreatError: neighbours are asked for, and the model has no embedding of words.
    """
    change = schema.change
    found: dict[str, tuple[str, ...]] = {}
    if "synonyms" in change.kinds:
        found |= {word: schema.synonyms[word] for word in words if schema.synonyms.get(word)}
    if "neighbours" in change.kinds:
        if reader is None:
            raise ThreatError(
                "neighbours are those of a model's embedding, and this one shows none",
                remedy="pass a model with its tokenizer, or leave neighbours out of the kinds",
            )
        for word, others in neighbours_of(reader, words, schema.neighbours).items():
            found[word] = tuple(dict.fromkeys((*found.get(word, ()), *others)))
    return found


def neighbours_of(reader: TokenReader, words: tuple[str, ...], row: NeighbourRow) -> Mapping[str, tuple[str, ...]]:
    """For each word that is one token: the nearest others that are one token too and written in letters.

    Closeness in an embedding is not sameness of meaning: "good" and "bad" are neighbours.

    Raises:
        ThreatError: the vocabulary has no whole words.
    """
    spelled = _spelled(reader)
    if not spelled:
        raise ThreatError(
            "the tokenizer has no tokens that are whole words, so there are no neighbours",
            remedy="leave neighbours out of the kinds",
        )
    weight = reader.embedding.weight
    spelled = {token: word for token, word in spelled.items() if token < len(weight)}
    token_of = {word: token for token, word in sorted(spelled.items(), reverse=True)}
    asked = [word for word in words if word in token_of]
    if not asked:
        return {}
    tokens = torch.tensor([token_of[word] for word in asked], dtype=torch.int64, device="cpu")
    among = torch.tensor(sorted(token_of.values()), dtype=torch.int64, device="cpu")
    near = nearest(weight, tokens, among, row.nearest)
    return {
        word: tuple(
            spelled[token]
            for token, cosine in zip(line, cosines, strict=True)
            if token >= 0 and cosine >= row.cosine and spelled[token] != word
        )
        for word, line, cosines in zip(asked, near.tokens.tolist(), near.cosines.tolist(), strict=True)
    }


def _spelled(reader: TokenReader) -> dict[int, str]:
    """The tokens that are words of their own, as they stand in a text after white space, in small letters."""
    speller = reader.speller
    tokenizer = getattr(speller, "tokenizer", None)
    if isinstance(tokenizer, WordTokenizer):
        return dict(enumerate(tokenizer.words[2:], 2))
    if not isinstance(tokenizer, PretrainedTokenizer):
        return {}
    special = tokenizer.special
    words = {token: tokenizer.decode([token]).strip() for token in range(tokenizer.size) if token not in special}
    likely = {token: word for token, word in words.items() if len(word) >= _SHORTEST and word.isalpha()}
    found = {}
    for token, word in likely.items():
        if word == word.lower() and [one for one in tokenizer.encode(f" {word}") if one not in special] == [token]:
            found[token] = word
    return found
