"""An oxygen atom on copper: which displacement costs the most energy, and which is the smallest that costs 0.5 eV?

    python examples/atoms/copper_slab.py

ASE's EMT; needs the extra atoms (pip install 'signstep[atoms]'). Writes copper.xyz: before and after, with forces,
displacements and the energy that each atom takes up. A few seconds on one core.
"""

from typing import Any

from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS

from signstep.domains.atoms import destabilise, graph_potential, smallest_rise


def slab() -> Any:
    """Cu(111), three layers of four, the lowest held; oxygen in a hollow; relaxed."""
    atoms: Any = fcc111("Cu", (2, 2, 3), a=3.61, vacuum=8.0)  # type: ignore[no-untyped-call]
    add_adsorbate(atoms, "O", 1.2, "fcc")  # type: ignore[no-untyped-call]
    atoms.set_constraint(FixAtoms([atom.index for atom in atoms if atom.tag == 3]))  # type: ignore[no-untyped-call]
    atoms.calc = EMT()  # type: ignore[no-untyped-call]
    BFGS(atoms, logfile=None).run(fmax=0.01)  # type: ignore[no-untyped-call]
    return atoms


def main() -> None:
    """Both questions, then the same displacement in a learned potential."""
    atoms = slab()
    worst = destabilise(atoms, eps=0.1, norm="atom")
    print(worst, end="\n\n")
    print(smallest_rise(atoms, rise=0.5, norm="atom"), end="\n\n")
    learned = destabilise(atoms, eps=0.1, norm="atom", potential=graph_potential())
    confirmed = learned.atoms.copy()
    confirmed.calc = EMT()  # type: ignore[no-untyped-call]
    rise = confirmed.get_potential_energy() - atoms.get_potential_energy()
    print(f"found on the graph potential: {learned.gain:+.4f} eV there, {rise:+.4f} eV in EMT")
    print(f"written: {worst.write_xyz('copper.xyz')}")


if __name__ == "__main__":
    main()
