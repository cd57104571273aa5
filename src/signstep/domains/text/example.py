"""The embedded example: a few dozen short messages, wanted and unwanted, and a small filter trained on the spot.

The messages were written for Signstep; no person ever sent them.
"""

from importlib.resources import as_file, files

import torch
from torch import Tensor, nn

from signstep.domains.language.tokenizers import WordTokenizer
from signstep.domains.text.records import Records, read_records
from signstep.domains.text.words import words_of
from signstep.engine.defaults import plain_torch

CLASSES = ("ham", "spam")
SYNONYMS = (
    ("cash", "money"),
    ("prize", "gift"),
    ("claim", "collect"),
    ("today", "now"),
    ("free", "complimentary"),
    ("cheap", "affordable"),
    ("win", "receive"),
    ("urgent", "important"),
    ("offer", "deal"),
    ("meeting", "appointment"),
    ("trip", "journey"),
    ("evening", "night"),
)
_HELD_OUT = 3  # two of four lines of two kinds: every third pair is audited, the others train
_WIDE = 8
_EPOCHS = 120
_RATE = 0.5
_DECAY = 1e-3


class Filter(nn.Module):
    """A small filter: the mean of the words' vectors, and two layers."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, _WIDE)
        self.hidden = nn.Linear(_WIDE, _WIDE)
        self.decision = nn.Linear(_WIDE, len(CLASSES))

    def forward(self, tokens: Tensor) -> Tensor:
        """From tokens (N, T), 0 behind the last word, to scores (N, 2)."""
        there = (tokens != 0).unsqueeze(2)
        mean = (self.words(tokens) * there).sum(1) / there.sum(1).clamp_min(1)
        scores: Tensor = self.decision(self.hidden(mean).relu())
        return scores


def example() -> tuple[Records, WordTokenizer, Filter]:
    """Messages to audit, the filter's tokenizer, and the filter, trained on the other messages; alike at each call."""
    with as_file(files(__package__) / "messages.jsonl") as path:
        records = read_records(path, "text", "label", CLASSES)
    assert records.labels is not None
    held = [row for row in range(len(records.texts)) if row // 2 % _HELD_OUT == 0]
    kept = [row for row in range(len(records.texts)) if row // 2 % _HELD_OUT]
    words = {word.core.lower() for row in kept for word in words_of(records.texts[row]) if word.core.isalpha()}
    tokenizer = WordTokenizer.of(sorted(words))
    net = _trained(tokenizer, [records.texts[row] for row in kept], records.labels[kept])
    return Records(tuple(records.texts[row] for row in held), records.labels[held]), tokenizer, net


@plain_torch()
def _trained(tokenizer: WordTokenizer, texts: list[str], labels: Tensor) -> Filter:
    """Gradient descent with momentum; a sixth of the words is unknown in each pass, as words will be."""
    rows = [tokenizer.encode(text) for text in texts]
    wide = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (wide - len(row))] for row in rows], dtype=torch.int64, device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Filter(tokenizer.size)
        weights = list(net.parameters())
        speed = [torch.zeros_like(weight) for weight in weights]
        for _ in range(_EPOCHS):
            lost = (torch.rand(tokens.shape, dtype=torch.float32, device="cpu") < 1 / 6) & (tokens > 1)
            loss = nn.functional.cross_entropy(net(torch.where(lost, 1, tokens)), labels)
            loss = loss + _DECAY * sum(weight.square().sum() for weight in weights)
            for weight, moving, slope in zip(weights, speed, torch.autograd.grad(loss, weights), strict=True):
                moving.mul_(0.9).sub_(slope, alpha=_RATE)
                weight.data.add_(moving)
    return net.eval()
