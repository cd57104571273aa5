"""Measure the multimodal domain: how near substitution attacks come to trying every text, and NLVR's real pairs.

    python benchmarks/multimodal.py                                          the rendered scenes
    python benchmarks/multimodal.py ../shared/data/image_text/nlvr_dev       and NLVR

The first part needs no data: for each scene every text within the budget is given to the model, which no attack can
beat, and the attacks are set beside it. The second writes the held-out pairs of NLVR (examples/multimodal/train_nlvr.py
trained on the others) as ``pairs.jsonl`` into a temporary folder and audits them by examples/multimodal/nlvr.toml.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from signstep.domains import Request, audit_case, domain
from signstep.domains.multimodal import Victim, on

ROOT = Path(__file__).parents[1]
RECIPES = ("random-sign", "fgsm", "bim:steps=20", "pgd", "pgd:restarts=3", "pgd:restarts=10")


def every_text(listed: Tensor, budget: int) -> Tensor:
    """All texts (N, L) within the budget, from the tokens on offer (L, C), the untouched one first."""
    places = [[int(token) for token in row[1:] if token >= 0] for row in listed]

    def grown(ids: list[int], first: int, left: int) -> Iterator[list[int]]:
        yield ids
        if left == 0:
            return
        for place in range(first, len(ids)):
            for token in places[place]:
                yield from grown([*ids[:place], token, *ids[place + 1 :]], place + 1, left - 1)

    return torch.tensor(list(grown(listed[:, 0].long().tolist(), 0, budget)))


def exhausted(victim: Victim, x: dict[str, Tensor], y: Tensor, budget: int) -> tuple[int, int, int]:
    """Examples right untouched; of these, those that some text within the budget fools; texts tried."""
    right = fooled = tried = 0
    for row in range(len(y)):
        texts = every_text(x["text"][row, :, 1], budget)
        image = x["image"][row : row + 1].expand(len(texts), -1, -1, -1)
        with torch.no_grad():
            wrong = victim.model(image=image, text=texts).argmax(1) != y[row]
        if not bool(wrong[0]):
            right, fooled, tried = right + 1, fooled + int(wrong.any()), tried + len(texts)
    return right, fooled, tried


def scenes(count: int = 300, budgets: tuple[int, ...] = (1, 2, 3)) -> None:
    """The attacks on text beside the search through all texts."""
    for budget in budgets:
        request = Request(limit=count, threat=f"text=substitutions:{budget}")
        case = domain("multimodal").case(request)
        victim = case.model.network
        assert isinstance(victim, Victim)
        began = time.perf_counter()
        sums = [exhausted(victim, x, y, budget) for x, y in case.batches if isinstance(x, dict) and y is not None]
        right, fooled, tried = (sum(part) for part in zip(*sums, strict=True))
        print(
            f"substitutions {budget}: every text fools {fooled} of {right} ({tried / right:.0f} texts each, "
            f"{time.perf_counter() - began:.1f} s)"
        )
        fresh = domain("multimodal").case(request)
        attacks = [on(spec, ["text"]) for spec in RECIPES]
        result = audit_case(replace(fresh, summary=lambda *_: ()), attacks=attacks)
        for entry in result.attacks:
            print(f"    {entry.name:24} {entry.fooled:4}   {entry.forwards:6.1f} passes   {entry.seconds:6.1f} s")


def nlvr(folder: Path) -> None:
    """The cross-over table of the held-out pairs."""
    sys.path.insert(0, str(ROOT / "examples" / "multimodal"))
    from train_nlvr import held_out, read

    pairs = read(folder)
    held = held_out(pairs.groups).nonzero().squeeze(1).tolist()
    print(f"NLVR: {len(held)} held-out pairs of {len(pairs.labels)}")
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "pairs.jsonl"
        table.write_text(
            "\n".join(
                json.dumps(
                    {
                        "image": str((folder / pairs.paths[row]).resolve()),
                        "sentence": pairs.sentences[row],
                        "label": ["false", "true"][int(pairs.labels[row])],
                    }
                )
                for row in held
            )
        )
        case = domain("multimodal").case(
            Request(
                model="signstep.domains.multimodal.fusion:nlvr_model",
                data=str(table),
                schema=ROOT / "examples" / "multimodal" / "nlvr.toml",
            )
        )
        print(audit_case(case))


if __name__ == "__main__":
    torch.set_num_threads(1)
    scenes()
    if len(sys.argv) > 1:
        nlvr(Path(sys.argv[1]))
