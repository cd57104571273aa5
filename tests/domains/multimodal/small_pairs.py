"""Small models of text, and of image with text, and what they are asked in the tests."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from signstep.domains.multimodal import PretrainedTokenizer, WordTokenizer
from signstep.engine.keys import Key, RowDraws

_SAID = "there is are a the dog cat bird black white small big runs sleeps sings not"
WORDS = _SAID.split()
TEXTS = (
    "there is a black dog",
    "the cat is small",
    "a big white bird sings",
    "the dog is not black",
    "a small cat sleeps",
    "the bird runs",
)


def words() -> WordTokenizer:
    return WordTokenizer.of(WORDS)


def pieces(folder: Path) -> PretrainedTokenizer:
    path = folder / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s"]) + "\n")
    return PretrainedTokenizer.wordpiece(path)


def draws(rows: int, purpose: str = "test") -> RowDraws:
    return Key(0).fold(purpose).draws(torch.arange(rows), torch.device("cpu"))


class Pair(nn.Module):
    """Mean colour and mean word, multiplied: needs both inputs."""

    def __init__(self, vocabulary: int, width: int = 6) -> None:
        super().__init__()
        self.see = nn.Linear(12, width)
        self.read = nn.Embedding(vocabulary, width)
        self.both = nn.Linear(width, 3)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        seen = self.see(image.flatten(1) - 0.5)
        kept = (text != 0).unsqueeze(2)
        said = (self.read(text) * kept).sum(1) / kept.sum(1)
        scores: Tensor = self.both(seen * said)
        return scores


def pair(vocabulary: int) -> Pair:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Pair(vocabulary)
        for part in model.parameters():
            part.data.mul_(3)
    return model.eval()


def images(rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (rows, 3, 2, 2), generator=generator) / 255


def bert(vocabulary: int, classes: int = 3) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        initializer_range=0.5,
        pad_token_id=0,
    )
    config.num_labels = classes
    return _drawn(BertForSequenceClassification, config)


def clip(vocabulary: int) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": vocabulary,
        "max_position_embeddings": 16,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**text, **small}, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=8
    )
    return _drawn(CLIPModel, config)


def _drawn(kind: Any, config: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = kind(config)
    return model.eval()
