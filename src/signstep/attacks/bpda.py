"""Backward pass differentiable approximation: a step without a gradient lends that of another function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from signstep.engine.defaults import plain_tensor
from signstep.errors import ModelError
from signstep.messages import Arg


class Bpda(nn.Module):
    """Computes ``forward``; its gradient is that of ``backward`` at the same input. See `bpda`."""

    def __init__(self, forward: Callable[[Tensor], Any], backward: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self._there, self._back = forward, backward

    def forward(self, x: Tensor) -> Tensor:
        """What ``forward`` computes, exactly."""
        out: Tensor = _Lent.apply(x, self._there, self._back)  # type: ignore[no-untyped-call]
        return out


def bpda(forward: Callable[[Tensor], Any], backward: Callable[[Tensor], Tensor] | None = None) -> Bpda:
    """A preprocessing step or defence that cannot be differentiated, with a backward pass to attack it by.

    y = forward(x);  dy/dx := d backward(x)/dx (Athalye, Carlini & Wagner 2018, arXiv:1802.00420, section 4.1). Without
    ``backward`` the identity stands in, which fits defences that return nearly what they are given: rounding, JPEG,
    denoising. What is computed forwards is ``forward`` itself, so that verdicts stay those of the defended model.

    Args:
        forward: from inputs (R, ...) to what follows; may round, call NumPy or another program. A tensor of integers or
            an array is taken in the dtype of the input.
        backward: a differentiable function with outputs of the same shape; None is the identity.

    Returns:
        A module, to be put in front of a network or inside one.

    Raises:
        ModelError: when it runs, outputs whose shape differs from that of the stand-in.

    Example:
        >>> import torch, signstep as ss
        >>> quantise = ss.bpda(lambda x: (x * 255).round() / 255)
        >>> x = torch.rand(2, 3, requires_grad=True)
        >>> quantise(x).sum().backward()
        >>> x.grad.unique()
        tensor([1.])
    """
    return Bpda(forward, backward)


class _Lent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Callable[[Tensor], Any], back: Callable[[Tensor], Tensor] | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.back = back
        out = plain_tensor(there(x.detach().clone())).to(device=x.device)
        out = out if out.is_floating_point() else out.to(x.dtype)
        if back is None and out.shape != x.shape:
            raise ModelError(
                f"bpda: forward returned shape {tuple(out.shape)} for an input of {tuple(x.shape)}, and the "
                "identity cannot stand in for it",
                remedy=("pass", Arg("backward"), ", a differentiable function with that output"),
            )
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        if ctx.back is None:
            return grad.to(x.dtype), None, None
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            stand_in = ctx.back(leaf)
        if stand_in.shape != grad.shape:
            raise ModelError(
                f"bpda: backward returned shape {tuple(stand_in.shape)}, forward {tuple(grad.shape)}",
                remedy="pass a stand-in with outputs of the same shape",
            )
        return torch.autograd.grad(stand_in, leaf, grad.to(stand_in.dtype))[0], None, None
