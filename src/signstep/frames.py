"""Whose code raised an exception, and where: the frames of its traceback."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import torch

NOBODY = 3
"""The rank of code that is nobody's: ours, Python's, or none at all."""

HERE = str(Path(__file__).resolve().parent)
_TORCH = str(Path(torch.__file__).resolve().parent)
_PYTHON = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
_PACKAGES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def named(error: BaseException) -> str:
    """The type of an exception and the first line of what it says."""
    words = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def place(error: BaseException) -> str:
    """Say " (file, line n, in function)" of the innermost frame of the user's, else of a package's, else of torch's."""
    best: tuple[int, str] = (NOBODY, "")
    for file, line, function in frames(error.__traceback__):
        found = rank(file)
        if found < NOBODY and found <= best[0]:
            best = (found, f" ({file}, line {line}, in {function})")
    return best[1]


def rank(file: str) -> int:
    """Whose a file is: 0 the user's, 1 a package's, 2 torch's, 3 ours, Python's or none at all."""
    if file.startswith(("<", HERE)):
        return NOBODY
    for number, folders in ((2, (_TORCH,)), (1, _PACKAGES), (NOBODY, _PYTHON)):
        if file.startswith(folders):
            return number
    return 0


def frames(trace: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    """File, line and function of each frame, the outermost first."""
    while trace is not None:
        code = trace.tb_frame.f_code
        yield str(Path(code.co_filename)), trace.tb_lineno, code.co_name
        trace = trace.tb_next
