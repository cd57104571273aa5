from collections.abc import Callable

import pytest
import torch
from torch import nn

from signstep.models.small import cifar10_small, digits_cnn, mnist_cnn, resnet18_cifar

NETWORKS = [
    (mnist_cnn, (1, 28, 28), 166_406),
    (digits_cnn, (1, 8, 8), 38_282),
    (cifar10_small, (3, 32, 32), 701_018),
    (resnet18_cifar, (3, 32, 32), 11_173_962),
]


@pytest.mark.parametrize(("factory", "shape", "weights"), NETWORKS)
def test_shapes_and_sizes(factory: Callable[[], nn.Module], shape: tuple[int, ...], weights: int) -> None:
    model = factory().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == weights
    x = torch.rand(2, *shape, requires_grad=True)
    logits = model(x)
    assert logits.shape == (2, 10)
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), x)
    assert gradient.flatten(1).any(1).all()


def test_the_number_of_classes() -> None:
    assert resnet18_cifar(classes=100).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 100)


def test_normalisation_travels_with_the_weights() -> None:
    assert {"mean", "std"} <= set(cifar10_small().state_dict())
