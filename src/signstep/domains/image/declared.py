"""What a request says about a model beside what the model brings with itself, and in which order its classes are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from signstep.data import DataSource
from signstep.domains.case import Request
from signstep.engine.tasks import Regression, Segmentation, Task, TaskName
from signstep.errors import InputError
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.model.shapes import refuse_shape


def declared(request: Request, model: Model) -> Model:
    """An opened model with what the request declares beside it.

    Raises:
        InputError: the request says again what the model brings with itself; there is one source for it, so that a
            mean cannot be applied twice, and none is wrong in silence.
    """
    given = said(request)
    again = next((name for name in given if model.says(name)), None)
    if again is not None:
        raise InputError(
            Arg(again, given[again]),
            f"says again what {model.title} declares itself, {shown(getattr(model, again))}",
            remedy="drop it, or pass a factory that declares something else",
        )
    return replace(model, **given)


def declared_beside(request: Request, model: Model) -> Model:
    """The same for one of several models: what it brings with itself holds, the request says the rest."""
    given = {name: value for name, value in said(request).items() if not model.says(name)}
    if given.get("outputs") == "labels":  # of the model that is attacked; gradients need scores
        del given["outputs"]
    return replace(model, **given)


def shown(value: object) -> str:
    """A declared value, short."""
    if isinstance(value, Tensor):
        value = value.flatten().tolist()
    if isinstance(value, (list, tuple)):
        return ", ".join(f"{part:.6g}" if isinstance(part, float) else str(part) for part in value)
    return str(value)


def said(request: Request) -> dict[str, Any]:
    """What the request says, by the model's own names; what it leaves at its default it does not say.

    The mode is none of it: a model is opened in it.
    """
    plain = Request()
    given = {
        name: getattr(request, name)
        for name in ("mean", "std", "inputs", "output", "outputs")
        if getattr(request, name) is not None and getattr(request, name) != getattr(plain, name)
    }
    task = task_of(request)
    return given if task == "auto" else given | {"task": task}


def task_of(request: Request) -> Task | TaskName:
    """The task, with the tolerance of a regression and the positions that a segmentation leaves out.

    Raises:
        InputError: a regression without tolerance, or a tolerance without regression.
    """
    name, tolerance, ignore = request.task, request.tolerance, request.ignore_label
    if name == "segmentation" and ignore is not None and tolerance is None:
        return Segmentation(ignore=ignore)
    if name == "regression" and tolerance is not None:
        return Regression(tolerance)
    if name == "regression":
        raise InputError(
            Arg("task", "regression"),
            "needs",
            Arg("tolerance"),
            remedy="pass the largest error that still counts as right",
        )
    if tolerance is not None:
        raise InputError(
            Arg("tolerance", tolerance),
            "is for",
            Arg("task", "regression"),
            f", the task is {name!r}",
            remedy="drop it",
        )
    return name  # type: ignore[return-value]


def agreed(request: Request, model: Model, source: DataSource) -> tuple[Request, Model]:
    """Model and data as they belong together: the size of the inputs, and the order of the classes.

    A model that names its classes numbers those of the data, where these are among them: the request that comes back
    then names them, and the data is to be opened again. Where the model names none, the data names its.

    Raises:
        InputError: the sizes differ, or some of the data's classes are none of the model's, or ``--classes`` has
            another order than the model.
    """
    refuse_shape(model.shape, source.shape)
    known, there = tuple(model.classes), source.classes
    if not known or there is None:
        return request, replace(model, classes=known or there or ())
    if tuple(there) == known or model.task not in ("auto", "multiclass"):
        return request, model
    strange = [name for name in there if name not in known]
    if request.classes is not None and len(strange) < len(there):
        raise InputError(
            Arg("classes"), f"and the model name other classes: {_first_difference(there, known)}", remedy="drop it"
        )
    if not strange:
        return replace(request, classes=known), model
    if len(strange) < len(there):
        raise InputError(
            f"{source.name} has the class {strange[0]!r}, which is none of the model's {len(known)} ({known[0]!r})",
            remedy="name it as the model does",
        )
    if len(there) != len(known):
        raise InputError(
            f"{source.name} has {len(there)} classes, and none of them has a name of the model's {len(known)} "
            f"({there[0]!r} beside {known[0]!r})",
            remedy=("pass", Arg("classes", Blank("FILE")), f"with {len(known)} names in the order of the outputs"),
        )
    note = (
        f"no class of the data ({there[0]!r}, ...) has a name of the model's ({known[0]!r}, ...): the data's are "
        "numbered in their own order"
    )
    return request, replace(model, notes=(*model.notes, note))


def in_order_of(source: DataSource, name: str, model: Model, request: Request) -> Model:
    """One of several models of the same data, whose classes stay in the order that they have.

    Raises:
        InputError: as `agreed`, or the model numbers the classes otherwise.
    """
    asked, model = agreed(request, model, source)
    if asked is not request:
        raise InputError(
            f"{name} numbers the classes of {source.name} as {', '.join(model.classes[:3])}, ..., and the "
            "data does not",
            remedy=("pass", Arg("classes", Blank("FILE")), "with all names in that order"),
        )
    return model


def refuse_unheeded(request: Request, models: Sequence[Model]) -> None:
    """See that what the request declares is of use for one of several models at least.

    Raises:
        InputError: all declare it themselves.
    """
    for name, value in said(request).items():
        if all(model.says(name) for model in models):
            raise InputError(Arg(name, value), "says again what every model here declares itself", remedy="drop it")


def _first_difference(one: Sequence[str], other: Sequence[str]) -> str:
    place = next(number for number in range(len(one) + 1) if one[number : number + 1] != other[number : number + 1])
    words = [repr(names[place]) if place < len(names) else "none" for names in (one, other)]
    return f"number {place} is {words[0]} there and {words[1]} of the model"
