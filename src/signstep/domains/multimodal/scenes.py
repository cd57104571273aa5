"""Pictures with sentences, made by this code: whether the sentence is true needs both. Synthetic, and says so.

A picture has up to four objects of one or two kinds; a sentence claims how many there are of one kind ("the picture
shows two red circles"). A false sentence is off in its number, its colour or its shape. Words of one group
(`SYNONYMS`) say the same here by construction, so a substitution within a group does not change what is true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from signstep.domains.language.tokenizers import WordTokenizer

_T = TypeVar("_T")

SIDE = 32
COLOURS = {"red": (0.85, 0.1, 0.1), "green": (0.1, 0.65, 0.2), "blue": (0.15, 0.2, 0.85), "yellow": (0.95, 0.85, 0.1)}
SHAPES = ("circle", "square", "triangle")

# The first word of a group is the common one; the others are seen more rarely the further back they stand.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("the", "this"),
    ("picture", "image", "drawing", "scene"),
    ("shows", "has", "contains", "displays"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("red", "crimson"),
    ("green", "emerald"),
    ("blue", "azure"),
    ("yellow", "golden"),
    ("circle", "disc", "disk"),
    ("circles", "discs", "disks"),
    ("square", "box"),
    ("squares", "boxes"),
    ("triangle", "wedge"),
    ("triangles", "wedges"),
)
LENGTH = 8
_NUMBERS = ("one", "two", "three")


class Scene(NamedTuple):
    """Pictures (N, 3, 32, 32) in [0, 1], sentences, and labels (N,): 1 where the sentence is true."""

    images: Tensor
    sentences: tuple[str, ...]
    labels: Tensor


@dataclass(frozen=True)
class _Kind:
    colour: str
    shape: str


def tokenizer() -> WordTokenizer:
    """All words of `SYNONYMS`, in alphabetical order."""
    return WordTokenizer.of(sorted({word for group in SYNONYMS for word in group}))


def scenes(count: int, seed: int) -> Scene:
    """``count`` pairs, half of them true; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(count, 3, SIDE, SIDE, dtype=torch.float32, device="cpu")
    sentences = []
    labels = torch.arange(count, dtype=torch.int64, device="cpu") % 2
    for row in range(count):
        images[row], said = _pair(bool(labels[row]), generator)
        sentences.append(said)
    return Scene(images, tuple(sentences), labels)


def _pair(true: bool, generator: torch.Generator) -> tuple[Tensor, str]:
    kind = _Kind(_one_of(list(COLOURS), generator), _one_of(SHAPES, generator))
    number = _below(3, generator) + 1
    claimed, said = kind, number
    if not true:
        wrong = _below(3, generator)
        if wrong == 0:
            said = _one_of([n for n in (1, 2, 3) if n != number], generator)
        elif wrong == 1:
            claimed = _Kind(_one_of([c for c in COLOURS if c != kind.colour], generator), kind.shape)
        else:
            claimed = _Kind(kind.colour, _one_of([s for s in SHAPES if s != kind.shape], generator))
    objects = [kind] * number
    if number < 4 and _below(2, generator):
        others = [_Kind(c, s) for c in COLOURS for s in SHAPES if _Kind(c, s) not in (kind, claimed)]
        objects.append(_one_of(others, generator))
    return _drawn(objects, generator), _sentence(said, claimed, generator)


def _sentence(number: int, kind: _Kind, generator: torch.Generator) -> str:
    noun = kind.shape if number == 1 else f"{kind.shape}s"
    words = ("the", "picture", "shows", _NUMBERS[number - 1], kind.colour, noun)
    return " ".join(_synonym(word, generator) for word in words)


def _synonym(word: str, generator: torch.Generator) -> str:
    """The word itself in most sentences; each further one of its group is a third as frequent as the one before."""
    group = next(group for group in SYNONYMS if word in group)
    weights = torch.tensor([3.0**-place for place in range(len(group))], dtype=torch.float32, device="cpu")
    return group[int(torch.multinomial(weights, 1, generator=generator))]


def _drawn(objects: list[_Kind], generator: torch.Generator) -> Tensor:
    """Each object in a quarter of its own, a little off its middle, of a size of its own."""
    picture = torch.full((3, SIDE, SIDE), 0.9, dtype=torch.float32, device="cpu")
    rows, columns = torch.meshgrid(
        torch.arange(SIDE, dtype=torch.int64, device="cpu").float(),
        torch.arange(SIDE, dtype=torch.int64, device="cpu").float(),
        indexing="ij",
    )
    quarters = torch.randperm(4, generator=generator, dtype=torch.int64, device="cpu").tolist()
    for kind, quarter in zip(objects, quarters, strict=False):
        shift = torch.rand(3, generator=generator, dtype=torch.float32, device="cpu").tolist()
        top, left = 7.5 + 16 * (quarter // 2) + 3 * (shift[0] - 0.5), 7.5 + 16 * (quarter % 2) + 3 * (shift[1] - 0.5)
        size = 4.0 + 1.5 * shift[2]
        down, across = rows - top, columns - left
        if kind.shape == "circle":
            inside = down.square() + across.square() <= size**2
        elif kind.shape == "square":
            inside = torch.maximum(down.abs(), across.abs()) <= 0.9 * size
        else:
            inside = (down <= 0.8 * size) & (down >= 2 * across.abs() - size)
        picture = torch.where(
            inside, torch.tensor(COLOURS[kind.colour], dtype=torch.float32, device="cpu")[:, None, None], picture
        )
    return (255 * picture).round() / 255  # 8-bit images


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (1,), generator=generator, dtype=torch.int64, device="cpu"))


def _one_of(things: Sequence[_T], generator: torch.Generator) -> _T:
    return things[_below(len(things), generator)]
