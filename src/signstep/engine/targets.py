"""The class that a targeted audit leads an example to, by a rule: the model, the label and the example decide alone."""

import torch
from torch import Tensor

from signstep.engine.keys import Key
from signstep.engine.outputs import Outputs
from signstep.engine.tasks import Binary, Multiclass, Task
from signstep.errors import InputError, LabelError
from signstep.messages import Arg


def classes_of(task: Task, outputs: Outputs) -> int | None:
    """How many classes the outputs are of; None where they are of none."""
    if isinstance(task, Binary):
        return 2
    return outputs.raw.shape[1] if isinstance(task, Multiclass) and outputs.raw.ndim > 1 else None


def choose(rule: str, task: Task, outputs: Outputs, y: Tensor | None, ids: Tensor, key: Key) -> Tensor:
    """A class other than the label (R,) for each row.

    Args:
        rule: "next", "random" or "least-likely".
        task: classification.
        outputs: of the model, untouched.
        y: labels (R,).
        ids: of the examples (R,), which "random" draws by.
        key: of the audit.

    Raises:
        InputError: there is no such rule, or no classes to choose from.
        LabelError: an example has no other class than its label.
    """
    if not isinstance(task, Multiclass) or y is None:
        raise InputError(
            Arg("target", rule), "is for classification", remedy=f"pass the target itself for the task {task.name}"
        )
    classes = classes_of(task, outputs)
    if classes is None or classes < 2:
        raise InputError(
            Arg("target", rule), f"needs at least two classes, the model has {classes}", remedy="leave it out"
        )
    if rule not in ("next", "random", "least-likely"):
        raise InputError(Arg("target", rule), remedy="pass a tensor of classes, or 'random', 'least-likely' or 'next'")
    z = task.logits(outputs).detach()
    # Column n holds class y + 1 + n; absent classes (-inf) are no targets, and the last column is the label itself.
    classes_from_y = (y.unsqueeze(1) + 1 + torch.arange(classes, device=y.device, dtype=torch.int64)) % classes
    there = ~torch.isneginf(z.gather(1, classes_from_y))
    there[:, -1] = False
    count = there.sum(1)
    if not bool((count > 0).all()):
        raise LabelError(
            Arg("target", rule),
            f"needs another class than y, and {int((count == 0).sum())} of {len(y)} rows have none: their "
            "other scores are all -inf",
            remedy="attack those rows without a target",
        )
    if rule == "least-likely":
        return z.masked_fill(torch.isneginf(z), torch.inf).scatter(1, y.unsqueeze(1), torch.inf).argmin(1)
    number = torch.zeros_like(y)
    if rule == "random":
        share = key.fold("target").draws(ids, y.device).uniform("class", (1,)).squeeze(1)
        number = (share * count).long().minimum(count - 1)
    column = (there.cumsum(1) == (number + 1).unsqueeze(1)).long().argmax(1, keepdim=True)
    return classes_from_y.gather(1, column).squeeze(1)
