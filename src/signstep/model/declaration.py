"""What is deployed: something that can be called, with all that is declared about it. Every verb takes one."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from signstep.engine import arrays
from signstep.engine.keys import Key, content_ids
from signstep.engine.origin import foreign
from signstep.engine.tasks import TASK_NAMES, Custom, Objective, Regression, Task, TaskName
from signstep.engine.transform import Transform
from signstep.engine.tree import Tree, leaves, tree_map
from signstep.engine.untouched import Mode
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.predictor import Kind, Predictor, Selector, check_network, select
from signstep.model.shapes import Shape, checked_shape, refuse_other
from signstep.model.space import InputSpace, Statistic

Callee: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Model:
    """A model as it is deployed, ready for any verb: ``ss.attack(m, x, y, threat=...)``, ``ss.audit(m, loader, ...)``.

    The declaration is frozen, the weights are not: what is remembered about a model goes with the version of its
    weights. ``dataclasses.replace(m, output="logits")`` gives another declaration of the same network.

    Attributes:
        network: an nn.Module or any callable; a dict of inputs is passed as keyword arguments.
        mean: the network wants (x - mean) / std: a number, or one for each channel (dimension 1). Threats stay in raw
            units. None where it takes raw inputs.
        std: see ``mean``.
        inputs: "normalised" if the data already is (x_raw - mean) / std; what comes back is in raw units all the same.
        output: where the scores are in what the network returns: a key, an index or a function; None finds them.
        outputs: "auto" recognises a final softmax or sigmoid; "logits", "probabilities" and "labels" declare it.
        task: "auto" (several scores: multiclass, one: binary), "multiclass", "binary", "multilabel", "segmentation",
            "regression", or a task object such as ``ss.Regression(0.1)``.
        mode: "eval" works in evaluation mode, "keep" leaves every submodule as it is.
        transform: what happens to inputs before the network sees them, such as ``ss.transforms.Noise(0.05)``: part of
            what is attacked, drawn for each row.
        classes: names of the classes, in the order of the outputs.
        shape: of one input, such as (3, 224, 224), with None where any size does; None where that is not known. Others
            are refused before they reach the network.
        name: for records; None for the type of the network.
        hashes: SHA-256 of what it was made from, by "weights" and "code", where that is known.
        notes: what was assumed on the way to it, a sentence each; records have them.

    Raises:
        InputError: a declaration makes no sense, by itself or beside another one.

    Example:
        >>> import torch, signstep as ss
        >>> m = ss.Model(torch.nn.Linear(4, 3), mean=0.5, std=0.25, classes=("cat", "dog", "fox"))
        >>> outcome = ss.attack(m, torch.rand(8, 4), threat=ss.linf(0.1))
        >>> m(torch.rand(8, 4)).shape
        torch.Size([8, 3])
    """

    network: Callee
    mean: Statistic = None
    std: Statistic = None
    inputs: Literal["raw", "normalised"] = "raw"
    output: Selector = None
    outputs: Kind = "auto"
    task: Task | TaskName = "auto"
    mode: Mode = "eval"
    transform: Transform | None = None
    classes: Sequence[str] = ()
    shape: Shape = None
    name: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.network, Model):
            raise InputError(
                Arg("network"), "is a Model already", remedy="pass it as it is, or dataclasses.replace(model, ...)"
            )
        check_network(self.network, self.outputs)
        # Made once: every call of a verb needs it.
        object.__setattr__(self, "_raw_space", InputSpace.of(self.mean, self.std, inputs=self.inputs))
        if self.mode not in ("eval", "keep"):
            raise InputError(Arg("mode", self.mode), remedy="pass 'eval' or 'keep'")
        if isinstance(self.task, str) and self.task not in TASK_NAMES:
            raise InputError(
                Arg("task", self.task),
                f"is not one of {', '.join(TASK_NAMES)}",
                remedy="pass one of these, or a task object",
            )
        if self.transform is not None and not callable(self.transform):
            raise InputError(
                Arg("transform", self.transform), remedy="pass one of signstep.transforms, or a function of (u, draws)"
            )
        if self.transform is not None and not _takes_two(self.transform):
            raise InputError(
                Arg("transform", self.transform),
                "does not take two arguments, the inputs and what to draw from",
                remedy="pass a function of (u, draws), which need not draw",
            )
        object.__setattr__(self, "classes", _names(self.classes))
        object.__setattr__(self, "shape", checked_shape(self.shape))
        object.__setattr__(self, "notes", tuple(self.notes))
        object.__setattr__(self, "hashes", dict(self.hashes))

    @classmethod
    def of(cls, model: "Model | Callee", *, mean: Statistic = None, std: Statistic = None) -> "Model":
        """The model itself, or a declaration of a bare network with what the short form of a verb says of it.

        Raises:
            InputError: it cannot be called, or the short form says again what the model declares.
        """
        if not isinstance(model, Model):
            return cls(model, mean=mean, std=std)
        for argument, value in (("mean", mean), ("std", std)):
            if value is not None:
                raise InputError(
                    Arg(argument, value),
                    "is given beside a Model, which declares it itself",
                    remedy="drop it, or pass the bare network",
                )
        return model

    @property
    def module(self) -> nn.Module:
        """The network, where it is an nn.Module.

        Raises:
            InputError: it is another callable.
        """
        if not isinstance(self.network, nn.Module):
            raise InputError(
                f"{self.title} is a {type(self.network).__name__}, which is no nn.Module", remedy="pass one"
            )
        return self.network

    @property
    def defences(self) -> tuple[str, ...]:
        """The transformations of `ss.defend` that stand in front of it, as they are typed."""
        return tuple(getattr(self.transform, "specs", ()))

    @property
    def title(self) -> str:
        """What it is called in records and messages."""
        return self.name or type(self.network).__name__

    @property
    def kind(self) -> Kind:
        """How outputs are read: numbers of regressions and objectives as they are, else as declared."""
        numbers = self.task == "regression" or isinstance(self.task, (Regression, Custom, Objective))
        return "logits" if numbers else self.outputs

    def space(self, budget: Literal["raw", "normalised"] = "raw") -> InputSpace:
        """The input space, for a search that measures in these units."""
        if budget == "raw":
            return cast("InputSpace", vars(self)["_raw_space"])
        return InputSpace.of(self.mean, self.std, inputs=self.inputs, budget=budget)

    def predictor(self, space: InputSpace | None = None, kind: Kind | None = None) -> Predictor:
        """What calls the network, on inputs in the units of the space's budget."""
        space = self.space() if space is None else space
        prepare = None if space.mean is None else lambda u: tree_map(space.to_model, u)
        return Predictor(self.network, self.output, self.kind if kind is None else kind, prepare, shape=self.shape)

    def __call__(self, x: Tree | arrays.Array) -> Tensor:
        """The scores of inputs (R, ...) in the declared units, differentiable, with the network as it stands.

        A declared transform is drawn from each input's content, so that the same input gets the same answer.
        """
        made = arrays.inputs(x, [], home=arrays.Home(self.network))
        refuse_other(self.shape, made)
        space = self.space()
        if self.transform is not None:
            transform, raw = self.transform, tree_map(space.to_raw, made)
            draws = Key(0).fold("transform").draws(content_ids(raw), leaves(raw)[0].device)
            with foreign("transform="):
                made = tree_map(lambda part: transform(part, draws), raw)
        if space.mean is not None and (self.inputs == "raw" or self.transform is not None):
            made = tree_map(space.normalise, made)
        returned = self.network(**made) if isinstance(made, dict) else self.network(made)
        return select(returned, self.output)

    def to(self, device: str | torch.device) -> "Model":
        """The same declaration, its network moved (in place, as torch does)."""
        if isinstance(self.network, nn.Module):
            self.network.to(device)
        return self

    def __repr__(self) -> str:
        said = [f"{part.name}={getattr(self, part.name)!r}" for part in fields(self)[1:] if self.says(part.name)]
        return f"Model({', '.join([type(self.network).__name__, *said])})"

    def says(self, name: str) -> bool:
        """Whether an attribute of that name is declared to be something else than the default."""
        value, default = getattr(self, name), _DEFAULTS.get(name)
        return not isinstance(value, type(default)) or isinstance(value, Tensor) or value != default


def same(one: Model, other: Model) -> bool:
    """Whether two declarations say the same of the same network; names and hashes are no matter."""
    names = [part.name for part in fields(Model) if part.name not in ("classes", "name", "hashes")]
    return all(_equal(getattr(one, name), getattr(other, name)) for name in names)


def _equal(one: object, other: object) -> bool:
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and not isinstance(one, (Tensor, nn.Module)) and one == other


_DEFAULTS: dict[str, Any] = {
    "inputs": "raw",
    "outputs": "auto",
    "task": "auto",
    "mode": "eval",
    "classes": (),
    "hashes": {},
    "notes": (),
}


def _names(classes: object) -> tuple[str, ...]:
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not all(isinstance(c, str) for c in classes):
        raise InputError(Arg("classes", classes), remedy="pass the names of the classes, a text for each output")
    return tuple(classes)


def _takes_two(function: object) -> bool:
    """Whether two arguments by place suit a function; those that do not say are taken at their word."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else cast("Any", function))
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(None, None)
    except TypeError:
        return False
    return True
