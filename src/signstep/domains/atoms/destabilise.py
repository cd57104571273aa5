"""The first question: which displacement of at most eps raises the energy most?"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from signstep.attacks.recipes import recipe as find_recipe
from signstep.domains.atoms.measures import Before, before, curvature, largest_force, random_gains, work
from signstep.domains.atoms.potential import Quiet, as_potential
from signstep.domains.atoms.results import Destabilised
from signstep.domains.atoms.second_order import RECIPES
from signstep.domains.atoms.structures import gather, need_ase
from signstep.domains.atoms.surface import Surface
from signstep.domains.atoms.threat import AtomsThreat, atoms_threat
from signstep.domains.own_attacks import named_in
from signstep.engine.attack import Attack
from signstep.errors import InputError
from signstep.maximum import Maximum, maximise
from signstep.messages import Arg
from signstep.model.search import Search

NormName = Literal["linf", "atom", "l2"]

# What "auto" tries: one step, iterated steps, and the curvature's own direction.
AUTO = ("fgsm", "pgd:steps=20,restarts=2", "second-order")


def destabilise(
    atoms: Any,
    *,
    eps: float = 0.1,
    norm: NormName = "atom",
    recipe: str | Attack = "auto",
    potential: Any = None,
    which: Sequence[int] | str | None = None,
    controls: int = 32,
    fmax: float = 0.05,
    quiet: Quiet | None = None,
    seed: int = 0,
) -> Destabilised:
    """Displace the atoms by at most eps so that the energy rises as much as it can.

    A single step moves each coordinate by -eps * sign(force) (linf) or each atom by eps against its force (atom).
    Constraints of the structure are obeyed; cell and periodic directions stay.

    Args:
        atoms: an `ase.Atoms`; left as it is.
        eps: Angstrom.
        norm: "atom", each atom by at most eps; "linf", each coordinate; "l2", the length of all together.
        recipe: "fgsm", "pgd:steps=50,restarts=4", "second-order", ...; "auto" takes the best of fgsm, pgd and
            second-order.
        potential: an ASE calculator, or a torch function ``(positions (R, N, 3), atoms) -> (R,)`` in eV; None for
            ``atoms.calc``.
        which: atoms that may move: indices, True or False for each, or elements such as "O"; None for all.
        controls: random displacements of the same size to compare with.
        fmax: a structure counts as relaxed if its forces are at most this share of those that the displaced one has.
        quiet: which forces count as zero.
        seed: all randomness.

    Raises:
        InputError: the structure or an option does not fit.
        ModelError: the potential has no forces, or fails.

    Example:
        >>> from ase.build import bulk
        >>> from ase.calculators.emt import EMT
        >>> copper = bulk("Cu", cubic=True)
        >>> copper.calc = EMT()
        >>> found = destabilise(copper, eps=0.1)
        >>> found.relaxed, bool(found.gain > found.random.max() > found.promise)
        (True, True)
    """
    surface = surface_of(atoms, potential, which, quiet)
    threat = atoms_threat(norm, eps, (surface.structures[0].freedom,), (surface.structures[0].tag,))
    here = before(surface, threat, 0)
    names = list(AUTO) if recipe == "auto" else [recipe]
    found = {name_of(name): climb(surface, threat, name, seed) for name in names}
    best = max(found, key=lambda name: float(found[name].gain[0]))
    top = found[best]
    assert isinstance(top.x, Tensor)
    facts = measured(surface, here, top.x, norm, relaxed=here.relaxed(fmax, largest_force(surface, threat, 0, top.x)))
    random = random_gains(surface, threat, 0, controls, seed) if controls else np.zeros(0)
    return Destabilised(
        **facts,
        recipe=best,
        tried={name: float(one.gain[0]) for name, one in found.items()},
        verified=bool(top.verified[0]),
        calculations=int(sum(int(one.forwards[0]) for one in found.values())),
        notes=(*relaxed_notes(facts, fmax), *_unlucky(top, random)),
        eps=float(eps),
        random=random,
    )


def surface_of(atoms: Any, potential: Any, which: Sequence[int] | str | None, quiet: Quiet | None) -> Surface:
    """The surface around one structure.

    Raises:
        InputError: the structure does not fit.
        ModelError: there is no potential, or it has no forces.
    """
    need_ase()
    given = getattr(atoms, "calc", None) if potential is None else potential
    if given is None:
        raise InputError("the structure has no calculator", remedy=("set atoms.calc, or pass", Arg("potential")))
    read = as_potential(given)
    return Surface(gather([atoms], read, which=which).structures, read, quiet or Quiet())


def climb(surface: Surface, threat: AtomsThreat, recipe: str | Attack, seed: int) -> Maximum:
    """One recipe on the surface's first structure."""
    return maximise(surface, surface.rows([0]), threat, attack_of(recipe), search=Search(seed=seed))


def attack_of(recipe: str | Attack) -> Attack:
    """A recipe of the engine, or "second-order" with its options steps and restarts."""
    found = named_in(RECIPES)(recipe) if isinstance(recipe, str) else None
    return find_recipe(recipe) if found is None else found


def name_of(recipe: str | Attack) -> str:
    """What a recipe is called in results."""
    return recipe.partition(":")[0] if isinstance(recipe, str) else recipe.name


def measured(surface: Surface, here: Before, x: Tensor, norm: str, *, relaxed: bool) -> dict[str, Any]:
    """What `Displaced` says of a displaced row (1, N + 1, 3)."""
    from ase.calculators.singlepoint import SinglePointCalculator

    structure = surface.structures[0]
    start = surface.rows([0])
    d = (x - start)[0]
    both = torch.cat([start, x])[:, : len(structure)]
    energies, forces = surface.potential.forces(both, structure.atoms)
    gain, along = float(energies[1] - energies[0]), float((here.gradient * d).sum())
    displaced = structure.atoms.copy()
    displaced.set_positions(both[1].numpy(), apply_constraint=False)
    displaced.calc = SinglePointCalculator(  # type: ignore[no-untyped-call]
        displaced, energy=float(energies[1]), forces=forces[1].numpy()
    )
    lengths = {"linf": d.abs().max(), "atom": d.norm(dim=1).max(), "l2": d.norm()}
    return {
        "start": structure.atoms.copy(),
        "atoms": displaced,
        "displacement": d[: len(structure)].numpy(),
        "energies": (float(energies[0]), float(energies[1])),
        "forces": (forces[0].numpy(), forces[1].numpy()),
        "norm": norm,
        "size": float(lengths[norm]),
        "gain": gain,
        "promise": here.promise,
        "along": along,
        "curvature": curvature(gain, along, d),
        "work": work(surface, 0, d),
        "largest_force": here.largest,
        "relaxed": relaxed,
    }


def relaxed_notes(facts: Mapping[str, Any], fmax: float) -> tuple[str, ...]:
    """How little first order says of a relaxed structure, where it is one; from what `measured` says."""
    if not facts["relaxed"]:
        return ()
    return (
        f"the structure is relaxed (largest force {facts['largest_force']:.2g} eV/A, at most {fmax:.0%} of that after "
        f"the displacement): first order promises {facts['promise']:.2g} of {facts['gain']:.2g} eV, the rest is "
        "curvature; pgd and second-order start at random",
    )


def _unlucky(top: Maximum, random: "np.ndarray[Any, Any]") -> tuple[str, ...]:
    notes = [note for note in top.notes if "no gradient" not in note]
    if len(random) and random.max() > float(top.gain[0]):
        notes.append(
            f"a random displacement gained more ({random.max():.4f} eV) than this recipe; try recipe='auto' or more "
            "steps and restarts"
        )
    if not bool(top.verified[0]):
        notes.append("the displacement failed the independent check and proves nothing")
    return tuple(notes)
