"""Train the model of image and sentence that `signstep audit --domain multimodal` attacks by default.

Fresh scenes at every step, so nothing can be learned by heart. About three minutes on one core.
Writes ``scenes.safetensors`` into the folder given, or reports only.

    python examples/multimodal/train_scenes.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F  # noqa: N812

from signstep.domains.multimodal.choices import ids_of
from signstep.domains.multimodal.fusion import FusionNet
from signstep.domains.multimodal.scenes import LENGTH, scenes, tokenizer


def train(steps: int = 8000, batch: int = 64) -> FusionNet:
    """Adam with a cosine schedule on fresh scenes."""
    words = tokenizer()
    torch.manual_seed(0)
    model = FusionNet(words.size)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    pool = scenes(30000, seed=1)
    ids = ids_of(words, pool.sentences, LENGTH)
    generator = torch.Generator().manual_seed(2)
    for step in range(steps):
        index = torch.randint(len(ids), (batch,), generator=generator)
        loss = F.cross_entropy(model(pool.images[index], ids[index]), pool.labels[index])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 1000 == 0:
            print(step, round(loss.item(), 4), flush=True)
    return model.eval()


@torch.no_grad()
def accuracy(model: FusionNet, seed: int = 0, count: int = 1000) -> float:
    """On scenes that were not trained on."""
    held = scenes(count, seed)
    found = model(held.images, ids_of(tokenizer(), held.sentences, LENGTH)).argmax(1)
    return float((found == held.labels).float().mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained = train()
    print(f"right on 1,000 new scenes: {accuracy(trained):.1%}")
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        save_file({name: part.half() for name, part in trained.state_dict().items()}, folder / "scenes.safetensors")
