"""Points that were made to fool one model, shown to others: does the attack carry over?"""

from collections.abc import Mapping

from torch import Tensor

from signstep.auditing.record import NOT_RUN
from signstep.engine.keys import Key
from signstep.engine.outcome import Outcome
from signstep.engine.problem import judge
from signstep.engine.threat import Threat
from signstep.engine.tree import Tree
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.subject import Question, Subject


def shown(
    name: str,
    other: Subject,
    question: Question,
    x: Tree,
    threat: Threat,
    found: Mapping[str, tuple[Outcome, Tensor | None]],
    key: Key,
) -> dict[str, str]:
    """What another model makes of a batch: by "clean" and by attack a letter for each row, r right, w wrong, - not run.

    Args:
        name: of the other model, for messages.
        other: the other model, opened.
        question: about the batch, put to the model under attack; its labels count, also where they are that model's
            own answers.
        x: the batch as it came.
        threat: of these rows.
        found: by attack, the outcome for all rows and the rows it was run on (None for all).
        key: the randomness of a random model's verdict.

    Raises:
        InputError: the other model has other classes.
    """
    labels = question.problem.aim.y
    there = other.ask(x, labels, threat, key=key)
    if there.classes != question.classes:
        raise InputError(
            Arg("transfer_to", name),
            f"has {there.classes} classes, the model {question.classes}",
            remedy="pass models that answer with the same classes",
        )
    seen = judge(there.problem, there.x, key.fold("transfer"))
    letters = {"clean": _letters(seen.fooled | ~seen.valid, None)}
    for attack, (outcome, index) in found.items():
        verdict = judge(there.problem, outcome.x, key.fold("transfer", attack))
        letters[attack] = _letters(verdict.fooled | ~verdict.valid, index)
    return letters


def _letters(wrong: Tensor, index: Tensor | None) -> str:
    ran = set(range(len(wrong))) if index is None else set(index.tolist())
    return "".join(("w" if flag else "r") if row in ran else NOT_RUN for row, flag in enumerate(wrong.tolist()))
