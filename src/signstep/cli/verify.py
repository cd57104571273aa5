"""``signstep verify``: score a report again, from its files alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from signstep.auditing import rescore
from signstep.auditing.ladder import LADDERS
from signstep.auditing.result import Result
from signstep.auditing.run import rung_names
from signstep.auditing.stream import batches
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.config import read_config
from signstep.cli.domain import IMAGES, case_of
from signstep.cli.job import Job, all_hashes, job_of, rows_of, say
from signstep.core.outputs import Predictor
from signstep.core.space import InputSpace
from signstep.core.tasks import Custom, Objective, Regression
from signstep.core.tree import tree_map
from signstep.core.untouched import untouched
from signstep.domains import domain as find_domain
from signstep.errors import InputError, LoadError

_HELP = """Score every saved point of a report again and check that nothing was changed.

Counts are taken again from the examples; saved points are checked against ball, box, mask and grid, scored by the
model, and compared with the data; files, weights, data, the model's code and the preprocessing are compared with their
recorded SHA-256. No attack is run.
The model and data are those that the report's signstep.toml names, unless given here.

Exit status: 0 all holds, 1 something does not, 2 wrong use.

Example:

  signstep verify signstep-report
"""


@app.command(help=_HELP)
def verify(
    report: Annotated[Path, typer.Argument(help="The folder that signstep audit wrote.")],
    model: o.Model = None,
    weights: o.Weights = None,
    data: o.Data = None,
    device: o.Device = "auto",
) -> None:
    """Check a report."""
    result = Result.load(report / "result.json")
    checks = [rescore.check_sums(report), rescore.recount(result), *_ladder(result)]
    points = _points(report / "adversarial.safetensors")
    stated = _stated(report)
    stated |= {name: value for name, value in (("model", model), ("weights", weights), ("data", data)) if value}
    if stated.get("domain", IMAGES) != IMAGES:
        _told(result, [*checks, *_of_case(result, points, stated)])
        return
    job = _job(stated)
    mean, std = o.numbers(stated.get("mean"), "mean"), o.numbers(stated.get("std"), "std")
    checks.append(rescore.hashes(result, all_hashes(job, mean, std, stated.get("inputs", "raw"))))
    checks.append(rescore.allowed(result, points))
    space = InputSpace.of(
        mean,
        std,
        inputs=cast("o.Side", stated.get("inputs", "raw")),
        budget=cast("o.Side", stated.get("budget", "raw")),
    )
    where = o.device_of(device)
    mode = stated.get("mode", "eval")
    with untouched(job.model.to(where), mode=mode), torch.no_grad():
        predictor = Predictor(
            job.model,
            o.output_of(stated.get("output")),
            "logits" if stated.get("task") == "regression" else stated.get("outputs", "auto"),
            None if space.mean is None else lambda u: tree_map(space.to_model, u),
        )
        task = o.task_of(stated.get("task", "auto"), stated.get("tolerance"), stated.get("ignore_label"))
        checks.append(rescore.answers(result, points, predictor, task))
        threat = o.threat_of(stated.get("threat") or job.threat, stated.get("box"), stated.get("grid"), job.data.bounds)
        checks.append(
            rescore.untouched_answers(
                result, _audited(job, result), predictor, task, lambda x: space.to_search(x, threat)
            )
        )
    checks.append(rescore.inputs(points, ((space.to_search(x, threat), y) for x, y in _audited(job, result))))
    _told(result, checks)


def _of_case(result: Result, points: Mapping[str, Tensor], stated: dict[str, Any]) -> Iterator[rescore.Check]:
    """The checks that need the model and the data of a domain."""
    name = stated["domain"]
    case = case_of(name, stated, rows_of(str(stated.get("batch_size", "auto"))) or 256)
    shard = result.terms.get("shard")
    drawn = list(batches(case.batches, None, None if shard is None else (shard[0], shard[1])))
    yield rescore.hashes(result, case.hashes)
    yield rescore.allowed(result, points, find_domain(name).checkers)
    own = isinstance(case.task, (Objective, Regression, Custom)) or case.task == "regression"
    with untouched(case.model), torch.no_grad():
        predictor = Predictor(case.model, None, "logits" if own else "auto")
        yield rescore.answers(result, points, predictor, case.task)
        yield rescore.untouched_answers(result, drawn, predictor, case.task, lambda x: x)
    yield rescore.inputs(points, drawn)


def _told(result: Result, checks: Sequence[rescore.Check]) -> None:
    """Print the checks; the exit status says whether all hold."""
    for check in checks:
        typer.echo(str(check))
    if result.partial:
        typer.echo(f"note  the audit was interrupted: the record covers {result.examples} examples")
    say(
        Console(stderr=True),
        "This scores what was found again. It does not search: the true robust accuracy may be lower.",
    )
    if not all(check.holds for check in checks):
        raise typer.Exit(1)


def _audited(job: Job, result: Result) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The data of the job, or the shard of it that the record is of."""
    shard = result.terms.get("shard")
    for x, y in batches(job.data, None, None if shard is None else (shard[0], shard[1])):
        assert isinstance(x, Tensor)
        yield x, y


def _ladder(result: Result) -> list[rescore.Check]:
    """Whether a preset's name stands over that preset's rungs."""
    if result.ladder in ("", "custom"):
        return []
    known = LADDERS.get(result.ladder)
    if known is None:
        return [rescore.Check("ladder", False, f"{result.ladder} is no preset of this version")]
    same = [entry.name for entry in result.attacks] == rung_names(known.rungs)
    seen = f"the rungs are those of {result.ladder}" if same else f"the rungs are not those of {result.ladder}"
    return [rescore.Check("ladder", same, seen)]


def _points(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        return {}
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise LoadError(f"{path} cannot be read: {error}") from error


def _stated(report: Path) -> dict[str, Any]:
    """The options that the report was made with."""
    path = report / "signstep.toml"
    if not path.is_file():
        raise InputError(f"{path} is missing; pass the folder of a report that signstep audit wrote")
    return dict(read_config(path, typer.main.get_command(app)).defaults.get("audit", {}))


def _job(stated: dict[str, Any]) -> Job:
    weights = stated.get("weights")
    return job_of(
        stated.get("model"),
        None if weights is None else Path(weights),
        stated.get("model_arg"),
        stated.get("data"),
        stated.get("split"),
        stated.get("resize"),
        stated.get("limit"),
        str(stated.get("batch_size", "auto")),
        real=stated.get("task") == "regression",
        keep_mode=stated.get("mode") == "keep",
        label_column=stated.get("label_column"),
        classes=None if stated.get("classes") is None else Path(stated["classes"]),
        skip_bad=bool(stated.get("skip_bad", False)),
        ignore_label=stated.get("ignore_label"),
        max_pixels=stated.get("max_pixels"),
        trust=bool(stated.get("trust", False)),
    )
