"""``signstep diagnose``: is the number that an attack gives real?"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import save

from signstep.attacks.recipes import recipe as find_recipe
from signstep.auditing.run import Run
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.domain import DomainName, SchemaFile, check_options, check_recipes
from signstep.cli.groups import (
    BatchOptions,
    DataOptions,
    MachineOptions,
    ModelOptions,
    SearchOptions,
    ThreatOptions,
    request_of,
    search_of,
    spread,
)
from signstep.cli.stated import check_words, shown_views, stated
from signstep.cli.terminal import aside, noted, say, told
from signstep.cli.work import interruptible, output_folder, progress
from signstep.diagnosing.battery import TESTS
from signstep.diagnosing.bench import ladder_of
from signstep.diagnosing.choosing import MOST
from signstep.diagnosing.diagnosis import Diagnosis
from signstep.diagnosing.run import diagnose as find
from signstep.domains import IMAGES
from signstep.domains import domain as find_domain
from signstep.errors import InputError
from signstep.io.files import write_whole
from signstep.messages import Arg

_HELP = """Is the number real? Doubt it: name what hides the way, adapt the attack to it, measure again.

The verdict begins with real, inflated or undetermined. Inflated is a pair of model and attack: the attack leaves more
than 2 points more standing than the best attack known here, on the same examples. The ladder standard is judged beside.

Exit status: 0 done, 1 the verdict is one of --fail-on, 2 wrong use, 3 internal error, 130 interrupted.

Examples:

  signstep diagnose

  signstep diagnose --model mynet:build --weights w.safetensors --data test.npz --threat linf:8/255

  signstep diagnose --model mynet:build --weights w.safetensors --data test.npz --threat linf:8/255 --attack fgsm
  --fail-on inflated --out diagnosed
"""


@app.command(short_help="Is the number real? Name what hides, adapt, measure again.", help=_HELP)
@spread
def diagnose(
    context: typer.Context,
    model: ModelOptions,
    data: DataOptions,
    batch: BatchOptions,
    threat: ThreatOptions,
    search: SearchOptions,
    machine: MachineOptions,
    domain: DomainName = IMAGES.name,
    schema: SchemaFile = None,
    attack: Annotated[
        str, typer.Option(help="What is diagnosed: a recipe such as pgd:steps=50, or a ladder such as standard.")
    ] = "pgd",
    examples: Annotated[int, typer.Option(help=f"Examples to look at, at most {MOST}.")] = MOST,
    fail_on: o.FailOn = None,
    show: o.Show = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for diagnosis.json, and for a student's weights where one was of use.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead of the text.")] = False,
) -> None:
    """Diagnose."""
    check_words(fail_on)
    views = shown_views(show)
    if search.goal != "untargeted":
        raise InputError(
            Arg("goal", search.goal), "has no meaning here: what is asked is whether any wrong answer is in reach",
            remedy="leave it out",
        )  # fmt: skip
    check_options(context, domain, schema)
    check_recipes(domain, [attack])
    if domain == IMAGES.name and ladder_of(attack) is None:
        find_recipe(attack)  # one that does not exist is said before anything is loaded
    where, quiet = machine.ready(), aside()
    asked = search_of(search, rule=None, reading=model)
    case = find_domain(domain).case(request_of(model, data, batch, threat, search=asked, schema=schema))
    say(quiet, *case.said)
    with progress(quiet, len(TESTS.asked_for) + 2, "diagnosing") as advance, interruptible():
        found = find(
            case.model.to(where),
            case.batches,
            threat=case.threat,
            attack=case.named(attack) or attack,
            examples=examples,
            search=case.search,
            show=views,
            run=Run(device=where, data=case.data, progress=advance),
        )
    found = replace(found, stated=stated(context) or found.stated, notes=(*found.notes, *case.notes))
    if out is not None:
        found = _written(found, out)
    told(found.to_json() if json else str(found))
    if found.partial:
        raise typer.Exit(130)
    if found.verdict.word in (fail_on or ()):
        noted(f"gate failed: {found.verdict}")
        raise typer.Exit(1)


def _written(found: Diagnosis, out: Path) -> Diagnosis:
    """Put the record into the folder, and the student's weights where a command names them."""
    with output_folder(out, marks=("diagnosis.json",)) as folder:
        used = any("student.safetensors" in word for words in found.commands for word in words)
        if used and found.student is not None:
            weights = {name: part.contiguous() for name, part in found.student.module.state_dict().items()}
            write_whole(folder / "student.safetensors", save(weights))
            named = [
                tuple(word.replace("@student.safetensors", f"@{folder / 'student.safetensors'}") for word in words)
                for words in found.commands
            ]
            found = replace(found, commands=tuple(named))
        found.save(folder / "diagnosis.json")
    return found
