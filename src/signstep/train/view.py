"""What a person sees while a model trains: one live panel on a terminal, plain lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from signstep.plain import one_line
from signstep.train.alarm import Reading
from signstep.train.loop import Moment

_REFRESH = 4


class View:
    """Call it with each `Moment`; a context, so that the terminal is left in order.

    Args:
        console: where to.
        brief: without a terminal only what happens, and no line for each look.
    """

    def __init__(self, console: Console, *, brief: bool = False) -> None:
        self._brief = brief
        self._console = console
        self._began = time.perf_counter()
        self._first: int | None = None
        self._last: Reading | None = None
        self._drawn = 0.0
        self._progress = Progress(TextColumn("steps"), BarColumn(), MofNCompleteColumn(), console=console)
        self._row = self._progress.add_task("steps", total=None)
        self._live = Live(console=console, transient=True, refresh_per_second=_REFRESH) if console.is_terminal else None

    def __enter__(self) -> "View":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, moment: Moment) -> None:
        """Show it, where there is something new to see."""
        if self._first is None:
            self._first = moment.step - 1
        if moment.reading is not None:
            self._last = moment.reading
            if self._live is None and not self._brief:
                self._say(f"{_line(moment.reading)}, {self._left(moment)} left")
        if moment.event is not None:
            self._say(str(moment.event))
        now = time.perf_counter()
        if self._live is not None and now - self._drawn > 1 / _REFRESH:
            self._drawn = now
            self._progress.update(self._row, completed=moment.step, total=moment.total)
            self._live.update(Group(self._progress, self._table(moment)))

    def _say(self, text: str) -> None:
        self._console.print(one_line(text), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def _left(self, moment: Moment) -> str:
        done = moment.step - (self._first or 0)
        if done < 1:
            return "?"
        seconds = round((time.perf_counter() - self._began) / done * (moment.total - moment.step))
        return f"{seconds // 60}:{seconds % 60:02d}"

    def _table(self, moment: Moment) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_row("loss", f"{moment.loss:.3f}", "rate", f"{moment.rate:.2g}", "epoch", f"{moment.epoch:.2f}")
        grid.add_row("rows/s", f"{moment.rows_per_second:.0f}", "left", self._left(moment))
        if (seen := self._last) is not None:
            shares = (f"{100 * seen.share(count):.0f} %" for count in (seen.clean, seen.fgsm, seen.pgd))
            clean, fgsm, pgd = shares
            grid.add_row("clean", clean, "FGSM", fgsm, "PGD", pgd)
            grid.add_row("clean loss", f"{seen.clean_loss:.3f}", "FGSM loss", f"{seen.adversarial_loss:.3f}")
        return grid


def _line(reading: Reading) -> str:
    clean, fgsm, pgd = (f"{100 * reading.share(count):.0f} %" for count in (reading.clean, reading.fgsm, reading.pgd))
    return (
        f"step {reading.step}, epoch {reading.epoch:.1f}, {reading.recipe}: loss {reading.loss:.3f}, clean loss "
        f"{reading.clean_loss:.3f}, FGSM loss {reading.adversarial_loss:.3f}; clean {clean}, FGSM {fgsm}, PGD {pgd}; "
        f"{reading.speed:.0f} rows/s"
    )
