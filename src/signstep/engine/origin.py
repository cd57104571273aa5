"""Where in the user's own code an exception began, so that one sentence can say it."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from signstep.errors import ModelError, SignstepError
from signstep.frames import HERE, NOBODY, frames, named, place, rank

P = ParamSpec("P")
Made = TypeVar("Made")

_MARK = "_signstep_origin"


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Run code that is not ours; whatever it raises is marked as its own, see `said_of`.

    Exceptions pass as they are: the caller's own ``except`` clauses, and the traceback, lose nothing. What would end
    the process instead of failing (``SystemExit`` and its like, but for an interrupt) becomes an error.

    Args:
        what: is run, for messages: "the model".

    Raises:
        ModelError: the code raised something that is no ``Exception``, or that ends a command line.
    """
    try:
        yield
    except (SignstepError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if _leaves(error):
            failed = ModelError(sentence(what, error))
            setattr(failed, _MARK, str(failed))
            raise failed from error
        if not hasattr(error, _MARK):
            setattr(error, _MARK, sentence(what, error))
        raise


def contained(function: Callable[P, Made]) -> Callable[P, Made]:
    """A function that people call, in which no code of theirs ends the process as if all were well.

    Loaders, losses, attacks and callbacks of theirs run inside. ``sys.exit(0)`` in any of them would leave without a
    result and with status 0, which a gate takes for a pass. What is no ``Exception`` is raised as a `ModelError` that
    says where it came from; an interrupt stays itself. (``os._exit`` cannot be caught by anybody.)
    """

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Made:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if _leaves(error):
                raise ended(error) from error
            raise

    return inner


def _leaves(error: BaseException) -> bool:
    """Whether something ends a program rather than failing: no ``Exception``, or a command line's own way to end.

    Click and typer, which each have a click of their own, end with the status that such an exception carries.
    """
    return not isinstance(error, Exception) or type(getattr(error, "exit_code", None)) is int


def leaves_from(error: BaseException, known: tuple[str, ...]) -> bool:
    """Whether something ends a program and began in, or passed through, code that is neither ours nor ``known``.

    Args:
        error: as it was caught, where no frame of whoever called us is on the way.
        known: folders of packages that may end a program.
    """
    files = [file for file, _, _ in frames(error.__traceback__)]
    mine = (HERE, *known)
    return _leaves(error) and any(not file.startswith(mine) and rank(file) < NOBODY for file in files)


def ended(error: BaseException) -> ModelError:
    """The failure that something which would have ended the process becomes."""
    failed = ModelError(sentence("code that is not Signstep's", error))
    setattr(failed, _MARK, str(failed))
    return failed


def said_of(error: BaseException) -> str | None:
    """The sentence about an exception that came out of `foreign`; None where it began in code of ours."""
    found: str | None = getattr(error, _MARK, None)
    return found


def sentence(what: str, error: BaseException) -> str:
    """What was raised, its first line, and where: file and line of the user's code, if any of it is on the way."""
    return f"{what} raised {named(error)}{place(error)}"
