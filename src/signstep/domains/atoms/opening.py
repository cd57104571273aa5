"""From a name to a potential."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from signstep.domains.atoms.bundled import graph_potential
from signstep.domains.atoms.potential import Potential, as_potential
from signstep.domains.atoms.structures import need_ase
from signstep.engine.origin import foreign
from signstep.errors import InputError, LoadError, SignstepError

NAMES = ("emt", "lj", "morse", "graph")


def potential_named(name: str, args: Mapping[str, Any] | None = None, weights: Path | None = None) -> Potential:
    """A potential by name, or from ``package.module:factory``, which returns a calculator or a torch potential.

    Args:
        name: emt, lj, morse (ASE's own), graph (the shipped network), or module:factory.
        args: keyword arguments of the calculator or factory.
        weights: of "graph": a file of other weights.

    Raises:
        InputError: there is no such potential, or the arguments do not fit.
        LoadError: the factory's code fails.
    """
    need_ase()
    given = dict(args or {})
    if weights is not None and name != "graph":
        raise InputError(f"weights have no effect on the potential {name!r}; load them in your factory")
    if name == "graph":
        if given:
            raise InputError(f"the potential graph takes no arguments, got {sorted(given)}; drop them")
        return graph_potential(weights)
    try:
        return as_potential(_factory(name)(**given))
    except SignstepError:
        raise
    except TypeError as error:
        raise InputError(f"the potential {name} does not take {given or 'no arguments'} ({error})") from error
    except Exception as error:
        raise LoadError(f"{name} failed with {type(error).__name__}: {error}; fix it there") from error


def _factory(name: str) -> Any:
    if name == "emt":
        from ase.calculators.emt import EMT

        return EMT
    if name == "lj":
        from ase.calculators.lj import LennardJones

        return LennardJones
    if name == "morse":
        from ase.calculators.morse import MorsePotential

        return MorsePotential
    module, colon, attribute = name.partition(":")
    if not colon or not attribute.isidentifier():
        raise InputError(f"potential={name!r} is not one of {', '.join(NAMES)}, and not module:factory")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        with foreign(f"importing {module}"):
            found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise InputError(f"{name}: the module cannot be imported from {folder} ({error}); check the name") from error
    finally:
        sys.path.remove(folder)
    if found is None or not callable(found):
        raise InputError(f"{name}: the module {module} has no function {attribute}; name one that returns a potential")
    return found
