"""``signstep transfer``: craft on some models, score on others."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from signstep.attacks.recipes import recipe
from signstep.auditing.matrix import MARK
from signstep.auditing.transfer import transfer as run_transfer
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.groups import (
    DataOptions,
    MachineOptions,
    ReadingOptions,
    SearchOptions,
    ThreatOptions,
    request_of,
    search_of,
    spread,
)
from signstep.cli.terminal import aside, say, told
from signstep.cli.work import interruptible, output_folder
from signstep.domains.case import Request
from signstep.domains.image.case import opened_data, opened_model, threat_of
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.model.declaration import Model
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
@spread
def transfer(
    reading: ReadingOptions,
    data: DataOptions,
    threat: ThreatOptions,
    search: SearchOptions,
    machine: MachineOptions,
    surrogate: Annotated[list[str] | None, typer.Option(help="Model to craft on, NAME=SPEC[@WEIGHTS]; repeat.")] = None,
    victim: Annotated[list[str] | None, typer.Option(help="Model to score on, NAME=SPEC[@WEIGHTS]; repeat.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples at a time.")] = _ROWS,
    attack: Annotated[str, typer.Option(help="One recipe, such as mi-fgsm or di-fgsm:steps=20.")] = "mi-fgsm",
    ensemble: Annotated[bool, typer.Option(help="Also the mean gradient over the surrogates.")] = True,
    goal: Annotated[str, typer.Option(help="untargeted, or towards a class: random or next.")] = "untargeted",
    out: Annotated[Path, typer.Option(help="Folder for the page, the table and the record.")] = Path(
        "signstep-transfer"
    ),
) -> None:
    """Craft and score."""
    if not surrogate or not victim or data.data is None:
        raise InputError("pass at least one --surrogate NAME=SPEC, one --victim NAME=SPEC, and --data")
    if goal not in ("untargeted", "random", "next"):
        raise InputError(f"--goal {goal!r}; pass untargeted, random or next: other rules differ from model to model")
    recipe(attack)  # a recipe that does not exist is said before anything is loaded
    quiet, where = aside(), machine.ready()
    asked = search_of(search, rule=None if goal == "untargeted" else o.rule_of(goal), trust=False)
    request = replace(request_of(reading, data, threat, search=asked), batch_size=batch_size)
    source = opened_data(request)
    terms = threat_of(request, source.bounds)
    assert isinstance(terms, ThreatModel)
    loaded: dict[str, Model] = {}
    sides = [
        _models(side, name, loaded, request, where) for side, name in ((surrogate, "surrogate"), (victim, "victim"))
    ]
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
                rows=batch_size,
                search=asked,
            )
        write_transfer(matrix, folder)
    told(str(matrix))
    say(quiet, f"written: {folder}")
    if matrix.partial:
        raise typer.Exit(130)


def _models(
    given: Sequence[str], side: str, loaded: dict[str, Model], request: Request, where: torch.device
) -> dict[str, Model]:
    """Models by name; what was loaded before is used again."""
    found: dict[str, Model] = {}
    for item in given:
        name, equals, spec = item.partition("=")
        if not name or not equals or not spec:
            raise InputError(f"--{side} {item!r} is not NAME=SPEC; write small=nets:small@small.safetensors")
        if name in found:
            raise InputError(f"--{side} {name!r} is given twice; give each model a name of its own")
        if spec not in loaded:
            factory, at, weights = spec.partition("@")
            asked = replace(request, model=factory, weights=Path(weights) if at else None)
            loaded[spec] = opened_model(asked)[0].to(where)
        found[name] = loaded[spec]
    return found
