"""Fitted scikit-learn classifiers, which are asked and not differentiated: of a factory, or of files of pickles."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from signstep.errors import InputError, LoadError, MissingExtraError, SignstepError
from signstep.frames import named
from signstep.io.archives import check_sums
from signstep.io.caps import current
from signstep.io.files import refuse_unwritable
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.opening.hashing import file_hash
from signstep.model.opening.opener import Opener, Wanted
from signstep.model.victims.estimator import from_sklearn


def is_estimator(thing: object) -> bool:
    """Whether something is built like scikit-learn's estimators."""
    return (
        not isinstance(thing, type)
        and callable(getattr(thing, "predict", None))
        and (hasattr(thing, "fit") or hasattr(thing, "classes_"))
    )


def estimator_model(estimator: Any) -> Model:
    """The model of an estimator; classes that have names are named.

    Raises:
        InputError: it is not fitted, or no classifier.
    """
    victim = from_sklearn(estimator)
    known = [*getattr(estimator, "classes_", ())]
    notes = [f"{type(estimator).__name__} gives no gradients: it is asked, and may be less robust than queries find"]
    names = all(isinstance(name, str) for name in known)
    if not names and [str(name).removesuffix(".0") for name in known] != [str(number) for number in range(len(known))]:
        notes.append(f"labels count positions in its classes_: {', '.join(map(str, known))}")
    return Model(victim, classes=[str(name) for name in known] if names else (), notes=notes)


def opened_pickle(wanted: Wanted) -> Model:
    """The model of a pickle, as joblib and pickle write them: of a file that the user trusts.

    Raises:
        InputError: it is not trusted, or holds no fitted classifier.
        LoadError: it cannot be read.
    """
    path = wanted.path
    if not wanted.trust:
        raise InputError(
            f"{wanted.spec} is a pickle, and loading one can run any code",
            remedy=(
                "pass",
                Arg("trust", True),
                "if you know who wrote it, or save it with skops, which needs no trust",
            ),
        )
    joblib = library("joblib")
    return estimator_of(path, lambda: joblib.load(path), "write it with joblib.dump")


def opened_skops(wanted: Wanted) -> Model:
    """The model of a file of skops, which makes known types alone as it is read; others only where they are trusted.

    Raises:
        InputError: it has other types, or holds no fitted classifier.
        LoadError: it is damaged, or unpacks to more than it may.
    """
    path = wanted.path
    unknown = set(wanted.args) - {"trusted"}
    if unknown:
        raise InputError(
            f"{wanted.spec} takes no argument {min(unknown)!r}",
            remedy="types that you trust are given as trusted, no more",
        )
    skops = library("skops.io")
    if not path.is_file():
        raise LoadError(f"the model {path} does not exist", remedy="check the path")
    check_sums(path, "file of skops", current().unpacked(path.stat().st_size))

    def load() -> Any:
        types = skops.get_untrusted_types(file=path)
        given = wanted.args.get("trusted", ())
        named = {str(name).strip() for name in (given.split(",") if isinstance(given, str) else given)}
        strange = [] if wanted.trust else [name for name in types if name not in named]
        if strange:
            few = f"{', '.join(strange[:3])}{' and more' if len(strange) > 3 else ''}"
            trusted = Arg("model_args", f"trusted={','.join(strange)}", python=f"args={{'trusted': {strange}}}")
            raise InputError(
                f"{wanted.spec} has types that skops does not know as harmless, {few}",
                remedy=("pass", trusted, "or", Arg("trust", True), "if you know who wrote it"),
            )
        return skops.load(path, trusted=types)

    return estimator_of(path, load, "write it with skops.io.dump")


def estimator_of(path: Path, load: Callable[[], Any], remedy: str) -> Model:
    """The model of an estimator in a file, with the file's hash, and a note where another version wrote it.

    Raises:
        InputError: it holds no fitted classifier.
        LoadError: it cannot be read.
    """
    if not path.is_file():
        raise LoadError(f"the model {path} does not exist", remedy="check the path")
    refuse_unwritable(path, "the name of the model")
    digest = file_hash(path)
    notes: list[str] = []
    try:
        with _of_versions(notes):
            found = load()
    except (KeyboardInterrupt, SignstepError):
        raise
    except BaseException as error:  # a pickle runs code, and that may exit
        raise LoadError(f"{path} cannot be loaded ({named(error)})", remedy=remedy) from error
    if not is_estimator(found):
        raise InputError(
            f"{path} holds a {type(found).__name__}", remedy="save a fitted classifier of scikit-learn there"
        )
    model = estimator_model(found)
    title = f"{path.name} ({type(found).__name__})"
    return replace(model, name=title, hashes={"weights": digest}, notes=(*model.notes, *notes))


def library(name: str) -> Any:
    """A library that comes with scikit-learn or for it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("scikit-learn" if name == "joblib" else name.partition(".")[0], "tabular") from error


SKOPS = Opener(
    "skops",
    "a fitted scikit-learn classifier as skops writes it, which needs no trust",
    "FILE.skops",
    opened_skops,
    suffixes=(".skops",),
    args="trusted=TYPE,... for types that skops does not know as harmless",
    extra="tabular",
)
PICKLE = Opener(
    "pickle",
    "a fitted scikit-learn classifier as joblib or pickle wrote it; with --trust",
    "FILE.joblib",
    opened_pickle,
    suffixes=(".joblib", ".pkl", ".pickle"),
    extra="tabular",
)


@contextmanager
def _of_versions(notes: list[str]) -> Iterator[None]:
    """Inside, scikit-learn's warning that another version of it wrote a file becomes a note."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for one in caught:
        if type(one.message).__name__ == "InconsistentVersionWarning":
            wrote = getattr(one.message, "original_sklearn_version", "another version")
            notes.append(f"scikit-learn {wrote} wrote it, not the version that reads it: it may answer otherwise")
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    notes[:] = dict.fromkeys(notes)
