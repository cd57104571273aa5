"""The repository speaks of the project alone, and its documentation covers what is public."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import signstep as ss

ROOT = Path(__file__).resolve().parents[2]
_SKIPPED = {"site", "dist", "build", "signstep-report", "__pycache__"}
_TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cfg", ".ini", ".sh", ".json", ""}
_FORBIDDEN = {
    "an absolute path of somebody's machine": re.compile(r"(?<![\w.~])/(?:home|root|work|Users|mnt)/\w"),
    "the host of a package registry": re.compile(
        r"pypi\.org/simple|pythonhosted\.org|artifactory|nexus\.|download\.pytorch\.org|index-url", re.IGNORECASE
    ),
}


def texts() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".gitignore") for part in parts)
        if path.is_file() and not hidden and not _SKIPPED & set(parts) and path.suffix in _TEXT:
            yield path


def directives() -> list[Any]:
    """The objects that the pages of the API show; a module shows its classes."""
    found: list[Any] = []
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        for name in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            thing = _resolve(name)
            found.append(thing)
            if inspect.ismodule(thing):
                found += [part for part in vars(thing).values() if inspect.isclass(part)]
    return found


def _resolve(name: str) -> Any:
    """A class or function by its full name, or a module."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def test_no_machine_is_named() -> None:
    this = Path(__file__).resolve()
    seen = [
        f"{path.relative_to(ROOT)}:{number}: {what}"
        for path in texts()
        if path.resolve() != this
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for what, pattern in _FORBIDDEN.items()
        if pattern.search(line)
    ]
    assert not seen, "\n".join(seen)


def test_the_changelog_is_current() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{ss.__version__}]" in text or "## [Unreleased]" in text


@pytest.mark.parametrize("name", ss.__all__)
def test_public_names_are_documented(name: str) -> None:
    thing = getattr(ss, name)
    if name == "RECIPES":
        assert "signstep.RECIPES" in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
        return
    assert inspect.getdoc(thing)
    assert any(thing is shown for shown in directives()), f"docs/api shows no ::: for {name}"


def test_the_overview_of_the_api_names_all_that_is_public() -> None:
    overview = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in ss.__all__ if f"`ss.{name}`" not in overview] == []
    named = re.findall(r"`ss\.(\w+)`", overview)
    assert [name for name in named if name not in ss.__all__] == []


def test_every_error_is_documented() -> None:
    from signstep import errors

    assert errors in directives()
    tree = errors.__doc__ or ""
    assert all(name in tree for name, thing in vars(errors).items() if inspect.isclass(thing))
