"""Energies that the attacks can differentiate: any ASE calculator, or a torch function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from signstep.engine.defaults import plain_tensor
from signstep.errors import ModelError
from signstep.messages import Arg

TorchEnergy: TypeAlias = Callable[[Tensor, Any], Tensor]


@runtime_checkable
class Potential(Protocol):
    """Energies in eV and forces in eV/Angstrom of displaced copies of a structure."""

    @property
    def name(self) -> str:
        """For records."""

    def energies(self, positions: Tensor, atoms: Any) -> Tensor:
        """Energies (R,) float64 at positions (R, N, 3) of the atoms, cell and periodic directions of ``atoms``."""

    def forces(self, positions: Tensor, atoms: Any) -> tuple[Tensor, Tensor]:
        """Energies (R,) and forces (R, N, 3), float64."""


@dataclass(frozen=True, eq=False)
class AseCalculator:
    """An ASE calculator. Its force-consistent energy is used where it has one: the one that its forces belong to.

    Raises:
        ModelError: it has no forces.
    """

    calculator: Any

    def __post_init__(self) -> None:
        known = getattr(self.calculator, "implemented_properties", None)
        if known is None:
            raise ModelError(
                f"{type(self.calculator).__name__} is not an ASE calculator (it has no implemented_properties)",
                remedy="pass one, or a torch function of (positions, atoms)",
            )
        if "forces" not in known:
            raise ModelError(
                f"the calculator {self.name} gives {', '.join(known) or 'nothing'} but no forces, and the step "
                "goes against the forces",
                remedy="pass a calculator that has them, or a torch potential",
            )

    @property
    def name(self) -> str:
        """The class of the calculator."""
        return type(self.calculator).__name__

    def energies(self, positions: Tensor, atoms: Any) -> Tensor:
        """One calculation for each row."""
        return self._all(positions, atoms, forces=False)[0]

    def forces(self, positions: Tensor, atoms: Any) -> tuple[Tensor, Tensor]:
        """One calculation for each row."""
        return self._all(positions, atoms, forces=True)

    def _all(self, positions: Tensor, atoms: Any, *, forces: bool) -> tuple[Tensor, Tensor]:
        here = atoms.copy()
        here.set_constraint()  # forces as they are: what holds the atoms is the threat model's business
        kind = "free_energy" if "free_energy" in self.calculator.implemented_properties else "energy"
        energies, all_forces = [], []
        for row in positions.detach().cpu().double().numpy():
            here.set_positions(row)
            try:
                if forces:
                    all_forces.append(np.array(self.calculator.get_property("forces", here), dtype=np.float64))
                energies.append(float(self.calculator.get_property(kind, here)))
            except Exception as error:
                raise ModelError(
                    f"the calculator {self.name} failed on {atoms.get_chemical_formula()} with "
                    f"{type(error).__name__}: {error}",
                    remedy="check that it works on the structure as it is",
                ) from error
        return torch.tensor(energies, dtype=torch.float64, device="cpu"), plain_tensor(np.array(all_forces))


@dataclass(frozen=True, eq=False)
class TorchPotential:
    """A torch function ``energy(positions (R, N, 3), atoms) -> (R,)`` in eV; forces come from autograd."""

    energy: TorchEnergy
    label: str = ""

    @property
    def name(self) -> str:
        """The label, or the name of the function or class."""
        return self.label or getattr(self.energy, "__name__", type(self.energy).__name__)

    def energies(self, positions: Tensor, atoms: Any) -> Tensor:
        """One pass for all rows."""
        with torch.no_grad():
            return self._ask(positions, atoms).double().cpu()

    def forces(self, positions: Tensor, atoms: Any) -> tuple[Tensor, Tensor]:
        """One pass and one backward pass for all rows."""
        with torch.enable_grad():
            leaf = positions.detach().clone().requires_grad_()
            energies = self._ask(leaf, atoms)
            if not energies.requires_grad:
                raise ModelError(
                    f"the energy of {self.name} does not depend on the positions through torch operations",
                    remedy="keep to torch inside it, or wrap it as an ASE calculator with forces",
                )
            (slope,) = torch.autograd.grad(energies.sum(), leaf)
        return energies.detach().double().cpu(), -slope.double().cpu()

    def _ask(self, positions: Tensor, atoms: Any) -> Tensor:
        energies = self.energy(positions, atoms)
        if not isinstance(energies, Tensor) or energies.shape != (len(positions),):
            got = tuple(energies.shape) if isinstance(energies, Tensor) else type(energies).__name__
            raise ModelError(
                f"the potential {self.name} returned {got} for {len(positions)} copies of a structure",
                remedy=f"return one energy for each, shape ({len(positions)},)",
            )
        return energies


def as_potential(given: Any) -> Potential:
    """A calculator, a torch module or function, or a potential already, as a `Potential`.

    Raises:
        ModelError: it is none of these, or has no forces.
    """
    if isinstance(given, (AseCalculator, TorchPotential)):
        return given
    if isinstance(given, nn.Module):
        return TorchPotential(given)
    if hasattr(given, "implemented_properties") or hasattr(given, "get_potential_energy"):
        return AseCalculator(given)
    if isinstance(given, Potential):
        return given
    if callable(given):
        return TorchPotential(given)
    raise ModelError(
        Arg("potential", given),
        "is neither an ASE calculator nor a torch function of (positions, atoms)",
        remedy="pass one, or set atoms.calc",
    )


@dataclass(frozen=True)
class Quiet:
    """Which forces count as zero: those below ``relative`` times the structure's largest, and those below ``floor``.

    A symmetric atom has a force of 1e-17 eV/Angstrom by rounding, and its sign would move the atom by the whole eps.

    Attributes:
        relative: of the largest force component of the structure at that point.
        floor: eV/Angstrom; where the largest is below it there is no force at all.
    """

    relative: float = 1e-6
    floor: float = 1e-8

    def __call__(self, forces: Tensor) -> Tensor:
        """Forces (R, N, 3) with zeros where they do not count."""
        size = forces.abs()
        least = (self.relative * size.flatten(1).amax(1)).clamp_min(self.floor)
        return torch.where(size > least[:, None, None], forces, 0.0)


class _Energy(torch.autograd.Function):
    """Energies forward, minus the forces backward: one calculation for both."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, potential: Potential, atoms: Any, quiet: Quiet) -> Tensor:
        if not ctx.needs_input_grad[0]:
            return potential.energies(positions, atoms)
        energies, forces = potential.forces(positions, atoms)
        ctx.save_for_backward(quiet(forces))
        return energies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (forces,) = ctx.saved_tensors
        return -forces * grads[0][:, None, None], None, None, None


def energy(positions: Tensor, potential: Potential, atoms: Any, quiet: Quiet) -> Tensor:
    """Energies (R,) in eV with minus the forces as their gradient, those that count as zero left out."""
    found: Tensor = _Energy.apply(positions, potential, atoms, quiet)  # type: ignore[no-untyped-call]
    return found
