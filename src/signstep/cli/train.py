"""``signstep train``: a robust model, watched for collapse, and an audit of what came of it."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from safetensors.torch import save
from torch import Tensor, nn

from signstep.auditing.bracket import Bounds
from signstep.auditing.result import Result
from signstep.auditing.run import Run
from signstep.auditing.table import table
from signstep.certify.certified import certified_share
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.config import check_written, dump_config
from signstep.cli.final_audit import Terms, audited, held_out, kept_weights, opened, whole
from signstep.cli.first import look_first
from signstep.cli.groups import DataOptions, MachineOptions, NetworkOptions, request_of, spread
from signstep.cli.signals import asked_to_stop
from signstep.cli.terminal import aside, noted, say, told
from signstep.cli.work import output_folder
from signstep.data import DataSource
from signstep.domains.case import Request
from signstep.domains.image.case import opened_model, threat_of
from signstep.domains.image.declared import agreed
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError, SignstepError
from signstep.io.files import write_whole
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.train.deployed import trained_module
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

Exit status: 0 done, 1 stopped because of a collapse, 2 wrong use, 3 internal error or an example both proved and
fooled, 130 interrupted, 143 by SIGTERM (go on with the same command).

Examples:

  signstep train

  signstep train --model signstep.networks.small:mnist_cnn --data mnist/ --recipe n-fgsm --threat linf:0.3
  --average 0.999

  signstep train --model nets:net --data train.npz --test test.npz --recipe pgd-at:steps=7 --threat linf:8/255 --crop 4
  --flip
"""

_MARKS = ("MODEL_CARD.md", "log.csv", "checkpoint-*.pt")
_MODEL, _DATA, _THREAT = "signstep.networks.small:digits_cnn", "digits", "linf:0.1"


@app.command(
    short_help="Train a robust model, watched for collapse, and audit it.",
    help=_HELP.format(recipes=", ".join(TRAINING_RECIPES.own)),
)
@spread
def train(
    context: typer.Context,
    model: NetworkOptions,
    data: DataOptions,
    machine: MachineOptions,
    weights: Annotated[Path | None, typer.Option(help="Weights to begin with, instead of fresh ones.")] = None,
    test: Annotated[str | None, typer.Option(help="Data for the final audit, where --data has no test split.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to train on, where the data has several.")] = None,
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
    on_disk: Annotated[
        bool, typer.Option("--on-disk", help="Keep the training rows in a file beside the checkpoints, not in memory.")
    ] = False,
    validation: Annotated[float, typer.Option(help="Share of the examples held out to choose and to watch.")] = 0.1,
    on_collapse: Annotated[str, typer.Option(help="recover, stop or ignore.")] = "recover",
    cure: Annotated[str | None, typer.Option(help="Recipe to go on with after a collapse.")] = None,
    check_every: Annotated[int | None, typer.Option(help="Steps between looks; else about 3 % of the time.")] = None,
    ladder: Annotated[str, typer.Option(help="Ladder of the final audit, or none.")] = "standard@1",
    bounds: Annotated[
        str | None,
        typer.Option(
            help="Prove in the final audit what can be proved, and attack the rest, so that the card has both ends: as "
            "in signstep audit. Else recipes with bounds state the share that intervals hold for."
        ),
    ] = None,
    audit_limit: Annotated[int, typer.Option(min=1, help="Examples of the final audit, at most.")] = 1000,
    log_to: Annotated[
        str | None, typer.Option(help="Besides log.csv: tensorboard, mlflow, or both with a comma.")
    ] = None,
    seed: o.Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for weights, card, log and report.")] = Path("signstep-model"),
) -> None:
    """Train."""
    from signstep.train.card import card, curves  # slow to import, and other commands do without

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
    _check(context.params)
    request = replace(_asked(request_of(model, data)), weights=weights, split=split, limit=limit)
    climbed = _climbed(ladder, bounds)
    # What makes no sense is said before the hours that lead to it.
    request = replace(request, threat=threat or request.threat, box=o.box_of(box, "of the data"))
    look_first(request, ladder=climbed, out=(out, _MARKS))
    quiet, where = aside(), machine.ready()
    source = opened(replace(request, split=split or "train"), asked=split is not None)
    request, trained_model, source = _agreed(request, source, split)
    terms = threat_of(request, source.bounds)
    assert isinstance(terms, ThreatModel)
    network = trained_model.to(where).network
    assert isinstance(network, nn.Module)
    with output_folder(out, marks=_MARKS) as folder:
        x, y = rows_on_disk(source, folder) if on_disk else whole(source)
        held = None if ladder == "none" else held_out(request, test, source, (x, y), settings)
        notes = () if weights is None else trained_model.notes
        say(quiet, f"model: {trained_model.title}", *notes, f"data: {source.description}", *source.notes)
        say(quiet, f"recipe: {chosen.name}, {chosen.title} ({chosen.source})", f"threat: {terms}")
        places = sinks([name for name in (log_to or "").split(",") if name], folder / "tensorboard")

        def watch(moment: Moment) -> bool:
            view(moment)
            if moment.reading is not None:
                for place in places:
                    place.add(moment.reading)
            return bool(asked)

        with View(quiet) as view, asked_to_stop() as asked, _closing(places):
            trained = fit(
                trained_model,
                x,
                y,
                threat=terms,
                recipe=chosen,
                settings=settings,
                folder=folder,
                watch=watch,
            )
        say(quiet, *trained.notes)
        if asked and trained.partial:
            say(quiet, f"interrupted at step {trained.steps} of {trained.total}: call again to go on, in {folder}")
            raise typer.Exit(130)
        if on_disk:
            remove_rows(folder)
        kept = save(kept_weights(network))
        write_whole(folder / "weights.safetensors", kept)
        write_whole(folder / "curves.svg", curves(trained))
        write_whole(folder / "signstep.toml", dump_config("train", {**context.params, "out": None}, {}))
        result = None
        if held is not None:
            result = audited(
                replace(trained_model, hashes={"weights": hashlib.sha256(kept).hexdigest()}, notes=notes),
                held.batches(audit_limit),
                Terms(terms, climbed, seed, where, Run(bounds=bounds)),
                folder / "report",
                quiet,
                total=min(audit_limit, len(held.x)),
                data=held.description,
                hashes={},
            )
            _told(result, quiet, folder)
        bounded = held is not None and bounds is None and trained.finished_with.objective == "bounded"
        floor = _floor(trained_model, held.batches(audit_limit), terms) if held and bounded else None
        text = card(
            trained,
            model=trained_model.title,
            data=source.description,
            data_hash=source.fingerprint(),
            audited_on="no rows" if held is None else held.description,
            audit=result,
            certified=floor,
            notes=() if held is None else held.notes,
        )
        write_whole(folder / "MODEL_CARD.md", text)
    say(quiet, *(() if held is None else held.notes), trained.overfitting, f"written: {folder / 'MODEL_CARD.md'}")
    if status := _status(result, partial=trained.partial):
        raise typer.Exit(status)


def _climbed(ladder: str, bounds: str | None) -> Any:
    """The ladder of the final audit, None for none; wrong ``bounds`` are said with it.

    Raises:
        InputError: no such ladder or bounds, or bounds without an audit.
    """
    if Bounds.of(bounds) is not None and ladder == "none":
        raise InputError(
            Arg("bounds", bounds), "is for the final audit, and --ladder none makes none", remedy="leave one out"
        )
    return None if ladder == "none" else o.ladder_of([ladder])


def _status(result: Result | None, *, partial: bool) -> int:
    """How the command ends: only a collapse ends a training before its end and leaves weights."""
    if result is not None and result.contradictions:
        return 3  # the table says which
    return 130 if result is not None and result.partial else int(partial)


def _agreed(request: Request, source: DataSource, split: str | None) -> tuple[Request, Model, DataSource]:
    """The model, and the data with its classes in the model's order.

    Raises:
        InputError: they do not belong together, or the model cannot be trained.
    """
    asked, model = agreed(request, opened_model(request, source.shape), source)
    trained_module(model)
    if asked is not request:
        source = opened(replace(asked, split=split or "train"), asked=split is not None)
    return asked, model, source


def _told(result: Result | None, quiet: Console, folder: Path) -> None:
    """Print the final audit; where it was interrupted before it had anything, the command ends here."""
    if result is None:
        say(quiet, f"interrupted before the audit had a batch: call again to audit, in {folder}")
        raise typer.Exit(130)
    told(table(result))


def _floor(model: Model, batches: Iterable[tuple[Tensor, Tensor]], threat: ThreatModel) -> float | None:
    """The share of the audited rows that bounds hold for, also said aloud; None where there are none."""
    try:
        share = certified_share(model, batches, threat)
    except SignstepError as error:  # after hours of training no reason to lose the card
        noted(f"No bounds were taken: {error}")
        return None
    told(f"Certified by interval bounds: {100 * share:.1f} %, which no attack can go below.")
    return share


def _asked(request: Request) -> Request:
    """The same, of the built-in digits where no data is named."""
    size = _THREAT if request.data is None else None
    return replace(request, model=request.model or _MODEL, data=request.data or _DATA, threat=size)


def _check(given: Mapping[str, Any]) -> None:
    """What makes no sense is said before the hours that lead to it."""
    check_written("train", given)
    if given["cure"] is not None:
        training_recipe(given["cure"], argument="cure")
    if (given["model"] is None) != (given["data"] is None):
        raise InputError(
            Arg("model"), "and", Arg("data"), "belong together", remedy="pass both, or neither for the built-in digits"
        )


@contextmanager
def _closing(places: list[Sink]) -> Iterator[None]:
    try:
        yield
    finally:
        for place in places:
            place.close()
