"""From a network and a box of inputs to bounds on its answers (Gowal et al. 2018, "On the effectiveness of IBP")."""

import weakref
from typing import Any

import torch
from torch import Tensor, fx, nn

from signstep.core.bounds.interval import Interval
from signstep.core.bounds.rules import ABOUT, ABOUT_METHODS, FUNCTIONS, METHODS, rule_of
from signstep.errors import ModelError

_REMEDY = "bounds need a network of linear and convolutional layers, BatchNorm, pooling, sums and usual activations"


def bounds_on(model: nn.Module, low: Tensor, high: Tensor) -> Interval:
    """Outputs that no input between ``low`` and ``high`` can leave; differentiable to the weights.

    Args:
        model: any module whose parts have a rule (`signstep.core.bounds.rules`); its weights are not touched.
        low: the least inputs (R, ...).
        high: the largest ones.

    Raises:
        ModelError: the network cannot be traced, or a part of it has no rule.
    """
    model = _whole(model)
    body, head = _traced(model)
    inner = _Walk(body, model).run(Interval.between(low, high))
    return inner if head is None else _head(head, inner)


def worst_margins(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Upper bounds of z_k - z_y over all inputs between ``low`` and ``high``, (R, K); 0 in column y.

    Where all others are below 0, no input in the box has another answer than y. A last linear layer is joined with the
    difference, so that what classes share cancels.

    Args:
        model: see `bounds_on`.
        low: the least inputs (R, ...).
        high: the largest ones.
        y: classes (R,).

    Raises:
        ModelError: the network cannot be traced, a part of it has no rule, or its outputs are not (R, K).
    """
    model = _whole(model)
    body, head = _traced(model)
    inner = _Walk(body, model).run(Interval.between(low, high))
    if head is not None and inner.centre.ndim == 2:
        weight = head.weight
        ways = (weight.unsqueeze(0) - weight[y].unsqueeze(1)).abs()  # (R, K, D)
        middle: Tensor = head(inner.centre)
        reach = torch.bmm(ways, inner.radius.to(ways.dtype).unsqueeze(2)).squeeze(2)
        return middle - middle.gather(1, y.unsqueeze(1)) + reach
    outputs = inner if head is None else _head(head, inner)
    if outputs.centre.ndim != 2:
        raise ModelError(f"the model's outputs have shape {tuple(outputs.centre.shape)}; margins need (R, K) scores")
    margins = outputs.high - outputs.low.gather(1, y.unsqueeze(1))
    return margins.scatter(1, y.unsqueeze(1), 0.0)


def _head(head: nn.Linear, inner: Interval) -> Interval:
    rule = rule_of(head)
    assert rule is not None
    return rule(head, inner)


def _whole(model: nn.Module) -> nn.Module:
    """A single layer as a network: what is traced is what a module calls, and a layer calls no layer."""
    return model if rule_of(model) is None else nn.Sequential(model)


class _Tracer(fx.Tracer):
    """Layers with a rule stay whole."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return rule_of(module) is not None or super().is_leaf_module(module, name)


# Tracing costs as much as a step of a small network; what was traced goes with the model.
_known: "weakref.WeakKeyDictionary[nn.Module, tuple[tuple[type, ...], fx.Graph, str | None]]" = (
    weakref.WeakKeyDictionary()
)


def _traced(model: nn.Module) -> tuple[fx.Graph, nn.Linear | None]:
    """The graph of a network up to its last linear layer, and that layer; or all of it, and None."""
    kinds = tuple(type(part) for part in model.modules())
    known = _known.get(model)
    if known is None or known[0] != kinds:
        try:
            graph = _Tracer().trace(model)
        except Exception as error:  # code that looks at values fails in as many ways as there are
            reason = (str(error).strip().splitlines() or [""])[0][:160]
            raise ModelError(
                f"{type(model).__name__} cannot be traced ({type(error).__name__}: {reason}); {_REMEDY}, whose forward "
                "does not branch on values"
            ) from error
        known = _known[model] = (kinds, graph, _split(graph, model))
    _, graph, name = known
    head = None if name is None else model.get_submodule(name)
    assert head is None or isinstance(head, nn.Linear)
    return graph, head


def _split(graph: fx.Graph, model: nn.Module) -> str | None:
    """Cut a last linear layer off; its name, or None where the graph does not end in one."""
    end = next(node for node in graph.nodes if node.op == "output")
    last = end.args[0]
    if not isinstance(last, fx.Node) or last.op != "call_module" or len(last.users) != 1:
        return None
    name = str(last.target)
    if not isinstance(model.get_submodule(name), nn.Linear):
        return None
    end.args = (last.args[0],)
    graph.erase_node(last)
    return name


class _Walk:
    """Runs a graph on an interval: parts that an interval comes to by their rule, others as they are."""

    def __init__(self, graph: fx.Graph, model: nn.Module) -> None:
        self._graph, self._model = graph, model

    def run(self, given: Interval) -> Interval:
        """The interval at the graph's output."""
        values: dict[fx.Node, Any] = {}
        left = {node: len(node.users) for node in self._graph.nodes}
        for node in self._graph.nodes:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            if node.op == "placeholder":
                values[node] = given
            elif node.op == "get_attr":
                values[node] = _attribute(self._model, str(node.target))
            elif node.op == "output":
                if not isinstance(args[0], Interval):
                    raise ModelError(f"the model returns {type(args[0]).__name__}, not scores; {_REMEDY}")
                return args[0]
            else:
                values[node] = self._called(node, args, kwargs)
            for used in node.all_input_nodes:  # what nobody asks for any more is let go
                left[used] -= 1
                if left[used] == 0:
                    del values[used]
        raise AssertionError("a graph without an output")

    def _called(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        target: Any = node.target
        what: Any = self._model.get_submodule(target) if node.op == "call_module" else target
        touched = any(isinstance(part, Interval) for part in _flat((args, kwargs)))
        if not touched:
            return getattr(args[0], what)(*args[1:], **kwargs) if node.op == "call_method" else what(*args, **kwargs)
        if what in ABOUT or (node.op == "call_method" and what in ABOUT_METHODS):
            asked = args[0].centre
            return getattr(asked, what)(*args[1:]) if node.op == "call_method" else what(asked, *args[1:])
        rule: Any
        if node.op == "call_module":
            rule = rule_of(what)
            name = f"{type(what).__name__} ({target})"
        else:
            rule = (METHODS if node.op == "call_method" else FUNCTIONS).get(what)
            name = str(getattr(what, "__name__", what))
        if rule is None:
            raise ModelError(f"no interval goes through {name}; {_REMEDY}")
        try:
            found: Any = rule(what, *args, **kwargs) if node.op == "call_module" else rule(*args, **kwargs)
        except TypeError as error:
            raise ModelError(f"no interval goes through {name} here ({error}); {_REMEDY}") from error
        return found


def _attribute(model: nn.Module, name: str) -> Any:
    found: Any = model
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _flat(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in _flat(part)]
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in _flat(part)]
    return [tree]
