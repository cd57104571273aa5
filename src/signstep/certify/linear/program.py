"""A network as a list of steps that bounds go through forwards, as intervals, and backwards, as coefficients."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812

from signstep.certify.bounds.graph import REMEDY, called, part_of, planned
from signstep.certify.bounds.interval import Interval
from signstep.certify.linear import kinds
from signstep.certify.linear.lines import Bend
from signstep.certify.linear.pooling import Pool
from signstep.certify.linear.windows import Tables
from signstep.errors import ModelError


@dataclass(eq=False)
class Step:
    """One part of a network, as it is called on one example.

    Attributes:
        name: for people.
        kind: "given" is the input; "affine" has coefficients on the way back, "bend" lines, "pool" a choice; at a
            "stop" the way back ends in the interval.
        sources: the places of the steps that it takes.
        through: from their intervals to its own.
        shape: of its outputs, without the example's dimension.
        function: of affine steps, on tensors (1, ...).
        layer: a linear or convolutional one, whose coefficients have a short way.
        diagonal: of affine steps: each output is of the inputs in the same place alone.
        reshapes: of affine steps: the same numbers in the same order, in another shape.
        bend: of activations.
        pool: of poolings.
        inputs: the shapes of its sources.
        tables: by the type of coefficients, what `before_convolution` keeps.
        like: a number of the kind and device of all others.
    """

    name: str
    kind: Literal["given", "affine", "bend", "pool", "stop"]
    sources: tuple[int, ...]
    through: Callable[..., Interval]
    shape: tuple[int, ...]
    function: Callable[..., Tensor] | None = None
    layer: nn.Module | None = None
    diagonal: bool = False
    reshapes: bool = False
    bend: Bend | None = None
    pool: Pool | None = None
    inputs: tuple[tuple[int, ...], ...] = ()
    tables: dict[torch.dtype, Tables] = field(default_factory=dict)
    like: Tensor | None = None

    @property
    def direct(self) -> bool:
        """Whether it is a convolution whose coefficients have a short way."""
        return isinstance(self.layer, nn.Conv2d) and self.layer.padding != "same"

    @property
    def dense(self) -> bool:
        """Whether it is a linear layer on vectors."""
        return isinstance(self.layer, nn.Linear) and len(self.shape) == 1 and len(self.inputs[0]) == 1

    @cached_property
    def offset(self) -> Tensor:
        """What it gives of zeros, in its shape."""
        assert self.function is not None
        with torch.no_grad():
            return self.function(*self._zeros())[0]

    @cached_property
    def pull(self) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """From coefficients (S, 1, ...) over its outputs to those over each of its inputs."""
        return torch.func.vmap(self._back)

    @cached_property
    def _back(self) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """The same for one function, (1, ...)."""
        assert self.function is not None
        with torch.enable_grad():
            back: Callable[[Tensor], tuple[Tensor, ...]] = torch.func.vjp(self.function, *self._zeros())[1]
        return back

    @cached_property
    def adds(self) -> bool:
        """Whether its offset is not 0 everywhere."""
        return bool(self.offset.any())

    @cached_property
    def scales(self) -> tuple[Tensor | None, ...]:
        """Of a diagonal step: what it multiplies each input by, number by number; None where that is 1."""
        assert self.like is not None
        found = tuple(part[0] for part in self._back(self.like.new_ones((1, *self.shape))))
        return tuple(None if bool((part == 1).all()) else part for part in found)

    @cached_property
    def narrow(self) -> nn.Module | None:
        """The layer in float32."""
        return None if self.layer is None else copy.deepcopy(self.layer).float()

    @cached_property
    def _absolute(self) -> Tensor:
        """The sizes of the layer's weights."""
        assert isinstance(self.layer, (nn.Linear, nn.Conv2d))
        return self.layer.weight.detach().abs()

    def of_kind(self, dtype: torch.dtype) -> nn.Module:
        """The layer with weights of this type."""
        found = self.narrow if dtype == torch.float32 else self.layer
        assert found is not None
        return found

    @property
    def summed(self) -> int:
        """How many products the way back adds up for one coefficient in the type of the coefficients."""
        if isinstance(self.layer, nn.Conv2d) and self.direct:
            return self.layer.weight[:, 0].numel()
        return self.layer.out_features if isinstance(self.layer, nn.Linear) else 1

    def size(self, *parts: Tensor) -> Tensor:
        """Of an affine step: sum |w| p over its inputs, for p >= 0, each (...) in its shape."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return F.linear(parts[0], self._absolute)
        if isinstance(layer, nn.Conv2d):
            weight = self._absolute
            return F.conv2d(parts[0][None], weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)[0]
        return self.through(*(Interval(torch.zeros_like(part[None]), part[None]) for part in parts)).radius[0]

    def _zeros(self) -> list[Tensor]:
        assert self.like is not None
        return [self.like.new_zeros((1, *shape)) for shape in self.inputs]


@dataclass(frozen=True, eq=False)
class Program:
    """The steps of a network on one example, in an order in which each comes after its sources.

    Attributes:
        steps: the first is the input, the last gives the outputs, or what a last linear layer takes.
        head: that layer.
    """

    steps: tuple[Step, ...]
    head: nn.Linear | None

    @property
    def stops(self) -> tuple[str, ...]:
        """The parts through which no linear bound goes, by name."""
        return tuple(step.name for step in self.steps if step.kind == "stop")

    def intervals(self, box: Interval) -> list[Interval]:
        """The interval of each step, for a box (1, ...) of inputs."""
        found: list[Interval] = []
        for step in self.steps:
            found.append(box if step.kind == "given" else step.through(*(found[place] for place in step.sources)))
        return found

    def values(self, point: Tensor) -> list[Tensor]:
        """What each step gives of an input (1, ...)."""
        found: list[Tensor] = []
        for step in self.steps:
            given = [found[place] for place in step.sources]
            if step.kind == "given":
                found.append(point)
            elif step.function is not None:
                found.append(step.function(*given))
            elif step.bend is not None:
                found.append(step.bend.function(*given))
            else:
                found.append(step.through(*(Interval(part, torch.zeros_like(part)) for part in given)).centre)
        return found


def program(model: nn.Module, box: Interval) -> Program:
    """The program of a network, for inputs like those of a box (1, ...).

    Raises:
        ModelError: the network cannot be traced, or a part of it has no interval.
    """
    plan = planned(model)
    values: dict[fx.Node, Any] = {}
    places: dict[fx.Node, int] = {}
    steps: list[Step] = []
    for node in plan.graph.nodes:
        if node.op == "output":
            last = node.args[0]
            if last not in places:
                raise ModelError(f"the model returns {type(values.get(last)).__name__}, not scores", remedy=REMEDY)
            if places[last] != len(steps) - 1:
                steps.append(_same(steps[places[last]], places[last]))
            return Program(tuple(steps), plan.head(model))
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "placeholder":
            values[node] = box
            step = Step("the input", "given", (), lambda box: box, tuple(box.centre.shape[1:]))
        elif node.op == "get_attr":
            values[node] = plan.attribute(model, str(node.target), box.centre)
            continue
        else:
            values[node] = called(node, model, args, kwargs)
            if not isinstance(values[node], Interval):
                continue
            step = _step(node, model, values, places, tuple(values[node].centre.shape))
        step.like = box.centre.new_zeros(())
        step.inputs = tuple(steps[place].shape for place in step.sources)
        places[node] = len(steps)
        steps.append(step)
    raise AssertionError("a graph without an output")


def _same(step: Step, place: int) -> Step:
    same = Step("the output", "affine", (place,), lambda part: part, step.shape, lambda x: x, diagonal=True)
    same.like, same.inputs = step.like, (step.shape,)
    return same


def _step(
    node: fx.Node, model: nn.Module, values: dict[fx.Node, Any], places: dict[fx.Node, int], shape: tuple[int, ...]
) -> Step:
    """A node that an interval comes through."""
    used = [leaf for leaf in node.all_input_nodes if leaf in places]
    what: Any = part_of(model, str(node.target)) if node.op == "call_module" else node.target
    target = str(getattr(what, "__name__", what))
    name = f"{type(what).__name__} ({str(node.target)[6:]})" if node.op == "call_module" else f"{target} ({node.name})"

    def with_(parts: tuple[Any, ...]) -> tuple[Any, Any]:
        given = dict(zip(used, parts, strict=True))
        return fx.node.map_arg((node.args, node.kwargs), lambda leaf: given.get(leaf, values.get(leaf)))

    def through(*parts: Interval) -> Interval:
        found: Interval = called(node, model, *with_(parts))
        return found

    def function(*parts: Tensor) -> Tensor:
        args, kwargs = with_(parts)
        if node.op == "call_method":
            return getattr(args[0], what)(*args[1:], **kwargs)  # type: ignore[no-any-return]
        return what(*args, **kwargs)  # type: ignore[no-any-return]

    sources = tuple(places[leaf] for leaf in used)
    ones = shape[:1] == (1,) and all(values[leaf].centre.shape[:1] == (1,) for leaf in used)
    step = Step(name, "stop", sources, through, shape[1:])
    if not ones:
        return step
    if node.op == "call_module":
        if isinstance(what, kinds.AFFINE_LAYERS):
            step.kind, step.function = "affine", function
            step.layer = what if isinstance(what, (nn.Linear, nn.Conv2d)) else None
            step.diagonal = isinstance(what, kinds.DIAGONAL_LAYERS)
            step.reshapes = isinstance(what, (nn.Flatten, nn.Unflatten))
            return step
        bend = next((make for kind, make in kinds.LAYERS.items() if isinstance(what, kind)), None)
        step.bend = None if bend is None else bend(what)
        step.pool = Pool.of(what)
    elif what in kinds.AFFINE:
        step.kind, step.function = "affine", function
        same = all(tuple(values[leaf].centre.shape) == shape for leaf in used)
        step.diagonal = same and what in kinds.DIAGONAL
        step.reshapes = what in kinds.RESHAPING
        return step
    elif what in kinds.FUNCTIONS:
        args, kwargs = with_(tuple(values[leaf] for leaf in used))
        step.bend = kinds.FUNCTIONS[what](*args[1:], **{name: arg for name, arg in kwargs.items() if name != "input"})
    elif what is F.max_pool2d:
        args, kwargs = with_(tuple(values[leaf] for leaf in used))
        step.pool = Pool.called(*args[1:], **{name: arg for name, arg in kwargs.items() if name != "input"})
    step.kind = "bend" if step.bend is not None else "pool" if step.pool is not None else "stop"
    return step
