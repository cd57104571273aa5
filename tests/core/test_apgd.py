"""APGD follows its paper: one example at a time, written down once more."""

import pytest
import torch
from small_nets import labels, mlp, rand
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.gradient.apgd import adaptive
from signstep.engine.attack import GradientAttack

EPS = 0.02


def _margin(model: nn.Module, u: Tensor, y: int) -> Tensor:
    z: Tensor = model(u[None])[0]
    return torch.cat([z[:y], z[y + 1 :]]).max() - z[y]


def _by_hand(model: nn.Module, x: Tensor, y: int, steps: int, *, rho: float = 0.75, alpha: float = 0.75) -> Tensor:
    """Croce & Hein 2020, algorithm 1, from the clean input; the best point."""

    def project(u: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(u, x - EPS), x + EPS).clamp(0, 1)

    def climb(u: Tensor) -> tuple[float, Tensor]:
        leaf = u.clone().requires_grad_()
        value = _margin(model, leaf, y)
        (gradient,) = torch.autograd.grad(value, leaf)
        return float(value.detach()), gradient

    window, least, less = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    eta, u, before, rises, since = 2 * EPS, x.clone(), x.clone(), 0, 0
    value, gradient = climb(u)
    best, best_value, best_gradient = u, value, gradient
    halved, best_then = False, -float("inf")
    for step in range(steps):
        weight = 1.0 if step == 0 else alpha
        z = project(u + eta * gradient.sign())
        ahead = project(u + weight * (z - u) + (1 - weight) * (u - before))
        before, u = u, ahead
        new, gradient = climb(u)
        rises, value, since = rises + (new > value), new, since + 1
        if value > best_value:
            best, best_value, best_gradient = u, value, gradient
        if since == window:
            halve = rises <= rho * window or (not halved and best_then >= best_value)
            if halve:
                eta /= 2
                u, gradient = best, best_gradient
            halved, best_then, rises, since = halve, best_value, 0, 0
            window = max(window - less, least)
    return best


@pytest.mark.parametrize("steps", [5, 25, 60])
def test_every_row_goes_the_way_of_the_paper(steps: int) -> None:
    model, x = mlp(scale=3), rand(30, 2, 3, 3, seed=3)
    y = labels(model, x)
    attack = GradientAttack("apgd", adaptive(steps), steps, loss="margin", keep="best")
    outcome = ss.attack(model, x, y, threat=ss.linf(EPS), recipe=attack)
    assert isinstance(outcome.x, Tensor)
    standing = (~outcome.fooled).nonzero()[:, 0].tolist()
    assert len(standing) > 10
    other = 0
    for row in standing:
        wanted = _by_hand(model, x[row], int(y[row]), steps)
        torch.testing.assert_close(outcome.x[row], wanted, rtol=0, atol=1e-12)
        other += not torch.allclose(_by_hand(model, x[row], int(y[row]), steps, alpha=0.5), wanted, atol=1e-6)
    assert other > 0 or steps == 5  # the rule can be told from another one


def test_the_best_point_is_kept() -> None:
    model, x = mlp(scale=3), rand(60, 2, 3, 3, seed=4)
    y = labels(model, x)
    short = ss.attack(model, x, y, threat=ss.linf(EPS), recipe="apgd:steps=40,loss=margin")
    last = GradientAttack("apgd", adaptive(40), 40, "uniform", loss="margin", keep="last")
    ended = ss.attack(model, x, y, threat=ss.linf(EPS), recipe=last)
    both = ~short.fooled & ~ended.fooled
    assert bool((short.near[both] >= ended.near[both] - 1e-9).all())
    assert bool((short.near[both] > ended.near[both] + 1e-9).any())


def test_targets_visit_the_closest_classes_and_stop_when_fooled() -> None:
    model, x = mlp(classes=4, scale=2), rand(60, 2, 3, 3, seed=5)
    y = labels(model, x)
    one = ss.attack(model, x, y, threat=ss.linf(0.03), recipe="apgd:steps=10,targets=1")
    three = ss.attack(model, x, y, threat=ss.linf(0.03), recipe="apgd:steps=10,targets=3")
    many = ss.attack(model, x, y, threat=ss.linf(0.03), recipe="apgd:steps=10,targets=9")  # there are three others
    assert bool((three.fooled | ~one.fooled).all())
    assert torch.equal(three.fooled, many.fooled)
    assert torch.equal(three.backwards, many.backwards)
    standing = ~three.fooled
    assert int(standing.sum()) > 0
    assert bool((three.backwards[standing] == 30).all())
    assert bool((three.backwards[one.fooled] <= 10).all())


def test_a_run_is_led_to_its_class() -> None:
    """With the margin to one class as the loss, the first run raises that class, the closest at the clean input."""
    model, x = mlp(classes=6, scale=3), rand(40, 2, 3, 3, seed=6)
    y = labels(model, x)
    with torch.no_grad():
        z = model(x)
        closest = z.scatter(1, y[:, None], -torch.inf).argmax(1)
    outcome = ss.attack(model, x, y, threat=ss.linf(0.01), recipe="apgd:steps=10,targets=1,loss=margin")
    assert isinstance(outcome.x, Tensor)
    with torch.no_grad():
        after = model(outcome.x)
    gap = (after - z).gather(1, closest[:, None])[:, 0] - (after - z).gather(1, y[:, None])[:, 0]
    assert bool((gap > 0).all())


@pytest.mark.parametrize("spec", ["apgd:loss=mse", "apgd:targets=-1", "apgd:steps=0"])
def test_options_that_make_no_sense(spec: str) -> None:
    model, x = mlp(), rand(4, 2, 3, 3)
    with pytest.raises(ss.SignstepError):
        ss.attack(model, x, labels(model, x), threat=ss.linf(0.1), recipe=spec)
