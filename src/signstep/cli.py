"""The command line: parses, calls and prints; it computes nothing.

Exit status: 0 done, 2 wrong use, 3 internal error, 130 interrupted.
"""

import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TextIO, cast

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from signstep.auditing.run import audit as run_audit
from signstep.core.norms import NORMS
from signstep.core.recipes import RECIPES, options_of
from signstep.core.tasks import TASKS, Regression, Task, TaskName
from signstep.core.threat import Box, ThreatModel, parse_threat
from signstep.data import DataSource, open_data
from signstep.demo import demo
from signstep.errors import InputError, SignstepError
from signstep.explain import TOPICS
from signstep.explain import explain as explanation
from signstep.models import load_model, parse_args
from signstep.version import VERSION

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Signstep: how little must change in the input for a model to fail, and can that number be trusted?",
)

_AUDIT_HELP = """Attack every example of a data set and print what was found.

Without arguments: a demonstration on built-in digits with a small network trained on the spot.

Examples:

  signstep audit

  signstep audit --model mypackage.nets:resnet --weights net.safetensors --data testset/ --threat linf:8/255

  signstep audit --model signstep.models.small:mnist_cnn --weights mnist.safetensors --data t10k-images-idx3-ubyte.gz
  --threat linf:0.3 --attack fgsm,pgd:steps=50,restarts=10
"""


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"signstep {VERSION}")
        raise typer.Exit


@app.command(help=_AUDIT_HELP)
def audit(
    model: Annotated[
        str | None, typer.Option(help="package.module:factory (the current folder is importable), or a .pt2 file.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights: .safetensors, or a state dict (.pt, .pth).")] = None,
    model_arg: Annotated[
        list[str] | None, typer.Option(help="Argument of the factory, name=value; may be repeated.")
    ] = None,
    trust: Annotated[bool, typer.Option(help="Allow a .pt2 program, whose loading can run code.")] = False,
    data: Annotated[
        str | None, typer.Option(help=".npz with x and y, MNIST IDX (.gz), a folder of images by class, or digits.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="test or train, where the data has both.")] = None,
    resize: Annotated[str | None, typer.Option(help="Bring images to HEIGHTxWIDTH, such as 224x224.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use the first so many examples.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples at a time.")] = 256,
    threat: Annotated[
        str | None, typer.Option(help="norm:eps in raw input units: linf:8/255, l2:0.5, l1:12, pixel:0.1, linf:none.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="Valid inputs: LOW,HIGH or none; 0,1 if the data does not say.")
    ] = None,
    grid: Annotated[int | None, typer.Option(help="255 keeps attacked images on the 8-bit grid.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="Recipes, such as fgsm,pgd:steps=50,restarts=10; see signstep list.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Targeted goal: random, least-likely or next.")] = None,
    predicted_labels: Annotated[
        bool, typer.Option("--predicted-labels", help="Take the model's own predictions for labels.")
    ] = False,
    task: Annotated[
        str, typer.Option(help="auto, multiclass, binary, multilabel, segmentation or regression.")
    ] = "auto",
    tolerance: Annotated[
        float | None, typer.Option(help="Regression: the largest error that still counts as right.")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="Loss to climb: ce (default), margin, dlr, plain-ce.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="The model wants (x - mean) / std: one number or one for each channel.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="See --mean.")] = None,
    inputs: Annotated[str, typer.Option(help="raw, or normalised if the data already is (x - mean) / std.")] = "raw",
    budget: Annotated[str, typer.Option(help="raw, or normalised to measure eps in the model's coordinates.")] = "raw",
    curve: Annotated[str, typer.Option(help="FGSM at other sizes: auto, none, or sizes such as 0.1,0.2,0.3.")] = "auto",
    output: Annotated[str | None, typer.Option(help="Key or index of the scores in what the model returns.")] = None,
    outputs: Annotated[str, typer.Option(help="auto, logits or probabilities.")] = "auto",
    mode: Annotated[str, typer.Option(help="eval, or keep to leave the model's modes as they are.")] = "eval",
    seed: Annotated[int, typer.Option(help="All randomness, together with each example's content.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads for torch.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for result.json.")] = Path("signstep-report"),
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of the table.")] = False,
) -> None:
    """Run an audit."""
    if threads is not None:
        torch.set_num_threads(threads)
    quiet = Console(stderr=True)
    job = _job(model, weights, model_arg or [], data, split, resize, limit, batch_size, trust=trust)
    for line in job.opening:
        quiet.print(line, highlight=False, markup=False, soft_wrap=True)
    where = _device(device)
    terms = _threat(threat or job.threat, box, grid, job.data)
    batches = ((x, None) for x, _ in job.data) if predicted_labels else iter(job.data)
    with _progress(quiet, job.data.len_hint) as advance, _interruptible():
        result = run_audit(
            job.model.to(where),
            batches,
            threat=terms,
            attacks=_attacks(attack),
            curve=_curve(curve, job.curve),
            target=cast("Literal['random', 'least-likely', 'next'] | None", target),
            task=_task(task, tolerance),
            loss=loss,
            mean=_numbers(mean, "mean"),
            std=_numbers(std, "std"),
            inputs=cast("Literal['raw', 'normalised']", inputs),
            budget=cast("Literal['raw', 'normalised']", budget),
            output=int(output) if output is not None and output.lstrip("-").isdigit() else output,
            outputs=cast("Literal['auto', 'logits', 'probabilities']", outputs),
            mode=cast("Literal['eval', 'keep']", mode),
            seed=seed,
            device=where,
            describe_model=job.description,
            describe_data=job.data.description,
            classes=job.data.classes or (),
            hashes=job.hashes,
            progress=advance,
        )
    path = result.save(out / "result.json")
    typer.echo(result.to_json() if json else str(result))
    quiet.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
    if result.partial:
        raise typer.Exit(130)


@app.command("list")
def list_() -> None:
    """Print the recipes, norms and tasks that an audit can use."""
    typer.echo("Recipes (--attack)")
    for row in RECIPES.values():
        options = ", ".join(options_of(row))
        typer.echo(
            f"  {row.name:<12} {row.title}\n{'':<15}{row.source}\n{'':<15}options: {options or 'none'}; {row.cost}"
        )
    typer.echo(
        f"\nNorms (--threat NORM:EPS)\n  {', '.join(NORMS)}, pixel (L2 over channels), "
        "token and atom (L2 over the last axis)"
    )
    typer.echo(f"\nTasks (--task)\n  auto, {', '.join(TASKS)}, regression")


@app.command()
def explain(name: Annotated[str, typer.Argument(help=f"One of {', '.join(TOPICS)}.")]) -> None:
    """Explain a recipe: formula, worked example, pitfalls, sources."""
    typer.echo(explanation(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    warnings.showwarning = _show_warning
    try:
        status = typer.main.get_command(app).main(
            args=None if arguments is None else list(arguments), prog_name="signstep", standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except SignstepError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    except Exception as error:
        # Newer versions of typer carry a click of their own: its exceptions are known by what they have, not by class.
        code, show = getattr(error, "exit_code", None), getattr(error, "show", None)
        if isinstance(code, int):
            if callable(show):
                show()
            return code
        traceback.print_exc()
        typer.echo("internal error: if the traceback ends in your model, fix it there; else please report it", err=True)
        return 3


@dataclass(frozen=True)
class _Job:
    """What to audit."""

    model: nn.Module
    data: DataSource
    description: str
    opening: tuple[str, ...]
    hashes: dict[str, str]
    threat: str | None = None
    curve: tuple[float, ...] | None = None


def _job(
    model: str | None,
    weights: Path | None,
    model_arg: Sequence[str],
    data: str | None,
    split: str | None,
    resize: str | None,
    limit: int | None,
    batch_size: int,
    *,
    trust: bool,
) -> _Job:
    if model is None and data is None and weights is None:
        extra = {"--model-arg": model_arg, "--split": split, "--resize": resize, "--trust": trust}
        for name, value in extra.items():
            if value:
                raise InputError(f"{name} has no effect without --model and --data; pass these, or drop it")
        show = demo(batch_size=batch_size)
        source = show.data if limit is None else open_data("digits", batch_size=batch_size, limit=limit, split="test")
        opening = (
            f"Demonstration: {show.description}.",
            "For yours: signstep audit --model package.module:factory --weights FILE --data PATH --threat linf:8/255",
            *show.notes,
        )
        return _Job(show.model, source, show.description, opening, _hashes(None, source), show.threat, show.eps_curve)
    if model is None:
        raise InputError("--data and --weights need a model: pass --model package.module:factory")
    if data is None:
        raise InputError(
            f"--model {model} needs data: pass --data with a .npz, an MNIST IDX file or a folder of images"
        )
    source = open_data(data, batch_size=batch_size, limit=limit, split=split, resize=_size(resize))
    loaded = load_model(model, weights=weights, args=parse_args(model_arg), trust=trust)
    opening = (f"model: {loaded.description}", *loaded.notes, f"data: {source.description}", *source.notes)
    return _Job(loaded.model, source, loaded.description, opening, _hashes(loaded.sha256, source))


def _hashes(weights: str | None, source: DataSource) -> dict[str, str]:
    return {"data": source.fingerprint(), **({"weights": weights} if weights else {})}


def _threat(text: str | None, box: str | None, grid: int | None, source: DataSource) -> ThreatModel:
    if text is None:
        raise InputError("--threat is missing: what may an attacker change? Pass norm:eps, such as --threat linf:8/255")
    return parse_threat(text, box=_box(box, source.bounds or (0.0, 1.0)), grid=grid)


def _box(text: str | None, default: Box) -> Box:
    if text is None:
        return default
    if text.lower() == "none":
        return None
    ends = _numbers(text, "box")
    if ends is None or len(ends) != 2:
        raise InputError(f"--box {text!r} is not LOW,HIGH; pass two numbers such as 0,1, or none")
    return (ends[0], ends[1])


def _attacks(given: Sequence[str] | None) -> Sequence[str]:
    """Recipes separated by commas; a piece with = and no colon is a further option of the recipe before it."""
    if not given:
        return ("random-sign", "fgsm", "pgd")
    names: list[str] = []
    for piece in ",".join(given).split(","):
        if "=" in piece and ":" not in piece and names:
            names[-1] += f",{piece.strip()}"
        elif piece.strip():
            names.append(piece.strip())
    return names


def _curve(text: str, default: tuple[float, ...] | None) -> bool | Sequence[float]:
    if text == "none":
        return False
    if text == "auto":
        return True if default is None else default
    return _numbers(text, "curve") or False


def _task(name: str, tolerance: float | None) -> Task | TaskName:
    if name == "regression" and tolerance is not None:
        return Regression(tolerance)
    if tolerance is not None:
        raise InputError(f"--tolerance is for --task regression, the task is {name!r}")
    return cast("TaskName", name)


def _numbers(text: str | None, name: str) -> list[float] | None:
    """Numbers separated by commas; fractions such as 8/255 are allowed."""
    if text is None:
        return None
    numbers = []
    for piece in text.split(","):
        top, slash, bottom = piece.partition("/")
        try:
            numbers.append(float(top) / float(bottom) if slash else float(top))
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(f"--{name} {text!r}: {piece!r} is not a number; separate numbers by commas") from error
    return numbers


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, cross, width = text.lower().partition("x")
    if not cross or not height.isdigit() or not width.isdigit():
        raise InputError(f"--resize {text!r} is not HEIGHTxWIDTH; pass for example 224x224")
    return int(height), int(width)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name!r} is not available here; pass cpu or auto") from error
    return device


@contextmanager
def _progress(console: Console, total: int | None) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task("auditing", total=total)
        yield lambda done: bar.update(row, completed=done)


@contextmanager
def _interruptible() -> Iterator[None]:
    """An audit that was interrupted before it had any result ends without one."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted before the first batch was done: nothing was written", err=True)
        raise typer.Exit(130) from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    name = "" if category.__module__.startswith("signstep") else f"{category.__name__}: "
    print(f"warning: {name}{message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
