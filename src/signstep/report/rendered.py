"""A report's page, checklist and pictures against those that its record gives: what a reader sees is not believed."""

import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path

from torch import Tensor

from signstep.auditing.checks import Check
from signstep.auditing.checksums import plain_file
from signstep.auditing.findings import examine
from signstep.auditing.result import Result
from signstep.errors import LoadError
from signstep.report.markdown import checklist_markdown
from signstep.report.page import page
from signstep.report.pictures import MOST, gallery
from signstep.report.triple import triple
from signstep.version import VERSION

_LARGEST = 2**26
_TAG = re.compile(r"<[^<>]*>")


def rendered(result: Result, points: Mapping[str, Tensor], ignore: Mapping[str, str]) -> dict[str, bytes]:
    """The files that people look at, by name, as this version renders them from the record.

    Raises:
        InputError: ``ignore`` names no finding, or gives no reason.
    """
    shown = gallery(result, points)
    files = {
        "index.html": page(result, examine(result, ignore), shown, triple(result, points, shown)).encode(),
        "checklist.md": checklist_markdown(result).encode(),
    }
    strips = {f"pictures/{number:02d}.png": part.strip for number, part in enumerate(shown.pictures, start=1)}
    return files | strips


def same_page(result: Result, points: Mapping[str, Tensor], ignore: Mapping[str, str], folder: Path) -> Check:
    """Whether the page, the checklist and the pictures in a folder are those of the record; names what differs.

    A report that another version made may be worded otherwise: its numbers and names are compared all the same, and
    what differs leaves the check open.
    """
    files = rendered(result, points, ignore)
    ours = result.versions.get("signstep") == VERSION
    wrong = []
    for name, content in files.items():
        try:
            there = plain_file(folder / name, _LARGEST)
        except LoadError:
            wrong.append(f"{name} is missing")
            continue
        if there != content:
            wrong.append(_difference(name, there, content))
    for number in range(1, MOST + 1):
        name = f"pictures/{number:02d}.png"
        if name not in files and (folder / name).exists():
            wrong.append(f"{name} is no picture of the record")
    if not wrong:
        return Check("page", True, f"{len(files)} files are those that the record gives")
    advice = "read the one that --render writes"
    if ours:
        return Check("page", False, f"{'; '.join(wrong[:3])}; {advice}")
    by = result.versions.get("signstep")
    return Check(
        "page", True, f"made by signstep {by}, this is {VERSION}: {'; '.join(wrong[:3])}; {advice}", complete=False
    )


def _difference(name: str, there: bytes, ours: bytes) -> str:
    """The first words that are not those of the record."""
    if name.endswith(".png"):
        return f"{name} is another picture"
    before, after = (_words(name, content.decode("utf-8", "replace")) for content in (there, ours))
    pairs = enumerate(zip(before, after, strict=False))
    first = next((place for place, (a, b) in pairs if a != b), min(len(before), len(after)))
    if before == after:
        return f"{name} differs in what is not text"
    return f"{name} says {_cut(before[first:])} where the record gives {_cut(after[first:])}"


def _cut(words: list[str]) -> str:
    text = " ".join(words[:8])
    return repr(text if len(text) <= 60 else f"{text[:57]}...") if words else "nothing"


def _words(name: str, text: str) -> list[str]:
    """What a file says. Each tag ends at the next one's beginning at the latest, so that no text takes long."""
    return unescape(_TAG.sub(" ", text) if name.endswith(".html") else text).split()
