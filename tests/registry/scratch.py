"""Packages made for a test: a module or several in a folder, installed there as far as Python can tell."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


def installed(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    entry_points: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    version: str = "1.0",
) -> None:
    """Write the files of a package and its metadata, and let Python find both."""
    written(folder, files)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    if str(folder) not in sys.path:
        monkeypatch.syspath_prepend(str(folder))


def written(folder: Path, files: Mapping[str, str]) -> None:
    """The files alone, by their names below the folder."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
