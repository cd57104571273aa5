"""The potential energy surface around given structures, as a model that attacks can climb.

One input row is one structure: the positions of its atoms, padded with zeros to the largest structure, and a last line
(tag, 0, 0) that says which structure it is. Padding and last line never move. The tag comes from the structure itself,
so that a row, and with it the draws that belong to it, does not depend on the order of the structures.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signstep.domains.atoms.freedom import Freedom
from signstep.domains.atoms.potential import Potential, Quiet, energy
from signstep.engine.defaults import plain_tensor
from signstep.errors import InputError


@dataclass(frozen=True, eq=False)
class Structure:
    """A structure with its name, what holds its atoms, and how much it must rise to count (eV)."""

    name: str
    atoms: Any
    freedom: Freedom
    rise: float | None = None

    def __len__(self) -> int:
        return len(self.atoms)

    @cached_property
    def tag(self) -> int:
        """A whole number below 2^48 from elements, positions, cell and what holds the atoms."""
        digest = hashlib.blake2b(digest_size=6)
        for part in (self.atoms.numbers, self.atoms.positions, np.asarray(self.atoms.cell), self.atoms.pbc):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(repr((self.freedom.fixed, self.freedom.normals)).encode())
        return int.from_bytes(digest.digest(), "little")


@dataclass(frozen=True, eq=False)
class Surface:
    """The rise (R,) of the energy over that of the untouched structure, in eV, of rows (R, N + 1, 3) as `rows` makes.

    With ``reference`` the value is instead how far the two energies lie apart, |E - E_reference|.

    Attributes:
        structures: those that the last line of a row may name.
        potential: gives energies and forces.
        quiet: which forces count as zero.
        reference: another potential, to seek disagreement with; None for the rise.
    """

    structures: tuple[Structure, ...]
    potential: Potential
    quiet: Quiet = field(default_factory=Quiet)
    reference: Potential | None = None

    def __post_init__(self) -> None:
        if not self.structures:
            raise InputError("there are no structures", remedy="pass at least one")
        object.__setattr__(self, "_start", {})
        places = {part.tag: number for number, part in reversed(list(enumerate(self.structures)))}
        object.__setattr__(self, "_places", places)

    @property
    def size(self) -> int:
        """Atoms of the largest structure."""
        return max(map(len, self.structures))

    def rows(self, numbers: Sequence[int] | None = None) -> Tensor:
        """The untouched structures (R, N + 1, 3), float64 Angstrom."""
        chosen = range(len(self.structures)) if numbers is None else numbers
        x = torch.zeros(len(chosen), self.size + 1, 3, dtype=torch.float64, device="cpu")
        for row, number in enumerate(chosen):
            atoms = self.structures[number].atoms
            x[row, : len(atoms)] = plain_tensor(np.asarray(atoms.positions, dtype=np.float64))
            x[row, -1, 0] = self.structures[number].tag
        return x

    def start(self, number: int) -> float:
        """The energy of an untouched structure, eV."""
        kept: dict[int, float] = self._start  # type: ignore[attr-defined]
        if number not in kept:
            atoms = self.structures[number].atoms
            kept[number] = float(self.potential.energies(plain_tensor(atoms.positions)[None], atoms)[0])
        return kept[number]

    def __call__(self, x: Tensor) -> Tensor:
        """The value (R,) to be made large."""
        places: dict[int, int] = self._places  # type: ignore[attr-defined]
        tags = x[:, -1, 0].detach().long().tolist()
        strange = [tag for tag in tags if tag not in places]
        if strange:
            raise InputError(
                f"a row names the structure {strange[0]}, which is not among these {len(places)}",
                remedy="pass their rows",
            )
        numbers = [places[tag] for tag in tags]
        value = x.new_zeros(len(x))
        for number in dict.fromkeys(numbers):
            index = torch.tensor(
                [row for row, own in enumerate(numbers) if own == number], dtype=torch.int64, device="cpu"
            )
            value = value.index_add(0, index, self._value(x[index], number).to(x.dtype))
        return value

    def _value(self, x: Tensor, number: int) -> Tensor:
        structure = self.structures[number]
        positions = x[:, : len(structure)]
        here = energy(positions, self.potential, structure.atoms, self.quiet)
        if self.reference is None:
            return here - self.start(number)
        return (here - energy(positions, self.reference, structure.atoms, self.quiet)).abs()
