"""The page of a ladder: its rungs, the curve against time, queries, smallest changes and transfers, as recorded."""

import re
from dataclasses import replace
from pathlib import Path

import report_samples as samples

from signstep.auditing.figures import steps
from signstep.report.checklist import checklist
from signstep.report.rungs import settled

RESULT, POINTS = samples.ladder()


def page(folder: Path) -> tuple[str, samples.Page]:
    html = samples.written(folder, RESULT, POINTS)
    return html, samples.read(html)


def test_one_row_for_each_rung(tmp_path: Path) -> None:
    rows = page(tmp_path)[1].rows("table-attacks")
    assert list(rows) == [*(entry.name for entry in RESULT.attacks), "whole ladder"]
    for step in steps(RESULT):
        entered, fallen, robust, interval, passes, seconds = rows[step.name]
        assert (int(entered), int(fallen)) == (step.entered, step.fallen)
        assert robust.endswith(f"({step.held} of {RESULT.examples})")
        assert re.fullmatch(r"[\d.]+ % to [\d.]+ %", interval)
        assert passes == (f"{step.forwards:.1f} + {step.backwards:.1f}" if step.entered else "–")
        assert float(seconds) == step.seconds
    assert rows["whole ladder"][1:3] == [
        str(RESULT.fooled),
        f"{100 * RESULT.robust_accuracy:.1f} % ({RESULT.held} of {RESULT.examples})",
    ]


def test_the_curve_falls_at_the_end_of_each_rung(tmp_path: Path) -> None:
    html, read = page(tmp_path)
    chart = html[html.index('aria-labelledby="time-title') :]
    chart = chart[: chart.index("</svg>")]
    points = [
        tuple(map(float, pair.split(","))) for pair in re.findall(r'<polyline points="([^"]+)"', chart)[0].split()
    ]
    # Before each fall there is a corner: two points for each rung, and the beginning.
    assert len(points) == 2 * len(RESULT.attacks) + 1
    for before, corner, after in zip(points[::2], points[1::2], points[2::2], strict=False):
        assert before[1] == corner[1] <= after[1]
        assert before[0] <= corner[0] == after[0]
    assert chart.count("<circle") == len(RESULT.attacks) + 1
    rows = read.rows("table-time")
    assert list(rows) == ["no attack", *(entry.name for entry in RESULT.attacks)]
    assert rows["no attack"][1].startswith(f"{100 * RESULT.clean_accuracy:.1f} % ({RESULT.clean_right})")


def test_the_last_rungs_are_told_without_a_forecast() -> None:
    text = settled(RESULT).replace("\u00a0", " ")
    for entry in RESULT.attacks[-3:]:
        assert f"{entry.name} {entry.fooled} of {entry.entered}" in text
    assert text.endswith("What further rungs would find is not known.")
    nothing = tuple(replace(entry, fooled=0) for entry in RESULT.attacks)
    assert settled(replace(RESULT, attacks=nothing)) == "No rung felled any example."


def test_queries_smallest_changes_and_transfers_are_shown(tmp_path: Path) -> None:
    read = page(tmp_path)[1]
    (name,) = (entry.name for entry in RESULT.attacks if entry.needs == "scores")
    asked = RESULT.attack(name)
    assert asked.queries is not None
    assert read.rows("table-queries")[name][:5] == [
        "scores",
        str(asked.entered),
        *(f"{count:.0f}" for count in asked.queries),
    ]
    nearest = RESULT.attack("ddn:steps=10").nearest
    assert nearest is not None
    assert read.rows("table-nearest")["ddn:steps=10"][1:] == [f"{length:.4g}" for length in nearest if length]
    fooled, able = RESULT.attack("fgsm").transfers[samples.HOSTILE]
    assert f"({fooled} of {able})" in " ".join(read.rows("table-comparison")["fgsm"])
    assert samples.HOSTILE in read.text
    assert "not measured" not in " ".join(cell for row in read.rows("table-comparison").values() for cell in row)


def test_sections_of_ladders_are_on_pages_of_ladders_alone(tmp_path: Path) -> None:
    read = samples.read(samples.written(tmp_path, samples.images()[0]))
    assert not {"table-time", "table-queries", "table-nearest"} & set(read.tables)
    assert ("h2", {"id": "time"}) not in read.tags
    assert "not measured (--transfer-to)" in read.text


def test_the_checklist_speaks_of_ladder_engine_and_verdict() -> None:
    items = {item.name: item.text for item in checklist(RESULT)}
    assert items["Attacks run; stronger ones"].startswith("Ladder custom: fgsm")
    assert "by each rung those still standing" in items["Which examples count"]
    assert items["Engine"].startswith("float32: search on a copy")
    assert "by the model itself" in items["Engine"]
    assert "for scores" in items["Attacker's knowledge"]
    exact = {item.name: item.text for item in checklist(samples.images()[0])}
    assert exact["Engine"].startswith("exact: the search ran on the model itself. The verdict")
    whole = replace(RESULT, ladder="standard@1")
    complete = {item.name: item.text for item in checklist(whole)}
    assert "standard@1 ran to its end" in complete["Attacks run; stronger ones"]
    part = replace(whole, terms={**whole.terms, "shard": [1, 4]})
    shard = {item.name: item.text for item in checklist(part)}
    assert shard["Completeness"].startswith("Shard 1/4")
    assert "ran to its end" not in shard["Attacks run; stronger ones"]


def test_answers_under_a_ladder_are_those_of_the_last_rung_that_met_the_example(tmp_path: Path) -> None:
    text = page(tmp_path)[1].text
    assert "under the ladder custom" in text
    changed = sum(
        any(column[row] == "f" for column in RESULT.per_example.verdicts.values()) for row in range(RESULT.examples)
    )
    assert f"{changed} answers differ" in text
