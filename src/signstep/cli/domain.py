"""What ``--domain`` changes about a command: where model, data and threat come from; and ``signstep schema``."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.terminal import noted, told
from signstep.domains import DOMAINS, Case, Request, domain
from signstep.domains import domain as find_domain
from signstep.errors import InputError
from signstep.io.files import WriteError, write_whole

IMAGES = "image"

DomainName = Annotated[str, typer.Option("--domain", help=f"What the inputs are: {IMAGES}, {', '.join(DOMAINS)}.")]
SchemaFile = Annotated[
    Path | None,
    typer.Option("--schema", help="With --domain: a TOML file that says what the data means and what may change."),
]

# Options of an audit that a domain's schema decides instead, or that only images have; some domains heed some of them.
_OF_IMAGES = (
    "label_column",
    "ignore_column",
    "split",
    "resize",
    "classes",
    "ignore_label",
    "max_pixels",
    "box",
    "grid",
    "goal",
    "predicted_labels",
    "task",
    "tolerance",
    "loss",
    "mean",
    "std",
    "inputs",
    "budget",
    "output",
    "outputs",
    "mode",
)


def check_options(context: typer.Context, name: str, schema: Path | None) -> None:
    """See that nothing is asked for that the domain would not heed.

    Raises:
        InputError: an option has no effect, or there is no such domain.
    """
    if name == IMAGES:
        if schema is not None:
            raise InputError("--schema has no effect on images; pass --domain, or drop it")
        if context.params.get("ignore_column"):
            raise InputError("--ignore-column needs --domain tabular or control; drop it and the column")
        return
    refuse_unheeded(context, find_domain(name).heeds, name)


def refuse_unheeded(context: typer.Context, heeded: Collection[str], name: str) -> None:
    """See that no option is given that only images or other domains heed.

    Raises:
        InputError: one is.
    """
    for option in _OF_IMAGES:
        if option in heeded:
            continue
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"--{option.replace('_', '-')} has no effect with --domain {name}, whose schema says what the data "
                "means; drop it"
            )


def check_recipes(name: str, given: Sequence[str] | None) -> None:
    """See that no attack is asked for that only another domain has.

    Raises:
        InputError: one is.
    """
    said = [piece.strip().partition(":")[0].partition(" ")[0] for text in given or () for piece in text.split(",")]
    for row in DOMAINS.values():
        own = next((recipe for recipe in said if recipe in row.recipes), None)
        if own is not None and row.name != name:
            raise InputError(f"{own} is an attack of --domain {row.name} alone; pass that, or another attack")


def case_of(name: str, stated: Mapping[str, Any], batch_size: int) -> Case:
    """The audit that the options of a command ask for, by their names there."""
    weights, schema, limit = stated.get("weights"), stated.get("schema"), stated.get("limit")
    return find_domain(name).case(
        Request(
            model=stated.get("model"),
            weights=None if weights is None else Path(weights),
            model_args=tuple(stated.get("model_arg") or ()),
            trust=bool(stated.get("trust", False)),
            data=stated.get("data"),
            schema=None if schema is None else Path(schema),
            threat=stated.get("threat"),
            label_column=stated.get("label_column"),
            limit=None if limit is None else int(limit),
            batch_size=batch_size,
            seed=int(stated.get("seed", 0)),
            skip_bad=bool(stated.get("skip_bad", False)),
            ignore=tuple(stated.get("ignore_column") or ()),
            task=str(stated.get("task") or "auto"),
            tolerance=stated.get("tolerance"),
        )
    )


@app.command()
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
    if name == IMAGES:
        raise InputError(f"images need no schema; pass --domain, one of {_with_schema()}")
    infer = domain(name).infer
    if infer is None:
        raise InputError(f"the domain {name} draws no schema from data; pass one of {_with_schema()}")
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
        raise InputError(f"--out {out} exists, and edits in it would be lost; pass another file")
    try:
        write_whole(out, text)
    except WriteError as error:
        raise InputError(f"--out {out} cannot be written ({error.reason}); pass another file") from error
    noted(f"schema: {out}")


def _with_schema() -> str:
    return ", ".join(row.name for row in DOMAINS.values() if row.infer is not None)


def described(case: Case) -> Sequence[str]:
    """What is said before the work begins."""
    return (f"model: {case.description}", f"data: {case.data}", *case.opening)
