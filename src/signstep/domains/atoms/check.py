"""Whether displaced atoms obey what was declared, without a line of the search's code: plain float64 arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from signstep.engine.defaults import plain_tensor
from signstep.engine.verify import Verification
from signstep.errors import InputError

# A plane or line is kept to this many Angstrom: positions are rounded after the step.
_ON_PLANE = 1e-9


@dataclass(frozen=True)
class Held:
    """Of one structure: what rows call it, its atoms, fixed coordinates, and directions without movement."""

    tag: int
    size: int
    fixed: tuple[tuple[int, int], ...]
    normals: tuple[tuple[int, tuple[float, float, float]], ...]


@dataclass(frozen=True, eq=False)
class Terms:
    """What was declared: the norm ("linf", "atom", "l2"), eps in Angstrom, and what holds each structure."""

    norm: str
    eps: float | Tensor
    structures: tuple[Held, ...]

    def to_plain(self) -> dict[str, Any]:
        """As JSON values."""
        eps = self.eps if isinstance(self.eps, float) else float(plain_tensor(self.eps).max())
        return {
            "norm": self.norm,
            "eps": eps,
            "structures": [
                {
                    "tag": held.tag,
                    "atoms": held.size,
                    "fixed": [list(pair) for pair in held.fixed],
                    "normals": [[atom, list(normal)] for atom, normal in held.normals],
                }
                for held in self.structures
            ],
        }


def terms_of(norm: str, eps: Any, structures: Sequence[tuple[int, int, Any, Any]]) -> Terms:
    """The declared numbers as they are."""
    held = tuple(Held(tag, size, tuple(fixed), tuple(normals)) for tag, size, fixed, normals in structures)
    return Terms(norm, eps if isinstance(eps, Tensor) else float(eps), held)


def check(terms: Mapping[str, Any], before: Tensor, after: Tensor) -> Verification:
    """Check saved rows (R, N + 1, 3) against the terms of a record, or the domain's part of them.

    Raises:
        InputError: the terms or the shapes do not fit.
    """
    terms = terms.get("domain_terms", terms)
    try:
        structures = [
            (
                int(part["tag"]),
                int(part["atoms"]),
                tuple((int(atom), int(axis)) for atom, axis in part["fixed"]),
                tuple((int(atom), tuple(map(float, normal))) for atom, normal in part["normals"]),
            )
            for part in terms["structures"]
        ]
        declared = terms_of(str(terms["norm"]), float(terms["eps"]), structures)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the record's terms about atoms cannot be read ({error})", remedy="was it made by hand?"
        ) from error
    return check_rows(before, after, declared)


def check_rows(before: Tensor, after: Tensor, terms: Terms) -> Verification:
    """For each row: the size of the change in Angstrom, and whether eps and everything held were kept.

    Fixed coordinates, padding and the structure's number must not have changed at all; along a normal an atom may be
    off by 1e-9 Angstrom. eps may be exceeded by one unit in the last place of the largest coordinate.
    """
    if before.shape != after.shape or before.ndim != 3 or before.shape[2] != 3:
        raise InputError(
            f"displaced atoms have shape {tuple(after.shape)}, the structures {tuple(before.shape)}",
            remedy="pass two of one shape",
        )
    start, end = before.detach().cpu().double(), after.detach().cpu().double()
    change = end - start
    flat = change.reshape(len(change), -1)
    if terms.norm == "linf":
        size = flat.abs().max(1).values
    elif terms.norm == "atom":
        size = (change**2).sum(2).sqrt().max(1).values
    elif terms.norm == "l2":
        size = (flat**2).sum(1).sqrt()
    else:
        raise InputError(f"the norm {terms.norm!r} is unknown to the checker", remedy="pass linf, atom or l2")
    tolerance = 2.0**-52 * float(start[:, :-1].abs().max())
    known = {held.tag: held for held in terms.structures}
    excess = size - plain_tensor(terms.eps, dtype=torch.float64)
    ok = (excess <= tolerance) & torch.isfinite(flat).all(1)
    for row in range(len(change)):
        held = known.get(int(start[row, -1, 0]))
        if held is None:
            raise InputError(
                f"row {row} names a structure that is not among the {len(known)} of the terms", remedy="pass their rows"
            )
        still = not bool((change[row, held.size :] != 0).any())
        still = still and all(float(change[row, atom, axis]) == 0 for atom, axis in held.fixed)
        level = all(
            abs(float((change[row, atom] * torch.tensor(normal, dtype=torch.float64, device="cpu")).sum())) <= _ON_PLANE
            for atom, normal in held.normals
        )
        ok[row] = bool(ok[row]) and still and level
    return Verification(ok.to(before.device), size.to(before.device), excess.to(before.device), tolerance)
