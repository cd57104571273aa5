"""The model of NLVR's boxes: what must not matter to it, and that it has learnt to read."""

import random
import sys
from pathlib import Path

import pytest
import torch

from signstep.domains.language.tokenizers import WordTokenizer
from signstep.domains.multimodal.boxes import SIZE, BoxesNet
from signstep.domains.multimodal.choices import ids_of
from signstep.domains.multimodal.fusion import FOLDER, nlvr_model

EXAMPLES = Path(__file__).parents[3] / "examples" / "multimodal"


@pytest.fixture
def net() -> BoxesNet:
    torch.manual_seed(0)
    return BoxesNet(30).eval()


def test_neither_the_order_of_boxes_nor_padding_nor_neighbours_matter(net: BoxesNet) -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, *SIZE, generator=draws)
    said = torch.randint(2, 30, (3, 9), generator=draws)
    said[1, 5:] = 0
    with torch.no_grad():
        scores = net(images, said)
        left, gap, middle, right = images[..., :40], images[..., 40:60], images[..., 60:100], images[..., 120:]
        turned = net(torch.cat([right, gap, left, gap, middle], 3), said)
        longer = net(images, torch.cat([said, torch.zeros(3, 6, dtype=torch.int64)], 1))
        alone = torch.cat([net(images[row : row + 1], said[row : row + 1]) for row in range(3)])
    for other in (turned, longer, alone):
        assert torch.allclose(scores, other, atol=1e-5)
    assert not torch.allclose(scores[0], scores[2], atol=1e-4)


def test_gradients_reach_the_picture_and_the_words(net: BoxesNet) -> None:
    images = torch.rand(2, 3, *SIZE).requires_grad_()
    scores = net(images, torch.tensor([[3, 4, 5], [6, 7, 0]]))
    scores[:, 1].sum().backward()
    assert images.grad is not None
    assert bool((images.grad.flatten(1).abs().amax(1) > 0).all())
    words = net.text_branch.embedding.weight.grad
    assert words is not None
    assert bool((words[[3, 4, 5, 6, 7]].abs().amax(1) > 0).all())


def test_the_shipped_weights_read_scenes_drawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes and sentences of the training's own making, but new ones: half of the answers are true."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from nlvr_scenes import picture, random_scene
    from nlvr_sentences import sentence

    chance = random.Random(99)
    scenes = [random_scene(chance) for _ in range(200)]
    claims = [sentence(scene, chance) for scene in scenes]
    truth = torch.tensor([int(true) for _, true in claims])
    words = WordTokenizer.read(FOLDER / "nlvr.txt")
    model = nlvr_model()
    with torch.no_grad():
        answer = model(
            torch.stack([picture(scene, SIZE) for scene in scenes]), ids_of(words, [text for text, _ in claims], 24)
        ).argmax(1)
    assert 80 <= int(truth.sum()) <= 120
    assert float((answer == truth).float().mean()) > 0.8
