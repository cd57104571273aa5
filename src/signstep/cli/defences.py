"""``signstep defences``: what each defence costs, and what it is worth against one who knows of it."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from signstep.attacks.recipes import recipe
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.groups import (
    BatchOptions,
    DataOptions,
    DetectorOptions,
    MachineOptions,
    ModelOptions,
    ThreatOptions,
    other_model,
    request_of,
    spread,
)
from signstep.cli.policies import check_detectors, is_saved, policy_of
from signstep.cli.terminal import aside, say, told
from signstep.cli.work import interruptible, output_folder, progress
from signstep.defences.cost import table
from signstep.defences.cost.measure import Wanted
from signstep.defences.known import DEFENCES
from signstep.defences.row import step_of
from signstep.domains import IMAGES
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.search import Search

_HELP = """What does each defence cost, and what is it worth against an attacker who knows of it?

For transformations of inputs, detectors, randomised smoothing and models that were trained to be robust: clean
accuracy kept, robust accuracy unaware and aware, time as a multiple, difficulty, and one sentence. The unaware attacker
crafts on the undefended model; the aware one tries every way past the defence, example by example.

Without arguments: all transformations on the demonstration's digits. --list prints them, with what became of each.

Exit status: 0 done, 2 wrong use, 3 internal error, 130 interrupted (what was done by then is printed).

Examples:

  signstep defences --limit 20

  signstep defences --model nets:net --weights w.safetensors --data test.npz --threat linf:8/255 --defend jpeg
  --defend bit-depth:bits=5+resize-pad --trained pgd=nets:net@pgd.safetensors --sigma 0.25 --out defences

  signstep defences --model nets:net --data test.npz --threat linf:8/255 --detect squeeze --reject 0.01
  --clean calib.npz
"""
_FILES = ("defences.json", "defences.txt", "index.html")


@app.command(short_help="What each defence costs, and is worth.", help=_HELP)
@spread
def defences(
    model: ModelOptions,
    data: DataOptions,
    batch: BatchOptions,
    threat: ThreatOptions,
    machine: MachineOptions,
    detectors: DetectorOptions,
    defend: Annotated[
        list[str] | None,
        typer.Option(
            help="A row: a transformation, or several joined by + for a chain; repeat. All if neither this nor a "
            "detector is given."
        ),
    ] = None,
    detect: Annotated[
        list[str] | None,
        typer.Option(
            help="A row: a detector or the file of one, or several joined by + under one rate; repeat. Needs --reject."
        ),
    ] = None,
    trained: Annotated[
        list[str] | None, typer.Option(help="A model that was trained to be robust, NAME=MODEL[@WEIGHTS]; repeat.")
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="A row for randomised smoothing with this noise.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="Recipes that every row meets; pgd:steps=20 if not given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Use the first so many examples.")] = 100,
    seed: o.Seed = 0,
    list_: Annotated[bool, typer.Option("--list", help="Print the transformations, and measure nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page, the table and the record.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of the table.")] = False,
) -> None:
    """Measure."""
    if list_:
        told(_listed())
        return
    rows = [tuple(text.split("+")) for text in defend or ()]
    for chain in rows:
        for spec in chain:
            step_of(spec, DEFENCES)  # one that does not exist is said before anything is loaded
    groups = [[text] if is_saved(text) else text.split("+") for text in detect or ()]
    check_detectors(replace(detectors, detect=[name for group in groups for name in group]), data.data)
    attacks = o.attacks_of(attack) if attack else ("pgd:steps=20",)
    for spec in attacks:
        recipe(spec)
    where, quiet = machine.ready(), aside()
    request = replace(request_of(model, data, batch, threat), limit=limit)
    case = IMAGES.case(request)
    if not isinstance(case.threat, ThreatModel):
        raise InputError(Arg("threat"), "is of several inputs", remedy="pass a model of one")
    others = _others(trained or (), model)
    say(quiet, *case.said)
    case.model.to(where)
    asked = [policy_of(replace(detectors, detect=group), request, case.model) for group in groups]
    wanted: list[Wanted] = [*rows, *(policy for policy in asked if policy is not None)]
    total = (len(wanted) or len(DEFENCES.own)) + (sigma is not None) + len(others)
    with progress(quiet, total, "measuring") as advance, interruptible():
        found = table(
            case.model,
            case.batches,
            threat=case.threat,
            rows=wanted or None,
            trained={name: other.to(where) for name, other in others.items()},
            sigma=sigma,
            attacks=attacks,
            limit=limit,
            search=Search(seed=seed),
            name=case.data,
            progress=advance,
        )
    if out is not None:
        from signstep.report.costs import write_costs  # slow to import, and other commands do without

        with output_folder(out, marks=_FILES[:1]) as folder:
            write_costs(found, folder)
        say(quiet, f"written: {out / 'index.html'}")
    told(found.to_json() if json else str(found))
    if found.partial:
        raise typer.Exit(130)


def _others(given: list[str] | tuple[str, ...], reading: ModelOptions) -> dict[str, Model]:
    """Trained models by name."""
    found: dict[str, Model] = {}
    for text in given:
        name, equals, spec = text.partition("=")
        if not (name and equals and spec):
            raise InputError(
                Arg("trained", text), "is not NAME=MODEL or NAME=MODEL@WEIGHTS", remedy="write pgd=nets:net@pgd.pt, say"
            )
        if name in found:
            raise InputError(Arg("trained"), f"names {name!r} twice", remedy="give each model a name of its own")
        found[name] = other_model(spec, reading, option="trained")
    return found


def _listed() -> str:
    """The table of transformations, in words."""
    lines = []
    for row in DEFENCES.asked_for.values():
        drawn = ", draws numbers" if row.random else ""
        lines += [
            f"{row.build()}: {row.title}{drawn}",
            f"    past it: {row.gradient}",
            f"    proposed: {row.source}",
            f"    what became of it: {row.broken}",
        ]
    return "\n".join(lines)
