"""``torchvision:resnet18`` and ``timm:NAME``: classifiers of two libraries, with the input space that these state."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.frames import named
from signstep.io.files import refuse_unwritable
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.opening.hashing import file_hash
from signstep.model.opening.opener import Opener, Wanted
from signstep.model.opening.weights import load_weights
from signstep.model.shapes import refuse_shape

_CROPS = "its transforms also cut the borders off when they resize: images are taken whole here"
_RANDOM = "its weights are random, drawn with seed 0"


def opened_torchvision(wanted: Wanted) -> Model:
    """A classifier of torchvision; ``weights.transforms()`` of its published weights gives the input space.

    Arguments: ``weights``, the name of published weights (DEFAULT), or "none" for random ones; ``num_classes``. A file
    of weights takes the place of the published ones.

    Raises:
        InputError: there is no such model, weights or argument, or it takes images of another size.
        LoadError: the library cannot be imported, weights cannot be fetched or do not fit.
        MissingExtraError: torchvision is not installed.
    """
    _refuse_unknown(wanted, ("weights", "num_classes"))
    models = _library("torchvision").models
    name = wanted.rest.lower()
    _refuse_name(name, _classifiers(models), "torchvision")
    table = models.get_model_weights(name)
    said = wanted.args.get("weights", "DEFAULT")
    published = None if said is None or str(said).lower() == "none" else _published(table, str(said), wanted)
    # Whose network it is says how its inputs are prepared, also where other weights of it are read.
    stated = published or table.DEFAULT
    prepared = stated.transforms()
    mean, std, crop = (getattr(prepared, part, None) for part in ("mean", "std", "crop_size"))
    if mean is None or std is None or not crop:
        raise LoadError(f"the transforms of {wanted.spec} state no mean, std and crop_size", remedy="pass a factory")
    shape = (len(mean), *(list(crop) * 2)[:2])
    if wanted.shape is not None:
        refuse_shape(shape, wanted.shape)
    count = wanted.args.get("num_classes")
    named_ = tuple(stated.meta.get("categories", ()))
    fetched = published if wanted.weights is None and count is None else None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            arguments = {} if count is None else {"num_classes": int(count)}
            network = models.get_model(name, weights=fetched, **arguments)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # of the library and of the network
        place = getattr(published, "url", "")
        remedy = f"download {place} and pass it as weights" if place else "see its documentation"
        raise LoadError(f"{wanted.spec} cannot be made ({named(error)})", remedy=remedy) from error
    random = _RANDOM if fetched is None else f"weights {fetched.name} of torchvision"
    notes, hashes, title = _filled(network, wanted, random)
    return Model(
        network,
        mean=tuple(mean),
        std=tuple(std),
        classes=named_ if len(named_) == (count or len(named_)) else (),
        shape=shape,
        name=title,
        hashes=hashes,
        notes=(f"normalised as {type(stated).__name__}.{stated.name} is", *notes, _CROPS),
    )


def opened_timm(wanted: Wanted) -> Model:
    """A classifier of timm; its ``pretrained_cfg`` gives the input space.

    Arguments: ``pretrained`` (true), ``num_classes``, ``img_size``. A file of weights takes the place of the published
    ones.

    Raises:
        InputError: there is no such model or argument, or it takes images of another size.
        LoadError: the library cannot be imported, weights cannot be fetched or do not fit.
        MissingExtraError: timm is not installed.
    """
    _refuse_unknown(wanted, ("pretrained", "num_classes", "img_size"))
    library = _library("timm")
    if not library.is_model(wanted.rest):
        _refuse_name(wanted.rest, library.list_models() + library.list_pretrained(), "timm")
    pretrained = bool(wanted.args.get("pretrained", True)) and wanted.weights is None
    sizes = {part: int(wanted.args[part]) for part in ("num_classes", "img_size") if part in wanted.args}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            network = library.create_model(wanted.rest, pretrained=pretrained, **sizes)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # of the library, of the hub, of the network
        raise LoadError(
            f"{wanted.spec} cannot be made ({named(error)})", remedy="download its weights and pass them as a file"
        ) from error
    stated: Mapping[str, Any] = importlib.import_module("timm.data").resolve_model_data_config(network)
    shape = tuple(stated["input_size"])
    if wanted.shape is not None:
        refuse_shape(shape, wanted.shape)
    notes, hashes, title = _filled(network, wanted, "weights of timm" if pretrained else _RANDOM)
    cropped = (_CROPS,) if stated.get("crop_pct", 1.0) < 1 else ()
    said = "normalised as timm states for it"
    return Model(
        network,
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        shape=shape,
        name=title,
        hashes=hashes,
        notes=(said, *notes, *cropped),
    )


TORCHVISION = Opener(
    "torchvision",
    "a classifier of torchvision, with the input space of its published weights",
    "torchvision:NAME",
    opened_torchvision,
    prefixes=("torchvision:",),
    weights=True,
    args="weights=NAME (or none for random ones), num_classes=N",
    extra="vision",
)
TIMM = Opener(
    "timm",
    "a classifier of timm, with the input space that it states",
    "timm:NAME",
    opened_timm,
    prefixes=("timm:",),
    weights=True,
    args="pretrained=false, num_classes=N, img_size=N",
    extra="vision",
)


def _filled(network: nn.Module, wanted: Wanted, else_said: str) -> tuple[tuple[str, ...], dict[str, str], str]:
    """Weights of a file into the network, where there is one; notes, hashes and the name."""
    if wanted.weights is None:
        return (else_said,), {}, wanted.spec
    path: Path = wanted.weights
    refuse_unwritable(path, "the name of the weights file")
    notes = load_weights(network, path)
    return notes, {"weights": file_hash(path)}, f"{wanted.spec} with {path}"


def _library(name: str) -> Any:
    """A library whose compiled part belongs to one version of torch.

    Raises:
        LoadError: it does not import.
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise MissingExtraError(name, "vision") from error
        raise LoadError(f"{name} imports {error.name}, which is not installed", remedy="install it") from error
    except Exception as error:  # torchvision beside another torch: an operator that does not exist
        raise LoadError(
            f"{name} does not import beside torch {torch.__version__} ({named(error)})",
            remedy=f"install the {name} that was made for it",
        ) from error


def _classifiers(models: Any) -> list[str]:
    return list(models.list_models(module=models))


def _published(table: Any, name: str, wanted: Wanted) -> Any:
    """Published weights by their name.

    Raises:
        InputError: there are none.
    """
    found = getattr(table, name, None)
    if not isinstance(found, table):
        raise InputError(
            f"{wanted.spec} has no weights {name!r}",
            remedy=f"pass one of {', '.join(one.name for one in table)}, DEFAULT or none",
        )
    return found


def _refuse_name(name: str, known: Iterable[str], library: str) -> None:
    """See that a library has a classifier of that name.

    Raises:
        InputError: it has not.
    """
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {library}:{near[0]}?" if near else f"pass one of {library}'s own names"
        raise InputError(f"{library} has no classifier {name!r}", remedy=hint)


def _refuse_unknown(wanted: Wanted, known: tuple[str, ...]) -> None:
    """See that no argument is given that the row does not know.

    Raises:
        InputError: one is.
    """
    for name in wanted.args:
        if name not in known:
            raise InputError(Arg("model_args", name), f"is none of {wanted.spec}", remedy=f"pass {', '.join(known)}")
