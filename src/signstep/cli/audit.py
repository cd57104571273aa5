"""``signstep audit``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, cast

import torch
import typer
from rich.console import Console
from torch import Tensor

from signstep.attacks.recipes import canonical
from signstep.auditing.checksums import write_sums
from signstep.auditing.compare import compare
from signstep.auditing.evidence import Evidence, write_points
from signstep.auditing.findings import check_ignored, examine
from signstep.auditing.ladder import ladder as find_ladder
from signstep.auditing.result import Result
from signstep.auditing.run import audit as run_audit
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.config import Settings, check_written, dump_config
from signstep.cli.domain import IMAGES, DomainName, SchemaFile, case_of, check_options, check_recipes, described
from signstep.cli.job import (
    all_hashes,
    check_classes,
    interruptible,
    job_of,
    others_of,
    output_folder,
    progress,
    rows_of,
    sized,
)
from signstep.cli.terminal import aside, noted, say, told
from signstep.domains import audit_case
from signstep.errors import InputError, LoadError
from signstep.io.files import write_whole
from signstep.io.folders import replaced
from signstep.model.twin import Engine

_HELP = """Attack every example of a data set and print what was found.

Without arguments: a demonstration on built-in digits with a small network trained on the spot.

Exit status: 0 done, 1 gate failed, 2 wrong use, 3 internal error, 130 interrupted, 143 by SIGTERM (the report
is marked partial).

Examples:

  signstep audit

  signstep audit --model mypackage.nets:resnet --weights net.safetensors --data testset/ --threat linf:8/255

  signstep audit --model signstep.networks.small:mnist_cnn --weights mnist.safetensors --data t10k-images-idx3-ubyte.gz
  --threat linf:0.3 --attack fgsm,pgd:steps=50,restarts=10

  signstep audit --model nets:net --data test.npz --threat linf:8/255 --ladder standard@1 --engine fast

  signstep audit --model nets:net --data test.npz --threat linf:8/255 --fail-under 0.4 --baseline old/result.json

  signstep audit --domain tabular --model nets:scorer --data credit.csv --schema credit.toml
"""


@app.command(help=_HELP)
def audit(
    context: typer.Context,
    domain: DomainName = IMAGES,
    schema: SchemaFile = None,
    model: o.Model = None,
    weights: o.Weights = None,
    model_arg: o.ModelArg = None,
    trust: o.Trust = False,
    data: o.Data = None,
    label_column: o.LabelColumn = None,
    ignore_column: o.IgnoreColumn = None,  # noqa: ARG001  # of domains, which read the context
    classes: o.Classes = None,
    skip_bad: o.SkipBad = False,
    ignore_label: o.IgnoreLabel = None,
    max_pixels: o.MaxPixels = None,
    split: o.Split = None,
    resize: o.Resize = None,
    limit: o.Limit = None,
    batch_size: o.BatchSize = "auto",
    threat: o.ThreatText = None,
    box: o.BoxText = None,
    grid: o.Grid = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="Recipes, such as fgsm,pgd:steps=50,restarts=10; see signstep list.")
    ] = None,
    ladder: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of --attack: a preset such as standard@1, or recipes, each for what the ones before have "
            "left standing; see signstep list."
        ),
    ] = None,
    goal: o.Goal = "untargeted",
    predicted_labels: o.PredictedLabels = False,
    task: o.TaskText = "auto",
    tolerance: o.Tolerance = None,
    loss: o.Loss = None,
    mean: o.Mean = None,
    std: o.Std = None,
    inputs: o.Inputs = "raw",
    budget: o.Budget = "raw",
    curve: Annotated[str, typer.Option(help="FGSM at other sizes: auto, none, or sizes such as 0.1,0.2,0.3.")] = "auto",
    curve_attack: Annotated[
        list[str] | None,
        typer.Option(
            help="Trace these attacks over the sizes too (a run for each size); the last one if not given, or none."
        ),
    ] = None,
    transfer_to: Annotated[
        list[str] | None,
        typer.Option(help="Score every point on this model too: NAME=MODEL or NAME=MODEL@WEIGHTS; may be repeated."),
    ] = None,
    output: o.Output = None,
    outputs: o.Outputs = "auto",
    mode: o.Mode = "eval",
    engine: o.EngineName = "exact",
    eot: o.Eot = 1,
    seed: o.Seed = 0,
    shard: Annotated[
        str | None, typer.Option(help="I/N: every N-th example from number I on (0 to N-1); signstep merge joins them.")
    ] = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    fail_under: Annotated[
        float | None, typer.Option(help="Gate: exit with status 1 if robust accuracy is below this share.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Gate: exit with status 1 if worse than this result.json by more than chance.")
    ] = None,
    save_points: Annotated[
        int, typer.Option(min=0, help="Megabytes of fooling inputs to keep for verification; 0 keeps none.")
    ] = 256,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("signstep-report"),
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of the table.")] = False,
) -> None:
    """Run an audit."""
    from signstep.report import check_folder  # slow to import, and other commands do without

    settings = context.obj if isinstance(context.obj, Settings) else Settings()
    check_ignored(settings.ignore)
    check_written("audit", context.params)
    attack, ladder = _run_by(context, attack, ladder)
    check_options(context, domain, schema)
    check_recipes(domain, [*(attack or ()), *(ladder or ())])
    before = _baseline(fail_under, baseline)
    rule = o.rule_of(goal)
    if threads is not None:
        torch.set_num_threads(threads)
    quiet = aside()
    if domain != IMAGES:
        _gate(_audit_case(context, settings, quiet), fail_under, before)
        return
    job = job_of(
        model,
        weights,
        model_arg,
        data,
        split,
        resize,
        limit,
        batch_size,
        real=task == "regression",
        keep_mode=mode == "keep",
        label_column=label_column,
        classes=classes,
        skip_bad=skip_bad,
        ignore_label=ignore_label,
        max_pixels=max_pixels,
        trust=trust,
    )
    where = o.device_of(device)
    terms = o.threat_of(threat or job.threat, box, grid, job.data.bounds)
    mean_, std_ = o.numbers(mean, "mean"), o.numbers(std, "std")
    climbed, part = o.ladder_of(ladder), o.shard_of(shard)
    chosen = None if climbed is not None and not attack else o.attacks_of(attack)
    others = {name: other.to(where) for name, other in others_of(transfer_to, trust=trust).items()}
    evidence = Evidence(limit=save_points * 2**20)
    with output_folder(out, marks=("SHA256SUMS", "result.json")) as folder:
        check_folder(folder)
        if not predicted_labels:
            check_classes(job, task, output)
        say(quiet, *job.opening)
        job.model.to(where)
        source = sized(job, batch_size)
        batches = source.unlabelled() if predicted_labels else source
        total = job.data.len_hint
        if total is not None and part is not None:
            total = len(range(part[0], total, part[1]))
        with progress(quiet, total, "auditing") as advance, interruptible():
            result = run_audit(
                job.model,
                batches,
                threat=terms,
                attacks=chosen,
                ladder=climbed,
                curve=_curve(curve, job.curve),
                target=rule,
                transfer_to=others,
                task=o.task_of(task, tolerance, ignore_label),
                loss=loss,
                mean=mean_,
                std=std_,
                inputs=cast("o.Side", inputs),
                budget=cast("o.Side", budget),
                output=o.output_of(output),
                outputs=cast("Literal['auto', 'logits', 'probabilities']", outputs),
                mode=cast("Literal['eval', 'keep']", mode),
                engine=cast("Engine", engine),
                eot=eot,
                seed=seed,
                shard=part,
                device=where,
                describe_model=job.description,
                describe_data=job.data.description,
                classes=job.data.classes or (),
                hashes=all_hashes(job, mean_, std_, inputs),
                curve_attacks=_traced(curve_attack, chosen),
                evidence=evidence,
                progress=advance,
            )
        # What became of the data on the way belongs to the record, not only to the screen.
        result = replace(result, notes=(*result.notes, *(f"data: {note}" for note in job.data.notes)))
        with _told(result, json=json):
            _written(context, result, evidence, folder, settings)
    _said(quiet, result, folder, settings)
    _gate(result, fail_under, before)


def _audit_case(context: typer.Context, settings: Settings, quiet: Console) -> Result:
    """The audit of a domain's case, from the options as they were given; written and printed."""
    from signstep.report import check_folder  # slow to import, and other commands do without

    given = context.params
    case = case_of(given["domain"], given, rows_of(given["batch_size"]) or 256)
    where, part = o.device_of(given["device"]), o.shard_of(given["shard"])
    chosen = o.attacks_of(given["attack"]) if given["attack"] else None
    others = others_of(given["transfer_to"], trust=given["trust"])
    evidence = Evidence(limit=given["save_points"] * 2**20)
    total = case.total if case.total is None or part is None else len(range(part[0], case.total, part[1]))
    with output_folder(given["out"], marks=("SHA256SUMS", "result.json")) as folder:
        check_folder(folder)
        say(quiet, *described(case))
        with progress(quiet, total, "auditing") as advance, interruptible():
            result = audit_case(
                case,
                attacks=chosen,
                ladder=o.ladder_of(given["ladder"]),
                curve=None if given["curve"] == "auto" else _curve(given["curve"], None),
                curve_attacks=_traced(given["curve_attack"], chosen) if given["curve_attack"] else None,
                transfer_to={name: other.to(where) for name, other in others.items()},
                engine=given["engine"],
                eot=given["eot"],
                seed=given["seed"],
                shard=part,
                device=where,
                evidence=evidence,
                progress=advance,
            )
        with _told(result, json=given["json"]):
            _written(context, result, evidence, folder, settings)
    _said(quiet, result, folder, settings)
    return result


def _written(context: typer.Context, result: Result, evidence: Evidence, folder: Path, settings: Settings) -> None:
    given = {name: value for name, value in context.params.items() if name not in _NOT_OF_THE_RUN}
    write_folder(result, evidence.tensors(), folder, dump_config("audit", given, settings.ignore), settings)


@contextmanager
def _told(result: Result, *, json: bool) -> Iterator[None]:
    """Print the result at the end of the ``with`` block, also where its report could not be written."""
    try:
        yield
    except LoadError:
        told(result.to_json() if json else str(result))
        raise
    told(result.to_json() if json else str(result))


def _said(quiet: Console, result: Result, folder: Path, settings: Settings) -> None:
    findings = examine(result, settings.ignore)
    say(quiet, *(str(finding) for finding in findings), f"report: {folder / 'index.html'}")
    if result.partial:
        raise typer.Exit(130)


_NOT_OF_THE_RUN = ("out", "json", "baseline", "fail_under")
_FILES = ("result.json", "adversarial.safetensors", "signstep.toml", "SHA256SUMS")


def write_folder(
    result: Result, points: Mapping[str, Tensor], folder: Path, config: str | None, settings: Settings
) -> None:
    """Put the report in the place of an earlier one, whole."""
    from signstep.report import owned, write_report  # slow to import, and other commands do without

    def of_a_report(where: Path) -> Iterator[Path]:
        yield from owned(where)
        yield from (where / name for name in _FILES if (where / name).is_file())

    with replaced(folder, of_a_report) as new:
        result.save(new / "result.json")
        if points:
            write_points(points, new / "adversarial.safetensors")
        if config is not None:
            write_whole(new / "signstep.toml", config)
        write_report(result, new, points=points, ignore=settings.ignore)
        write_sums(new)


def _baseline(fail_under: float | None, baseline: Path | None) -> Result | None:
    if fail_under is not None and not 0 <= fail_under <= 1:
        raise InputError(f"--fail-under {fail_under}: pass a share between 0 and 1, such as 0.4 for 40 %")
    return None if baseline is None else Result.load(baseline)


def _gate(result: Result, fail_under: float | None, before: Result | None) -> None:
    failed = False
    if fail_under is not None and not result.robust_accuracy >= fail_under:
        noted(f"gate failed: robust accuracy {result.robust_accuracy:.4f} is under {fail_under}")
        failed = True
    if before is not None:
        comparison = compare(before, result)
        told(str(comparison), err=True)
        if comparison.worse():
            noted("gate failed: worse than the baseline by more than chance")
            failed = True
    if failed:
        raise typer.Exit(1)


def _traced(given: list[str] | None, attacks: Sequence[str] | None) -> Sequence[str]:
    """Random signs, and the attacks asked for: by default the last of the list, which is to be the strongest."""
    if given == ["none"]:
        return []
    if attacks is None:  # a ladder
        return o.attacks_of(given) if given else ("random-sign",)
    names = [canonical(name) for name in (o.attacks_of(given) if given else attacks[-1:])]
    noise = [name for name in map(canonical, attacks) if name == "random-sign" and name not in names]
    return [*noise, *names]


def _run_by(
    context: typer.Context, attack: list[str] | None, ladder: list[str] | None
) -> tuple[list[str] | None, list[str] | None]:
    """Attacks and ladder; one of them on the command line puts the other one of the configuration out of use.

    A preset is named with its version in what is written for another run.
    """
    typed = [
        name
        for name in ("attack", "ladder")
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    ]
    if typed == ["attack"]:
        ladder = []
    elif typed == ["ladder"]:
        attack = []
    climbed = o.ladder_of(ladder)
    if isinstance(climbed, str):
        ladder = [find_ladder(climbed).name]
    context.params.update(attack=attack, ladder=ladder)
    return attack, ladder


def _curve(text: str, default: tuple[float, ...] | None) -> bool | list[float]:
    if text == "none":
        return False
    if text == "auto":
        return True if default is None else list(default)
    return o.numbers(text, "curve") or False
