"""Each test of the battery fires on a small network that has what it looks for, and not on its healthy twin."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.recipes import recipe
from signstep.diagnosing.battery import TESTS, losses, mode, one_step, order
from signstep.diagnosing.battery.pairs import Pair, adjusted
from signstep.diagnosing.test import Test
from signstep.engine.keys import Key
from signstep.engine.outcome import Found
from signstep.engine.problem import Problem
from signstep.engine.region import Region
from signstep.engine.tree import Tree
from signstep.explain import explain
from written_down import written_down

sys.path.insert(0, str(Path(__file__).parent))
from specimens import CASES, COUNT, HEALTHY, NET, ROUNDED, SIDE, Specimen, Through, crawl, data, loud, network

pytestmark = pytest.mark.filterwarnings("ignore::signstep.SignstepWarning")


@pytest.mark.parametrize("name", list(TESTS.own))
def test_it_fires_on_what_it_looks_for_and_not_on_a_healthy_twin(name: str) -> None:
    ill, well = written_down(CASES, name, "a network that has what it looks for, and its healthy twin")
    seen = ill.seen(name)
    assert seen.asked, seen.told
    assert seen.fired, seen.told
    assert {one.cause for one in seen.suspects} <= set(TESTS[name].causes)
    assert seen.suspects
    quiet = well.seen(name)
    assert quiet.asked, quiet.told
    assert not quiet.fired, quiet.told
    assert quiet.suspects == ()


@pytest.mark.parametrize("name", list(TESTS.own))
def test_a_row_says_all_that_a_reader_must_know(name: str) -> None:
    row = TESTS[name]
    assert row.id == name
    for text in (row.question, row.statistic, row.threshold, row.paper, row.cures, row.cost):
        assert text
    assert row.causes
    page = explain(name)
    for part in (row.question, "How to read it", "Pitfalls", "Measured", "Fires", "Source"):
        assert part in page


def test_the_table_is_open() -> None:
    mine = replace(TESTS["graph"], id="mine")
    with TESTS.lent(mine):
        assert TESTS["mine"] is mine
    with pytest.raises(ss.SignstepError, match=r"name a signstep\.diagnosing Test"):
        TESTS.add(7, "seven")
    assert all(isinstance(row, Test) for row in TESTS.values())


def test_the_cut_is_named_by_step_module_file_and_line() -> None:
    told = ROUNDED.seen("graph").told
    assert "round()" in told
    assert "specimens.py:" in told

    class Inside(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.detach()

    net = nn.Sequential(nn.Identity(), Inside(), NET)
    told = Specimen(net).seen("graph").told
    assert "detach() in 1 (test_battery.py:" in told


def test_what_leaves_torch_in_another_shape_blocks_and_asks_for_a_likeness() -> None:
    def outside(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = net(torch.from_numpy(x.detach().numpy()[:, :, ::2, ::2].repeat(2, 2).repeat(2, 3)))
        return out

    def coded(net: nn.Module, x: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
        return 4 * torch.from_numpy(x.detach().numpy().reshape(len(x), -1)[:, :3].copy())

    (suspect,) = Specimen(Through(outside)).seen("graph").suspects
    assert not suspect.blocks  # the shape is what it was: the identity stands in
    (suspect,) = Specimen(Through(coded)).seen("graph").suspects
    assert suspect.blocks
    assert "ss.bpda(" in suspect.remedy


def test_planted_points_are_found_by_who_can_search_and_not_by_who_cannot() -> None:
    bench = HEALTHY.bench()
    seen = TESTS["self-test"].run(bench)
    share, chance = bench.seen["self-test"]
    assert seen.value == share >= 0.9
    assert chance <= 0.2
    crawling = Specimen(NET, crawl(3)).seen("self-test")
    assert crawling.fired
    assert crawling.value is not None
    assert crawling.value < 0.5


def test_a_step_that_does_not_fit_is_named() -> None:
    """Where an iterated search is weaker than FGSM."""
    seen = Specimen(NET, crawl(30)).seen("order")
    named = {one.because.partition(":")[0] for one in seen.suspects if one.cause == order.STEP}
    assert named == {"one step beats many", "fewer steps beat more"}


def test_points_outside_of_the_set_are_a_fault_of_the_attack() -> None:
    bench = HEALTHY.bench()
    assert bench.named is not None
    bench.named = replace(bench.named, unverified=3)
    seen = TESTS["order"].run(bench)
    assert seen.fired
    assert any(one.cause == order.FAULT and "projects or clips" in one.because for one in seen.suspects)


@dataclass(frozen=True)
class Loose:
    """PGD whose points are moved on afterwards, by somebody who forgot what is allowed."""

    move: Callable[[Tensor, Tensor], Tensor]
    name: str = "loose"
    steps: int = 5
    draws: bool = True
    from_clean: bool = False

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
        found = recipe("pgd:steps=5")(problem, region, clean, key, begin)
        assert isinstance(found.x, Tensor)
        assert isinstance(clean, Tensor)
        return found._replace(x=self.move(clean, found.x))


# Each way in which an iterated search falls behind one step: what is asked, the test that sees it, and its words.
WAYS: dict[str, tuple[Specimen, str, str, str]] = {
    "step size": (Specimen(NET, crawl(30)), "order", order.STEP, "one step beats many"),
    "projection": (
        Specimen(NET, Loose(lambda x, u: (x + 3 * (u - x)).clamp(0, 1))),
        "order", order.FAULT, "leave the ball: it does not project",
    ),
    "clipping": (
        Specimen(NET, Loose(lambda x, _: x - 0.45), eps=0.5), "order", order.FAULT,
        "leave the box: it does not clip",
    ),
    "mode": (
        Specimen(ss.Model(network(norm=True).train(), mode="keep"), "pgd:steps=5"), "mode", mode.CAUSE, "training mode",
    ),
    "loss": (Specimen(Through(loud), search=ss.Search(loss="plain-ce")), "losses", losses.SATURATED, "alone fells"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_the_way_in_which_many_steps_fall_behind_one_is_named(way: str) -> None:
    ill, test, cause, said = WAYS[way]
    seen = ill.seen(test)
    named = [one for one in seen.suspects if one.cause == cause]
    assert named, seen.told
    assert any(said in one.because for one in named), named
    others = {"leave the ball", "leave the box"} - {said.partition(":")[0]}
    assert not any(other in one.because for one in named for other in others)


def bent(_: nn.Module, x: Tensor) -> Tensor:
    """Linear along the first step, which leads away from a way that climbs three times as fast."""
    a, b = x.flatten(1)[:, 0] - 0.5, x.flatten(1)[:, 1] - 0.5
    z = a + b + 3 * torch.relu(a - b - 0.01) - 0.22
    return torch.stack([-z, z], 1)


def turned(_: nn.Module, x: Tensor) -> Tensor:
    """Curved: what the gradient promises at the start is gone half-way, and the boundary lies aside."""
    a, b = x.flatten(1)[:, 0] - 0.5, x.flatten(1)[:, 1] - 0.5
    z = 0.02 * torch.tanh(50 * a) + 0.02 * b + 60 * torch.relu(b - a).square() - 0.15
    return torch.stack([-z, z], 1)


def tripped(_: nn.Module, x: Tensor) -> Tensor:
    """The boundary lies half-way, and the whole step leads over it: what training against one step leaves behind."""
    a = (x.flatten(1) - 0.5).sum(1) / (SIDE * SIDE)
    z = 0.4 * torch.sin(a * torch.pi / 0.1) - 0.3
    return torch.stack([-z, z], 1)


def grey() -> tuple[Tensor, Tensor]:
    x = 0.5 + 0.002 * torch.randn(COUNT, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    return x, torch.zeros(COUNT, dtype=torch.int64)


REASONS = {one_step.MORE: bent, one_step.CURVED: turned, one_step.TRAINED: tripped}


@pytest.mark.parametrize("cause", REASONS)
def test_three_reasons_why_one_step_is_not_enough_are_told_apart(cause: str) -> None:
    seen = Specimen(Through(REASONS[cause]), "fgsm", eps=0.1, data=grey).seen("one-step")
    assert seen.fired, seen.told
    (suspect,) = seen.suspects
    assert suspect.cause == cause, seen.told
    assert "steps find" in seen.told


def test_paired_tests_are_exact_and_corrected_for_their_number() -> None:
    """The oracle is SciPy."""
    stats = pytest.importorskip("scipy.stats")
    pairs = [Pair("a", 9, 0), Pair("b", 12, 3), Pair("c", 1, 4), Pair("d", 0, 0), Pair("e", 20, 6)]
    raw = [
        float(stats.binomtest(one.lost, one.won + one.lost, 0.5).pvalue) if one.won > one.lost else 1.0 for one in pairs
    ]
    assert [one.p for one in pairs] == pytest.approx(raw)
    order_ = sorted(range(len(raw)), key=raw.__getitem__)
    wanted, most = [0.0] * len(raw), 0.0
    for rank, place in enumerate(order_):
        most = max(most, min(1.0, (len(raw) - rank) * raw[place]))
        wanted[place] = most
    assert list(adjusted(pairs)) == pytest.approx(wanted)


def test_what_a_model_cannot_be_asked_is_not_asked() -> None:
    x, y = data()
    net = NET

    def answers(u: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = net(u).argmax(1)
        return found

    labels = Specimen(answers, "hop-skip-jump:queries=20", data=lambda: (x[:6], y[:6]))
    for name in ("graph", "health", "losses", "self-test"):
        seen = labels.seen(name)
        assert not seen.asked
        assert "labels" in seen.told or "function" in seen.told or "gradient" in seen.told or "one loss" in seen.told
    assert not Specimen(net.forward).seen("mode").asked
    assert not Specimen(NET, "standard").seen("descent").asked
