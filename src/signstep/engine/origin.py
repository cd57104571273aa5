"""Where in the user's own code an exception began, so that one sentence can say it."""

import functools
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

import torch

from signstep.errors import ModelError, SignstepError

P = ParamSpec("P")
Made = TypeVar("Made")

_MARK = "_signstep_origin"
_NOBODY = 3
_HERE = str(Path(__file__).resolve().parents[1])
_TORCH = str(Path(torch.__file__).resolve().parent)
_PYTHON = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
_PACKAGES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


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
    files = [file for file, _, _ in _frames(error.__traceback__)]
    mine = (_HERE, *known)
    return _leaves(error) and any(not file.startswith(mine) and _rank(file) < _NOBODY for file in files)


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


def named(error: BaseException) -> str:
    """The type of an exception and the first line of what it says."""
    words = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def place(error: BaseException) -> str:
    """Say " (file, line n, in function)" of the innermost frame of the user's, else of a package's, else of torch's."""
    best: tuple[int, str] = (_NOBODY, "")
    for file, line, function in _frames(error.__traceback__):
        rank = _rank(file)
        if rank < _NOBODY and rank <= best[0]:
            best = (rank, f" ({file}, line {line}, in {function})")
    return best[1]


def _rank(file: str) -> int:
    """Whose a file is: 0 the user's, 1 a package's, 2 torch's, 3 ours, Python's or none at all."""
    if file.startswith(("<", _HERE)):
        return _NOBODY
    for rank, folders in ((2, (_TORCH,)), (1, _PACKAGES), (_NOBODY, _PYTHON)):
        if file.startswith(folders):
            return rank
    return 0


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield str(Path(code.co_filename)), trace.tb_lineno, code.co_name
        trace = trace.tb_next
