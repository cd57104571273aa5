"""Small structures and potentials with known answers."""

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from torch import Tensor


def slab(adsorbate: str = "O", rattle: float = 0.05) -> Any:
    """Cu(111) with an adsorbate, lowest layer held, not relaxed; 13 atoms, EMT."""
    atoms: Any = fcc111("Cu", (2, 2, 3), a=3.61, vacuum=8.0)  # type: ignore[no-untyped-call]
    add_adsorbate(atoms, adsorbate, 1.2, "fcc")  # type: ignore[no-untyped-call]
    if rattle:
        atoms.rattle(rattle, seed=7)
    atoms.set_constraint(FixAtoms([atom.index for atom in atoms if atom.tag == 3]))  # type: ignore[no-untyped-call]
    atoms.calc = emt()
    return atoms


def emt() -> Any:
    return EMT()  # type: ignore[no-untyped-call]


def cluster() -> Any:
    """Water's shape with EMT's elements, bent: no symmetry, no cell."""
    atoms: Any = molecule("CH3OH")  # type: ignore[no-untyped-call]
    atoms.rattle(0.05, seed=3)
    atoms.calc = emt()
    return atoms


class Bowl:
    """E = 1/2 d^T K d around given positions, d the displacement: everything about it is known."""

    __name__ = "bowl"

    def __init__(self, positions: Any, stiffness: Any, slope: Any = None) -> None:
        self.middle = torch.as_tensor(np.array(positions, dtype=np.float64))
        self.stiffness = torch.as_tensor(stiffness)
        self.slope = torch.zeros(len(self.stiffness), dtype=torch.float64) if slope is None else torch.as_tensor(slope)

    def __call__(self, positions: Tensor, atoms: Any) -> Tensor:  # noqa: ARG002
        d = (positions - self.middle).flatten(1)
        return 0.5 * ((d @ self.stiffness) * d).sum(1) + d @ self.slope


def bowl(count: int = 4, seed: int = 0, slope: float = 0.0) -> tuple[Any, Bowl]:
    """Atoms at rest in a bowl of random stiffness, or on a slope of that size."""
    random = np.random.default_rng(seed)
    atoms: Any = Atoms("Cu" * count, positions=3 * random.standard_normal((count, 3)))
    root = random.standard_normal((3 * count, 3 * count))
    tilt = slope * random.standard_normal(3 * count)
    return atoms, Bowl(atoms.positions, root @ root.T / count, tilt)
