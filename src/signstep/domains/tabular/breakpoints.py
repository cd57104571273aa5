"""Where the answer of a model can change along a line, for models that can be read: nothing is asked for it.

Along a line a network of linear layers and rectifiers is linear between the points where a unit meets its kink, so the
answer changes at zeros of differences of scores, which are found exactly. A tree compares one feature at a time with a
threshold, so its answer changes at thresholds of moving features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812

from signstep.domains.tabular.decide import Decider
from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.forms import TabularEstimator, TabularNet
from signstep.domains.tabular.thresholds import thresholds_of


class Turns(NamedTuple):
    """Where the answer of a model can change.

    Attributes:
        along: from decoded records (L, F) where lines begin, the change of the numbers (L, N) per unit of length, and
            lengths (L,): all lengths (L, K) at which the answer can change, inf where there are fewer.
        few: whether nearly all of them are changes of the decision. Of a tree's thresholds few are.
    """

    along: Callable[[Tensor, Tensor, Tensor], Tensor]
    few: bool


_AT_ONCE = 2**22  # numbers of a layer held at once
_MOST = 2**15  # kinks of a line times units of a layer: a network with more costs less when it is asked
_CLOSE = 1e-3  # of the scores: how far what was read may be from what the model says


def turns_of(decider: Decider, decoded: Tensor, lead: Tensor, granted: Tensor) -> Turns | None:
    """The turns of a model of wide rows, or None where it cannot be read.

    Args:
        decider: that asks the model.
        decoded: (R, F) records it was asked for. What is read must say the same of them.
        lead: (R,) what it said.
        granted: (R,) what it decided.
    """
    model, layout = decider.model, decider.layout
    if isinstance(model, TabularNet):
        # Hooks may change what a layer says; those of the whole model may too, which the check shows.
        if any(part._forward_hooks or part._forward_pre_hooks for part in model.net.modules()):
            return None
        layers = _layers(model.net)
        network = None if layers is None else _Network(layers, layout)
        return Turns(network.turns, few=True) if network and network.agrees(decoded, lead, granted) else None
    if isinstance(model, TabularEstimator):
        cuts = thresholds_of(model.estimator, layout)
        return None if cuts is None else Turns(lambda *lines: _at(cuts, layout, *lines), few=False)
    return None


class _Layer(NamedTuple):
    """One layer: the kinks of its units on what comes in, and what it makes of numbers (..., W)."""

    kinks: tuple[float, ...]
    apply: Callable[[Tensor], Tensor]


def _layers(net: nn.Module) -> list[_Layer] | None:
    """The layers of a chain; None where a part is neither linear nor a rectifier. A last softmax keeps the order."""
    try:
        graph = fx.symbolic_trace(net).graph
    except Exception:  # whatever a user's forward does when it is traced: then it is asked
        return None
    parts: list[Any] = []
    last = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if last is not None:
                break
            last = node
            continue
        if node.op == "get_attr" or node.all_input_nodes != [last]:
            return None
        if node.op == "output":
            return None if node.args[0] is not last else _read(parts)
        parts.append(net.get_submodule(str(node.target)) if node.op == "call_module" else _function(node))
        last = node
    return None


def _function(node: fx.Node) -> nn.Module | None:
    """A function or method of one tensor as the layer that it is; None for others."""
    plain = len(node.args) == 1 and not {name for name in node.kwargs if name != "inplace"}
    rectifiers = (torch.relu, F.relu, "relu")
    return nn.ReLU() if plain and node.target in rectifiers else None


def _read(parts: list[Any]) -> list[_Layer] | None:
    if parts and type(parts[-1]) in (nn.Softmax, nn.LogSoftmax, nn.Sigmoid):
        parts = parts[:-1]
    found = [_layer(part) for part in parts]
    return None if None in found else [layer for layer in found if layer is not None]


def _layer(part: Any) -> _Layer | None:
    """What a layer does, with the weights of now in float64; None for a kind that is not known."""
    kind = type(part)
    if kind is nn.Linear:
        weight = part.weight.detach().double()
        bias = None if part.bias is None else part.bias.detach().double()
        return _Layer((), lambda values: F.linear(values, weight, bias))
    if kind is nn.BatchNorm1d:
        return None if part.training or part.running_mean is None else _Layer((), _normalised(part))
    if kind in (nn.Identity, nn.Flatten) or (kind is nn.Dropout and not part.training):
        return _Layer((), lambda values: values)
    kinks = _KINKS[kind](part) if kind in _KINKS else None
    return None if kinks is None else _Layer(kinks, lambda values: part(values.clone()))


_KINKS: dict[type, Callable[[Any], tuple[float, ...]]] = {
    nn.ReLU: lambda _: (0.0,),
    nn.LeakyReLU: lambda _: (0.0,),
    nn.ReLU6: lambda _: (0.0, 6.0),
    nn.Hardtanh: lambda part: (part.min_val, part.max_val),
}


def _normalised(part: nn.BatchNorm1d) -> Callable[[Tensor], Tensor]:
    assert part.running_mean is not None
    assert part.running_var is not None
    scale = (part.running_var.double() + part.eps).rsqrt()
    scale = scale if part.weight is None else scale * part.weight.detach().double()
    shift = -part.running_mean.double() * scale
    shift = shift if part.bias is None else shift + part.bias.detach().double()
    return lambda values: values * scale + shift


class _Network:
    """A chain of layers on wide rows, in float64.

    Attributes:
        kinks: of all units together: a line has so many at most from each linear piece.
        widest: numbers of the widest layer.
    """

    def __init__(self, layers: list[_Layer], layout: Layout) -> None:
        self._layers, self._layout, self._standard = layers, layout, layout.schema.form == "encoded"
        self.kinks, self.widest = 0, layout.width
        values = torch.zeros((1, layout.width), dtype=torch.float64, device="cpu")
        for layer in layers:
            self.kinks += len(layer.kinks) * values.shape[1]
            values = layer.apply(values)
            self.widest = max(self.widest, values.shape[1])

    def _inputs(self, decoded: Tensor) -> Tensor:
        wide = self._layout.widen(decoded)
        return self._layout.standardise(wide) if self._standard else wide

    def agrees(self, decoded: Tensor, lead: Tensor, granted: Tensor) -> bool:
        """Whether it is small enough to be read, and says of decoded records (R, F) what the model said."""
        if self.kinks * self.widest > _MOST:
            return False
        scores = self._inputs(decoded)
        for layer in self._layers:
            scores = layer.apply(scores)
        if scores.ndim != 2 or not scores.shape[1]:
            return False
        good = self._layout.schema.target.good
        if scores.shape[1] == 1:
            read = scores[:, 0] if good else -scores[:, 0]
        else:
            others = scores.clone()
            others[:, good] = -torch.inf
            read = scores[:, good] - others.amax(1)
        close = (read - lead).abs() <= _CLOSE * (1 + lead.abs())
        return bool(close.all()) and bool((((read > 0) == granted) | (read.abs() < _CLOSE)).all())

    def turns(self, begin: Tensor, step: Tensor, longest: Tensor) -> Tensor:
        """All lengths at which the decision for the favourable class can change: see `Turns.along`."""
        size = max(1, _AT_ONCE // ((2 + self.kinks) * self.widest))
        parts = [
            self._some(*part)
            for part in zip(*(torch.split(part, size) for part in (begin, step, longest)), strict=True)
        ]
        width = max((part.shape[1] for part in parts), default=0)
        return torch.cat([F.pad(part, (0, width - part.shape[1]), value=torch.inf) for part in parts] or [step[:, :0]])

    def _some(self, begin: Tensor, step: Tensor, longest: Tensor) -> Tensor:
        change = begin.new_zeros((len(begin), self._layout.width))
        spread = (
            self._layout.scale[1]
            if self._standard
            else torch.ones(self._layout.width, dtype=torch.float64, device="cpu")
        )
        change[:, self._layout.numeric_columns] = step
        change = change / spread
        length = torch.stack([torch.zeros_like(longest), longest], 1)
        values = self._inputs(begin).unsqueeze(1) + length.unsqueeze(2) * change.unsqueeze(1)
        for layer in self._layers:
            for kink in layer.kinks:
                length, values = _refined(length, values, _crossings(length, values - kink))
            values = layer.apply(values)
        good = self._layout.schema.target.good
        if values.shape[2] == 1:
            found = [_crossings(length, values - level) for level in (0.0, 0.5)]
        else:
            found = [_crossings(length, values[:, :, good : good + 1] - values)]
        return _narrow(torch.cat(found, 1), torch.inf)


def _crossings(length: Tensor, values: Tensor) -> Tensor:
    """Where each of W numbers (L, K, W), linear between the lengths (L, K), is zero: sorted, inf where fewer."""
    before, after = values[:, :-1], values[:, 1:]
    meets = (before * after <= 0) & (before != after)
    share = before / torch.where(meets, before - after, 1.0)
    low, high = length[:, :-1].unsqueeze(2), length[:, 1:].unsqueeze(2)
    return _narrow(torch.where(meets, low + share * (high - low), torch.inf).flatten(1), torch.inf)


def _narrow(length: Tensor, fill: float) -> Tensor:
    """Sorted, each once, no wider than the longest row needs."""
    length = length.sort(1).values
    again = torch.zeros_like(length, dtype=torch.bool)
    again[:, 1:] = length[:, 1:] == length[:, :-1]
    length = torch.where(again, fill, length).sort(1).values
    most = int(torch.isfinite(length).sum(1).max()) if length.numel() else 0
    return length[:, :most]


def _refined(length: Tensor, values: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths and values with further lengths between them; values are linear there."""
    if more.shape[1] == 0:
        return length, values
    end = length[:, -1:]
    every = torch.cat([length, torch.minimum(more, end)], 1).sort(1).values
    place = torch.searchsorted(length.contiguous(), every.contiguous(), right=True).clamp(1, length.shape[1] - 1)
    low, high = length.gather(1, place - 1), length.gather(1, place)
    share = ((every - low) / torch.where(high > low, high - low, 1.0)).clamp(0, 1).unsqueeze(2)
    wide = place.unsqueeze(2).expand(-1, -1, values.shape[2])
    return every, torch.lerp(values.gather(1, wide - 1), values.gather(1, wide), share)


def _at(cuts: list[Tensor], layout: Layout, begin: Tensor, step: Tensor, longest: Tensor) -> Tensor:
    """Where the moving numbers of each line pass a threshold of theirs."""
    most = max((len(part) for part in cuts), default=0)
    table = begin.new_full((max(1, len(cuts)), max(1, most)), torch.inf)
    for number, part in enumerate(cuts):
        table[number, : len(part)] = part
    moving = (step != 0).long()
    width = int(moving.sum(1).max()) if len(step) else 0
    feature = moving.topk(max(1, width), 1)
    value = begin[:, layout.numeric].gather(1, feature.indices)
    rate = step.gather(1, feature.indices)
    at = (table[feature.indices] - value.unsqueeze(2)) / torch.where(rate != 0, rate, 1.0).unsqueeze(2)
    here = (feature.values > 0).unsqueeze(2) & (at >= 0) & (at <= longest.view(-1, 1, 1))
    return _narrow(torch.where(here, at, torch.inf).flatten(1), torch.inf)
