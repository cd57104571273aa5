"""A small model of an image and a sentence: a convolutional branch, a recurrent one, and what both say together."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from signstep.domains.multimodal.boxes import BoxesNet
from signstep.domains.multimodal.scenes import tokenizer
from signstep.engine.defaults import plain_torch
from signstep.errors import InputError

FOLDER = Path(__file__).with_name("data")

_Net = TypeVar("_Net", bound=nn.Module)


class FusionNet(nn.Module):
    """Is the sentence true of the image? Scores (R, 2) for false and true.

    Branches to look at: ``image_branch`` (R, D), ``text_branch`` (R, D) and ``fusion`` (R, H).

    Args:
        words: size of the vocabulary; token 0 is padding.
        channels: of the convolutions, each of which halves the image.
        width: D, of both branches.
        embedding: of a word.
        hidden: H, of the fusion.
        cells: the image branch keeps this many places, (rows, columns).
    """

    def __init__(
        self,
        words: int,
        *,
        channels: tuple[int, ...] = (12, 24, 48),
        width: int = 48,
        embedding: int = 24,
        hidden: int = 64,
        cells: tuple[int, int] = (1, 1),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_branch = _ImageBranch(channels, width, cells)
        self.text_branch = _TextBranch(words, embedding, width)
        self.fusion = nn.Sequential(nn.Linear(3 * width, hidden), nn.ReLU())
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 2)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """From images (R, 3, H, W) in [0, 1] and tokens (R, L) int64."""
        seen, said = self.image_branch(image), self.text_branch(text)
        scores: Tensor = self.head(self.drop(self.fusion(torch.cat([seen, said, seen * said], 1))))
        return scores


class _ImageBranch(nn.Module):
    def __init__(self, channels: tuple[int, ...], width: int, cells: tuple[int, int]) -> None:
        super().__init__()
        sizes = (3, *channels)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU())
                for before, after in pairwise(sizes)
            ),
            nn.AdaptiveAvgPool2d(cells),
            nn.Flatten(),
            nn.Linear(channels[-1] * cells[0] * cells[1], width),
        )

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.body(image - 0.5)
        return found


class _TextBranch(nn.Module):
    """A gated recurrent unit (Cho et al. 2014), read at the last word."""

    def __init__(self, words: int, embedding: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding)
        self.body = nn.GRU(embedding, width, batch_first=True)

    def forward(self, text: Tensor) -> Tensor:
        states, _ = self.body(self.embedding(text))
        last = ((text != 0).sum(1) - 1).clamp_min(0)
        found: Tensor = states[torch.arange(len(text), device=text.device, dtype=torch.int64), last]
        return found


@plain_torch()
def scenes_model() -> FusionNet:
    """The model of `scenes`, with the weights that travel with the package (examples/multimodal/train_scenes.py)."""
    return _loaded(FusionNet(tokenizer().size), "scenes")


def nlvr_model() -> BoxesNet:
    """A model of NLVR's images and sentences, with its weights (examples/multimodal/train_nlvr.py).

    Images are (3, 40, 160), tokens those of the vocabulary ``data/nlvr.txt``.
    """
    return _loaded(nlvr_network(), "nlvr")


@plain_torch()
def nlvr_network() -> BoxesNet:
    """The same without weights."""
    return BoxesNet(len((FOLDER / "nlvr.txt").read_text(encoding="utf-8").split()))


def _loaded(model: _Net, name: str) -> _Net:
    model.load_state_dict({key: value.float() for key, value in _weights(name).items()})
    return model.eval()


@cache
def _weights(name: str) -> dict[str, Tensor]:
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise InputError(f"the weights {path.name} are not there", remedy="reinstall signstep")
    return dict(load_file(path))
