"""Train a small model of image and sentence on the development set of NLVR: is the sentence true of the image?

Suhr, Lewis, Yeh & Artzi 2017, "A Corpus of Natural Language for Visual Reasoning": rendered images of three boxes,
sentences written by people. Images of one identifier stay together in the split. Few examples and a small model: what
it reaches is printed beside the share of the more frequent answer, which is what there is to beat.

    python examples/multimodal/train_nlvr.py ../shared/data/image_text/nlvr_dev [FOLDER]
"""

import json
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from nlvr_sentences import Box, sentence
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from signstep.data.images import Picture, read_images
from signstep.domains.multimodal.choices import ids_of
from signstep.domains.multimodal.fusion import FOLDER, FusionNet, nlvr_network
from signstep.domains.multimodal.tokens import WordTokenizer

SIZE, LENGTH = (32, 128), 24
KINDS = [(colour, shape) for colour in ("Yellow", "Black", "#0099ff") for shape in ("circle", "square", "triangle")]


class Pairs(NamedTuple):
    """What was read.

    Attributes:
        images: (N, 3, 32, 128).
        paths: of the images.
        sentences: that people wrote.
        labels: (N,), 1 for true.
        groups: (N,), the number of the scene.
        counts: (N, 9), objects of each colour and shape.
        boxes: the objects themselves.
    """

    images: Tensor
    paths: tuple[str, ...]
    sentences: tuple[str, ...]
    labels: Tensor
    groups: Tensor
    counts: Tensor
    boxes: tuple[Sequence[Box], ...]


def read(folder: Path) -> Pairs:
    """The pairs whose image is there."""
    paths, sentences, labels, groups, counts, boxes = [], [], [], [], [], []
    for line in (folder / "dev.json").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        path = Path("images") / entry["directory"] / f"dev-{entry['identifier']}-0.png"
        if (folder / path).is_file():
            paths.append(str(path))
            sentences.append(entry["sentence"])
            labels.append(int(entry["label"] == "true"))
            groups.append(int(entry["identifier"].partition("-")[0]))
            items = [(item["color"], item["type"]) for box in entry["structured_rep"] for item in box]
            boxes.append(entry["structured_rep"])
            counts.append([float(items.count(kind)) for kind in KINDS])
    pictures = [Picture(path, lambda path=path: folder / path) for path in paths]  # type: ignore[misc]
    images = next(read_images(pictures, (3, *SIZE), SIZE, [len(pictures)]))
    numbers = (torch.tensor(labels), torch.tensor(groups), torch.tensor(counts))
    return Pairs(images, tuple(paths), tuple(sentences), *numbers, tuple(boxes))


def held_out(groups: Tensor) -> Tensor:
    """Every fourth scene."""
    return groups % 4 == 0


def vocabulary(sentences: tuple[str, ...]) -> list[str]:
    """All words, in alphabetical order."""
    return sorted({word for said in sentences for word in re.findall(r"\w+", said.lower())})


def boxes_shuffled(images: Tensor, generator: torch.Generator) -> Tensor:
    """The three boxes of each image in another order: no sentence speaks of their order."""
    left, middle, right = images[..., :32], images[..., 48:80], images[..., 96:]
    order = torch.randperm(3, generator=generator).tolist()
    boxes = [(left, middle, right)[number] for number in order]
    gap = images[..., 32:48]
    return torch.cat([boxes[0], gap, boxes[1], gap, boxes[2]], 3)


def train(pairs: Pairs, words: WordTokenizer, *, first: int = 5000, then: int = 700, batch: int = 48) -> FusionNet:
    """AdamW with the boxes shuffled: on sentences made from the annotation, then half of them people's.

    The image branch also learns to count objects. The last step's weights.
    """
    torch.manual_seed(0)
    generator, chance = torch.Generator().manual_seed(0), random.Random(0)
    model = nlvr_network()
    counter = nn.Linear(model.text_branch.body.hidden_size, len(KINDS))
    ids = ids_of(words, pairs.sentences, LENGTH)
    rows = (~held_out(pairs.groups)).nonzero().squeeze(1)
    optimiser = torch.optim.AdamW([*model.parameters(), *counter.parameters()], 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=first + then)
    model.train()
    for step in range(first + then):
        index = rows[torch.randint(len(rows), (batch,), generator=generator)]
        made = [sentence(pairs.boxes[row], chance) for row in index.tolist()]
        said = ids_of(words, [text for text, _ in made], LENGTH)
        truth = torch.tensor([int(true) for _, true in made])
        people = torch.rand(batch, generator=generator) < (0.15 if step < first else 0.5)
        said = torch.where(people.unsqueeze(1), ids[index], said)
        truth = torch.where(people, pairs.labels[index], truth)
        images = boxes_shuffled(pairs.images[index], generator)
        loss = F.cross_entropy(model(images, said), truth, label_smoothing=0.05)
        loss = loss + 0.1 * F.mse_loss(counter(model.image_branch(images)), pairs.counts[index])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 500 == 499:
            print(step + 1, round(loss.item(), 3), report(model, pairs, ids), flush=True)
            model.train()
    return model.eval()


@torch.no_grad()
def report(model: FusionNet, pairs: Pairs, ids: Tensor) -> str:
    """Accuracy on training and held-out scenes, and what the more frequent answer would give."""
    model.eval()
    right = model(pairs.images, ids).argmax(1) == pairs.labels
    held = held_out(pairs.groups)
    most = int(pairs.labels[~held].float().mean() > 0.5)
    majority = float((pairs.labels[held] == most).float().mean())
    return (
        f"right: {float(right[~held].float().mean()):.1%} of {int((~held).sum())} trained on, "
        f"{float(right[held].float().mean()):.1%} of {int(held.sum())} held out; always the same answer {majority:.1%}"
    )


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
