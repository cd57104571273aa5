"""The table of norms, and the one place that turns "grouped(0)" into a norm."""

import re
from collections.abc import Callable

from signstep.engine.norm_rows import FAMILY, SPELLING, family_of, norm_of, refuse_norm, with_arguments
from signstep.engine.norms.balls import L1, L2, Linf
from signstep.engine.norms.counted import L0
from signstep.engine.norms.grouped import Grouped
from signstep.engine.norms.norm import Norm
from signstep.engine.origin import foreign
from signstep.errors import ThreatError
from signstep.messages import Arg
from signstep.registry import NotTypedError, Registry, UnknownNameError, nearest

BUILT_IN = (Linf, L2, L1, L0, Grouped)

NORMS: Registry[Norm] = Registry(
    "signstep.norms", SPELLING, norm_of, {"linf": Linf(), "l2": L2(), "l1": L1(), "l0": L0()}, argument="norm"
)


FAMILIES: Registry[Callable[..., Norm]] = Registry("signstep.norm_families", FAMILY, family_of, argument="norm")
"""Classes and functions that make norms of arguments, by the name before the bracket."""

BY_NAME: dict[str, Norm] = {
    **NORMS.own,
    "inf": NORMS["linf"],
    "2": NORMS["l2"],
    "1": NORMS["l1"],
    "0": NORMS["l0"],
    "pixel": Grouped((0,), "pixel"),
    "atom": Grouped((-1,), "atom"),
    "token": Grouped((-1,), "token"),
    "l0-pixel": L0((0,), "l0-pixel"),
    "l0-atom": L0((-1,), "l0-atom"),
    "l0-token": L0((-1,), "l0-token"),
}


def norm(name: str | Norm) -> Norm:
    """The norm of this name, in any case of letters; a norm is returned as it is.

    Names: linf or inf, l2 or 2, l1 or 1, l0 or 0, pixel = grouped(0), atom = token = grouped(-1), grouped(axis,...);
    and counts of groups: l0-pixel = l0(0), l0-atom = l0-token = l0(-1), l0(axis,...). One of somebody's own is
    "package.module:name", with its arguments behind it where it has some: "my_norms:Weighted(0.5)".

    Raises:
        ThreatError: no norm has this name, or what has it is none.
    """
    given: object = name
    if isinstance(given, Norm):
        return given
    if not isinstance(given, (str, int, float)):
        refuse_norm(given)
    key = str(given).strip()
    if key.lower() in BY_NAME:
        return BY_NAME[key.lower()]
    if axes := re.fullmatch(r"(grouped|l0)\((-?\d+(?:,-?\d+)*)\)", key.lower()):
        return (Grouped if axes[1] == "grouped" else L0)(tuple(int(axis) for axis in axes[2].split(",")))
    try:
        return _brought(key)
    except NotTypedError:
        raise
    except UnknownNameError as error:
        near = nearest(key, BY_NAME)
        every = f"use one of {', '.join(BY_NAME)} or grouped(axis,...), or your own, as module:name"
        remedy = f"did you mean {near!r}?" if near else every
        raise ThreatError(Arg("norm", name), "is not known", remedy=remedy) from error


def _brought(key: str) -> Norm:
    """A norm that is none of Signstep's.

    Raises:
        InputError: there is none of this name, or it cannot be made.
    """
    if key.lower().startswith(("grouped(", "l0(")):
        ours = key.lower().partition("(")[0]
        raise UnknownNameError(Arg("norm", key), remedy=f"write {ours}(1,2), say, with whole numbers for the axes")
    called = with_arguments(key)
    if called is None:
        return NORMS.find(key)
    name, values, named = called
    make = FAMILIES.find(name)
    with foreign(f"the norm {name}"):
        made = make(*values, **named)
    refuse_norm(made)
    return made
