"""``signstep train``: a robust model, watched for collapse, and an audit of what came of it."""

import hashlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast

import torch
import typer
from rich.console import Console
from safetensors.torch import save
from torch import Tensor

from signstep.auditing.evidence import Evidence
from signstep.auditing.result import Result
from signstep.auditing.run import audit as run_audit
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.audit import write_folder
from signstep.cli.config import Settings as FileSettings
from signstep.cli.config import dump_config
from signstep.cli.job import interruptible, output_folder, progress, say
from signstep.core.files import write_whole
from signstep.core.threat import ThreatModel
from signstep.data import DataSource, open_data
from signstep.errors import InputError
from signstep.models import LoadedModel, load_model, parse_args
from signstep.train.held import common_rows, held_rows
from signstep.train.loop import Moment, fit
from signstep.train.recipes import TRAINING_RECIPES, training_recipe
from signstep.train.settings import Settings
from signstep.train.sinks import Sink, sinks
from signstep.train.view import View

_HELP = """Train a robust classifier, watch it for collapse, and audit what came of it.

Without arguments: the built-in digits, in seconds. Recipes: {recipes}.

Writes weights.safetensors, MODEL_CARD.md, curves.svg, log.csv, signstep.toml and report/ (the audit) into --out. A run
that was interrupted or killed goes on when it is called again with the same options.

Exit status: 0 done, 1 stopped because of a collapse, 2 wrong use, 3 internal error, 130 interrupted (go on with the
same command).

Examples:

  signstep train

  signstep train --model signstep.models.small:mnist_cnn --data mnist/ --recipe n-fgsm --threat linf:0.3 --average 0.999

  signstep train --model nets:net --data train.npz --test test.npz --recipe pgd-at:steps=7 --threat linf:8/255 --crop 4
  --flip
"""

_MODEL, _DATA, _THREAT = "signstep.models.small:digits_cnn", "digits", "linf:0.1"


@app.command(help=_HELP.format(recipes=", ".join(TRAINING_RECIPES)))
def train(
    context: typer.Context,
    model: o.Model = None,
    weights: Annotated[Path | None, typer.Option(help="Weights to begin with, instead of fresh ones.")] = None,
    model_arg: o.ModelArg = None,
    data: o.Data = None,
    test: Annotated[str | None, typer.Option(help="Data for the final audit, where --data has no test split.")] = None,
    label_column: o.LabelColumn = None,
    classes: o.Classes = None,
    skip_bad: o.SkipBad = False,
    split: Annotated[str | None, typer.Option(help="Split to train on, where the data has several.")] = None,
    resize: o.Resize = None,
    limit: Annotated[int | None, typer.Option(help="Train on the first so many examples.")] = None,
    threat: o.ThreatText = None,
    box: o.BoxText = None,
    recipe: Annotated[str, typer.Option(help="A training recipe, perhaps with options: pgd-at:steps=7.")] = "n-fgsm",
    epochs: Annotated[int, typer.Option(help="Passes over the data; recipes with replays make fewer.")] = 30,
    batch_size: Annotated[int, typer.Option(help="Examples of one step.")] = 128,
    optimiser: Annotated[str, typer.Option(help="adam, adamw or sgd.")] = "adam",
    rate: Annotated[float, typer.Option(help="Largest learning rate.")] = 5e-3,
    momentum: Annotated[float, typer.Option(help="Of sgd.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="Of the optimiser.")] = 0.0,
    schedule: Annotated[str, typer.Option(help="one-cycle, cosine or constant.")] = "one-cycle",
    smoothing: Annotated[float, typer.Option(help="Label smoothing, a share.")] = 0.0,
    average: Annotated[float, typer.Option(help="Decay of the average of weights, such as 0.999; 0 for none.")] = 0.0,
    crop: Annotated[int, typer.Option(help="Shift images by up to so many pixels.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror images at random.")] = False,
    warm_up: Annotated[float, typer.Option(help="Share of the run over which eps rises.")] = 0.0,
    autocast: Annotated[str, typer.Option(help="off or bfloat16.")] = "off",
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Memory format of images.")] = False,
    validation: Annotated[float, typer.Option(help="Share of the examples held out to choose and to watch.")] = 0.1,
    on_collapse: Annotated[str, typer.Option(help="recover, stop or ignore.")] = "recover",
    cure: Annotated[str | None, typer.Option(help="Recipe to go on with after a collapse.")] = None,
    check_every: Annotated[int | None, typer.Option(help="Steps between looks; else about 3 % of the time.")] = None,
    ladder: Annotated[str, typer.Option(help="Ladder of the final audit, or none.")] = "standard@1",
    audit_limit: Annotated[int, typer.Option(min=1, help="Examples of the final audit, at most.")] = 1000,
    log_to: Annotated[
        str | None, typer.Option(help="Besides log.csv: tensorboard, mlflow, or both with a comma.")
    ] = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    out: Annotated[Path, typer.Option(help="Folder for weights, card, log and report.")] = Path("signstep-model"),
) -> None:
    """Train."""
    from signstep.train.card import card, curves  # slow to import, and other commands do without

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = training_recipe(recipe)
    settings = Settings(
        epochs=epochs,
        batch=batch_size,
        optimiser=optimiser,
        rate=rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=cast("Any", schedule),
        smoothing=smoothing,
        average=average,
        crop=crop,
        flip=flip,
        warm_up=warm_up,
        autocast=autocast,
        channels_last=channels_last,
        validation=validation,
        on_collapse=cast("Any", on_collapse),
        cure=cure,
        check_every=check_every,
        seed=seed,
    )
    if cure is not None:
        training_recipe(cure)  # one that does not exist is said before the hours that lead to it
    if (model is None) != (data is None):
        raise InputError("--model and --data belong together; pass both, or neither for the built-in digits")
    reading = {"label_column": label_column, "classes": classes, "skip_bad": skip_bad, "resize": o.size_of(resize)}
    source = _opened(data or _DATA, split or "train", asked=split is not None, limit=limit, reading=reading)
    x, y = _whole(source)
    loaded = load_model(model or _MODEL, weights=weights, args=parse_args(list(model_arg or [])))
    terms = o.threat_of(threat or (_THREAT if data is None else None), box, None, source.bounds)
    held = None if ladder == "none" else _held(data or _DATA, test, source, (x, y), settings, reading)
    quiet, where = Console(stderr=True), o.device_of(device)
    marks = ("MODEL_CARD.md", "log.csv", *(path.name for path in out.glob("checkpoint-*.pt")))
    with output_folder(out, marks=marks) as folder:
        notes = () if weights is None else loaded.notes
        say(quiet, f"model: {loaded.description}", *notes, f"data: {source.description}", *source.notes)
        say(quiet, f"recipe: {chosen.name}, {chosen.title} ({chosen.source})", f"threat: {terms}")
        loaded.model.to(where)
        places = sinks([name for name in (log_to or "").split(",") if name], folder / "tensorboard")

        def watch(moment: Moment) -> None:
            view(moment)
            if moment.reading is not None:
                for place in places:
                    place.add(moment.reading)

        with View(quiet) as view, _asked_to_stop() as asked, _closing(places):
            trained = fit(
                loaded.model,
                x,
                y,
                threat=terms,
                recipe=chosen,
                settings=settings,
                folder=folder,
                watch=watch,
                stopping=lambda: bool(asked),
            )
        say(quiet, *trained.notes)
        if asked and trained.partial:
            say(quiet, f"interrupted at step {trained.steps} of {trained.total}: call again to go on, in {folder}")
            raise typer.Exit(130)
        kept = save(_kept_weights(loaded.model))
        write_whole(folder / "weights.safetensors", kept)
        write_whole(folder / "curves.svg", curves(trained))
        write_whole(folder / "signstep.toml", dump_config("train", {**context.params, "out": None}, {}))
        result = None
        if held is not None:
            hashes = {"weights": hashlib.sha256(kept).hexdigest()}
            result = _audit(loaded, held, terms, ladder, audit_limit, settings, hashes, folder / "report", quiet)
            typer.echo(str(result))
        text = card(
            trained,
            model=loaded.description,
            data=source.description,
            data_hash=source.fingerprint(),
            audited_on="no rows" if held is None else held.description,
            audit=result,
            notes=() if held is None else held.notes,
        )
        write_whole(folder / "MODEL_CARD.md", text)
    say(quiet, *(() if held is None else held.notes), trained.overfitting, f"written: {folder / 'MODEL_CARD.md'}")
    if trained.partial:
        raise typer.Exit(1)  # only a collapse ends a run before its end and leaves weights


@dataclass(frozen=True)
class _Held:
    """Rows for the final audit, and what should be said about them."""

    x: Tensor
    y: Tensor
    description: str
    notes: tuple[str, ...]


def _opened(path: str, split: str, *, asked: bool, limit: int | None, reading: dict[str, Any]) -> DataSource:
    """The split of the data; data without splits as it is, unless a split was asked for."""
    try:
        return open_data(path, split=split, limit=limit, **reading)
    except InputError:
        if asked:
            raise
        return open_data(path, limit=limit, **reading)


def _whole(source: DataSource) -> tuple[Tensor, Tensor]:
    """All rows in memory."""
    batches = list(source)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def _held(
    data: str,
    test: str | None,
    source: DataSource,
    trained: tuple[Tensor, Tensor],
    settings: Settings,
    reading: dict[str, Any],
) -> _Held:
    """The data named by --test, else the data's own test split, else the validation rows."""
    found = _opened(test or data, "test", asked=False, limit=None, reading=reading)
    x, y = _whole(found)
    common = common_rows(trained[0], x)
    if test is not None and common == len(x):
        raise InputError(f"--test {test}: all of its {len(x)} examples are trained on; pass others")
    if test is not None or common == 0:
        notes = () if common == 0 else (f"{common} of the {len(x)} examples of the audit were trained on",)
        return _Held(x, y, found.description, notes)
    x, y = held_rows(*trained, settings)
    if len(x) == 0:
        raise InputError("--validation 0 and no test data leave nothing to audit; pass --test, or --ladder none")
    note = "the audit saw the validation rows, by which the weights were chosen; pass --test for rows without a part"
    return _Held(x, y, f"{len(x)} examples held out of {source.name}", (note,))


def _audit(
    loaded: LoadedModel,
    held: _Held,
    terms: ThreatModel,
    ladder: str,
    limit: int,
    settings: Settings,
    hashes: dict[str, str],
    folder: Path,
    quiet: Console,
) -> Result:
    """The audit whose numbers the card quotes, with its report."""
    where = next((part.device for part in loaded.model.parameters()), torch.device("cpu"))
    evidence = Evidence(limit=64 * 2**20)
    total = min(limit, len(held.x))
    batches = list(zip(torch.split(held.x[:total], 256), torch.split(held.y[:total], 256), strict=True))
    with progress(quiet, total, "auditing") as advance, interruptible():
        result = run_audit(
            loaded.model,
            batches,
            threat=terms,
            ladder=ladder,
            curve=False,
            seed=settings.seed,
            device=where,
            describe_model=loaded.description,
            describe_data=held.description,
            hashes=hashes,
            evidence=evidence,
            progress=advance,
        )
    with output_folder(folder, marks=("SHA256SUMS", "result.json")) as ready:
        write_folder(result, evidence.tensors(), ready, None, FileSettings())
    return result


@contextmanager
def _closing(places: list[Sink]) -> Iterator[None]:
    try:
        yield
    finally:
        for place in places:
            place.close()


def _kept_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: part.detach().cpu().contiguous() for name, part in model.state_dict().items()}


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The first interrupt asks: the list is no longer empty. A second one interrupts at once."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread: nobody can interrupt
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
