"""The cost table of defences as a page, without script."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signstep.defences.cost.record import CostRow, CostTable
from signstep.io.files import write_whole
from signstep.io.folders import replaced
from signstep.report.page import rendered

FILES = ("defences.json", "defences.txt", "index.html")


@dataclass(frozen=True)
class _Shown:
    row: CostRow
    clean: str
    unaware: str
    aware: str
    times: tuple[str, str]


def costs_page(table: CostTable) -> str:
    """The whole page as HTML."""
    return rendered("defences.html.j2", table=table, rows=[_shown(row) for row in table.rows], plain=table.rows[0])


def write_costs(table: CostTable, folder: Path) -> None:
    """Record, table and page into an existing folder, in the place of earlier ones all together or not at all.

    Raises:
        LoadError: the folder cannot be written.
    """
    page = costs_page(table)
    with replaced(folder, owned) as new:
        table.save(new / FILES[0])
        write_whole(new / FILES[1], f"{table}\n")
        write_whole(new / FILES[2], page)


def owned(folder: Path) -> Iterator[Path]:
    """The files of an earlier table in a folder."""
    if (folder / FILES[0]).is_file():
        yield from (folder / name for name in FILES if (folder / name).is_file())


def _shown(row: CostRow) -> _Shown:
    times = ("-", "-") if row.latency is None else (f"{row.latency[0]:.2f}", f"{row.latency[1]:.2f}")
    return _Shown(row, _percent(row.clean), _percent(row.unaware), _percent(row.aware), times)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
