"""``signstep compare``: models, recipes or results of the same examples, side by side."""

import json as jsonlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from signstep.auditing.pairwise import Pairwise, compare_all
from signstep.auditing.result import Result
from signstep.auditing.run import Run
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.audit import LEDGER
from signstep.cli.candidates import candidates_of
from signstep.cli.compare_asked import check, check_against, refuse_all_but, refuse_useless
from signstep.cli.final_audit import Terms, opened
from signstep.cli.first import look_first, refuse_missing
from signstep.cli.groups import DataOptions, MachineOptions, ReadingOptions, ScaleOptions, request_of, spread
from signstep.cli.ring import Ring
from signstep.cli.sweep import enter_all
from signstep.cli.terminal import aside, say, told
from signstep.cli.work import output_folder
from signstep.domains.image.case import opened_data, threat_of
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.io.files import write_whole
from signstep.io.folders import replaced
from signstep.train.settings import Settings
from signstep.train.variants import with_knobs

_HELP = """Compare models, training recipes or defences on the same examples: who holds, and is the difference chance?

Takes any mixture of results (folders that signstep audit or signstep train wrote, or their result.json), of models to
audit, and of training recipes to train with first. With --recipe every model is trained with every recipe, from the
same first weights; options of recipe and loop follow its name. Every pair is compared example by example (exact
McNemar, adjusted for the number of pairs by Holm's rule), and terms that differ are named.

Models and recipes write the comparison (compare.md, compare.svg, compare.json), and a folder for each with its report,
into --out. What was trained is not trained again when the command is called again. With several workers each trains and
audits a candidate of its own.

Examples:

  signstep compare natural=one/report pgd=two/report n-fgsm=three/report

  signstep compare --model a=nets:net@a.safetensors --model b=nets:net:width=32@b.safetensors --data test.npz
  --threat linf:8/255

  signstep compare --recipe natural --recipe n-fgsm --recipe smoothed=n-fgsm:smoothing=0.2

  signstep compare --model relu=signstep.networks.vgg:vgg --model gelu=signstep.networks.vgg:vgg:activation=gelu
  --recipe n-fgsm --data digits --threat linf:0.1 --set epochs=20 --set average=0.99
"""

_MODEL, _DATA, _THREAT, _OUT = "cnn=signstep.networks.small:digits_cnn", "digits", "linf:0.1", Path("signstep-compare")
_FILES = ("compare.json", "compare.md", "compare.svg")
_MARKS = _FILES[:2]


@app.command(short_help="Models, recipes or results side by side, with tests.", help=_HELP)
@spread
def compare(
    context: typer.Context,
    reading: ReadingOptions,
    data: DataOptions,
    machine: MachineOptions,
    scale: ScaleOptions,
    results: Annotated[
        list[str] | None, typer.Argument(help="Folders or result.json; NAME=PATH gives one a name.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="NAME=MODULE:FACTORY, perhaps with :OPTION=VALUE,... and @WEIGHTS; may be repeated."),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Train first: NAME=RECIPE:OPTION=VALUE,...; every model with every recipe; may be repeated."),
    ] = None,
    set: Annotated[  # noqa: A002 - the name that it has in signstep.toml
        list[str] | None,
        typer.Option("--set", help="Training: NAME=VALUE for all recipes, such as epochs=20; may be repeated."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Compare all with this one, instead of every pair: fewer tests.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="With --recipe: data to audit on, else the data's test split.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="With --recipe: train on the first so many examples.")] = None,
    threat: o.ThreatText = None,
    box: o.BoxText = None,
    ladder: Annotated[str, typer.Option(help="Ladder of the audits.")] = "standard@1",
    audit_limit: Annotated[int, typer.Option(min=1, help="Examples of each audit, at most.")] = 1000,
    seed: o.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the comparison; with models signstep-compare.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print numbers as JSON instead of the table.")] = False,
) -> None:
    """Compare."""
    if not model and not recipe:
        refuse_all_but(context, ("results", "against", "out", "json"))
    found = _read(results or [])
    settings = with_knobs(Settings(epochs=30, seed=seed), set or [])
    candidates = candidates_of(model or [], recipe or [], settings, _MODEL if recipe and data.data is None else None)
    check(candidates, found, recipe, {"data": data.data, "test": test, "set": set, "threat": threat, "limit": limit})
    quiet = aside()
    if not candidates:
        compared = compare_all(found, against=against)
        if out is not None:
            with output_folder(out, marks=_MARKS) as folder:
                _write(compared, folder)
        told(_text(compared, as_json=json))
        return
    check_against(against, (*found, *(candidate.name for candidate in candidates)))
    request = replace(request_of(reading, data), limit=limit, threat=threat, box=o.box_of(box, "of the data"))
    climbed = o.ladder_of([ladder])
    begun = [
        f"{candidate.folder}/{name}"
        for candidate in candidates
        for name in ("log.csv", "report/result.json", f"report/{LEDGER}")
    ]
    marks = (*_MARKS, *begun)
    look_first(request, ladder=climbed, out=(out or _OUT, marks))
    where, carried = machine.ready(), scale.run(Run(), out or _OUT)
    refuse_useless(request, candidates)
    if recipe:
        asked = replace(request, data=request.data or _DATA, split=request.split or "train")
    else:
        asked = replace(request, limit=audit_limit, batch_size=256)
    source = opened(asked, asked=request.split is not None) if recipe else opened_data(asked)
    request = replace(request, threat=threat or (_THREAT if request.data is None else None), data=request.data or _DATA)
    attacked = threat_of(request, source.bounds)
    assert isinstance(attacked, ThreatModel)
    terms = Terms(attacked, climbed, seed, where, carried)
    with output_folder(out or _OUT, marks=marks) as folder:
        say(quiet, f"data: {source.description}", *source.notes, f"threat: {terms.threat}")
        ring = Ring(source, request, terms, folder, quiet, audit_limit)
        through = enter_all(ring, asked, candidates, test, split=request.split is not None)
        if not through:
            # Whoever is through is compared; a comparison that was whole before is not given for it.
            done = {**found, **ring.results}
            say(quiet, f"interrupted after {len(done)} of {len(found) + len(candidates)}: call again to go on")
            if len(done) < 2 or (against is not None and against not in done) or (folder / _MARKS[0]).exists():
                raise typer.Exit(130)
            ring.notes = (*ring.notes, f"partial: interrupted after {', '.join(done)}")
        compared = compare_all({**found, **ring.results}, against=against, trainings=ring.trainings, notes=ring.notes)
        _write(compared, folder)
    told(_text(compared, as_json=json))
    say(quiet, f"written: {folder / 'compare.md'}")
    if not through:
        raise typer.Exit(130)


def _read(given: list[str]) -> dict[str, Result]:
    found: dict[str, Result] = {}
    for text in given:
        name, equals, path = text.partition("=")
        where = Path(path if equals else text)
        name = name if equals else text.rstrip("/")
        if name in found:
            raise InputError(f"the name {name!r} comes twice", remedy="write NAME=PATH with a name of its own for each")
        refuse_missing("", where)
        inner = [where / "result.json", where / "report" / "result.json"]
        found[name] = Result.load(next((path for path in inner if path.is_file()), where))
    return found


def _write(compared: Pairwise, folder: Path) -> None:
    from signstep.report.scatter import scatter  # slow to import, and other commands do without

    with replaced(folder, lambda where: (where / name for name in _FILES if (where / name).is_file())) as new:
        write_whole(new / "compare.json", _text(compared, as_json=True) + "\n")
        write_whole(new / "compare.svg", scatter(compared.results))
        write_whole(new / "compare.md", compared.markdown("compare.svg"))


def _text(compared: Pairwise, *, as_json: bool) -> str:
    return jsonlib.dumps(compared.plain(), indent=2) if as_json else str(compared)
