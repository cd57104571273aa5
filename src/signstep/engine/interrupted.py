"""What one run of an attack came to, and what is left of it when the victim stops answering on the way."""

from typing import NamedTuple

import torch
from torch import Tensor

from signstep.engine.keys import Key
from signstep.engine.ledger import Ledger
from signstep.engine.outcome import Found
from signstep.engine.problem import Problem, Verdict, judge
from signstep.engine.region import Region
from signstep.engine.tree import Tree
from signstep.errors import VictimError

_FLOATS = ("loss", "rate", "near")


class Run(NamedTuple):
    """What one run came to, for each of its rows (R,).

    ``point`` is allowed; ``fooled`` and ``answer`` are what the model said there when the search last asked (answer
    None: not kept); ``ended`` is why the run ended early, or None.
    """

    point: Tree
    fooled: Tensor
    answer: Tensor | None = None
    ended: str | None = None


def settle(ledger: Ledger, problem: Problem, index: Tensor, run: Run, key: Key) -> str | None:
    """Judge a run of the rows ``index`` and book the verdict; returns why the victim stopped answering, or None.

    When it did, rows that it was seen to fail on at exactly the returned point keep that verdict; the others have
    none, unless an earlier run left one.
    """
    ended = run.ended
    if ended is None:
        try:
            verdict = judge(problem, run.point, key)
        except VictimError as error:
            ended = str(error)
        else:
            ledger.spend(index, verdict.passes)
            ledger.record(index, run.point, verdict)
            return None
    known = ledger.verdict
    verdict = _remembered(run)
    if known is not None:
        floats = {name: getattr(verdict, name).to(getattr(known, name)) for name in _FLOATS}
        verdict = verdict._replace(**floats, answer=verdict.answer.to(known.answer).expand_as(known.answer[index]))
    ledger.record(index, run.point, verdict)
    return ended


def _remembered(run: Run) -> Verdict:
    """The verdict of a run on which the model cannot be asked again: loss and nearness are not known."""
    unknown = torch.full(run.fooled.shape, torch.nan, device=run.fooled.device, dtype=torch.float32)
    answer = torch.full_like(run.fooled, -1, dtype=torch.int64) if run.answer is None else run.answer
    return Verdict(run.fooled, unknown, run.fooled.clone(), run.fooled.to(unknown.dtype), answer, unknown.clone(), 1)


def found(ledger: Ledger, region: Region, ended: str | None) -> Found:
    """Everything, as one record; a run that ended early proves nothing about the rows it has not fooled."""
    whole = ledger.found(region)
    if ended is None:
        return whole
    return whole._replace(ended=ended, verdict=whole.verdict._replace(valid=whole.verdict.fooled.clone()))
