"""What ``signstep compare`` can be asked: what has no effect is refused, before the first model is audited."""

from collections.abc import Sequence
from typing import Any

import typer

from signstep.auditing.result import Result
from signstep.cli.candidates import Candidate
from signstep.cli.first import refuse_missing
from signstep.domains.case import Request
from signstep.domains.image.declared import refuse_unheeded, said
from signstep.errors import InputError
from signstep.importing import current_folder_importable, imported_object
from signstep.messages import Arg
from signstep.model.opening.factory import ROW as FACTORY_ROW
from signstep.model.opening.table import opener_of, path_of
from signstep.registry import nearest


def check(
    candidates: tuple[Candidate, ...], found: dict[str, Result], recipe: list[str] | None, given: dict[str, Any]
) -> None:
    """See that there are two at least under names of their own, and that what was ``given`` fits what they are.

    Raises:
        InputError: it is not so.
    """
    if len(candidates) + len(found) < 2:
        raise InputError(f"compare got {len(candidates) + len(found)} result", remedy="pass two or more")
    for candidate in candidates:
        if candidate.name in found:
            raise InputError(
                f"the name {candidate.name!r} comes twice", remedy="write NAME=... with a name of its own for each"
            )
    if not candidates or not recipe:
        useless = ("test", "set", "limit", *(() if candidates else ("data", "threat")))
        for name in useless:
            if given[name] not in (None, [], ()):
                needs = (Arg("recipe"),) if candidates else (Arg("model"), "or", Arg("recipe"))
                raise InputError(Arg(name), "has no effect without", *needs, remedy="pass these, or drop it")
    if candidates and given["data"] is None and (not recipe or given["test"]):
        raise InputError(
            Arg("model", candidates[0].network.spec), "needs data to be audited on", remedy=("pass", Arg("data"))
        )


def refuse_all_but(context: typer.Context, heeded: Sequence[str]) -> None:
    """See that no option is typed that has no effect where results alone are compared.

    Raises:
        InputError: one is.
    """
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in heeded and source is not None and source.name == "COMMANDLINE":
            raise InputError(
                Arg(name),
                "has no effect without",
                Arg("model"),
                "or",
                Arg("recipe"),
                remedy="pass these, or drop it: results are compared as they are",
            )


def check_against(against: str | None, names: Sequence[str]) -> None:
    """See that what all are compared with is one of them.

    Raises:
        InputError: it is none.
    """
    if against is not None and against not in names:
        near = nearest(against, names)
        remedy = f"did you mean {near!r}?" if near else f"pass one of {', '.join(names)}"
        raise InputError(Arg("against", against), "is none of the results", remedy=remedy)


def refuse_useless(request: Request, candidates: Sequence[Candidate]) -> None:
    """See that weights are there, and that what the options declare is of use for one of the models at least.

    All that before the first is audited.

    Raises:
        InputError: all declare it themselves.
        LoadError: a model cannot be opened.
    """
    networks = dict.fromkeys(candidate.network for candidate in candidates)
    for network in networks:
        for path in (network.weights, path_of(network.spec)):
            if path is not None:
                refuse_missing("", path)
        row = opener_of(network.spec)
        if row is not None and row.name == FACTORY_ROW.name:
            with current_folder_importable():
                imported_object(network.spec)  # raises: a name that is not there is said before hours of work
    if said(request):
        refuse_unheeded(request, [one.load(trust=request.trust, mode=request.mode) for one in networks])
