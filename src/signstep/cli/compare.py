"""``signstep compare``: several audits of the same examples, side by side."""

import json as jsonlib
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer

from signstep.auditing.compare import Comparison
from signstep.auditing.compare import compare as compare_two
from signstep.auditing.result import Result
from signstep.cli.app import app
from signstep.errors import InputError

_HELP = """Compare models, recipes or defences by audits of the same examples: who holds, and is the difference chance?

Takes folders that signstep audit or signstep train wrote, or their result.json. Every pair is compared example by
example (exact McNemar), and terms that differ are named: give all of them the same threat, ladder and seed.

Example:

  signstep compare natural=one/report pgd=two/report n-fgsm=three/report
"""


@app.command(help=_HELP)
def compare(
    results: Annotated[
        list[str], typer.Argument(help="Folders or result.json, two or more; NAME=PATH gives one a name.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print numbers as JSON instead of the table.")] = False,
) -> None:
    """Compare."""
    found = _named(results)
    pairs = {pair: compare_two(found[pair[0]], found[pair[1]]) for pair in combinations(found, 2)}
    if json:
        record = {
            "results": {name: _numbers(result) for name, result in found.items()},
            "pairs": [{"before": one, "after": two, **_of_pair(pair)} for (one, two), pair in pairs.items()],
        }
        typer.echo(jsonlib.dumps(record, indent=2))
        return
    typer.echo(_table(found))
    typer.echo("")
    for (one, two), pair in pairs.items():
        typer.echo(_sentence(one, two, pair))
        for note in pair.notes:
            typer.echo(f"  note: {note}")


def _named(given: list[str]) -> dict[str, Result]:
    if len(given) < 2:
        raise InputError(f"compare got {len(given)} result; pass two or more")
    found: dict[str, Result] = {}
    for text in given:
        name, equals, path = text.partition("=")
        where = Path(path if equals else text)
        name = name if equals else text.rstrip("/")
        if name in found:
            raise InputError(f"the name {name!r} comes twice; write NAME=PATH with a name of its own for each")
        inner = [where / "result.json", where / "report" / "result.json"]
        found[name] = Result.load(next((path for path in inner if path.is_file()), where))
    return found


def _numbers(result: Result) -> dict[str, Any]:
    passes = sum(attack.entered * (attack.forwards + attack.backwards) for attack in result.attacks)
    return {
        "examples": result.examples,
        "clean_accuracy": result.clean_accuracy,
        "robust_accuracy": result.robust_accuracy,
        "clean_interval": result.interval(result.clean_right),
        "robust_interval": result.interval(result.held),
        "passes_per_example": passes / result.examples,
        "seconds": result.seconds,
    }


def _of_pair(pair: Comparison) -> dict[str, Any]:
    return {
        "examples": pair.examples,
        "lost": len(pair.lost),
        "won": len(pair.won),
        "p_value": pair.p_value,
        "notes": list(pair.notes),
    }


def _table(found: dict[str, Result]) -> str:
    rows = [("", "clean acc.", "95 % interval", "robust acc.", "95 % interval", "passes each", "seconds")]
    for name, result in found.items():
        n = _numbers(result)
        clean, robust = (f"{100 * n[key]:.2f} %" for key in ("clean_accuracy", "robust_accuracy"))
        spans = [f"{100 * low:.1f} %..{100 * high:.1f} %" for low, high in (n["clean_interval"], n["robust_interval"])]
        rows.append((name, clean, spans[0], robust, spans[1], f"{n['passes_per_example']:.0f}", f"{n['seconds']:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _sentence(one: str, two: str, pair: Comparison) -> str:
    word = "more than chance" if pair.p_value < 0.05 else "not more than chance"
    return (
        f"{one} -> {two}: robust {pair.held_before} -> {pair.held_after} of {pair.examples}; {len(pair.lost)} lost, "
        f"{len(pair.won)} won: {word} (exact McNemar, p = {pair.p_value:.3g})"
    )
