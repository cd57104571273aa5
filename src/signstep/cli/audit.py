"""``signstep audit``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from torch import Tensor

from signstep.attacks.recipes import canonical
from signstep.auditing.added_sections import SECTIONS, with_sections
from signstep.auditing.bracket import Bounds
from signstep.auditing.checksums import write_sums
from signstep.auditing.compare import compare
from signstep.auditing.evidence import Evidence, write_points
from signstep.auditing.findings import FINDINGS, check_ignored, examine
from signstep.auditing.gates import Gate, free_of, reaches
from signstep.auditing.ladder import ladder as find_ladder
from signstep.auditing.result import Result
from signstep.auditing.run import Curve, Run
from signstep.auditing.table import table
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.config import Settings, check_written, dump_config
from signstep.cli.domain import DomainName, SchemaFile, check_options, check_recipes
from signstep.cli.first import look_first, named_attacks, refuse_missing
from signstep.cli.groups import (
    BatchOptions,
    DataOptions,
    DetectorOptions,
    EndpointOptions,
    MachineOptions,
    ModelOptions,
    ScaleOptions,
    SearchOptions,
    ThreatOptions,
    request_of,
    search_of,
    spread,
)
from signstep.cli.option_names import words_of
from signstep.cli.policies import check_detectors, policy_of
from signstep.cli.requests import shown_once
from signstep.cli.stated import check_words, shown_views, stated
from signstep.cli.terminal import aside, noted, say, told
from signstep.cli.work import interruptible, others_of, output_folder, progress
from signstep.domains import IMAGES, Case, audit_case
from signstep.domains import domain as find_domain
from signstep.domains.diagnosed import Doubt, diagnosed, doubted, kept
from signstep.domains.image.first_look import WITH_GRADIENTS
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError, LoadError
from signstep.io.files import write_whole
from signstep.io.folders import replaced
from signstep.messages import Arg
from signstep.scale.ledger import FOLDER, TABLE

LEDGER = f"{FOLDER}/{TABLE}"

_HELP = """Attack every example of a data set and print what was found.

Without arguments: a demonstration on built-in digits with a small network trained on the spot.

Exit status: 0 done, 1 gate failed, 2 wrong use, 3 internal error or an example both proved and fooled, 130
interrupted, 143 by SIGTERM (the report is marked partial).

Examples:

  signstep audit

  signstep audit --model mypackage.nets:resnet --weights net.safetensors --data testset/ --threat linf:8/255

  signstep audit --model signstep.networks.small:mnist_cnn --weights mnist.safetensors --data t10k-images-idx3-ubyte.gz
  --threat linf:0.3 --attack fgsm,pgd:steps=50,restarts=10

  signstep audit --model nets:net --data test.npz --threat linf:8/255 --ladder standard@1 --engine fast

  signstep audit --model nets:net --data test.npz --threat linf:8/255 --fail-under 0.4 --baseline old/result.json

  signstep audit --model nets:net --data test.npz --threat linf:8/255 --detect squeeze --reject 0.01 --clean calib.npz

  signstep audit --domain tabular --model nets:scorer --data credit.csv --schema credit.toml

  signstep audit --model nets:net --data test.npz --threat linf:8/255 --ladder standard@1 --workers 4

  signstep audit --model nets:net --data test.npz --threat linf:8/255 --ladder standard@1 --workers 4 --resume
"""


@app.command(short_help="Attack a data set, print what was found, write a report.", help=_HELP)
@spread
def audit(
    context: typer.Context,
    model: ModelOptions,
    endpoint: EndpointOptions,
    data: DataOptions,
    batch: BatchOptions,
    threat: ThreatOptions,
    search: SearchOptions,
    machine: MachineOptions,
    scale: ScaleOptions,
    detectors: DetectorOptions,
    domain: DomainName = IMAGES.name,
    schema: SchemaFile = None,
    ignore_column: o.IgnoreColumn = None,
    budget: o.Budget = "raw",
    gradient_path: o.GradientPath = "aware",
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="Recipes, such as fgsm,pgd:steps=50,restarts=10, or your own module:name; see signstep list."
        ),
    ] = None,
    ladder: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of --attack: a preset such as standard@1, or recipes, each for what the ones before have "
            "left standing; see signstep list."
        ),
    ] = None,
    curve: Annotated[str, typer.Option(help="FGSM at other sizes: auto, none, or sizes such as 0.1,0.2,0.3.")] = "auto",
    curve_attack: Annotated[
        list[str] | None,
        typer.Option(
            help="Trace these attacks over the sizes too (a run for each size); the last one if not given, or none."
        ),
    ] = None,
    transfer_to: Annotated[
        list[str] | None,
        typer.Option(help="Score every point on this model too: NAME=MODEL or NAME=MODEL@WEIGHTS; may be repeated."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="I/N: every N-th example from number I on (0 to N-1); signstep merge joins them.")
    ] = None,
    bounds: Annotated[
        str | None,
        typer.Option(
            help="Prove what can be proved, and attack the rest: interval, crown-ibp, crown, alpha, exact "
            "(exact:seconds=10) or auto-lirpa, where you have it; crown:attack_all=true attacks all, crown:curve=false "
            "leaves out other sizes."
        ),
    ] = None,
    section: Annotated[
        list[str] | None,
        typer.Option(help="A section of your own for the report, a function of the result: module:name; repeat."),
    ] = None,
    finding: Annotated[
        list[str] | None,
        typer.Option(help="A finding of your own to look for: module:name, or the code of an installed one; repeat."),
    ] = None,
    fail_under: Annotated[
        float | None, typer.Option(help="Gate: exit with status 1 if robust accuracy is below this share.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Gate: exit with status 1 if worse than this result.json by more than chance.")
    ] = None,
    diagnose: Annotated[
        bool,
        typer.Option("--diagnose", help="Then doubt the number of the last attack, or of the ladder, on at most 128."),
    ] = False,
    fail_on: o.FailOn = None,
    show: o.Show = None,
    save_points: Annotated[
        int, typer.Option(min=0, help="Megabytes of fooling inputs to keep for verification; 0 keeps none.")
    ] = 256,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("signstep-report"),
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of the table.")] = False,
) -> None:
    """Run an audit."""
    from signstep.report import check_folder  # slow to import, and other commands do without

    settings = context.obj if isinstance(context.obj, Settings) else Settings()
    _find(finding, section)
    check_ignored(settings.ignore)
    check_written("audit", context.params)
    attack, ladder = _run_by(context, attack, ladder)
    check_options(context, domain, schema)
    check_recipes(domain, [*(attack or ()), *(ladder or ())])
    Bounds.of(bounds)  # a wrong one is said before anything is loaded
    check_detectors(detectors, data.data)
    before = _baseline(fail_under, baseline)
    doubt = _doubt(context, diagnose, fail_on, show)
    rule = o.rule_of(search.goal)
    climbed, part = o.ladder_of(ladder), o.shard_of(shard)
    carried = scale.run(Run(shard=part), out)
    chosen = o.attacks_of(attack) if attack else None
    where, quiet = machine.ready(), aside()
    request = replace(
        request_of(model, endpoint, data, batch, threat, schema=schema), ignore=tuple(ignore_column or ())
    )
    traced = _traced(curve, curve_attack)
    look_first(
        request,
        domain=domain,
        attacks=(*(chosen or ()), *traced),
        ladder=climbed,
        search=search,
        out=(out, MARKS),
    )
    asked = search_of(search, rule=rule, reading=model, budget=budget, path=gradient_path)
    case = find_domain(domain).case(replace(request, search=asked))
    if chosen is None and climbed is None and case.domain == IMAGES.name and case.attacks != WITH_GRADIENTS:
        context.params["attack"] = list(case.attacks)  # those that the model can be attacked with
    if isinstance(case.threat, ThreatModel) and context.params.get("grid") is None:
        context.params["grid"] = case.threat.grid  # which an endpoint may have decided
    if endpoint.dry_run:
        shown_once([case.model], case.batches)
        raise typer.Exit
    if doubt is not None:
        case = kept(case)
    # Batches are planned on the model where it will be.
    case.model.to(where)
    others = {name: other.to(where) for name, other in others_of(transfer_to, model).items()}
    evidence = Evidence(limit=save_points * 2**20)
    with output_folder(out, marks=MARKS) as folder:
        check_folder(folder)
        say(quiet, *case.said)
        policy = policy_of(detectors, request, case.model)
        with progress(quiet, _count(case.total, part), "auditing") as advance, interruptible():
            result = audit_case(
                case,
                attacks=chosen,
                ladder=climbed,
                curve=_curve(curve, curve_attack, case, chosen, climbed),
                run=replace(
                    carried,
                    device=where,
                    transfer_to=others,
                    bounds=bounds,
                    policy=policy,
                    evidence=evidence,
                    progress=advance,
                ),
            )
            if doubt is not None:
                result = diagnosed(case, result, doubted(case, chosen, climbed), doubt, Run(device=where))
        gates = _gates(result, fail_under, before, fail_on or ())
        result = replace(with_sections(result, section or ()), gates=gates)
        with _told(result, json=json):
            _written(context, result, evidence, folder, settings)
    _said(context, quiet, result, folder, settings)
    _gate(result, fail_under, before, fail_on or ())


def _traced(curve: str, curve_attack: list[str] | None) -> tuple[str, ...]:
    """The attacks to trace by name, once the sizes are seen to be numbers."""
    if curve not in ("auto", "none"):
        o.numbers(curve, "curve")
    return tuple(named_attacks(None if curve_attack == ["none"] else curve_attack))


def _find(findings: Sequence[str] | None, sections: Sequence[str] | None) -> None:
    """See that what is named is there, before anything is loaded.

    Raises:
        InputError: it is not.
    """
    for name in findings or ():
        FINDINGS.find(name)
    for name in sections or ():
        SECTIONS.find(name)


def _doubt(
    context: typer.Context,
    diagnose: bool,
    fail_on: Sequence[str] | None,
    show: Sequence[str] | None,
) -> Doubt | None:
    """What is to be diagnosed after the audit; None for nothing.

    Raises:
        InputError: options ask for what only a diagnosis has, or for an audit that none can follow.
    """
    check_words(fail_on)
    views = shown_views(show)
    if not diagnose:
        for name, value in (("fail_on", fail_on), ("show", show)):
            if value:
                raise InputError(Arg(name, value[0]), "asks about a diagnosis", remedy=("pass", Arg("diagnose"), "too"))
        return None
    for name, (plain, why) in _NOT_DIAGNOSED.items():
        given = context.params.get(name) or plain
        if given != plain:
            seen = given[0] if isinstance(given, (list, tuple)) else given
            raise InputError(Arg(name, seen), why, remedy=("drop", Arg("diagnose"), "and call signstep diagnose"))
    return Doubt(show=views, limit=context.params.get("limit"), stated=stated(context))


# Options of an audit that no diagnosis can follow: what they are where nobody says anything, and why.
_NOT_DIAGNOSED: dict[str, tuple[object, str]] = {
    "goal": ("untargeted", "has no meaning for a diagnosis"),
    "shard": (None, "has too few examples to choose among: a diagnosis is of all of the data"),
    "budget": ("raw", "has no meaning for a diagnosis"),
    "detect": (None, "is a policy, and a diagnosis is of the model alone"),
    "gradient_path": ("aware", "has no meaning for a diagnosis, which doubts an attacker who knows all"),
}


def _count(total: int | None, shard: tuple[int, int] | None) -> int | None:
    """Examples to come, for the progress."""
    return total if total is None or shard is None else len(range(shard[0], total, shard[1]))


def _written(context: typer.Context, result: Result, evidence: Evidence, folder: Path, settings: Settings) -> None:
    given = {name: value for name, value in context.params.items() if name not in _NOT_OF_THE_RUN}
    write_folder(result, evidence.tensors(), folder, dump_config("audit", given, settings.ignore), settings)


@contextmanager
def _told(result: Result, *, json: bool) -> Iterator[None]:
    """Print the result at the end of the ``with`` block, also where its report could not be written."""
    try:
        yield
    except LoadError:
        told(result.to_json() if json else table(result))
        raise
    told(result.to_json() if json else table(result))


def _said(context: typer.Context, quiet: Console, result: Result, folder: Path, settings: Settings) -> None:
    words = words_of(context.command)
    for finding in examine(result, settings.ignore):
        noted(finding.said(words))
    say(quiet, f"report: {folder / 'index.html'}")
    if result.contradictions:
        noted(
            f"examples {list(result.contradictions[:5])} are proved robust and fooled all the same: the bounds or the "
            "model are not what they say; both are in the report"
        )
        raise typer.Exit(3)
    if result.partial:
        raise typer.Exit(130)


MARKS = ("SHA256SUMS", "result.json", LEDGER)
_NOT_OF_THE_RUN = (
    *("out", "json", "baseline", "fail_under", "fail_on", "dry_run"),
    *("workers", "on", "partition", "resume"),  # another number of workers gives the same record
)
_FILES = ("result.json", "adversarial.safetensors", "signstep.toml", "SHA256SUMS")


def write_folder(
    result: Result, points: Mapping[str, Tensor], folder: Path, config: str | None, settings: Settings
) -> None:
    """Put the report in the place of an earlier one, whole."""
    from signstep.report import owned, write_report  # slow to import, and other commands do without

    def of_a_report(where: Path) -> Iterator[Path]:
        yield from owned(where)
        yield from (where / name for name in _FILES if (where / name).is_file())

    with replaced(folder, of_a_report) as new:
        result.save(new / "result.json")
        if points:
            write_points(points, new / "adversarial.safetensors")
        if config is not None:
            write_whole(new / "signstep.toml", config)
        write_report(result, new, points=points, ignore=settings.ignore)
        write_sums(new)


def _baseline(fail_under: float | None, baseline: Path | None) -> Result | None:
    if fail_under is not None and not 0 <= fail_under <= 1:
        raise InputError(Arg("fail_under", fail_under), remedy="pass a share between 0 and 1, such as 0.4 for 40 %")
    if baseline is None:
        return None
    refuse_missing("baseline", baseline)
    return Result.load(baseline)


def _gates(result: Result, fail_under: float | None, before: Result | None, fail_on: Sequence[str]) -> tuple[Gate, ...]:
    """What was asked of the result, for its record."""
    found = []
    if fail_under is not None:
        passed = reaches(result.robust_accuracy, fail_under, partial=result.partial)
        found.append(Gate("fail-under", fail_under, passed))
    if before is not None:
        found.append(Gate("baseline", None, not result.partial and not compare(before, result).worse()))
    found += [Gate(_WORDS[word], None, free_of(result.diagnosis, word)) for word in dict.fromkeys(fail_on)]
    return tuple(found)


_WORDS: dict[str, Literal["inflated", "undetermined"]] = {"inflated": "inflated", "undetermined": "undetermined"}


def _gate(result: Result, fail_under: float | None, before: Result | None, fail_on: Sequence[str]) -> None:
    failed = False
    for word in dict.fromkeys(fail_on):
        if not free_of(result.diagnosis, word):
            found = result.diagnosis
            said = "there is no diagnosis" if found is None else f"partial: {found.verdict}"
            noted(f"gate failed: {said if found is None or found.partial else found.verdict}")
            failed = True
    if fail_under is not None and not reaches(result.robust_accuracy, fail_under, partial=result.partial):
        noted(f"gate failed: robust accuracy {result.robust_accuracy:.4f} is under {fail_under}")
        failed = True
    if before is not None:
        comparison = compare(before, result)
        told(str(comparison), err=True)
        if comparison.worse():
            noted("gate failed: worse than the baseline by more than chance")
            failed = True
    if failed:
        raise typer.Exit(1)


def _run_by(
    context: typer.Context, attack: list[str] | None, ladder: list[str] | None
) -> tuple[list[str] | None, list[str] | None]:
    """Attacks and ladder; one of them on the command line puts the other one of the configuration out of use.

    A preset is named with its version in what is written for another run.
    """
    typed = [
        name
        for name in ("attack", "ladder")
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    ]
    if typed == ["attack"]:
        ladder = []
    elif typed == ["ladder"]:
        attack = []
    climbed = o.ladder_of(ladder)
    if isinstance(climbed, str):
        ladder = [find_ladder(climbed).name]
    context.params.update(attack=attack, ladder=ladder)
    return attack, ladder


def _curve(
    text: str,
    traced: Sequence[str] | None,
    case: Case,
    chosen: Sequence[str] | None,
    ladder: str | Sequence[str] | None,
) -> Curve | bool | list[float] | None:
    """The curve that was asked for; None for the case's own sizes, with the attacks that are traced by default."""
    levels: bool | list[float] | None = None
    if text == "none":
        levels = False
    elif text != "auto":
        levels = o.numbers(text, "curve") or False
    if not traced:
        return levels
    sizes = (case.curve or True) if levels is None else levels  # of an endpoint none are traced unasked
    if traced == ["none"]:
        return Curve(sizes, ())
    names = [canonical(name) for name in o.attacks_of(traced)]
    given = () if ladder is not None else (chosen or case.attacks)
    noise = [name for name in given if name == "random-sign" and name not in names]
    return Curve(sizes, [*noise, *names])
