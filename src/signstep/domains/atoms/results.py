"""What the two questions return."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from signstep.io.files import write_whole


@dataclass(frozen=True)
class Sensitive:
    """An atom and the energy it takes up along the straight line to the displacement, eV."""

    index: int
    symbol: str
    work: float


@dataclass(frozen=True, eq=False)
class Displaced:
    """A displaced structure beside the one it came from.

    Attributes:
        start: the untouched `ase.Atoms`.
        atoms: the displaced ones, with energy and forces attached (``atoms.get_potential_energy()``).
        displacement: (N, 3), Angstrom.
        energies: before and after, eV.
        forces: before and after, (N, 3) each, as the potential gives them, eV/Angstrom.
        norm: "linf", "atom" or "l2".
        size: length of the displacement in that norm, Angstrom.
        gain: the energy gained, eV.
        promise: what first order promises at most for that size, eV.
        along: what first order says of this very displacement, eV.
        curvature: 2 (gain - along) / |d|^2, eV/Angstrom^2.
        work: (N,), the energy each atom takes up along the straight line, eV; they sum to the gain.
        largest_force: largest force component along what may move, eV/Angstrom.
        relaxed: whether it is below fmax.
        recipe: what found the displacement.
        tried: the outcome of each recipe that ran: eV gained, or Angstrom needed (None: not reached).
        verified: eps and all that is held were kept, by a checker that shares no code with the search.
        calculations: energies and forces asked of the potential by the search.
        notes: what the reader must know.
    """

    start: Any
    atoms: Any
    displacement: "np.ndarray[Any, Any]"
    energies: tuple[float, float]
    forces: "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]"
    norm: str
    size: float
    gain: float
    promise: float
    along: float
    curvature: float
    work: "np.ndarray[Any, Any]"
    largest_force: float
    relaxed: bool
    recipe: str
    tried: Mapping[str, float | None]
    verified: bool
    calculations: int
    notes: tuple[str, ...]

    @property
    def drift(self) -> "np.ndarray[Any, Any]":
        """The mean displacement (3,): for a crystal that nothing holds, the part that costs no energy, Angstrom."""
        mean: np.ndarray[Any, Any] = self.displacement.mean(0)
        return mean

    @property
    def sensitive(self) -> tuple[Sensitive, ...]:
        """The atoms in the order of the energy they take up, the largest first."""
        symbols = self.start.get_chemical_symbols()
        order = np.argsort(-self.work, kind="stable")
        return tuple(Sensitive(int(index), symbols[index], float(self.work[index])) for index in order)

    def write_xyz(self, path: str | Path) -> Path:
        """Two frames of extended XYZ: before and after.

        Every atom has its ``displacement``, its ``work`` and (in the file's own way) its force; the comment line has
        the energy and what was asked.
        """
        import io

        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.io import write

        frames = []
        for which, (place, energy, forces) in enumerate(
            zip((self.start, self.atoms), self.energies, self.forces, strict=True)
        ):
            frame = place.copy()
            frame.info = {name: value for name, value in frame.info.items() if isinstance(value, (str, int, float))}
            frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)  # type: ignore[no-untyped-call]
            frame.arrays["displacement"] = which * self.displacement
            frame.arrays["work"] = which * self.work
            frame.info |= {
                "frame": ("before", "after")[which],
                "recipe": self.recipe,
                "norm": self.norm,
                "size": which * self.size,
                "gain": which * self.gain,
            }
            frames.append(frame)
        text = io.StringIO()
        write(text, frames, format="extxyz")
        path = Path(path)
        write_whole(path, text.getvalue())
        return path


@dataclass(frozen=True, eq=False)
class Destabilised(Displaced):
    """The most destabilising displacement found at a given eps: a lower bound on the largest rise there is.

    Attributes:
        eps: what was allowed, Angstrom.
        random: energies gained by random displacements of the same size, eV.
    """

    eps: float = 0.0
    random: "np.ndarray[Any, Any]" = field(default_factory=lambda: np.zeros(0))

    def __str__(self) -> str:
        first = self.sensitive[0]
        lines = [
            f"{self.gain:+.4f} eV at {self.norm} eps={self.eps:g} A by {self.recipe}"
            f" ({', '.join(f'{name} {_text(value)}' for name, value in self.tried.items())})",
            f"first order promises {self.promise:+.4f} eV, and {self.along:+.4f} eV along this displacement; "
            f"curvature {self.curvature:.2f} eV/A^2",
            f"most sensitive: atom {first.index} ({first.symbol}), {first.work:+.4f} eV",
        ]
        if len(self.random):
            lines.insert(
                1,
                f"{len(self.random)} random displacements of the same size: mean {self.random.mean():+.4f}, "
                f"largest {self.random.max():+.4f} eV",
            )
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True, eq=False)
class SmallestRise(Displaced):
    """The smallest displacement found that raises the energy by ``rise``: an upper bound on the smallest there is.

    Attributes:
        rise: what was to be gained, eV.
        reached: whether it was, within the largest size tried; if not, ``atoms`` gains the most there.
        linear_size: the size that first order asks for, rise / dual norm of the forces, Angstrom; inf without forces.
        random_size: the median over random directions of the size that reaches the rise, Angstrom; inf where most of
            them do not within the largest size tried.
    """

    rise: float = 0.0
    reached: bool = False
    linear_size: float = float("inf")
    random_size: float = float("inf")

    def __str__(self) -> str:
        found = f"{self.size:.4f} A ({self.norm}) raise" if self.reached else f"not reached: {self.size:.4f} A raise"
        return "\n".join(
            [
                f"{found} the energy by {self.gain:.4f} of {self.rise:g} eV, by {self.recipe}",
                f"first order asks for {self.linear_size:.4f} A, random directions for {self.random_size:.4f} A "
                "(median)",
                *self.notes,
            ]
        )


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
