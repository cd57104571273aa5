"""Pieces of a section that stand out: marked on the page, escaped, and nothing else of the text changed."""

from dataclasses import replace
from pathlib import Path

import pytest
import report_samples as samples

import signstep as ss
from signstep.auditing.sections import marked
from signstep.auditing.table import table
from signstep.report.section import shown


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (f"the {marked('film')} was", "the <mark>film</mark> was"),
        (marked("<b>"), "<mark>&lt;b&gt;</mark>"),
        (marked("a ⟦b⟧"), "<mark>a b</mark>"),
        ("⟦ open", "⟦ open"),
        ("⟧ close ⟦", "⟧ close ⟦"),
        ("⟦a⟦b⟧", "⟦a<mark>b</mark>"),
        ("no mark", "no mark"),
    ],
)
def test_a_mark_is_a_tag_and_all_else_is_text(text: str, html: str) -> None:
    assert str(shown(text)) == html


def test_marks_stand_in_paragraphs_and_cells_of_the_page_and_in_the_terminal(tmp_path: Path) -> None:
    result, _ = samples.images()
    words = f"the {marked(samples.HOSTILE)} was"
    part = ss.Section("Words", (words,), ("example", "text"), (("1", words), (marked("2"), "plain")))
    changed = replace(result, sections=(part,))
    html = samples.written(tmp_path, changed)
    assert html.count("the <mark>&lt;script&gt;alert(1)&lt;/script&gt;</mark> was") == 2
    assert "<mark>2</mark>" in html
    assert "the ⟦<script>alert(1)</script>⟧ was" in table(changed)
