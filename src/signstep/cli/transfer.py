"""``signstep transfer``: craft on some models, score on others."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from signstep.auditing.matrix import MARK
from signstep.auditing.transfer import transfer as run_transfer
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.first import look_first
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
from signstep.data import DataSource
from signstep.domains.case import Request
from signstep.domains.image.case import opened_bare, opened_data, threat_of
from signstep.domains.image.declared import declared_beside, in_order_of, refuse_unheeded
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.model.opening import spelled
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


@app.command(short_help="Craft on some models, score on others.", help=_HELP)
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
        raise InputError(
            "a transfer has models to craft on, models to score on, and data",
            remedy=(
                "pass at least one",
                Arg("surrogate", Blank("NAME=SPEC")),
                ", one",
                Arg("victim", Blank("NAME=SPEC")),
                ", and",
                Arg("data"),
            ),
        )
    if goal not in ("untargeted", "random", "next"):
        raise InputError(
            Arg("goal", goal), remedy="pass untargeted, random or next: other rules differ from model to model"
        )
    look_first(
        request_of(reading, data, threat),
        attacks=[attack],
        search=search,
        out=(out, (MARK,)),
    )
    quiet, where = aside(), machine.ready()
    asked = search_of(
        replace(search, surrogate=None), rule=None if goal == "untargeted" else o.rule_of(goal), reading=reading
    )
    request = replace(request_of(reading, data, threat, search=asked), batch_size=batch_size)
    source = opened_data(request)
    terms = threat_of(request, source.bounds)
    assert isinstance(terms, ThreatModel)
    models = _Models(request, source, where)
    sides = [models.of(side, name) for side, name in ((surrogate, "surrogate"), (victim, "victim"))]
    refuse_unheeded(request, models.bare)
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


@dataclass
class _Models:
    """Models by SPEC; what was opened before is used again, so that it stays one model.

    Attributes:
        bare: as they were opened, before the request's declarations.
    """

    request: Request
    source: DataSource
    where: torch.device
    bare: list[Model] = field(default_factory=list)
    _opened: dict[str, Model] = field(default_factory=dict)

    def of(self, given: Sequence[str], side: str) -> dict[str, Model]:
        """Those of one side, by name.

        Raises:
            InputError: not written NAME=SPEC, a name comes twice, or a model does not fit the data.
            LoadError: one cannot be opened.
        """
        found: dict[str, Model] = {}
        for item in given:
            name, equals, spec = item.partition("=")
            if not name or not equals or not spec:
                raise InputError(Arg(side, item), "is not NAME=SPEC", remedy="write small=nets:small@small.safetensors")
            if name in found:
                raise InputError(Arg(side, name), "is given twice", remedy="give each model a name of its own")
            if spec not in self._opened:
                parts = spelled(spec)
                asked = replace(self.request, model=parts.spec, model_args=parts.args, weights=parts.weights)
                self.bare.append(opened_bare(asked))
                model = declared_beside(self.request, self.bare[-1])
                self._opened[spec] = in_order_of(self.source, name, model, self.request).to(self.where)
            found[name] = self._opened[spec]
        return found
