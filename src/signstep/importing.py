"""From "module:name" to the object: somebody's own Python, found from the current folder as ``python -m`` finds it."""

import difflib
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from signstep.errors import InputError, LoadError
from signstep.frames import named, place

_SPEC = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True)
class Spelling:
    """How messages speak of what a spec names.

    Attributes:
        what: "a model".
        name: what stands behind the colon.
        example: of a whole spec.
    """

    what: str
    name: str
    example: str


MODEL = Spelling("a model", "factory", "my_model:build")


def is_spec(text: str) -> bool:
    """Whether a text has the form "package.module:name".

    >>> is_spec("nets.small:build"), is_spec("pgd:steps=5"), is_spec("digits"), is_spec("my/nets.py:build")
    (True, False, False, False)
    """
    return _SPEC.fullmatch(text) is not None


def is_module(text: str) -> bool:
    """Whether a text is the name of a module within a package, "package.module"."""
    return "." in text and all(part.isidentifier() for part in text.split("."))


def name_and_options(text: str) -> tuple[str, str]:
    """A name, which may be a spec, and what stands behind its colon.

    >>> name_and_options("pgd:steps=50"), name_and_options("nets:mine"), name_and_options("nets.attacks:mine:steps=5")
    (('pgd', 'steps=50'), ('nets:mine', ''), ('nets.attacks:mine', 'steps=5'))
    """
    name, _, rest = text.partition(":")
    second, _, options = rest.partition(":")
    return (f"{name}:{second}", options) if is_spec(f"{name}:{second}") else (name, rest)


def split(spec: str, spelling: Spelling = MODEL) -> tuple[str, str]:
    """Module and name of a spec.

    Raises:
        InputError: it is not written "package.module:name".
    """
    module_name, _, name = spec.partition(":")
    wrong = InputError(
        f"{spelling.what} is written module:{spelling.name}, got {spec!r}", remedy=f"write {spelling.example}, say"
    )
    if not name.isidentifier():
        raise wrong
    if "/" in module_name or "\\" in module_name or module_name.endswith(".py"):
        dotted = ".".join(part for part in Path(module_name).with_suffix("").parts if part not in ("/", "."))
        raise InputError(f"{spec!r} names a file", remedy=f"name the module as Python imports it, e.g. {dotted}:{name}")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise wrong
    return module_name, name


def imported_object(spec: str, spelling: Spelling = MODEL) -> object:
    """What a spec names; the module is imported. The current folder is there inside `current_folder_importable` alone.

    Raises:
        InputError: the spec is none, or there is no such module or name.
        LoadError: the module cannot be imported.
    """
    module_name, name = split(spec, spelling)
    return _attribute(imported_module(module_name), name, spec, spelling)


def imported_module(name: str) -> ModuleType:
    """The module of that name.

    Raises:
        InputError: there is none.
        LoadError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise InputError(
                f"there is no module {missing} to import from {Path.cwd()}", remedy=_near_modules(missing)
            ) from error
        raise LoadError(
            f"the module {name} imports {missing}, which is not installed", remedy="install it first"
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() in a script must not end this process as if all were well
        raise LoadError(f"importing {name} failed with {named(error)}", remedy=f"fix it there{place(error)}") from error


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Inside, modules are found in the current folder first, as with ``python -m``."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _near_modules(missing: str) -> str:
    here = [path.stem for path in Path.cwd().iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    near = difflib.get_close_matches(missing, here, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "run from the folder that holds it, or install it"


def _attribute(module: ModuleType, name: str, spec: str, spelling: Spelling) -> object:
    if hasattr(module, name):
        found: object = getattr(module, name)
        return found
    public = [key for key, value in vars(module).items() if not key.startswith("_") and callable(value)]
    near = difflib.get_close_matches(name, public, n=3)
    own = [key for key in public if getattr(vars(module)[key], "__module__", None) == module.__name__]
    none = f"it defines {', '.join(own[:8]) or f'no {spelling.name}'}"
    hint = f"did you mean {' or '.join(near)}?" if near else none
    raise InputError(f"{spec}: the module {module.__name__} has no {name}", remedy=hint)
