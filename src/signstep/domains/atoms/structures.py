"""Structures as they must be before anything is asked of them, and files that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signstep.domains.atoms.freedom import freedom_of
from signstep.domains.atoms.potential import Potential
from signstep.domains.atoms.surface import Structure
from signstep.engine.defaults import plain_tensor
from signstep.errors import InputError, LoadError, MissingExtraError, SignstepError
from signstep.messages import Arg


def need_ase() -> None:
    """Say what is missing where ASE is not installed.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import ase  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("ase", "atoms") from error


@dataclass(frozen=True)
class Gathered:
    """Structures that can be used, and one sentence about each that cannot."""

    structures: tuple[Structure, ...]
    skipped: tuple[str, ...] = ()


def gather(
    given: Sequence[Any],
    potential: Potential,
    *,
    which: Sequence[int] | str | None = None,
    rise: float | Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    skip_bad: bool = False,
) -> Gathered:
    """Check structures one by one.

    Args:
        given: `ase.Atoms`.
        potential: must give a finite energy and finite forces for each.
        which: atoms that may move: indices, or elements such as "O,Cu"; None for all that are not held.
        rise: what each must reach, eV: one number, or one for each.
        names: of the structures; None for their formulas.
        skip_bad: leave bad ones out and count them instead of an error.

    Raises:
        InputError: nothing is left, the lengths do not fit, or a structure cannot be used and ``skip_bad`` is False.
    """
    if names is not None and len(names) != len(given):
        raise InputError(
            Arg("names"), f"has {len(names)} entries for {len(given)} structures", remedy="pass one for each"
        )
    if rise is not None and not isinstance(rise, (int, float)) and len(rise) != len(given):
        raise InputError(
            Arg("rise"),
            f"has {len(rise)} entries for {len(given)} structures",
            remedy="pass one number, or one for each",
        )
    good: list[Structure] = []
    skipped: list[str] = []
    for number, atoms in enumerate(given):
        name = names[number] if names is not None else f"{number}: {_formula(atoms)}"
        level = rise if rise is None or isinstance(rise, (int, float)) else rise[number]
        try:
            good.append(_checked(name, atoms, potential, which, None if level is None else float(level)))
        except SignstepError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
    if not good:
        reason = f"; the first: {skipped[0]}" if skipped else ""
        raise InputError(
            f"there is no structure to use: {len(given)} were given, {len(skipped)} left out{reason}",
            remedy="pass others",
        )
    return Gathered(tuple(good), tuple(skipped))


def read_structures(path: str | Path, *, skip_bad: bool = False) -> tuple[list[Any], tuple[str, ...]]:
    """All structures of a file that ASE can read (extended XYZ, POSCAR, CIF, ...), or of all files of a folder.

    Returns:
        The structures, and one sentence about each file that was left out.

    Raises:
        LoadError: nothing can be read.
    """
    need_ase()
    path = Path(path)
    if not path.exists():
        raise LoadError(
            f"{path} does not exist", remedy="pass a file of structures that ASE reads, or a folder of them"
        )
    files = sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]
    found: list[Any] = []
    skipped: list[str] = []
    for file in files:
        try:
            found += _read(file)
        except LoadError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
    if not found:
        first = f": {skipped[0]}" if skipped else ""
        raise LoadError(f"{path} holds no structure that ASE can read{first}", remedy="pass others")
    return found, tuple(skipped)


def _read(file: Path) -> list[Any]:
    from ase.io import read

    try:
        found = read(file, index=":")
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
        raise LoadError(
            f"{file} cannot be read as structures ({reason})",
            remedy="check it with `ase gui`, or write it as extended XYZ",
        ) from error
    return list(found)


def _checked(
    name: str, atoms: Any, potential: Potential, which: Sequence[int] | str | None, rise: float | None
) -> Structure:
    import torch
    from ase import Atoms

    if not isinstance(atoms, Atoms):
        raise InputError(f"the structure {name} is a {type(atoms).__name__}", remedy="pass an ase.Atoms")
    if len(atoms) == 0:
        raise InputError(f"the structure {name} has no atoms", remedy="leave it out")
    for what, values in (("positions", atoms.positions), ("a cell", np.asarray(atoms.cell))):
        bad = ~np.isfinite(values)
        if bad.any():
            row, axis = (int(part) for part in np.argwhere(bad)[0])
            raise InputError(
                f"the structure {name} has {what} with {values[row, axis]} at row {row}, {'xyz'[axis]}",
                remedy=(
                    "correct it, or leave bad structures out with",
                    Arg("skip_bad", True),
                ),
            )
    freedom = freedom_of(atoms, _chosen(which, atoms, name))
    if freedom.coordinates == 0:
        raise InputError(f"no atom of the structure {name} may move", remedy="free some, or leave it out")
    energies, forces = potential.forces(plain_tensor(np.asarray(atoms.positions, dtype=np.float64))[None], atoms)
    if forces.shape != (1, len(atoms), 3):
        raise InputError(
            f"the potential gave forces of shape {tuple(forces.shape[1:])} for the {len(atoms)} atoms of {name}",
            remedy="return one row of three for each atom",
        )
    if not bool(torch.isfinite(energies).all() and torch.isfinite(forces).all()):
        raise InputError(
            f"the potential gives {float(energies[0]):.6g} eV for {name}, or forces that are not finite; do atoms lie "
            "on each other?",
            remedy="correct the structure, or leave it out",
        )
    return Structure(name, atoms, freedom, rise)


def _chosen(which: Sequence[int] | str | None, atoms: Any, name: str) -> list[int] | None:
    if which is None:
        return None
    if isinstance(which, str):
        wanted = {part.strip() for part in which.split(",") if part.strip()}
        chosen = [number for number, symbol in enumerate(atoms.get_chemical_symbols()) if symbol in wanted]
        if not chosen:
            raise InputError(
                f"the structure {name} has no atoms of {which!r}", remedy=f"pass one of {sorted(set(atoms.symbols))}"
            )
        return chosen
    flags = list(which)
    if any(isinstance(flag, (bool, np.bool_)) for flag in flags):
        if len(flags) != len(atoms):
            raise InputError(
                Arg("which"),
                f"has {len(flags)} entries for the {len(atoms)} atoms of {name}",
                remedy="pass True or False for each, or a list of indices",
            )
        return [number for number, flag in enumerate(flags) if flag]
    return [int(flag) for flag in flags]


def _formula(atoms: Any) -> str:
    formula = getattr(atoms, "get_chemical_formula", None)
    return str(formula()) if formula is not None else type(atoms).__name__
