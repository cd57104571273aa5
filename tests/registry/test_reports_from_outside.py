"""Sections and findings of somebody's own in a report, and training recipes: what enters them, and who asks for it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scratch import installed, written

import signstep as ss
from conftest import forget
from signstep.auditing.added_sections import with_sections
from signstep.auditing.findings import CATALOGUE, FINDINGS, examine
from signstep.auditing.findings.specimens import healthy
from signstep.cli import main
from signstep.errors import InputError
from signstep.explain import explain
from signstep.report.rendered import rendered
from signstep.train import training_recipe

MODULE = '''
"""Words of our own."""
import signstep as ss
from signstep.auditing.findings import FindingRow, Rule
from signstep.auditing.findings.specimens import result
from signstep.train import TrainingRecipe


def by_class(record):
    rows = tuple((str(number), str(count)) for number, count in enumerate([record.clean_right, record.held]))
    return ss.Section("Ours: right and held", (f"Of {record.examples}\\x1b[2J.",), ("what", "how many"), rows)


def several(record):
    return [ss.Section("One"), ss.Section("Two")]


def wrong(record):
    return "text"


def ending(record):
    raise SystemExit(0)


def two(record, points):
    return by_class(record)


def _look(record):
    return f"{record.examples} examples" if record.examples < 20 else ""


def _of(count):
    return lambda: result("r" * count, {"fgsm": "h" * count})


RULE = Rule("OUR101", "far too few examples", "Nothing follows from so few.", "Use more.")
FEW = FindingRow(RULE, _look, _of(19), _of(20))
SILENT = FindingRow(RULE, lambda record: "", _of(19), _of(20))
LOUD = FindingRow(RULE, lambda record: "always", _of(19), _of(20))
STOLEN = FindingRow(Rule("SS101", "x", "y", "z"), _look, _of(19), _of(20))
BARE = FindingRow(Rule("OUR102", "", "y", "z"), _look, _of(19), _of(20))


def _picky(record):
    if record.model not in ("model", "m"):
        return str(1 / 0)
    return _look(record)


PICKY = FindingRow(Rule("OUR103", "picky", "It fails.", "Mend it."), _picky, _of(19), _of(20))
RECIPE = TrainingRecipe("gentle", "one small step", "nobody", start="uniform", spread=0.5, step=0.5)
'''
NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
"""
OWN = ["--model", "ournets:net", "--data", "set.npz", "--threat", "linf:0.1", "--device", "cpu", "--curve", "none"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    written(tmp_path, {"ourwords.py": MODULE, "ournets.py": NETS})
    monkeypatch.chdir(tmp_path)
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(1))
    np.savez(tmp_path / "set.npz", x=x.numpy(), y=np.arange(12) % 3)
    return tmp_path


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_a_section_stands_in_record_table_and_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sections = ["--section", "ourwords:by_class", "--section", "ourwords:several"]
    assert main(["audit", *OWN, *sections]) == 0
    said = _said(capsys)
    assert "Ours: right and held" in said
    assert "\x1b" not in said
    record = ss.Result.load(here / "signstep-report" / "result.json")
    assert [part.title for part in record.sections] == ["Ours: right and held", "One", "Two"]
    page = (here / "signstep-report" / "index.html").read_text()
    assert "Ours: right and held" in page
    assert "\x1b" not in page
    # Whoever verifies needs none of it: the words are the record's.
    forget()
    (here / "ourwords.py").write_text("raise AssertionError('imported')\n")
    verified = ["--model", "ournets:net", "--data", "set.npz", "--device", "cpu"]
    assert main(["verify", "signstep-report", *verified]) == 0, _said(capsys)


@pytest.mark.usefixtures("here")
def test_a_section_that_fails_costs_nothing_but_itself() -> None:
    result = _audited()
    added = with_sections(result, ["ourwords:wrong", "ourwords:ending", "ourwords:by_class"])
    assert [part.title for part in added.sections] == ["Ours: right and held"]
    assert added.notes[-2] == (
        "the section ourwords:wrong could not be made: InputError: ourwords:wrong gave a str; return a "
        "signstep.Section, or several"
    )
    assert added.notes[-1].startswith("the section ourwords:ending could not be made: SystemExit: 0 (")


def _audited() -> ss.Result:
    held = np.load("set.npz")
    net = torch.nn.Linear(6, 3)
    return ss.audit(net, (held["x"], held["y"]), threat=ss.linf(0.1), attacks=["fgsm"], curve=False)


def test_a_section_is_known_before_the_work_begins(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *OWN, "--section", "ourwords:two"]) == 2
    assert "the section 'ourwords:two' cannot be used: it does not take one result" in _said(capsys)
    assert main(["audit", *OWN, "--section", "ourwords:RULE"]) == 2
    assert "it is a Rule; name a function from a Result to a Section" in _said(capsys)
    assert not (here / "signstep-report").exists()


def test_a_finding_is_looked_for_where_it_is_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *OWN, "--finding", "ourwords:FEW"]) == 0
    assert "OUR101 far too few examples: 12 examples" in _said(capsys)
    report = here / "signstep-report"
    assert "far too few examples" in (report / "index.html").read_text()
    assert "OUR101" in CATALOGUE
    forget()
    assert "OUR101" not in CATALOGUE
    verified = ["verify", str(report), "--model", "ournets:net", "--data", "set.npz", "--device", "cpu"]
    assert main([*verified, "--finding", "ourwords:FEW"]) == 0, _said(capsys)
    forget()
    (here / "ourwords.py").write_text("raise AssertionError('imported')\n")
    assert main(verified) == 4
    said = _said(capsys)
    assert "open  page: not compared: it has findings of somebody's own; pass --finding ourwords:FEW" in said
    assert main(["verify", str(report)]) == 4
    assert "--finding=ourwords:FEW" in _said(capsys)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SILENT", r"its look gives '' on its own provoked\(\), where evidence is to be found"),
        ("LOUD", r"its look gives 'always' on its own just_not\(\), where none is to be found"),
        ("STOLEN", "its code is 'SS101'; write two to eight capitals of your own, not SS, and a number"),
        ("BARE", "its rule has no code, title, meaning or remedy; write each as text"),
        ("RULE", "it is a Rule; name a FindingRow of a Rule"),
    ],
)
def test_a_finding_does_what_it_says_or_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        FINDINGS.find(f"ourwords:{name}")


@pytest.mark.usefixtures("here")
def test_a_look_that_fails_is_seen_and_costs_nothing() -> None:
    FINDINGS.find("ourwords:PICKY")
    found = {finding.code: finding for finding in examine(_audited())}
    assert found["OUR103"].evidence.startswith("its look failed with ZeroDivisionError: division by zero (")


def test_what_is_installed_changes_no_result(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rendered(_audited(), {}, {})
    points = "[signstep.findings]\nOUR101 = ourwords:FEW\n[signstep.sections]\nby-class = ourwords:by_class\n"
    installed(here, "our-words", {}, points, monkeypatch)
    assert "OUR101" in FINDINGS
    assert [finding.code for finding in examine(healthy())] == []
    assert rendered(_audited(), {}, {}).keys() == before.keys()
    assert b"OUR101" not in rendered(_audited(), {}, {})["index.html"]
    assert "OUR101" not in CATALOGUE
    assert "OUR101: far too few examples" in explain("our101")
    assert main(["list"]) == 0
    assert "  OUR101  far too few examples" in _said(capsys)
    assert main(["audit", *OWN, "--finding", "OUR101", "--section", "by-class"]) == 0
    assert "OUR101 far too few examples: 12 examples" in _said(capsys)


def test_a_training_recipe_is_a_row_too(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = training_recipe("ourwords:RECIPE:step=0.25")
    assert (recipe.name, recipe.step, recipe.spread) == ("ourwords:RECIPE", 0.25, 0.5)
    trained = ["train", *OWN[:4], "--threat", "linf:0.1", "--device", "cpu", "--epochs", "1"]
    assert main([*trained, "--recipe", "ourwords:RECIPE", "--out", "trained"]) == 0, _said(capsys)
    with pytest.raises(InputError, match="it is a FindingRow; name a TrainingRecipe"):
        training_recipe("ourwords:FEW")
    installed(here, "our-training", {}, "[signstep.training_recipes]\ngentle = ourwords:RECIPE\n", monkeypatch)
    assert training_recipe("gentle:steps=2").steps == 2
