"""Defences that cannot be differentiated: robust under plain gradients, not under a backward pass of our choice."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from small_nets import filled, labels, rand
from torch import Tensor, nn

import signstep as ss
from signstep.errors import GradientError, ModelError

X = rand(16, 1, 16, 16, seed=2, dtype=torch.float32) * 0.2 + 0.4
NET = filled(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), dtype=torch.float32, scale=2)


def _rounded(x: Tensor) -> Tensor:
    return (x * 15).round() / 15


def _jpeg(x: Tensor) -> Tensor:
    """Each image saved as JPEG and read back."""
    images = []
    for row in x:
        buffer = io.BytesIO()
        levels = (row[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(levels).save(buffer, format="JPEG", quality=60)
        images.append(torch.from_numpy(np.array(Image.open(buffer), dtype=np.float32)) / 255)
    return torch.stack(images).unsqueeze(1)


def _jpeg_model(x: Tensor) -> Tensor:
    out: Tensor = NET(_jpeg(x.detach()))
    return out


def _rounding_model(x: Tensor) -> Tensor:
    out: Tensor = NET(_rounded(x))
    return out


def test_rounding_hides_the_gradient_and_bpda_finds_it() -> None:
    y = labels(_bare(_rounding_model), X)
    plain = ss.attack(_rounding_model, X, y, threat=ss.linf(0.1), recipe="pgd:steps=10")
    assert not bool(plain.fooled.all())
    assert bool(plain.undetermined[~plain.fooled].all())  # every gradient was zero: nothing was shown
    defended = nn.Sequential(ss.bpda(_rounded), NET)
    outcome = ss.attack(defended, X, y, threat=ss.linf(0.1), recipe="pgd:steps=10")
    assert int(outcome.fooled.sum()) > int(plain.fooled.sum()) + len(X) // 2
    assert not bool(outcome.undetermined.any())
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(labels(_bare(_rounding_model), outcome.x) != y, outcome.fooled)


def test_jpeg_has_no_gradient_and_falls_under_bpda() -> None:
    y = labels(_bare(_jpeg_model), X)
    with pytest.raises(GradientError):
        ss.attack(_jpeg_model, X, y, threat=ss.linf(0.1), recipe="pgd:steps=10")
    defended = nn.Sequential(ss.bpda(_jpeg), NET)
    control = ss.attack(defended, X, y, threat=ss.linf(0.1), recipe="random-sign")
    outcome = ss.attack(defended, X, y, threat=ss.linf(0.1), recipe="pgd:steps=10")
    assert int(control.fooled.sum()) < len(X) // 2
    assert int(outcome.fooled.sum()) > int(control.fooled.sum()) + len(X) // 4
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(labels(_bare(_jpeg_model), outcome.x) != y, outcome.fooled)


def _bare(function: object) -> nn.Module:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)  # type: ignore[no-any-return,operator]

    return Bare()


def test_forwards_exactly_and_backwards_as_told() -> None:
    x = rand(4, 5, seed=1).requires_grad_()
    step = ss.bpda(torch.sign, torch.tanh)
    assert torch.equal(step(x), torch.sign(x))
    weights = rand(4, 5, seed=2)
    (gradient,) = torch.autograd.grad((step(x) * weights).sum(), x)
    torch.testing.assert_close(gradient, weights * (1 - torch.tanh(x.detach()).square()))
    (straight,) = torch.autograd.grad((ss.bpda(torch.sign)(x) * weights).sum(), x)
    assert torch.equal(straight, weights)


def test_inside_a_model_and_with_another_shape() -> None:
    x = rand(4, 6, seed=1).requires_grad_()
    halves = ss.bpda(lambda u: u[:, :3].round(), lambda u: u[:, :3])
    (gradient,) = torch.autograd.grad(halves(x).sum(), x)
    assert torch.equal(gradient, torch.tensor([1.0] * 3 + [0.0] * 3, dtype=torch.float64).expand(4, 6))
    with pytest.raises(ModelError, match="identity cannot stand in"):
        ss.bpda(lambda u: u[:, :3])(x)
    with pytest.raises(ModelError, match="same shape"):
        torch.autograd.grad(ss.bpda(lambda u: u[:, :3], lambda u: u)(x).sum(), x)


def test_arrays_and_integers_are_taken_in_the_dtype_of_the_input() -> None:
    x = rand(2, 3, seed=1, dtype=torch.float32)
    assert ss.bpda(lambda u: (u * 255).round().to(torch.uint8))(x).dtype == torch.float32
    assert torch.equal(ss.bpda(lambda u: u.numpy() * 2)(x), x * 2)


def test_the_input_is_not_written_to() -> None:
    x = rand(2, 3, seed=1)
    before = x.clone()
    ss.bpda(lambda u: u.mul_(2))(x)
    assert torch.equal(x, before)
