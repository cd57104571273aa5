"""A result as a page to read, a checklist to paste and pictures to look at; imports no attack."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from signstep.auditing.findings import examine
from signstep.auditing.result import Result
from signstep.core.files import write_whole
from signstep.errors import InputError, LoadError
from signstep.report.markdown import checklist_markdown
from signstep.report.page import page
from signstep.report.pictures import gallery, save_strips

__all__ = ["write_report"]


def write_report(
    result: Result,
    folder: str | Path,
    *,
    points: Mapping[str, Tensor] | None = None,
    ignore: Mapping[str, str] | None = None,
) -> Path:
    """Write ``index.html``, ``checklist.md`` and, for images, ``pictures/NN.png`` into an existing folder.

    Everything is rendered before anything is written, and each file appears whole or not at all; the page comes last.

    Args:
        result: what an audit returned.
        folder: must exist; files of an earlier report are replaced.
        points: what `signstep.auditing.evidence.Evidence` kept: ``x`` and ``x_adv`` (n, C, H, W), and for each row
            ``row``, ``attack``, ``y``, ``answer``, ``answer_adv`` (n,); also ``confidence`` and ``confidence_adv`` if
            there are any. None for a report without pictures.
        ignore: codes of findings to set aside, each with the reason, which is printed.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: the folder does not exist, or ``ignore`` names no finding or gives no reason.
        LoadError: a file cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"folder={str(folder)!r} does not exist or is no folder; make it first, or pass another")
    shown = gallery(result, points)
    html = page(result, examine(result, ignore), shown).encode()
    listed = checklist_markdown(result).encode()
    try:
        save_strips(shown, folder / "pictures")
    except OSError as error:
        raise LoadError(
            f"{folder / 'pictures'} cannot be written ({error.strerror or error}); pass another folder"
        ) from error
    write_whole(folder / "checklist.md", listed)
    write_whole(folder / "index.html", html)
    return folder / "index.html"
