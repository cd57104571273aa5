"""``signstep audit``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

import torch
import typer
from rich.console import Console

from signstep.auditing.compare import compare
from signstep.auditing.evidence import Evidence
from signstep.auditing.findings import check_ignored, examine
from signstep.auditing.rescore import write_sums
from signstep.auditing.result import Result
from signstep.auditing.run import audit as run_audit
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.config import Settings, dump_config
from signstep.cli.job import interruptible, job_of, progress, say, sized, writable
from signstep.core.files import write_whole
from signstep.core.recipes import canonical
from signstep.errors import InputError

_HELP = """Attack every example of a data set and print what was found.

Without arguments: a demonstration on built-in digits with a small network trained on the spot.

Exit status: 0 done, 1 gate failed, 2 wrong use, 3 internal error, 130 interrupted (the report is marked partial).

Examples:

  signstep audit

  signstep audit --model mypackage.nets:resnet --weights net.safetensors --data testset/ --threat linf:8/255

  signstep audit --model signstep.models.small:mnist_cnn --weights mnist.safetensors --data t10k-images-idx3-ubyte.gz
  --threat linf:0.3 --attack fgsm,pgd:steps=50,restarts=10

  signstep audit --model nets:net --data test.npz --threat linf:8/255 --fail-under 0.4 --baseline old/result.json
"""


@app.command(help=_HELP)
def audit(
    context: typer.Context,
    model: o.Model = None,
    weights: o.Weights = None,
    model_arg: o.ModelArg = None,
    trust: o.Trust = False,
    data: o.Data = None,
    label_column: o.LabelColumn = None,
    classes: o.Classes = None,
    skip_bad: o.SkipBad = False,
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
    target: o.Target = None,
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
    output: o.Output = None,
    outputs: o.Outputs = "auto",
    mode: o.Mode = "eval",
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    fail_under: Annotated[
        float | None, typer.Option(help="Gate: exit with status 1 if robust accuracy is below this share.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Gate: exit with status 1 if worse than this result.json by more than chance.")
    ] = None,
    save_points: Annotated[
        int, typer.Option(help="Megabytes of fooling inputs to keep for verification; 0 keeps none.")
    ] = 256,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("signstep-report"),
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of the table.")] = False,
) -> None:
    """Run an audit."""
    settings = context.obj if isinstance(context.obj, Settings) else Settings()
    check_ignored(settings.ignore)
    before = _baseline(fail_under, baseline)
    if threads is not None:
        torch.set_num_threads(threads)
    quiet = Console(stderr=True)
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
        trust=trust,
    )
    where = o.device_of(device)
    terms = o.threat_of(threat or job.threat, box, grid, job.data.bounds)
    folder = writable(out, marks=("SHA256SUMS", "result.json"))
    say(quiet, *job.opening)
    job.model.to(where)
    source = sized(job, batch_size)
    batches = ((x, None) for x, _ in source) if predicted_labels else iter(source)
    chosen = o.attacks_of(attack)
    evidence = Evidence(limit=save_points * 2**20)
    with progress(quiet, job.data.len_hint, "auditing") as advance, interruptible():
        result = run_audit(
            job.model,
            batches,
            threat=terms,
            attacks=chosen,
            curve=_curve(curve, job.curve),
            target=cast("Literal['random', 'least-likely', 'next'] | None", target),
            task=o.task_of(task, tolerance),
            loss=loss,
            mean=o.numbers(mean, "mean"),
            std=o.numbers(std, "std"),
            inputs=cast("o.Side", inputs),
            budget=cast("o.Side", budget),
            output=o.output_of(output),
            outputs=cast("Literal['auto', 'logits', 'probabilities']", outputs),
            mode=cast("Literal['eval', 'keep']", mode),
            seed=seed,
            device=where,
            describe_model=job.description,
            describe_data=job.data.description,
            classes=job.data.classes or (),
            hashes=job.hashes,
            curve_attacks=_traced(curve_attack, chosen),
            evidence=evidence,
            progress=advance,
        )
    given = {
        name: value for name, value in context.params.items() if name not in ("out", "json", "baseline", "fail_under")
    }
    _write(result, evidence, folder, dump_config("audit", given, settings.ignore), settings)
    typer.echo(result.to_json() if json else str(result))
    findings = examine(result, settings.ignore)
    say(quiet, *(str(finding) for finding in findings), f"report: {folder / 'index.html'}")
    if result.partial:
        raise typer.Exit(130)
    _gate(result, fail_under, before)


def _write(result: Result, evidence: Evidence, folder: Path, config: str, settings: Settings) -> None:
    from signstep.report import write_report

    result.save(folder / "result.json")
    points = folder / "adversarial.safetensors"
    if len(evidence):
        evidence.save(points)
    else:
        points.unlink(missing_ok=True)  # of an earlier run
    write_whole(folder / "signstep.toml", config)
    write_report(result, folder, points=evidence.tensors(), ignore=settings.ignore)
    write_sums(folder)


def _baseline(fail_under: float | None, baseline: Path | None) -> Result | None:
    if fail_under is not None and not 0 <= fail_under <= 1:
        raise InputError(f"--fail-under {fail_under}: pass a share between 0 and 1, such as 0.4 for 40 %")
    return None if baseline is None else Result.load(baseline)


def _gate(result: Result, fail_under: float | None, before: Result | None) -> None:
    failed = False
    if fail_under is not None and not result.robust_accuracy >= fail_under:
        typer.echo(f"gate failed: robust accuracy {result.robust_accuracy:.4f} is under {fail_under}", err=True)
        failed = True
    if before is not None:
        comparison = compare(before, result)
        typer.echo(str(comparison), err=True)
        if comparison.worse():
            typer.echo("gate failed: worse than the baseline by more than chance", err=True)
            failed = True
    if failed:
        raise typer.Exit(1)


def _traced(given: list[str] | None, attacks: Sequence[str]) -> list[str]:
    """Random signs, and the attacks asked for: by default the last of the list, which is to be the strongest."""
    if given == ["none"]:
        return []
    names = [canonical(name) for name in (o.attacks_of(given) if given else attacks[-1:])]
    noise = [name for name in map(canonical, attacks) if name == "random-sign" and name not in names]
    return [*noise, *names]


def _curve(text: str, default: tuple[float, ...] | None) -> bool | list[float]:
    if text == "none":
        return False
    if text == "auto":
        return True if default is None else list(default)
    return o.numbers(text, "curve") or False
