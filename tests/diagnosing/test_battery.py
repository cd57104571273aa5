"""Each test of the battery fires on a small network that has what it looks for, and not on its healthy twin."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import signstep as ss
from signstep.diagnosing.battery import TESTS, one_step, order
from signstep.diagnosing.battery.pairs import Pair, adjusted
from signstep.diagnosing.test import Test
from signstep.explain import explain
from written_down import written_down

sys.path.insert(0, str(Path(__file__).parent))
from specimens import CASES, HEALTHY, NET, ROUNDED, Specimen, Through, crawl, data

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


def test_three_reasons_why_one_step_is_not_enough_are_told_apart() -> None:
    trained, _ = CASES["one-step"]
    (suspect,) = trained.seen("one-step").suspects
    assert suspect.cause in (one_step.TRAINED, one_step.CURVED)


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
