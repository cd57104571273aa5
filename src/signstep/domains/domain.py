"""What a domain is: a row of the table, whose package turns a request into an audit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from types import ModuleType

from signstep.attacks.recipe import Recipe
from signstep.auditing.rescore import Checker
from signstep.domains.case import IMAGE, Case, Request
from signstep.errors import InputError
from signstep.importing import is_spec
from signstep.io.files import expanded
from signstep.messages import Arg


@dataclass(frozen=True)
class Domain:
    """A row of the table; its package is imported when it is first used.

    Attributes:
        name: as on the command line.
        title: in words.
        package: where it lies.
        heeds: options of the command line that it heeds, of those that a schema decides in other domains.
        recipes: the names of attacks of its own, which its package has in ``RECIPES``.
    """

    name: str
    title: str
    package: str
    heeds: frozenset[str] = frozenset()
    recipes: tuple[str, ...] = ()

    def case(self, request: Request) -> Case:
        """The audit that the request asks for.

        Raises:
            InputError: the data or the schema does not exist, or they do not fit.
        """
        data = None if self.name == IMAGE or is_spec(request.data or "") else request.data
        for name, path in (("data", data), ("schema", request.schema)):
            # ASE's readers take images of a file as FILE@INDEX.
            if path is not None and not expanded(str(path).partition("@")[0]).exists():
                raise InputError(Arg(name, str(path)), "does not exist", remedy="pass a file or folder that does")
        # In records it stands as it can be typed again.
        made: Case = self._module().case(request)
        return replace(made, domain=self.name, again=partial(self.case, request))

    @property
    def infer(self) -> Callable[[Request], str] | None:
        """Draws a schema from data, as TOML; None where the domain has nothing to infer."""
        return getattr(self._module(), "infer", None)

    @property
    def rows(self) -> Mapping[str, Recipe]:
        """Its own attacks, as rows of a table."""
        return getattr(self._module(), "RECIPES", {})

    @property
    def checkers(self) -> Mapping[str, Checker]:
        """By kind, the checkers of sets that are no balls in boxes."""
        return getattr(self._module(), "CHECKERS", {})

    def _module(self) -> ModuleType:
        return import_module(self.package)
