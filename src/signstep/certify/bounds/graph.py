"""A network as a graph that bounds can walk: traced once, kept with the model, and what has no rule named."""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from signstep.certify.bounds.interval import Interval
from signstep.certify.bounds.rules import ATTRIBUTES, FUNCTIONS, METHODS, QUESTIONS, rule_of
from signstep.errors import ModelError

REMEDY = "bounds need a network of linear and convolutional layers, BatchNorm, pooling, sums and usual activations"


class _Only(nn.Module):
    """A network called with one input, so that its other arguments have their defaults; and a layer as a network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class _Tracer(fx.Tracer):
    """Layers with a rule stay whole, and buffers are asked for each time."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return rule_of(module) is not None or super().is_leaf_module(module, name)


@dataclass(frozen=True)
class Plan:
    """What was traced of a network.

    Attributes:
        kinds: of its parts, and their modes: when these change, it is traced anew.
        graph: up to a last linear layer.
        last: the name of that layer; None where the graph does not end in one.
        constants: tensors that the code makes by itself.
    """

    kinds: tuple[tuple[type, bool], ...]
    graph: fx.Graph
    last: str | None
    constants: dict[str, Tensor]

    def head(self, model: nn.Module) -> nn.Linear | None:
        """The last linear layer, which the graph leaves out."""
        if self.last is None:
            return None
        head = part_of(model, self.last)
        assert isinstance(head, nn.Linear)
        return head

    def walk(self, model: nn.Module, given: Interval) -> Interval:
        """The interval at the graph's output: parts that an interval comes to by their rule, others as they are."""
        values: dict[fx.Node, Any] = {}
        left = {node: len(node.users) for node in self.graph.nodes}
        for node in self.graph.nodes:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            if node.op == "placeholder":
                values[node] = given
            elif node.op == "get_attr":
                values[node] = self.attribute(model, str(node.target), given.centre)
            elif node.op == "output":
                if not isinstance(args[0], Interval):
                    raise ModelError(f"the model returns {type(args[0]).__name__}, not scores", remedy=REMEDY)
                return args[0]
            else:
                values[node] = called(node, model, args, kwargs)
            for used in node.all_input_nodes:  # what nobody asks for any more is let go
                left[used] -= 1
                if left[used] == 0:
                    del values[used]
        raise AssertionError("a graph without an output")

    def attribute(self, model: nn.Module, name: str, like: Tensor) -> Any:
        """A parameter, a buffer or a tensor of the code's own, like the inputs."""
        if name in self.constants:
            constant = self.constants[name].to(like.device)
            return constant.to(like.dtype) if constant.is_floating_point() else constant
        found: Any = model
        for piece in name.split(".")[1:]:
            found = getattr(found, piece)
        return found


# Tracing costs as much as a step of a small network; what was traced goes with the model.
_known: "weakref.WeakKeyDictionary[nn.Module, Plan]" = weakref.WeakKeyDictionary()


def planned(model: nn.Module) -> Plan:
    """The plan of a network, traced once for as long as its parts and their modes stay.

    Raises:
        ModelError: it cannot be traced.
    """
    kinds = tuple((type(part), part.training) for part in model.modules())
    known = _known.get(model)
    if known is None or known.kinds != kinds:
        known = _known[model] = _trace(model, kinds)
    return known


def _trace(model: nn.Module, kinds: tuple[tuple[type, bool], ...]) -> Plan:
    whole, before = _Only(model), torch.get_rng_state()
    try:
        graph = _Tracer().trace(whole)
    except Exception as error:  # code that looks at values fails in as many ways as there are
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise ModelError(
            f"{type(model).__name__} cannot be traced ({type(error).__name__}: {reason})",
            remedy=f"{REMEDY}, whose forward does not branch on values",
        ) from error
    if not torch.equal(before, torch.get_rng_state()):
        torch.set_rng_state(before)
        raise ModelError(
            f"{type(model).__name__} draws random numbers, and bounds hold for a network that always does the same",
            remedy="switch them off",
        )
    constants = {
        str(node.target): getattr(whole, str(node.target))
        for node in graph.nodes
        if node.op == "get_attr" and not str(node.target).startswith("inner.")
    }
    return Plan(kinds, graph, _cut(graph, model), constants)


def _cut(graph: fx.Graph, model: nn.Module) -> str | None:
    """Cut a last linear layer off; its name, or None where the graph does not end in one."""
    end = next(node for node in graph.nodes if node.op == "output")
    last = end.args[0]
    if not isinstance(last, fx.Node) or last.op != "call_module" or len(last.users) != 1 or len(last.args) != 1:
        return None
    layer = part_of(model, str(last.target))
    if not isinstance(layer, nn.Linear) or rule_of(layer) is None:
        return None
    end.args = (last.args[0],)
    graph.erase_node(last)
    return str(last.target)


def part_of(model: nn.Module, name: str) -> nn.Module:
    """A part by its name in the graph, in which the network itself is called inner."""
    return model.get_submodule(name.partition(".")[2])


def called(node: fx.Node, model: nn.Module, args: Any, kwargs: Any) -> Any:
    """What a node gives: by the rule of its layer or function where an interval comes to it, else as it is.

    Raises:
        ModelError: it has no rule.
    """
    what: Any = part_of(model, str(node.target)) if node.op == "call_module" else node.target
    if not any(isinstance(part, Interval) for part in flat((args, kwargs))):
        return getattr(args[0], what)(*args[1:], **kwargs) if node.op == "call_method" else what(*args, **kwargs)
    if what is getattr and args[1] in ATTRIBUTES:
        return getattr(args[0].centre, args[1])
    if node.op == "call_method" and what in QUESTIONS:
        return getattr(args[0].centre, what)(*args[1:], **kwargs)
    name, rule = _rule(node, what)
    if rule is None:
        raise ModelError(f"no interval goes through {name}", remedy=REMEDY)
    if _overwrites(node, what) and any(len(used.users) > 1 for used in node.all_input_nodes):
        raise ModelError(f"{name} overwrites a value that is used again", remedy="pass inplace=False there")
    try:
        return rule(what, *args, **kwargs) if node.op == "call_module" else rule(*args, **kwargs)
    except TypeError as error:
        raise ModelError(f"no interval goes through {name} here ({error})", remedy=REMEDY) from error


def _rule(node: fx.Node, what: Any) -> tuple[str, Any]:
    if node.op == "call_module":
        hooked = what._forward_hooks or what._forward_pre_hooks
        return f"{type(what).__name__} ({str(node.target)[6:]}{', which has hooks' if hooked else ''})", rule_of(what)
    if what is getattr:
        return f"the attribute {node.args[1]}", None
    return str(getattr(what, "__name__", what)), (METHODS if node.op == "call_method" else FUNCTIONS).get(what)


def _overwrites(node: fx.Node, what: Any) -> bool:
    return bool(getattr(what, "inplace", False) if node.op == "call_module" else node.kwargs.get("inplace", False))


def flat(tree: Any) -> list[Any]:
    """The leaves of what a call was given."""
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in flat(part)]
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in flat(part)]
    return [tree]
