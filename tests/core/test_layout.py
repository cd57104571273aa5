"""Channels last in memory: grey images too, and nothing but the layout changes."""

import pytest
import torch
from torch import Tensor, nn

from signstep.certify.bounds import Interval, worst_margins
from signstep.certify.bounds.rules import LAYERS
from signstep.model.layout import ChannelsLast, channels_last, is_channels_last, overrun, to_channels_first


def network(channels: int = 1) -> nn.Sequential:
    """Two convolutions whose kernels do not tell their layout, and one whose does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 1),
            nn.ReLU(),
            nn.Conv2d(8, 4, 1),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3),
            nn.Flatten(),
            nn.Linear(6 * 6 * 6, 3),
        )


def laid_out(model: nn.Sequential) -> nn.Sequential:
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def inputs(channels: int = 1) -> Tensor:
    return torch.rand((5, channels, 8, 8), generator=torch.Generator().manual_seed(1))


def test_grey_images_are_laid_out_as_coloured_ones_are() -> None:
    for channels in (1, 3):
        x = inputs(channels)
        laid = channels_last(x)
        assert torch.equal(laid, x)
        assert laid.stride() == (64 * channels, 1, 8 * channels, channels)
    for channels in (1, 3):
        already = channels_last(inputs(channels))
        assert channels_last(already) is already
    flat = torch.rand(5, 7)
    assert channels_last(flat) is flat


def test_every_layer_sees_channels_last_and_says_the_same() -> None:
    model, x = network(), inputs().requires_grad_()
    wanted = model(x)
    seen: list[tuple[int, ...]] = []
    for layer in list(model)[:5]:
        layer.register_forward_hook(lambda _, __, out: seen.append(out.stride()))
    assert not is_channels_last(model)
    laid = ChannelsLast(laid_out(model))
    assert is_channels_last(model)
    out = laid(x)
    assert [stride[1] for stride in seen] == [1] * 5
    assert torch.allclose(out, wanted, atol=1e-6)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.abs().sum() > 0


def test_bounds_follow_the_layout_of_the_weights() -> None:
    model, x, y = network(), inputs(), torch.tensor([0, 1, 2, 0, 1])
    wanted = worst_margins(model, x - 0.1, x + 0.1, y)
    laid_out(model)
    assert torch.allclose(worst_margins(model, x - 0.1, x + 0.1, y), wanted, atol=1e-6)
    seen: list[tuple[int, ...]] = []
    rule = LAYERS[nn.ReLU]

    def watched(layer: nn.Module, part: Interval) -> Interval:
        seen.append(part.centre.stride())
        return rule(layer, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAYERS, nn.ReLU, watched)
        worst_margins(model, x - 0.1, x + 0.1, y)
    assert [stride[1] for stride in seen] == [1, 1]


RISKY = {
    "1x1 of stride 2": (nn.Conv2d(4, 8, 1, 2), True),
    "one stride": (nn.Conv2d(3, 5, 1, (1, 2)), True),
    "padded": (nn.Conv2d(2, 8, 1, 2, padding=1), True),
    "stride 1": (nn.Conv2d(4, 8, 1), False),
    "3x3": (nn.Conv2d(4, 8, 3, 2), False),
    "grey": (nn.Conv2d(1, 8, 1, 2), False),
    "eight channels": (nn.Conv2d(8, 8, 1, 2), False),
    "groups": (nn.Conv2d(4, 8, 1, 2, groups=2), False),
}


@pytest.mark.parametrize("name", RISKY)
def test_layers_whose_weight_gradient_overruns_are_known(name: str) -> None:
    layer, risky = RISKY[name]
    assert overrun(nn.Sequential(nn.ReLU(), nn.Sequential(layer))) == ("1.0" if risky else None)
    assert overrun(layer) == ("Conv2d" if risky else None)


@pytest.mark.parametrize("channels", [1, 3])
def test_weights_go_back_to_channels_first(channels: int) -> None:
    model = network(channels)
    strides = [part.stride() for part in model.parameters()]
    assert not to_channels_first(model)
    values = [part.detach().clone() for part in laid_out(model).parameters()]
    assert to_channels_first(model)
    assert [part.stride() for part in model.parameters()] == strides
    assert all(torch.equal(part, value) for part, value in zip(model.parameters(), values, strict=True))
