"""What is asked of structures: a TOML file of a dozen lines."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from signstep.domains.atoms.potential import Quiet
from signstep.domains.schemas import read_toml
from signstep.errors import InputError
from signstep.messages import Arg, Key


@dataclass(frozen=True)
class Schema:
    """The question, in the units eV and Angstrom.

    Attributes:
        rise: the energy rise that counts as destabilised, eV; one number, or one for each structure.
        disagreement: instead: how far the energies of potential and reference must lie apart, eV.
        norm: linf, atom or l2.
        eps: Angstrom.
        potential: emt, lj, morse, graph or module:factory.
        arguments: of the calculator or factory.
        reference: another potential, to compare with.
        which: atoms that may move: elements such as "O,Cu", or indices; None for all that are not held.
        fmax: a structure counts as relaxed if its forces are at most this share of those that the displaced one has.
        quiet: which forces count as zero.
    """

    rise: float | tuple[float, ...] = 0.3
    disagreement: float | None = None
    norm: Literal["linf", "atom", "l2"] = "linf"
    eps: float = 0.05
    potential: str = "emt"
    arguments: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    which: str | tuple[int, ...] | None = None
    fmax: float = 0.05
    quiet: Quiet = field(default_factory=Quiet)

    def __post_init__(self) -> None:
        levels = self.rise if isinstance(self.rise, tuple) else (self.rise,)
        if not levels or not all(math.isfinite(level) and level > 0 for level in levels):
            raise InputError(Arg("rise", self.rise), remedy="pass energies in eV above 0")
        if self.disagreement is not None and not self.disagreement > 0:
            raise InputError(Arg("disagreement", self.disagreement), remedy="pass an energy in eV above 0")
        if self.disagreement is not None and self.reference is None:
            raise InputError("disagreement needs a second potential", remedy='add reference = "emt", say')
        if self.norm not in ("linf", "atom", "l2"):
            raise InputError(Arg("norm", self.norm), remedy="pass linf, atom or l2")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise InputError(Arg("eps", self.eps), remedy="pass a length in Angstrom above 0")
        if not 0 < self.fmax < 1:
            raise InputError(
                Arg("fmax", self.fmax), remedy="pass a share between 0 and 1 of the displaced structure's forces"
            )


TEMPLATE = """\
# What signstep audit --domain atoms asks; energies in eV, lengths in Angstrom.
rise = 0.3                # an energy rise that counts as destabilised; a list gives one for each structure
norm = "linf"             # linf: each coordinate by at most eps; atom: each atom; l2: all together
eps = 0.05
potential = "emt"         # emt, lj, morse, graph (the shipped network), or package.module:factory
fmax = 0.05               # relaxed: forces of at most this share of those that the displaced structure has
# reference = "graph"     # compare energies with another potential at the points found
# disagreement = 0.2      # instead of rise: seek points where potential and reference lie so far apart
# which = "O"             # only these may move: elements, or a list of indices

[arguments]               # of the calculator or factory

[quiet]                   # forces that count as zero
relative = 1e-6           # below this share of the structure's largest
floor = 1e-8              # eV/Angstrom
"""


def read_schema(path: Path) -> Schema:
    """Read a schema.

    Raises:
        LoadError: the file cannot be read or is no TOML.
        InputError: it names something unknown or contradicts itself.
    """
    return read_toml(path, _schema)


def _schema(plain: dict[str, Any]) -> Schema:
    known = {part.name: part for part in fields(Schema)}
    unknown = sorted(set(plain) - set(known))
    if unknown:
        raise InputError(f"{unknown[0]!r} is not known", remedy=f"write one of {', '.join(known)}")
    numbers = ("eps", "fmax", "disagreement")
    wrong = [name for name in numbers if name in plain and not _number(plain[name])]
    words = [name for name in ("norm", "potential", "reference") if name in plain and not isinstance(plain[name], str)]
    if wrong or words:
        name = (wrong or words)[0]
        raise InputError(Key(name, plain[name]), remedy=f"pass {'a number' if wrong else 'a text'}")
    read: dict[str, Any] = {name: float(value) if name in numbers else value for name, value in plain.items()}
    if "rise" in plain:
        given = plain["rise"]
        values = given if isinstance(given, list) else [given]
        if not all(map(_number, values)):
            raise InputError(Key("rise", given), remedy="pass a number in eV, or a list of them")
        read["rise"] = tuple(map(float, given)) if isinstance(given, list) else float(given)
    if isinstance(plain.get("which"), list):
        read["which"] = tuple(plain["which"])
    if "quiet" in plain:
        quiet = plain["quiet"]
        if not isinstance(quiet, dict) or set(quiet) - {"relative", "floor"} or not all(map(_number, quiet.values())):
            raise InputError(Key("quiet", quiet), remedy="write the numbers relative and floor")
        read["quiet"] = Quiet(**quiet)
    return Schema(**read)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
