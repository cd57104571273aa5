"""Commands in processes of their own, which can be killed, forked from one that has imported everything already."""

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

FORKED = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else None
# The last is what torch imports when the first optimiser is made: a second of each training.
_IMPORTED = ["signstep.cli", "signstep.report", "signstep.train", "numpy.random", "PIL.Image", "torch._dynamo"]


@dataclass
class Running:
    """A command that runs; its streams are the files ``out`` and ``err``."""

    process: BaseProcess
    out: Path
    err: Path

    def until(self, seen: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not seen():
            if not self.process.is_alive() or time.monotonic() > end:
                raise AssertionError(f"it never came to it: {self.err.read_text()}")
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self, seconds: float = 60) -> int:
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it did not end: {self.err.read_text()}")
        return self.process.exitcode


def called(function: Callable[..., None], *given: Any) -> BaseProcess:
    """Begin ``function(*given)``, a function of a module."""
    assert FORKED is not None
    FORKED.set_forkserver_preload(_IMPORTED)
    process = FORKED.Process(target=function, args=given)
    process.start()
    return process


def started(place: Path, words: Sequence[str], prepare: Callable[..., None] | None = None, *given: Any) -> Running:
    """Begin ``signstep WORDS`` in a folder, after ``prepare(*given)`` in its process."""
    number = len(list(place.glob("*.stderr")))
    out, err = place / f"{number}.stdout", place / f"{number}.stderr"
    return Running(called(_run, str(place), list(words), str(out), str(err), prepare, given), out, err)


def _run(
    place: str, words: list[str], out: str, err: str, prepare: Callable[..., None] | None, given: Sequence[Any]
) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
    os.chdir(place)
    sys.path.insert(0, place)
    status = 99
    try:
        import torch

        from signstep.cli import main

        torch.set_num_threads(1)
        if prepare is not None:
            prepare(*given)
        status = main(words)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def told(path: Path, plain: Any) -> None:
    """Leave something for the test."""
    path.write_text(json.dumps(plain), encoding="utf-8")
