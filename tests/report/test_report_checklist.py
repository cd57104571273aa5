"""The checklist states every item that the field asks for, on the page and as Markdown."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import report_samples as samples

import signstep as ss
from signstep.auditing.record import UPPER_BOUND
from signstep.plain import markdown as escape
from signstep.report.checklist import checklist
from signstep.report.markdown import checklist_markdown

KINDS = samples.all_kinds()
ITEMS = {
    "Model",
    "Data",
    "Attacker's knowledge",
    "Digital or physical",
    "Input scale",
    "Threat",
    "Norm",
    "Size of the change (eps)",
    "Goal and target rule",
    "Loss",
    "Gradient path",
    "Clipping",
    "Model mode",
    "Which examples count",
    "Label source",
    "Baselines",
    "Attacks run; stronger ones",
    "Results",
    "Uncertainty",
    "Randomness and seed",
    "Engine",
    "Checks",
    "Completeness",
    "Cost and device",
    "Versions",
    "SHA-256 of the weights",
    "SHA-256 of the data",
    "SHA-256 of the model's code",
    "SHA-256 of the preprocessing",
}


def stated(result: ss.Result) -> dict[str, str]:
    return {item.name: item.text.replace("\u00a0", " ") for item in checklist(result)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_item_is_stated(kind: str, tmp_path: Path) -> None:
    result, points = KINDS[kind]
    items = stated(result)
    assert set(items) == ITEMS
    assert all(text.strip() for text in items.values())
    assert not re.search(r"\b(nan|None)\b", " ".join(items.values()).replace("None but", "").replace("None of", ""))
    page = samples.read(samples.written(tmp_path, result, points))
    assert set(page.rows("table-checklist")) == ITEMS
    markdown = (tmp_path / "checklist.md").read_text(encoding="utf-8")
    for name in ITEMS:
        assert f"- **{name}.** " in markdown


def test_the_statements_follow_the_record() -> None:
    result, _ = samples.images()
    items = stated(result)
    assert items["Attacker's knowledge"].startswith("White box")
    assert items["Size of the change (eps)"] == "eps = 8/255 = 0.0313725 in input units = 8/255 of the valid range."
    assert items["Uncertainty"] == UPPER_BOUND
    assert f"{result.clean_right} of {result.examples}" in items["Which examples count"]
    assert items["SHA-256 of the weights"] == "ab" * 32
    assert items["SHA-256 of the model's code"] == items["SHA-256 of the preprocessing"] == "not recorded"
    known = stated(replace(result, hashes={"code": "ef" * 32, "preprocessing": "01" * 32}))
    assert known["SHA-256 of the model's code"].startswith("ef" * 32)
    assert known["SHA-256 of the preprocessing"].startswith("01" * 32)
    assert "no claim of robustness" in items["Attacks run; stronger ones"]
    assert "pgd:steps=5 (Madry" in items["Attacks run; stronger ones"]
    for name, version in result.versions.items():
        assert f"{name} {version}" in items["Versions"]


def test_other_terms_are_told_apart() -> None:
    assert "FGSM alone never proves robustness" in stated(samples.predicted())["Attacks run; stronger ones"]
    assert "No control was run" in stated(samples.predicted())["Baselines"]
    assert "own predictions" in stated(samples.predicted())["Label source"]
    assert "not the change of one coordinate" in stated(samples.predicted())["Size of the change (eps)"]
    assert "Target rule: next" in stated(samples.targeted()[0])["Goal and target rule"]
    assert stated(samples.several_inputs())["Size of the change (eps)"].startswith("No single number")
    assert "no box limits the values" in stated(samples.many_classes())["Clipping"]
    assert stated(replace(samples.predicted(), partial=True))["Completeness"].startswith("PARTIAL")
    result, _ = samples.images()
    other = {
        "gradients_from": "surrogate",
        "mode": "keep",
        "random_model": True,
        "outputs_form": "behind",
        "input_space": {"mean": [0.5], "std": [0.25], "inputs": "normalised", "budget": "normalised"},
        "threat": "linf eps=8/255, box=[0, 1], mask (50% free), grid of 255 steps",
    }
    items = stated(replace(result, terms={**result.terms, **other}))
    assert items["Attacker's knowledge"].startswith("Transfer")
    assert "mean = 0.5, std = 0.25" in items["Input scale"]
    assert "differs for each channel" in items["Size of the change (eps)"]
    assert "inside the mask, and lie on the grid" in items["Clipping"]
    assert "no submodule" in items["Model mode"]
    assert "The model is random" in items["Randomness and seed"]
    assert "the logits behind them were searched" in items["Gradient path"]


def test_markdown_escapes_what_came_from_outside() -> None:
    result, _ = samples.images()
    text = checklist_markdown(replace(result, model="<script>x</script>\n# heading | `code`", notes=("*bold*",)))
    assert "<script>" not in text
    assert "\n# heading" not in text
    assert r"\# heading \| \`code\`" in text
    assert r"**Note.** \*bold\*." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_escaping_leaves_plain_text_alone() -> None:
    assert escape("robust accuracy 71.9\u00a0% (719\u00a0of\u00a01000)") == "robust accuracy 71.9 % (719 of 1000)"
