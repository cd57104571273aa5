"""``signstep transfer``: craft on some models, score on others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import torch
import typer
from torch import nn

from signstep.attacks.recipes import recipe
from signstep.auditing.matrix import MARK
from signstep.auditing.transfer import transfer as run_transfer
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.job import interruptible, output_folder
from signstep.cli.terminal import aside, say, told
from signstep.data import open_data
from signstep.errors import InputError
from signstep.model.opening import load_model
from signstep.report.heatmap import write_transfer

_HELP = """Craft attacked inputs on some models and score them on others.

A model is NAME=SPEC, or NAME=SPEC@WEIGHTS: a name for the table, package.module:factory or a .pt2 file, and a file of
weights. The same SPEC and WEIGHTS on both sides is one model, attacked with its own gradients.

Writes index.html, transfer.txt and transfer.json into the folder --out.

Example:

  signstep transfer --surrogate small=nets:small@small.safetensors --victim ours=nets:net@net.safetensors
--data test.npz --threat linf:8/255 --attack mi-fgsm --out transfer
"""

_ROWS = 128


@app.command(help=_HELP)
def transfer(
    surrogate: Annotated[list[str] | None, typer.Option(help="Model to craft on, NAME=SPEC[@WEIGHTS]; repeat.")] = None,
    victim: Annotated[list[str] | None, typer.Option(help="Model to score on, NAME=SPEC[@WEIGHTS]; repeat.")] = None,
    trust: o.Trust = False,
    data: o.Data = None,
    label_column: o.LabelColumn = None,
    classes: o.Classes = None,
    skip_bad: o.SkipBad = False,
    ignore_label: o.IgnoreLabel = None,
    max_pixels: o.MaxPixels = None,
    split: o.Split = None,
    resize: o.Resize = None,
    limit: o.Limit = None,
    batch_size: Annotated[int, typer.Option(help="Examples at a time.")] = _ROWS,
    threat: o.ThreatText = None,
    box: o.BoxText = None,
    grid: o.Grid = None,
    attack: Annotated[str, typer.Option(help="One recipe, such as mi-fgsm or di-fgsm:steps=20.")] = "mi-fgsm",
    ensemble: Annotated[bool, typer.Option(help="Also the mean gradient over the surrogates.")] = True,
    goal: Annotated[str, typer.Option(help="untargeted, or towards a class: random or next.")] = "untargeted",
    task: o.TaskText = "auto",
    loss: o.Loss = None,
    mean: o.Mean = None,
    std: o.Std = None,
    inputs: o.Inputs = "raw",
    output: o.Output = None,
    outputs: o.Outputs = "auto",
    mode: o.Mode = "eval",
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    out: Annotated[Path, typer.Option(help="Folder for the page, the table and the record.")] = Path(
        "signstep-transfer"
    ),
) -> None:
    """Craft and score."""
    if threads is not None:
        torch.set_num_threads(threads)
    if not surrogate or not victim or data is None:
        raise InputError("pass at least one --surrogate NAME=SPEC, one --victim NAME=SPEC, and --data")
    if goal not in ("untargeted", "random", "next"):
        raise InputError(f"--goal {goal!r}; pass untargeted, random or next: other rules differ from model to model")
    recipe(attack)  # a recipe that does not exist is said before anything is loaded
    quiet, where = aside(), o.device_of(device)
    source = open_data(
        data,
        batch_size=batch_size,
        limit=limit,
        split=split,
        resize=o.size_of(resize),
        label_column=label_column,
        classes=classes,
        skip_bad=skip_bad,
        ignore_label=ignore_label,
        max_pixels=max_pixels,
    )
    loaded: dict[str, nn.Module] = {}
    sides = [
        _models(side, name, loaded, trust, mode, where) for side, name in ((surrogate, "surrogate"), (victim, "victim"))
    ]
    terms = o.threat_of(threat, box, grid, source.bounds)
    with output_folder(out, marks=(MARK,)) as folder:
        say(quiet, f"data: {source.description}", *source.notes)
        with interruptible():
            matrix = run_transfer(
                sides[0],
                sides[1],
                source,
                threat=terms,
                recipe=attack,
                ensemble=ensemble,
                target=None if goal == "untargeted" else goal,  # type: ignore[arg-type]
                task=o.task_of(task, None, ignore_label),
                loss=loss,
                mean=o.numbers(mean, "mean"),
                std=o.numbers(std, "std"),
                inputs=cast("o.Side", inputs),
                output=o.output_of(output),
                outputs=outputs,  # type: ignore[arg-type]
                mode=mode,  # type: ignore[arg-type]
                rows=batch_size,
                seed=seed,
            )
        write_transfer(matrix, folder)
    told(str(matrix))
    say(quiet, f"written: {folder}")
    if matrix.partial:
        raise typer.Exit(130)


def _models(
    given: Sequence[str], side: str, loaded: dict[str, nn.Module], trust: bool, mode: str, where: torch.device
) -> dict[str, nn.Module]:
    """Models by name; what was loaded before is used again."""
    found: dict[str, nn.Module] = {}
    for item in given:
        name, equals, spec = item.partition("=")
        if not name or not equals or not spec:
            raise InputError(f"--{side} {item!r} is not NAME=SPEC; write small=nets:small@small.safetensors")
        if name in found:
            raise InputError(f"--{side} {name!r} is given twice; give each model a name of its own")
        if spec not in loaded:
            factory, at, weights = spec.partition("@")
            made = load_model(factory, weights=weights if at else None, trust=trust, keep_mode=mode == "keep")
            loaded[spec] = made.model.to(where)
        found[name] = loaded[spec]
    return found
