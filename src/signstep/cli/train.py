"""``signstep train``: a robust model, watched for collapse, and an audit of what came of it."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from rich.console import Console
from safetensors.torch import save
from torch import Tensor, nn

from signstep.auditing.result import Result
from signstep.certify.certified import certified_share
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.config import check_written, dump_config
from signstep.cli.final_audit import Terms, audited, held_out, kept_weights, opened, whole
from signstep.cli.job import output_folder
from signstep.cli.signals import asked_to_stop
from signstep.cli.terminal import aside, noted, say, told
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError, SignstepError
from signstep.io.files import write_whole
from signstep.model.opening import load_model, parse_args
from signstep.model.space import InputSpace, Statistic
from signstep.train.disk_rows import remove_rows, rows_on_disk
from signstep.train.loop import Moment, fit
from signstep.train.recipes import TRAINING_RECIPES, training_recipe
from signstep.train.settings import Settings
from signstep.train.sinks import Sink, sinks
from signstep.train.view import View

_HELP = """Train a robust classifier, watch it for collapse, and audit what came of it.

Without arguments: the built-in digits, in seconds. Recipes: {recipes}.

Writes weights.safetensors, MODEL_CARD.md, curves.svg, log.csv, signstep.toml and report/ (the audit) into --out. A run
that was interrupted or killed goes on when it is called again with the same options.

Exit status: 0 done, 1 stopped because of a collapse, 2 wrong use, 3 internal error, 130 interrupted, 143 by SIGTERM (go
on with the same command).

Examples:

  signstep train

  signstep train --model signstep.networks.small:mnist_cnn --data mnist/ --recipe n-fgsm --threat linf:0.3
  --average 0.999

  signstep train --model nets:net --data train.npz --test test.npz --recipe pgd-at:steps=7 --threat linf:8/255 --crop 4
  --flip
"""

_MODEL, _DATA, _THREAT = "signstep.networks.small:digits_cnn", "digits", "linf:0.1"


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
    ignore_label: o.IgnoreLabel = None,
    max_pixels: o.MaxPixels = None,
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
    peak: Annotated[float, typer.Option(help="Share of the run at which one-cycle is at its top.")] = 0.4,
    smoothing: Annotated[float, typer.Option(help="Label smoothing, a share.")] = 0.0,
    average: Annotated[float, typer.Option(help="Decay of the average of weights, such as 0.999; 0 for none.")] = 0.0,
    crop: Annotated[int, typer.Option(help="Shift images by up to so many pixels.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror images at random.")] = False,
    augment: Annotated[float, typer.Option(help="Share of the run with shifts and mirrors.")] = 1.0,
    hold: Annotated[float, typer.Option(help="Share of the run in which eps stays 0, before it rises.")] = 0.0,
    warm_up: Annotated[float, typer.Option(help="Share of the run over which eps rises.")] = 0.0,
    focus: Annotated[
        float, typer.Option(help="Hard rows more often: power of their rank, such as 1; 0 for none.")
    ] = 0.0,
    max_norm: Annotated[float, typer.Option(help="Longest gradient of all weights; 0 for no limit.")] = 0.0,
    autocast: Annotated[str, typer.Option(help="off, bfloat16 or float16 (with gradient scaling).")] = "off",
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Memory format of images.")] = False,
    compile: Annotated[  # noqa: A002 - the name that it has in signstep.toml
        bool, typer.Option("--compile", help="Run the network through torch.compile, where that works.")
    ] = False,
    mean: o.Mean = None,
    std: o.Std = None,
    on_disk: Annotated[
        bool, typer.Option("--on-disk", help="Keep the training rows in a file beside the checkpoints, not in memory.")
    ] = False,
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
        peak=peak,
        smoothing=smoothing,
        average=average,
        crop=crop,
        flip=flip,
        augment=augment,
        hold=hold,
        warm_up=warm_up,
        focus=focus,
        max_norm=max_norm,
        autocast=autocast,
        channels_last=channels_last,
        compile=compile,
        validation=validation,
        on_collapse=cast("Any", on_collapse),
        cure=cure,
        check_every=check_every,
        seed=seed,
    )
    mean_, std_ = o.numbers(mean, "mean"), o.numbers(std, "std")
    _check(context.params, mean_, std_)
    reading = {
        "label_column": label_column,
        "classes": classes,
        "skip_bad": skip_bad,
        "ignore_label": ignore_label,
        "max_pixels": max_pixels,
        "resize": o.size_of(resize),
    }
    source = opened(data or _DATA, split or "train", asked=split is not None, limit=limit, reading=reading)
    loaded = load_model(model or _MODEL, weights=weights, args=parse_args(list(model_arg or [])))
    terms = o.threat_of(threat or (_THREAT if data is None else None), box, None, source.bounds)
    quiet, where = aside(), o.device_of(device)
    with output_folder(out, marks=("MODEL_CARD.md", "log.csv", "checkpoint-*.pt")) as folder:
        x, y = rows_on_disk(source, folder) if on_disk else whole(source)
        held = None if ladder == "none" else held_out(data or _DATA, test, source, (x, y), settings, reading)
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

        with View(quiet) as view, asked_to_stop() as asked, _closing(places):
            trained = fit(
                loaded.model,
                x,
                y,
                threat=terms,
                recipe=chosen,
                settings=settings,
                mean=mean_,
                std=std_,
                folder=folder,
                watch=watch,
                stopping=lambda: bool(asked),
            )
        say(quiet, *trained.notes)
        if asked and trained.partial:
            say(quiet, f"interrupted at step {trained.steps} of {trained.total}: call again to go on, in {folder}")
            raise typer.Exit(130)
        if on_disk:
            remove_rows(folder)
        kept = save(kept_weights(loaded.model))
        write_whole(folder / "weights.safetensors", kept)
        write_whole(folder / "curves.svg", curves(trained))
        write_whole(folder / "signstep.toml", dump_config("train", {**context.params, "out": None}, {}))
        result = None
        if held is not None:
            hashes = {"weights": hashlib.sha256(kept).hexdigest()}
            result = audited(
                loaded.model,
                held.batches(audit_limit),
                Terms(terms, ladder, seed, where, mean_, std_),
                folder / "report",
                quiet,
                total=min(audit_limit, len(held.x)),
                describe=(loaded.description, held.description),
                hashes=hashes,
            )
            _told(result, quiet, folder)
        bounded = held is not None and trained.finished_with.objective == "bounded"
        floor = _floor(loaded.model, held.batches(audit_limit), terms, mean_, std_) if held and bounded else None
        text = card(
            trained,
            model=loaded.description,
            data=source.description,
            data_hash=source.fingerprint(),
            audited_on="no rows" if held is None else held.description,
            audit=result,
            certified=floor,
            notes=() if held is None else held.notes,
        )
        write_whole(folder / "MODEL_CARD.md", text)
    say(quiet, *(() if held is None else held.notes), trained.overfitting, f"written: {folder / 'MODEL_CARD.md'}")
    if status := 130 if result is not None and result.partial else int(trained.partial):
        raise typer.Exit(status)  # only a collapse ends a training before its end and leaves weights


def _told(result: Result | None, quiet: Console, folder: Path) -> None:
    """Print the final audit; where it was interrupted before it had anything, the command ends here."""
    if result is None:
        say(quiet, f"interrupted before the audit had a batch: call again to audit, in {folder}")
        raise typer.Exit(130)
    told(str(result))


def _floor(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], threat: ThreatModel, mean: Statistic, std: Statistic
) -> float | None:
    """The share of the audited rows that bounds hold for, also said aloud; None where there are none."""
    try:
        share = certified_share(model, batches, threat, mean, std)
    except SignstepError as error:  # after hours of training no reason to lose the card
        noted(f"No bounds were taken: {error}")
        return None
    told(f"Certified by interval bounds: {100 * share:.1f} %, which no attack can go below.")
    return share


def _check(given: Mapping[str, Any], mean: Statistic, std: Statistic) -> None:
    """What makes no sense is said before the hours that lead to it."""
    check_written("train", given)
    if given["cure"] is not None:
        training_recipe(given["cure"])
    if (given["model"] is None) != (given["data"] is None):
        raise InputError("--model and --data belong together; pass both, or neither for the built-in digits")
    InputSpace.of(mean, std)


@contextmanager
def _closing(places: list[Sink]) -> Iterator[None]:
    try:
        yield
    finally:
        for place in places:
            place.close()
