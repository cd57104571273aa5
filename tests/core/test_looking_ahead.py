"""Where a device is asked only now and then which rows have fooled, the outcome is as if it were asked each step."""

from dataclasses import fields

import pytest
import torch
from small_nets import RowNet, filled
from torch import Tensor

import signstep as ss
from signstep.engine import attack as loop

RECIPES = (
    "pgd:steps=13,restarts=3",
    "mi-fgsm:steps=9",
    "apgd:loss=margin,steps=14,targets=2",
    "odi-pgd:steps=6,restarts=2",
    "smooth-pgd:steps=11",
    "vmi-fgsm:steps=5,samples=3",
)


def _outcome(recipe: str) -> ss.Outcome:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(40, 18, generator=generator, dtype=torch.float64)
    model = filled(RowNet())
    with torch.no_grad():
        y = model(x).argmax(1)
    return ss.attack(model, x, y, threat=ss.linf(0.12), recipe=recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_looking_seldom_changes_nothing(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _outcome(recipe)
    assert 3 < int(before.fooled.sum()) < 40
    assert len(set(before.forwards[before.fooled].tolist())) > 1 or recipe.startswith("mi-fgsm"), (
        "rows leave at several steps"
    )
    for every in (2, 4, 50):
        monkeypatch.setattr(loop, "_looks_every", lambda device, every=every: every)  # noqa: ARG005
        after = _outcome(recipe)
        for part in fields(before):
            one, other = getattr(before, part.name), getattr(after, part.name)
            if isinstance(one, Tensor):
                assert torch.equal(one, other), (part.name, every)
            elif part.name == "health":
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)), every


def test_a_row_that_has_fooled_keeps_its_point_and_pays_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop that never looks before its end runs every step, and books on each row what it needed."""
    calls: list[int] = []

    class Counted(RowNet):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            out: Tensor = super().forward(x)
            return out

    x = torch.rand(30, 18, generator=torch.Generator().manual_seed(4))
    y = filled(RowNet())(x).argmax(1)
    seen = {}
    for every in (1, 50):
        calls.clear()
        monkeypatch.setattr(loop, "_looks_every", lambda device, every=every: every)  # noqa: ARG005
        seen[every] = ss.attack(filled(Counted()), x, y, threat=ss.linf(0.2), recipe="pgd:steps=20"), sum(calls)
    assert torch.equal(seen[1][0].forwards, seen[50][0].forwards)
    assert seen[50][1] > seen[1][1] + 100, "the batch did not shrink on the way"
