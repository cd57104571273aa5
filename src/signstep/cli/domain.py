"""What ``--domain`` changes about a command: where model, data and threat come from; and ``signstep schema``."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

from signstep.attacks.recipes import RECIPES
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.terminal import noted, told
from signstep.domains import DOMAINS, IMAGES, Request, domain
from signstep.domains import domain as find_domain
from signstep.errors import InputError
from signstep.io.files import WriteError, write_whole
from signstep.messages import Arg

DomainName = Annotated[
    str,
    typer.Option(
        "--domain", help=f"What the inputs are: {IMAGES.name}, {', '.join(DOMAINS.own)}, or your own package.module."
    ),
]
SchemaFile = Annotated[
    Path | None,
    typer.Option("--schema", help="With --domain: a TOML file that says what the data means and what may change."),
]


def check_options(context: typer.Context, name: str, schema: Path | None) -> None:
    """See that nothing is asked for that the domain would not heed.

    Raises:
        InputError: an option has no effect, or there is no such domain.
    """
    if name == IMAGES.name:
        if schema is not None:
            raise InputError(Arg("schema"), "has no effect on images", remedy=("pass", Arg("domain"), ", or drop it"))
        if context.params.get("ignore_column"):
            raise InputError(
                Arg("ignore_column"),
                "needs a table of records",
                remedy=("pass", Arg("domain", "tabular"), "or control"),
            )
        return
    refuse_unheeded(context, find_domain(name).heeds, name)


def refuse_unheeded(context: typer.Context, heeded: Collection[str], name: str) -> None:
    """See that no option is given that only images or other domains heed.

    Raises:
        InputError: one is.
    """
    # What a schema decides elsewhere, or what only images have.
    for option in sorted((IMAGES.heeds | {"ignore_column"}) - set(heeded)):
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(
                Arg(option),
                "has no effect with",
                Arg("domain", name),
                ", whose schema says what the data means",
                remedy="drop it",
            )


def check_recipes(name: str, given: Sequence[str] | None) -> None:
    """See that no attack is asked for that only another domain has.

    Raises:
        InputError: one is.
    """
    named = [piece.strip().partition(":")[0].partition(" ")[0] for text in given or () for piece in text.split(",")]
    said = [recipe for recipe in named if recipe not in RECIPES.own]
    if not said:
        return
    for row in DOMAINS.values():
        own = next((recipe for recipe in said if recipe in row.recipes), None)
        if own is not None and row.name != name:
            raise InputError(
                f"{own} is an attack of", Arg("domain", row.name), "alone", remedy="pass that, or another attack"
            )


@app.command(short_help="Draw a schema from data, for domains beyond images.")
def schema(
    context: typer.Context,
    name: DomainName = "tabular",
    data: Annotated[
        str | None, typer.Option(help="The data to draw a schema from, such as credit.csv or credit.parquet.")
    ] = None,
    label_column: o.LabelColumn = None,
    ignore_column: o.IgnoreColumn = None,
    task: o.TaskText = "auto",
    tolerance: o.Tolerance = None,
    out: Annotated[Path | None, typer.Option(help="Write it here; else it is printed.")] = None,
) -> None:
    """Draw a schema from data, as TOML to be edited: what each column means, and what may change by how much.

    Without data: that of the domain's own example.
    """
    if name == IMAGES.name:
        raise InputError("images need no schema", remedy=("pass", Arg("domain"), f", one of {_with_schema()}"))
    infer = domain(name).infer
    if infer is None:
        raise InputError(f"the domain {name} draws no schema from data", remedy=f"pass one of {_with_schema()}")
    refuse_unheeded(context, domain(name).heeds, name)
    text = infer(
        Request(
            data=data,
            label_column=label_column,
            ignore=tuple(ignore_column or ()),
            task=task,
            tolerance=tolerance,
        )
    )
    if out is None:
        told(text, nl=not text.endswith("\n"))
        return
    if os.path.lexists(out):
        raise InputError(Arg("out", out), "exists, and edits in it would be lost", remedy="pass another file")
    try:
        write_whole(out, text)
    except WriteError as error:
        raise InputError(Arg("out", out), f"cannot be written ({error.reason})", remedy="pass another file") from error
    noted(f"schema: {out}")


def _with_schema() -> str:
    return ", ".join(row.name for row in DOMAINS.values() if row.infer is not None)
