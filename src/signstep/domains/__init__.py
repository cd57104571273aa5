"""Beyond images: each domain turns its data into an audit, and the outcome into the words of its users.

A domain is a package that offers ``case(request)``; perhaps ``infer(request)``, a schema drawn from data, as TOML; and
``CHECKERS``, by kind, what checks a saved point of a set that is no ball in a box, without any code that searched.
"""

from signstep.domains.case import IMAGE, Case, Request
from signstep.domains.domain import Domain
from signstep.domains.external import SPELLING, row_of
from signstep.domains.run import audit_case
from signstep.messages import Arg
from signstep.registry import NotTypedError, Registry, UnknownNameError, nearest

__all__ = ["DOMAINS", "IMAGES", "Case", "Domain", "Request", "audit_case", "domain"]


_ROWS = (
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
    Domain(
        "text",
        "classifiers of texts: words, misspellings, look-alike and invisible letters",
        "signstep.domains.text",
        frozenset({"label_column", "classes"}),
        ("random-words", "hotflip", "word-search"),
    ),
)

DOMAINS: Registry[Domain] = Registry(
    "signstep.domains", SPELLING, row_of, {row.name: row for row in _ROWS}, argument="domain", modules=True
)


# Inputs that are one tensor: what a command is about where no domain is named.
IMAGES = Domain(
    IMAGE,
    "images, and other inputs that are one tensor",
    "signstep.domains.image",
    frozenset(
        (
            *("label_column", "split", "resize", "classes", "ignore_label", "max_pixels", "box", "grid", "goal"),
            *("predicted_labels", "task", "tolerance", "loss", "mean", "std", "inputs", "budget", "output", "outputs"),
            *("mode", "surrogate", "endpoint", "max_requests", "dry_run", "defend", "gradient_path"),
        )
    ),
)


def domain(name: str) -> Domain:
    """The domain that a person names; somebody's own is "package.module", or "package.module:ROW".

    Raises:
        InputError: there is none.
        LoadError: a module of somebody's own cannot be imported.
    """
    if name.lower() == IMAGES.name:
        return IMAGES
    try:
        return DOMAINS.find(name)
    except NotTypedError:
        raise
    except UnknownNameError as error:
        known = (IMAGES.name, *DOMAINS)
        near = nearest(name, known)
        remedy = f"did you mean {near!r}?" if near else f"pass one of these, or your own, as {SPELLING.example}"
        raise UnknownNameError(Arg("domain", name), f"is not one of {', '.join(known)}", remedy=remedy) from error
