"""What every layer of a network says, and every attention map in it, taken while it runs."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from signstep.diagnosing.bench import Bench
from signstep.diagnosing.landscape.bounds import is_attention
from signstep.engine.keys import Key
from signstep.engine.tree import Tree, rows
from signstep.model.subject import Question

# Layers that are looked at, and values of each row that are kept.
MOST, LARGEST = 200, 2**20


@dataclass
class Taken:
    """By name of the layer, what went in and what came out (R, ...); attention maps (R, heads, tokens, tokens)."""

    inside: dict[str, Tensor] = field(default_factory=dict)
    outside: dict[str, Tensor] = field(default_factory=dict)
    maps: list[Tensor] = field(default_factory=list)


class _Watch(TorchFunctionMode):
    """Keeps attention: softmax whose last two sizes are equal, and the maps of fused attention, computed once more."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.maps = count, list[Tensor]()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        out = func(*args, **named)
        if func is functional.scaled_dot_product_attention:
            self._keep(_fused(*args, **named))
        elif func is functional.multi_head_attention_forward:  # which asks torch without being seen
            with torch.no_grad():
                shown = func(*args, **{**named, "need_weights": True, "average_attn_weights": False})
            self._keep(shown[1])
        elif func in (torch.softmax, Tensor.softmax, functional.softmax) and isinstance(out, Tensor):
            self._keep(out)
        return out

    def _keep(self, found: Tensor | None) -> None:
        if found is None or found.ndim < 3 or found.shape[-1] != found.shape[-2] or found.shape[-1] < 2:
            return
        if found.shape[0] % self.count or found.numel() > self.count * LARGEST or len(self.maps) >= MOST:
            return
        self.maps.append(found.detach().double().reshape(self.count, -1, *found.shape[-2:]).cpu())


def _fused(query: Tensor, key: Tensor, *args: Any, **named: Any) -> Tensor | None:
    """The map of fused attention; none with a mask, which is rarely one of images."""
    given = dict(zip(("value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | named
    if given.get("attn_mask") is not None or given.get("is_causal") or query.shape[:-2] != key.shape[:-2]:
        return None
    scale = named.get("scale") or query.shape[-1] ** -0.5
    shares: Tensor = (query.detach() @ key.detach().transpose(-2, -1) * scale).softmax(-1)
    return shares


def names_of(network: object) -> dict[int, str]:
    """The layers that are looked at, by id: those without children, and attention; in the order of the network."""
    if not isinstance(network, nn.Module):
        return {}
    found = {
        id(part): name or type(part).__name__
        for name, part in network.named_modules()
        if not list(part.children()) or is_attention(part)
    }
    return dict(list(found.items())[:MOST])


def taken(bench: Bench, question: Question, point: Tree, key: Key) -> Taken:
    """What the layers of the model say at a point; one forward pass for each row.

    A layer that is called twice counts as its first call. Layers that mix rows, or do not see one for each example, are
    left out.

    Raises:
        TooDearError: it would cost more than is left.
    """
    count = rows(point)
    bench.need(count)
    bench.spend(count)
    found, names = Taken(), names_of(bench.model.network)

    def watch(module: nn.Module, inputs: Any, out: Any) -> None:
        name = names.get(id(module))
        given = inputs[0] if inputs else None
        out = out[0] if isinstance(out, tuple) and out else out
        if name is None or name in found.outside or not isinstance(out, Tensor) or not isinstance(given, Tensor):
            return
        if len(out) != count or len(given) != count or not out.is_floating_point():
            return
        if max(out.numel(), given.numel()) <= count * LARGEST:
            found.inside[name], found.outside[name] = given.detach().double().cpu(), out.detach().double().cpu()

    hook = nn.modules.module.register_module_forward_hook(watch)
    attention = _Watch(count)
    try:
        # With gradients on, so that transformers of torch go through their layers instead of one fused call.
        with torch.enable_grad(), attention:
            question.problem(_leaf(point), key)
    finally:
        hook.remove()
    found.maps = attention.maps
    return found


def _leaf(point: Tree) -> Tree:
    if isinstance(point, Tensor):
        return point.detach().clone().requires_grad_(point.is_floating_point())
    return {name: part.detach().clone().requires_grad_(part.is_floating_point()) for name, part in point.items()}


def layer_of(network: object, name: str) -> nn.Module | None:
    """The layer of that name."""
    if not isinstance(network, nn.Module):
        return None
    return next((part for other, part in network.named_modules() if (other or type(part).__name__) == name), None)


def shape_of(found: Taken, name: str) -> tuple[int, ...]:
    """Of the input of a layer, without rows."""
    return tuple(found.inside[name].shape[1:])
