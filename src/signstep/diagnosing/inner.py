"""The scores inside of a model: those that it computed before something was done to them.

Whatever stands between a network's last layer and its answer (a factor, a softmax written by hand, a squashing or a
clipping, the choice of one member among several) can hide the gradient without changing an answer. The scores before it
are found while the model runs: tensors (R, K), a row for each example and a column for each class.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NAME = "the scores inside"
MEMBERS = "the mean of the members"
# Beside it runs the answer's own gradient, by one step more than the tests of losses take.
STEPS = 20
AGAIN = f"pgd:steps={STEPS + 1}"
# Of the examples on which scores inside must answer as the model does; of members each.
AGREES, MEMBER = 0.95, 0.4
# Of the examples on which the scores must have a gradient.
ALIVE = 0.5


class Found(NamedTuple):
    """Scores (R, K) that were met, and whether they were made from no others."""

    scores: Tensor
    root: bool


class _Watch(TorchFunctionMode):
    """Remembers floating tensors (R, K) in the order in which they are made."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self._shape = shape
        self.found: list[Found] = []
        # By id, with the tensor itself, so that no id is given away while this lasts.
        self._made_of: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = any(id(part) in self._made_of for part in _tensors((args, tuple((kwargs or {}).values()))))
        for part in _tensors((out,)):
            scores = tuple(part.shape) == self._shape and part.is_floating_point()
            if scores and id(part) not in self._made_of:
                self.found.append(Found(part, not given))
            if scores or given:
                self._made_of[id(part)] = part
        return out


class Inner(nn.Module):
    """A network that answers with scores from inside; with its own answer as long as none are picked.

    Attributes:
        met: what the last pass has met.
    """

    def __init__(self, network: Any, classes: int, picked: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.network, self.classes, self.picked = network, classes, picked
        self.met: list[Found] = []

    def forward(self, x: Tensor) -> Any:
        """Scores (R, K): those picked, or the mean of their log-softmax where they are several."""
        with _Watch((len(x), self.classes)) as watch:
            out = self.network(x)
        if not self.picked:
            self.met = watch.found
            return out
        chosen = [watch.found[place].scores for place in self.picked if place < len(watch.found)]
        return mean(chosen) if chosen else out


def closed(network: Any) -> bool:
    """Whether calls inside of a model cannot be seen: compiled or scripted code."""
    parts = network.modules() if isinstance(network, nn.Module) else (network,)
    return any(isinstance(part, torch.jit.ScriptModule) or hasattr(part, "_orig_mod") for part in parts)


def mean(members: list[Tensor]) -> Tensor:
    """One score (R, K) for all members; the scores themselves of a single one."""
    if len(members) == 1:
        return members[0]
    return torch.stack([part.log_softmax(1) for part in members]).mean(0)


def picked(met: list[Found], answer: Tensor, leaf: Tensor) -> tuple[int, ...]:
    """The scores that stand for the answer (R, K): of several members theirs, else the first that answer alike.

    None where nothing is done to them that could hide a gradient. ``leaf`` (R, ...) is the input, with a gradient.
    """
    label = answer.argmax(1)
    share = [float((one.scores.argmax(1) == label).double().mean()) for one in met]
    roots: list[int] = []
    for n, one in enumerate(met):
        again = any(torch.equal(one.scores, met[other].scores) for other in roots)  # a network that is called twice
        if one.root and not again and share[n] >= MEMBER and _alive(one.scores, leaf):
            roots.append(n)
    if len(roots) > 1:
        alike = (mean([met[n].scores for n in roots]).argmax(1) == label).double().mean()
        return tuple(roots) if float(alike) >= MEMBER else ()
    for number, one in enumerate(met):
        if share[number] >= AGREES and _alive(one.scores, leaf):
            return () if _shifted(one.scores, answer) else (number,)
    return ()


def _alive(scores: Tensor, leaf: Tensor) -> bool:
    if not scores.requires_grad:
        return False
    gap = scores.amax(1) - scores.mean(1)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(gap.sum(), leaf, retain_graph=True, allow_unused=True)
    g = found[0]
    if g is None:
        return False
    rows = (torch.nan_to_num(g, 0.0, 0.0, 0.0) != 0).flatten(1).any(1)
    return float(rows.double().mean()) > ALIVE


def _shifted(scores: Tensor, answer: Tensor) -> bool:
    """Whether the answer is the scores but for a number for each row: its losses are then the same."""
    gap = answer.detach().double() - scores.detach().double()
    spread = gap.amax(1) - gap.amin(1)
    return bool((spread <= 1e-4 * answer.detach().double().abs().amax(1).clamp_min(1e-30)).all())


def _tensors(parts: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for part in parts:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, (tuple, list)):
            found += _tensors(part)
    return found
