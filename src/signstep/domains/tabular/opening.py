"""From what a person names to a model of wide rows: a torch module, or a fitted scikit-learn estimator."""

import hashlib
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from signstep.domains.case import Request
from signstep.domains.tabular.forms import TabularNet, estimator_model
from signstep.domains.tabular.schema import Schema
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.io.files import expanded
from signstep.model.declaration import Callee
from signstep.model.opening import load_model, parse_args
from signstep.model.opening.factory import module_of
from signstep.model.opening.loading import LoadedModel

_PICKLES = (".joblib", ".pkl", ".pickle")


@dataclass(frozen=True, eq=False)
class Given:
    """A model of wide rows.

    Attributes:
        model: the model.
        description: one line.
        notes: what was assumed.
        gradients: whether gradients pass.
        hashes: SHA-256 of "weights" and "code", where known.
    """

    model: Callee
    description: str
    notes: tuple[str, ...]
    gradients: bool
    hashes: dict[str, str]


def given_model(request: Request, schema: Schema) -> Given:
    """The model that a request names: package.module:name, a .pt2 program, or a .joblib or .pkl file with trust.

    Raises:
        InputError: it names none, or something else than a module or a fitted classifier.
        LoadError: it cannot be loaded.
    """
    spec = request.model
    if spec is None:
        raise InputError("no model is named; pass --model package.module:factory, or a .joblib file with --trust")
    if spec.lower().endswith(_PICKLES):
        return _pickled(spec, schema, trust=request.trust)
    found = None if spec.endswith(".pt2") else _named(spec, request)
    if found is not None and not isinstance(found, nn.Module):
        return _estimator(found, spec, schema, {})
    loaded: LoadedModel = load_model(
        spec, weights=request.weights, args=parse_args(request.model_args), trust=request.trust
    )
    hashes = {"weights": loaded.sha256} if loaded.sha256 else {}
    hashes |= {"code": loaded.code} if loaded.code else {}
    model = TabularNet(loaded.model, schema).eval()
    return Given(model, loaded.description, loaded.notes, True, hashes)


def _named(spec: str, request: Request) -> Any:
    """What ``module:name`` is, or returns when called without being a module class; None leaves it to `load_model`."""
    name = module_of(spec)
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(name), spec.partition(":")[2], None)
        if found is None or isinstance(found, nn.Module) or (isinstance(found, type) and issubclass(found, nn.Module)):
            return None
        if hasattr(found, "predict") and not isinstance(found, type):
            return found
        made = found(**parse_args(request.model_args)) if callable(found) else found
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None  # the loader of modules does the same again, and says what is wrong
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return made if hasattr(made, "predict") and not isinstance(made, nn.Module) else None


def _pickled(spec: str, schema: Schema, *, trust: bool) -> Given:
    path = expanded(spec)
    if not trust:
        raise InputError(f"{spec} is a pickle, and loading one can run any code; pass --trust if you know who wrote it")
    try:
        joblib = importlib.import_module("joblib")
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "tabular") from error
    try:
        estimator = joblib.load(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a pickle runs code, and that may exit
        raise LoadError(
            f"{path} cannot be loaded ({type(error).__name__}: {error}); write it with joblib.dump"
        ) from error
    return _estimator(estimator, str(path), schema, {"weights": digest})


def _estimator(estimator: Any, spec: str, schema: Schema, hashes: dict[str, str]) -> Given:
    if not hasattr(estimator, "predict"):
        raise InputError(f"{spec} is a {type(estimator).__name__}; name a torch module or a fitted classifier")
    said = f"{spec} ({type(estimator).__name__})"
    note = "the model gives no gradients: attacks ask for scores alone, and the true robustness may be lower"
    return Given(estimator_model(estimator, schema), said, (note,), False, hashes)
