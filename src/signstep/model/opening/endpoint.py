"""A model from an address and a description of what it takes and answers."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from signstep.errors import InputError
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.model.opening.opener import Opener, Wanted
from signstep.model.victims.address import SCHEMES, Address
from signstep.model.victims.described import description
from signstep.model.victims.endpoint import HttpVictim

_TAKES = ("endpoint", "max_requests")


def opened(wanted: Wanted) -> Model:
    """The model behind an address; nothing is asked.

    Raises:
        InputError: the address, the description or an argument is none.
        LoadError: the description cannot be read.
    """
    address = Address.of(wanted.spec)
    described = description(_described_by(wanted, address)).bounded(_most(wanted.args))
    victim = HttpVictim.of(address, described)
    notes = [
        "it is asked over HTTP: it gives no gradients, and may be less robust than queries find",
        "whoever runs the endpoint can change it at any time, and no hash would tell",
    ]
    if victim.levels:
        notes.append(f"inputs go as images of 8 bits: changes are looked for on their grid of {victim.levels} steps")
    kind = described.answers.kind
    return Model(
        victim,
        outputs="logits" if kind == "scores" else kind,
        classes=described.answers.classes,
        shape=described.shape,
        name=address.url,
        hashes={"endpoint": described.digest},
        notes=notes,
    )


def _described_by(wanted: Wanted, address: Address) -> str | Path | Mapping[str, Any]:
    for name in wanted.args:
        if name not in _TAKES:
            near = difflib.get_close_matches(name, _TAKES, n=1)
            raise InputError(
                f"{address.url} takes no argument {name!r}",
                remedy=f"did you mean {near[0]}?" if near else f"it takes {' and '.join(_TAKES)}",
            )
    given = wanted.args.get("endpoint")
    if given is not None and wanted.endpoint is not None:
        raise InputError(Arg("endpoint", wanted.endpoint), f"is given twice, and as {given!r}", remedy="keep one")
    found = wanted.endpoint if given is None else str(given)
    if found is None:
        raise InputError(
            f"{address.url} does not say what it takes and answers",
            remedy=(
                "describe it in a file, and pass",
                Arg("endpoint", Blank("file.toml"), python="endpoint='FILE.toml'"),
            ),
        )
    return found


def _most(args: Mapping[str, Any]) -> int | None:
    most = args.get("max_requests")
    if most is not None and type(most) is not int:
        raise InputError(Arg("max_requests", most), remedy="pass a whole number, at least 1")
    return most


ROW = Opener(
    "https",
    "a model behind an HTTP endpoint, with a description of what it takes and answers",
    "https://HOST/PATH",
    opened,
    prefixes=SCHEMES,
    args="endpoint=FILE.toml, max_requests=N",
)
