"""The model card: what was trained, how, what happened on the way, and what an audit found at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

from signstep.auditing.result import Result
from signstep.plain import isolated, markdown
from signstep.report.charts import Point, line_chart
from signstep.train.alarm import Reading
from signstep.train.loop import Trained

# Legible alone, on white and on dark pages: the page's own style sheet is not there.
_STYLE = (
    "<style>svg{background:#fff;font:12px sans-serif}.grid,.axis{stroke:#bbb;fill:none}.mark{stroke:#b00020;fill:none;"
    "stroke-dasharray:4 3}polyline{fill:none;stroke:currentColor;stroke-width:2}.band{display:none}"
    ".line circle,.line rect,.symbol{fill:currentColor}.strongest{color:#7b1fa2}.other{color:#1565c0}.clean{color:#555}"
    "</style>"
)


def curves(trained: Trained) -> str:
    """Clean, FGSM and PGD accuracy over the steps as an SVG file; a line marks the first collapse that was called."""

    def line(name: str) -> list[Point]:
        shares = [(reading, reading.share(getattr(reading, name))) for reading in _kept(trained)]
        return [(float(reading.step), share, share, share) for reading, share in shares]

    chart = str(
        line_chart(
            "training",
            "Accuracy on held-out rows during training",
            "Clean (diamonds), FGSM (squares) and PGD (circles) accuracy over optimiser steps.",
            [("strongest", line("pgd")), ("other", line("fgsm")), ("clean", line("clean"))],
            mark=float(trained.events[0].step) if trained.events else None,
            x_label="optimiser steps",
            y_label="clean (diamonds), FGSM (squares), PGD (circles)",
            unit=1.0,
        )
    )
    opened = chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return opened.replace("</desc>", f"</desc>{_STYLE}", 1) + "\n"


def card(
    trained: Trained,
    *,
    model: str,
    data: str,
    data_hash: str,
    audited_on: str,
    audit: Result | None,
    certified: float | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The card as Markdown.

    Args:
        trained: the run.
        model: what was trained, in words.
        data: on what.
        data_hash: SHA-256 of it.
        audited_on: which rows the audit saw.
        audit: its record; None where none was made.
        certified: share of the audited rows that interval bounds hold for, where they were taken.
        notes: what else a reader must know.
    """
    recipe, finished = trained.recipe, trained.finished_with
    facts = {
        "Model": model,
        "Data": data,
        "SHA-256 of the data": data_hash,
        "Threat model trained against": str(trained.threat),
        "Recipe": f"{recipe.name}: {recipe.title}",
        "Source": recipe.source,
        "Inner attack": f"starts at {recipe.placed}; {recipe.steps} step(s) of {recipe.step:g} eps; "
        f"projection: {recipe.projected}; BatchNorm in {recipe.mode} mode",
        "Passes of a step": f"{recipe.passes[0]} forward, {recipe.passes[1]} backward",
        "Steps": f"{trained.steps} of {trained.total}",
        "Time": f"{trained.training_seconds:.0f} s of training, {trained.checking_seconds:.0f} s of looking",
    }
    if finished.name != recipe.name:
        facts["Finished with"] = f"{finished.name}: {finished.title} ({finished.source})"
    parts = [
        "# Model card",
        _table(facts),
        "## What happened",
        "\n".join(f"- {markdown(str(event))}" for event in trained.events) or "- No collapse was called.",
        f"- Weights delivered: {trained.overfitting}.",
        *(f"- {markdown(note[0].upper() + note[1:])}." for note in (*trained.notes, *notes)),
        "![Accuracy during training](curves.svg)",
        "Every look, with losses and the alignment of gradients, is in `log.csv`. The looks' own attack is short: the "
        "numbers to quote are those of the audit.",
        "## Settings",
        _table({field.name: str(getattr(trained.settings, field.name)) for field in fields(trained.settings)}),
        "## Audit",
        f"On {markdown(audited_on)}." if audit is not None else "None was made: train to the end to get one.",
    ]
    if audit is not None:
        parts.append(isolated(str(audit)))
        floors = {"interval bounds hold for": certified, "were proved": audit.certified_accuracy}
        said = (
            f", but none fewer than the {100 * share:.1f} % that {by}"
            for by, share in floors.items()
            if share is not None
        )
        below = next(said, "")
        parts.append(f"Robust accuracy is an upper bound: another attack may leave fewer rows{below}.")
    return "\n\n".join(parts).replace("\n\n- ", "\n- ").replace("happened\n- ", "happened\n\n- ") + "\n"


def _table(facts: Mapping[str, str]) -> str:
    rows = [f"| {name} | {markdown(value)} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _kept(trained: Trained) -> list[Reading]:
    """Readings of the trajectory that was kept: those that were gone back behind are left out, but not the collapse."""
    kept: list[Reading] = []
    for reading in trained.readings:
        if trained.events and reading.attempt > 0:
            kept = [past for past in kept if past.step < reading.step]
        kept.append(reading)
    return kept
