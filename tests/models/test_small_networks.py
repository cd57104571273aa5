from collections.abc import Callable

import pytest
import torch
from torch import nn

import signstep as ss
from signstep.errors import InputError
from signstep.model.opening import open_model
from signstep.networks.parts import ACTIVATIONS, bounded
from signstep.networks.preact import preact_resnet18
from signstep.networks.small import cifar10_small, digits_cnn, mnist_cnn, resnet18_cifar
from signstep.networks.vgg import vgg
from signstep.networks.vit import vit

NETWORKS = [
    (mnist_cnn, (1, 28, 28), 166_406),
    (digits_cnn, (1, 8, 8), 38_282),
    (cifar10_small, (3, 32, 32), 701_018),
    (resnet18_cifar, (3, 32, 32), 11_173_962),
    (preact_resnet18, (3, 32, 32), 11_172_170),
    (vgg, (1, 8, 8), 25_274),
    (vit, (1, 8, 8), 86_410),
]

# Small, and of every kind.
KINDS: list[tuple[str, dict[str, object]]] = [
    ("small:digits_cnn", {}),
    ("vgg:vgg", {"width": 4}),
    ("vgg:vgg", {"width": 4, "norm": "batch"}),
    ("preact:preact_resnet18", {"channels": 1, "width": 2}),
    ("vit:vit", {"width": 8, "depth": 2, "heads": 2}),
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


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (2, 3), (1, 1)])
def test_networks_of_any_size(channels: int, size: int) -> None:
    x = torch.rand(2, channels, size, size)
    assert vgg(channels=channels, size=size, classes=7, width=4)(x).shape == (2, 7)
    assert vit(channels=channels, size=size, classes=7, patch=1, width=8, depth=1, heads=2)(x).shape == (2, 7)


@pytest.mark.parametrize(("spec", "more"), KINDS)
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations_by_name(name: str, spec: str, more: dict[str, object]) -> None:
    model = open_model(f"signstep.networks.{spec}", args={"activation": name, **more}).module
    kinds = {type(part) for part in model.modules()}
    assert type(ACTIVATIONS[name]()) in kinds
    assert kinds & {type(make()) for make in ACTIVATIONS.values()} == {type(ACTIVATIONS[name]())}


@pytest.mark.parametrize(("spec", "more"), KINDS)
@pytest.mark.parametrize("spectral", [False, True])
def test_every_kind_can_be_trained_with_one_and_two_derivatives(
    spectral: bool, spec: str, more: dict[str, object]
) -> None:
    model = open_model(f"signstep.networks.{spec}", args={"spectral": spectral, **more}).module.train()
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    for recipe in ("n-fgsm", "gradalign"):
        model.zero_grad()
        torch.autograd.backward(ss.adversarial_loss(model, x, y, recipe, threat=ss.linf(0.1)))
        assert all(part.grad is not None and bool(part.grad.isfinite().all()) for part in model.parameters())


def test_spectral_normalisation_bounds_every_layer() -> None:
    conv, linear = nn.Conv2d(1, 6, 3), nn.Linear(6 * 36, 10)
    model = bounded(nn.Sequential(conv, nn.Flatten(), linear)).train()
    for _ in range(20):
        model(torch.rand(1, 1, 8, 8))
    model.eval()
    for weight in (conv.weight.detach(), linear.weight.detach()):
        assert float(torch.linalg.matrix_norm(weight.reshape(len(weight), -1), 2)) == pytest.approx(1, abs=0.02)


def test_declared_statistics_are_inside_of_the_network() -> None:
    bare, own = preact_resnet18(width=2).eval(), preact_resnet18(width=2, mean=(0.1, 0.2, 0.3), std=0.5).eval()
    own.load_state_dict({**bare.state_dict(), **{name: own.state_dict()[name] for name in ("mean", "std")}})
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(own(x), bare((x - torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1)) / 0.5), atol=1e-5)


@pytest.mark.parametrize(
    ("factory", "arguments", "words"),
    [
        (vgg, {"activation": "swish"}, "activation='swish'"),
        (vgg, {"norm": "layer"}, "norm='layer'"),
        (vgg, {"width": 0}, "width=0"),
        (vit, {"patch": 3}, "patch=3 must divide size=8"),
        (vit, {"width": 50}, "heads=4 must divide width=50"),
        (preact_resnet18, {"width": 1.5}, "width=1.5"),
        (preact_resnet18, {"width": 2, "std": 0.0}, "std=0.0"),
        (preact_resnet18, {"width": 2, "mean": (0.1, 0.2)}, "mean="),
        (mnist_cnn, {"activation": "none"}, "pass one of relu"),
    ],
)
def test_wrong_arguments_are_told(factory: Callable[..., nn.Module], arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", "\\(")):
        factory(**arguments)
