"""``signstep smooth``: how far a vote under Gaussian noise is proved to hold."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.groups import BatchOptions, DataOptions, MachineOptions, ModelOptions, request_of, spread
from signstep.cli.terminal import aside, say, told
from signstep.cli.work import interruptible, progress, refuse_foreign
from signstep.defences.smoothing import smooth as smoothed_of
from signstep.domains import IMAGES
from signstep.errors import InputError
from signstep.io.documents import read_json
from signstep.io.files import WriteError
from signstep.messages import Arg

_HELP = """Certify a smoothed classifier: the vote of a model under Gaussian noise (Cohen et al. 2019).

For each example the class of the vote, or an abstention, and the radius in L2 within which no change moves it; each
radius is wrong with a chance of at most --alpha. It speaks of the vote alone, never of the model without it, and of
no other norm. A model that was not trained under such noise has little to vote about.

Exit status: 0 done, 2 wrong use, 3 internal error, 130 interrupted (what was done by then is printed).

Examples:

  signstep smooth --sigma 0.25 --limit 20

  signstep smooth --model nets:net --weights w.safetensors --data test.npz --sigma 0.5 --draws 10000 --out smooth.json
"""
_ANY = "l2:1"  # a case has a threat, and nothing is attacked here


@app.command(short_help="Certify a vote under Gaussian noise, in L2.", help=_HELP)
@spread
def smooth(
    model: ModelOptions,
    data: DataOptions,
    batch: BatchOptions,
    machine: MachineOptions,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise, in raw units.")] = 0.25,
    alpha: Annotated[float, typer.Option(help="Chance that the radius of an example is wrong.")] = 0.001,
    draws: Annotated[int, typer.Option(min=1, help="Draws that prove; the paper takes 100000.")] = 1000,
    choosing: Annotated[int, typer.Option(min=1, help="Draws before them that choose the class.")] = 100,
    seed: o.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the record, as JSON, to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of the table.")] = False,
) -> None:
    """Certify."""
    if out is not None:
        refuse_foreign(out, _record)
    where, quiet = machine.ready(), aside()
    case = IMAGES.case(replace(request_of(model, data, batch), threat=_ANY))
    smoothed = smoothed_of(case.model.to(where), sigma, seed=seed)
    say(quiet, *case.said)
    with progress(quiet, case.total, "voting") as advance, interruptible():
        found = smoothed.certify(
            case.batches, n0=choosing, n=draws, alpha=alpha, limit=data.limit, name=case.data, progress=advance
        )
    if out is not None:
        try:
            found.save(out)
        except WriteError as error:
            raise InputError(
                Arg("out", out), f"cannot be written ({error.reason})", remedy="pass another file"
            ) from error
    told(found.to_json() if json else str(found))
    if found.partial:
        raise typer.Exit(130)


def _record(path: Path) -> None:
    """See that a file is a record of this command.

    Raises:
        LoadError: it cannot be read.
        ValueError: it is another.
    """
    if read_json(path, "the record of smoothing")["kind"] != "smoothing":
        raise ValueError("of another kind")
