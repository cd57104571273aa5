"""Where in a text each token comes from."""

from dataclasses import dataclass
from typing import Any, Protocol

from signstep.domains.language.tokenizers import PretrainedTokenizer, Tokenizer, WordTokenizer
from signstep.errors import InputError

_HUGE = 1_000_000  # what transformers says where a tokenizer knows no longest text


@dataclass(frozen=True)
class Read:
    """What a model is given for a text.

    Attributes:
        ids: the tokens, special ones included, cut to what the model takes.
        spans: for each token the letters (start, end) that it stands for; (0, 0) for special ones. None where the
            tokenizer does not tell.
        cut: whether something of the text was left out.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...] | None
    cut: bool


class Speller(Protocol):
    """Reads texts as a model does."""

    def read(self, text: str) -> Read:
        """The tokens of a text, cut to what the model takes."""


@dataclass(frozen=True, eq=False)
class PretrainedSpeller:
    """A tokenizer of the transformers library, which cuts as it is told to in its own files.

    Attributes:
        tokenizer: as it is.
        length: tokens that the model takes, special ones included; None for any number.
    """

    tokenizer: PretrainedTokenizer
    length: int | None

    def read(self, text: str) -> Read:
        """The tokens of a text; a text that is cut is read again as a whole to know it."""
        inner: Any = self.tokenizer.inner
        told = bool(getattr(inner, "is_fast", False))
        said = inner(
            text,
            add_special_tokens=True,
            truncation=self.length is not None,
            max_length=self.length,
            return_offsets_mapping=told,
        )
        ids = tuple(map(int, said["input_ids"]))
        spans = tuple((int(a), int(b)) for a, b in said["offset_mapping"]) if told else None
        full = self.length is not None and len(ids) >= self.length
        return Read(ids, spans, full and len(self.tokenizer.encode(text)) > len(ids))


@dataclass(frozen=True, eq=False)
class PlainSpeller:
    """Another tokenizer; words of `WordTokenizer` are found in the text, of others nobody knows where they stand.

    Attributes:
        tokenizer: with ``encode``.
        length: tokens that the model takes, from the first on; None for any number.
    """

    tokenizer: Tokenizer
    length: int | None

    def read(self, text: str) -> Read:
        """The tokens of a text."""
        ids = [int(token) for token in self.tokenizer.encode(text)]
        spans = self.tokenizer.spans(text) if isinstance(self.tokenizer, WordTokenizer) else None
        kept = len(ids) if self.length is None else min(self.length, len(ids))
        if spans is not None and len(spans) != len(ids):  # a letter that falls into two when it is made small
            spans = None
        return Read(tuple(ids[:kept]), None if spans is None else tuple(spans[:kept]), kept < len(ids))


def speller(tokenizer: Tokenizer, length: int | None) -> Speller:
    """What reads texts for a model that takes ``length`` tokens.

    Raises:
        InputError: the length is no number of tokens.
    """
    if length is not None and length < 1:
        raise InputError(f"the model takes {length} tokens", remedy="write how many it takes, at least 1")
    if isinstance(tokenizer, PretrainedTokenizer):
        return PretrainedSpeller(tokenizer, length)
    return PlainSpeller(tokenizer, length)


def longest(tokenizer: Tokenizer, config: Any) -> int | None:
    """How many tokens a model takes, by its tokenizer and its config; None where neither says.

    Models of the RoBERTa family number places from behind the padding token, so that fewer are left.
    """
    said = [getattr(tokenizer.inner, "model_max_length", None)] if isinstance(tokenizer, PretrainedTokenizer) else []
    places = getattr(config, "max_position_embeddings", None)
    if isinstance(places, int) and places > 0:
        pad = getattr(config, "pad_token_id", None)
        shifted = any(part in str(getattr(config, "model_type", "")) for part in ("roberta", "camembert", "longformer"))
        said.append(places - (pad + 1 if shifted and isinstance(pad, int) else 0))
    known = [int(number) for number in said if isinstance(number, int) and 0 < number < _HUGE]
    return min(known, default=None)


def tokens_within(read: Read, start: int, end: int) -> list[int]:
    """The places of the tokens that share a letter with text[start:end]; none where nobody knows."""
    if read.spans is None:
        return []
    return [place for place, (first, last) in enumerate(read.spans) if first < end and last > start]
