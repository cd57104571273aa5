"""A small graph network for energies: an example of a potential that autograd differentiates.

Atoms are nodes; an edge joins two atoms, or an atom and a periodic image, that are closer than the cutoff. Each round
an atom sums its neighbours' features, filtered by their distance (the continuous filters of Schütt et al. 2017,
"SchNet", arXiv:1706.08566, sections 3 and 4.1); the energy is a sum over atoms. Distances are all it sees, so the
energy does not change when the whole structure is moved, turned, or its atoms renumbered.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from signstep.engine.defaults import plain_tensor
from signstep.errors import InputError

# How far an atom may be from where the neighbour list was made before it is made again, in Angstrom.
_MARGIN = 0.75


class Edges(NamedTuple):
    """Pairs within reach: ``centre`` and ``other`` (E,) int64, and ``shift`` (E, 3), the image's lattice vector."""

    centre: Tensor
    other: Tensor
    shift: Tensor


def edges_of(atoms: Any, reach: float) -> Edges:
    """All pairs (i, j, image) of an `ase.Atoms` that are closer than ``reach`` Angstrom, every pair both ways."""
    from ase.neighborlist import primitive_neighbor_list

    centre, other, cells = primitive_neighbor_list(  # type: ignore[no-untyped-call]
        "ijS", atoms.pbc, atoms.cell, atoms.positions, reach
    )
    shift = np.asarray(cells, dtype=np.float64) @ np.asarray(atoms.cell)
    return Edges(plain_tensor(centre), plain_tensor(other), plain_tensor(shift))


class GraphPotential(nn.Module):
    """Energy (R,) in eV of positions (R, N, 3) in Angstrom.

    Attributes:
        elements: atomic numbers that it knows.
        cutoff: Angstrom; nothing farther away is felt, and the energy reaches it smoothly.
        width: features of each atom.
        rounds: how often neighbours are summed.
        centres: radial functions.
    """

    def __init__(
        self, elements: tuple[int, ...], *, cutoff: float = 5.0, width: int = 48, rounds: int = 2, centres: int = 24
    ) -> None:
        super().__init__()
        self.elements, self.cutoff = tuple(elements), cutoff
        place = torch.full((119,), -1, dtype=torch.int64, device="cpu")
        place[torch.tensor(elements, dtype=torch.int64, device="cpu")] = torch.arange(
            len(elements), dtype=torch.int64, device="cpu"
        )
        self.register_buffer("place", place, persistent=False)
        self.register_buffer(
            "at", torch.linspace(1.0, cutoff, centres, dtype=torch.float32, device="cpu"), persistent=False
        )
        self.register_buffer("offset", torch.zeros(len(elements), dtype=torch.float32, device="cpu"))
        self.embedding = nn.Embedding(len(elements), width)
        self.filters = nn.ModuleList(_mlp(centres, width, width) for _ in range(rounds))
        self.mixes = nn.ModuleList(_mlp(width, width, width) for _ in range(rounds))
        self.readout = _mlp(width, width, 1)
        self._lists: dict[bytes, tuple[np.ndarray[Any, Any], Edges]] = {}

    def forward(self, positions: Tensor, atoms: Any) -> Tensor:
        """The energies of displaced copies of ``atoms`` (an `ase.Atoms`: elements, cell, periodic directions).

        Raises:
            InputError: an element that it was not trained on.
        """
        kinds = self.kinds(atoms.numbers)
        count, size = positions.shape[:2]
        edges = self._edges(positions.detach(), atoms)
        row = torch.arange(count, dtype=torch.int64, device="cpu").repeat_interleave(len(edges.centre)) * size
        many = Edges(edges.centre.repeat(count) + row, edges.other.repeat(count) + row, edges.shift.repeat(count, 1))
        owner = torch.arange(count, dtype=torch.int64, device="cpu").repeat_interleave(size)
        return self.energies(positions.reshape(-1, 3), kinds.repeat(count), many, owner, count)

    def energies(self, positions: Tensor, kinds: Tensor, edges: Edges, owner: Tensor, count: int) -> Tensor:
        """The energies (count,) of structures laid end to end: positions (A, 3), kinds (A,), ``owner`` (A,) of each."""
        arrow = positions[edges.other] + edges.shift.to(positions) - positions[edges.centre]
        distance = arrow.square().sum(1).sqrt()
        near = distance < self.cutoff
        centre, other, distance = edges.centre[near], edges.other[near], distance[near]
        at: Tensor = self.get_buffer("at")
        gap = float(at[1] - at[0])
        radial = torch.exp(-0.5 * ((distance[:, None] - at) / gap).square())
        fade = 0.5 * (torch.cos(distance * (math.pi / self.cutoff)) + 1)
        features = self.embedding(kinds)
        for filter_, mix in zip(self.filters, self.mixes, strict=True):
            message = features[other] * (filter_(radial) * fade[:, None])
            features = features + mix(torch.zeros_like(features).index_add(0, centre, message))
        each: Tensor = self.readout(features)[:, 0] + self.get_buffer("offset")[kinds]
        return each.new_zeros(count).index_add(0, owner, each)

    def kinds(self, numbers: Any) -> Tensor:
        """The place of each atomic number among the elements it knows, (N,).

        Raises:
            InputError: it does not know one.
        """
        kinds: Tensor = self.get_buffer("place")[plain_tensor(np.asarray(numbers))]
        if bool((kinds < 0).any()):
            unknown = sorted({int(number) for number in np.asarray(numbers)} - set(self.elements))
            raise InputError(
                f"the graph potential was trained on the atomic numbers {list(self.elements)}, the structure "
                f"has {unknown}",
                remedy="pass another potential, or train one with examples/atoms/train_potential.py",
            )
        return kinds

    def _edges(self, positions: Tensor, atoms: Any) -> Edges:
        """A neighbour list that holds for all rows; kept while no atom is far from where it was made."""
        identity = atoms.numbers.tobytes() + np.asarray(atoms.cell).tobytes() + atoms.pbc.tobytes()
        where = positions.cpu().double().numpy()
        kept = self._lists.get(identity)
        if kept is None or kept[0].shape != where.shape[1:] or _farthest(where, kept[0]) > _MARGIN:
            middle = where[0]
            reach = self.cutoff + 2 * max(_MARGIN, _farthest(where, middle))
            here = atoms.copy()
            here.set_constraint()
            here.set_positions(middle)
            kept = (middle, edges_of(here, reach))
            if len(self._lists) > 64:
                self._lists.clear()
            self._lists[identity] = kept
        return kept[1]


def _farthest(where: "np.ndarray[Any, Any]", middle: "np.ndarray[Any, Any]") -> float:
    return float(np.sqrt(np.square(where - middle).sum(-1).max()))


class _Smooth(nn.Module):
    """softplus(x) - log 2: smooth, so that forces are; zero at zero."""

    def forward(self, x: Tensor) -> Tensor:
        return softplus(x) - math.log(2.0)


def _mlp(inside: int, width: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inside, width), _Smooth(), nn.Linear(width, outside))
