"""Tables of rows by name, open to rows from outside: added, of installed packages, or named as "module:name".

A row is checked when it enters, and whoever brought it is named. What a person types may be imported; a text that
comes out of a file of somebody else's, such as a report, is looked up inside `typed_only`, where nothing is imported.
"""

import difflib
import importlib.metadata
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

import torch

from signstep.errors import InputError, SignstepError, SignstepWarning
from signstep.frames import named, place
from signstep.importing import (
    Spelling,
    current_folder_importable,
    imported_module,
    imported_object,
    is_module,
    is_spec,
)
from signstep.messages import Arg

Row = TypeVar("Row")
LeftOut: TypeAlias = Callable[[Path], bool]

# What options, conditions and lists are told from a name by never stands in one.
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_TYPED_ONLY: ContextVar[bool] = ContextVar("typed_only", default=False)
_LEFT_OUT: ContextVar[tuple[LeftOut, ...]] = ContextVar("left_out", default=())


class UnknownNameError(InputError, KeyError):
    """A table has no row of that name; it is a KeyError too, as of any mapping."""


class NotTypedError(UnknownNameError):
    """A "module:name" that stands in a file, and that nobody has typed: it is not imported."""


@dataclass(frozen=True)
class Brought:
    """What enters a table.

    Attributes:
        thing: a row, or what the table's check makes one of.
        name: under which it is to be found.
        by: who brought it, in words; empty for what its name already says.
    """

    thing: object
    name: str
    by: str


class Registry(Mapping[str, Row], Generic[Row]):
    """Rows by name, in the order in which they came: Signstep's own, those added, those of packages, those brought.

    Rows of installed packages are looked for when a name is missed or when the table is gone through, once for each
    state of ``sys.path``; their modules are imported then. A package whose row cannot be used is one warning, and is
    left out. Inside `typed_only` neither happens.
    """

    def __init__(
        self,
        group: str,
        spelling: Spelling,
        check: Callable[[Brought], Row],
        rows: Mapping[str, Row] | None = None,
        *,
        argument: str = "",
        modules: bool = False,
        under: Callable[[Row], str] | None = None,
    ) -> None:
        """See `Registry`.

        Args:
            group: of the entry points of installed packages, such as "signstep.attacks".
            spelling: what a row is called in messages.
            check: the row of what was brought; raises an `InputError` that says what is wrong with it.
            rows: Signstep's own, by name; they are not checked, the tests do that.
            argument: what a name is passed as, for messages: "recipe".
            modules: whether "package.module" names a row too.
            under: the name under which a row stands that was typed as "module:name"; None for what was typed.
        """
        self.group, self.spelling, self.argument = group, spelling, argument or spelling.what.split()[-1]
        self._check, self._modules, self._under = check, modules, under
        self._own: dict[str, Row] = dict(rows or {})
        self._added: dict[str, Row] = {}
        self._brought: dict[str, Row] = {}
        self._loaded: dict[tuple[str, ...], dict[str, Row | None]] = {}

    # What is there.

    def __getitem__(self, name: str) -> Row:
        found = self.get(name)
        if found is None:
            raise self._unknown(name)
        return found

    def get(self, name: object, default: Row | None = None) -> Row | None:  # type: ignore[override]
        """The row of that name, which may be one of an installed package; nothing that a person did not type.

        A "module:name" is found where `find` has brought it before.
        """
        if not isinstance(name, str):
            return default
        for rows in (self._own, self._added, self._brought):
            if name in rows:
                return rows[name]
        found = self._installed(name)
        return default if found is None else found

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        there = {**self._own, **self._added}
        there |= {name: row for name in _entries(self.group) if (row := self._installed(name)) is not None}
        return iter({**there, **self._brought})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<the table {self.group}: {', '.join(self._own)}>"

    @property
    def own(self) -> Mapping[str, Row]:
        """Signstep's own rows alone: the same for everybody, whatever they have installed."""
        return MappingProxyType(self._own)

    @property
    def asked_for(self) -> Mapping[str, Row]:
        """The rows that are here because somebody said so: Signstep's own, those added, and those that were typed."""
        return MappingProxyType({**self._own, **self._added, **self._brought})

    # What enters.

    def find(self, spec: str) -> Row:
        """The row that a person typed: by its name, or "module:name", which is imported from the current folder too.

        Raises:
            InputError: there is no such row, module or name, or what is there is no row.
            LoadError: the module cannot be imported.
        """
        spec = self.spelled(spec)
        if spec in self._own or spec in self._added:
            return self[spec]
        if _TYPED_ONLY.get():
            return self[spec]
        if not self._imported(spec):
            installed = self._installed(spec)
            if installed is not None:
                self._brought[spec] = installed
            return self[spec]
        with current_folder_importable(), torch.random.fork_rng(devices=[]):
            thing = imported_object(spec, self.spelling) if is_spec(spec) else imported_module(spec)
            row = self._checked(Brought(thing, spec, ""))
        name = spec if self._under is None else self._under(row)
        if name in self._own or name in self._added:
            raise InputError(Arg(self.argument, name), "is taken", remedy=f"give the row of {spec} another name")
        self._brought[name] = row
        return row

    def spelled(self, name: str) -> str:
        """A name as the table writes it, where it is known in another case of letters: "FGSM" is "fgsm"."""
        known = {**self._own, **self._added}
        if name in known or name in self._brought:
            return name
        folded = [other for other in known if other.lower() == name.lower()]
        return folded[0] if len(folded) == 1 and self._installed(name) is None else name

    def _imported(self, spec: str) -> bool:
        """Whether a text names what is to be imported."""
        return is_spec(spec) or (self._modules and is_module(spec) and self._installed(spec) is None)

    def add(self, row: object, name: str | None = None) -> Row:
        """Add a row for the rest of the process; ``name`` where it has no ``name`` of its own.

        Raises:
            InputError: the name is taken or is none, or the row cannot be used.
        """
        said = getattr(row, "name", getattr(row, "code", None)) if name is None else name
        if not isinstance(said, str):
            raise InputError(f"{row!r} has no name", remedy=("pass", Arg("name")))
        brought = Brought(row, said, "this program")
        self._refuse_name(brought)
        if said in self._own or said in self._added:
            raise InputError(Arg(self.argument, said), "is taken", remedy="give the row another name")
        self._added[said] = self._checked(brought)
        return self._added[said]

    @contextmanager
    def lent(self, *rows: object) -> Iterator[None]:
        """The same for as long as a ``with`` block lasts."""
        before = dict(self._added)
        try:
            for row in rows:
                self.add(row)
            yield
        finally:
            self._added = before

    def forget(self) -> None:
        """Drop what `find` has brought."""
        self._brought = {}

    # How.

    def _checked(self, brought: Brought) -> Row:
        """The row of what was brought.

        Raises:
            InputError: it is none; the message names it and who brought it.
        """
        try:
            return self._check(brought)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the row's own code may have run, and may end a process
            by = f", brought by {brought.by}," if brought.by else ""
            text = f"{self.spelling.what} {brought.name!r}{by} cannot be used"
            if isinstance(error, SignstepError):
                raise InputError(f"{text}: {error.text}", remedy=error.cure) from error
            raise InputError(f"{text}: it raised {named(error)}{place(error)}", remedy="mend it there") from error

    def _refuse_name(self, brought: Brought) -> None:
        if not _NAME.fullmatch(brought.name):
            raise InputError(
                Arg(self.argument, brought.name),
                f", brought by {brought.by}, is no name",
                remedy="names have letters, digits and . _ + - alone",
            )

    def _installed(self, name: str) -> Row | None:
        """The row of that name of an installed package."""
        if _TYPED_ONLY.get() or (point := _entries(self.group).get(name)) is None:
            return None
        loaded = self._loaded.setdefault(_path(), {})
        if name not in loaded:
            loaded[name] = self._row_of(point)
        return loaded[name]

    def _row_of(self, entry: "_Entry") -> Row | None:
        brought = Brought(None, entry.point.name, entry.by)
        try:
            self._refuse_name(brought)
            if entry.point.name in self._own:
                raise InputError(Arg(self.argument, entry.point.name), "is Signstep's own name", remedy="take another")
            with torch.random.fork_rng(devices=[]):
                return self._checked(Brought(entry.point.load(), entry.point.name, entry.by))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a package does when it is imported
            said = str(error) if isinstance(error, InputError) else f"it raised {named(error)}{place(error)}"
            _warn(entry.where, entry.by, f"{entry.point.name} = {entry.point.value} in {self.group}: {said}")
            return None

    def _unknown(self, name: str) -> UnknownNameError:
        if _TYPED_ONLY.get() and self._imported(name):
            return NotTypedError(
                Arg(self.argument, name),
                "is code of somebody's own, and nothing is imported because a file names it",
                remedy="type it yourself, if you trust it",
            )
        near = nearest(name, self)
        if near is not None:
            return UnknownNameError(Arg(self.argument, name), "is not known", remedy=f"did you mean {near!r}?")
        return UnknownNameError(
            Arg(self.argument, name),
            f"is not one of {', '.join(self)}",
            remedy=f"pass one of these, or your own, as {self.spelling.example}",
        )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody who typed this may have meant, whatever the case of letters; None for none.

    >>> nearest("FSGM", ["fgsm", "pgd"]), nearest("standrad", ["quick@1", "standard@1"]), nearest("zap", ["fgsm"])
    ('fgsm', 'standard@1', None)
    >>> nearest("--modle", ["--mode", "--model"])
    '--model'
    """
    folded = {other.lower(): other for other in known}
    # And without the version of a preset.
    for names in (folded, {other.partition("@")[0]: whole for other, whole in folded.items()}):
        near = difflib.get_close_matches(name.lower(), names)
        if near:
            # Letters in another order are the commonest slip of all.
            same = [other for other in near if sorted(other) == sorted(name.lower())]
            return names[(same or near)[0]]
    return None


@contextmanager
def typed_only() -> Iterator[None]:
    """Inside, tables have their own rows, those added, and what a person typed before; nothing is imported for them.

    For texts that come out of files: whoever wrote such a file does not choose what runs here.
    """
    token = _TYPED_ONLY.set(True)
    try:
        yield
    finally:
        _TYPED_ONLY.reset(token)


@contextmanager
def leaving_out(inside: LeftOut) -> Iterator[None]:
    """Within the block, packages that are installed where ``inside`` says so are none."""
    token = _LEFT_OUT.set((*_LEFT_OUT.get(), inside))
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


@dataclass(frozen=True)
class _Entry:
    """An entry point, the folder that its package is installed in, and who that is in words."""

    point: importlib.metadata.EntryPoint
    where: Path
    by: str


_FOUND: dict[tuple[str, ...], dict[str, dict[str, _Entry]]] = {}
_WARNED: set[tuple[Path, str]] = set()


def _path() -> tuple[str, ...]:
    return tuple(sys.path)


def _entries(group: str) -> dict[str, _Entry]:
    """The entry points of a group by name; none inside `typed_only`."""
    if _TYPED_ONLY.get():
        return {}
    key = _path()
    if key not in _FOUND:
        _FOUND[key] = _discovered()
    left_out = _LEFT_OUT.get()
    found = _FOUND[key].get(group, {})
    return {name: entry for name, entry in found.items() if not any(inside(entry.where) for inside in left_out)}


def _discovered() -> dict[str, dict[str, _Entry]]:
    """All entry points for Signstep, by group and name; of two with one name the first that Python finds."""
    found: dict[str, dict[str, _Entry]] = {}
    seen: set[str] = set()
    for package in importlib.metadata.distributions():
        try:
            if "signstep." not in (package.read_text("entry_points.txt") or ""):
                continue
        except Exception:  # Python itself does not know what this is
            continue
        where = Path(str(package.locate_file("")))
        try:
            name = str(package.metadata["Name"])
            by = f"{name} {package.version}"
            points = [point for point in package.entry_points if point.group.startswith("signstep.")]
        except Exception as error:
            _warn(where, f"in {where}", f"its metadata cannot be read ({named(error)})")
            continue
        if name in seen:
            continue  # an older copy further down the path
        seen.add(name)
        for point in points:
            entry = _Entry(point, where, by)
            other = found.setdefault(point.group, {}).setdefault(point.name, entry)
            if other is not entry:
                _warn(where, by, f"{other.by} has {point.name!r} in {point.group} too, which is taken")
    return found


def _warn(where: Path, by: str, problem: str) -> None:
    """Say once of a package that something of it cannot be used."""
    if (where, by) in _WARNED:
        return
    _WARNED.add((where, by))
    told = SignstepWarning(f"the installed package {by} does not fit Signstep: {problem}", remedy="mend or remove it")
    warnings.warn(told, stacklevel=2)
