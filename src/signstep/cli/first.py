"""What can be said of the options before anything is loaded: names, paths, sizes, whether the folder can be written.

None of it needs a model or data, and all of it would be said in any case, perhaps minutes later.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from signstep.attacks.recipes import canonical, recipe, split
from signstep.auditing.ladder import Rung
from signstep.auditing.ladder import ladder as find_ladder
from signstep.cli import options as o
from signstep.cli.groups import SearchOptions
from signstep.cli.work import output_folder
from signstep.domains import IMAGES, Request
from signstep.domains import domain as find_domain
from signstep.domains.image.case import threat_of
from signstep.domains.image.declared import declared
from signstep.engine.tasks import TASKS
from signstep.engine.threat import parse_threat
from signstep.errors import InputError, LoadError
from signstep.importing import is_spec
from signstep.io.files import expanded, missing
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.twin import ENGINES
from signstep.registry import nearest

_SIBLINGS = 1000


def look_first(
    request: Request,
    *,
    domain: str = IMAGES.name,
    attacks: Sequence[str] = (),
    ladder: str | Sequence[str] | None = None,
    search: SearchOptions | None = None,
    out: tuple[Path, Sequence[str]] | None = None,
) -> None:
    """See what can be seen without loading anything.

    Args:
        request: what was asked for.
        domain: whose options they are: what a schema says elsewhere is not looked at here.
        attacks: recipes, as they were typed.
        ladder: a preset or rungs.
        search: how the attacker searches.
        out: the output folder, and the files by which one of ours is known.

    Raises:
        InputError: a name, a path, a size or the folder cannot be used.
    """
    own = find_domain(domain)
    others = own.recipes if own.name != IMAGES.name else ()
    for text in attacks:
        _recipe(text, others)
    if isinstance(ladder, str):
        if ladder not in others:
            find_ladder(ladder)
    elif ladder is not None:
        for rung in ladder:
            _recipe(Rung.of(rung).recipe, others)
    for argument, path in (("weights", request.weights), ("classes", request.classes)):
        if isinstance(path, Path):
            refuse_missing(argument, path)
    if own.name == IMAGES.name:
        _of_images(request, search)
    if search is not None:
        _one_of("engine", search.engine, ENGINES)
        _near_data(request)
    if out is not None:
        with output_folder(out[0], marks=out[1]):
            pass


def _of_images(request: Request, search: SearchOptions | None) -> None:
    """What a schema says elsewhere: the threat, what outputs mean, the loss."""
    if request.threat is not None:
        # Without the box of the data, by which it is measured then.
        parse_threat(request.threat, box=(0.0, 1.0) if request.threat.lower().endswith(":none") else None)
    elif request.model is not None and request.data is not None:
        threat_of(request, None)  # raises
    _one_of("task", request.task, ("auto", *TASKS, "regression"))
    declared(request, Model(nn.Identity()))
    if search is not None and search.loss is not None:
        losses = dict.fromkeys(loss for task in TASKS.values() for loss in task.losses)
        _one_of("loss", search.loss, (*losses, "mse"))
    _near_data(request)


def _one_of(argument: str, value: str, known: Sequence[str]) -> None:
    """See that a word is one of those that an option takes.

    Raises:
        InputError: it is none; the message names the nearest.
    """
    if value not in known:
        near = nearest(value, known)
        hint = f"did you mean {near!r}?" if near else "pass one of these"
        raise InputError(Arg(argument, value), f"is not one of {', '.join(known)}", remedy=hint)


def refuse_missing(argument: str, path: Path) -> None:
    """See that a file is there; ``argument`` is what it was passed as, empty where that has no name.

    Raises:
        LoadError: it is not; the message names the nearest of its neighbours.
    """
    file = expanded(path)
    if not file.exists():
        near = nearest(file.name, _siblings(file))
        hint = f"did you mean {file.with_name(near)}?" if near else "check the path"
        raise missing(path, argument=argument, hint=hint)


def _near_data(request: Request) -> None:
    """See that data whose name is no other's is not a misspelling of some that is there.

    Raises:
        LoadError: it is.
    """
    text = request.data
    if text is None or is_spec(text) or ":" in text:
        return
    file = expanded(text)
    if file.exists() or text == "digits":
        return
    near = nearest(file.name, ("digits",) if file.name == text else ()) or nearest(file.name, _siblings(file))
    if near is not None:
        meant = near if near == "digits" else str(file.with_name(near))
        raise LoadError(Arg("data", text), "does not exist", remedy=f"did you mean {meant}?")


def _siblings(file: Path) -> list[str]:
    """Names of what lies beside a file, or would."""
    try:
        return [path.name for path in itertools.islice(file.parent.iterdir(), _SIBLINGS)]
    except OSError:
        return []


def _recipe(text: object, others: Sequence[str]) -> None:
    """See that a recipe exists, and each of its options; those of a domain it looks at itself."""
    if not isinstance(text, str) or split(canonical(text))[0] in others:
        return
    recipe(text)


def named_attacks(given: Sequence[str] | None) -> Sequence[str]:
    """The recipes that were typed; none where none was."""
    return o.attacks_of(given) if given else ()
