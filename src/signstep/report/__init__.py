"""A result as a page to read, a checklist to paste and pictures to look at; imports no attack."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from signstep.auditing.findings import examine
from signstep.auditing.result import Result
from signstep.errors import InputError
from signstep.io.files import write_whole
from signstep.io.folders import replaced
from signstep.messages import Arg
from signstep.report.markdown import checklist_markdown
from signstep.report.page import page
from signstep.report.pictures import gallery, of_a_report, places, save_strips
from signstep.report.triple import triple

__all__ = ["check_folder", "owned", "write_report"]

_PAGES = ("index.html", "checklist.md")


def write_report(
    result: Result,
    folder: str | Path,
    *,
    points: Mapping[str, Tensor] | None = None,
    ignore: Mapping[str, str] | None = None,
) -> Path:
    """Write ``index.html``, ``checklist.md`` and, for images, ``pictures/NN.png`` into an existing folder.

    Everything is rendered before anything is written. The files take the place of those of an earlier report all
    together or not at all; files that are no report's stay.

    Args:
        result: what an audit returned.
        folder: must exist.
        points: what `signstep.auditing.evidence.Evidence` kept: ``x`` and ``x_adv`` (n, C, H, W), and for each row
            ``row``, ``attack``, ``y``, ``answer``, ``answer_adv`` (n,); also ``confidence`` and ``confidence_adv`` if
            there are any. None for a report without pictures.
        ignore: codes of findings to set aside, each with the reason, which is printed.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: the folder does not exist, holds other things under the names of pictures, or ``ignore`` names no
            finding or gives no reason.
        LoadError: a file cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            Arg("folder", folder), "does not exist or is no folder", remedy="make it first, or pass another"
        )
    check_folder(folder)
    shown = gallery(result, points)
    html = page(result, examine(result, ignore), shown, triple(result, points, shown)).encode()
    listed = checklist_markdown(result).encode()
    with replaced(folder, owned) as new:
        save_strips(shown, new / "pictures")
        write_whole(new / "checklist.md", listed)
        write_whole(new / "index.html", html)
    return folder / "index.html"


def owned(folder: Path) -> Iterator[Path]:
    """The files of an earlier report in a folder that `write_report` replaces."""
    yield from (folder / name for name in _PAGES if (folder / name).is_file())
    yield from (path for path in places(folder / "pictures") if of_a_report(path))


def check_folder(folder: Path) -> None:
    """See that no file of somebody else lies where a report puts its pictures.

    Raises:
        InputError: one does.
    """
    pictures = folder / "pictures"
    if pictures.exists() and not pictures.is_dir():
        raise InputError(
            f"{pictures} is a file, and a report puts its folder there", remedy="move it, or pass another folder"
        )
    for path in places(pictures):
        if not of_a_report(path):
            raise InputError(
                f"{path} is no picture of a report and would be lost", remedy="move it, or pass another folder"
            )
