"""``signstep verify``: what of a report holds, for somebody who believes nothing that lies in its folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from signstep.auditing import plans, rescore
from signstep.auditing.checks import Check, attempted
from signstep.auditing.checksums import POINTS, RECORD, check_sums, plain_file
from signstep.auditing.evidence import Evidence
from signstep.auditing.provable import unprovable
from signstep.auditing.reading import LARGEST, parse
from signstep.auditing.reattack import attacked_again
from signstep.auditing.record import SCHEMA
from signstep.auditing.recount import recount
from signstep.auditing.result import Result
from signstep.auditing.signature import signed
from signstep.auditing.stated_terms import claims
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.domain import SchemaFile
from signstep.cli.isolation import isolated, refuse
from signstep.cli.report_config import ReportConfig, agrees, proposal, read_so, report_config
from signstep.cli.terminal import aside, say, told
from signstep.cli.verifier import Verifier, brought, domain_terms, files_of, names, options_of, threat
from signstep.cli.work import output_folder
from signstep.domains import DOMAINS
from signstep.domains import domain as find_domain
from signstep.engine.threat import span_of
from signstep.engine.untouched import untouched
from signstep.errors import LoadError
from signstep.plain import one_line

_HELP = """Check a report with your own model, weights and data, believing nothing that lies in its folder.

Everything that follows from the examples, from your data or from your model is derived again; saved points are checked
against ball, box, mask and grid and scored by your model; files, page, weights, data, code and preprocessing are
compared. What nobody can check is printed. Model, weights and data are those that you name, or that your own
signstep.toml names; what the report names is shown as a command, and never loaded.

--again N attacks a sample of N examples that held once more, drawn by a secret seed of yours; nothing else attacks.

Exit status: 0 all holds, 1 something does not, 2 wrong use, 4 incomplete: nothing fails, and not all could be checked.

Example:

  signstep verify signstep-report --model mynet:build --weights net.safetensors --data testset.npz --again 60
"""

_MISSING = (
    "NOT CHECKED: what a model answers, labels, examples, inputs and SHA-256 of what went in, for which your model and "
    "data are needed: pass --model and --data"
)


# Of a record that fails one of these, nothing is asked: it is not known what.
_SOUND = ("counts", "terms", "points")


@app.command(help=_HELP)
def verify(
    context: typer.Context,
    report: Annotated[Path, typer.Argument(help="The folder that signstep audit wrote.")],
    model: o.Model = None,
    weights: o.Weights = None,
    model_arg: o.ModelArg = None,
    trust: o.Trust = False,
    domain: Annotated[str | None, typer.Option(help=f"What the inputs are: {', '.join(DOMAINS)}.")] = None,
    schema: SchemaFile = None,
    data: o.Data = None,
    label_column: o.LabelColumn = None,
    ignore_column: o.IgnoreColumn = None,
    classes: o.Classes = None,
    skip_bad: o.SkipBad = False,
    ignore_label: o.IgnoreLabel = None,
    max_pixels: o.MaxPixels = None,
    split: o.Split = None,
    resize: o.Resize = None,
    box: Annotated[
        str | None, typer.Option(help="Valid inputs, where the report's box is not that of the data.")
    ] = None,
    again: Annotated[int, typer.Option(min=0, help="Attack so many of the examples that held once more.")] = 0,
    signed_by: Annotated[
        Path | None, typer.Option(help="A public key, as signstep sign writes it: who made it?")
    ] = None,
    render: Annotated[Path | None, typer.Option(help="Write the page, rendered anew from the record, there.")] = None,
    device: o.Device = "auto",
) -> None:
    """Check a report."""
    from signstep.report.rendered import same_page  # slow to import, and other commands do without

    given = {
        "model": model,
        "weights": weights,
        "model_arg": model_arg,
        "trust": trust,
        "domain": domain,
        "schema": schema,
        "data": data,
        "label_column": label_column,
        "ignore_column": ignore_column,
        "classes": classes,
        "skip_bad": skip_bad,
        "ignore_label": ignore_label,
        "max_pixels": max_pixels,
        "split": split,
        "resize": resize,
    }
    options = options_of(context, report, given)
    refuse(report, **files_of(options), signed_by=signed_by, render=render)
    text = plain_file(report / RECORD, LARGEST)
    checks = [attempted("files", check_sums, report)]
    if signed_by is not None:
        checks.append(signed(report, signed_by))
    try:
        result, said = _record(text)
        points = _points(report)
    except LoadError as error:
        _told(None, [*checks, Check("record", False, str(error))], None, asked=False)
        return
    checks.append(Check("record", True, said))
    stated, unreadable = report_config(report)
    where = o.device_of(device)
    with isolated(report):
        # What is loaded is read under these terms; where they are none, nothing is.
        sane = attempted("terms", claims, result).holds
        own = brought(options, stated, result, box, where) if sane else None
        checks += of_record(result, stated, points, own)
        sound = all(check.holds for check in checks if check.name in _SOUND)
        checks += [] if unreadable is None else [unreadable]
        checks.append(attempted("page", same_page, result, points, stated.ignore, report))
        if own is not None and sound:
            asked = list(of_model(result, points, own, where, again))
            named = {check.name for check in asked}
            checks = [check for check in checks if check.name not in named] + asked
        elif own is not None or options:
            checks.append(Check("model and data", False, "not asked: the record contradicts itself, see above"))
    if render is not None:
        _rendered(result, points, stated.ignore, render)
    asked_ = own is not None or bool(options)
    _told(result, checks, proposal(report, stated), asked=asked_, so=read_so(stated) if asked_ else None)


def _record(text: bytes) -> tuple[Result, str]:
    """The record, and what is to be said of its schema."""
    try:
        plain = parse(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LoadError(f"this is not a signstep result: it is not UTF-8 ({error})") from error
    result = Result.from_plain(plain)
    by = f"made by signstep {result.versions.get('signstep')}"
    old = "" if plain["schema"] == SCHEMA else f", which this version reads as {SCHEMA}"
    return result, f"schema {plain['schema']}{old}, {by}"


def _points(report: Path) -> dict[str, Tensor]:
    path = report / POINTS
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise LoadError(f"{path} is no plain file")
    return Evidence.load(path) if path.is_file() else {}


def of_record(
    result: Result, stated: ReportConfig, points: Mapping[str, Tensor], own: Verifier | None = None
) -> list[Check]:
    """Every check of record, configuration and points that asks no model."""
    attacks, terms = (None, None) if own is None else (own.attacks, own.terms)
    domain = result.terms.get("domain")
    # Signstep's own code, whichever of its domains the record names.
    checkers = find_domain(domain).checkers if isinstance(domain, str) and domain in DOMAINS else None
    checks = [
        recount(result),
        attempted("terms", claims, result),
        plans.ladder(result),
        attempted("passes", plans.passes, result, attacks),
        attempted("configuration", agrees, result, stated),
        attempted("points", rescore.saved, result, points),
    ]
    if all(check.holds for check in checks if check.name == "points"):
        checks.append(attempted("threat model", rescore.allowed, result, points, checkers, terms))
    return checks


def of_model(
    result: Result, points: Mapping[str, Tensor], own: Verifier, device: torch.device, again: int = 0
) -> Iterator[Check]:
    """Every check that needs the verifier's model or data."""
    yield names(result, own)
    yield rescore.hashes(result, own.hashes)
    yield threat(result, own)
    if own.of_schema:
        yield domain_terms(result, own, own.case)
    kept = list(own.batches) if again else own.batches
    declared = own.case.model
    task, model = declared.task, declared.network
    with untouched(model, mode=declared.mode), torch.no_grad():
        checks, there = rescore.of_data(
            result,
            points,
            kept,
            own.predictor,
            task,
            own.to_search,
            span_of(own.searched),
            own.total,
            own.search.loss,
        )
        yield from checks
        if len(there) == result.examples:  # what the record alone leaves open, where classes may be absent
            yield attempted("passes", plans.passes, result, own.attacks, there)
        yield attempted("answers", rescore.answers, result, points, own.predictor, task)
    if again:
        yield attacked_again(
            result,
            kept,
            again,
            model=declared,
            threat=own.case.threat,
            search=own.search,
            attacks=own.attacks,
            device=device,
        )


def _rendered(result: Result, points: Mapping[str, Tensor], ignore: Mapping[str, str], render: Path) -> None:
    """The page, the checklist and the pictures, from the record alone."""
    from signstep.report import write_report  # slow to import, and other commands do without

    with output_folder(render, marks=("index.html",)) as folder:
        try:
            write_report(result, folder, points=points, ignore=ignore)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise LoadError(f"no page can be made of this record ({type(error).__name__}: {error})") from error
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
        for line in unprovable(result):
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
