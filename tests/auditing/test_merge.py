"""Shards joined give the record of one audit; what does not belong together is named."""

from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import signstep as ss
from flat import flat
from signstep.auditing.evidence import Evidence
from signstep.auditing.merge import merge_points
from signstep.auditing.rescore import recount
from signstep.auditing.result import Result
from signstep.errors import InputError


class RowNet(nn.Module):
    """No operation looks across rows, so that a row gets the same bits in every batch."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        parts = []
        for shape in ((12, 8), (4, 12)):
            same, own = (torch.Generator().manual_seed(number) for number in (0, seed))
            part = torch.randn(shape, generator=same, dtype=torch.float64)
            parts.append(nn.Parameter(part + 0.3 * torch.randn(shape, generator=own, dtype=torch.float64)))
        self.first, self.second = parts
        with torch.no_grad():
            self.first[:, 0] = 0  # one coordinate whose gradient is zero

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu((x.unsqueeze(1) * self.first).sum(2))
        return (hidden.unsqueeze(1) * self.second).sum(2)


ROWS = 23


@cache
def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        y = RowNet()(x).argmax(1)
    y[:4] = (y[:4] - 1) % 4
    return x, y


WAYS: dict[str, dict[str, Any]] = {
    "attacks": {"attacks": ["random-sign", "fgsm", "pgd:steps=3", "fmn:steps=5"], "curve_attacks": ["random-sign"]},
    "ladder": {"ladder": ["fgsm", "fmn:steps=5", "square:queries=10 near<=0.9", "pgd:steps=3"]},
    # Of some shards nothing is left for the last rung, which looks for the smallest change.
    "few left": {"ladder": ["pgd:steps=8,restarts=2", "fmn:steps=5"], "threat": ss.linf(0.6, box=None)},
    "targeted": {"attacks": ["fgsm", "pgd:steps=3"], "target": "next", "curve": False},
    "others": {"ladder": ["fgsm", "pgd:steps=3"], "transfer_to": {"b": RowNet(1), "c": RowNet(2)}},
    "a radius each": {
        "attacks": ["fgsm"],
        "threat": ss.linf(torch.linspace(0.05, 0.4, ROWS, dtype=torch.float64), box=None),
    },
}


def audited(way: str, shard: tuple[int, int] | None = None, **more: Any) -> Result:
    model, options = flat(RowNet(), {"threat": ss.linf(0.15, box=None), "shard": shard, **WAYS[way], **more})
    return ss.audit(model, [data()], **options)


@cache
def whole(way: str) -> Result:
    return audited(way)


def timeless(result: Result) -> Result:
    """All but the seconds, which no two runs share."""
    return replace(result, seconds=0.0, attacks=tuple(replace(entry, seconds=0.0) for entry in result.attacks))


@settings(max_examples=25, deadline=None)
@given(way=st.sampled_from(sorted(WAYS)), count=st.integers(1, 6), order=st.randoms(use_true_random=False))
def test_shards_joined_are_the_audit_of_all(way: str, count: int, order: Any) -> None:
    shards = [audited(way, (number, count)) for number in range(count)]
    order.shuffle(shards)
    merged = ss.merge(shards)
    assert timeless(merged) == timeless(whole(way))
    assert merged.seconds == pytest.approx(sum(shard.seconds for shard in shards), abs=1e-3)
    assert recount(merged).holds
    assert Result.from_json(merged.to_json()) == merged


def test_the_cases_are_not_trivial() -> None:
    assert 0 < whole("ladder").held < whole("ladder").clean_right
    left = audited("few left", (0, 6)).per_example.nearest, whole("few left").per_example.nearest
    assert (list(left[0]), list(left[1])) == ([], ["fmn:steps=5"])
    assert whole("others").attacks[0].transfers["b"][1] > 0
    assert whole("ladder").attacks[0].zero == 1 / 8
    assert {field.name for field in fields(Result)} == set(vars(whole("ladder")))


def test_saved_points_stand_where_their_examples_are() -> None:
    kept = [Evidence() for _ in range(3)]
    shards = [audited("ladder", (number, 3), evidence=kept[number]) for number in range(3)]
    everything = Evidence()
    one = audited("ladder", evidence=everything)
    points = merge_points(shards, [part.tensors() for part in kept])
    wanted = everything.tensors()
    order = wanted["row"].argsort()
    assert one.fooled == len(order) > 3
    assert {name: part.tolist() for name, part in points.items()} == {
        name: part[order].tolist() for name, part in wanted.items()
    }
    assert merge_points(shards, [{}, {}, {}]) == {}


def pair() -> list[Result]:
    return [audited("attacks", (number, 2)) for number in range(2)]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (list, "no results"),
        (lambda: pair()[:1], "shards are missing: 1/2"),
        (lambda: [pair()[0]] * 2, "shard 0/2 is there twice"),
        (lambda: [whole("attacks")], "of a whole audit"),
        (lambda: [pair()[0], audited("attacks", (1, 3))], "shard 1/3, the first is one of 2"),
        (lambda: [pair()[0], replace(pair()[1], partial=True)], "shard 1/2 is partial"),
        (lambda: [pair()[0], audited("attacks", (1, 2), seed=5)], "differ in terms: seed: 0 and 5"),
        (
            lambda: [pair()[0], audited("attacks", (1, 2), threat=ss.linf(0.07, box=None))],
            "differ in .*0.15.* and .*0.07",
        ),
        (lambda: [pair()[0], audited("attacks", (1, 2), attacks=["fgsm"], curve_attacks=[])], "differ in attacks"),
        (lambda: [pair()[0], audited("attacks", (1, 2), curve=[0.1])], "differ in sizes of the curve"),
        (lambda: [pair()[0], audited("attacks", (1, 2), hashes={"data": "a"})], "differ in hashes: data"),
        (lambda: [pair()[0], audited("attacks", (1, 2), name="m")], "differ in model"),
        (lambda: [pair()[0], audited("attacks", (1, 2), limit=9)], r"\[12, 4\] examples"),
        (lambda: [pair()[0], replace(pair()[1], versions={"signstep": "9"})], "differ in versions: signstep"),
    ],
)
def test_what_does_not_belong_together_is_named(results: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ss.merge(results())
