"""The Python files behind a model, so that a record can say by which code it was made."""

import hashlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

from torch import nn

from signstep.errors import LoadError

_OF_PACKAGES = frozenset(("site-packages", "dist-packages"))
_OWN = __name__.partition(".")[0]


def source_files(module: str, model: object) -> dict[str, Path]:
    """The source files of a factory's module, of the model's classes, and of what these import, by module name.

    The factory's own module is there wherever it lies. Of the others, those that are installed (Python's own, packages
    in site-packages, Signstep) are left out: versions tell them. Imports are followed as far as a module's names hold
    what it imported: other modules, functions and classes.

    Args:
        module: The module that the model's spec names, already imported.
        model: What the factory made, a module or another callable.
    """
    found: dict[str, Path] = {}
    first = sys.modules.get(module)
    if first is not None and (path := _source(first)) is not None:
        found[module] = path
    parts = model.modules() if isinstance(model, nn.Module) else [model]
    waiting = [module, *sorted({_module_of(part) for part in parts})]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        here = sys.modules.get(name)
        if name in seen or here is None:
            continue
        seen.add(name)
        path = _source(here)
        if path is None or (name != module and _installed(name, path)):
            continue
        found[name] = path
        waiting += [other for other in _imported(here) if other not in seen]
    return found


def code_hash(files: Mapping[str, Path]) -> str | None:
    """SHA-256 of one file, as ``sha256sum`` prints it; of a listing by module name if there are several; else None.

    Raises:
        LoadError: A file cannot be read.
    """
    try:
        digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items())}
    except OSError as error:
        raise LoadError(
            f"{error.filename} cannot be read ({error.strerror})", remedy="check its permissions"
        ) from error
    if len(digests) < 2:
        return next(iter(digests.values()), None)
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()).hexdigest()


def _module_of(part: object) -> str:
    """Where the code of a model is: that of its class, or the function itself."""
    return str(part.__module__) if inspect.isroutine(part) else type(part).__module__


def _source(module: ModuleType) -> Path | None:
    """The text behind a module; None for what was compiled."""
    name = getattr(module, "__file__", None)
    path = Path(name) if name else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _imported(module: ModuleType) -> Iterator[str]:
    for value in list(vars(module).values()):
        if inspect.ismodule(value):
            yield value.__name__
        elif inspect.isclass(value) or inspect.isfunction(value):
            yield value.__module__


def _installed(name: str, path: Path) -> bool:
    if name.partition(".")[0] == _OWN:
        return True
    resolved = path.resolve()
    if any(resolved.is_relative_to(folder) for folder in _installed_folders()):
        return True
    # Of another environment, on PYTHONPATH, say: only what a package put there has a version that tells it.
    root = next((folder for folder in resolved.parents if folder.name in _OF_PACKAGES), None)
    return root is not None and resolved.relative_to(root).parts[0] in _packaged(root)


@cache
def _packaged(root: Path) -> frozenset[str]:
    """The files and folders at the top of a folder of packages that one of its packages lists as its own."""
    found: set[str] = set()
    for package in distributions(path=[str(root)]):
        listed = (package.read_text("RECORD") or package.read_text("installed-files.txt") or "").splitlines()
        found |= {line.strip('"').removeprefix("../").replace(",", "/").partition("/")[0] for line in listed}
        for name in (package.read_text("top_level.txt") or package.name.replace("-", "_")).split():
            found |= {name, f"{name}.py"}
    return frozenset(found)


def _installed_folders() -> list[Path]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    return [Path(path).resolve() for path in paths if path]
