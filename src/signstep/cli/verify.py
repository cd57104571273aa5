"""``signstep verify``: what of a report holds, for somebody who believes nothing that lies in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from signstep.auditing.checks import Check, attempted
from signstep.auditing.checksums import RECORD, check_sums, plain_file
from signstep.auditing.provable import unprovable
from signstep.auditing.reading import LARGEST
from signstep.auditing.result import Result
from signstep.auditing.signature import signed
from signstep.auditing.stated_terms import claims
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.domain import SchemaFile
from signstep.cli.groups import AddressOptions, DetectorOptions, FilesOptions, LoadedOptions, spread
from signstep.cli.isolation import isolated, refuse
from signstep.cli.report_config import agrees, proposal, read_so, report_config
from signstep.cli.terminal import aside, say, told
from signstep.cli.verifier import brought, files_of, not_here, options_of, saved_detectors, typed
from signstep.cli.work import output_folder
from signstep.domains import DOMAINS
from signstep.errors import LoadError
from signstep.plain import one_line
from signstep.registry import typed_only
from signstep.verifying import SOUND, of_model, of_record, points_of, record_of

_HELP = """Check a report with your own model, weights and data, believing nothing that lies in its folder.

Everything that follows from the examples, from your data or from your model is derived again; saved points are checked
against ball, box, mask and grid and scored by your model; files, page, weights, data, code and preprocessing are
compared. What nobody can check is printed. Model, weights, data and detectors are those that you name, or that your own
signstep.toml names; what the report names is shown as a command, and never loaded. An attack, a norm or a domain of
somebody's own, module:name, is looked at if you type it, with --attack, --threat or --domain.

--again N attacks a sample of N examples that held once more, drawn by a secret seed of yours; nothing else attacks.

Exit status: 0 all holds, 1 something does not, 2 wrong use, 4 incomplete: nothing fails, and not all could be checked.

Example:

  signstep verify signstep-report --model mynet:build --weights net.safetensors --data testset.npz --again 60
"""

_MISSING = (
    "NOT CHECKED: what a model answers, labels, examples, inputs and SHA-256 of what went in, for which your model and "
    "data are needed: pass --model and --data"
)


@app.command(short_help="Check a report, believing nothing in it.", help=_HELP)
@spread
def verify(
    context: typer.Context,
    report: Annotated[Path, typer.Argument(help="The folder that signstep audit wrote.")],
    model: LoadedOptions,
    address: AddressOptions,
    data: FilesOptions,
    detectors: DetectorOptions,
    defend: o.Defend = None,
    domain: Annotated[
        str | None, typer.Option(help=f"What the inputs are: {', '.join(DOMAINS.own)}, or your own package.module.")
    ] = None,
    schema: SchemaFile = None,
    ignore_column: o.IgnoreColumn = None,
    box: Annotated[
        str | None, typer.Option(help="Valid inputs, where the report's box is not that of the data.")
    ] = None,
    threat: Annotated[
        str | None, typer.Option(help="Where its norm is your own: what the report is about, module:norm:eps.")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="An attack of your own that the report names: module:name, or its name; may be repeated."),
    ] = None,
    finding: Annotated[
        list[str] | None,
        typer.Option(help="A finding of your own that the report was made with, as it was typed; may be repeated."),
    ] = None,
    again: Annotated[int, typer.Option(min=0, help="Attack so many of the examples that held once more.")] = 0,
    signed_by: Annotated[
        Path | None, typer.Option(help="A public key, as signstep sign writes it: who made it?")
    ] = None,
    render: Annotated[Path | None, typer.Option(help="Write the page, rendered anew from the record, there.")] = None,
    device: o.Device = "auto",
) -> None:
    """Check a report."""
    given = {
        **vars(model),
        **vars(address),
        **vars(data),
        **vars(detectors),
        "review": detectors.review or None,
        "defend": defend,
        "domain": domain,
        "schema": schema,
        "ignore_column": ignore_column,
    }
    options = options_of(context, report, given)
    refuse(report, **files_of(options), signed_by=signed_by, render=render)
    for file in saved_detectors(options):
        refuse(report, detect=file)
    with isolated(report):
        # What a person typed is imported; from here on nothing is, whatever the report names.
        typed(options, attack or (), threat, finding or ())
        with typed_only():
            _verified(report, options, Ways(box, threat, finding or (), again, signed_by, o.device_of(device), render))


@dataclass(frozen=True)
class Ways:
    """How to verify, beside what is loaded: the options of those names."""

    box: str | None
    threat: str | None
    finding: Sequence[str]
    again: int
    signed_by: Path | None
    device: torch.device
    render: Path | None


def _verified(report: Path, options: Mapping[str, Any], ways: Ways) -> None:
    """Every check, and the answer."""
    from signstep.report.rendered import same_page  # slow to import, and other commands do without

    text = plain_file(report / RECORD, LARGEST)
    checks = [attempted("files", check_sums, report)]
    if ways.signed_by is not None:
        checks.append(signed(report, ways.signed_by))
    try:
        result, said = record_of(text)
        points = points_of(report)
    except LoadError as error:
        _told(None, [*checks, Check("record", False, str(error))], None, asked=False)
        return
    checks.append(Check("record", True, said))
    stated, unreadable = report_config(report)
    # What is loaded is read under these terms; where they are none, nothing is.
    sane = attempted("terms", claims, result).holds
    absent = not_here(options, stated, result, ways.threat) if sane else None
    own = brought(options, stated, result, ways.box, ways.device, ways.threat) if sane and absent is None else None
    checks += of_record(result, points, own)
    checks.append(attempted("configuration", agrees, result, stated, None if own is None else own.case.model))
    sound = all(check.holds for check in checks if check.name in SOUND)
    checks += [] if unreadable is None else [unreadable]
    unlooked = sorted({str(name) for name in stated.options.get("finding") or ()} - set(ways.finding))
    if unlooked:
        typed_so = " --finding ".join(unlooked)
        seen = f"not compared: it has findings of somebody's own; pass --finding {typed_so}, if you trust it"
        checks.append(Check("page", True, seen, complete=False))
    else:
        checks.append(attempted("page", same_page, result, points, stated.ignore, report))
    if own is not None and sound:
        asked = list(of_model(result, points, own, ways.device, ways.again))
        named = {check.name for check in asked}
        checks = [check for check in checks if check.name not in named] + asked
    elif absent is not None and sound:
        checks.append(Check("model and data", True, f"not asked: {absent}", complete=False))
    elif own is not None or options:
        checks.append(Check("model and data", False, "not asked: the record contradicts itself, see above"))
    if ways.render is not None:
        _rendered(result, points, stated.ignore, ways.render)
    asked_ = own is not None or bool(options)
    _told(result, checks, proposal(report, stated), asked=asked_, so=read_so(stated) if asked_ else None)


def _rendered(result: Result, points: Mapping[str, Tensor], ignore: Mapping[str, str], render: Path) -> None:
    """The page, the checklist and the pictures, from the record alone."""
    from signstep.report import write_report  # slow to import, and other commands do without

    with output_folder(render, marks=("index.html",)) as folder:
        try:
            write_report(result, folder, points=points, ignore=ignore)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise LoadError(
                f"no page can be made of this record ({type(error).__name__}: {error})", remedy="leave out --render"
            ) from error
    say(aside(), f"rendered anew: {render / 'index.html'}")


def _told(
    result: Result | None, checks: Sequence[Check], typed: str | None, *, asked: bool, so: str | None = None
) -> None:
    """Print the answer; the exit status says whether all holds."""
    if not asked:
        told(_MISSING)
    for check in checks:
        told(one_line(str(check)))
    if so is not None:
        told(one_line(f"note  your model was asked as the report says that it was: {so}"))
    if result is not None:
        told("Nobody who was not there can tell these; whoever made the report may have written anything:")
        for line in unprovable(result, checks):
            told(f"  {one_line(line)}")
        if result.partial:
            told(f"note  the audit was interrupted: the record covers {result.examples} examples")
    if not asked and typed is not None:
        told("The report names a model and data. Nothing of it was loaded; if you trust them, type:")
        told(f"  {one_line(typed)}")
    say(
        aside(),
        "This scores what was found again; what held is searched again with --again alone. The true robust accuracy "
        "may be lower.",
    )
    if not all(check.holds for check in checks):
        raise typer.Exit(1)
    if not asked or not all(check.complete for check in checks):
        told("incomplete: nothing fails, and not all could be checked")
        raise typer.Exit(4)
