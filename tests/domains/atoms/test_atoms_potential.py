"""Energies and forces: one calculation, the right sign, any calculator, any torch function."""

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from atom_samples import bowl, cluster, emt, slab

from signstep.domains.atoms import AseCalculator, Quiet, TorchPotential, destabilise, graph_potential
from signstep.domains.atoms.bundled import facts
from signstep.domains.atoms.potential import as_potential, energy
from signstep.errors import LoadError, ModelError


def slope_by_differences(positions: torch.Tensor, potential: Any, atoms: Any) -> "np.ndarray[Any, Any]":
    found = np.zeros(positions.shape)
    for place in np.ndindex(*positions.shape):
        step = torch.zeros_like(positions)
        step[place] = 1e-4
        pair = torch.cat([positions + step, positions - step])
        high, low = potential.energies(pair, atoms).tolist()
        found[place] = (high - low) / 2e-4
    return found


@pytest.mark.parametrize("kind", ["emt", "graph"])
def test_the_gradient_is_that_of_the_energy(kind: str) -> None:
    atoms = cluster() if kind == "graph" else slab()
    potential = graph_potential() if kind == "graph" else AseCalculator(emt())
    positions = torch.as_tensor(atoms.positions)[None].requires_grad_()
    (slope,) = torch.autograd.grad(energy(positions, potential, atoms, Quiet()).sum(), positions)
    expected = slope_by_differences(positions.detach(), potential, atoms)
    np.testing.assert_allclose(slope.numpy(), expected, atol=2e-5)


def test_rows_are_independent_and_the_gradient_follows_the_weight_of_each() -> None:
    atoms, potential = slab(), AseCalculator(emt())
    positions = torch.as_tensor(atoms.positions) + 0.05 * torch.randn(
        3, 13, 3, generator=torch.Generator().manual_seed(0)
    )
    alone = [potential.forces(row[None], atoms)[1] for row in positions]
    leaf = positions.clone().requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    (slope,) = torch.autograd.grad((weights * energy(leaf, potential, atoms, Quiet(0.0, 0.0))).sum(), leaf)
    for row in range(3):
        np.testing.assert_allclose(slope[row], -weights[row] * alone[row][0], atol=1e-12)


def test_energy_and_forces_are_one_calculation() -> None:
    class Counting(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012
        calls = 0

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
            super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
            self.calls += 1
            self.results = {"energy": float((atoms.positions**2).sum()), "forces": -2 * atoms.positions}

    calculator = Counting()  # type: ignore[no-untyped-call]
    atoms = Atoms("H2", positions=[(0, 0, 1), (0, 0.5, -1)])
    AseCalculator(calculator).forces(torch.as_tensor(atoms.positions)[None], atoms)
    assert calculator.calls == 1


def test_a_torch_function_is_differentiated_by_autograd() -> None:
    atoms, model = bowl(slope=1.0)
    found = destabilise(atoms, eps=0.05, norm="linf", recipe="fgsm", potential=model, controls=0)
    np.testing.assert_allclose(found.displacement.ravel(), 0.05 * np.sign(model.slope.numpy()), atol=1e-14)
    assert as_potential(model).name == "bowl"
    assert as_potential(torch.nn.Identity()).name == "Identity"


def test_the_quiet_rule_is_relative_to_each_structure_and_has_a_floor() -> None:
    forces = torch.tensor([[[1.0, 2e-6, 5e-7]], [[1e-3, 5e-10, 0.0]], [[9e-9, -8e-9, 1e-9]]], dtype=torch.float64)
    kept = Quiet(relative=1e-6, floor=1e-8)(forces)
    assert kept[0].tolist() == [[1.0, 2e-6, 0.0]]
    assert kept[1].tolist() == [[1e-3, 0.0, 0.0]]
    assert kept[2].tolist() == [[0.0, 0.0, 0.0]]


def test_the_graph_potential_is_as_good_as_its_file_says() -> None:
    stated = facts()
    potential, reference = graph_potential(), AseCalculator(emt())
    energies, forces = [], []
    for number, symbol in enumerate("ONCH"):
        atoms = slab(symbol, rattle=0.0)
        atoms.rattle(0.08, seed=100 + number)
        positions = torch.as_tensor(atoms.positions)[None]
        (e, f), (e_ref, f_ref) = potential.forces(positions, atoms), reference.forces(positions, atoms)
        energies.append(1000 * abs(float(e - e_ref)) / len(atoms))
        forces.append(float((f - f_ref).abs().mean()))
    assert stated["energy_error_mev_per_atom"] < 5
    assert np.mean(energies) < 5 * stated["energy_error_mev_per_atom"]
    assert np.mean(forces) < 5 * stated["force_error_ev_per_angstrom"]


def test_the_neighbour_list_is_made_again_when_atoms_have_moved_far() -> None:
    atoms = Atoms("Cu2", positions=[(0, 0, 0), (0, 0, 9.0)])
    potential = graph_potential()
    far = torch.as_tensor(atoms.positions)[None].clone()
    near = far.clone()
    near[0, 1, 2] = 2.5
    apart, close = float(potential.energies(far, atoms)[0]), float(potential.energies(near, atoms)[0])
    assert abs(close - apart) > 0.1
    both = potential.energies(torch.cat([far, near]), atoms)
    np.testing.assert_allclose(both, [apart, close], atol=1e-9)


@pytest.mark.parametrize(
    ("potential", "message"),
    [
        (7, "neither an ASE calculator nor a torch function"),
        (lambda positions, _: positions.sum((1, 2)).detach(), "does not depend on the positions through torch"),
        (lambda positions, _: positions.sum(), r"returned \(\) for 1 copies of a structure; return one energy"),
    ],
)
def test_what_is_no_potential_is_one_sentence(potential: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        destabilise(cluster(), potential=potential)


def test_a_calculator_without_forces_is_refused() -> None:
    class Flat(Calculator):
        implemented_properties = ["energy"]  # noqa: RUF012

    atoms = cluster()
    atoms.calc = Flat()  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match=r"the calculator Flat gives energy but no forces, .*; pass a calculator"):
        destabilise(atoms)


def test_a_calculator_that_fails_is_named() -> None:
    atoms = Atoms("Fe2", positions=[(0, 0, 0), (0, 0, 2)])
    atoms.calc = emt()
    with pytest.raises(ModelError, match=r"the calculator EMT failed on Fe2 with .*; check that it works"):
        destabilise(atoms)


def test_elements_that_the_network_does_not_know_are_named() -> None:
    atoms = Atoms("Au2", positions=[(0, 0, 0), (0, 0, 2.8)])
    with pytest.raises(ValueError, match=r"trained on the atomic numbers \[1, 6, 7, 8, 29\], the structure has \[79\]"):
        destabilise(atoms, potential=graph_potential())


def test_weights_that_are_none_are_named(tmp_path: Any) -> None:
    place = tmp_path / "w.safetensors"
    place.write_bytes(b"nothing")
    with pytest.raises(LoadError, match="does not hold a graph potential"):
        graph_potential(place)


def test_a_label_names_a_torch_potential() -> None:
    assert TorchPotential(lambda positions, _: positions.sum((1, 2)), "mine").name == "mine"
