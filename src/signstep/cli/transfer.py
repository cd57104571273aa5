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
    EndpointOptions,
    MachineOptions,
    ReadingOptions,
    SearchOptions,
    ThreatOptions,
    request_of,
    search_of,
    spread,
)
from signstep.cli.requests import shown_once
from signstep.cli.terminal import aside, say, told
from signstep.cli.work import interruptible, output_folder
from signstep.data import DataSource
from signstep.domains.case import Request
from signstep.domains.image.case import opened_bare, opened_data, threat_of
from signstep.domains.image.declared import declared_beside, in_order_of, refuse_unheeded
from signstep.domains.image.eight_bits import Snapped, ends_of, gridded
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.model.opening import is_address, opener_of, spelled
from signstep.model.victims.address import refuse_secrets
from signstep.report.heatmap import write_transfer

_HELP = """Craft attacked inputs on some models and score them on others.

A model is NAME=SPEC, or NAME=SPEC@WEIGHTS: a name for the table, package.module:factory or a .pt2 file, and a file of
weights; without NAME= it is called as it is spelled. The same SPEC and WEIGHTS on both sides is one model, attacked
with its own gradients. --model SPEC is one more victim, such as an endpoint, https://HOST/PATH with --endpoint: it is
sent the very images that were made, as 8-bit PNG where it takes files.

Writes index.html, transfer.txt and transfer.json into the folder --out.

Examples:

  signstep transfer --surrogate small=nets:small@small.safetensors --victim ours=nets:net@net.safetensors
--data test.npz --threat linf:8/255 --attack mi-fgsm --out transfer

  signstep transfer --surrogate hf:vit --model https://api.example.org/classify --endpoint victim.toml --data photos
--threat linf:8/255 --max-requests 500
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
    endpoint: EndpointOptions,
    surrogate: Annotated[list[str] | None, typer.Option(help="Model to craft on, NAME=SPEC[@WEIGHTS]; repeat.")] = None,
    victim: Annotated[list[str] | None, typer.Option(help="Model to score on, NAME=SPEC[@WEIGHTS]; repeat.")] = None,
    model: Annotated[str | None, typer.Option(help="One more model to score on, as --victim has them.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples at a time.")] = _ROWS,
    attack: Annotated[str, typer.Option(help="One recipe, such as mi-fgsm or di-fgsm:steps=20.")] = "mi-fgsm",
    ensemble: Annotated[bool, typer.Option(help="Also the mean gradient over the surrogates.")] = True,
    goal: Annotated[str, typer.Option(help="untargeted, or towards a class: random or next.")] = "untargeted",
    out: Annotated[Path, typer.Option(help="Folder for the page, the table and the record.")] = Path(
        "signstep-transfer"
    ),
) -> None:
    """Craft and score."""
    victims = [*(victim or ()), *([] if model is None else [model])]
    if not surrogate or not victims or data.data is None:
        raise InputError(
            "a transfer has models to craft on, models to score on, and data",
            remedy=(
                "pass at least one",
                Arg("surrogate", Blank("NAME=SPEC")),
                ", one",
                Arg("victim", Blank("NAME=SPEC")),
                "or",
                Arg("model"),
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
    request = replace(request_of(reading, endpoint, data, threat, search=asked), batch_size=batch_size)
    source = opened_data(request)
    models = _Models(request, source, where)
    sides = [models.of(side, name) for side, name in ((surrogate, "surrogate"), (victims, "victim"))]
    refuse_unheeded(request, models.bare)
    models.refuse_unheeded()
    ends = ends_of(sides[1].values())
    terms = threat_of(gridded(request, ends, source.bounds), source.bounds)
    assert isinstance(terms, ThreatModel)
    if endpoint.dry_run:
        shown_once(list(sides[1].values()), Snapped(source, ends))
        raise typer.Exit
    with output_folder(out, marks=(MARK,)) as folder:
        say(quiet, f"data: {source.description}", *source.notes)
        with interruptible():
            matrix = run_transfer(
                sides[0],
                sides[1],
                source if ends is None else Snapped(source, ends),
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


def _named(item: str) -> tuple[str, str]:
    """Name and spelling of NAME=SPEC; without a name, as it is spelled, before arguments and weights."""
    name, equals, spec = item.partition("=")
    if equals and not any(mark in name for mark in ":/@"):
        return name, spec
    found = spelled(item).spec
    return ("" if opener_of(found) is None else found), item


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
    addressed: bool = False
    _opened: dict[str, Model] = field(default_factory=dict)

    def refuse_unheeded(self) -> None:
        """See that what is said of an endpoint is said of one.

        Raises:
            InputError: no model is one.
        """
        for name in ("endpoint", "max_requests"):
            value = getattr(self.request, name)
            if value is not None and not self.addressed:
                raise InputError(
                    Arg(name, value), "is about an address, and no model here is one", remedy="leave it out"
                )

    def of(self, given: Sequence[str], side: str) -> dict[str, Model]:
        """Those of one side, by name.

        Raises:
            InputError: not written NAME=SPEC, a name comes twice, or a model does not fit the data.
            LoadError: one cannot be opened.
        """
        found: dict[str, Model] = {}
        for item in given:
            refuse_secrets(item)
            name, spec = _named(item)
            if not name or not spec:
                raise InputError(Arg(side, item), "is not NAME=SPEC", remedy="write small=nets:small@small.safetensors")
            if name in found:
                raise InputError(Arg(side, name), "is given twice", remedy="give each model a name of its own")
            if spec not in self._opened:
                parts = spelled(spec)
                asked = replace(self.request, model=parts.spec, model_args=parts.args, weights=parts.weights)
                said = {part.partition("=")[0] for part in parts.args}
                if not is_address(parts.spec):
                    asked = replace(asked, endpoint=None, max_requests=None)
                elif "endpoint" in said:  # what stands in the model's own word is of that one
                    asked = replace(asked, endpoint=None)
                if "max_requests" in said:
                    asked = replace(asked, max_requests=None)
                self.addressed |= is_address(parts.spec)
                self.bare.append(opened_bare(asked))
                model = declared_beside(self.request, self.bare[-1])
                self._opened[spec] = in_order_of(self.source, name, model, self.request).to(self.where)
            found[name] = self._opened[spec]
        return found
