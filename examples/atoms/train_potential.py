"""Train the small graph potential that Signstep ships, on energies and forces of ASE's EMT.

    python examples/atoms/train_potential.py potential.safetensors

Copper slabs, Cu(111) and Cu(100) of 2 x 2 atoms and 3 layers, clean or with one H, C, N or O atom on them: strained by
up to 2 %, rattled by up to 0.2 Angstrom. The last line is the error on structures that were set aside. It takes some
minutes on one core; with the seed it is the same each time on the same machine.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.build import add_adsorbate, fcc100, fcc111
from ase.calculators.emt import EMT
from safetensors.torch import save_file
from torch import Tensor

from signstep.domains.atoms.graph import Edges, GraphPotential, edges_of

ELEMENTS = (1, 6, 7, 8, 29)


class Sample(NamedTuple):
    """One structure with what EMT says of it: energy in eV, forces (N, 3) in eV/Angstrom."""

    kinds: Tensor
    positions: Tensor
    edges: Edges
    energy: float
    forces: Tensor


def structure(random: np.random.Generator) -> Any:
    """A strained and rattled slab, perhaps with an adsorbate."""
    surface, sites = ((fcc111, ("fcc", "hcp", "bridge", "ontop")), (fcc100, ("hollow", "bridge", "ontop")))[
        random.integers(2)
    ]
    strained = 3.61 * random.uniform(0.98, 1.02)
    atoms: Any = surface("Cu", (2, 2, 3), a=strained, vacuum=8.0)  # type: ignore[no-untyped-call]
    kind = random.choice(["", "H", "C", "N", "O"])
    if kind:
        height, site = random.uniform(0.6, 1.9), str(random.choice(sites))
        add_adsorbate(atoms, str(kind), height, site)  # type: ignore[no-untyped-call]
    size = random.uniform(0.0, 0.2)
    atoms.positions += size * random.standard_normal((len(atoms), 3)).clip(-2, 2)
    atoms.calc = EMT()  # type: ignore[no-untyped-call]
    return atoms


def samples(count: int, seed: int, model: GraphPotential) -> list[Sample]:
    """Structures labelled by EMT; those it calls absurd (forces beyond 20 eV/Angstrom) are drawn again."""
    random = np.random.default_rng(seed)
    found: list[Sample] = []
    while len(found) < count:
        atoms = structure(random)
        forces = torch.as_tensor(atoms.get_forces())
        if float(forces.abs().max()) > 20:
            continue
        energy = float(atoms.get_potential_energy())
        kinds, positions = model.kinds(atoms.numbers), torch.as_tensor(atoms.positions)
        found.append(Sample(kinds, positions, edges_of(atoms, model.cutoff), energy, forces))
    return found


def joined(batch: list[Sample], dtype: torch.dtype) -> tuple[Tensor, Tensor, Edges, Tensor, Tensor, Tensor]:
    """Structures laid end to end: positions, kinds, edges, owner, energies, forces."""
    starts = np.cumsum([0, *(len(sample.kinds) for sample in batch)])
    edges = Edges(
        torch.cat([sample.edges.centre + start for sample, start in zip(batch, starts, strict=False)]),
        torch.cat([sample.edges.other + start for sample, start in zip(batch, starts, strict=False)]),
        torch.cat([sample.edges.shift for sample in batch]).to(dtype),
    )
    owner = torch.cat([torch.full((len(sample.kinds),), number) for number, sample in enumerate(batch)])
    return (
        torch.cat([sample.positions for sample in batch]).to(dtype),
        torch.cat([sample.kinds for sample in batch]),
        edges,
        owner,
        torch.tensor([sample.energy for sample in batch], dtype=dtype),
        torch.cat([sample.forces for sample in batch]).to(dtype),
    )


def errors(model: GraphPotential, data: list[Sample], dtype: torch.dtype) -> tuple[float, float]:
    """Mean absolute errors: energy in meV/atom, force components in eV/Angstrom."""
    energy_error, force_error = [], []
    for start in range(0, len(data), 32):
        batch = data[start : start + 32]
        positions, kinds, edges, owner, energies, forces = joined(batch, dtype)
        positions.requires_grad_()
        predicted = model.energies(positions, kinds, edges, owner, len(batch))
        (slope,) = torch.autograd.grad(predicted.sum(), positions)
        sizes = torch.tensor([len(sample.kinds) for sample in batch], dtype=dtype)
        energy_error.append((predicted.detach() - energies).abs() / sizes)
        force_error.append((-slope - forces).abs().flatten())
    return 1000 * float(torch.cat(energy_error).mean()), float(torch.cat(force_error).mean())


def fit(model: GraphPotential, data: list[Sample], held: list[Sample], epochs: int, seed: int) -> None:
    """Adam on forces and energies, the learning rate falling along a cosine."""
    counts = torch.stack([torch.bincount(sample.kinds, minlength=len(ELEMENTS)).double() for sample in data])
    target = torch.tensor([sample.energy for sample in data], dtype=torch.float64)
    offset = torch.linalg.lstsq(counts, target[:, None], driver="gelsd").solution[:, 0]
    model.get_buffer("offset").copy_(offset.float())
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    batch, generator = 16, torch.Generator().manual_seed(seed)
    total = epochs * (len(data) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=total, pct_start=0.05)
    began = time.perf_counter()
    for epoch in range(epochs):
        order = torch.randperm(len(data), generator=generator).tolist()
        for start in range(0, len(data) - batch + 1, batch):
            chosen = [data[place] for place in order[start : start + batch]]
            positions, kinds, edges, owner, energies, forces = joined(chosen, torch.float32)
            positions.requires_grad_()
            predicted = model.energies(positions, kinds, edges, owner, len(chosen))
            (slope,) = torch.autograd.grad(predicted.sum(), positions, create_graph=True)
            size = torch.bincount(owner).float()
            loss = (-slope - forces).square().mean() + ((predicted - energies) / size).square().mean() * 100
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            schedule.step()
        if epoch % 10 == 9:
            energy, force = errors(model, held, torch.float32)
            print(
                f"epoch {epoch + 1}: {energy:.1f} meV/atom, {force:.3f} eV/A, {time.perf_counter() - began:.0f} s",
                flush=True,
            )


def main() -> None:
    """Train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--structures", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model = GraphPotential(ELEMENTS)
    data, held, test = (samples(count, args.seed + k, model) for k, count in enumerate((args.structures, 100, 300)))
    fit(model, data, held, args.epochs, args.seed)
    energy, force = errors(model.double(), test, torch.float64)
    facts = {
        "elements": list(ELEMENTS),
        "shape": {"cutoff": model.cutoff},
        "energy_error_mev_per_atom": round(energy, 2),
        "force_error_ev_per_angstrom": round(force, 4),
    }
    save_file(dict(model.float().state_dict()), args.path, metadata={"signstep": json.dumps(facts)})
    print(f"test: {energy:.2f} meV/atom, {force:.4f} eV/A ({len(test)} structures)")


if __name__ == "__main__":
    main()
