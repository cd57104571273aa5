"""Rewrite the generated parts of the documentation: the command line and its help, the findings, the table of recipes.

Run ``python scripts/generate_docs.py`` after a change of the command line, the findings or the recipes; a test compares
the pages with what this script would write. With ``--runs`` it also repeats the runs that README.md and the tutorial
show: the demonstration, and those on MNIST where the folder ``../shared`` lies beside the checkout. Each part stands
between two comments, ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from signstep.attacks.recipe import defaults_of
from signstep.attacks.recipes import RECIPES
from signstep.auditing.findings import CATALOGUE
from signstep.auditing.provable import FIELDS
from signstep.cli import app
from signstep.defences import DEFENCES
from signstep.model.opening import OPENERS
from signstep.registry import typed_only
from signstep.train import TRAINING_RECIPES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = ROOT / "src" / "signstep_entry" / "pages"
_WIDTH = 80
GUARD = ("guard", *(f"guard {name}" for name in ("calibrate", "serve", "log", "review", "challenge", "report", "key")))


def help_text(*command: str) -> str:
    """The help of a command, at a fixed width, as a block of Markdown."""
    shown = " ".join(("signstep", *command))
    return f"```text\n$ {shown} --help\n{_run(*command, '--help')}\n```"


def list_text() -> str:
    """What ``signstep list`` prints, as a block of Markdown."""
    return f"```text\n$ signstep list\n{_run('list')}\n```"


def explain_text(name: str) -> str:
    """What ``signstep explain NAME`` prints, as a block of Markdown."""
    return f"```text\n$ signstep explain {name}\n{_run('explain', name)}\n```"


def recipes_table() -> str:
    """One line for each recipe, from the table that the attacks themselves come from."""
    lines = [
        "| recipe | what it is | options | passes for each example and restart | source |",
        "|---|---|---|---|---|",
    ]
    for row in RECIPES.own.values():
        options = ", ".join(f"`{name}={_shown(default)}`" for name, default in defaults_of(row).items()) or "none"
        lines.append(f"| `{row.name}` | {row.title} | {options} | {row.cost} | {row.source} |")
    return "\n".join(lines)


def defences_table() -> str:
    """One line for each transformation of inputs, from the table that ``ss.defend`` reads."""
    lines = ["| spelled | what it does | past it | proposed | what became of it |", "|---|---|---|---|---|"]
    lines += [
        f"| `{row.build()}` | {row.title} | {row.gradient} | {row.source} | {row.broken} |"
        for row in DEFENCES.own.values()
    ]
    return "\n".join(lines)


def training_table() -> str:
    """One line for each training recipe, from the table that the loop itself reads."""
    lines = [
        "| recipe | what it is | start | inner step | projection | BatchNorm | passes | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in TRAINING_RECIPES.own.values():
        step = f"{row.steps} x {row.step:g} eps" if row.steps else "none"
        forwards, backwards = row.passes
        mode = row.mode if row.steps else "-"
        cells = (row.title.replace("|", "\\|"), row.placed, step, row.projected, mode, f"{forwards} + {backwards}")
        lines.append(f"| `{row.name}` | {' | '.join(cells)} | {row.source} |")
    return "\n".join(lines)


def openers_table() -> str:
    """One line for each kind of model, from the table that ``--model`` and ``ss.open`` read."""
    lines = ["| spelled | what it is | with weights | needs |", "|---|---|---|---|"]
    for row in OPENERS.own.values():
        endings = [text for text in row.suffixes if not row.example.endswith(text)]
        spelled = ", ".join(f"`{text}`" for text in (row.example, *endings))
        weights, extra = "`--weights`" if row.weights else "its own", f"`signstep[{row.extra}]`" if row.extra else ""
        lines.append(f"| {spelled} | {row.title} | {weights} | {extra} |")
    return "\n".join(lines)


def findings_text(first: str) -> str:
    """The findings whose codes begin so, from the catalogue that `signstep.auditing.findings` looks through."""
    parts = []
    for rule in CATALOGUE.values():
        if rule.code.startswith(first):
            parts.append(f"### {rule.code}: {rule.title}\n\n{rule.meaning}\n\n*Remedy.* {rule.remedy}")
    return "\n\n".join(parts)


def provable_table() -> str:
    """One line for each field of a record, from the table that `signstep verify` goes by."""
    lines = ["| field | what it rests on | line | how |", "|---|---|---|---|"]
    lines += [f"| `{path}` | {row.kind} | `{row.check}` | {row.how} |" for path, row in FIELDS.items()]
    return "\n".join(lines)


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "concepts/defences.md": {"defences": defences_table},
    "cli.md": {
        "signstep": help_text,
        "audit": lambda: help_text("audit"),
        "schema": lambda: help_text("schema"),
        "attack": lambda: help_text("attack"),
        "transfer": lambda: help_text("transfer"),
        "merge": lambda: help_text("merge"),
        "detect": lambda: help_text("detect"),
        "train": lambda: help_text("train"),
        "compare": lambda: help_text("compare"),
        "diagnose": lambda: help_text("diagnose"),
        "defences": lambda: help_text("defences"),
        "smooth": lambda: help_text("smooth"),
        "verify": lambda: help_text("verify"),
        "sign": lambda: help_text("sign"),
        **{name: partial(help_text, name) for name in GUARD},
        "list": lambda: f"{help_text('list')}\n\n{list_text()}",
        "explain": lambda: f"{help_text('explain')}\n\n{explain_text('SS101')}",
    },
    "findings.md": {
        "attack": lambda: findings_text("SS1"),
        "terms": lambda: findings_text("SS2"),
        "sample": lambda: findings_text("SS3"),
    },
    "models.md": {"openers": openers_table},
    "recipes.md": {"recipes": recipes_table},
    "training.md": {"training": training_table},
    "concepts/verdicts.md": {"provable": provable_table},
}


def help_pages() -> dict[str, str]:
    """What ``signstep COMMAND --help`` prints, by command, for those who ask without waiting for torch."""
    group: Any = typer.main.get_command(app)
    return {"signstep": _run("--help") + "\n"} | {name: _run(name, "--help") + "\n" for name in group.commands}


def demo_run() -> str:
    """The demonstration as at the first time: with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        shown, _, said = _audit([], folder)
    lines = [line.replace(folder, "~/.cache/signstep") for line in said.splitlines()]
    last = next(number for number, line in enumerate(lines) if line.startswith("report: "))
    opening, findings = "\n".join(lines[:3]), "\n".join([*lines[3:last], "report: signstep-report/index.html"])
    return f"```text\n{opening}\n{shown}\n{findings}\n```"


def demo_answer() -> str:
    """Of what the demonstration prints, the sentence and the table."""
    _, lines, _ = _audit([])
    first = next(number for number, line in enumerate(lines) if line.startswith("attack "))
    table = lines[first : lines.index("", first)]
    return "```text\n" + "\n".join([lines[0], "", *table]) + "\n```"


def mnist_run(model: str, *more: str, sentence: bool = True) -> str:
    """The table of a reference model on MNIST, without its terms and last words."""
    weights, data = f"../shared/models/{model}.safetensors", "../shared/data/mnist"
    arguments = ["--model", "signstep.networks.small:mnist_cnn", "--weights", weights, "--data", data]
    _, lines, _ = _audit([*arguments, "--threat", "linf:0.3", *more])
    first = next(number for number, line in enumerate(lines) if line.startswith("clean accuracy"))
    last = next(number for number, line in enumerate(lines) if line.startswith("Robust accuracy is"))
    kept = "\n".join([*([lines[0], ""] if sentence else []), *lines[first:last]]).strip()
    return f"```text\n{kept}\n```"


RUNS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"answer": demo_answer},
    "docs/tutorial.md": {
        "demo": demo_run,
        "mnist_standard": lambda: mnist_run("mnist_standard"),
        "mnist_fgsm_rs": lambda: mnist_run("mnist_fgsm_rs"),
        "mnist_collapsed": lambda: mnist_run(
            "mnist_collapsed", "--attack", "fgsm,pgd", "--curve", "none", sentence=False
        ),
    },
}


def rewritten(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """The page with its generated parts made anew.

    Raises:
        SystemExit: the page lacks the comments around a part.
    """
    for name, make in parts.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"no {begin} ... {end} on the page; put them where the part belongs")
        text = f"{before}{begin}\n\n{make()}\n\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Rewrite all pages and name those that changed."""
    pages = {f"docs/{name}": parts for name, parts in PARTS.items()}
    if arguments == ["--runs"]:
        here = (ROOT / "../shared").is_dir()
        for name, parts in RUNS.items():
            pages[name] = {part: make for part, make in parts.items() if here or part in ("demo", "answer")}
    elif arguments:
        raise SystemExit("usage: python scripts/generate_docs.py [--runs]")
    made = help_pages()
    for stale in sorted({path.stem for path in PAGES.glob("*.txt")} - set(made) - {"start"}):
        (PAGES / f"{stale}.txt").unlink()
        print(f"removed: {stale}.txt")
    for name, page in made.items():
        kept = PAGES / f"{name}.txt"
        if not kept.exists() or kept.read_text(encoding="utf-8") != page:
            kept.write_text(page, encoding="utf-8")
            print(f"rewritten: {kept.relative_to(ROOT)}")
    for name, parts in pages.items():
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = rewritten(old, parts)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"rewritten: {name}")
    return 0


def _audit(arguments: list[str], cache: str | None = None) -> tuple[str, list[str], str]:
    """What an audit prints: the table, its lines, and what it says beside."""
    environment = {**os.environ, **({} if cache is None else {"SIGNSTEP_CACHE": cache})}
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "signstep.cli", "audit", *arguments, "--out", out]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    shown = done.stdout.rstrip()
    return shown, shown.splitlines(), done.stderr


def _run(*arguments: str) -> str:
    environment = {"COLUMNS": str(_WIDTH), "TERM": "dumb", "NO_COLOR": "1", "FORCE_COLOR": None}
    with typed_only():  # what is installed here beside Signstep is on no page
        done = CliRunner().invoke(
            app, list(arguments), prog_name="signstep", terminal_width=_WIDTH, max_content_width=_WIDTH, env=environment
        )
    if done.exit_code != 0:
        raise SystemExit(f"signstep {' '.join(arguments)} failed: {done.output}")
    return "\n".join(line.rstrip() for line in done.output.strip().splitlines())


def _shown(value: object) -> str:
    return "auto" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
