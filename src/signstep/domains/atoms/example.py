"""The domain's own example: small adsorbates on copper, in ASE's EMT."""

from typing import Any

# Cu(111) of 2 x 2 atoms and 3 layers, the lowest held; the height of the adsorbate before relaxation.
_ADSORBATES = (("O", 1.2), ("N", 1.1), ("C", 1.1), ("H", 1.0))


def example_structures() -> tuple[list[Any], list[str]]:
    """Four relaxed slabs with an adsorbate, a clean one, and one that is not relaxed; with their names."""
    from ase.build import add_adsorbate, fcc111
    from ase.calculators.emt import EMT
    from ase.constraints import FixAtoms
    from ase.optimize import BFGS

    found, names = [], []
    for symbol, height in (*_ADSORBATES, ("", 0.0)):
        slab = fcc111("Cu", (2, 2, 3), a=3.61, vacuum=8.0)  # type: ignore[no-untyped-call]
        if symbol:
            add_adsorbate(slab, symbol, height, "fcc")  # type: ignore[no-untyped-call]
        slab.set_constraint(FixAtoms([atom.index for atom in slab if atom.tag == 3]))  # type: ignore[no-untyped-call]
        slab.calc = EMT()  # type: ignore[no-untyped-call]
        BFGS(slab, logfile=None).run(fmax=0.01)  # type: ignore[no-untyped-call]
        slab.calc = None
        found.append(slab)
        names.append(f"{symbol or 'clean'} on Cu(111), relaxed" if symbol else "Cu(111), relaxed")
    rattled = found[0].copy()
    rattled.rattle(0.05, seed=1)
    return [*found, rattled], [*names, "O on Cu(111), rattled by 0.05 A"]
