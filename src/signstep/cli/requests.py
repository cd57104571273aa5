"""``--dry-run``, and what a command asked of endpoints, in words."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from signstep.auditing.table import requests_said
from signstep.cli.terminal import told
from signstep.engine.tree import Tree
from signstep.errors import InputError
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.model.victims.dry_run import dry_run
from signstep.model.victims.endpoint import HttpVictim


def shown_once(models: Sequence[Model], batches: Iterable[tuple[Tree, Any]]) -> None:
    """Print the first request that each endpoint would be sent; nothing is.

    Raises:
        InputError: none of the models is one, or the data does not go that way.
    """
    asked = [model for model in models if isinstance(model.network, HttpVictim)]
    first = next(iter(batches), (None, None))[0]
    if not asked or not isinstance(first, Tensor):
        raise InputError(
            Arg("dry_run"),
            "shows a request, and no model here is sent any",
            remedy=("pass", Arg("model", Blank("https://HOST/PATH"), python="an address"), ", or leave it out"),
        )
    for model in asked:
        assert isinstance(model.network, HttpVictim)
        prepare = model.predictor().prepare
        part = first[: model.network.batch]
        ready = part if prepare is None else prepare(part)
        assert isinstance(ready, Tensor)
        told(dry_run(model.network, ready))


def spent_of(network: object) -> dict[str, Any] | None:
    """What an endpoint was sent, for records; None of what is none."""
    return network.spent().plain() if isinstance(network, HttpVictim) else None


def spent_by(network: object) -> str | None:
    """The same in words."""
    spent = spent_of(network)
    return None if spent is None else requests_said(spent)
