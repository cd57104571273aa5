"""Train a small model of image and sentence on the development set of NLVR: is the sentence true of the image?

Suhr, Lewis, Yeh & Artzi 2017, "A Corpus of Natural Language for Visual Reasoning": rendered images of three boxes,
sentences written by people; four images to a sentence, and pictures of one scene with its boxes in another order. All
images of one identifier stay together: every fourth identifier is held out, and nothing of it is used but its words,
which are in the vocabulary. Few pairs remain (727), so that most of what is learned comes from scenes of this code
(nlvr_scenes.py) and sentences whose truth is counted (nlvr_sentences.py).

1. The image branch learns to find objects in drawn scenes and in the training pictures.
2. The rest learns from annotated objects and sentences, made ones first, then people's among them; exchanging colours,
   shapes and left for right, in scene and sentence alike, makes more of both.

Both together see pictures for the first time when they are measured.

    python examples/multimodal/train_nlvr.py ../shared/data/image_text/nlvr_dev [FOLDER]
"""

import json
import random
import re
import sys
import time
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import torch
from nlvr_scenes import FORMS, SHADES, Scene, picture, random_scene
from nlvr_sentences import is_towers, sentence, walls
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from signstep.data.images import Picture, read_images
from signstep.domains.language.tokenizers import WordTokenizer
from signstep.domains.multimodal.boxes import CELLS, FEATURES, SIZE, BoxesNet
from signstep.domains.multimodal.choices import ids_of
from signstep.domains.multimodal.fusion import FOLDER, nlvr_network

LENGTH, MOST = 24, 7
SIZES = (10, 20, 30)
WALLS = ("left", "top", "right", "bottom")


class Pairs(NamedTuple):
    """What was read.

    Attributes:
        images: (N, 3, 40, 160).
        paths: of the images.
        sentences: that people wrote.
        labels: (N,), 1 for true.
        groups: (N,), the number of the scene.
        boxes: the objects themselves.
    """

    images: Tensor
    paths: tuple[str, ...]
    sentences: tuple[str, ...]
    labels: Tensor
    groups: Tensor
    boxes: tuple[Scene, ...]


class Made(NamedTuple):
    """Scenes as objects (N, 3, 7, 16), sentences (N, 24), truth (N,), and whether a scene is of towers (N,)."""

    objects: Tensor
    said: Tensor
    truth: Tensor
    towers: Tensor

    def rows(self, index: Tensor) -> "Made":
        """Those at ``index``."""
        return Made(*(part[index] for part in self))


def read(folder: Path) -> Pairs:
    """The pairs whose image is there."""
    paths, sentences, labels, groups, boxes = [], [], [], [], []
    for line in (folder / "dev.json").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        path = Path("images") / entry["directory"] / f"dev-{entry['identifier']}-0.png"
        if (folder / path).is_file():
            paths.append(str(path))
            sentences.append(entry["sentence"])
            labels.append(int(entry["label"] == "true"))
            groups.append(int(entry["identifier"].partition("-")[0]))
            boxes.append(entry["structured_rep"])
    pictures = [Picture(path, lambda path=path: folder / path) for path in paths]  # type: ignore[misc]
    images = next(read_images(pictures, (3, *SIZE), SIZE, [len(pictures)]))
    numbers = (torch.tensor(labels), torch.tensor(groups))
    return Pairs(images, tuple(paths), tuple(sentences), *numbers, tuple(boxes))


def held_out(groups: Tensor) -> Tensor:
    """Every fourth scene."""
    return groups % 4 == 0


def vocabulary(sentences: Sequence[str]) -> list[str]:
    """All words, in alphabetical order."""
    return sorted({word for said in sentences for word in re.findall(r"\w+", said.lower())})


def objects_of(boxes: Scene) -> Tensor:
    """The annotation as the image branch would give it: (3, 7, 16), zeros where there is no more object."""
    found = torch.zeros(3, MOST, FEATURES)
    for number, box in enumerate(boxes):
        for place, item in enumerate(box[:MOST]):
            looks = (list(SHADES).index(item["color"]), FORMS.index(item["type"]), SIZES.index(item["size"]))
            row = found[number, place]
            row[0] = 1
            for sort, one in enumerate(looks):
                row[1 + 3 * sort + one] = 1
            row[10] = (item["x_loc"] + item["size"] / 2) / 100
            row[11] = (item["y_loc"] + item["size"] / 2) / 100
            row[12:] = torch.tensor([float(walls(item)[wall]) for wall in WALLS])
    return found


def cells_of(objects: Tensor) -> Tensor:
    """Objects (..., 7, 16) by the cell that their middle lies in, (..., 100, 16)."""
    place = (objects[..., 10:12] * CELLS).long().clamp(0, CELLS - 1)
    cell = (place[..., 1] * CELLS + place[..., 0]).unsqueeze(-1).expand_as(objects)
    cells = objects.new_zeros(*objects.shape[:-2], CELLS * CELLS, FEATURES)
    return cells.scatter_add_(-2, cell, objects)


def made(count: int, words: WordTokenizer, chance: random.Random, known: Sequence[Scene]) -> Made:
    """Pairs of this code; a third of the scenes are ``known`` ones."""
    scenes = [chance.choice(known) if chance.random() < 1 / 3 else random_scene(chance) for _ in range(count)]
    claims = [sentence(scene, chance) for scene in scenes]
    said = ids_of(words, [text for text, _ in claims], LENGTH)
    truth = torch.tensor([int(true) for _, true in claims])
    towers = torch.tensor([is_towers(scene) for scene in scenes])
    return Made(torch.stack([objects_of(scene) for scene in scenes]), said, truth, towers)


class Exchange:
    """Colours, shapes and sides exchanged in objects and words alike, which leaves the truth as it is."""

    def __init__(self, words: WordTokenizer) -> None:
        self.words = words
        self.colours = [self._table([("yellow",), ("black",), ("blue",)], order) for order in permutations(range(3))]
        shapes = [("circle", "circles"), ("square", "squares"), ("triangle", "triangles")]
        self.shapes = [self._table(shapes, order) for order in permutations(range(3))]
        self.fixed = torch.tensor([words.encode(word)[0] for word in ("grey", "squere", "cirlce", "ablue", "blccks")])

    def _table(self, names: Sequence[tuple[str, ...]], order: Sequence[int]) -> Tensor:
        table = torch.arange(self.words.size)
        for group, other in zip(names, order, strict=True):
            for one, two in zip(group, names[other], strict=True):
                table[self.words.encode(one)[0]] = self.words.encode(two)[0]
        return table

    def __call__(self, pairs: Made, generator: torch.Generator) -> Made:
        """Half of the rows as they are; words that look alike by a slip, and "grey square", keep theirs."""
        objects, said = pairs.objects.clone(), pairs.said.clone()
        held = torch.isin(said, self.fixed).any(1) | (torch.rand(len(said), generator=generator) < 0.3)
        for sort, tables in ((0, self.colours), (1, self.shapes)):
            choice = torch.randint(6, (len(said),), generator=generator)
            for number, order in enumerate(permutations(range(3))):
                rows = (choice == number) & ~held & ~(pairs.towers if sort else torch.zeros_like(held))
                index = rows.nonzero().squeeze(1)
                said[index] = tables[number][said[index]]
                first = 1 + 3 * sort
                before = pairs.objects[index][..., first : first + 3]
                for one, other in enumerate(order):
                    objects[index, ..., first + other] = before[..., one]
        right = torch.isin(said, torch.tensor(self.words.encode("right"))).any(1)
        index = (~right & (torch.rand(len(said), generator=generator) < 0.5)).nonzero().squeeze(1)
        turned = objects[index]
        turned[..., 10] = turned[..., 0] * (1 - turned[..., 10])
        objects[index] = turned[..., [*range(12), 14, 13, 12, 15]]
        return Made(objects, said, pairs.truth, pairs.towers)


def train_eyes(model: BoxesNet, pairs: Pairs, rows: Tensor, *, steps: int = 1200) -> None:
    """The image branch: binary cross-entropy of presence, and of what an object looks like where there is one."""
    chance, generator = random.Random(1), torch.Generator().manual_seed(1)
    optimiser = torch.optim.AdamW(model.image_branch.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    real = torch.stack([cells_of(objects_of(pairs.boxes[row])) for row in rows.tolist()])
    for step in range(steps):
        scenes = [random_scene(chance) for _ in range(12)]
        index = torch.randint(len(rows), (12,), generator=generator)
        images = torch.cat([torch.stack([picture(scene, SIZE) for scene in scenes]), pairs.images[rows[index]]])
        truth = torch.cat([torch.stack([cells_of(objects_of(scene)) for scene in scenes]), real[index]])
        loss = seen_loss(model.image_branch.raw(images), truth)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 200 == 199:
            print("eyes", step + 1, round(loss.item(), 4), flush=True)


def seen_loss(raw: Tensor, truth: Tensor) -> Tensor:
    """Of cells (R, 3, 100, 16)."""
    there = truth[..., 0] > 0
    loss = F.binary_cross_entropy_with_logits(raw[..., 0], truth[..., 0].clamp(max=1), reduction="sum")
    one, right = raw[there], truth[there]
    for first in (1, 4, 7):
        loss = loss + F.cross_entropy(one[:, first : first + 3], right[:, first : first + 3].argmax(1), reduction="sum")
    inside = right[:, 10:12] * CELLS - (right[:, 10:12] * CELLS).floor()
    loss = loss + 4 * F.mse_loss(one[:, 10:12].sigmoid(), inside, reduction="sum")
    loss = loss + F.binary_cross_entropy_with_logits(one[:, 12:], right[:, 12:], reduction="sum")
    return loss / there.sum().clamp_min(1)


def train_reason(model: BoxesNet, pairs: Pairs, rows: Tensor, words: WordTokenizer, *, steps: int, pool: int) -> None:
    """All but the image branch, on annotated objects; people's sentences come in more and more."""
    chance, generator = random.Random(2), torch.Generator().manual_seed(2)
    known = [pairs.boxes[row] for row in rows.tolist()]
    people = Made(
        torch.stack([objects_of(boxes) for boxes in known]),
        ids_of(words, [pairs.sentences[row] for row in rows.tolist()], LENGTH),
        pairs.labels[rows],
        torch.tensor([is_towers(boxes) for boxes in known]),
    )
    exchange, batch = Exchange(words), 64
    parts = [part for name, part in model.named_parameters() if not name.startswith("image_branch")]
    optimiser = torch.optim.AdamW(parts, 1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    ours = made(pool, words, chance, known)
    model.train()
    began, total = time.process_time(), 0.0
    for step in range(steps):
        if step % 500 == 499:  # new pairs in place of old ones
            ours = made(pool, words, chance, known)
        share = 0.05 + 0.25 * step / steps
        theirs = int(batch * share)
        mixed = [
            ours.rows(torch.randint(pool, (batch - theirs,), generator=generator)),
            people.rows(torch.randint(len(people.truth), (theirs,), generator=generator)),
        ]
        now = exchange(Made(*map(torch.cat, zip(*mixed, strict=True))), generator)
        lost = (torch.rand(now.said.shape, generator=generator) < 0.02) & (now.said > 1)
        said = now.said.masked_fill(lost, 1)[:, : int((now.said > 0).sum(1).max())]
        loss = F.cross_entropy(model.judge(now.objects, said), now.truth, label_smoothing=0.03)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parts, 1.0)
        optimiser.step()
        schedule.step()
        total += loss.item()
        if step % 250 == 249:
            print("reason", step + 1, round(total / 250, 4), f"{time.process_time() - began:.0f} s", flush=True)
            total = 0.0
    model.eval()


@torch.no_grad()
def report(model: BoxesNet, pairs: Pairs, ids: Tensor) -> str:
    """Accuracy on training and held-out scenes, and what the more frequent answer would give."""
    model.eval()
    right = torch.cat(
        [model(*part).argmax(1) for part in zip(torch.split(pairs.images, 64), torch.split(ids, 64), strict=True)]
    )
    right = right == pairs.labels
    held = held_out(pairs.groups)
    most = int(pairs.labels[~held].float().mean() > 0.5)
    majority = float((pairs.labels[held] == most).float().mean())
    return (
        f"right: {float(right[~held].float().mean()):.1%} of {int((~held).sum())} trained on, "
        f"{float(right[held].float().mean()):.1%} of {int(held.sum())} held out; always the same answer {majority:.1%}"
    )


def train(pairs: Pairs, words: WordTokenizer, *, steps: int = 12000) -> BoxesNet:
    """The two parts after each other; the last step's weights."""
    torch.manual_seed(0)
    model = nlvr_network()
    rows = (~held_out(pairs.groups)).nonzero().squeeze(1)
    train_eyes(model, pairs, rows)
    train_reason(model, pairs, rows, words, steps=steps, pool=8192)
    return model.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    data = read(Path(sys.argv[1]))
    tokenizer = WordTokenizer.of(vocabulary(data.sentences))
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    if folder is not None:
        (FOLDER / "nlvr.txt").write_text("\n".join(tokenizer.words) + "\n", encoding="utf-8")
    trained = train(data, WordTokenizer.read(FOLDER / "nlvr.txt"))
    print(report(trained, data, ids_of(tokenizer, data.sentences, LENGTH)))
    if folder is not None:
        save_file({name: part.half() for name, part in trained.state_dict().items()}, folder / "nlvr.safetensors")
