"""The audit: the example, structures from files, what is left out, and what a report can be checked by."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import write
from atom_samples import cluster, slab

from signstep.auditing.evidence import Evidence
from signstep.auditing.rescore import allowed
from signstep.auditing.run import Run
from signstep.domains.atoms import CHECKERS, case, infer
from signstep.domains.atoms.potential import as_potential
from signstep.domains.atoms.schema import read_schema
from signstep.domains.atoms.structures import gather, read_structures
from signstep.domains.case import Request
from signstep.domains.run import audit_case
from signstep.errors import LoadError

FAST = ("random-sign", "fgsm", "pgd:steps=5")


class Springs(Calculator):
    """Every pair of atoms pulled to 2.5 Angstrom; quick, and good enough for counting."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        arrows = atoms.positions[:, None] - atoms.positions[None]
        lengths = np.linalg.norm(arrows, axis=2) + np.eye(len(atoms))
        stretch = (lengths - 2.5) * (1 - np.eye(len(atoms)))
        forces = -2 * (stretch / lengths)[..., None] * arrows
        self.results = {"energy": float(0.5 * np.square(stretch).sum()), "forces": 0.5 * 2 * forces.sum(1) * 0.5}


def springs() -> Springs:
    return Springs()  # type: ignore[no-untyped-call]


def several(path: Path) -> Path:
    """Three structures of different sizes, one of them with a held atom."""
    held = slab()
    held.calc = None
    held.info.clear()
    pair = Atoms("Cu2", positions=[(0, 0, 0), (0, 0, 2.2)])
    write(path, [held, cluster(), pair], format="extxyz")
    return path


def test_the_example_runs_and_its_points_can_be_checked() -> None:
    made = case(Request(limit=1))
    evidence = Evidence()
    result = audit_case(replace(made, attacks=FAST, curve=False), run=Run(evidence=evidence))
    assert result.examples == 1
    assert result.fooled == 1
    points = evidence.tensors()
    assert allowed(result, points, CHECKERS).holds
    broken = {**points, "x_adv": points["x_adv"] + 1e-6}
    assert not allowed(result, broken, CHECKERS).holds
    titles = [section.title for section in result.sections]
    assert titles == ["Energy gained", "Most sensitive atoms", "Smallest displacement", "Energy along eps"]
    chart = result.sections[3].chart
    assert chart is not None
    lines = {line.name: line for line in chart.lines}
    assert {"first order", "random, mean", "fgsm", "pgd", "second-order"} <= set(lines)
    assert max(lines["pgd"].y[-1] or 0, lines["second-order"].y[-1] or 0) > (lines["random, mean"].y[-1] or 0)
    assert json.loads(result.to_json())["terms"]["domain"] == "atoms"


def test_structures_of_several_sizes_in_one_audit(tmp_path: Path) -> None:
    made = case(Request(data=str(several(tmp_path / "s.xyz")), model="emt"))
    assert made.total == 3
    evidence = Evidence()
    result = audit_case(replace(made, attacks=FAST, curve=False, summary=lambda *_: ()), run=Run(evidence=evidence))
    assert result.examples == 3
    points = evidence.tensors()
    assert allowed(result, points, CHECKERS).holds
    moved = (points["x_adv"] - points["x"]).abs().amax(2) > 0
    for row, number in enumerate(points["row"].tolist()):
        size = (13, 6, 2)[number]
        assert not bool(moved[row, size:].any())  # padding and the line that names the structure
        assert bool(moved[row, :size].any())
    assert bool((points["answer_adv"].flatten() >= 0.3).all())


def test_the_model_answers_saved_rows_without_their_batches(tmp_path: Path) -> None:
    made = case(Request(data=str(several(tmp_path / "s.xyz")), model="emt"))
    rows = torch.cat([x for x, _ in made.batches if isinstance(x, torch.Tensor)])
    assert rows.shape == (3, 14, 3)
    assert made.model(rows.flip(0)).abs().max() < 1e-9  # untouched: no rise, whichever order
    shifted = rows.clone()
    shifted[2, 1, 2] += 0.3
    value = made.model(shifted)
    assert value[:2].abs().max() < 1e-9
    assert abs(float(value[2])) > 1e-3


def test_a_structure_has_the_same_answer_in_any_order(tmp_path: Path) -> None:
    first, second = cluster(), cluster()
    second.rattle(0.02, seed=9)
    write(tmp_path / "a.xyz", [first, second], format="extxyz")
    write(tmp_path / "b.xyz", [second, first], format="extxyz")
    found = []
    for name in ("a.xyz", "b.xyz"):
        made = case(Request(data=str(tmp_path / name), model="emt"))
        evidence = Evidence()
        audit_case(
            replace(made, attacks=("pgd:steps=3",), curve=False, summary=lambda *_: ()), run=Run(evidence=evidence)
        )
        points = evidence.tensors()
        found.append({int(x[-1, 0]): point for x, point in zip(points["x"], points["x_adv"], strict=True)})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 2
    assert all(torch.equal(found[0][tag], found[1][tag]) for tag in found[0])


def test_rows_of_other_structures_are_one_sentence() -> None:
    made = case(Request(limit=1))
    x = next(iter(made.batches))[0]
    assert isinstance(x, torch.Tensor)
    strange = x.clone()
    strange[0, -1, 0] += 1
    with pytest.raises(ValueError, match=r"names the structure .*, which is not among these 1"):
        made.model(strange)
    with pytest.raises(ValueError, match="names a structure that is not among the 1 of the terms"):
        CHECKERS["atoms"]({"domain_terms": made.terms}, strange, strange)


def test_another_potential_beside_the_first(tmp_path: Path) -> None:
    schema = tmp_path / "s.toml"
    schema.write_text('reference = "emt"\npotential = "graph"\nnorm = "atom"\neps = 0.1\nrise = 0.2\n')
    made = case(Request(schema=schema, limit=1))
    result = audit_case(replace(made, attacks=("fgsm",), curve=False))
    section = result.sections[-1]
    assert section.title == "Against EMT"
    untouched, _, attacked = (float(cell) for cell in section.rows[0][1:4])
    assert untouched < 20
    assert attacked >= 0
    assert result.hashes["weights"]
    assert result.hashes["schema"]


def test_disagreement_is_a_question_of_its_own(tmp_path: Path) -> None:
    schema = tmp_path / "s.toml"
    schema.write_text('reference = "emt"\npotential = "graph"\ndisagreement = 0.05\nnorm = "atom"\neps = 0.2\n')
    made = case(Request(schema=schema, limit=1))
    x, level = next(iter(made.batches))
    assert level is not None
    assert level.tolist() == [0.05]
    clean = float(made.model(x)[0])
    result = audit_case(replace(made, attacks=("pgd:steps=8",), curve=False, summary=lambda *_: ()))
    assert made.terms["value"] == "disagreement of the energies"
    assert result.clean_right == int(clean < 0.05)


def bad_files(folder: Path) -> Path:
    write(folder / "a.xyz", Atoms("Cu2", positions=[(0, 0, 0), (0, 0, 2.2)]), format="extxyz")
    (folder / "b.xyz").write_text("2\nnothing\nCu 0 0\n")
    write(folder / "c.xyz", Atoms("Cu2", positions=[(0, 0, np.nan), (0, 0, 2.2)]), format="extxyz")
    return folder


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"b\.xyz cannot be read as structures \(.*\); check it"):
        case(Request(data=str(bad_files(tmp_path)), model="emt"))
    with pytest.raises(LoadError, match="does not exist; pass a file"):
        read_structures(tmp_path / "none.xyz")


def test_bad_structures_are_left_out_and_counted(tmp_path: Path) -> None:
    made = case(Request(data=str(bad_files(tmp_path)), model="emt", skip_bad=True))
    assert made.total == 1
    assert any("2 bad structures were left out; the first" in note for note in made.notes)
    result = audit_case(replace(made, attacks=("fgsm",), curve=False, summary=lambda *_: ()))
    assert any("2 bad structures" in note for note in result.notes)


def test_where_nothing_is_left_the_reason_is_said(tmp_path: Path) -> None:
    write(tmp_path / "c.xyz", Atoms("Cu2", positions=[(0, 0, np.nan), (0, 0, 2.2)]), format="extxyz")
    with pytest.raises(
        ValueError, match=r"1 were given, 1 left out; the first: the structure .* has positions with nan"
    ):
        case(Request(data=str(tmp_path / "c.xyz"), model="emt", skip_bad=True))


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "has no atoms; leave it out"),
        (Atoms("Cu", positions=[(0, np.inf, 0)]), "has positions with inf at row 0, y; correct it"),
        ("POSCAR", "is a str; pass an ase.Atoms"),
        (Atoms("Cu2", positions=[(0, 0, 0), (0, 0, 1e-9)]), "do atoms lie on each other"),
    ],
)
def test_structures_that_cannot_be_used_are_one_sentence(atoms: Any, message: str) -> None:
    class Repulsive(Springs):
        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
            super().calculate(atoms, properties, system_changes)
            self.results["energy"] = float("inf")

    with pytest.raises(ValueError, match=message):
        gather([atoms], as_potential(Repulsive()))  # type: ignore[no-untyped-call]


def test_unequal_lengths_are_one_sentence() -> None:
    pair = Atoms("Cu2", positions=[(0, 0, 0), (0, 0, 2.2)])
    with pytest.raises(ValueError, match="rise has 3 entries for 1 structures; pass one number, or one for each"):
        gather([pair], as_potential(springs()), rise=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="names has 2 entries for 1 structures"):
        gather([pair], as_potential(springs()), names=["a", "b"])

    class Short(Springs):
        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
            super().calculate(atoms, properties, system_changes)
            self.results["forces"] = self.results["forces"][:1]

    with pytest.raises(ValueError, match=r"forces of shape \(1, 3\) for the 2 atoms"):
        gather([pair], as_potential(Short()))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rise = -1.0", "rise=-1.0; pass energies in eV above 0"),
        ('rise = "much"', "rise = 'much'; pass a number in eV"),
        ('norm = "l1"', "norm='l1'; pass linf, atom or l2"),
        ("eps = 0", "eps=0.0; pass a length"),
        ("steps = 4", "'steps' is not known; write one of rise"),
        ("disagreement = 0.1", "disagreement needs a second potential"),
        ("quiet = 3", "quiet = 3; write the numbers relative and floor"),
        ("potential = 3", "potential = 3; pass a text"),
        ("fmax = -1.0", "fmax=-1.0; pass a share between 0 and 1"),
    ],
)
def test_a_schema_that_makes_no_sense_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{path}: .*{message}"):
        read_schema(path)


def test_the_template_is_a_schema(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(infer(Request()))
    assert read_schema(path).rise == 0.3
    path.write_text("rise = [")
    with pytest.raises(LoadError, match="is not TOML"):
        read_schema(path)


def test_levels_for_each_structure(tmp_path: Path) -> None:
    schema = tmp_path / "s.toml"
    schema.write_text("rise = [0.1, 0.2, 1e3]")
    made = case(Request(data=str(several(tmp_path / "s.xyz")), schema=schema))
    assert [float(y) for _, y in made.batches if y is not None] == [0.1, 0.2, 1e3]
    result = audit_case(replace(made, attacks=("pgd:steps=5",), curve=False, summary=lambda *_: ()))
    assert result.worst_case == "ffh"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(threat="pixel:0.1"), "norm='pixel'; pass linf, atom or l2"),
        (Request(threat="linf:far"), "threat='linf:far'; write linf:0.05"),
        (Request(model="emd"), "potential='emd' is not one of emt, lj, morse, graph"),
        (Request(model="nowhere:calc"), "nowhere:calc: the module cannot be imported"),
        (Request(model="ase:nothing"), "the module ase has no function nothing"),
        (Request(model_args=("speed=3",), model="graph"), "takes no arguments, got"),
        (Request(label_column="y"), "label_column='y' has no meaning"),
    ],
)
def test_requests_that_make_no_sense_are_one_sentence(request_: Request, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        case(request_)


def test_the_threat_on_the_command_line_comes_first() -> None:
    made = case(Request(threat="atom:0.2", limit=1))
    assert str(made.threat).startswith("atom eps=0.2 A")
    assert made.terms["norm"] == "atom"
    assert made.terms["eps"] == 0.2
