"""``signstep list`` and ``signstep explain``."""

from typing import Annotated

import typer

from signstep.auditing.findings import CATALOGUE
from signstep.cli.app import app
from signstep.core.norms import NORMS
from signstep.core.recipes import RECIPES, options_of
from signstep.core.tasks import TASKS
from signstep.explain import TOPICS
from signstep.explain import explain as explanation


@app.command("list")
def list_() -> None:
    """Print the recipes, norms, tasks and findings that an audit knows."""
    typer.echo("Recipes (--attack)")
    for row in RECIPES.values():
        options = ", ".join(options_of(row))
        typer.echo(
            f"  {row.name:<12} {row.title}\n{'':<15}{row.source}\n{'':<15}options: {options or 'none'}; {row.cost}"
        )
    typer.echo(
        f"\nNorms (--threat NORM:EPS)\n  {', '.join(NORMS)}, pixel (L2 over channels), "
        "token and atom (L2 over the last axis)"
    )
    typer.echo(f"\nTasks (--task)\n  auto, {', '.join(TASKS)}, regression")
    typer.echo("\nLosses (--loss), the first of each task is its default")
    for name, task in TASKS.items():
        typer.echo(f"  {name:<13} {', '.join(task.losses)}")
    typer.echo(f"  {'regression':<13} mse")
    typer.echo("\nFindings (signstep explain CODE)")
    for rule in CATALOGUE.values():
        typer.echo(f"  {rule.code}  {rule.title}")


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(TOPICS)}, or the code of a finding such as SS101.")],
) -> None:
    """Explain a recipe (formula, worked example, pitfalls, sources) or a finding."""
    typer.echo(explanation(name))
