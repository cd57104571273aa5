"""From strings to scores: what a model of texts is asked, and where the gradient of its embedding is taken.

The string is what is sent to the tokenizer, always: rows of code points become strings, strings tokens, tokens scores.
Texts are called in groups of a fixed shape (their own number of tokens, rounded up; a fixed number of rows), so that
what a model says of a text does not hang on the texts beside it, down to the last bit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from signstep.domains.language.embeddings import embedding_at, find_embedding
from signstep.domains.language.spelling import Read, Speller
from signstep.domains.text.codes import texts_of
from signstep.errors import GradientError, ModelError
from signstep.messages import Arg
from signstep.model.predictor import Selector, select

_ROWS, _ROWS_ON_CARD = 16, 64
_TOKENS = 8  # numbers of tokens are rounded up to a multiple of this where there is a token to fill up with


@dataclass(frozen=True, eq=False)
class Leaning:
    """A text as the model read it, and the embedding vectors (T, D) of its tokens, which a gradient can reach."""

    row: int
    read: Read
    leaf: Tensor
    place: int


class Reader(Protocol):
    """Answers strings."""

    def scores(self, texts: Sequence[str]) -> Tensor:
        """Scores (N, K), or (N,) for one logit."""


@dataclass(frozen=True, eq=False)
class CallableReader:
    """Somebody's own function of a list of strings.

    Attributes:
        function: list[str] -> scores (N, K) or (N,), as a tensor, an array or lists.
        output: where the scores are in what it returns, see `signstep.Model`.
    """

    function: Callable[[list[str]], Any]
    output: Selector = None

    def scores(self, texts: Sequence[str]) -> Tensor:
        """What the function says.

        Raises:
            ModelError: it returns something else than scores.
        """
        returned = self.function(list(texts))
        if not isinstance(returned, Tensor) and self.output is None:
            try:
                found = torch.from_numpy(np.ascontiguousarray(np.asarray(returned, dtype=np.float64)))
            except (TypeError, ValueError) as error:
                raise ModelError(
                    f"the model returned a {type(returned).__name__} of {len(texts)} texts that holds no table of "
                    "numbers",
                    remedy="return scores, a row of one number for each class for each text",
                ) from error
        else:
            found = select(returned, self.output)
        if found.shape[:1] != (len(texts),):
            raise ModelError(
                f"the model returned scores of shape {tuple(found.shape)} for {len(texts)} texts",
                remedy="return a row for each",
            )
        return found.float() if found.dtype == torch.float64 else found


class TokenReader(nn.Module):
    """A network of tokens behind its tokenizer.

    Attributes:
        network: the user's own.
        speller: reads texts.
        pad: the token that fills up; None where there is none, and only texts of equally many tokens go together.
        argument: of the network's forward that takes tokens (N, T); "" for the first.
        mask: argument that takes 1 at tokens and 0 behind them; "" for none.
        output: where the scores are in what it returns.
    """

    def __init__(
        self,
        network: nn.Module,
        speller: Speller,
        pad: int | None,
        *,
        argument: str = "input_ids",
        mask: str = "attention_mask",
        output: Selector = None,
    ) -> None:
        super().__init__()
        self.network, self.speller, self.pad = network, speller, pad
        self.argument, self.mask, self.output = argument, mask, output
        self._embedding: str | None = None
        self._reads: dict[str, Read] = {}
        self._seen: list[Leaning] | None = None
        self.train(network.training)

    def read(self, text: str) -> Read:
        """A text as the model reads it; remembered, since a search comes back to texts."""
        found = self._reads.get(text)
        if found is None:
            if len(self._reads) >= 50_000:
                self._reads.clear()
            found = self._reads[text] = self.speller.read(text)
        return found

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((part.device for part in self.network.parameters()), torch.device("cpu"))

    @property
    def embedding(self) -> nn.Embedding:
        """The embedding that the tokens pass through, found by calling the network once.

        Raises:
            ModelError: there is none, or there are several.
        """
        if self._embedding is None:
            ids = torch.tensor([self.read("a word or two").ids], dtype=torch.int64, device=self.device)
            self._embedding = find_embedding(self.network, lambda: self._called(ids, torch.ones_like(ids)), ids)
        return embedding_at(self.network, self._embedding)

    def scores(self, texts: Sequence[str]) -> Tensor:
        """The network's scores of texts."""
        reads = [self.read(text) for text in texts]
        groups: dict[int, list[int]] = {}
        for row, read in enumerate(reads):
            groups.setdefault(self._wide(len(read.ids)), []).append(row)
        found: list[Tensor] = [torch.empty(0, dtype=torch.float64, device="cpu")] * len(texts)
        for wide in sorted(groups):
            for row, score in self._group(reads, groups[wide], wide):
                found[row] = score
        return torch.stack(found)

    @contextmanager
    def leaning(self) -> Iterator[list[Leaning]]:
        """Inside, every text that is scored leaves its embedding vectors, which a gradient can reach."""
        embedding, seen = self.embedding, list[Leaning]()

        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:  # noqa: ARG001
            self._leaf = output.detach().requires_grad_()
            return self._leaf

        handle = embedding.register_forward_hook(hook, with_kwargs=True)
        self._seen = seen
        try:
            yield seen
        finally:
            self._seen = None
            handle.remove()

    def _wide(self, count: int) -> int:
        return count if self.pad is None else max(_TOKENS, -(-count // _TOKENS) * _TOKENS)

    def _group(self, reads: Sequence[Read], rows: Sequence[int], wide: int) -> Iterator[tuple[int, Tensor]]:
        """Texts of one width, so many at a time; a short group is filled up with its first text."""
        size = _ROWS if self.device.type == "cpu" else _ROWS_ON_CARD
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            filled = [*part, *[part[0]] * (size - len(part))]
            pad = 0 if self.pad is None else self.pad
            ids = torch.tensor(
                [[*reads[row].ids, *[pad] * (wide - len(reads[row].ids))] for row in filled],
                dtype=torch.int64,
                device=self.device,
            )
            lengths = torch.tensor([len(reads[row].ids) for row in filled], dtype=torch.int64, device=self.device)
            there = torch.arange(wide, dtype=torch.int64, device=self.device) < lengths.unsqueeze(1)
            scores = select(self._called(ids, there.long()), self.output)
            if self._seen is not None:
                self._seen += [Leaning(row, reads[row], self._leaf, place) for place, row in enumerate(part)]
            yield from zip(part, scores, strict=False)

    def _called(self, ids: Tensor, there: Tensor) -> Any:
        masked = {self.mask: there} if self.mask else {}
        return self.network(**{self.argument: ids}, **masked) if self.argument else self.network(ids, **masked)


class TextModel(nn.Module):
    """A model of texts as a model of rows of code points (R, width)."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        if isinstance(reader, nn.Module):
            self.train(reader.training)

    @property
    def tokens(self) -> TokenReader | None:
        """Its network behind a tokenizer, where it has one: what gradients can be had of."""
        return self.reader if isinstance(self.reader, TokenReader) else None

    def forward(self, codes: Tensor) -> Tensor:
        """The scores of texts.

        Raises:
            GradientError: a gradient is asked for with respect to letters.
        """
        if codes.requires_grad:
            raise GradientError(
                "a text is made of letters, which have no gradient",
                remedy=("pass hotflip, word-search or random-words, or", Arg("threat", "embedding-l2:0.1")),
            )
        return self.reader.scores(texts_of(codes)).to(codes.device)
