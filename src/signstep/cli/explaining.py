"""``signstep list`` and ``signstep explain``."""

import json as jsonlib
from typing import Annotated, Any

import typer

from signstep.attacks.recipe import Recipe, defaults_of
from signstep.attacks.recipes import RECIPES, options_of
from signstep.auditing.findings import FINDINGS
from signstep.auditing.ladder import LADDERS
from signstep.auditing.run import rung_names
from signstep.cli.app import app
from signstep.cli.terminal import told
from signstep.detectors import DETECTORS
from signstep.diagnosing.battery import TESTS
from signstep.domains import DOMAINS, IMAGES
from signstep.engine.norms import NORMS
from signstep.engine.tasks import TASKS
from signstep.errors import InputError
from signstep.explain import explain as explanation
from signstep.registry import nearest
from signstep.train.descriptions import explained
from signstep.train.recipes import TRAINING_RECIPES

_WIDTH = max(12, *map(len, RECIPES.own))
_GROUPED = ("pixel", "token", "atom", "l0-pixel", "l0-token", "l0-atom")
_KNOWN = (*RECIPES.own, *(name for name in TRAINING_RECIPES.own if name not in RECIPES.own))


@app.command("list", short_help="Attacks, ladders, norms, tasks, losses, findings.")
def list_(json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False) -> None:
    """Print the recipes, ladders, norms, tasks and findings that an audit knows, and the recipes of training."""
    if json:
        told(jsonlib.dumps(tables(), indent=2))
        return
    told("Recipes (--attack, --ladder)")
    for row in RECIPES.values():
        options = ", ".join(options_of(row))
        told(f"  {row.name:<{_WIDTH}} {row.title}")
        lines = [row.source, f"needs {row.needs}: {row.knowledge}" if row.needs != "nothing" else "needs nothing"]
        lines += [f"norms: {', '.join(row.norms)}"] if row.norms else []
        lines += ["looks for the smallest change: one run gives every size"] if row.smallest else []
        lines += ["for images"] if row.images else []
        lines.append(f"options: {options or 'none'}; {row.cost}")
        for line in lines:
            told(f"{'':<{_WIDTH + 3}}{line}")
    told("\nRecipes of domains (--domain NAME --attack)")
    for domain in DOMAINS.values():
        for row in domain.rows.values():
            told(f"  {row.name:<{_WIDTH}} {row.title}")
            for line in (
                f"--domain {domain.name} alone; needs {row.needs}: {row.knowledge}",
                f"options: {', '.join(options_of(row))}; {row.cost}",
            ):
                told(f"{'':<{_WIDTH + 3}}{line}")
    told("\nLadders (--ladder), each rung for what the ones before have left standing")
    for ladder in LADDERS.values():
        told(f"  {ladder.name:<{_WIDTH}} {ladder.about}")
        for name in rung_names(ladder.rungs):
            told(f"{'':<{_WIDTH + 3}}{name}")
    told(
        f"\nNorms (--threat NORM:EPS)\n  {', '.join(NORMS)}, pixel (L2 over channels), "
        "token and atom (L2 over the last axis)\n"
        "  l0 counts changed coordinates, l0-pixel changed pixels, l0-token and l0-atom groups over the last axis"
    )
    told(f"\nTasks (--task)\n  auto, {', '.join(TASKS)}, regression")
    told("\nLosses (--loss), the first of each task is its default")
    for name, task in TASKS.items():
        told(f"  {name:<13} {', '.join(task.losses)}")
    told(f"  {'regression':<13} mse")
    told("\nTraining recipes (signstep train --recipe)")
    for made in TRAINING_RECIPES.values():
        told(f"  {made.name:<{_WIDTH}} {made.title}")
        passes = f"{made.passes[0]} forward and {made.passes[1]} backward passes a step"
        for line in (made.source, f"start: {made.placed}; projection: {made.projected}; {passes}"):
            told(f"{'':<{_WIDTH + 3}}{line}")
    told(
        "\n".join(["\nTests (signstep diagnose)", *(f"  {row.id:<{_WIDTH}} {row.question}" for row in TESTS.values())])
    )
    _told_detectors()
    told("\nFindings (signstep explain CODE)")
    for found in FINDINGS.values():
        told(f"  {found.code}  {found.rule.title}")


def _told_detectors() -> None:
    told("\nDetectors (--detect)")
    for row in DETECTORS.values():
        told(f"  {row.name:<{_WIDTH}} {row.title}")
        options = ", ".join(row.defaults) or "none"
        passes = f"further passes: {row.passes}; gradient: {row.gradient}"
        for line in (row.source, f"known break: {row.broken}", f"options: {options}; {passes}"):
            told(f"{'':<{_WIDTH + 3}}{line}")


def tables() -> dict[str, Any]:
    """The same as plain values: what `signstep list --json` prints."""
    return {
        "recipes": [_recipe(row) for row in RECIPES.values()],
        "domains": [
            {"name": row.name, "title": row.title, "recipes": [_recipe(own) for own in row.rows.values()]}
            for row in (IMAGES, *DOMAINS.values())
        ],
        "ladders": [{"name": row.name, "about": row.about, "rungs": rung_names(row.rungs)} for row in LADDERS.values()],
        "norms": [*NORMS, *_GROUPED],
        "tasks": [*TASKS, "regression"],
        "losses": {**{name: list(task.losses) for name, task in TASKS.items()}, "regression": ["mse"]},
        "training_recipes": [
            {"name": row.name, "title": row.title, "source": row.source, "passes": list(row.passes)}
            for row in TRAINING_RECIPES.values()
        ],
        "detectors": [
            {
                "name": row.name,
                "title": row.title,
                "source": row.source,
                "broken": row.broken,
                "reads": row.reads,
                "gradient": row.gradient,
                "passes": row.passes,
                "options": dict(row.defaults),
            }
            for row in DETECTORS.values()
        ],
        "tests": [{"id": row.id, "question": row.question, "causes": list(row.causes)} for row in TESTS.values()],
        "findings": [{"code": row.code, "title": row.rule.title} for row in FINDINGS.values()],
    }


def _recipe(row: Recipe) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "source": row.source,
        "needs": row.needs,
        "norms": list(row.norms),
        "smallest": row.smallest,
        "options": dict(defaults_of(row)),
        "cost": row.cost,
    }


@app.command(short_help="The formula, pitfalls and sources of one attack or finding.")
def explain(
    name: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(_KNOWN)}, a test of diagnose such as graph, or a finding such as SS101."
        ),
    ],
) -> None:
    """Explain a recipe of attack or training (formula, pitfalls, sources), a test of diagnose or a finding."""
    training = TRAINING_RECIPES.spelled(name.strip())
    parts = []
    try:
        parts.append(explanation(name))
    except InputError as error:
        if training not in TRAINING_RECIPES:
            near = nearest(name.strip(), (*_KNOWN, *LADDERS, *TESTS, *FINDINGS))
            if near is not None:
                raise InputError(f"nothing is known about {name!r}", remedy=f"did you mean {near!r}?") from error
            more = f"; training recipes are {', '.join(TRAINING_RECIPES)}"
            raise InputError(*error.parts, remedy=(*error.cure, more)) from error
    if training in TRAINING_RECIPES:
        parts.append(explained(training))
    told("\n\n".join(parts))
