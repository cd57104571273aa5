"""What turns a sentence into whole numbers and back: the little that is asked of a tokenizer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.io.documents import read_text

PAD, UNKNOWN = "[PAD]", "[UNK]"
_WORD = re.compile(r"\w+")
_FILES = ("tokenizer", "vocab", "spiece", "sentencepiece")


class Tokenizer(Protocol):
    """A tokenizer. ``decode`` gives the text that a person would have to type for ``encode`` to give the tokens."""

    @property
    def size(self) -> int:
        """The number of tokens of the vocabulary."""

    @property
    def pad(self) -> int:
        """What fills a short text up."""

    @property
    def unknown(self) -> int | None:
        """What stands for words outside the vocabulary; None where there is no such token."""

    @property
    def special(self) -> frozenset[int]:
        """Tokens that no text spells: padding, unknown, begin, end."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, special ones included, neither cut nor filled up."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""


@dataclass(frozen=True)
class WordTokenizer:
    """One token for each word; case and punctuation are dropped.

    ``words`` is the vocabulary; its first two entries are ``[PAD]`` and ``[UNK]``.

    >>> tokenizer = WordTokenizer.of(["there", "is", "a", "dog"])
    >>> tokenizer.encode("There is a cat.")
    [2, 3, 4, 1]
    >>> tokenizer.decode([2, 3, 4, 5, 0])
    'there is a dog'
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[:2] != (PAD, UNKNOWN):
            raise InputError(
                f"the vocabulary begins with {self.words[:2]}",
                remedy=f"write {PAD} and {UNKNOWN} as its first two lines",
            )
        if len(set(self.words)) < len(self.words):
            twice = next(word for word in self.words if self.words.count(word) > 1)
            raise InputError(f"the vocabulary has {twice!r} twice", remedy="leave one out")
        odd = [word for word in self.words[2:] if _WORD.fullmatch(word) is None or word != word.lower()]
        if odd:
            raise InputError(
                f"the vocabulary has {odd[0]!r}, which is not one word in lower case", remedy="write it so"
            )

    @classmethod
    def of(cls, words: Sequence[str]) -> "WordTokenizer":
        """A tokenizer of these words; the two special tokens are put before them."""
        return cls((PAD, UNKNOWN, *words))

    @classmethod
    def read(cls, path: Path) -> "WordTokenizer":
        """From a file with one word on each line.

        Raises:
            LoadError: the file cannot be read.
        """
        return cls(tuple(read_text(path, "the vocabulary").split()))

    @property
    def size(self) -> int:
        """Words and the two special tokens."""
        return len(self.words)

    @property
    def pad(self) -> int:
        """Token 0."""
        return 0

    @property
    def unknown(self) -> int | None:
        """Token 1."""
        return 1

    @property
    def special(self) -> frozenset[int]:
        """Tokens 0 and 1."""
        return frozenset({0, 1})

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, text: str) -> list[int]:
        """One token for each word."""
        return [self._numbers.get(word, 1) for word in _WORD.findall(text.lower())]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in the text each token comes from: its letters from ``start`` to ``end``."""
        return [match.span() for match in _WORD.finditer(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Words with blanks between them."""
        return " ".join(self.words[number] for number in ids if number > 1)


@dataclass(frozen=True, eq=False)
class PretrainedTokenizer:
    """A tokenizer of the transformers library, as it is."""

    inner: Any

    @classmethod
    def wordpiece(cls, vocabulary: Path) -> "PretrainedTokenizer":
        """BERT's tokenizer over a written vocabulary, one piece on each line.

        Raises:
            LoadError: the file cannot be read.
            MissingExtraError: transformers is not installed.
        """
        pieces = read_text(vocabulary, "the vocabulary").splitlines()
        missing = [piece for piece in (PAD, UNKNOWN, "[CLS]", "[SEP]", "[MASK]") if piece not in pieces]
        if missing:
            raise LoadError(
                f"the vocabulary {vocabulary} has no {missing[0]}",
                remedy="write a line with it, as BERT's tokenizer needs",
            )
        numbers = {piece: number for number, piece in enumerate(pieces)}
        return cls(_transformers().BertTokenizer(vocab=numbers))

    @classmethod
    def folder(cls, path: Path) -> "PretrainedTokenizer":
        """What ``tokenizer.save_pretrained`` wrote; nothing is downloaded.

        Raises:
            LoadError: there is no tokenizer.
            MissingExtraError: transformers is not installed.
        """
        if not any(file.name.startswith(_FILES) for file in path.glob("*")):
            # Some versions would make an empty tokenizer of the model's config, to which every word is unknown.
            raise LoadError(
                f"{path} has no file of a tokenizer", remedy="save it there with the tokenizer's save_pretrained"
            )
        try:
            return cls(_transformers().AutoTokenizer.from_pretrained(path, local_files_only=True))
        except (OSError, ValueError, KeyError) as error:
            said = str(error).partition("\n")[0]
            raise LoadError(
                f"{path} holds no tokenizer that transformers can read ({said})", remedy="pass its folder"
            ) from error

    @property
    def size(self) -> int:
        """Of the vocabulary, added tokens included."""
        return len(self.inner)

    @property
    def pad(self) -> int:
        """The padding token; the end token where there is none."""
        for token in (self.inner.pad_token_id, self.inner.eos_token_id):
            if token is not None:
                return int(token)
        raise InputError("the tokenizer has no padding token", remedy="set tokenizer.pad_token")

    @property
    def unknown(self) -> int | None:
        """The unknown token; None where it is the end token as well (CLIP), since it then says nothing."""
        token = self.inner.unk_token_id
        return None if token is None or token == self.inner.eos_token_id else int(token)

    @property
    def special(self) -> frozenset[int]:
        """All special tokens."""
        return frozenset(int(token) for token in self.inner.all_special_ids)

    def encode(self, text: str) -> list[int]:
        """With special tokens, not cut."""
        found = self.inner(text, add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
        return [int(token) for token in found]

    def decode(self, ids: Sequence[int]) -> str:
        """Without special tokens."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "multimodal") from error
    return transformers


def fitted(ids: Sequence[int], length: int, pad: int) -> list[int]:
    """Tokens filled up to ``length``."""
    return [*ids, *[pad] * (length - len(ids))]


def whole(tokenizer: Tokenizer, token: int) -> bool:
    """Whether a token is a word of its own: typed alone, it is read as itself (no ``##ing``, no special token)."""
    if token in tokenizer.special:
        return False
    text = tokenizer.decode([token])
    return text != "" and [found for found in tokenizer.encode(text) if found not in tokenizer.special] == [token]
