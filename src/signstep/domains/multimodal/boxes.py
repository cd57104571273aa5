"""A model that reads sentences about boxes with objects: find the objects, read the words, compare the two.

The image branch looks at each of three boxes alone and says for each of 10 x 10 cells whether an object has its middle
there, and what it looks like. The text branch is a gated recurrent unit in both directions (Cho et al. 2014). Objects
then exchange what they are within their box by attention (Vaswani et al. 2017), three times, each time scaled and
shifted by what the sentence asks for there (FiLM, Perez et al. 2018); sums and maxima over objects, then over boxes,
decide. So the order of boxes has no influence, and the whole is differentiable in image and embeddings.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from signstep.engine.batch_invariant import sigmoid

CELLS = 10
"""Cells on each side of a box."""
FEATURES = 16
"""Of a cell: presence, 3 colours, 3 shapes, 3 sizes, place across and down in the box, and 4 walls touched."""
SIZE = (40, 160)
"""Height and width of an image; the boxes are its columns 0-40, 60-100 and 120-160."""


class BoxesNet(nn.Module):
    """Is the sentence true of the boxes? Scores (R, 2) for false and true.

    Branches to look at: ``image_branch`` (R, 3, 100, 16), ``text_branch`` (R, L, 2 * D) and ``fusion`` (R, H).

    Args:
        words: size of the vocabulary; token 0 is padding.
        width: of an object while it is thought about, and H.
        embedding: of a word.
        recurrent: D, of the text branch in each direction.
        steps: how often objects look at each other.
        dropout: in training, of words' states and of the fused vector.
    """

    def __init__(
        self,
        words: int,
        *,
        width: int = 64,
        embedding: int = 32,
        recurrent: int = 48,
        steps: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.image_branch = _ImageBranch()
        self.text_branch = _TextBranch(words, embedding, recurrent)
        self.compare = _Compare(2 * recurrent, width, steps, dropout)
        self.fusion = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, 2)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """From images (R, 3, 40, 160) in [0, 1] and tokens (R, L) int64."""
        return self.judge(self.image_branch(image), text)

    def judge(self, objects: Tensor, text: Tensor) -> Tensor:
        """From objects (R, 3, K, 16), as the image branch gives them, and tokens."""
        compared = self.compare(objects, self.text_branch(text), text != 0)
        scores: Tensor = self.head(self.drop(self.fusion(compared)))
        return scores


class _ImageBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*_layer(3, 24, stride=2), *_layer(24, 40, stride=2), *_layer(40, 48), *_layer(48, 48))
        self.cell = nn.Conv2d(48, FEATURES, 1)
        middle = torch.arange(CELLS, dtype=torch.float32, device="cpu") / CELLS
        self.register_buffer("corner", torch.stack(torch.meshgrid(middle, middle, indexing="xy"), 2).flatten(0, 1))

    corner: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """What lies in each cell, (R, 3, 100, 16): shares in [0, 1], places as shares of the box's side."""
        raw = self.raw(image)
        seen, looks, place, walls = raw[..., :1], raw[..., 1:10], raw[..., 10:12], raw[..., 12:]
        looks = looks.reshape(*looks.shape[:-1], 3, 3).softmax(-1).flatten(-2)
        return torch.cat([sigmoid(seen), looks, self.corner + sigmoid(place) / CELLS, sigmoid(walls)], -1)

    def raw(self, image: Tensor) -> Tensor:
        """The same before any squashing, for training."""
        boxes = torch.stack([image[..., 60 * number : 60 * number + 40] for number in range(3)], 1)
        cells = self.cell(self.body(boxes.flatten(0, 1) - 0.5))
        found: Tensor = cells.flatten(2).transpose(1, 2).reshape(-1, 3, CELLS * CELLS, FEATURES)
        return found


def _layer(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(4, after), nn.ReLU()]


class _TextBranch(nn.Module):
    def __init__(self, words: int, embedding: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding)
        self.ahead = nn.GRU(embedding, width, batch_first=True)
        self.back = nn.GRU(embedding, width, batch_first=True)

    def forward(self, text: Tensor) -> Tensor:
        """States (R, L, 2 * D) of the words; padding stands last and has no influence on them."""
        said = self.embedding(text)
        length = (text != 0).sum(1, keepdim=True)
        place = torch.arange(text.shape[1], dtype=torch.int64, device=text.device)
        turned = torch.where(place < length, length - 1 - place, place).unsqueeze(2)
        ahead, _ = self.ahead(said)
        back, _ = self.back(said.gather(1, turned.expand_as(said)))
        return torch.cat([ahead, back.gather(1, turned.expand_as(back))], 2)


class _Compare(nn.Module):
    def __init__(self, said: int, width: int, steps: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(FEATURES - 1, width)
        self.steps = nn.ModuleList([_Step(said, width) for _ in range(steps)])
        self.ask = _Ask(said)
        self.film = nn.Linear(said, 2 * width)
        self.box = nn.Linear(2 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, objects: Tensor, words: Tensor, there: Tensor) -> Tensor:
        """Objects (R, 3, K, 16), words (R, L, S) and where there are any (R, L): (R, 2 * width)."""
        words = self.drop(words)
        presence, inside = objects[..., :1], objects.flatten(0, 1)
        thought = self.enter(inside[..., 1:])
        for step in self.steps:
            thought = step(thought, inside[..., 0], words, there)
        thought = F.relu(thought).reshape(*presence.shape[:3], -1)
        held = thought * presence
        boxes = self.box(torch.cat([held.sum(2) / 4, held.amax(2)], -1))
        scale, shift = self.film(self.ask(words, there)).unsqueeze(1).chunk(2, -1)
        boxes = F.relu(boxes * (1 + scale) + shift)
        return torch.cat([boxes.sum(1), boxes.amax(1)], -1)


class _Ask(nn.Module):
    """One question to the sentence: a mean of its words' states, weighted by how well they answer it."""

    def __init__(self, said: int) -> None:
        super().__init__()
        self.weight = nn.Linear(said, 1)

    def forward(self, words: Tensor, there: Tensor) -> Tensor:
        weight = self.weight(words).squeeze(2).masked_fill(~there, -1e4).softmax(1)
        answer: Tensor = (weight.unsqueeze(2) * words).sum(1)
        return answer


class _Step(nn.Module):
    """Objects look at the others of their box, then the sentence scales and shifts what they think."""

    def __init__(self, said: int, width: int) -> None:
        super().__init__()
        self.norm, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ask = _Ask(said)
        self.film = nn.Linear(said, 4 * width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, thought: Tensor, presence: Tensor, words: Tensor, there: Tensor) -> Tensor:
        """Thought (3 R, K, width), presence (3 R, K): the next thought."""
        query, key, value = self._heads(self.look(self.norm(thought)))
        weak = presence.clamp_min(1e-6).log()[:, None, None]  # what is hardly there is hardly looked at
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=weak.expand(-1, 1, query.shape[2], -1))
        thought = thought + self.out(seen.transpose(1, 2).flatten(2))
        scale, shift = self.film(self.ask(words, there)).repeat_interleave(3, 0).unsqueeze(1).chunk(2, -1)
        wide = F.relu(self.wide(self.second(thought)) * (1 + scale) + shift)
        after: Tensor = thought + self.narrow(wide)
        return after

    @staticmethod
    def _heads(parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (part.reshape(*part.shape[:2], 4, -1).transpose(1, 2) for part in parts.chunk(3, -1))
        return query, key, value
