"""A report's folder, from which nothing is imported, loaded or configured."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from signstep.errors import InputError
from signstep.messages import Arg
from signstep.registry import leaving_out


def inside(path: str | Path, folder: Path) -> bool:
    """Whether a path is the folder or lies in it, links followed on both sides."""
    try:
        return Path(path or ".").expanduser().resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # loops of links, characters that no path has
        return True


def refuse(folder: Path, **given: str | Path | None) -> None:
    """See that no path comes out of a report's folder.

    Raises:
        InputError: one does; the message names the option.
    """
    for name, value in given.items():
        if value is not None and inside(value, folder):
            raise InputError(
                Arg(name, value),
                f"lies inside the report {folder}, which is what is being checked",
                remedy="pass your own copy, from elsewhere",
            )


@contextmanager
def isolated(folder: Path) -> Iterator[None]:
    """Inside, no module is imported from the folder, whatever leads there: the current folder, a link, PYTHONPATH.

    Nor does a package count that seems to be installed there.
    """
    guard = _Guard(folder)
    sys.meta_path.insert(0, guard)
    try:
        with leaving_out(lambda place: inside(place, folder)):
            yield
    finally:
        sys.meta_path.remove(guard)


class _Guard:
    """The first finder that is asked: it finds nothing, and skips the folder's modules where they would be found."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None lets the other finders go on; a module of the folder is replaced by one of the same name elsewhere.

        Raises:
            ModuleNotFoundError: there is none elsewhere.
        """
        places = list(sys.path if path is None else path)
        found = PathFinder.find_spec(name, places, target)
        if found is None or not self._of_the_folder(found):
            return None
        if name in sys.builtin_module_names:
            return None
        elsewhere = PathFinder.find_spec(name, [place for place in places if not inside(place, self._folder)], target)
        if elsewhere is None or self._of_the_folder(elsewhere):
            raise ModuleNotFoundError(f"{name} lies inside the report {self._folder} and is not imported", name=name)
        return elsewhere

    def _of_the_folder(self, spec: ModuleSpec) -> bool:
        places = [*(spec.submodule_search_locations or ())]
        if spec.origin is not None and spec.has_location:
            places.append(spec.origin)
        return any(inside(place, self._folder) for place in places)
