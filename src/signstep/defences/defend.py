"""``ss.defend``: a model behind transformations of its inputs, with all that an attacker has to know of them."""

from collections.abc import Sequence
from dataclasses import replace

from signstep.defences.chain import joined
from signstep.defences.known import DEFENCES
from signstep.defences.row import step_of
from signstep.defences.step import Ends, Step
from signstep.engine.tasks import Custom, Objective
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.space import Statistic


def defend(
    model: Model | Callee,
    defences: Sequence[str | Step],
    *,
    box: Ends = (0.0, 1.0),
    mean: Statistic = None,
    std: Statistic = None,
) -> Model:
    """A model whose inputs pass through transformations first: on raw inputs, in their order, before normalisation.

    Every attack on what comes back knows of them, without a word: it goes by the gradient of what stands in for a step
    that has none, by the identity in its place, by means over draws that are doubled while that helps, and by the
    undefended model's gradient, example by example; one success is enough. The verdict is always that of the real
    transformations in front of the real model. ``ss.Search(gradient_path="straight")`` is the attacker who does not
    know. What input transformations are worth against one who does has been published: nearly nothing (Athalye, Carlini
    & Wagner 2018, arXiv:1802.00420). They are for usability.

    Args:
        model: an `ss.Model`, or a bare nn.Module or callable.
        defences: by name, with options ("jpeg:quality=75", "bit-depth:bits=5", "resize-pad"; see
            ``signstep.defences.DEFENCES``), or `ss.defences.custom`. None of them: the model as it is.
        box: the ends of valid raw inputs, which no transformation leaves.
        mean: of a bare network: it wants (x - mean) / std.
        std: see ``mean``.

    Returns:
        An `ss.Model` for every verb; its ``transform`` is the chain, its ``defences`` name it.

    Raises:
        InputError: no such defence or option, a value that makes no sense, or inputs that are not raw.
        MissingExtraError: a library that a defence needs is not installed.

    Example:
        >>> import torch, signstep as ss
        >>> guarded = ss.defend(torch.nn.Linear(4, 3), ["bit-depth:bits=3", "uniform-noise:radius=0.05"])
        >>> guarded.defences
        ('bit-depth:bits=3', 'uniform-noise:radius=0.05')
        >>> guarded(torch.rand(2, 4)).shape
        torch.Size([2, 3])
    """
    declared = Model.of(model, mean=mean, std=std)
    if isinstance(defences, str) or not isinstance(defences, Sequence):
        raise InputError(Arg("defences", defences), "is no list", remedy="pass a list, such as ['jpeg:quality=75']")
    steps = [step_of(spec, DEFENCES) for spec in defences]
    if steps and isinstance(declared.task, (Custom, Objective)):
        raise InputError(
            Arg("defences"), "stand before models that answer a question", remedy="leave them out for objectives"
        )
    low, high = (float(end) for end in box)
    return replace(declared, transform=joined(steps, (low, high), declared.transform))
