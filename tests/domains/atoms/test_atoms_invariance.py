"""What does not matter: where the structure lies, how it is turned, and which of equal atoms is which."""

import numpy as np
import pytest
from ase import Atoms
from atom_samples import cluster, emt, slab
from scipy.spatial.transform import Rotation

from signstep.domains.atoms import destabilise, graph_potential


@pytest.mark.parametrize("norm", ["linf", "atom", "l2"])
@pytest.mark.parametrize("recipe", ["fgsm", "bim:steps=5"])
def test_a_translation_changes_nothing(norm: str, recipe: str) -> None:
    atoms = slab()
    moved = slab()
    moved.positions += (0.31, -1.7, 0.05)
    here = destabilise(atoms, eps=0.05, norm=norm, recipe=recipe, controls=0)  # type: ignore[arg-type]
    there = destabilise(moved, eps=0.05, norm=norm, recipe=recipe, controls=0)  # type: ignore[arg-type]
    np.testing.assert_allclose(there.displacement, here.displacement, atol=1e-9)
    assert there.gain == pytest.approx(here.gain, abs=1e-9)


def test_wrapping_atoms_into_the_cell_changes_nothing() -> None:
    atoms, wrapped = slab(), slab()
    atoms.positions -= (1.0, 1.0, 0.0)
    wrapped.positions -= (1.0, 1.0, 0.0)
    wrapped.set_scaled_positions(wrapped.get_scaled_positions(wrap=True))
    assert not np.allclose(wrapped.positions, atoms.positions)
    here = destabilise(atoms, eps=0.05, recipe="fgsm", controls=0)
    there = destabilise(wrapped, eps=0.05, recipe="fgsm", controls=0)
    np.testing.assert_allclose(there.displacement, here.displacement, atol=1e-9)


@pytest.mark.parametrize("norm", ["atom", "l2"])
@pytest.mark.parametrize("recipe", ["fgsm", "bim:steps=5"])
def test_a_rotation_turns_the_displacement_with_it(norm: str, recipe: str) -> None:
    turn = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    atoms, turned = cluster(), cluster()
    turned.positions = turned.positions @ turn.T
    here = destabilise(atoms, eps=0.05, norm=norm, recipe=recipe, controls=0)  # type: ignore[arg-type]
    there = destabilise(turned, eps=0.05, norm=norm, recipe=recipe, controls=0)  # type: ignore[arg-type]
    np.testing.assert_allclose(there.displacement, here.displacement @ turn.T, atol=1e-8)
    assert there.gain == pytest.approx(here.gain, abs=1e-9)


def test_the_cube_of_linf_is_not_turned_with_it() -> None:
    turn = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    atoms, turned = cluster(), cluster()
    turned.positions = turned.positions @ turn.T
    here = destabilise(atoms, eps=0.05, norm="linf", recipe="fgsm", controls=0)
    there = destabilise(turned, eps=0.05, norm="linf", recipe="fgsm", controls=0)
    assert np.abs(there.displacement - here.displacement @ turn.T).max() > 0.01


@pytest.mark.parametrize("recipe", ["fgsm", "bim:steps=5"])
def test_atoms_that_a_symmetry_exchanges_move_alike(recipe: str) -> None:
    corners = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)], dtype=float)
    atoms = Atoms("Cu4Ni", positions=[*(0.8 * corners), (0, 0, 0)])
    atoms.calc = emt()
    found = destabilise(atoms, eps=0.05, norm="atom", recipe=recipe, controls=0)
    outward = (found.displacement[:4] * corners).sum(1) / np.sqrt(3)
    np.testing.assert_allclose(np.abs(outward), 0.05, rtol=1e-9)  # along the axes of symmetry, all by the same length
    assert np.ptp(outward) < 1e-9
    assert (found.displacement[4] == 0).all()  # the one in the middle has no direction to prefer


def test_the_graph_potential_sees_distances_alone() -> None:
    import torch

    potential = graph_potential()
    atoms = cluster()
    turn = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    order = np.random.default_rng(0).permutation(len(atoms))
    other = Atoms(atoms.numbers[order], positions=atoms.positions[order] @ turn.T + (4.0, -2.0, 1.0))

    def ask(structure: Atoms) -> tuple[float, torch.Tensor]:
        energies, forces = potential.forces(torch.as_tensor(structure.positions)[None], structure)
        return float(energies[0]), forces[0]

    energy, forces = ask(atoms)
    same, turned = ask(other)
    assert same == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(turned.numpy(), forces.numpy()[order] @ turn.T, atol=1e-8)
