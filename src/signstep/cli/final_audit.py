"""What training and comparing share: whole data sets, rows for the last audit, and that audit with its report."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from signstep.auditing.evidence import Evidence
from signstep.auditing.result import Result
from signstep.auditing.run import Run, audit
from signstep.cli.audit import MARKS, write_folder
from signstep.cli.config import Settings as FileSettings
from signstep.cli.work import output_folder, progress
from signstep.data import DataSource
from signstep.domains.case import Request
from signstep.domains.image.case import opened_data
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.search import Search
from signstep.train.held_out import common_rows, held_rows
from signstep.train.rows import Inputs
from signstep.train.settings import Settings

_ROWS = 256


@dataclass(frozen=True)
class Held:
    """Rows for the final audit, and what should be said about them.

    Attributes:
        x: inputs.
        y: labels.
        description: which they are.
        notes: what a reader must know.
        chosen_by: whether they are the validation rows of the run.
        left_out: what of the data is not among them because it cannot be used, or is not to be.
    """

    x: Tensor
    y: Tensor
    description: str
    notes: tuple[str, ...] = ()
    chosen_by: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    def batches(self, limit: int) -> "Cut":
        """At most so many."""
        total = min(limit, len(self.x))
        return Cut(self.x[:total], self.y[:total], self.left_out)


@dataclass(frozen=True)
class Cut:
    """Batches of rows, and what the data that they are of left out."""

    x: Tensor
    y: Tensor
    left_out: Mapping[str, int]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(torch.split(self.x, _ROWS), torch.split(self.y, _ROWS), strict=True)


@dataclass(frozen=True)
class Terms:
    """How models are audited.

    Attributes:
        threat: what may change.
        ladder: by name, or rungs.
        seed: all randomness.
        device: where.
        run: who does the work, and whether it goes on with what is done.
    """

    threat: ThreatModel
    ladder: Any
    seed: int
    device: torch.device
    run: Run = field(default_factory=Run)


def opened(request: Request, *, asked: bool) -> DataSource:
    """The split of the data that a request names; data without splits as it is, unless a split was asked for."""
    try:
        return opened_data(request)
    except InputError:
        if asked:
            raise
        return opened_data(replace(request, split=None))


def whole(source: DataSource) -> tuple[Tensor, Tensor]:
    """All rows in memory."""
    batches = list(source)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def held_out(
    request: Request, test: str | None, source: DataSource, trained: tuple[Inputs, Tensor], settings: Settings
) -> Held:
    """The data named by --test, else the data's own test split, else the validation rows."""
    found = opened(replace(request, data=test or request.data, split="test", limit=None), asked=False)
    x, y = whole(found)
    common = common_rows(*trained, x)
    if test is not None and common == len(x):
        raise InputError(Arg("test", test), f": all of its {len(x)} examples are trained on", remedy="pass others")
    if test is not None or common == 0:
        notes = () if common == 0 else (f"{common} of the {len(x)} examples of the audit were trained on",)
        return Held(x, y, found.description, notes, left_out=found.left_out)
    x, y = held_rows(*trained, settings)
    if len(x) == 0:
        raise InputError(
            Arg("validation", 0),
            "and no test data leave nothing to audit",
            remedy=("pass", Arg("test"), ", or", Arg("ladder", "none")),
        )
    note = "the audit saw the validation rows, by which the weights were chosen; pass --test for rows without a part"
    return Held(x, y, f"{len(x)} examples held out of {source.name}", (note,), True, source.left_out)


def audited(
    model: Model,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    terms: Terms,
    folder: Path,
    quiet: Console,
    *,
    total: int | None,
    data: str,
    hashes: dict[str, str],
    word: str = "auditing",
) -> Result | None:
    """Audit a model and write its report; None, and no report, where that was interrupted before its first batch.

    Args:
        model: where the terms want it.
        batches: rows and labels.
        terms: how.
        folder: for the report.
        quiet: where progress is shown.
        total: examples, for the progress.
        data: describes the data.
        hashes: for the record.
        word: beside the progress.
    """
    evidence = Evidence(limit=64 * 2**20)
    result = None
    with progress(quiet, total, word) as advance, suppress(KeyboardInterrupt):
        result = audit(
            model,
            batches,
            threat=terms.threat,
            ladder=terms.ladder,
            curve=False,
            search=Search(seed=terms.seed),
            run=replace(
                terms.run,
                out=None if terms.run.executor is None else folder,
                device=terms.device,
                data=data,
                hashes=hashes,
                evidence=evidence,
                progress=advance,
            ),
        )
    if result is None:
        return None
    with output_folder(folder, marks=MARKS) as ready:
        write_folder(result, evidence.tensors(), ready, None, FileSettings())
    return result


def kept_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model as it is written to a file."""
    return {name: part.detach().cpu().contiguous() for name, part in model.state_dict().items()}
