"""What may change: every atom that is not held, by at most eps Angstrom."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from signstep.domains.atoms.check import Terms, check_rows, terms_of
from signstep.domains.atoms.freedom import Freedom
from signstep.domains.atoms.region import HeldRegion, MaskedBall, Spaces
from signstep.engine.defaults import plain_tensor
from signstep.engine.norms import L2, Grouped, Linf, Norm, norm
from signstep.engine.region import Region
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import Eps, ThreatModel, read_eps
from signstep.engine.verify import Verification
from signstep.errors import ThreatError
from signstep.messages import Arg


@dataclass(frozen=True, eq=False, repr=False)
class AtomsThreat(ShapedThreat):
    """A ball of displacements, in Angstrom, cut with what holds the atoms.

    Norms: linf, every Cartesian coordinate moves by at most eps; atom, every atom by at most eps (Euclidean); l2, the
    length of all displacements together.

    Attributes:
        freedoms: of the structures that the last line of a row may name.
        tags: their names there; () for 0, 1, 2 ...
    """

    freedoms: tuple[Freedom, ...] = field(default=())
    tags: tuple[int, ...] = field(default=())

    @property
    def kind(self) -> str:
        """The name of the set in records."""
        return "atoms"

    def __str__(self) -> str:
        free = sum(freedom.coordinates for freedom in self.freedoms)
        every = 3 * sum(freedom.size for freedom in self.freedoms)
        kind = "atom" if isinstance(self.norm, Grouped) else self.norm.name
        return f"{kind} eps={self.label} A, {free} of {every} coordinates free in {len(self.freedoms)} structures"

    __repr__ = __str__

    @property
    def names(self) -> tuple[int, ...]:
        """What rows call the structures."""
        return self.tags or tuple(range(len(self.freedoms)))

    @property
    def in_axes(self) -> bool:
        """Whether everything that is held is held along the Cartesian axes, so that a mask says it all."""
        return not any(freedom.normals for freedom in self.freedoms)

    def around(self, x: Tensor) -> Region:
        """The region around rows (R, N + 1, 3): a masked ball where that is all, else one with planes and lines."""
        places = {tag: number for number, tag in reversed(list(enumerate(self.names)))}
        mask = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
        for row, tag in enumerate(x[:, -1, 0].tolist()):
            if tag not in places:
                raise ThreatError(
                    "a row names a structure that the threat does not know", remedy="make rows with Surface.rows"
                )
            free = plain_tensor(self.freedoms[places[tag]].mask())
            mask[row, : len(free)] = free.to(x.device)
        ball = MaskedBall.around(x, ThreatModel(self.norm, self.eps, None, None, mask, label=self.label))
        return ball if self.in_axes else HeldRegion(ball, Spaces.of(self.freedoms, self.names, x.shape[1]))

    def checked(self, x: Tensor, point: Tensor) -> Verification:
        """What a checker that shares no code with the region says."""
        return check_rows(x, point, self.plain())

    def plain(self) -> Terms:
        """The declared numbers alone, for the independent checker."""
        kind = "atom" if isinstance(self.norm, Grouped) else self.norm.name
        held = [(tag, part.size, part.fixed, part.normals) for tag, part in zip(self.names, self.freedoms, strict=True)]
        return terms_of(kind, self.eps, held)


def atoms_threat(
    norm_or_name: Norm | str, eps: Eps, freedoms: tuple[Freedom, ...], tags: tuple[int, ...] = ()
) -> AtomsThreat:
    """A threat model in Angstrom; ``tags`` are what rows call the structures.

    Raises:
        ThreatError: another norm than linf, atom and l2, or an eps that is no number.
    """
    measure = norm(norm_or_name)
    if measure not in (Linf(), L2(), Grouped((-1,))):
        raise ThreatError(
            Arg("norm", measure.name), "is not for atoms", remedy="pass linf, atom (each atom by at most eps) or l2"
        )
    size = read_eps(eps)
    if size is None:
        raise ThreatError(
            Arg("eps", None), "has no meaning for atoms, which no box holds", remedy="pass a length in Angstrom"
        )
    return AtomsThreat(measure, size, None, None, freedoms=freedoms, tags=tags)
