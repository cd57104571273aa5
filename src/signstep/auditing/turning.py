"""After an audit: one example that fell, asked at several sizes of its change."""

from dataclasses import replace

import torch

from signstep.auditing.evidence import Evidence
from signstep.auditing.knob import Knob, answered, chosen, pictured, sizes_of, turned, unfit
from signstep.auditing.result import Result
from signstep.errors import SignstepError
from signstep.model.subject import Subject
from signstep.model.victims.endpoint import HttpVictim


def with_knob(
    result: Result, evidence: Evidence | None, subject: Subject, where: torch.device, most: int | None
) -> Result:
    """The result with one example that fell asked at several sizes of its change; so many forward passes, on it alone.

    The audit is done by then: a model that does not answer leaves a note.
    """
    eps = result.terms.get("eps_value")
    if evidence is None or result.partial or isinstance(subject.predictor.model, HttpVictim):  # whose answers may cost
        return result
    rows_ = evidence.rows()
    if not pictured(evidence.at(0).get("x")) or unfit(result.terms, result.per_example.answers) or eps is None:
        return result
    place = chosen(rows_, result.per_example.smallest_eps, eps)
    point, row = evidence.at(place), rows_[place]
    entry = result.attacks[int(point["attack"])]
    distance = result.per_example.distances[entry.name][row]
    assert distance is not None  # it fell
    x = turned(point, result.terms, distance).to(where)
    try:
        with subject.opened(), torch.no_grad():
            answers, sure = answered(subject.predictor, subject.task, x, most)
    except (KeyboardInterrupt, SignstepError) as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        return replace(result, notes=(*result.notes, f"no example was asked at other sizes: {why}"))
    return replace(result, knob=Knob(row, sizes_of(eps), answers, sure))
