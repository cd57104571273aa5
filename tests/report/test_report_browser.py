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


def test_the_knob_switches_pictures_and_answers(tab: headless_chromium.Browser, tmp_path: Path) -> None:
    """Without a script: by a click, and by the arrow keys."""
    result, points = samples.images()
    assert result.knob is not None
    samples.written(tmp_path, result, points)
    for width in (390, 1200):
        tab.open(tmp_path / "index.html", width=width)
        assert seen(tab) == ["eps"] * 2
        for place, name in enumerate(("eps/4", "eps/2", "eps", "2 eps"), start=1):
            tab.value(f"document.querySelector('label[for=knob-{place}]').click()")
            assert seen(tab) == [name] * 2
            answer = result.classes[result.knob.answers[place - 1]]
            if answer.isascii():
                assert answer in tab.value(SHOWN + "[1].innerText")
        tab.value("document.getElementById('knob-1').focus()")
        for kind in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
        assert seen(tab) == ["eps/2"] * 2
        outline = "getComputedStyle(document.querySelector('label[for=knob-2]')).outlineStyle"
        assert tab.value(outline) == "solid"


SHOWN = "[...document.querySelectorAll('.view.at')].filter(view => view.offsetWidth)"


def seen(tab: headless_chromium.Browser) -> list[str]:
    """The positions whose pictures are to be seen."""
    alts: list[str] = tab.value(SHOWN + ".map(view => view.querySelector('img').alt)")
    return [alt.partition(" at ")[2].partition(",")[0] for alt in alts]


def test_tables_that_go_on_scroll_by_themselves(tab: headless_chromium.Browser, tmp_path: Path) -> None:
    samples.written(tmp_path, *KINDS["images"])
    tab.open(tmp_path / "index.html", width=390)
    assert tab.value("getComputedStyle(document.querySelector('.scroll')).backgroundImage").count("gradient") == 4
    wide = "[...document.querySelectorAll('.scroll')].filter(part => part.scrollWidth > part.clientWidth)"
    assert tab.value(wide + ".length") > 0
    assert tab.value(wide + ".every(part => part.tabIndex === 0 && getComputedStyle(part).overflowX === 'auto')")


@pytest.mark.parametrize("kind", ["images", "ladder", "several inputs"])
def test_no_table_is_cut_on_paper(kind: str, tab: headless_chromium.Browser, tmp_path: Path) -> None:
    samples.written(tmp_path, *KINDS[kind])
    tab.open(tmp_path / "index.html", width=687, media="print")  # A4 between its margins, in CSS pixels
    assert tab.value("document.documentElement.scrollWidth") <= 687
    assert tab.value("[...document.querySelectorAll('table')].every(t => t.getBoundingClientRect().right <= 688)")
    assert tab.value("getComputedStyle(document.querySelector('nav')).display") == "none"


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
