"""Sets that are no balls in boxes go through the same loop, checker, audit and verification."""

import pytest
import torch
from whole_numbers import CHECKERS, Weigher, few, few_checked, records

import signstep as ss
from signstep.auditing import rescore
from signstep.auditing.evidence import Evidence
from signstep.model.predictor import Predictor

RECIPES = ("fgsm", "bim:steps=3", "pgd:steps=3,restarts=2", "mi-fgsm:steps=3", "apgd:steps=5", "random-sign")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_step_recipe_stays_inside(recipe: str) -> None:
    x, y = records()
    outcome = ss.attack(Weigher(), x, y, threat=few(2.0), recipe=recipe)
    assert isinstance(outcome.x, torch.Tensor)
    assert bool(outcome.verified.all())
    assert bool(((outcome.x - x).abs().sum(1) <= 2).all())
    assert bool((outcome.x == outcome.x.round()).all())


def test_the_steepest_step_is_the_best_of_all_moves() -> None:
    x, y = records()
    fooled = ss.attack(Weigher(), x, y, threat=few(2.0), recipe="fgsm").fooled
    # Two entries by one change the margin by at most 3 + 2 = 5: 7, 2, 4, -1 become 2, -3, -1, 4.
    assert fooled.tolist() == [False, True, True, True]
    assert ss.attack(Weigher(), x, y, threat=few(1.0), recipe="fgsm").fooled.tolist() == [False, True, False, True]


def test_a_point_outside_is_not_believed() -> None:
    x, _ = records()
    point = x.clone()
    point[0, 0] += 0.5
    point[1] += 1
    assert few_checked(2.0, x, point).ok.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    "recipe", ["fmn", "deepfool", "square:queries=5", "ni-fgsm", "spsa:queries=9", "hop-skip-jump"]
)
def test_recipes_for_balls_say_so(recipe: str) -> None:
    x, y = records()
    with pytest.raises(ss.SignstepError, match=r"defined for balls.* fgsm"):
        ss.attack(Weigher(), x, y, threat=few(2.0), recipe=recipe)


def test_presets_set_rungs_for_balls_aside() -> None:
    result = ss.audit(Weigher(), records(), threat=few(2.0), ladder="standard@1", curve=False)
    assert any("was not run" in note and "not defined for this threat" in note for note in result.notes)
    assert result.held == 1


def test_the_curve_follows_the_size_of_the_set() -> None:
    result = ss.audit(Weigher(), records(), threat=few(2.0), attacks=["fgsm"], curve=[1.0, 2.0, 3.0])
    assert [point.fooled for point in result.curve] == [2, 3, 3]


def test_saved_points_are_checked_by_the_sets_own_checker() -> None:
    evidence = Evidence()
    result = ss.audit(
        Weigher(), records(), threat=few(2.0), attacks=["fgsm"], curve=False, run=ss.Run(evidence=evidence)
    )
    points = evidence.tensors()
    assert points["row"].tolist() == [1, 2, 3]
    assert rescore.allowed(result, points, CHECKERS).holds
    points["x_adv"][0, 0] += 0.5
    check = rescore.allowed(result, points, CHECKERS)
    assert not check.holds
    assert "[1]" in check.seen


def test_points_of_several_inputs_are_kept_and_scored_again() -> None:
    def model(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.stack([a.sum(1) + b.sum(1) + c.sum(1), torch.zeros(len(a))], 1)

    x = {"a": torch.full((3, 2), 0.2), "b": torch.tensor([[0.1], [0.5], [0.9]]), "c": torch.zeros(3, 2)}
    evidence, data = Evidence(), [(x, torch.zeros(3, dtype=torch.int64))]
    threat = {"a": ss.linf(0.5, box=(-1, 1)), "b": ss.linf(0.6, box=(-1, 1))}
    result = ss.audit(model, data, threat=threat, attacks=["fgsm"], curve=False, run=ss.Run(evidence=evidence))
    points = evidence.tensors()
    assert points["row"].tolist() == [0, 1, 2]
    assert set(points) >= {"x:a", "x_adv:a", "x:b", "x_adv:b", "x:c"}
    assert "x_adv:c" not in points
    assert rescore.allowed(result, points).holds
    assert rescore.answers(result, points, Predictor(model), "auto").holds
    assert rescore.inputs(points, data).holds
    points["x_adv:b"] -= 0.1
    assert not rescore.allowed(result, points).holds
    points["x:c"] += 0.1
    assert not rescore.inputs(points, data).holds
