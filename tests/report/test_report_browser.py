"""The page in headless Chromium: nothing is complained about or fetched, and nothing sticks out on a phone."""

from collections.abc import Iterator
from pathlib import Path

import headless_chromium
import pytest
import report_samples as samples

pytestmark = pytest.mark.skipif(headless_chromium.FOUND is None, reason="Chromium is not installed (apt: chromium)")

KINDS = samples.all_kinds()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[headless_chromium.Browser]:
    with headless_chromium.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_complained_about_and_nothing_sticks_out(
    kind: str, tab: headless_chromium.Browser, tmp_path: Path
) -> None:
    samples.written(tmp_path, *KINDS[kind])
    for width, dark in ((390, False), (360, True), (1200, False)):
        tab.open(tmp_path / "index.html", width=width, dark=dark)
        assert tab.complaints() == []
        assert tab.value("document.documentElement.scrollWidth") <= width
        assert tab.value("document.querySelector('h1').getBoundingClientRect().height") > 0
    broken = tab.value("[...document.images].filter(image => !image.naturalWidth).length")
    assert broken == 0


def test_long_names_do_not_widen_the_page(tab: headless_chromium.Browser, tmp_path: Path) -> None:
    from dataclasses import replace

    result, points = samples.images()
    long = replace(result, model="x" * 300, data="y" * 300, classes=tuple(f"{k}{'z' * 80}" for k in range(5)))
    samples.written(tmp_path, long, points)
    tab.open(tmp_path / "index.html", width=390)
    assert tab.value("document.documentElement.scrollWidth") <= 390


def test_both_themes_are_there(tab: headless_chromium.Browser, tmp_path: Path) -> None:
    samples.written(tmp_path, *KINDS["images"])
    grounds = []
    for dark in (False, True):
        tab.open(tmp_path / "index.html", width=800, dark=dark)
        grounds.append(tab.value("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(253, 252, 250)", "rgb(22, 22, 21)"]
    tab.open(tmp_path / "index.html", width=800, dark=True, media="print")
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_watch_itself_sees_trouble(tab: headless_chromium.Browser, tmp_path: Path) -> None:
    """A check that cannot fail is no check: a script, a foreign image and an error are each seen."""
    html = samples.written(tmp_path, *KINDS["predicted"])
    page = tmp_path / "bad.html"
    for trouble in ("<script>1</script>", '<img alt="" src="https://example.invalid/x.png">'):
        page.write_text(html.replace("</main>", trouble + "</main>"), encoding="utf-8")
        tab.open(page, width=390)
        assert tab.complaints() != []
    page.write_text(html.replace("</main>", '<div style="width: 800px">.</div></main>'), encoding="utf-8")
    tab.open(page, width=390)
    assert tab.value("document.documentElement.scrollWidth") > 390
