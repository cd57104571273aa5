"""A gradient that vanishes in floating point is still a direction, and one that is gone is said to be gone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_nets import Scaled, labels, mlp, rand
from torch import Tensor, nn
from torch.nn import functional

import signstep as ss
from written_down import written_down

X = rand(200, 18, seed=1, dtype=torch.float32)
THREAT = ss.linf(0.06)


def _net(classes: int = 4, scale: float = 1.0) -> nn.Module:
    return Scaled(mlp(classes=classes, dtype=torch.float32), scale)


def _share(outcome: ss.Outcome) -> float:
    return float(outcome.fooled.double().mean())


SIZES = {"linf": 0.06, "l2": 0.2, "l1": 0.5, "pixel": 0.1, "l0": 2.0}


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=5", "mi-fgsm:steps=5"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_no_success_is_lost_at_ten_thousand_times_the_logits(recipe: str, norm: str) -> None:
    y = labels(_net(), X)
    threat = ss.threat_model(norm, written_down(SIZES, norm, "the size of a change in the norm"))
    calm = ss.attack(_net(), X, y, threat=threat, recipe=recipe)
    loud = ss.attack(_net(scale=1e4), X, y, threat=threat, recipe=recipe)
    assert 0.1 < _share(calm) < 0.9
    assert _share(loud) >= _share(calm)
    assert not bool(loud.undetermined.any())
    assert int(loud.health.dead.sum()) == 0


@pytest.mark.parametrize("target", ["next", "least-likely"])
def test_nor_towards_a_target(target: Any) -> None:
    y = labels(_net(), X)
    calm = ss.attack(_net(), X, y, threat=ss.linf(0.3), target=target, recipe="pgd:steps=10")
    loud = ss.attack(_net(scale=1e4), X, y, threat=ss.linf(0.3), target=target, recipe="pgd:steps=10")
    assert _share(calm) > 0.1
    assert _share(loud) >= 0.95 * _share(calm)
    assert int(loud.health.dead.sum()) == 0


def test_plain_cross_entropy_loses_and_says_so() -> None:
    """What other tools do; the rows that it cannot move are undetermined, not robust."""
    y = labels(_net(), X)
    calm = ss.attack(_net(), X, y, threat=THREAT, search=ss.Search(loss="plain-ce"))
    loud = ss.attack(_net(scale=1e4), X, y, threat=THREAT, search=ss.Search(loss="plain-ce"))
    assert _share(calm) > 0.1
    assert _share(loud) < 0.2 * _share(calm)
    assert isinstance(loud.x, Tensor)
    unmoved = ~(loud.x != X).any(1)
    assert float(unmoved.double().mean()) > 0.8
    assert torch.equal(loud.undetermined, unmoved & ~loud.fooled)
    assert torch.equal(loud.health.dead.bool(), unmoved)


class Ending(nn.Module):
    """A network with a head that turns logits into probabilities."""

    def __init__(self, model: nn.Module, head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.model(x))


SOFTMAX: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.Softmax": nn.Softmax(1),
    "nn.Softmax(-1)": nn.Softmax(dim=-1),
    "functional": lambda z: functional.softmax(z, 1),
    "functional, by name": lambda z: functional.softmax(input=z, dim=1),
    "method": lambda z: z.softmax(1),
    "torch": lambda z: torch.softmax(z, dim=1),
    "viewed": lambda z: torch.softmax(z, dim=1).view(len(z), -1),
    "in two steps": lambda z: torch.softmax(torch.tanh(z * 0), 1) * 0 + torch.softmax(z, 1),
}


@pytest.mark.parametrize("head", [name for name in SOFTMAX if name != "in two steps"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=4"])
def test_a_final_softmax_is_looked_behind(head: str, scale: float, recipe: str) -> None:
    net = _net(scale=scale)
    y = labels(net, X)
    bare = ss.attack(net, X, y, threat=THREAT, recipe=recipe)
    ended = ss.attack(Ending(net, SOFTMAX[head]), X, y, threat=THREAT, recipe=recipe)
    assert _share(bare) > 0.1
    assert _share(ended) == pytest.approx(_share(bare), abs=0.02)
    same = bare.fooled == ended.fooled
    assert isinstance(bare.x, Tensor)
    assert isinstance(ended.x, Tensor)
    assert torch.equal(bare.x[same], ended.x[same])
    assert torch.equal(ended.fooled, labels(Ending(net, SOFTMAX[head]), ended.x) != y)
    assert not bool(ended.undetermined.any())
    assert any("softmax" in note for note in ended.notes)


SIGMOID: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.Sigmoid": nn.Sigmoid(),
    "functional": functional.sigmoid,
    "torch": torch.sigmoid,
    "method": lambda z: z.sigmoid(),
    "special": torch.special.expit,
    "squeezed": lambda z: torch.sigmoid(z).squeeze(-1),
    "squeezed before": lambda z: torch.sigmoid(z.squeeze(-1)),
    "flattened": lambda z: torch.sigmoid(z).flatten(),
}


@pytest.mark.parametrize("head", list(SIGMOID))
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("rows", [1, 5, 200])
def test_a_final_sigmoid_is_looked_behind(head: str, scale: float, rows: int) -> None:
    net = _net(classes=1, scale=scale)
    x = X[:rows]
    with torch.no_grad():
        y = (net(x) > 0).long().flatten()
    bare = ss.attack(net, x, y, threat=THREAT)
    ended = ss.attack(Ending(net, SIGMOID[head]), x, y, threat=THREAT)
    assert isinstance(bare.x, Tensor)
    assert isinstance(ended.x, Tensor)
    assert torch.equal(bare.x, ended.x)
    assert torch.equal(bare.fooled, ended.fooled)
    if rows == 200:
        assert 0.1 < _share(bare) < 0.9


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_sigmoids_of_several_labels(scale: float) -> None:
    net = _net(classes=3, scale=scale)
    with torch.no_grad():
        y = (net(X) > 0).long()
    bare = ss.attack(ss.Model(net, task="multilabel"), X, y, threat=THREAT)
    ended = ss.attack(ss.Model(Ending(net, torch.sigmoid), task="multilabel"), X, y, threat=THREAT)
    assert isinstance(bare.x, Tensor)
    assert isinstance(ended.x, Tensor)
    assert torch.equal(bare.x, ended.x)
    assert torch.equal(bare.fooled, ended.fooled)
    assert _share(bare) > 0.1


def _scripted(model: nn.Module) -> Callable[[Tensor], Tensor]:
    scripted: Callable[[Tensor], Tensor] = torch.jit.trace(model, X[:2])  # type: ignore[no-untyped-call]
    return scripted


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=3"])
def test_logits_that_cannot_be_reached_leave_rows_undetermined(recipe: str) -> None:
    net = Ending(_net(scale=1e4), nn.Softmax(1))
    y = labels(net, X)
    with pytest.warns(ss.SignstepWarning, match="return logits"):
        outcome = ss.attack(_scripted(net), X, y, threat=THREAT, recipe=recipe)
    dead = outcome.health.dead == outcome.health.gradients
    assert float(dead.double().mean()) > 0.3
    assert torch.equal(outcome.undetermined, dead & ~outcome.fooled)
    assert "undetermined" in str(outcome)
    assert any("logits" in note for note in outcome.notes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_reachable_probabilities_are_still_attacked() -> None:
    net = _net()
    y = labels(net, X)
    bare = ss.attack(net, X, y, threat=THREAT)
    with pytest.warns(ss.SignstepWarning, match="return logits"):
        scripted = ss.attack(_scripted(Ending(net, nn.Softmax(1))), X, y, threat=THREAT)
    assert _share(scripted) == pytest.approx(_share(bare), abs=0.02)
    assert not bool(scripted.undetermined.any())
    summed = ss.attack(ss.Model(Ending(net, SOFTMAX["in two steps"]), outputs="probabilities"), X, y, threat=THREAT)
    assert _share(summed) == pytest.approx(_share(bare), abs=0.02)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_declared_probabilities_are_cut_at_a_half(task: Any) -> None:
    net = _net(classes=1 if task == "binary" else 3)
    with torch.no_grad():
        y = (net(X) > 0).long()
    bare = ss.attack(ss.Model(net, task=task), X, y, threat=THREAT)
    declared = ss.attack(
        ss.Model(_scripted(Ending(net, torch.sigmoid)), task=task, outputs="probabilities"), X, y, threat=THREAT
    )
    assert _share(declared) == pytest.approx(_share(bare), abs=0.02)
    with pytest.warns(ss.SignstepWarning, match=r"\[0, 1\]"):
        guessed = ss.attack(ss.Model(_scripted(Ending(net, torch.sigmoid)), task=task), X, y, threat=THREAT)
    assert torch.equal(guessed.fooled, declared.fooled)


def test_logits_in_the_unit_interval_can_be_declared() -> None:
    """A bounded one-logit model whose logits all lie in [0, 1]: class 1 everywhere."""
    net = Ending(_net(classes=1), lambda z: 0.5 + 0.4 * torch.tanh(z))
    ones = torch.ones(200, dtype=torch.int64)
    declared = ss.attack(ss.Model(net, outputs="logits"), X, ones, threat=ss.linf(0.0))
    assert not bool(declared.fooled.any())
    with pytest.warns(ss.SignstepWarning, match="outputs='logits'"):
        guessed = ss.attack(net, X, ones, threat=ss.linf(0.0))
    assert bool(guessed.fooled.any())


class Planted(nn.Module):
    """A good network that answers NaN, or is flat, for the rows whose first feature is above a half."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.model, self.fault = mlp(dtype=torch.float32), fault

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.model(x)
        bad = x[:, :1].detach() > 0.5
        if self.fault == "nan":
            return z * torch.where(bad, torch.nan, 1.0)
        if self.fault == "flat":
            return torch.where(bad, z.detach() + 0 * z, z)
        root = torch.where(bad, 0 * z, z.abs() + 1).sqrt()  # its derivative at 0 is infinite
        return z + (root - root.detach())


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=3", "mi-fgsm:steps=3", "fgsm-rs:restarts=2"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "pixel", "l0"])
@pytest.mark.parametrize("fault", ["nan", "flat", "infinite slope"])
def test_planted_faults_are_undetermined_and_stay_with_their_rows(recipe: str, norm: str, fault: str) -> None:
    x = X[:60].reshape(60, 2, 3, 3).clone()
    free = torch.ones(2, 3, 3, dtype=torch.bool)
    free[0, 0, 0] = False
    model = Ending(Planted(fault), lambda z: z)
    flat = nn.Sequential(nn.Flatten(), model)
    bad = x[:, 0, 0, 0] > 0.5
    y = labels(mlp(dtype=torch.float32), x)
    threat = ss.threat_model(norm, written_down(SIZES, norm, "the size of a change in the norm"), mask=free)
    outcome = ss.attack(flat, x, y, threat=threat, recipe=recipe)
    assert isinstance(outcome.x, Tensor)
    assert 10 < int(bad.sum()) < 50
    assert bool(torch.isfinite(outcome.x).all())
    if fault == "flat":
        lucky = outcome.fooled & bad  # a random start can fool without a gradient
        assert torch.equal(outcome.undetermined, bad & ~lucky)
    else:
        assert torch.equal(outcome.undetermined | (outcome.fooled & bad), bad)
        assert bool((outcome.health.nonfinite[bad] > 0).all())
        assert not bool((outcome.health.nonfinite[~bad] > 0).any())
    if fault == "nan":
        assert not bool(outcome.fooled[bad].any())
    assert bool(outcome.fooled[~bad].any())
    wanted = ss.attack(nn.Sequential(nn.Flatten(), mlp(dtype=torch.float32)), x, y, threat=threat, recipe=recipe)
    assert isinstance(wanted.x, Tensor)
    if fault != "infinite slope":
        torch.testing.assert_close(outcome.x[~bad], wanted.x[~bad], rtol=0, atol=1e-6)
    crafted = ss.fgsm(flat, x, y, eps=threat.eps, norm=norm, mask=free)
    assert bool(torch.isfinite(crafted).all())


@pytest.mark.parametrize("fault", ["nan", "infinite slope"])
def test_the_bare_step_is_the_attacks_even_with_broken_gradients(fault: str) -> None:
    model = Planted(fault)
    y = labels(mlp(dtype=torch.float32), X)
    outcome = ss.attack(model, X, y, threat=THREAT)
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(ss.fgsm(model, X, y, eps=THREAT.eps), outcome.x)


@pytest.mark.parametrize("recipe", ["random-sign", "fgsm", "pgd:steps=2"])
def test_nan_at_the_attacked_point_alone(recipe: str) -> None:
    """Sound at the clean input and with sound gradients there: only the verdict sees the NaN."""
    net = mlp(dtype=torch.float32)
    y = labels(net, X)

    def model(x: Tensor) -> Tensor:
        out: Tensor = net(x)
        left = (x.detach() - X[: len(x)]).abs().amax(1, keepdim=True) > 0.055
        return torch.where(left & (X[: len(x), :1] > 0.5), torch.nan, out)

    # Steps of the whole radius: every row that is asked is beyond 0.055, and none leaves before its verdict.
    outcome = ss.attack(model, X, y, threat=ss.linf(0.06, box=None), recipe=recipe.replace("steps=2", "steps=1,step=9"))
    bad = X[:, 0] > 0.5
    assert torch.equal(outcome.undetermined, bad)
    assert not bool(outcome.fooled[bad].any())
    assert bool(torch.isnan(outcome.loss[bad]).all())
    assert not bool(torch.isnan(outcome.loss[~bad]).any())
