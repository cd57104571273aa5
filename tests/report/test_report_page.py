"""The page renders every kind of record, stands alone, escapes what came from outside, states the record's numbers."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import report_samples as samples
import torch

import signstep as ss
from signstep.auditing.findings import examine
from signstep.auditing.record import UPPER_BOUND, CurvePoint
from signstep.auditing.table import sentence
from signstep.engine.statistics import wilson
from signstep.errors import InputError
from signstep.report import write_report
from signstep.report.curve import series

KINDS = samples.all_kinds()
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
SECTIONS = [
    *("figures", "findings", "attacks", "time", "queries", "curve", "pictures", "answers", "classes", "health"),
    *("smallest", "cost", "comparison", "checklist", "terms"),
]
ALWAYS = {"figures", "findings", "attacks", "health", "cost", "comparison", "checklist", "terms"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_record_renders(kind: str, tmp_path: Path) -> None:
    result, points = KINDS[kind]
    html = samples.written(tmp_path, result, points)
    page = samples.read(html)
    assert page.text.count(sentence(result)) == 1
    assert UPPER_BOUND in page.text
    headings = [attributes["id"] for tag, attributes in page.tags if tag == "h2"]
    assert headings == [name for name in SECTIONS if name in headings]
    assert set(headings) >= ALWAYS | ({"time", "queries"} if result.ladder else set())
    links = [attributes.get("href") or "" for tag, attributes in page.tags if tag == "a"]
    assert [link[1:] for link in links if link.startswith("#")] == headings
    for wrong in ("nan", "None", "inf %", "Markup(", "tensor("):
        assert not re.search(rf"(?<![\w-]){re.escape(wrong)}(?![\w-]| of| but)", page.text), wrong


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_needs_nothing_from_elsewhere(kind: str, tmp_path: Path) -> None:
    html = samples.written(tmp_path, *KINDS[kind])
    page = samples.read(html)
    lowered = html.lower()
    for forbidden in ("http:", "https:", "<script", "javascript:", "@import", "url(", "<iframe", "<object", "<embed"):
        assert forbidden not in lowered, forbidden
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    policies = [
        attributes for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert [policy["content"] for policy in policies] == [POLICY]
    assert html.index("Content-Security-Policy") < html.index("<style>")
    sources = [value for _, attributes in page.tags for name, value in attributes.items() if name == "src"]
    assert all(value is not None and value.startswith("data:image/png;base64,") for value in sources)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_accessible(kind: str, tmp_path: Path) -> None:
    page = samples.read(samples.written(tmp_path, *KINDS[kind]))
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("h1") == 1
    assert tags.count("table") == tags.count("caption")
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    idents = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(idents) == len(set(idents))
    for _, attributes in page.tags:
        for target in (attributes.get("aria-labelledby") or "").split():
            assert target in idents
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in idents
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    labels = {attributes.get("for") for tag, attributes in page.tags if tag == "label"}
    radios = [attributes for tag, attributes in page.tags if tag == "input"]
    assert {radio.get("id") for radio in radios} == labels
    assert all((radio.get("type"), radio.get("name")) == ("radio", "knob") for radio in radios)
    assert sum("checked" in radio for radio in radios) == (1 if radios else 0)
    assert ("fieldset" in tags) == ("legend" in tags) == bool(radios)
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("role") == "img"


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    result, points = samples.images()
    hostile = replace(
        result,
        model='"><img src=x onerror=alert(1)>',
        notes=("</title><style>body{display:none}</style>", "undecodable \udce9 \x00 name"),
        hashes={**result.hashes, "data": "'><svg onload=alert(1)>"},
    )
    html = samples.written(tmp_path, hostile, points)
    page = samples.read(html)
    assert samples.HOSTILE in page.text
    assert samples.FILE in page.text
    assert samples.HOSTILE not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert "b" not in tags
    assert tags.count("style") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    for mark in "\u202e\x00\udce9":
        assert mark not in html
    assert r"\u202egnp.exe" in page.text


def test_the_numbers_are_those_of_the_record(tmp_path: Path) -> None:
    result, points = samples.images()
    page = samples.read(samples.written(tmp_path, result, points))
    rows, cost, health = (page.rows(f"table-{name}") for name in ("attacks", "cost", "health"))
    for entry in result.attacks:
        low, high = wilson(entry.held, result.examples)
        assert entry.right_after is not None
        fooled, held, between, after, undetermined, distance, passes, seconds = rows[entry.name]
        assert fooled == f"{percent(entry.fooled, result.clean_right)} ({entry.fooled} of {result.clean_right})"
        assert held == f"{percent(entry.held, result.examples)} ({entry.held} of {result.examples})"
        assert between == f"{100 * low:.1f} % to {100 * high:.1f} %"
        assert after == percent(entry.right_after, result.examples)
        assert undetermined == str(entry.undetermined)
        assert distance == ("\u2013" if entry.distance is None else f"{entry.distance:.4g}")
        assert passes == f"{entry.forwards:.1f} + {entry.backwards:.1f}"
        assert seconds == f"{entry.seconds:.4g}"
        assert cost[entry.name][:2] == [f"{entry.forwards:.2f}", f"{entry.backwards:.2f}"]
        dead = f"{entry.dead_gradients} of {entry.gradients}"
        assert health[entry.name][:2] == ([str(entry.gradients), dead] if entry.gradients else ["uses none", "\u2013"])
    combined = rows["all combined"]
    assert combined[0].endswith(f"({result.fooled} of {result.clean_right})")
    assert combined[1].endswith(f"({result.held} of {result.examples})")


def test_the_curve_and_the_histogram_have_the_numbers_of_the_record(tmp_path: Path) -> None:
    result, _ = samples.images()
    page = samples.read(samples.written(tmp_path, result))
    names = [" ".join(cell.split()) for cell in page.tables["table-curve"][0]][1:]
    assert names[0] == "pgd:steps=5"
    assert names[-1] == "random-sign"
    rows = page.rows("table-curve")
    for name, points in result.curves.items():
        for point in points:
            cell = rows[f"{255 * point.eps:.4g}/255"][names.index(name)]
            held = result.clean_right - point.fooled
            low, high = wilson(held, result.examples)
            assert cell == f"{percent(held, result.examples)} ({held}) {100 * low:.1f} % to {100 * high:.1f} %"
        start = rows["0/255"][names.index(name)]
        assert start.startswith(f"{percent(result.clean_right, result.examples)} ({result.clean_right}) ")
    assert result.clean_right < result.examples
    sizes = [
        eps
        for eps, clean in zip(result.per_example.smallest_eps, result.per_example.clean, strict=True)
        if clean == "r"
    ]
    bins = list(page.rows("table-smallest").values())
    assert sum(int(row[0]) for row in bins[:-1]) == sum(eps is not None for eps in sizes)
    assert int(bins[-1][0]) == sum(eps is None for eps in sizes)


@pytest.mark.parametrize("kind", ["images", "many classes"])
def test_answers_and_classes_add_up(kind: str, tmp_path: Path) -> None:
    result, _ = KINDS[kind]
    page = samples.read(samples.written(tmp_path, result))
    matrix = page.tables["table-answers"]
    assert len(matrix) - 1 <= 11
    assert sum(int(cell) for row in matrix[1:] for cell in row[1:]) == result.examples
    classes = page.rows("table-classes")
    held = sum(int(row[1].split("(")[1].split(" of ")[0]) for row in classes.values())
    if len(set(result.per_example.labels)) == len(classes):
        assert held == result.held
    assert len(classes) <= 24
    left_out = len(set(result.per_example.labels)) > len(classes)
    assert ("classes with higher robust accuracy are not shown" in page.text) == left_out


def test_headline_figures_have_denominators_and_intervals(tmp_path: Path) -> None:
    result, _ = samples.images()
    text = " ".join(samples.read(samples.written(tmp_path, result)).text.split())
    for name, count, whole in (
        ("Clean accuracy", result.clean_right, result.examples),
        ("Robust accuracy, upper bound", result.held, result.examples),
        ("Attack success", result.fooled, result.clean_right),
        ("Undetermined", result.undetermined, result.examples),
    ):
        low, high = wilson(count, whole)
        interval = f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %"
        assert f"{name} {percent(count, whole)} {count} of {whole} {interval}" in text


def test_findings_are_cards_and_ignored_ones_say_why(tmp_path: Path) -> None:
    result, _ = samples.images()
    found = examine(result)
    assert found, "the sample should have a finding"
    code = found[0].code
    page = samples.read(samples.written(tmp_path, result, None, ignore={code: "small on purpose <i>"}))
    for finding in found:
        for part in (finding.code, finding.evidence, finding.meaning, finding.remedy):
            assert part in page.text
    assert "small on purpose <i>" in page.text
    cards = [attributes["class"] for tag, attributes in page.tags if tag == "li" and "class" in attributes]
    assert cards.count("finding ignored") == 1
    assert cards.count("finding") == len(found) - 1
    with pytest.raises(InputError, match="SS999"):
        write_report(result, tmp_path, ignore={"SS999": "no such"})


def test_variants_say_what_they_are(tmp_path: Path) -> None:
    def text(kind: str) -> str:
        return samples.read(samples.written(tmp_path, *KINDS[kind])).text

    assert "This result is partial." in text("partial")
    assert "Targeted success" in text("targeted")
    assert "Agreement with its own labels" in text("predicted")
    assert "No curve was traced" in text("predicted")
    assert "The labels are no classes" in text("regression")
    assert "The FGSM direction was not searched" in text("several inputs")
    assert "No points were kept" in text("no points")
    assert "of shape 48, are no images" in text("not images")
    assert "yes: 30 of 30 gradients dead, 30 undetermined" in text("regression").replace("\u00a0", " ")


def test_a_strongest_attack_without_a_curve_is_one_point(tmp_path: Path) -> None:
    model, x = samples.linear(6, 3), samples.noise(40, 6)
    result = ss.audit(model, (x, model(x).argmax(1)), threat=ss.linf(0.1), attacks=("fgsm", "pgd:steps=3,restarts=2"))
    if result.attack("pgd:steps=3,restarts=2").fooled < result.attack("fgsm").fooled:
        pytest.fail("the sample should make pgd the strongest")
    page = samples.read(samples.written(tmp_path, result))
    cell = page.rows("table-curve")["0.1"][0]
    assert f"({result.attack('pgd:steps=3,restarts=2').held})" in cell
    assert "" in page.rows("table-curve")["0"]


def test_the_curve_agrees_with_the_table_of_attacks(tmp_path: Path) -> None:
    """At the eps of the audit the curve of FGSM has the robust accuracy of FGSM, undetermined examples taken off."""
    for kind in ("images", "regression", "targeted"):
        result, points = KINDS[kind]
        rows = samples.read(samples.written(tmp_path, result, points)).rows("table-curve")
        label = "0.1" if kind == "regression" else f"{result.terms['eps']}"
        names = [line.name for line in series(result)]
        cell = rows[label][names.index("fgsm")]
        assert f"({result.attack('fgsm').held})" in cell
    assert regression_is_undetermined()


def regression_is_undetermined() -> bool:
    result, _ = KINDS["regression"]
    return result.attack("fgsm").undetermined == result.clean_right > 0 == series(result)[0].counts[-1]


def test_no_undetermined_example_is_subtracted_twice() -> None:
    result, _ = samples.images()
    entry = replace(result.attack("fgsm"), fooled=20, undetermined=5, held=result.clean_right - 25)
    points = tuple(CurvePoint(share * 8 / 255, fooled) for share, fooled in ((0.5, 10), (1.0, 20), (1.5, 23), (2, 30)))
    changed = replace(result, attacks=(entry,), curves={"fgsm": points})
    right = result.clean_right
    assert series(changed)[0].counts == (right, right - 15, right - 25, right - 25, right - 30)


def test_the_curve_says_what_it_shows(tmp_path: Path) -> None:
    page = samples.read(samples.written(tmp_path, *KINDS["images"]))
    assert "Accuracy under attack over all 60 examples" in page.text
    page = samples.read(samples.written(tmp_path, *KINDS["targeted"]))
    assert "This is no accuracy: an example that is led to a third class" in page.text
    assert "Accuracy under attack over all" not in page.text


def test_colours_have_contrast(tmp_path: Path) -> None:
    """WCAG AA: 4.5 to 1 for text, on the paper, on panels and on the strongest tint of a cell."""
    css = samples.written(tmp_path, samples.predicted())
    themes = re.findall(
        r"--paper: (#\w+);.*?--ink: (#\w+);.*?--muted: (#\w+);.*?--panel: (#\w+);\s*"
        r"--accent: (#\w+); --tint: ([\d, ]+); --good: (#\w+);",
        css,
        re.DOTALL,
    )
    assert len(themes) == 3
    for paper, ink, muted, panel, accent, tint, good in themes:
        assert contrast(channels(paper), channels(ink)) >= 4.5  # the position of the knob that is chosen
        for ground in (paper, panel):
            for text in (ink, muted, accent, good):
                assert contrast(channels(text), channels(ground)) >= 4.5, (text, ground)
        mixed = [0.7 * p + 0.3 * t / 255 for p, t in zip(channels(paper), map(int, tint.split(",")), strict=True)]
        assert contrast(channels(ink), mixed) >= 4.5


def channels(colour: str) -> list[float]:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2.2, relative luminance."""
    lights = [
        sum(
            weight * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
            for weight, part in zip((0.2126, 0.7152, 0.0722), colour, strict=True)
        )
        for colour in (one, other)
    ]
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def percent(count: int, whole: int) -> str:
    return f"{100 * count / whole:.1f} %"


def test_all_sizes_of_the_record_are_on_the_page_even_with_nan_pixels(tmp_path: Path) -> None:
    result, points = samples.images()
    broken = {**points, "x": points["x"].clone()}
    broken["x"][:, 0, 0, 0] = torch.nan
    assert "<img" in samples.written(tmp_path, result, broken)
