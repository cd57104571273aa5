"""`--domain` on the command line, sections in record, table and page, and `signstep verify` on what was written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import whole_numbers

from signstep.auditing.merge import merge
from signstep.auditing.result import Result
from signstep.auditing.run import Run
from signstep.auditing.sections import Chart, Line, Section
from signstep.cli import main
from signstep.domains import DOMAINS, Domain, Request, audit_case
from signstep.errors import InputError
from signstep.report import write_report


@pytest.fixture(autouse=True)
def few_domain() -> Iterator[None]:
    with DOMAINS.lent(Domain("few", "whole numbers", "whole_numbers")):
        yield


@pytest.fixture
def report(tmp_path: Path) -> Path:
    assert main(["audit", "--domain", "few", "--out", str(tmp_path / "report")]) == 0
    return tmp_path / "report"


def test_the_record_has_the_domains_words(report: Path) -> None:
    result = Result.load(report / "result.json")
    assert result.terms["domain"] == "few"
    assert result.terms["domain_terms"] == {"columns": ["a", "b", "c", "d"]}
    assert result.sections[0].rows == (("1", "1"), ("2", "1"), ("3", "1"))
    assert Result.from_json(result.to_json()) == result
    assert "3 records flip." in str(result)


def test_the_page_draws_the_section(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert "What flips" in page
    assert "Weights along the change" in page
    assert page.count("<polyline") >= 4
    assert 'id="pictures"' not in page
    assert "decision" in page


def test_what_was_written_verifies_and_a_changed_point_does_not(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(report)]) == 0
    said = capsys.readouterr().out.splitlines()
    checks = said[: next(place for place, line in enumerate(said) if line.startswith("Nobody who was not there"))]
    assert checks
    assert all(line.startswith("ok  ") for line in checks)
    record = json.loads((report / "result.json").read_text())
    record["terms"]["threat_terms"]["eps"] = 1.0
    (report / "result.json").write_text(json.dumps(record))
    assert main(["verify", str(report)]) == 1
    assert "points outside" in capsys.readouterr().out


def test_a_rerun_from_its_own_file_gives_the_same(report: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["--config", str(report / "signstep.toml"), "audit", "--out", str(again)]) == 0
    first, second = Result.load(report / "result.json"), Result.load(again / "result.json")
    assert first.per_example == second.per_example
    assert first.sections == second.sections


def test_options_reach_the_domain(tmp_path: Path) -> None:
    words = ["audit", "--domain", "few", "--threat", "few:1", "--skip-bad", "--attack", "fgsm", "--out", str(tmp_path)]
    assert main(words) == 0
    result = Result.load(tmp_path / "result.json")
    assert result.fooled == 2
    assert [entry.name for entry in result.attacks] == ["fgsm"]
    assert "one record was left out" in result.notes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--domain", "fwe"], "did you mean 'few'?"),
        (["--domain", "few", "--mean", "0.5"], "--mean has no effect with --domain few"),
        (["--domain", "few", "--goal", "next"], "--goal has no effect"),
        (["--schema", "a.toml"], "--schema has no effect on images"),
        (["--domain", "few", "--data", "broken"], "row 3, column b is empty; fill it, or pass --skip-bad"),
        (["--domain", "few", "--data", "nowhere.csv"], "--data nowhere.csv does not exist"),
        (["--domain", "few", "--schema", "nowhere.toml"], "--schema nowhere.toml does not exist"),
    ],
)
def test_wrong_options_are_one_sentence(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken").touch()
    assert main(["audit", *words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_schema_is_printed_or_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["schema", "--domain", "few", "--data", "x.csv"]
    assert main(words) == 0
    assert capsys.readouterr().out == 'data = "x.csv"\n'
    assert main([*words, "--out", str(tmp_path / "s.toml")]) == 0
    assert (tmp_path / "s.toml").read_text() == 'data = "x.csv"\n'
    assert main([*words, "--out", str(tmp_path / "s.toml")]) == 2
    assert "would be lost" in capsys.readouterr().err


def test_from_python() -> None:
    result = audit_case(whole_numbers.case(Request()), attacks=["fgsm"], curve=False)
    assert result.fooled == 3
    assert result.sections[0].title == "What flips"


@pytest.mark.parametrize("kind", ["lines", "dots", "bars"])
def test_every_kind_of_chart_is_drawn(kind: str, tmp_path: Path) -> None:
    result = audit_case(whole_numbers.case(Request()), attacks=["fgsm"], curve=False)
    lines = (Line("a", (0.0, 1.0), (-2.0, 3.0)), Line("b & <c>", (0.0, 1.0), (None, 0.5)))
    names = ("first", "second") if kind == "bars" else ()
    chart = Chart(kind, "T", "D", "x", "y", lines, names, (("limit", 1.0),))  # type: ignore[arg-type]
    page = write_report(
        Result(**{**result.__dict__, "sections": (Section("S", ("one",), chart=chart),)}), tmp_path
    ).read_text()
    assert "b &amp; &lt;c&gt;" in page
    assert page.count('class="block') >= 3 if kind == "bars" else "<circle" in page
    drawn = page[page.index("chart-domain-1") : page.index("</figure>", page.index("chart-domain-1"))]
    assert "nan" not in drawn


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [((0.0,), (1.0, 2.0), "1 x and 2 y"), ((0.0,), (float("nan"),), "not finite"), ((float("inf"),), (1.0,), "finite")],
)
def test_charts_refuse_what_cannot_be_drawn(x: tuple[float, ...], y: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Chart("lines", "T", "D", "x", "y", (Line("a", x, y),))
    with pytest.raises(InputError, match="2 cells"):
        Section("S", header=("a",), rows=(("1", "2"),))


def test_merged_shards_say_that_the_domains_words_are_not_joined() -> None:
    whole = audit_case(whole_numbers.case(Request()), attacks=["fgsm"], curve=False)
    shards = [
        audit_case(whole_numbers.case(Request()), attacks=["fgsm"], curve=False, run=Run(shard=(i, 2))) for i in (0, 1)
    ]
    joined = merge(shards)
    assert joined.per_example == whole.per_example
    assert joined.sections == ()
    assert any("not joined" in note for note in joined.notes)
