"""One example at several sizes of its change: which one, which points, what it costs, and that verify asks again."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.evidence import Evidence
from signstep.auditing.gates import Gate
from signstep.auditing.knob import SHARES, Knob, chosen, preferred, turned
from signstep.auditing.knob_check import knob as check
from signstep.auditing.recount import recount
from signstep.auditing.result import Result

ROWS, EPS = 24, 16 / 255


class Counted(nn.Module):
    """A linear classifier of small pictures that counts the rows it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3, bias=False)
        with torch.no_grad():
            weight = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
            self.head.weight.copy_(weight - weight.mean(1, keepdim=True))
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        scores: Tensor = self.head(x.flatten(1))
        return scores


def data() -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 256, (ROWS, 3, 2, 2), generator=torch.Generator().manual_seed(3)) / 255
    return x, Counted()(x).argmax(1).detach()


def audited(
    net: nn.Module | ss.Model | None = None, threat: Any = None, **more: Any
) -> tuple[Result, dict[str, Tensor]]:
    kept = Evidence()
    run = ss.Run(evidence=kept, shard=more.pop("shard", None))
    more = {"attacks": ["fgsm", "pgd:steps=4"], **more}
    result = ss.audit(net or Counted().eval(), [data()], threat=threat or ss.linf("16/255"), run=run, **more)
    return result, kept.tensors()


def asked(result: Result, points: dict[str, Tensor]) -> Any:
    """What verify says of it, with the model at hand."""
    declared = ss.Model(Counted().eval())
    return check(result, points, declared.predictor(declared.space("raw")), "auto")


@pytest.mark.parametrize(
    ("threat", "order"),
    [(ss.linf("16/255"), torch.inf), (ss.l2(0.25), 2), (ss.l1(0.6), 1), (ss.linf("16/255", grid=255), torch.inf)],
)
def test_the_change_is_that_of_the_saved_point_at_every_size(threat: Any, order: float) -> None:
    result, points = audited(threat=threat)
    knob = result.knob
    assert knob is not None
    place = points["row"].tolist().index(knob.row)
    one = {name: part[place : place + 1] for name, part in points.items()}
    eps = result.terms["eps_value"]
    length = result.per_example.distances[result.attacks[int(one["attack"])].name][knob.row]
    assert length is not None
    x = turned(one, result.terms, length)
    assert x.dtype == one["x"].dtype
    assert torch.equal(x[SHARES.index(1.0)], one["x_adv"][0])
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    change = (x - one["x"]).flatten(1)
    sizes = torch.linalg.vector_norm(change, order, dim=1)
    step = 1 / 255 if result.terms["threat_terms"]["grid"] else 0.0
    for share, found in zip(SHARES, sizes.tolist(), strict=True):
        assert found <= share * eps * (1 + 1e-4) + 12 * step
        if share < 1 and not step:
            assert found == pytest.approx(share * eps, rel=1e-3)
    if step:
        assert torch.allclose(255 * x, (255 * x).round(), atol=1e-3)
    net = Counted().eval()
    assert tuple(net(x).argmax(1).tolist()) == knob.answers
    assert net(x).softmax(1).amax(1).tolist() == pytest.approx(knob.confidence, abs=1e-6)
    assert knob.eps == tuple(share * eps for share in SHARES)
    assert knob.answers[SHARES.index(1.0)] != result.per_example.answers["clean"][knob.row]
    assert asked(result, points).state == "ok"


def test_it_costs_one_pass_for_each_size_of_one_example() -> None:
    with_it, without = Counted().eval(), Counted().eval()
    result, points = audited(with_it)
    plain = ss.audit(without, [data()], threat=ss.linf("16/255"), attacks=["fgsm", "pgd:steps=4"])
    # Beside them, each kept point is asked for its confidence, untouched and attacked.
    assert with_it.rows - without.rows == len(SHARES) + 2 * len(points["row"])
    assert plain.knob is None
    assert result.per_example == plain.per_example


def test_the_example_follows_from_the_record_alone() -> None:
    smallest = [None, 0.001, 0.9, 0.5, 0.6]
    assert [preferred(size, 1.0) for size in (None, 0.25, 0.26, 1.0, 1.01)] == [False, False, True, True, False]
    assert chosen([0, 1, 4, 3, 2], smallest, 1.0) == 4
    assert chosen([1, 0], smallest, 1.0) == 1
    result, points = audited()
    assert result.knob is not None
    rows = [row for row in points["row"].tolist() if preferred(result.per_example.smallest_eps[row], EPS)]
    assert result.knob.row == min(rows or points["row"].tolist())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shards_joined_have_the_knob_of_the_whole(count: int) -> None:
    shards = [audited(shard=(number, count))[0] for number in range(count)]
    assert ss.merge(shards).knob == audited()[0].knob


@pytest.mark.parametrize(
    "change",
    [
        {"row": ROWS - 1},
        {"eps": (0.1, 0.2, 0.3, 0.4)},
        {"eps": (0.1,)},
        {"answers": (0, 0, 0, 0)},
        {"answers": (0,)},
        {"confidence": (0.9, 0.9, 0.9, 0.9)},
        {"confidence": ()},
        {"confidence": (0.5,)},
    ],
)
def test_a_false_field_is_found(change: dict[str, Any]) -> None:
    result, points = audited()
    assert isinstance(result.knob, Knob)
    lie = replace(result.knob, **change)
    assert lie != result.knob
    found = asked(replace(result, knob=lie), points)
    assert found.state == "FAIL", found


def test_another_model_and_no_model() -> None:
    result, points = audited()
    other = Counted().eval()
    with torch.no_grad():
        other.head.weight.mul_(-1)
    declared = ss.Model(other)
    assert check(result, points, declared.predictor(declared.space("raw")), "auto").state == "FAIL"
    assert check(result, points).state == "open"
    assert check(result, {}).state == "open"
    assert check(replace(result, knob=None), points).state == "ok"


class Noisy(Counted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.001 * torch.randn_like(x))


@pytest.mark.parametrize("why", ["random", "flat", "no evidence", "two inputs", "nothing fell", "kept mode"])
def test_where_it_has_no_meaning_there_is_none(why: str) -> None:
    x, y = data()
    kept = Evidence()
    run = ss.Run(evidence=None if why == "no evidence" else kept)
    net: Any = Noisy().eval() if why == "random" else Counted().eval()
    threat: Any = ss.linf("16/255")
    batch: Any = (x, y)
    if why == "flat":
        batch = (x.flatten(1), y)
    elif why == "two inputs":
        inner = net

        class Two(nn.Module):
            def forward(self, a: Tensor, b: Tensor) -> Tensor:
                scores: Tensor = inner(a) + 0 * b.sum()
                return scores

        net, batch, threat = Two().eval(), ({"a": x, "b": x}, y), {"a": threat}
    elif why == "nothing fell":
        threat = ss.linf(1e-9)
    elif why == "kept mode":
        net = ss.Model(net, mode="keep")
    result = ss.audit(net, [batch], threat=threat, attacks=["fgsm"], curve=False, run=run)
    assert result.knob is None
    assert Result.from_json(result.to_json()) == result


def test_the_record_keeps_it() -> None:
    result, _ = audited()
    assert result.knob is not None
    assert Result.from_json(result.to_json()) == result


def test_gates_agree_with_the_counts() -> None:
    result, _ = audited()
    share = result.robust_accuracy
    honest = (Gate("fail-under", 0.0, True), Gate("fail-under", share, True), Gate("fail-under", 1.0, share == 1))
    assert recount(replace(result, gates=(*honest, Gate("baseline", None, False)))).holds
    lies = (
        Gate("fail-under", 0.0, False),
        Gate("fail-under", 1.0, True),
        Gate("fail-under", None, True),
        Gate("fail-under", 1.5, False),
        Gate("baseline", 0.5, True),
    )
    for lie in lies:
        assert not recount(replace(result, gates=(lie,))).holds, lie
    assert not recount(replace(result, partial=True, gates=(Gate("baseline", None, True),))).holds
