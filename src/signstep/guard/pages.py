"""Templates of the pages: whatever is put into them is escaped."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from signstep.plain import plain


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("signstep.guard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )


def rendered(template: str, **given: Any) -> str:
    """A page."""
    return _environment().get_template(template).render(**{"style": "", "nav": False, "here": "", **given})


@cache
def asset(name: str) -> str:
    """A file that stands beside the templates, as it is."""
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]


def style() -> Markup:
    """The style sheet, for a page that is one file; it is ours, and holds nothing of others."""
    return Markup(asset("style.css"))
