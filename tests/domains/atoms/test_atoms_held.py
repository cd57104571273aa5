"""What holds atoms: exact steps and projections inside it, ASE as the referee, and a checker that sees every breach."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixedLine, FixedPlane, FixScaled, Hookean
from atom_samples import Bowl, emt, slab
from scipy.optimize import linprog

from signstep.domains.atoms import check, destabilise, smallest_rise
from signstep.domains.atoms.freedom import Freedom, freedom_of
from signstep.domains.atoms.region import HeldRegion
from signstep.domains.atoms.threat import AtomsThreat, atoms_threat
from signstep.engine.keys import Key
from signstep.engine.region import BallRegion

NORMS = ("linf", "atom", "l2")


def held_slab() -> Any:
    atoms = slab()
    atoms.set_constraint(
        [
            FixAtoms([0, 1]),  # type: ignore[no-untyped-call]
            FixCartesian([2, 3], (True, False, True)),  # type: ignore[no-untyped-call]
            FixedPlane([4, 5], (1, 2, -1)),  # type: ignore[no-untyped-call]
            FixedPlane([6], (0, 0, 1)),  # type: ignore[no-untyped-call]
            FixedLine([7, 8], (1, 2, 3)),  # type: ignore[no-untyped-call]
            FixScaled([9], (False, True, False)),  # type: ignore[no-untyped-call]
            FixedPlane([10], (1, 1, 0)),  # type: ignore[no-untyped-call]
            FixedPlane([10], (1, -1, 1)),  # type: ignore[no-untyped-call]
        ]
    )
    return atoms


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=5", "second-order:steps=4,restarts=1"])
def test_ase_itself_would_not_correct_the_displaced_positions(norm: str, recipe: str) -> None:
    atoms = held_slab()
    found = destabilise(atoms, eps=0.05, norm=norm, recipe=recipe, controls=0)  # type: ignore[arg-type]
    corrected = found.atoms.positions.copy()
    for constraint in atoms.constraints:
        constraint.adjust_positions(atoms, corrected)
    np.testing.assert_allclose(corrected, found.atoms.positions, atol=1e-12)
    assert found.verified
    assert (found.displacement[[0, 1]] == 0).all()
    assert (found.displacement[[2, 3]][:, [0, 2]] == 0).all()
    assert (np.abs(found.displacement[2:]).max(1) > 1e-9).all()  # everything else moves


def region(norm: str, normals: tuple[Any, ...], seed: int = 0) -> HeldRegion:
    freedom = Freedom(len(normals), (), tuple((atom, tuple(n)) for atom, ns in enumerate(normals) for n in ns))
    threat = atoms_threat(norm, 0.7, (freedom,))
    x = torch.zeros(1, len(normals) + 1, 3, dtype=torch.float64)
    x[0, :-1] = torch.as_tensor(np.random.default_rng(seed).standard_normal((len(normals), 3)))
    around = threat.around(x)
    assert isinstance(around, HeldRegion)
    return around


def units(count: int, seed: int) -> "np.ndarray[Any, Any]":
    vectors = np.random.default_rng(seed).standard_normal((count, 3))
    vectors[0] = (0, 0.6, 0.8)  # one normal that leaves an axis alone
    vectors[1] = (1 / np.sqrt(2), 1 / np.sqrt(2), 0)
    unit: np.ndarray[Any, Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def test_the_step_in_a_plane_is_the_best_one_there_is() -> None:
    normals = units(150, 1)
    gradient = np.random.default_rng(2).standard_normal((150, 3))
    around = region("linf", tuple((n,) for n in normals))
    padded = torch.zeros(1, 151, 3, dtype=torch.float64)
    padded[0, :150] = torch.as_tensor(gradient)
    step = around.steepest(padded)[0, :150].numpy()
    for own, normal, slope in zip(step, normals, gradient, strict=True):
        best = linprog(-slope, A_eq=normal[None], b_eq=[0.0], bounds=[(-0.7, 0.7)] * 3)
        assert own @ slope == pytest.approx(-best.fun, abs=1e-9)
        assert abs(own @ normal) < 1e-12
        assert np.abs(own).max() <= 0.7 + 1e-12


@pytest.mark.parametrize("norm", NORMS)
def test_the_step_on_a_line_and_the_projections_are_the_nearest_and_the_best(norm: str) -> None:
    random = np.random.default_rng(3)
    first, second = units(12, 4), np.random.default_rng(5).standard_normal((12, 3))
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    around = region(
        norm, tuple((a, b) if place % 2 else (a,) for place, (a, b) in enumerate(zip(first, second, strict=True)))
    )
    d = torch.zeros(1, 13, 3, dtype=torch.float64)
    d[0, :12] = torch.as_tensor(random.standard_normal((12, 3)))
    onto, steepest = around.project(d), around.steepest(d)
    # Feasible points from elsewhere: none is nearer to d, none goes further along it.
    for seed in range(60):
        other = around.sample(Key(seed).draws(torch.zeros(1, dtype=torch.int64), torch.device("cpu")))
        other = around.project(3 * other)
        assert float(((d - onto) * (other - onto)).sum()) <= 1e-9
        assert float((d * other).sum()) <= float((d * steepest).sum()) + 1e-9
    assert torch.allclose(around.project(onto), onto, atol=1e-12)


def test_what_is_held_along_the_axes_alone_is_an_ordinary_masked_ball() -> None:
    atoms = slab()
    atoms.set_constraint(
        [
            FixCartesian([0], (True, False, False)),  # type: ignore[no-untyped-call]
            FixedLine([1], (0, 0, 1)),  # type: ignore[no-untyped-call]
            FixedPlane([2], (0, 1, 0)),  # type: ignore[no-untyped-call]
        ]
    )
    freedom = freedom_of(atoms)
    assert freedom.normals == ()
    assert freedom.fixed == ((0, 0), (1, 0), (1, 1), (2, 1))
    threat = atoms_threat("linf", 0.1, (freedom,))
    x = torch.zeros(1, len(atoms) + 1, 3, dtype=torch.float64)
    around = threat.around(x)
    assert isinstance(around, BallRegion)
    for norm in NORMS:
        quick = atoms_threat(norm, 0.1, (freedom,)).around(x)
        assert isinstance(quick, BallRegion)
        slow = BallRegion(quick.norm, x, quick.radius, None, None, quick.mask, None)  # by the box of frozen coordinates
        d = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        assert torch.allclose(quick.steepest(d), slow.steepest(d), atol=1e-14)
        assert torch.allclose(quick.project(d), slow.project(d), atol=1e-14)
        d, half = quick.restrict(d), quick.radius / 2
        assert torch.allclose(quick.step(d, d, half), slow.step(d, d, half), atol=1e-14)


def threat_of(atoms: Any, norm: str = "linf", eps: float = 0.05) -> tuple[AtomsThreat, torch.Tensor]:
    x = torch.zeros(1, len(atoms) + 1, 3, dtype=torch.float64)
    x[0, :-1] = torch.as_tensor(atoms.positions)
    return atoms_threat(norm, eps, (freedom_of(atoms),)), x


@pytest.mark.parametrize(
    ("atom", "change"),
    [
        (12, (0.0501, 0.0, 0.0)),  # beyond eps
        (0, (1e-12, 0.0, 0.0)),  # a fixed atom
        (2, (0.0, 0.0, 1e-12)),  # a fixed coordinate
        (4, (0.01, 0.02, -0.01)),  # out of the plane
        (7, (0.01, 0.02, 0.0)),  # off the line
        (13, (1e-12, 0.0, 0.0)),  # the line that names the structure
    ],
)
def test_the_checker_sees_every_breach(atom: int, change: tuple[float, float, float]) -> None:
    atoms = held_slab()
    threat, x = threat_of(atoms)
    assert bool(threat.checked(x, x).ok[0])
    broken = x.clone()
    broken[0, atom] += torch.tensor(change, dtype=torch.float64)
    assert not bool(threat.checked(x, broken).ok[0])
    terms = json.loads(json.dumps({"domain_terms": threat.plain().to_plain()}))
    assert not bool(check(terms, x, broken).ok[0])
    assert bool(check(terms, x, x).ok[0])


def test_the_checker_measures_in_the_norm_of_the_threat() -> None:
    atoms = slab()
    for norm, length in (("linf", 0.03), ("atom", 0.05), ("l2", 0.05 * np.sqrt(2))):
        threat, x = threat_of(atoms, norm, eps=1.0)
        moved = x.clone()
        moved[0, 11] += torch.tensor([0.03, 0.0, 0.04 if norm != "linf" else 0.0], dtype=torch.float64)
        if norm == "l2":
            moved[0, 12] += torch.tensor([0.0, 0.05, 0.0], dtype=torch.float64)
        assert float(threat.checked(x, moved).size[0]) == pytest.approx(length, abs=1e-12)


def test_a_search_that_breaks_what_is_held_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = held_slab()
    honest = HeldRegion.land

    def careless(self: HeldRegion, d: Any) -> Any:
        return honest(self, d) + 1e-6  # everything by a millionth of an Angstrom

    monkeypatch.setattr(HeldRegion, "land", careless)
    found = destabilise(atoms, eps=0.05, recipe="fgsm", controls=0)
    assert not found.verified
    assert any("failed the independent check" in note for note in found.notes)


@pytest.mark.parametrize("constraint", [FixBondLengths([(11, 12)]), Hookean(11, 12, 5.0, rt=1.5)])  # type: ignore[no-untyped-call]
def test_other_constraints_are_refused_with_a_remedy(constraint: Any) -> None:
    atoms = slab()
    atoms.set_constraint(constraint)
    with pytest.raises(ValueError, match=rf"constraint {type(constraint).__name__}, .*; remove it"):
        destabilise(atoms)


def test_smallest_rise_keeps_planes_and_lines_too() -> None:
    atoms = held_slab()
    found = smallest_rise(atoms, rise=0.2, norm="atom", recipe="second-order:steps=4,restarts=1")
    corrected = found.atoms.positions.copy()
    for constraint in atoms.constraints:
        constraint.adjust_positions(atoms, corrected)
    np.testing.assert_allclose(corrected, found.atoms.positions, atol=1e-12)
    assert found.verified
    assert found.reached


def test_fractional_coordinates_stay_in_a_slanted_cell() -> None:
    atoms = bulk("Cu") * (2, 2, 1)
    atoms.rattle(0.05, seed=2)
    atoms.set_constraint(FixScaled([1], (True, False, False)))  # type: ignore[no-untyped-call]
    atoms.calc = emt()
    found = destabilise(atoms, eps=0.05, norm="linf", recipe="fgsm", controls=0)
    before, after = atoms.cell.scaled_positions(atoms.positions), atoms.cell.scaled_positions(found.atoms.positions)
    assert after[1, 0] == pytest.approx(before[1, 0], abs=1e-12)
    assert np.abs(found.displacement[1]).max() == pytest.approx(0.05)


def test_rounding_in_a_projected_gradient_moves_nothing() -> None:
    atoms = slab(rattle=0.0)
    atoms.set_constraint([FixedPlane([12], (1, 1, 0)), FixAtoms(list(range(12)))])  # type: ignore[no-untyped-call]
    slope = np.zeros(39)
    slope[36:] = (0.3, 0.3, 0.5)  # along the normal, and along z
    found = destabilise(
        atoms, eps=0.05, norm="linf", recipe="fgsm", potential=Bowl(atoms.positions, np.eye(39), slope), controls=0
    )
    np.testing.assert_allclose(found.displacement[12], (0, 0, 0.05), atol=1e-15)


def test_eps_of_the_threat_can_be_changed() -> None:
    threat, x = threat_of(held_slab())
    wider = replace(threat, eps=0.1, label="")
    moved = x.clone()
    moved[0, 12, 0] += 0.08
    assert not bool(threat.checked(x, moved).ok[0])
    assert bool(wider.checked(x, moved).ok[0])
