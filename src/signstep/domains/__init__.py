"""Beyond images: each domain turns its data into an audit, and the outcome into the words of its users.

A domain is a package that offers ``case(request)``; perhaps ``infer(request)``, a schema drawn from data, as TOML; and
``CHECKERS``, by kind, what checks a saved point of a set that is no ball in a box, without any code that searched.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from signstep.attacks.recipe import Recipe
from signstep.auditing.rescore import Checker
from signstep.domains.case import IMAGE, Case, Request
from signstep.domains.run import audit_case
from signstep.errors import InputError
from signstep.io.files import expanded

__all__ = ["DOMAINS", "IMAGES", "Case", "Domain", "Request", "audit_case", "domain"]


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
        paths = (("data", None if self.name == IMAGE else request.data), ("schema", request.schema))
        for name, path in paths:
            # ASE's readers take images of a file as FILE@INDEX.
            if path is not None and not expanded(str(path).partition("@")[0]).exists():
                raise InputError(f"{name}={str(path)!r} does not exist; pass a file or folder that does")
        return self._module().case(request)  # type: ignore[no-any-return]

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


DOMAINS: dict[str, Domain] = {
    row.name: row
    for row in (
        Domain(
            "tabular",
            "records with units, whole numbers, categories and rules",
            "signstep.domains.tabular",
            frozenset({"label_column", "ignore_column"}),
            ("coordinate-search",),
        ),
        Domain(
            "control",
            "sensors, time series and controllers",
            "signstep.domains.control",
            frozenset({"label_column", "ignore_column", "task", "tolerance"}),
            ("causal-fgsm",),
        ),
        Domain("atoms", "structures and potentials", "signstep.domains.atoms", recipes=("second-order",)),
        Domain("multimodal", "image with text, text alone, several inputs", "signstep.domains.multimodal"),
    )
}


# Inputs that are one tensor: what a command is about where no domain is named.
IMAGES = Domain(
    IMAGE,
    "images, and other inputs that are one tensor",
    "signstep.domains.image",
    frozenset(
        (
            *("label_column", "split", "resize", "classes", "ignore_label", "max_pixels", "box", "grid", "goal"),
            *("predicted_labels", "task", "tolerance", "loss", "mean", "std", "inputs", "budget", "output", "outputs"),
            *("mode", "surrogate"),
        )
    ),
)


def domain(name: str) -> Domain:
    """The domain of that name.

    Raises:
        InputError: there is none.
    """
    if name == IMAGES.name:
        return IMAGES
    if name not in DOMAINS:
        near = difflib.get_close_matches(name, [IMAGES.name, *DOMAINS], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"domain={name!r} is not one of {IMAGES.name}, {', '.join(DOMAINS)}{hint}")
    return DOMAINS[name]
