"""What a ladder writes down: rungs, queries, smallest changes, transfers; and that none of it can be changed unseen."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.evidence import Evidence
from signstep.auditing.figures import steps
from signstep.auditing.record import AttackResult, Examples
from signstep.auditing.rescore import recount
from signstep.auditing.result import Result
from signstep.engine.attack import Attack
from signstep.engine.keys import Key
from signstep.engine.outcome import Found
from signstep.engine.problem import Problem
from signstep.engine.region import Region
from signstep.engine.statistics import quantile
from signstep.engine.tree import Tree
from signstep.errors import InputError

RUNGS = ["fgsm", "ddn:steps=10", "square:queries=30 near<=0.9", "pgd:steps=5"]


def network(seed: int = 0, classes: int = 4) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, classes)).eval()


def alike() -> nn.Module:
    """Another network that answers mostly as the first."""
    other = network()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in other.parameters():
            part.add_(0.1 * torch.randn(part.shape, generator=random))
    return other


def data(rows: int = 60) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 8, generator=torch.Generator().manual_seed(2))
    y = network()(x).argmax(1)
    y[:6] = (y[:6] - 1) % 4
    return x, y


@cache
def made(**more: Any) -> Result:
    return ss.audit(
        network(), data(), threat=ss.l2(0.3, box=None), ladder=RUNGS, **more, run=ss.Run(transfer_to={"b": alike()})
    )


def test_steps_tell_what_was_known_after_each_rung() -> None:
    result = made()
    found = steps(result)
    assert [step.name for step in found] == RUNGS
    held = result.clean_right
    for step, entry in zip(found, result.attacks, strict=True):
        held -= entry.fooled
        assert (step.entered, step.fallen, step.held) == (entry.entered, entry.fooled, held)
        assert step.forwards * step.entered == pytest.approx(entry.forwards * result.examples)
    assert found[-1].held == result.held
    assert found[-1].elapsed == pytest.approx(sum(entry.seconds for entry in result.attacks))


def test_a_table_of_rungs() -> None:
    text = str(made())
    assert "ladder custom: each rung" in text
    assert max(map(len, text.splitlines())) <= 100
    for step in steps(made()):
        assert f"{step.entered:>7}  {step.fallen:>6}" in text
    assert "Queries for each example" in text
    assert "Nearest point that fools, by ddn:steps=10: median" in text
    assert "right on b" in text


def test_queries_are_quartiles_over_the_examples_that_were_met() -> None:
    result = made()
    entry, column = result.attacks[2], result.per_example.verdicts[RUNGS[2]]
    spent = [
        float(count) for count, letter in zip(result.per_example.passes[RUNGS[2]], column, strict=True) if letter != "-"
    ]
    assert len(spent) == entry.entered > 5
    assert entry.queries == tuple(quantile(spent, share) for share in (0.25, 0.5, 0.75))
    assert entry.needs == "scores"


def test_one_run_of_a_smallest_change_attack_gives_its_curve() -> None:
    sizes = [0.15, 0.2, 0.3, 0.8, 50.0]
    result = ss.audit(network(), data(), threat=ss.l2(0.3, box=None), attacks=["fgsm", "ddn:steps=20"], curve=sizes)
    lengths, clean = result.per_example.nearest["ddn:steps=20"], result.per_example.clean
    curve = result.curves["ddn:steps=20"]
    assert [point.eps for point in curve] == sizes
    for point in curve:
        near = [length is not None and length <= point.eps * (1 + 1e-6) for length in lengths]
        assert point.fooled == sum(a and b == "r" for a, b in zip(near, clean, strict=True))
    assert curve[2].fooled == result.attack("ddn:steps=20").fooled
    assert 0 < curve[2].fooled < curve[-1].fooled == result.clean_right
    right = [float(length or 0) for length, letter in zip(lengths, clean, strict=True) if letter == "r"]
    assert result.attack("ddn:steps=20").nearest == tuple(quantile(right, share) for share in (0.25, 0.5, 0.75))
    assert result.attack("fgsm").nearest is None


def test_a_later_rung_has_no_curve_since_it_met_survivors_alone() -> None:
    assert made().attacks[1].nearest is not None
    assert list(made().curves) == ["fgsm"]
    first = ss.audit(network(), data(), threat=ss.l2(0.3, box=None), ladder=["ddn:steps=10", "pgd"])
    assert list(first.curves) == ["fgsm", "ddn:steps=10"]


def test_points_shown_to_other_models_are_counted_by_hand() -> None:
    x, y = data()
    other = alike()
    result = ss.audit(
        network(), (x, y), threat=ss.linf(0.2, box=None), attacks=["fgsm", "pgd"], run=ss.Run(transfer_to={"b": other})
    )
    attacked = ss.fgsm(network(), x, y, eps=0.2, box=None)
    with torch.no_grad():
        before, after = other(x).argmax(1) == y, other(attacked).argmax(1) == y
    assert result.attack("fgsm").transfers == {"b": (int((before & ~after).sum()), int(before.sum()))}
    assert result.attack("fgsm").transfers["b"][0] > 0
    # The model itself, shown its own points, falls where it fell.
    model = network()
    same = ss.audit(
        model, (x, y), threat=ss.linf(0.2, box=None), attacks=["fgsm", "pgd"], run=ss.Run(transfer_to={"itself": model})
    )
    for entry in same.attacks:
        assert entry.transfers["itself"] == (entry.fooled, same.clean_right)


def test_on_a_ladder_only_what_a_rung_met_is_shown() -> None:
    letters = made().per_example.transfers["b"]
    for name, column in made().per_example.verdicts.items():
        assert [letter == "-" for letter in letters[name]] == [letter == "-" for letter in column]


def test_other_models_are_left_as_they_were() -> None:
    other = alike().train()
    ss.audit(network(), data(), threat=ss.linf(0.1, box=None), attacks=["fgsm"], run=ss.Run(transfer_to={"b": other}))
    assert other.training
    with pytest.raises(InputError, match="transfer_to='b' has 3 classes, the model 4"):
        ss.audit(
            network(),
            data(),
            threat=ss.linf(0.1, box=None),
            attacks=["fgsm"],
            run=ss.Run(transfer_to={"b": network(1, 3)}),
        )


def test_points_belong_to_the_rung_that_fooled_also_after_one_that_met_nobody() -> None:
    kept = Evidence()
    rungs = ["random-sign", "square:queries=5 near<=0.000001", "pgd:steps=10"]
    result = ss.audit(network(), data(), threat=ss.linf(0.2, box=None), ladder=rungs, run=ss.Run(evidence=kept))
    assert result.attacks[1].entered == 0
    assert result.attacks[2].fooled > 0
    points = kept.tensors()
    for row, attack in zip(points["row"].tolist(), points["attack"].tolist(), strict=True):
        assert result.per_example.verdicts[rungs[attack]][row] == "f"
    assert len(points["row"]) == result.fooled


@dataclass(frozen=True)
class EndsEarly:
    """A victim that stops answering."""

    inner: Attack
    name: str = "ends-early"
    steps: int = 3
    draws: bool = True
    from_clean: bool = False

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
        return self.inner(problem, region, clean, key, begin)._replace(ended="no answer")


def test_an_attack_that_ended_early_leaves_a_partial_result() -> None:
    early = EndsEarly(ss.recipe("pgd:steps=3"))
    result = ss.audit(network(), data(), threat=ss.linf(0.1, box=None), ladder=["fgsm", early])
    assert result.partial
    assert any("ended early: no answer" in note for note in result.notes)
    assert not ss.audit(network(), data(), threat=ss.linf(0.1, box=None), ladder=["fgsm", early.inner]).partial


def test_curves_over_sizes_are_not_for_rungs() -> None:
    with pytest.raises(InputError, match="rungs meet the survivors"):
        ss.audit(
            network(), data(), threat=ss.linf(0.1, box=None), ladder=["fgsm", "pgd"], curve=ss.Curve(True, ["pgd"])
        )
    with pytest.raises(InputError, match="both given"):
        ss.audit(network(), data(), threat=ss.linf(0.1, box=None), ladder=["fgsm"], attacks=["pgd"])


def other(place: int, **changes: object) -> Callable[[Result], Result]:
    def change(result: Result) -> Result:
        entries: list[AttackResult] = list(result.attacks)
        entries[place] = replace(entries[place], **changes)  # type: ignore[arg-type]
        return replace(result, attacks=tuple(entries))

    return change


def examples(change: Callable[[Examples], dict[str, Any]]) -> Callable[[Result], Result]:
    return lambda result: replace(result, per_example=replace(result.per_example, **change(result.per_example)))


def column(name: str, place: int, change: Callable[[str], str]) -> Callable[[Result], Result]:
    rung = RUNGS[place]
    assert name == "verdicts"
    return examples(lambda kept: {"verdicts": {**kept.verdicts, rung: change(kept.verdicts[rung])}})


TAMPERED: dict[str, Callable[[Result], Result]] = {
    "entered": other(1, entered=3),
    "queries": other(2, queries=(1.0, 1.0, 1.0)),
    "forward passes": other(2, forwards=1.0),
    "distance": other(0, distance=0.01),
    "nearest": other(1, nearest=(5.0, 6.0, 7.0)),
    "no nearest": other(1, nearest=None),
    "transfers": other(0, transfers={"b": (0, 9)}),
    "a length": examples(lambda kept: {"nearest": {RUNGS[1]: (*[9.0] * 40, *kept.nearest[RUNGS[1]][40:])}}),
    "a pass": examples(lambda kept: {"passes": {**kept.passes, RUNGS[0]: (7, *kept.passes[RUNGS[0]][1:])}}),
    "a letter of another model": examples(
        lambda kept: {"transfers": {"b": {**kept.transfers["b"], RUNGS[0]: "r" * 60}}}
    ),
    "a rung that skipped": column("verdicts", 0, lambda letters: letters.replace("h", "-", 1)),
    "a rung that met the fallen": column("verdicts", 3, lambda letters: letters.replace("-", "h")),
    "the ladder": lambda result: replace(result, ladder=""),
    "a rung left out": lambda result: replace(result, attacks=result.attacks[:-1]),
    "a rung's name": other(3, name="apgd"),
    "a column cut short": column("verdicts", 3, lambda letters: letters[:-1]),
}


def test_the_record_itself_holds() -> None:
    assert recount(made()).holds
    assert recount(Result.from_json(made().to_json())).holds


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_ladder_is_found(name: str) -> None:
    changed = TAMPERED[name](made())
    assert changed != made()
    check = recount(changed)
    assert not check.holds, check


def test_a_curve_of_smallest_changes_is_counted_again() -> None:
    result = ss.audit(network(), data(), threat=ss.l2(0.3, box=None), ladder=["ddn:steps=10", "pgd"])
    points = result.curves["ddn:steps=10"]
    moved = (*points[:-1], replace(points[-1], fooled=points[-1].fooled - 1))
    assert recount(result).holds
    assert not recount(replace(result, curves={**result.curves, "ddn:steps=10": moved})).holds


def test_where_every_answer_is_wrong_there_is_a_record_all_the_same() -> None:
    x, y = data()
    result = ss.audit(network(), (x, (network()(x).argmax(1) + 1) % 4), threat=ss.linf(0.1, box=None), ladder="quick")
    assert (result.clean_right, result.held, len(y)) == (0, 0, result.examples)
    assert "clean accuracy 0.00 %" in str(result)
    assert recount(result).holds
    whole = ss.audit(network(), (x, y), threat=ss.linf(0.1, box=None), ladder=["fgsm"])
    parts = [
        ss.audit(network(), (x, y), threat=ss.linf(0.1, box=None), ladder=["fgsm"], run=ss.Run(shard=(i, 9)))
        for i in range(9)
    ]
    assert ss.merge(parts).per_example == whole.per_example


def test_a_rung_that_was_set_aside_met_nobody_and_nothing_is_claimed() -> None:
    result = ss.audit(network(), data(), threat=ss.l1(0.2, box=None), ladder="standard@1", curve=False)
    assert result.attacks[-1].name.startswith("square")
    assert result.attacks[-1].entered == 0 < result.held
    assert recount(result).holds
    assert not recount(replace(result, notes=())).holds
    assert "no claim of robustness" in str(result).replace("\n", " ")


def test_the_claim_follows_the_ladder() -> None:
    result = replace(made(), ladder="autoattack@1")
    assert "autoattack@1 ran to its end" in str(result).replace("\n", " ")
    assert "still an upper bound" in str(result)
    terms: dict[str, Any] = {"shard": [0, 2], "gradients_from": "surrogate", "goal": "targeted", "norm": "l1"}
    terms |= {"task": "regression", "labels": "predicted", "random_model": True}
    changed = [replace(result, partial=True), replace(result, ladder="quick@1")]
    changed += [replace(result, terms={**result.terms, name: value}) for name, value in terms.items()]
    for weaker in changed:
        assert "no claim of robustness" in str(weaker).replace("\n", " ")
    single = ss.audit(network(), data(), threat=ss.linf(0.1, box=None), attacks=["random-sign", "fgsm"], curve=False)
    assert "FGSM alone never proves robustness" in str(single).replace("\n", " ")
