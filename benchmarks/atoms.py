"""Atoms: what attacks gain over random displacements, where a learned potential errs, and what the engine costs.

    python benchmarks/atoms.py

Adsorbates on copper in ASE's EMT, and the graph potential that Signstep ships. One core, about three minutes.
"""

import time
from typing import Any

import numpy as np
import torch

from harness import machine
from signstep.domains.atoms import AseCalculator, destabilise, graph_potential, smallest_rise
from signstep.domains.atoms.destabilise import attack_of
from signstep.domains.atoms.example import example_structures
from signstep.domains.atoms.measures import random_points
from signstep.domains.atoms.opening import potential_named
from signstep.domains.atoms.structures import gather
from signstep.domains.atoms.surface import Surface
from signstep.domains.atoms.threat import atoms_threat
from signstep.maximum import maximise


def main() -> None:
    torch.set_num_threads(1)
    print(machine())
    structures, names = example_structures()
    emt = potential_named("emt")
    gains(structures, names, emt)
    sizes(structures, names, emt)
    errors(structures, emt)
    costs(structures[0], emt)


def gains(structures: list[Any], names: list[str], emt: Any) -> None:
    print("\nEnergy gained, eV (EMT)")
    print(f"{'structure':<34}{'norm':>5}{'eps':>6}{'1st order':>11}{'random':>9}{'largest':>9}", end="")
    print(f"{'fgsm':>8}{'pgd':>8}{'2nd order':>11}{'times random':>14}")
    for norm, eps in (("linf", 0.05), ("atom", 0.1), ("l2", 0.3)):
        for atoms, name in zip(structures, names, strict=True):
            found = destabilise(atoms, eps=eps, norm=norm, potential=emt)  # type: ignore[arg-type]
            tried = [value or 0.0 for value in found.tried.values()]
            print(f"{name:<34}{norm:>5}{eps:>6}{found.promise:>11.3f}{found.random.mean():>9.3f}", end="")
            print(f"{found.random.max():>9.3f}{tried[0]:>8.3f}{tried[1]:>8.3f}{tried[2]:>11.3f}", end="")
            print(f"{found.gain / found.random.mean():>14.1f}")


def sizes(structures: list[Any], names: list[str], emt: Any) -> None:
    print("\nSmallest displacement found that gains 0.5 eV, Angstrom (EMT)")
    for norm in ("linf", "atom", "l2"):
        for atoms, name in zip(structures, names, strict=True):
            found = smallest_rise(atoms, rise=0.5, norm=norm, potential=emt)
            by = ", ".join(f"{key} {value:.4f}" if value else f"{key} -" for key, value in found.tried.items())
            print(f"{name:<34}{norm:>5}{found.size:>9.4f}  random {found.random_size:.4f}  ({by})")


def errors(structures: list[Any], emt: Any) -> None:
    """|E_graph - E_EMT| in meV/atom, the mean over the structures."""
    print("\nError of the graph potential against EMT, meV/atom, mean over structures")
    print(f"{'norm':>5}{'eps':>6}{'untouched':>11}{'random':>9}{'rise':>9}{'disagreement':>14}")
    graph = graph_potential()
    kept = gather(structures, graph).structures
    plain, apart = Surface(kept, graph), Surface(kept, graph, reference=emt)
    for norm in ("atom",):
        for eps in (0.05, 0.1, 0.2, 0.3, 0.5):
            threat = atoms_threat(norm, eps, tuple(part.freedom for part in kept), tuple(part.tag for part in kept))
            rows = np.zeros((len(kept), 4))
            for number, part in enumerate(kept):
                x = plain.rows([number])
                rise = max(
                    (maximise(plain, x, threat, attack_of(recipe)) for recipe in ("pgd:restarts=2", "second-order")),
                    key=lambda found: float(found.after[0]),
                )
                far = maximise(apart, x, threat, attack_of("pgd:restarts=2"))
                assert isinstance(rise.x, torch.Tensor)
                assert isinstance(far.x, torch.Tensor)
                with torch.no_grad():
                    gaps = [apart(points) for points in (x, random_points(plain, threat, number, 16, 0), rise.x, far.x)]
                rows[number] = [1000 * float(gap.mean()) / len(part) for gap in gaps]
            mean = rows.mean(0)
            print(f"{norm:>5}{eps:>6}{mean[0]:>11.2f}{mean[1]:>9.2f}{mean[2]:>9.2f}{mean[3]:>14.2f}")


def costs(atoms: Any, emt: Any) -> None:
    print("\nTime of one calculation with forces, and of a step of pgd, ms (13 atoms)")
    for potential in (emt, graph_potential()):
        surface = Surface(gather([atoms], potential).structures, potential)
        structure = surface.structures[0]
        threat = atoms_threat("linf", 0.05, (structure.freedom,), (structure.tag,))
        x = surface.rows([0])
        moved = random_points(surface, threat, 0, 50, 0)[:, :-1]
        began = time.process_time()
        for row in moved:
            potential.forces(row[None], atoms)
        alone = (time.process_time() - began) / len(moved)
        began = time.process_time()
        maximise(surface, x, threat, "pgd:steps=50")
        step = (time.process_time() - began) / 50
        print(f"{potential.name:<6} {1000 * alone:.2f} calculation, {1000 * step:.2f} step")
    assert isinstance(emt, AseCalculator)


if __name__ == "__main__":
    main()
