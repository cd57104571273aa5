"""Small models of texts, made on the spot: a bag of words, a BERT of a few weights in a folder, a function."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.domains.language.tokenizers import WordTokenizer
from signstep.domains.text.codes import codes_of
from signstep.domains.text.edits import Edits
from signstep.domains.text.letters import TYPOS
from signstep.domains.text.opening import of_pair
from signstep.domains.text.reading import CallableReader, TextModel
from signstep.domains.text.threat import TextThreat, text_threat

_SOME = "a bad boring cash claim dull fine film free good great gift is it money now plain prize the was win"
WORDS = tuple(_SOME.split())
TEXTS = (
    "The film was good, it was great!",
    "Claim the free prize now",
    "it is a dull film - boring",
    "Win cash money, claim it now",
    "a fine film",
    "GREAT gift: free money!",
)
OFFERS = {"cash": ("money", "gift"), "good": ("fine", "great"), "film": ("gift",), "free": ("plain",)}
ALL = Edits(("synonyms", "typos", "homoglyphs", "zero-width"), TYPOS, ("http*", "not"), OFFERS)


class Bag(nn.Module):
    """The mean of the words' vectors, and a layer."""

    def __init__(self, words: int, classes: int = 2) -> None:
        super().__init__()
        self.words, self.decision = nn.Embedding(words, 4), nn.Linear(4, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        there = (tokens != 0).unsqueeze(2)
        mean = (self.words(tokens) * there).sum(1) / there.sum(1).clamp_min(1)
        scores: Tensor = self.decision(mean.tanh())
        return scores


def tokenizer() -> WordTokenizer:
    return WordTokenizer.of(WORDS)


def bag(seed: int = 0, classes: int = 2) -> Bag:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Bag(len(WORDS) + 2, classes).eval()


def bag_model(seed: int = 0, length: int = 0) -> TextModel:
    net = bag(seed)
    return of_pair(tokenizer(), net, ss.Model(net), length).network


def counted(texts: Sequence[str]) -> Tensor:
    """A filter that counts: spam where more of its words than of the others stand there, as they are typed."""
    spam, ham = ("free", "cash", "win", "prize", "claim"), ("film", "good", "fine", "great")
    rows = [[3 * sum(word in text.lower() for word in kind) - 1 for kind in (ham, spam)] for text in texts]
    return torch.tensor(rows, dtype=torch.float32)


def asked(function: Callable[[list[str]], Any] = counted) -> TextModel:
    return TextModel(CallableReader(function))


def rows(model: TextModel, texts: Sequence[str] = TEXTS, room: int = 8) -> tuple[Tensor, Tensor]:
    """Texts as rows, and the model's own answers."""
    x = codes_of(texts, max(map(len, texts)) + room)
    with torch.no_grad():
        return x, model(x).argmax(1)


def threat(words: int = 2, edits: Edits = ALL, share: float = 0.0) -> TextThreat:
    return text_threat(edits, words, share=share)


def bert_tokenizer(length: int = 24) -> Any:
    """A tokenizer of words and letters, as BERT's."""
    transformers = pytest.importorskip("transformers", reason="models of the transformers library")
    tokenizers = pytest.importorskip("tokenizers", reason="models of the transformers library")
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    numbers = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, *",.!:-", *WORDS]))}
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.BertNormalizer()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=length,
    )


def bert(length: int = 24, **config: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="models of the transformers library")
    said = transformers.BertConfig(
        vocab_size=len(bert_tokenizer()),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=length,
        **{"id2label": {0: "ham", 1: "spam"}, "label2id": {"ham": 0, "spam": 1}, **config},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made: nn.Module = transformers.BertForSequenceClassification(said).eval()
    for part in made.parameters():
        part.data *= 20
    return made


def bert_folder(path: Path, length: int = 24, **config: Any) -> Path:
    bert(length, **config).save_pretrained(path)  # type: ignore[operator]
    bert_tokenizer(length).save_pretrained(path)
    return path
