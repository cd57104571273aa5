"""Every name of an attack that stands in a record can be typed again, and means the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from signstep.attacks.recipes import RECIPES
from signstep.auditing.ladder import LADDERS, Rung
from signstep.auditing.run import rung_names
from signstep.cli import main
from signstep.domains import DOMAINS, Case, Request, audit_case, domain
from signstep.errors import InputError

LOOP = 'plant = "pendulum"\nseconds = 0.5\nstarts = 1\n'


def example(name: str, folder: Path) -> Case:
    """The domain's own, small, and without its words, which take most of the time."""
    pytest.importorskip({"atoms": "ase", "tabular": "sklearn"}.get(name, "torch"), reason=f"the example of {name}")
    request = Request(limit=3)
    if name == "atoms":
        request = Request()
    if name == "control":
        (folder / "loop.toml").write_text(LOOP)
        request = Request(schema=folder / "loop.toml")
    return replace(domain(name).case(request), summary=lambda *_: (), curve=False)


@pytest.mark.parametrize("name", DOMAINS)
def test_a_name_in_a_record_is_an_attack_by_that_name(name: str, tmp_path: Path) -> None:
    case = example(name, tmp_path)
    names = [getattr(spec, "name", spec) for spec in case.attacks]
    if name == "atoms":  # the audit of its structures is slow: names alone
        assert [found.name for spec in names if (found := case.named(spec)) is not None] == ["second-order"]
        return
    first = audit_case(case)
    assert [entry.name for entry in first.attacks] == names
    again = audit_case(example(name, tmp_path), attacks=names[-2:])
    assert [entry.name for entry in again.attacks] == names[-2:]
    for spec in names[-2:]:
        assert again.per_example.verdicts[spec] == first.per_example.verdicts[spec]
    if name != "control":
        climbed = audit_case(example(name, tmp_path), ladder=[names[0], f"{names[-1]} near<=0.9"])
        assert [entry.name for entry in climbed.attacks] == [names[0], f"{names[-1]} near<=0.9"]
        assert climbed.attacks[0].fooled == first.attacks[0].fooled
        assert audit_case(example(name, tmp_path), ladder=names[-1:]).attacks[0].name == names[-1]


@pytest.mark.parametrize("name", DOMAINS)
def test_the_table_of_domains_names_the_attacks_of_their_packages(name: str) -> None:
    row = domain(name)
    assert tuple(row.rows) == row.recipes
    for own, recipe in row.rows.items():
        assert own == recipe.name
        assert own not in RECIPES


@pytest.mark.parametrize("ladder", LADDERS)
def test_rungs_of_presets_can_be_typed(ladder: str) -> None:
    for name, rung in zip(rung_names(LADDERS[ladder].rungs), LADDERS[ladder].rungs, strict=True):
        assert Rung.of(name) == rung


def test_options_of_a_domains_own_attacks(tmp_path: Path) -> None:
    case = example("tabular", tmp_path)
    few = audit_case(case, attacks=["coordinate-search:queries=7"])
    assert few.attacks[0].name == "coordinate-search:queries=7"
    assert few.attacks[0].forwards <= 9
    for spec, message in (
        ("coordinate-search:steps=3", "no option 'steps=3'; its options are queries"),
        ("coordinate-search:queries=0", "queries=0; pass at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            audit_case(case, attacks=[spec])
    pairs = example("multimodal", tmp_path)
    with pytest.raises(InputError, match=r"after 'on' come inputs that are attacked; pass some of image \+ text"):
        audit_case(pairs, attacks=["pgd on sound"])


@pytest.mark.parametrize(("name", "own"), [(row.name, own) for row in DOMAINS.values() for own in row.recipes])
def test_the_command_line_knows_them(
    name: str, own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", own]) == 0
    assert f"--domain {name} --attack {own}" in capsys.readouterr().out
    assert main(["audit", "--attack", own, "--model", "a:b", "--data", "digits"]) == 2
    assert f"{own} is an attack of --domain {name} alone" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert own in capsys.readouterr().out


def test_coordinate_search_on_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the example of tabular")
    words = ["--limit", "4", "--curve", "none", "--out", str(tmp_path / "out")]
    assert main(["audit", "--domain", "tabular", "--attack", "fgsm,coordinate-search:queries=20", *words]) == 0
    assert main(["verify", str(tmp_path / "out")]) == 0
