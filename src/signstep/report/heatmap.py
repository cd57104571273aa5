"""A transfer matrix as a page: a heat map that is a table, without script."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signstep.auditing.matrix import MARK, TransferMatrix
from signstep.engine.counts import Count
from signstep.io.files import write_whole
from signstep.io.folders import replaced
from signstep.report.numerals import fraction, interval, percent, share
from signstep.report.page import rendered

# The strongest colour still leaves the numbers readable on paper and in the dark.
_DARKEST = 0.55

FILES = (MARK, "transfer.txt", "index.html")


@dataclass(frozen=True)
class _Shown:
    share: str
    count: str
    interval: str
    heat: str
    own: bool = False


def heat_page(matrix: TransferMatrix) -> str:
    """The whole page as HTML."""
    own = any(cell.white_box for cell in matrix.cells)
    body = [
        (
            source,
            [_shown(cell.success, cell.white_box) for cell in (matrix.cell(source, name) for name in matrix.victims)],
        )
        for source in matrix.sources
    ]
    notes = list(matrix.notes)
    if "all" in matrix.sources:
        notes.append('"all" is the mean gradient over the surrogates, without the victim itself.')
    if "random-sign" in matrix.sources:
        notes.append('"random-sign" is a random change of the same size: the control that a transfer must beat.')
    return rendered(
        "transfer.html.j2",
        matrix=matrix,
        sentence=_sentence(matrix),
        terms=[(name, str(value)) for name, value in matrix.terms.items()],
        body=body,
        clean=[_shown(matrix.accuracy(name)) for name in matrix.victims],
        own=own,
        notes=notes,
    )


def write_transfer(matrix: TransferMatrix, folder: Path) -> None:
    """Record, table and page into an existing folder, in the place of earlier ones all together or not at all.

    Raises:
        LoadError: the folder cannot be written.
    """
    page = heat_page(matrix)
    with replaced(folder, owned) as new:
        matrix.save(new / MARK)
        write_whole(new / "transfer.txt", f"{matrix}\n")
        write_whole(new / "index.html", page)


def owned(folder: Path) -> Iterator[Path]:
    """The files of an earlier transfer in a folder."""
    if (folder / MARK).is_file():
        yield from (folder / name for name in FILES if (folder / name).is_file())


def _sentence(matrix: TransferMatrix) -> str:
    foreign = [cell for cell in matrix.cells if not cell.white_box and cell.source != "random-sign" and cell.right]
    if not foreign:
        return "Nothing was transferred: every cell is a model attacked with its own gradients."
    best = max(foreign, key=lambda cell: cell.fooled / cell.right)
    return (
        f"The best transfer fools {best.victim} on {fraction(best.fooled, best.right)} examples it gets right, crafted "
        f"on {best.source}"
    )


def _shown(count: Count, own: bool = False) -> _Shown:
    whole = count.of
    return _Shown(
        percent(share(count.hits, whole)),
        fraction(count.hits, whole),
        interval(count.hits, whole),
        f"{_DARKEST * (count.share or 0.0):.3f}",
        own,
    )
