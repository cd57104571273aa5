"""A look at other input spaces than the declared one: a wrong ``mean`` must not pass for a result.

It costs at most six forward passes on 64 examples, apart from those that attacks are said to take, and changes no
verdict. `signstep.auditing.input_spaces` has the spaces and judges the answers.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from signstep.auditing.input_spaces import (
    AT_MOST,
    TABLE,
    TERM,
    KnownSpace,
    best,
    examples_of,
    possible,
    rank,
)
from signstep.engine.outputs import Outputs
from signstep.engine.tasks import Multiclass, task_for
from signstep.engine.threat import Threat, ThreatModel
from signstep.engine.tree import Tree
from signstep.engine.untouched import untouched
from signstep.errors import SignstepWarning
from signstep.model.declaration import Model
from signstep.model.search import Search
from signstep.model.subject import Question

_NEAR = 2e-3  # of a mean or std in [0, 1]: two spaces that a model cannot tell apart


class _Kept(NamedTuple):
    """An example that may be asked: its place among all, its row, what it is, and whether it is right as declared."""

    rank: int
    row: int
    x: Tensor
    label: int
    letter: str


class Look:
    """The examples that are kept for it on the way through an audit: those whose ranks are the lowest.

    A shard keeps the lowest of its own, so that the lowest of the whole are among those of its shards.

    Args:
        model: as it is declared.
        threat: what may change; its box says what raw units are.
        search: its seed draws the examples.
        sharded: whether this audit is a part of one.
        later: whether it is one that does not begin with the first example; who audits that one is warned.
    """

    def __init__(
        self, model: Model, threat: Threat, search: Search, *, sharded: bool = False, later: bool = False
    ) -> None:
        self._model, self._seed, self._sharded = model, search.seed, sharded
        self._box = _box(model, threat, search)
        self._kept: list[_Kept] = []
        self._begun = later

    def begin(self, question: Question, x: Tree, y: Tensor | None) -> Question:
        """The question as it is; before the first batch is attacked, warn where another space fits far better."""
        if not self._begun and self._box is not None:
            right, declared, labels = self._asked(_lowest([], self._pictures(question, x, y, 0)))
            fit = best(right, declared, labels)
            if fit is not None:
                told = fit.message(*self._box, stated=self._model.mean is not None)
                text = "the model seems to want other inputs:"
                warnings.warn(SignstepWarning(text, *told.parts, remedy=told.cure), stacklevel=2)
        self._begun = True
        return question

    def add(self, question: Question, x: Tree, y: Tensor | None, rows: int) -> None:
        """A batch that has been attacked, after so many rows."""
        self._kept = _lowest(self._kept, self._pictures(question, x, y, rows))

    def terms(self) -> dict[str, Any]:
        """The term of the record: the answers in other spaces, where any could be far better; else nothing."""
        kept = sorted(self._kept, key=lambda entry: entry.row)
        right, _, _ = self._asked(kept)
        if not right:
            return {}
        return {TERM: {"rows": [entry.row for entry in kept], "right": right, "most": examples_of(kept[0].x.numel())}}

    def _pictures(self, question: Question, x: Tree, y: Tensor | None, rows: int) -> list[_Kept]:
        """The rows of a batch of labelled pictures of classes; nothing of another one."""
        labelled = self._box is not None and y is not None and not question.labels_predicted
        classes = isinstance(question.problem.task, Multiclass)
        if not labelled or not classes or question.wrong is None or y is None or not isinstance(x, Tensor):
            return []
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
            return []
        wrong, labels = question.wrong.tolist(), y.tolist()
        return [
            _Kept(rank(self._seed, identity & (2**64 - 1)), rows + at, x[at], int(labels[at]), "rw"[int(wrong[at])])
            for at, identity in enumerate(question.problem.ids.tolist())
        ]

    def _asked(self, kept: Sequence[_Kept]) -> tuple[dict[str, str], str, list[int]]:
        """Letters by space, those of the declared one, and the labels."""
        declared, labels = "".join(entry.letter for entry in kept), [entry.label for entry in kept]
        if not kept or self._box is None:
            return {}, declared, labels
        tried = list(others(self._model, tuple(kept[0].x.shape), self._box))
        if not self._sharded and not possible(declared, labels, len(tried)):
            return {}, declared, labels
        x, y = torch.stack([entry.x for entry in kept]), torch.tensor(labels, dtype=torch.int64, device="cpu")
        return {space.name: _letters(model, x, y) for space, model in tried}, declared, labels


def _lowest(kept: Sequence[_Kept], more: Sequence[_Kept]) -> list[_Kept]:
    """Those of the lowest ranks, of both."""
    if not more:
        return [*kept]
    chosen = sorted([*kept, *more], key=lambda entry: (entry.rank, entry.row))[: examples_of(more[0].x.numel())]
    before = {entry.row for entry in kept}
    # A copy: a part of a batch would keep the whole of it.
    return [entry if entry.row in before else entry._replace(x=entry.x.detach().clone()) for entry in chosen]


def others(model: Model, shape: tuple[int, ...], box: tuple[float, float]) -> Iterator[tuple[KnownSpace, Model]]:
    """The model declared in every known space that suits its inputs and is not the declared one, `AT_MOST` of them.

    Args:
        model: as it is declared.
        shape: of an input, (C, H, W).
        box: the ends of raw inputs.
    """
    tried = 0
    for space in TABLE:
        if not space.suits(shape) or tried == AT_MOST:
            continue
        found = space.raw(*box)
        declared = replace(model, inputs="raw") if model.mean is not None else model
        if found is not None:
            if not space.flipped and _same(model, found, shape[0], box[1] - box[0]):
                continue
            declared = replace(declared, mean=found[0] if len(found[0]) > 1 else found[0][0], std=_std(found[1]))
        if space.flipped:
            declared = replace(declared, network=_Flipped(model.network))
        tried += 1
        yield space, declared


def _std(values: tuple[float, ...]) -> float | tuple[float, ...]:
    return values if len(values) > 1 else values[0]


def _same(model: Model, found: tuple[tuple[float, ...], tuple[float, ...]], channels: int, span: float) -> bool:
    """Whether the model declares this mean and std."""
    space = model.space()
    mean, std = _flat(space.mean, 0.0), _flat(space.std, 1.0)
    for own, other in ((mean, found[0]), (std, found[1])):
        if own.numel() not in (1, channels):
            return False
        if bool(((own.expand(channels) - _flat(other, 0.0).expand(channels)).abs() > _NEAR * span).any()):
            return False
    # A std of 1/255 is near nothing but itself.
    return bool((std.expand(channels) / _flat(found[1], 1.0).expand(channels) - 1).abs().max() < 0.1)


def _flat(part: Tensor | tuple[float, ...] | None, otherwise: float) -> Tensor:
    """One number, or one for each channel."""
    if isinstance(part, Tensor):
        return part.detach().cpu().float().flatten()
    return torch.tensor((otherwise,) if part is None else part, dtype=torch.float32, device="cpu")


class _Flipped:
    """A network that gets its channels in the other order."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, x: Tensor) -> Any:
        return self.network(x.flip(1))


def _letters(model: Model, x: Tensor, y: Tensor) -> str:
    """r right, w wrong, a letter for each example; one pass."""
    raw = model.space().to_raw(x)
    try:
        with untouched(model.network, mode=model.mode), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = model.predictor()(raw)
    except Exception:  # a model that refuses such inputs was not made for them
        return "w" * len(y)
    task = task_for(model.task, outputs.scores)
    return "".join("r" if hit else "w" for hit in _hits(task, outputs, y))


def _hits(task: object, outputs: Outputs, y: Tensor) -> list[bool]:
    if not isinstance(task, Multiclass):
        return [False] * len(y)
    right = (task.predict(outputs).cpu() == y) & task.valid(outputs).cpu()
    return [bool(hit) for hit in right.tolist()]


def _box(model: Model, threat: Threat, search: Search) -> tuple[float, float] | None:
    """The ends of raw inputs; None where there is nothing to look at.

    Nothing is asked of what is asked alone, since questions may cost; nor where units are not those of a box with two
    ends, or where what happens to inputs on the way is declared.
    """
    asked_alone = getattr(model.network, "gradients", None) is False
    if not isinstance(threat, ThreatModel) or asked_alone or search.budget != "raw" or model.transform is not None:
        return None
    low, high = threat.low, threat.high
    return (low, high) if isinstance(low, float) and isinstance(high, float) and high > low else None
