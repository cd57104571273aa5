"""What is seen to before a run: that data, threat and settings fit, what is held out; and memory that runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from signstep.engine import arrays
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError, ModelError, SignstepError
from signstep.messages import Arg
from signstep.train.augment import check_images
from signstep.train.craft import ball
from signstep.train.order import split
from signstep.train.recipes import TrainingRecipe, training_recipe
from signstep.train.rows import Inputs, Rows, chosen, rows_of
from signstep.train.settings import Settings
from signstep.train.team import Team

# Held-out rows that looks and validations ask for, on a CPU and on an accelerator.
_HELD_ROWS, _HELD_ROWS_ELSEWHERE = 256, 1024

# Alias for torch versions that do not have the newer name.
OUT_OF_MEMORY: type[Exception] = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class Prepared:
    """Rows to train on and rows to look at.

    Attributes:
        rows: to train on.
        held_x: the first of those held out, on the device of the model.
        held_y: their labels.
        seen: whether all values were looked at; where not, batches are looked at as they come.
    """

    rows: Rows
    held_x: Tensor
    held_y: Tensor
    seen: bool


def prepare(
    x: Inputs, y: Tensor | arrays.Array | None, threat: ThreatModel, settings: Settings, key: Key, home: arrays.Home
) -> Prepared:
    """Check data, threat and settings together, and split.

    Raises:
        InputError: they do not fit.
    """
    everything, device = rows_of(x, y, home.dtype), home.device
    if len(everything) < 8:
        raise InputError(Arg("x"), f"has {len(everything)} rows", remedy="pass at least 8")
    if settings.validation == 0 and settings.on_collapse != "ignore":
        raise InputError(
            Arg("validation", 0),
            "leaves no rows to see a collapse by, with",
            Arg("on_collapse", settings.on_collapse),
            remedy=("hold some out, or pass", Arg("on_collapse", "ignore")),
        )
    if isinstance(threat.eps, Tensor) and threat.eps.ndim:
        raise InputError(
            Arg("eps"), "is given for each example, and training takes batches in any order", remedy="pass one number"
        )
    seen = False
    for part in everything.blocks():
        ball(part, threat)  # says what is wrong with data or threat before any work is done
        seen = True
    first = everything.take(torch.tensor([0], dtype=torch.int64, device="cpu"))[0]
    ball(first, threat)
    check_images(first, settings.crop, flip=settings.flip)
    kept, held = split(len(everything), settings.validation, key)
    held_x, held_y = (
        everything.take(held[: most_held(device)])
        if len(held)
        else (first[:0], torch.zeros(0, dtype=torch.float32, device="cpu").long())
    )
    return Prepared(chosen(everything, kept, device), held_x.to(device), held_y.to(device), seen)


def most_held(device: torch.device) -> int:
    """The most held-out rows that are looked at: more where they cost little."""
    return _HELD_ROWS if device.type == "cpu" else _HELD_ROWS_ELSEWHERE


def check_team(team: Team, recipe: TrainingRecipe, settings: Settings) -> None:
    """See that recipe and cure can be shared.

    Raises:
        InputError: one of them, or the order of rows, remembers single examples.
    """
    if team.size > 1 and settings.focus:
        raise InputError(
            Arg("focus", settings.focus, shown=f"{settings.focus:g}"),
            f"goes by the loss of single examples, of which {team.size} processes would each know a part",
            remedy=("pass", Arg("focus", 0), ", or one process"),
        )
    for used in (recipe, *([] if settings.cure is None else [training_recipe(settings.cure, argument="cure")])):
        if team.size > 1 and used.start in ("prior", "carried"):
            raise InputError(
                Arg("recipe", used.name),
                f"remembers what it did with single examples, and {team.size} processes would each remember a part",
                remedy="pass another recipe, or one process",
            )


def check_passes(recipe: TrainingRecipe, settings: Settings) -> None:
    """See that there is an epoch that can be drawn by losses.

    Raises:
        InputError: there is only the first one, which sees all rows.
    """
    if settings.focus and settings.epochs <= recipe.replays:
        raise InputError(
            Arg("focus", settings.focus, shown=f"{settings.focus:g}"),
            Arg("epochs", settings.epochs),
            f": {recipe.name} makes one pass, which sees all rows since no loss is known before it",
            remedy=("pass", Arg("epochs", recipe.replays + 1), "or more, or", Arg("focus", 0)),
        )


class Going(Protocol):
    """What is known of a run when memory runs out."""

    step: int
    total: int
    settings: Settings


@contextmanager
def in_memory(run: Going) -> Iterator[None]:
    """Say in one sentence that memory ran out.

    Raises:
        ModelError: it did.
    """
    try:
        yield
    except (OUT_OF_MEMORY, MemoryError, RuntimeError) as error:
        # The CPU's allocator raises a plain RuntimeError.
        if type(error) is RuntimeError and "allocate memory" not in str(error):
            raise
        if isinstance(error, SignstepError):
            raise
        raise ModelError(
            f"memory ran out at step {run.step} of {run.total} with",
            Arg("batch", run.settings.batch),
            remedy="pass a smaller batch, what was saved stays",
        ) from error
