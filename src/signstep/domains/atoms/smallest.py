"""The second question: which is the smallest displacement that raises the energy by so much?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signstep.domains.atoms.destabilise import NormName, attack_of, measured, relaxed_notes, surface_of
from signstep.domains.atoms.measures import before, largest_force
from signstep.domains.atoms.potential import Quiet
from signstep.domains.atoms.results import SmallestRise
from signstep.domains.atoms.surface import Surface
from signstep.domains.atoms.threat import AtomsThreat, atoms_threat
from signstep.engine.defaults import plain_tensor
from signstep.engine.keys import Key
from signstep.errors import InputError
from signstep.maximum import maximise
from signstep.messages import Arg
from signstep.model.search import Search

# Attacks of the engine that look for the smallest change, by norm; they need what a mask can say.
_PAPERS = {"linf": ("fmn:step=0.3",), "l2": ("fmn:step=0.3", "ddn:init=0.1"), "atom": ()}
# Sizes are halved in until they are so close, relative to the size; lines so often, roughly on the way and at the end.
_CLOSE, _ROUGH, _HALVINGS = 0.005, 4, 14
_CONTROLS = 8


def smallest_rise(
    atoms: Any,
    *,
    rise: float = 0.5,
    norm: NormName = "atom",
    recipe: str = "auto",
    largest: float = 1.0,
    potential: Any = None,
    which: Sequence[int] | str | None = None,
    fmax: float = 0.05,
    quiet: Quiet | None = None,
    seed: int = 0,
) -> SmallestRise:
    """Find the smallest displacement that raises the energy by at least ``rise``.

    Sizes are bracketed and halved, an attack deciding at each; every displacement found is then shortened along its own
    straight line as far as it still reaches. "auto" does so with pgd and with second-order, adds the engine's attacks
    for the smallest change where they are defined (linf: fmn; l2: fmn, ddn; not with planes or lines), and keeps the
    smallest of all.

    Args:
        atoms: an `ase.Atoms`; left as it is.
        rise: eV.
        norm: see `destabilise`.
        recipe: "auto", a recipe to decide each size by ("pgd:steps=50", "second-order"), or "fmn" or "ddn".
        largest: Angstrom; nothing longer is tried.
        potential: see `destabilise`.
        which: see `destabilise`.
        fmax: see `destabilise`.
        quiet: see `destabilise`.
        seed: all randomness.

    Raises:
        InputError: the structure or an option does not fit.
        ModelError: the potential has no forces, or fails.
    """
    if not (math.isfinite(rise) and rise > 0):
        raise InputError(Arg("rise", rise), remedy="pass the energy to be gained in eV, above 0")
    if not (math.isfinite(largest) and largest > 0):
        raise InputError(Arg("largest", largest), remedy="pass the longest displacement to try in Angstrom, above 0")
    surface = surface_of(atoms, potential, which, quiet)
    threat = atoms_threat(norm, largest, (surface.structures[0].freedom,), (surface.structures[0].tag,))
    here = before(surface, threat, 0)
    names = ["pgd", "second-order", *(_PAPERS[norm] if threat.in_axes else ())] if recipe == "auto" else [recipe]
    linear = here.promise / largest  # the dual length of the gradient: the promise grows with the size
    hunt = _Hunt(surface, threat, rise, seed)
    tried: dict[str, float | None] = {}
    points: dict[str, Tensor] = {}
    for name in names:
        short = name.partition(":")[0]
        paper = short in ("fmn", "ddn", "fab", "cw", "deepfool")
        point = hunt.paper(name) if paper else hunt.halved(name, rise / linear if linear > 0 else math.inf)
        tried[short] = None if point is None else hunt.length(point)
        if point is not None:
            points[short] = point
    best = min(points, key=lambda name: hunt.length(points[name])) if points else names[0].partition(":")[0]
    x = points[best] if points else hunt.farthest()
    facts = measured(surface, here, x, norm, relaxed=here.relaxed(fmax, largest_force(surface, threat, 0, x)))
    return SmallestRise(
        **facts,
        recipe=best,
        tried=tried,
        verified=bool(threat.checked(surface.rows([0]), x).ok[0]),
        calculations=hunt.spent,
        notes=(
            *relaxed_notes(facts, fmax),
            *(() if points else (f"no displacement up to {largest:g} A was found that gains {rise:g} eV",)),
            *_stuck(tried, here.promise),
        ),
        rise=float(rise),
        reached=bool(points),
        linear_size=rise / linear if linear > 0 else math.inf,
        random_size=hunt.random(),
    )


def _stuck(tried: Mapping[str, float | None], promise: float) -> tuple[str, ...]:
    """That papers which begin at the untouched structure find no direction there, where that is why."""
    idle = [name for name in ("fmn", "ddn") if name in tried and tried[name] is None]
    if promise > 0 or not idle:
        return ()
    return (f"{', '.join(idle)} begins at the untouched structure, where no force gives a direction",)


class _Hunt:
    """Displacements of one structure that reach the rise, and what it took."""

    def __init__(self, surface: Surface, threat: AtomsThreat, rise: float, seed: int) -> None:
        self.surface, self.threat, self.rise, self.seed = surface, threat, rise, seed
        self.largest = float(plain_tensor(threat.eps, dtype=torch.float64))
        self.start = surface.rows([0])
        self.spent = 0

    def length(self, x: Tensor) -> float:
        """In the norm of the threat, Angstrom."""
        return float(self.threat.norm.length(x - self.start)[0])

    def halved(self, recipe: str, guess: float) -> Tensor | None:
        """The shortest point found by an attack that decides size after size; None where the largest does not reach."""
        low, high = 0.0, min(self.largest, guess)
        point = self._at(recipe, high)
        while point is None:
            if high >= self.largest:
                return None
            low, high = high, min(self.largest, 2 * high)
            point = self._at(recipe, high)
        best = self._shortened(point, _ROUGH)
        high = min(high, self.length(best))
        while high - low > _CLOSE * high:
            middle = (low + high) / 2
            point = self._at(recipe, middle)
            if point is None:
                low = middle
            else:
                shorter = self._shortened(point, _ROUGH)
                best = shorter if self.length(shorter) < self.length(best) else best
                high = min(middle, self.length(best))
        return self._shortened(best, _HALVINGS)

    def paper(self, recipe: str) -> Tensor | None:
        """The nearest point that an attack for the smallest change comes upon."""
        found = maximise(self.surface, self.start, self.threat, recipe, level=self.rise, search=Search(seed=self.seed))
        self.spent += int(found.forwards[0])
        assert isinstance(found.x, Tensor)
        return self._shortened(found.x, _HALVINGS) if bool(found.reached[0]) else None

    def farthest(self) -> Tensor:
        """The point at the largest size that pgd gains the most by, where nothing reaches."""
        found = maximise(self.surface, self.start, self.threat, attack_of("pgd"), search=Search(seed=self.seed))
        self.spent += int(found.forwards[0])
        assert isinstance(found.x, Tensor)
        return found.x

    def random(self) -> float:
        """The median size at which random directions reach the rise."""
        x = self.surface.rows([0] * _CONTROLS)
        region = self.threat.around(x)
        d = region.vertex(
            Key(self.seed)
            .fold("random directions")
            .draws(torch.arange(_CONTROLS, dtype=torch.int64, device="cpu"), x.device)
        )
        assert isinstance(d, Tensor)
        low, high = (
            torch.zeros(_CONTROLS, dtype=torch.float64, device="cpu"),
            torch.full((_CONTROLS,), torch.inf, dtype=torch.float64, device="cpu"),
        )
        with torch.no_grad():
            for share in torch.linspace(0.1, 1, 10, dtype=torch.float64, device="cpu"):
                hit = (self.surface(x + share * d) >= self.rise) & torch.isinf(high)
                high = torch.where(hit, share, high)
                low = torch.where(torch.isinf(high), share, low)
            for _ in range(6):
                middle = torch.where(torch.isinf(high), 1.0, (low + high) / 2)
                hit = self.surface(x + middle[:, None, None] * d) >= self.rise
                high = torch.where(hit & ~torch.isinf(high), middle, high)
                low = torch.where(hit, low, middle)
        return float(np.median(high.numpy())) * self.largest

    def _at(self, recipe: str, size: float) -> Tensor | None:
        threat = replace(self.threat, eps=size, label="")
        found = maximise(
            self.surface, self.start, threat, attack_of(recipe), level=self.rise, search=Search(seed=self.seed)
        )
        self.spent += int(found.forwards[0])
        assert isinstance(found.x, Tensor)
        return found.x if bool(found.reached[0]) else None

    def _shortened(self, x: Tensor, halvings: int) -> Tensor:
        """Along the straight line to x, the shortest part that still reaches."""
        d = x - self.start
        low, high = 0.0, 1.0
        region = self.threat.around(self.start)
        best = x
        for _ in range(halvings):
            middle = (low + high) / 2
            point = region.land(region.project(middle * d))
            assert isinstance(point, Tensor)
            with torch.no_grad():
                reaches = bool(self.surface(point)[0] >= self.rise)
            self.spent += 1
            if reaches:
                high, best = middle, point
            else:
                low = middle
        return best
