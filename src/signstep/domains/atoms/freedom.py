"""Which way each atom may move: ASE's constraints as plain numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from signstep.errors import InputError
from signstep.messages import Arg

_AXES = np.eye(3)
# A direction whose other components are below this share of the largest counts as one of the axes.
_ALIGNED = 1e-12


@dataclass(frozen=True)
class Freedom:
    """What holds the atoms of one structure.

    Attributes:
        size: the number of atoms.
        fixed: (atom, axis) of Cartesian coordinates that must stay, sorted.
        normals: (atom, unit vector): the atom's displacement must have no part along the vector.
    """

    size: int
    fixed: tuple[tuple[int, int], ...] = ()
    normals: tuple[tuple[int, tuple[float, float, float]], ...] = ()

    @property
    def coordinates(self) -> int:
        """The number of directions in which anything can move."""
        return sum(len(basis) for basis in self.bases())

    def mask(self) -> "np.ndarray[Any, Any]":
        """True (N, 3) where a coordinate is not fixed."""
        free = np.ones((self.size, 3), dtype=bool)
        for atom, axis in self.fixed:
            free[atom, axis] = False
        return free

    def bases(self) -> "list[np.ndarray[Any, Any]]":
        """For each atom orthonormal rows (0 to 3, 3) that span the directions in which it can move."""
        held: list[list[Any]] = [[] for _ in range(self.size)]
        for atom, axis in self.fixed:
            held[atom].append(_AXES[axis])
        for atom, normal in self.normals:
            held[atom].append(normal)
        return [_complement(directions) for directions in held]


def freedom_of(atoms: Any, which: Sequence[int] | None = None) -> Freedom:
    """The freedom of an `ase.Atoms`: its constraints, and of the rest only the atoms ``which``, if given.

    FixAtoms, FixCartesian, FixScaled, FixedPlane and FixedLine hold single atoms along fixed directions, and are obeyed
    exactly. A coordinate is fixed, and for a plane or a line normals are kept.

    Raises:
        InputError: another constraint, or an atom that does not exist.
    """
    size = len(atoms)
    fixed: set[tuple[int, int]] = set()
    normals: list[tuple[int, tuple[float, float, float]]] = []
    for constraint in atoms.constraints:
        for atom, direction in _held(constraint, atoms):
            axis = int(np.abs(direction).argmax())
            rest = np.delete(np.abs(direction), axis).max()
            if rest <= _ALIGNED * abs(direction[axis]):
                fixed.add((atom, axis))
            else:
                unit = direction / np.linalg.norm(direction)
                normals.append((atom, (float(unit[0]), float(unit[1]), float(unit[2]))))
    if which is not None:
        wrong = [atom for atom in which if not 0 <= atom < size]
        if wrong:
            raise InputError(
                Arg("which"),
                f"names the atom {wrong[0]}, the structure has {size}",
                remedy=f"pass indices from 0 to {size - 1}",
            )
        fixed |= {(atom, axis) for atom in set(range(size)) - set(which) for axis in range(3)}
    return Freedom(size, tuple(sorted(fixed)), tuple(normals))


def _held(constraint: Any, atoms: Any) -> "Iterator[tuple[int, np.ndarray[Any, Any]]]":
    """The (atom, direction) pairs along which a constraint allows no movement."""
    name = type(constraint).__name__
    if name == "FixAtoms":
        directions = list(_AXES)
    elif name == "FixCartesian":
        directions = [_AXES[axis] for axis in range(3) if constraint.mask[axis]]
    elif name == "FixScaled":
        # A fractional coordinate stays when nothing moves along its reciprocal lattice vector.
        reciprocal = np.linalg.inv(np.asarray(atoms.cell)).T
        directions = [reciprocal[axis] for axis in range(3) if constraint.mask[axis]]
    elif name == "FixedPlane":
        directions = [np.asarray(constraint.dir)]
    elif name == "FixedLine":
        directions = list(_complement([constraint.dir]))
    else:
        raise InputError(
            f"the structure has the constraint {name}, which does not hold single atoms along fixed directions",
            remedy=(
                "remove it (atoms.set_constraint()), or hold atoms by FixAtoms, FixCartesian, FixScaled, "
                "FixedPlane or FixedLine"
            ),
        )
    for atom in np.atleast_1d(constraint.index):
        for direction in directions:
            yield int(atom) % len(atoms), np.asarray(direction, dtype=np.float64)


def _complement(directions: Sequence[Any]) -> "np.ndarray[Any, Any]":
    """Orthonormal rows that span what is perpendicular to all directions; of axes, exactly the other axes."""
    if not directions:
        return _AXES.copy()
    stacked = np.asarray([direction / np.linalg.norm(direction) for direction in np.asarray(directions)])
    if np.isin(stacked, (0.0, 1.0)).all():
        others: np.ndarray[Any, Any] = _AXES[~(stacked == 1.0).any(0)]
        return others
    _, sizes, rows = np.linalg.svd(stacked)
    rank = int((sizes > 1e-9).sum())
    rest = rows[rank:]
    exact: np.ndarray[Any, Any] = np.where(np.abs(rest) < 1e-14, 0.0, rest)
    return exact
