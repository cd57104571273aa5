"""Softened rectifiers: the forward pass stays exact, the backward pass sees past units that are off."""

from collections.abc import Callable

import pytest
import torch
from small_nets import filled, labels, rand
from torch import Tensor, nn
from torch.nn import functional

import signstep as ss
from signstep.attacks.gradient.smooth_pgd import Smooth
from signstep.engine.keys import Key
from signstep.engine.oracles import Autograd
from signstep.model.subject import Subject


class Rectified(nn.Module):
    """The same function through another spelling of the rectifier."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(18, 16), nn.Linear(16, 4)
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.first(x.flatten(1))
        if self.spelling == "module":
            hidden = nn.ReLU()(hidden)
        elif self.spelling == "inplace":
            hidden = nn.ReLU(inplace=True)(hidden)
        elif self.spelling == "functional":
            hidden = functional.relu(hidden)
        elif self.spelling == "method":
            hidden = hidden.relu()
        elif self.spelling == "relu6":
            hidden = functional.relu6(hidden)
        elif self.spelling == "leaky":
            hidden = functional.leaky_relu(hidden, 0.2)
        else:
            hidden = torch.tanh(hidden)
        out: Tensor = self.last(hidden)
        return out


def _gradient(model: nn.Module, x: Tensor, y: Tensor, sharp: float | None) -> tuple[Tensor, Tensor]:
    oracle = Autograd() if sharp is None else Smooth(soft=sharp, sharp=sharp)
    subject = Subject.of(ss.Model(model))
    with subject.opened():
        question = subject.ask(x, y, ss.linf(0.1), key=Key(0))
        problem = question.problem.with_loss("margin")
        score, gradient = oracle(problem, x, Key(0))
    assert isinstance(gradient, Tensor)
    return score.loss, gradient


@pytest.mark.parametrize("spelling", ["module", "inplace", "functional", "method", "relu6", "leaky"])
def test_every_spelling_is_softened_and_the_forward_pass_is_exact(spelling: str) -> None:
    model, x = filled(Rectified(spelling), scale=3), rand(12, 2, 3, 3, seed=1)
    y = labels(model, x)
    loss, plain = _gradient(model, x, y, None)
    soft_loss, soft = _gradient(model, x, y, 2.0)
    assert torch.equal(loss, soft_loss)
    assert not torch.allclose(plain, soft)
    _, sharp = _gradient(model, x, y, 1e9)
    torch.testing.assert_close(sharp, plain)  # infinitely sharp is the derivative itself


@pytest.mark.parametrize("kind", [functional.relu, functional.relu6, functional.leaky_relu])
def test_what_a_rectifier_changes_in_place_stays_changed(kind: Callable[..., Tensor]) -> None:
    """A shortcut that goes on with a tensor rectified in place sees what the model itself sees."""

    def model(x: Tensor) -> Tensor:
        z = 2 * x - 1
        kind(z, inplace=True)
        return torch.stack([z.sum(1), 1 - z.square().sum(1)], 1)

    x, seen = rand(5, 6), []
    with Subject.of(ss.Model(model)).opened():
        question = Subject.of(ss.Model(model)).ask(x, torch.zeros(5, dtype=torch.int64), ss.linf(0.1), key=Key(0))
        for oracle in (Autograd(), Smooth()):
            score, gradient = oracle(question.problem, x.clone(), Key(0))
            assert isinstance(gradient, Tensor)
            assert bool(torch.isfinite(gradient).all())
            seen.append(score.ways)
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)


def test_other_functions_are_left_alone() -> None:
    model, x = filled(Rectified("tanh")), rand(12, 2, 3, 3, seed=1)
    y = labels(model, x)
    assert torch.equal(_gradient(model, x, y, None)[1], _gradient(model, x, y, 2.0)[1])


def test_the_formula() -> None:
    model, x = filled(Rectified("module"), scale=3), rand(5, 2, 3, 3, seed=2)
    y = labels(model, x)
    _, soft = _gradient(model, x, y, 3.0)
    for row in range(5):
        z = model.first(x[row].flatten())
        out = model.last(z.relu())
        rival = int(out.scatter(0, y[row : row + 1], -torch.inf).argmax())
        back = model.last.weight[rival] - model.last.weight[int(y[row])]
        wanted = model.first.weight.T @ (back * torch.sigmoid(3.0 * z / z.abs().mean()))
        torch.testing.assert_close(soft[row].flatten(), wanted, rtol=1e-6, atol=1e-9)


class Hiding(nn.Module):
    """A model whose units are all off at the data: its gradient is zero, and a small step would turn them on."""

    def forward(self, x: Tensor) -> Tensor:
        gain = torch.relu(x.flatten(1).sum(1, keepdim=True) - 9.6)
        return torch.cat([torch.full_like(gain, 0.1), 5 * gain], 1)


def test_it_finds_what_dead_units_hide() -> None:
    x = torch.full((6, 2, 3, 3), 0.5, dtype=torch.float64)
    x += 0.01 * rand(6, 2, 3, 3, seed=3)
    y = torch.zeros(6, dtype=torch.int64)
    plain = ss.attack(Hiding(), x, y, threat=ss.linf(0.05), recipe="bim:steps=10")
    smooth = ss.attack(Hiding(), x, y, threat=ss.linf(0.05), recipe="smooth-pgd")
    assert not bool(plain.fooled.any())
    assert bool(plain.undetermined.all())
    assert bool(smooth.fooled.all())


def test_sharpness_grows_over_the_run() -> None:
    oracle = Smooth(soft=2.0, sharp=32.0)
    assert oracle.at(0.0).progress == 0.0
    model, x = filled(Rectified("module"), scale=3), rand(4, 2, 3, 3, seed=4)
    y = labels(model, x)
    for progress, sharp in ((0.0, 2.0), (0.5, 8.0), (1.0, 32.0)):
        subject = Subject.of(ss.Model(model))
        with subject.opened():
            problem = subject.ask(x, y, ss.linf(0.1), key=Key(0)).problem.with_loss("margin")
            _, gradient = oracle.at(progress)(problem, x, Key(0))
        torch.testing.assert_close(gradient, _gradient(model, x, y, sharp)[1])


@pytest.mark.parametrize("spec", ["smooth-pgd:start=vertex", "smooth-pgd:soft=3,sharp=2", "smooth-pgd:step=0"])
def test_options_that_make_no_sense(spec: str) -> None:
    model, x = filled(Rectified("module")), rand(4, 2, 3, 3)
    with pytest.raises(ss.SignstepError):
        ss.attack(model, x, labels(model, x), threat=ss.linf(0.1), recipe=spec)
