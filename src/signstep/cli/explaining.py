"""``signstep list`` and ``signstep explain``."""

from typing import Annotated

import typer

from signstep.attacks.recipes import RECIPES, options_of
from signstep.auditing.findings import FINDINGS
from signstep.auditing.ladder import LADDERS
from signstep.auditing.run import rung_names
from signstep.cli.app import app
from signstep.cli.terminal import told
from signstep.diagnosing.battery import TESTS
from signstep.domains import DOMAINS
from signstep.engine.norms import NORMS
from signstep.engine.tasks import TASKS
from signstep.errors import InputError
from signstep.explain import explain as explanation
from signstep.train.descriptions import explained
from signstep.train.recipes import TRAINING_RECIPES

_WIDTH = max(12, *map(len, RECIPES.own))
_KNOWN = (*RECIPES.own, *(name for name in TRAINING_RECIPES.own if name not in RECIPES.own))


@app.command("list")
def list_() -> None:
    """Print the recipes, ladders, norms, tasks and findings that an audit knows, and the recipes of training."""
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
        "token and atom (L2 over the last axis)"
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
    told("\nTests (signstep diagnose)")
    for test in TESTS.values():
        told(f"  {test.id:<{_WIDTH}} {test.question}")
    told("\nFindings (signstep explain CODE)")
    for found in FINDINGS.values():
        told(f"  {found.code}  {found.rule.title}")


@app.command()
def explain(
    name: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(_KNOWN)}, a test of diagnose such as graph, or a finding such as SS101."
        ),
    ],
) -> None:
    """Explain a recipe of attack or training (formula, pitfalls, sources), a test of diagnose or a finding."""
    training = name.strip() in TRAINING_RECIPES
    try:
        parts = [explanation(name)]
    except InputError as error:
        if not training:
            more = f"; training recipes are {', '.join(TRAINING_RECIPES)}"
            raise InputError(*error.parts, remedy=(*error.cure, more)) from error
        parts = []
    told("\n\n".join([*parts, *([explained(name.strip())] if training else [])]))
