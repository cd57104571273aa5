"""Models that draw random numbers: recognised, judged on held-out passes, and their randomness is put back."""

import random

import numpy as np
import pytest
import torch
from small_nets import Scaled, labels, mlp, rand
from torch import Tensor, nn

import signstep as ss
from signstep.engine.keys import Key
from signstep.engine.problem import ModelProblem
from signstep.engine.tasks import Aim
from signstep.model.predictor import Predictor

X = rand(20, 18, seed=1)
ZEROS = torch.zeros(20, dtype=torch.int64)


def _numpy_state() -> list[int]:
    keys: list[int] = np.random.get_state(legacy=False)["state"]["key"].tolist()
    return keys


class Flipping(nn.Module):
    """Certainly class 0, but a share of passes, drawn for each row, says 1. Its gradient leads nowhere."""

    def __init__(self, share: float, source: str = "torch") -> None:
        super().__init__()
        self.share, self.source = share, source
        self.own = torch.Generator().manual_seed(7)

    def forward(self, x: Tensor) -> Tensor:
        if self.source == "torch":
            draw = torch.rand(len(x))
        elif self.source == "numpy":
            draw = torch.from_numpy(np.random.random(len(x)))
        elif self.source == "python":
            draw = torch.tensor([random.random() for _ in range(len(x))])
        else:
            draw = torch.rand(len(x), generator=self.own)
        z = 5 + 1e-3 * x.flatten(1).sum(1)
        z = torch.where(draw < self.share, -z, z)
        return torch.stack([z, -z], 1)


def test_the_control_a_naive_attack_is_fooled_by_luck() -> None:
    """One look at each of 100 iterates finds the 1 % flip in most rows."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    model = Flipping(0.01)
    lucky = torch.stack([model(X).argmax(1) != 0 for _ in range(100)]).any(0)
    torch.set_rng_state(torch_state)
    assert float(lucky.double().mean()) > 0.4


@pytest.mark.parametrize("source", ["torch", "numpy", "python"])
def test_a_flip_in_one_of_a_hundred_passes_is_no_success(source: str) -> None:
    outcome = ss.attack(Flipping(0.01, source), X, ZEROS, threat=ss.linf(0.1), recipe="pgd:steps=100")
    assert not bool(outcome.fooled.any())
    assert outcome.passes > 1
    assert float(outcome.rate.max()) < 0.2
    assert bool((outcome.forwards > 100).all())
    assert any("random" in note for note in outcome.notes)


def test_randomness_from_a_private_generator_is_recognised() -> None:
    outcome = ss.attack(Flipping(0.3, "own"), X, ZEROS, threat=ss.linf(0.1), recipe="pgd:steps=5")
    assert not bool(outcome.fooled.any())


@pytest.mark.parametrize(("share", "fooled"), [(0.1, False), (0.9, True)])
@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=5,restarts=2", "random-sign"])
def test_the_verdict_is_the_majority_of_held_out_passes(share: float, fooled: bool, recipe: str) -> None:
    outcome = ss.attack(Flipping(share), X, ZEROS, threat=ss.linf(0.1), recipe=recipe)
    assert outcome.fooled.tolist() == [fooled] * 20
    assert abs(float(outcome.rate.mean()) - share) < 0.08
    assert torch.equal(outcome.fooled, outcome.rate > 0.5)


def test_a_calm_model_is_looked_at_once() -> None:
    outcome = ss.attack(mlp(), X, threat=ss.linf(0.1))
    assert outcome.passes == 1
    assert set(outcome.rate.tolist()) <= {0.0, 1.0}
    assert not any("random" in note for note in outcome.notes)


def _dropout() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.2), Scaled(mlp(), 3.0)).train()


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=4", "mi-fgsm:steps=4", "random-sign"])
@pytest.mark.usefixtures("no_global_seed")
def test_dropout_kept_on(recipe: str) -> None:
    model = _dropout()
    y = labels(mlp(), X)
    outcomes = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = (torch.get_rng_state(), _numpy_state(), random.getstate())
        outcomes.append(ss.attack(ss.Model(model, mode="keep"), X, y, threat=ss.linf(0.1), recipe=recipe))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert _numpy_state() == before[1]
        assert random.getstate() == before[2]
    first, second = outcomes
    assert first.passes > 1
    assert torch.equal(first.fooled, first.rate > 0.5)
    assert isinstance(first.x, Tensor)
    assert isinstance(second.x, Tensor)
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.rate, second.rate)
    assert torch.equal(first.fooled, second.fooled)


@pytest.mark.usefixtures("no_global_seed")
def test_the_rate_is_what_the_user_measures() -> None:
    model = _dropout()
    outcome = ss.attack(ss.Model(model, mode="keep"), X, labels(mlp(), X), threat=ss.linf(0.1), recipe="pgd:steps=4")
    assert isinstance(outcome.x, Tensor)
    torch.manual_seed(3)
    with torch.no_grad():
        wrong = torch.stack([model(outcome.x).argmax(1) != labels(mlp(), X) for _ in range(400)]).double().mean(0)
    assert float((wrong - outcome.rate.double()).abs().max()) < 0.35
    assert abs(float((wrong - outcome.rate.double()).mean())) < 0.06
    sure = (wrong - 0.5).abs() > 0.3
    assert torch.equal(outcome.fooled[sure], wrong[sure] > 0.5)


def test_dropout_is_off_by_default() -> None:
    model = _dropout()
    outcome = ss.attack(model, X, labels(mlp(), X), threat=ss.linf(0.1))
    assert outcome.passes == 1
    assert model.training


@pytest.mark.usefixtures("no_global_seed")
def test_the_step_of_a_random_model_does_not_depend_on_the_global_seed() -> None:
    points = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        points.append(ss.fgsm(ss.Model(_dropout(), mode="keep"), X, labels(mlp(), X), eps=0.1))
    assert torch.equal(points[0], points[1])


@pytest.mark.usefixtures("no_global_seed")
def test_every_pass_of_a_random_model_has_a_seed_of_its_own() -> None:
    """What a pass draws depends on its key alone, not on what ran before it; a surrogate is seeded in any case."""
    calm, noisy = Predictor(mlp()), Predictor(_dropout())
    y = labels(mlp(), X)
    problem = ModelProblem(noisy, ss.Multiclass(), Aim(y), "ce", ZEROS, random=True)
    surrogate = ModelProblem(calm, ss.Multiclass(), Aim(y), "ce", ZEROS).on(noisy)
    for question in (problem, surrogate):
        first = question(X, Key(0).fold("step", 1)).loss
        torch.rand(3)
        assert torch.equal(question(X, Key(0).fold("step", 1)).loss, first)
        assert not torch.equal(question(X, Key(0).fold("step", 2)).loss, first)
        assert not torch.equal(question(X, Key(1).fold("step", 1)).loss, first)


def test_rows_that_depend_on_each_other_are_said_aloud() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3)).train()
    x = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    kept = ss.attack(ss.Model(model, mode="keep"), x, None, threat=ss.linf(0.1))
    assert any("rows depend on each other" in note for note in kept.notes)
    assert not any("rows depend" in note for note in ss.attack(model, x, None, threat=ss.linf(0.1)).notes)
