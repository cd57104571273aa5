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
from signstep.messages import Arg

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
        raise InputError(
            Arg("weights"), f"have no effect on the potential {name!r}", remedy="load them in your factory"
        )
    if name == "graph":
        if given:
            raise InputError(f"the potential graph takes no arguments, got {sorted(given)}", remedy="drop them")
        return graph_potential(weights)
    try:
        return as_potential(_factory(name)(**given))
    except SignstepError:
        raise
    except TypeError as error:
        raise InputError(
            f"the potential {name} does not take {given or 'no arguments'} ({error})", remedy="pass what it takes"
        ) from error
    except Exception as error:
        raise LoadError(f"{name} failed with {type(error).__name__}: {error}", remedy="fix it there") from error


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
        raise InputError(
            Arg("potential", name),
            f"is not one of {', '.join(NAMES)}",
            remedy="pass one of these, or your own as module:factory",
        )
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        with foreign(f"importing {module}"):
            found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise InputError(
            f"{name}: the module cannot be imported from {folder} ({error})", remedy="check the name"
        ) from error
    finally:
        sys.path.remove(folder)
    if found is None or not callable(found):
        raise InputError(
            f"{name}: the module {module} has no function {attribute}", remedy="name one that returns a potential"
        )
    return found
