"""What an audit of structures found, in the words of those who work with them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from signstep.auditing.result import Result
from signstep.auditing.sections import Chart, Line, Section
from signstep.domains.atoms.destabilise import AUTO, attack_of, name_of
from signstep.domains.atoms.measures import Before, before, curvature, largest_force, random_gains, random_points, work
from signstep.domains.atoms.potential import Potential
from signstep.domains.atoms.schema import Schema
from signstep.domains.atoms.surface import Surface
from signstep.domains.atoms.threat import AtomsThreat
from signstep.maximum import maximise
from signstep.model.search import Search

# Structures told of in full; all are in the table of the audit.
_MOST = 8
_CONTROLS = 32
_SHARES = (0.0, 0.25, 0.5, 1.0, 1.5)


@dataclass(frozen=True, eq=False)
class Told:
    """One structure: untouched, displaced by each recipe, and displaced at random."""

    number: int
    here: Before
    gains: dict[str, float]
    best: Tensor
    after: float
    along: float
    curvature: float
    random: Any
    work: Any


def summary(
    result: Result,
    points: Mapping[str, Tensor],  # noqa: ARG001
    *,
    surface: Surface,
    threat: AtomsThreat,
    schema: Schema,
    reference: Potential | None,
    seed: int,
) -> tuple[Section, ...]:
    """The sections of the report."""
    plain = Surface(surface.structures, surface.potential, surface.quiet)
    told = [_told(plain, threat, number, seed) for number in range(min(_MOST, len(plain.structures)))]
    sections = [_energies(plain, schema, told), _atoms(plain, told), _sizes(result, plain, schema, told)]
    if told:
        sections.append(_along_eps(plain, threat, schema, max(told, key=lambda one: max(one.gains.values())), seed))
    if reference is not None:
        sections.append(_compared(plain, threat, reference, told, seed))
    return tuple(sections)


def _told(surface: Surface, threat: AtomsThreat, number: int, seed: int) -> Told:
    here = before(surface, threat, number)
    x = surface.rows([number])
    found = {
        name_of(recipe): maximise(surface, x, threat, attack_of(recipe), search=Search(seed=seed)) for recipe in AUTO
    }
    gains = {name: float(one.gain[0]) for name, one in found.items()}
    best = found[max(gains, key=lambda name: gains[name])].x
    assert isinstance(best, Tensor)
    d = (best - x)[0]
    along = float((here.gradient * d).sum())
    return Told(
        number,
        here,
        gains,
        best,
        largest_force(surface, threat, number, best),
        along,
        curvature(max(gains.values()), along, d),
        random_gains(surface, threat, number, _CONTROLS, seed),
        work(surface, number, d),
    )


def _energies(surface: Surface, schema: Schema, told: list[Told]) -> Section:
    relaxed = [one for one in told if one.here.relaxed(schema.fmax, one.after)]
    text = [
        "Energy gained in eV at eps: what first order promises at most (the sum of eps times the forces, in the dual "
        f"norm), {_CONTROLS} random displacements of the same size, and each attack. What an attack finds is a lower "
        "bound on the largest rise.",
    ]
    if relaxed:
        text.append(
            f"{len(relaxed)} of {len(told)} structures are relaxed (forces of at most {schema.fmax:.0%} of those after "
            "the strongest displacement found): there first order promises little, FGSM follows the rest that the "
            "optimiser left, and the energy comes from the curvature. pgd starts at random; second-order iterates on "
            "the curvature."
        )
    if len(told) < len(surface.structures):
        text.append(f"The first {len(told)} of {len(surface.structures)} structures.")
    rows = tuple(
        (
            surface.structures[one.number].name,
            f"{one.here.largest:.3f}",
            f"{one.here.promise:+.3f}",
            f"{one.random.mean():+.3f}",
            f"{one.random.max():+.3f}",
            *(f"{gain:+.3f}" for gain in one.gains.values()),
            f"{one.curvature:.1f}",
        )
        for one in told
    )
    header = (
        "structure",
        "largest force (eV/A)",
        "first order",
        "random, mean",
        "random, largest",
        *(name_of(recipe) for recipe in AUTO),
        "curvature (eV/A2)",
    )
    return Section("Energy gained", tuple(text), header, rows)


def _atoms(surface: Surface, told: list[Told]) -> Section:
    rows = []
    for one in told:
        structure = surface.structures[one.number]
        symbols = structure.atoms.get_chemical_symbols()
        order = sorted(range(len(structure)), key=lambda atom: -float(one.work[atom]))[:3]
        gain = max(one.gains.values())
        shares = ", ".join(f"{atom} ({symbols[atom]}) {one.work[atom]:+.3f}" for atom in order)
        drift = (one.best - surface.rows([one.number]))[0, : len(structure)].mean(0).norm()
        rows.append((structure.name, shares, f"{gain:+.3f}", f"{float(drift):.3f}"))
    text = (
        "The energy in eV that an atom takes up on the straight line to the strongest displacement found (minus the "
        "integral of its force along its path); over all atoms it sums to the gain. The drift is the mean "
        "displacement; where nothing is held it costs no energy. It is not taken out, since eps limits each "
        "displacement as it is.",
    )
    return Section(
        "Most sensitive atoms", text, ("structure", "three atoms (eV)", "gain (eV)", "drift (A)"), tuple(rows)
    )


def _sizes(result: Result, surface: Surface, schema: Schema, told: list[Told]) -> Section:
    """The second question, from the runs of the audit itself."""
    nearest = next(iter(result.per_example.nearest.items()), None)
    rows = []
    for one in told:
        structure = surface.structures[one.number]
        ray = result.per_example.smallest_eps[one.number] if one.number < len(result.per_example.smallest_eps) else None
        promise = one.here.promise / schema.eps
        level = structure.rise or 0.0
        cells = [structure.name, f"{level:g}", f"{level / promise:.4f}" if promise > 0 else "-", _size(ray)]
        if nearest is not None:
            cells.append(_size(nearest[1][one.number] if one.number < len(nearest[1]) else None))
        rows.append(tuple(cells))
    header = ["structure", "to reach (eV)", "first order asks for (A)", "along FGSM's ray (A)"]
    if nearest is not None:
        header.append(f"nearest by {nearest[0].partition(':')[0]} (A)")
    text = (
        f"The smallest displacement found, in {schema.norm}, that reaches the level: an upper bound on the "
        "smallest there is (a dash: none was found). smallest_rise in signstep.domains.atoms searches harder, in "
        "every norm.",
    )
    return Section("Smallest displacement", text, tuple(header), tuple(rows))


def _along_eps(surface: Surface, threat: AtomsThreat, schema: Schema, one: Told, seed: int) -> Section:
    sizes = tuple(share * schema.eps for share in _SHARES)
    promised, random, by = [0.0], [0.0], {name_of(recipe): [0.0] for recipe in AUTO}
    x = surface.rows([one.number])
    for share, size in zip(_SHARES[1:], sizes[1:], strict=True):
        there = replace(threat, eps=size, label="")
        promised.append(share * one.here.promise)
        random.append(float(random_gains(surface, there, one.number, 16, seed).mean()))
        for recipe in AUTO:
            found = maximise(surface, x, there, attack_of(recipe), search=Search(seed=seed))
            by[name_of(recipe)].append(float(found.gain[0]))
    # The first line is the one to look at.
    named = {**dict(reversed(by.items())), "first order": promised, "random, mean": random}
    lines = tuple(Line(name, sizes, tuple(values)) for name, values in named.items())
    name = surface.structures[one.number].name
    chart = Chart(
        "lines",
        f"Energy along eps: {name}",
        f"Energy gained in {name} by first order, random displacements and each attack, up to {sizes[-1]:g} A.",
        f"eps (A, {threat.norm.name})",
        "energy gained (eV)",
        lines,
        limits=()
        if surface.structures[one.number].rise is None
        else (("level", float(surface.structures[one.number].rise or 0)),),
    )
    text = (
        f"{name}, the structure that gained most. Where the forces are zero the energy rises with the square of eps: "
        "the straight line of first order stays below.",
    )
    return Section("Energy along eps", text, chart=chart)


def _compared(surface: Surface, threat: AtomsThreat, reference: Potential, told: list[Told], seed: int) -> Section:
    """How far the two potentials lie apart: untouched, displaced at random, displaced by the attack on the first."""
    rows = []
    for one in told:
        structure = surface.structures[one.number]
        size = len(structure)
        places = {
            "untouched": surface.rows([one.number]),
            "random": random_points(surface, threat, one.number, 16, seed),
            "attacked": one.best,
        }
        start = _gap(surface.potential, reference, places["untouched"], structure.atoms)
        gaps = {name: _gap(surface.potential, reference, x, structure.atoms) for name, x in places.items()}
        cells = [f"{1000 * float(gap.abs().mean()) / size:.1f}" for gap in gaps.values()]
        shift = 1000 * float((gaps["attacked"] - start).mean()) / size
        gained = _gained(reference, places["untouched"], one.best, structure.atoms)
        rows.append((structure.name, *cells, f"{shift:+.1f}", f"{max(one.gains.values()):+.3f}", f"{gained:+.3f}"))
    header = (
        "structure",
        "untouched (meV/atom)",
        "random",
        "attacked",
        "change",
        f"gain by {surface.potential.name} (eV)",
        f"gain by {reference.name}",
    )
    text = (
        f"The distance between the energies of {surface.potential.name} and {reference.name}, in meV for each atom, "
        "where the structures are untouched, at random displacements (mean), and at the displacement found on the "
        "first alone. A gain that the reference does not confirm is an error of the potential, not of the structure.",
    )
    return Section(f"Against {reference.name}", text, header, tuple(rows))


def _gap(first: Potential, second: Potential, x: Tensor, atoms: Any) -> Tensor:
    positions = x[:, : len(atoms)]
    return first.energies(positions, atoms) - second.energies(positions, atoms)


def _gained(potential: Potential, start: Tensor, end: Tensor, atoms: Any) -> float:
    energies = potential.energies(torch.cat([start, end])[:, : len(atoms)], atoms)
    return float(energies[1] - energies[0])


def _size(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
