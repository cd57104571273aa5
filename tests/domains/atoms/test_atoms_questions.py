"""The two questions, where the answers are known: in a bowl, and in EMT."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read
from ase.optimize import BFGS
from atom_samples import Bowl, bowl, emt, slab

from signstep.domains.atoms import Destabilised, destabilise, smallest_rise


def stiffest(model: Bowl) -> float:
    return float(np.linalg.eigvalsh(model.stiffness.numpy())[-1])


def test_second_order_finds_the_stiffest_mode_of_a_bowl() -> None:
    atoms, model = bowl()
    found = destabilise(atoms, eps=0.1, norm="l2", recipe="second-order:steps=40,restarts=2", potential=model)
    assert found.relaxed
    assert found.promise == 0
    assert found.gain == pytest.approx(0.5 * stiffest(model) * 0.1**2, rel=1e-3)
    assert found.curvature == pytest.approx(stiffest(model), rel=1e-3)
    assert found.gain > found.random.max()


def test_a_single_step_from_rest_gains_nothing_and_the_tool_says_so() -> None:
    atoms, model = bowl()
    found = destabilise(atoms, eps=0.1, norm="l2", recipe="fgsm", potential=model, controls=0)
    assert found.gain == 0
    assert (found.displacement == 0).all()
    assert any(
        "the structure is relaxed" in note and "pgd and second-order start at random" in note for note in found.notes
    )


def test_auto_goes_second_order_where_first_order_has_nothing() -> None:
    atoms, model = bowl()
    found = destabilise(atoms, eps=0.1, norm="atom", potential=model)
    assert found.recipe in ("second-order", "pgd")
    assert found.tried["fgsm"] == 0
    assert found.gain == max(value for value in found.tried.values() if value is not None)
    assert found.gain > found.random.max()


def test_curvature_is_what_first_order_left_out() -> None:
    atoms, model = bowl(slope=0.5)
    found = destabilise(atoms, eps=0.1, norm="l2", recipe="fgsm", potential=model, controls=0)
    d = found.displacement.ravel()
    assert not found.relaxed
    assert found.along == pytest.approx(float(model.slope.numpy() @ d), rel=1e-9)
    assert found.curvature == pytest.approx(float(d @ model.stiffness.numpy() @ d / (d @ d)), rel=1e-6)


def test_the_work_of_all_atoms_is_the_energy_gained() -> None:
    atoms, model = bowl(slope=0.5)
    found = destabilise(atoms, eps=0.3, potential=model, controls=0)
    d = found.displacement
    exact = (d * (model.slope.numpy() + 0.5 * model.stiffness.numpy() @ d.ravel()).reshape(-1, 3)).sum(1)
    np.testing.assert_allclose(found.work, exact, atol=1e-12)
    assert found.sensitive[0].index == int(np.argmax(exact))
    real = destabilise(slab(), eps=0.1, controls=0)
    assert real.work.sum() == pytest.approx(real.gain, abs=1e-6)


@pytest.mark.parametrize(
    ("recipe", "slack"), [("second-order:steps=20,restarts=1", 0.02), ("pgd:steps=20", 0.4), ("auto", 0.02)]
)
def test_the_smallest_rise_of_a_bowl_in_l2(recipe: str, slack: float) -> None:
    atoms, model = bowl()
    found = smallest_rise(atoms, rise=0.05, norm="l2", recipe=recipe, potential=model)
    exact = np.sqrt(2 * 0.05 / stiffest(model))
    assert found.reached
    assert found.gain >= 0.05
    assert exact * (1 - 1e-6) <= found.size <= exact * (1 + slack)
    assert found.random_size > found.size
    assert found.linear_size == np.inf


@pytest.mark.parametrize(("norm", "recipe"), [("l2", "ddn:init=0.1"), ("l2", "fmn:step=0.3"), ("linf", "fmn:step=0.3")])
def test_attacks_for_the_smallest_change_need_a_force_to_begin_with(norm: Any, recipe: str) -> None:
    atoms, model = bowl(slope=1.0)
    found = smallest_rise(atoms, rise=0.2, norm=norm, recipe=recipe, potential=model)
    other = smallest_rise(atoms, rise=0.2, norm=norm, recipe="pgd:steps=10", potential=model)
    assert found.reached
    assert found.verified
    assert found.size <= other.size * 1.05
    assert found.size < found.random_size
    rest, still = bowl()
    stuck = smallest_rise(rest, rise=0.2, norm=norm, recipe=recipe, potential=still)
    assert not stuck.reached
    assert any("no force gives a direction" in note for note in stuck.notes)


def test_on_a_plain_slope_first_order_is_right_about_the_size() -> None:
    atoms, model = bowl(slope=1.0)
    model.stiffness = model.stiffness * 0
    for norm in ("l2", "linf", "atom"):
        found = smallest_rise(atoms, rise=0.2, norm=norm, recipe="bim:steps=3", potential=model)
        assert found.size == pytest.approx(found.linear_size, rel=1e-3)


def test_what_cannot_be_reached_is_said() -> None:
    atoms, model = bowl()
    found = smallest_rise(atoms, rise=1e6, norm="atom", recipe="pgd:steps=5", largest=0.1, potential=model)
    assert not found.reached
    assert found.tried == {"pgd": None}
    assert any("no displacement up to 0.1 A" in note for note in found.notes)
    assert "not reached" in str(found)


def test_a_relaxed_slab_with_an_adsorbate_in_emt() -> None:
    atoms = slab(rattle=0.0)
    BFGS(atoms, logfile=None).run(fmax=0.01)  # type: ignore[no-untyped-call]
    found = destabilise(atoms, eps=0.1, norm="atom", controls=16)
    assert found.relaxed
    assert found.gain > 2 * found.random.mean()
    assert found.gain > 20 * found.promise
    assert found.verified
    needed = smallest_rise(atoms, rise=0.5 * found.gain, norm="atom", recipe="second-order:steps=5,restarts=1")
    assert needed.reached
    assert needed.size < 0.1 < needed.linear_size


def test_extended_xyz_holds_both_frames(tmp_path: Path) -> None:
    atoms = slab()
    found = destabilise(atoms, eps=0.05, recipe="fgsm", controls=0)
    before, after = read(found.write_xyz(tmp_path / "out.xyz"), index=":")
    np.testing.assert_allclose(after.positions - before.positions, found.displacement, atol=2e-8)
    np.testing.assert_allclose(after.arrays["displacement"], found.displacement, atol=2e-8)
    np.testing.assert_allclose(after.arrays["work"], found.work, atol=2e-8)
    assert after.get_potential_energy() - before.get_potential_energy() == pytest.approx(found.gain, abs=1e-6)
    np.testing.assert_allclose(after.get_forces(apply_constraint=False), found.forces[1], atol=2e-8)
    assert after.info["recipe"] == "fgsm"
    again = after.copy()
    again.calc = emt()
    assert again.get_potential_energy() == pytest.approx(found.energies[1], abs=1e-5)


def test_the_drift_is_told_and_not_taken_out() -> None:
    atoms, model = bowl(slope=1.0)
    found = destabilise(atoms, eps=0.1, norm="linf", recipe="fgsm", potential=model, controls=0)
    np.testing.assert_allclose(found.drift, found.displacement.mean(0))
    assert np.abs(found.displacement).max() == pytest.approx(0.1)


def test_the_same_seed_gives_the_same_answer() -> None:
    def ask(seed: int) -> Destabilised:
        return destabilise(slab(), eps=0.05, recipe="pgd:steps=4", controls=4, seed=seed)

    first, same, other = ask(0), ask(0), ask(1)
    assert (first.displacement == same.displacement).all()
    assert (first.random == same.random).all()
    assert (first.random != other.random).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "norm='l1' is not for atoms; pass linf, atom"),
        ({"eps": -0.1}, "eps=-0.1 is negative"),
        ({"eps": "far"}, "eps='far' is not a number"),
        (
            {"recipe": "second-order:speed=3"},
            "'second-order' has no option 'speed=3'; its options are steps, restarts",
        ),
        ({"recipe": "nothing"}, "recipe='nothing' is not one of"),
        ({"which": [99]}, "which names the atom 99, the structure has 13"),
        ({"which": "Au"}, "has no atoms of 'Au'; pass one of"),
        ({"which": [True, False]}, "which has 2 entries for the 13 atoms"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        destabilise(slab(), **{"controls": 0, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rise": 0.0}, "rise=0.0; pass the energy"), ({"largest": -1.0}, "largest=-1.0; pass the longest")],
)
def test_wrong_sizes_are_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smallest_rise(slab(), **options)


def test_a_structure_without_calculator_is_one_sentence() -> None:
    atoms = slab()
    atoms.calc = None
    with pytest.raises(ValueError, match=r"no calculator; set atoms.calc, or pass potential="):
        destabilise(atoms)
