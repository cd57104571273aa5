"""The step: against the forces, as far as eps allows, and nowhere else."""

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from atom_samples import cluster, emt, slab

from signstep.domains.atoms import Quiet, destabilise


def test_one_step_is_eps_against_the_sign_of_each_force() -> None:
    atoms = slab()
    found = destabilise(atoms, eps=0.07, norm="linf", recipe="fgsm", controls=0)
    forces = atoms.get_forces(apply_constraint=True)
    np.testing.assert_allclose(found.displacement, -0.07 * np.sign(forces), atol=1e-14)
    assert found.verified
    assert (found.displacement[:4] == 0).all()


def test_one_step_of_the_atom_norm_is_eps_against_each_force() -> None:
    atoms = cluster()
    found = destabilise(atoms, eps=0.07, norm="atom", recipe="fgsm", controls=0)
    forces = atoms.get_forces()
    lengths = np.linalg.norm(forces, axis=1, keepdims=True)
    np.testing.assert_allclose(found.displacement, -0.07 * forces / lengths, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "atom", "l2"])
def test_first_order_promises_eps_times_the_dual_norm_of_the_forces(norm: str) -> None:
    atoms = slab()
    found = destabilise(atoms, eps=0.03, norm=norm, recipe="fgsm", controls=0)  # type: ignore[arg-type]
    forces = atoms.get_forces(apply_constraint=True)
    dual = {"linf": np.abs(forces).sum(), "atom": np.linalg.norm(forces, axis=1).sum(), "l2": np.linalg.norm(forces)}
    assert found.promise == pytest.approx(0.03 * dual[norm], rel=1e-9)
    assert found.along == pytest.approx(found.promise, rel=1e-9)


@pytest.mark.parametrize("norm", ["linf", "atom", "l2"])
@pytest.mark.parametrize(
    "recipe", ["fgsm", "bim:steps=4", "pgd:steps=6", "mi-fgsm:steps=4", "apgd:steps=6", "second-order"]
)
def test_every_recipe_keeps_eps_and_what_is_held(norm: str, recipe: str) -> None:
    atoms = slab()
    found = destabilise(atoms, eps=0.05, norm=norm, recipe=recipe, controls=4)  # type: ignore[arg-type]
    lengths = {
        "linf": np.abs(found.displacement).max(),
        "atom": np.linalg.norm(found.displacement, axis=1).max(),
        "l2": np.linalg.norm(found.displacement),
    }
    assert found.verified
    assert lengths[norm] <= 0.05 * (1 + 1e-12)
    assert (found.atoms.positions[:4] == atoms.positions[:4]).all()
    again = found.atoms.copy()
    again.calc = emt()
    assert again.get_potential_energy() - atoms.get_potential_energy() == pytest.approx(found.gain, abs=1e-10)
    assert found.gain > found.random.max()


def test_the_structure_and_its_calculator_stay_as_they_were() -> None:
    atoms = slab()
    positions, calculator = atoms.positions.copy(), atoms.calc
    destabilise(atoms, eps=0.1, controls=2)
    assert (atoms.positions == positions).all()
    assert atoms.calc is calculator
    assert len(atoms.constraints) == 1


def test_an_atom_without_a_force_does_not_move_by_the_sign_of_rounding() -> None:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.positions[0, 2] += 0.2
    atoms.calc = emt()
    forces = atoms.get_forces()
    tiny = (np.abs(forces) < 1e-12) & (forces != 0)
    assert tiny.any(), "the sample has no rounding noise to test with"
    found = destabilise(atoms, eps=0.05, norm="linf", recipe="fgsm", controls=0)
    assert (found.displacement[np.abs(forces) < 1e-12] == 0).all()
    assert (found.displacement[np.abs(forces) > 1e-3] != 0).all()
    loud = destabilise(atoms, eps=0.05, norm="linf", recipe="fgsm", controls=0, quiet=Quiet(0.0, 0.0))
    assert np.abs(loud.displacement[tiny]) == pytest.approx(0.05), "without the tolerance rounding moves atoms"


def test_a_perfect_crystal_has_no_force_at_all() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = emt()
    found = destabilise(atoms, eps=0.05, recipe="fgsm", controls=0)
    assert (found.displacement == 0).all()
    assert found.gain == 0
    assert found.promise == 0
    assert found.relaxed


def test_periodic_cells_stay_and_positions_are_not_wrapped() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)  # type: ignore[no-untyped-call]
    atoms.positions -= 0.3  # some lie outside the cell now
    atoms.calc = emt()
    found = destabilise(atoms, eps=0.05, norm="linf", recipe="fgsm", controls=0)
    assert (np.asarray(found.atoms.cell) == np.asarray(atoms.cell)).all()
    assert found.atoms.pbc.all()
    np.testing.assert_allclose(found.atoms.positions - atoms.positions, found.displacement, atol=1e-14)


def test_only_the_chosen_atoms_move() -> None:
    atoms = slab()
    found = destabilise(atoms, eps=0.05, recipe="pgd:steps=4", which="O", controls=0)
    assert (found.displacement[:-1] == 0).all()
    assert (found.displacement[-1] != 0).any()
    flags = [atom.symbol == "O" for atom in atoms]
    same = destabilise(atoms, eps=0.05, recipe="pgd:steps=4", which=flags, controls=0)
    assert (same.displacement == found.displacement).all()
    atoms.set_constraint(FixAtoms([12]))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match=r"no atom of the structure .* may move; free some, or leave it out"):
        destabilise(atoms, which=[12])
