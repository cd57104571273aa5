"""One change for a whole data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstep.data.pools import Data, Pool, pools
from signstep.engine import arrays
from signstep.engine.around import region_around
from signstep.engine.counts import Count
from signstep.engine.keys import Key
from signstep.engine.norms import L0
from signstep.engine.origin import contained
from signstep.engine.problem import judge
from signstep.engine.tasks import ignored
from signstep.engine.threat import ThreatModel, one_example
from signstep.engine.tree import per_row, search_dtype
from signstep.errors import InputError, ThreatError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.search import Search, refuse, search_of
from signstep.model.space import Statistic
from signstep.model.subject import Question, Subject
from signstep.physical.storage import count_of, load_kept, save_kept, threat_from, threat_terms

_KIND = "universal change"


@dataclass(frozen=True, eq=False)
class Universal:
    """One displacement for every example, and what it did.

    Attributes:
        delta: the displacement, of the shape of one example, in raw units.
        threat: the threat it obeys on every example.
        target: the class it leads to; None away from the label.
        train: fooled, of the examples it was learned from that were right untouched.
        heldout: likewise of examples that no step has seen; None where none were set aside.
        control: what a random displacement of the same length does to those (to the first where none were set aside).
        seed: of all randomness.
    """

    delta: Tensor
    threat: ThreatModel
    target: int | None
    train: Count
    heldout: Count | None
    control: Count
    seed: int

    def apply(self, x: Tensor | arrays.Array) -> Tensor:
        """x + delta, cut to the box and the grid of each example, in the dtype of x (R, ...), raw units.

        Raises:
            InputError: examples of another shape.
            ScaleError: x lies outside the box.
        """
        return displaced(self.delta, arrays.one_tensor(x, arrays.Home(dtype=self.delta.dtype)), self.threat)

    def save(self, path: str | Path) -> None:
        """Write delta and terms as safetensors; the file appears whole or not at all.

        Raises:
            LoadError: it cannot be written.
        """
        plain, tensors = threat_terms(self.threat)
        counts = {name: getattr(self, name) for name in ("train", "heldout", "control")}
        terms = {
            "threat": plain,
            "target": self.target,
            "seed": self.seed,
            **{name: None if count is None else [count.hits, count.of] for name, count in counts.items()},
        }
        save_kept(path, _KIND, {"delta": self.delta, **tensors}, terms)

    @classmethod
    def load(cls, path: str | Path) -> "Universal":
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing, damaged or something else.
        """
        return load_kept(path, _KIND, cls._of)

    @classmethod
    def _of(cls, tensors: Mapping[str, Tensor], terms: Mapping[str, Any]) -> "Universal":
        counts = {name: count_of(terms[name]) if terms[name] else None for name in ("train", "heldout", "control")}
        train, control = counts["train"] or Count(0, 0), counts["control"] or Count(0, 0)
        threat = threat_from(terms["threat"], tensors)
        target = None if terms["target"] is None else index(terms["target"])
        return cls(tensors["delta"], threat, target, train, counts["heldout"], control, index(terms["seed"]))

    def success(
        self,
        model: Model | Callee,
        data: Data,
        *,
        mean: Statistic = None,
        std: Statistic = None,
    ) -> Count:
        """Fooled, of the examples that this model gets right untouched: other data, or another model.

        Args:
            model: an `ss.Model`, or a bare nn.Module or callable.
            data: batches (x, y), or two tensors.
            mean: of a bare network: it wants (x - mean) / std.
            std: see ``mean``.
        """
        declared = Model.of(model, mean=mean, std=std)
        key, home = Key(self.seed).fold("universal"), arrays.Home(declared.network)
        without, ignore = self.target, ignored(declared.task)
        pool, _ = pools(data, 0, rows=256, home=home, key=key, without=without, span=None, ignore=ignore)
        subject = Subject.of(declared)
        return _success(subject, pool, self.delta, self.threat, self.target, key)

    def __str__(self) -> str:
        lines = [f"one change for all examples, {self.threat}", f"  learned from  {self.train}"]
        if self.heldout is not None:
            lines.append(f"  held out      {self.heldout}")
        lines.append(f"  random, same length  {self.control}")
        return "\n".join(lines)


@contained
def universal(
    model: Model | Callee,
    data: Data,
    *,
    threat: ThreatModel,
    epochs: int = 20,
    step: float = 0.2,
    rows: int = 64,
    cap: float = 9.0,
    target: int | None = None,
    holdout: float | Data = 0.5,
    mean: Statistic = None,
    std: Statistic = None,
    search: Search | None = None,
) -> Universal:
    """One displacement that fools the model on as many examples of a data set as it can.

    delta := P(delta + alpha * s), s the steepest step for sum_i grad min(loss(x_i + delta), cap), P the projection onto
    the ball: the stochastic gradient form of Shafahi et al. 2020 (arXiv:1811.11304, section 3) of what Moosavi-Dezfooli
    et al. 2017 (arXiv:1610.08401) found with DeepFool. Differences: the loss is the searched one, for classification
    the log-odds, with the cap in its units; alpha falls from ``step * eps`` to nothing over the epochs; the box is
    applied to each example when delta is. All examples count, also those that are wrong untouched.

    Args:
        model: an `ss.Model`, or a bare nn.Module or callable.
        data: batches (x, y) that can be read again, or two tensors; y None takes the model's predictions.
        threat: norm, eps, box, mask and grid; each one for all examples.
        epochs: passes over the data.
        step: first step length, relative to eps.
        rows: examples of a step; batches are cut anew, so that the loader's own size does not matter.
        cap: examples whose loss is larger push no further.
        target: a class to lead all examples to; those that have it are left out.
        holdout: share of the examples to judge by, chosen by content and seed; 0 for none; or other data.
        mean: see `signstep.attack`.
        std: see `signstep.attack`.
        search: loss, surrogates, draws, engine, seed: an `ss.Search`; ``target`` is an argument of its own here.

    Returns:
        A `Universal`: ``.delta``, ``.apply(x)``, ``.save(path)``, ``.train``, ``.heldout``, ``.control``.

    Raises:
        InputError: the data is empty or cannot be read again, or an option makes no sense.
        ThreatError: eps, box or mask given for each example, or no eps.

    Example:
        >>> import torch, signstep as ss
        >>> model = torch.nn.Linear(4, 3)
        >>> found = ss.universal(model, (torch.rand(40, 4), None), threat=ss.linf(0.1))
        >>> found.delta.shape, bool((found.delta.abs() <= 0.1).all())
        (torch.Size([4]), True)
    """
    if epochs < 1 or not step > 0:
        raise InputError(Arg("epochs", epochs), Arg("step", step), remedy="pass epochs >= 1 and step > 0")
    declared, search = Model.of(model, mean=mean, std=std), search_of(search)
    refuse(
        search,
        "universal",
        target="one change leads all examples to one class: pass target= to universal()",
        budget="the change is kept in raw units",
        gradient_path="the change is learnt through what the model declares",
    )
    subject = Subject.of(declared, search)
    key, home = Key(search.seed).fold("universal"), arrays.Home(declared.network)
    span, ignore = _span(threat, declared.inputs), ignored(declared.task)
    learn, judged = pools(data, holdout, rows=rows, home=home, key=key, without=target, span=span, ignore=ignore)
    delta: Tensor | None = None
    with subject.opened():
        for epoch in range(epochs):
            length = step * (1 - epoch / epochs)
            for number, (x, y) in enumerate(learn):
                question = _ask(subject, x, y, threat, target, key)
                delta = _start(question, threat) if delta is None else delta
                gradient = _push(question, subject, delta, cap, key.fold("epoch", epoch, "batch", number))
                delta = _stepped(delta, gradient, threat, length)
    if delta is None:
        raise InputError(
            Arg("data"), "has no examples to learn from", remedy="pass at least one batch, or a smaller holdout"
        )
    control = _random(delta, threat, key)
    train = _success(subject, learn, delta, threat, target, key)
    heldout = None if judged is None else _success(subject, judged, delta, threat, target, key)
    against = _success(subject, learn if judged is None else judged, control, threat, target, key)
    return Universal(delta.cpu(), threat, target, train, heldout, against, search.seed)


def displaced(delta: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """x + delta inside the threat around each row of x."""
    if x.shape[1:] != delta.shape:
        raise InputError(
            Arg("x"),
            f"has examples of shape {tuple(x.shape[1:])}, the change {tuple(delta.shape)}",
            remedy="pass its like",
        )
    region = region_around(x, threat)
    moved = region.land(region.project(delta.to(x.device, search_dtype(x.dtype)).expand(x.shape)))
    assert isinstance(moved, Tensor)
    return moved


def _ask(subject: Subject, x: Tensor, y: Tensor | None, threat: ThreatModel, target: int | None, key: Key) -> Question:
    aims = None if target is None else torch.full((len(x),), target, device=x.device, dtype=torch.int64)
    return subject.ask(x, y, threat, target=aims, key=key)


def _start(question: Question, threat: ThreatModel) -> Tensor:
    x = question.x
    assert isinstance(x, Tensor)
    several = one_example(threat, x.ndim)
    if several is not None:
        raise ThreatError(
            f"{several} is given for each example, and one change is for all", remedy=f"pass one {several} for all"
        )
    if isinstance(threat.norm, L0):
        raise ThreatError(
            f"norm {threat.norm.name}: one change for all has no box of its own, and a count has no size without one",
            remedy="pass a ball in another norm, or use patch() for a few places",
        )
    if threat.eps is None:
        raise ThreatError(Arg("eps", None), "would let one change be any input", remedy="pass the length it may have")
    return torch.zeros(x.shape[1:], dtype=search_dtype(x.dtype), device=x.device)


def _push(question: Question, subject: Subject, delta: Tensor, cap: float, key: Key) -> Tensor:
    """The summed gradient over the examples whose loss is not beyond the cap."""
    assert isinstance(question.x, Tensor)
    point = question.region.land(question.region.project(delta.expand(question.x.shape)))
    score, gradient = question.oracle(subject.oracle)(question.problem, point, key)
    assert isinstance(gradient, Tensor)
    gradient = question.region.restrict(torch.nan_to_num(gradient.to(delta.dtype), 0.0, 0.0, 0.0))
    assert isinstance(gradient, Tensor)
    return torch.where(per_row(score.loss <= cap, gradient), gradient, 0.0).sum(0)


def _stepped(delta: Tensor, gradient: Tensor, threat: ThreatModel, length: float) -> Tensor:
    radius = torch.as_tensor(threat.eps, dtype=delta.dtype, device=delta.device).reshape(1)
    change = threat.norm.steepest(gradient[None], radius * length)
    return threat.norm.project(delta[None] + change, radius)[0]


def _random(delta: Tensor, threat: ThreatModel, key: Key) -> Tensor:
    """A random displacement of the ball's own length: random signs, for L-infinity."""
    one = torch.zeros(1, dtype=torch.int64, device="cpu")
    direction = key.fold("control").draws(one, delta.device).normal("direction", tuple(delta.shape)).to(delta.dtype)
    if threat.mask is not None:
        direction = torch.where(threat.mask.to(delta.device), direction, 0.0)
    radius = torch.as_tensor(threat.eps, dtype=delta.dtype, device=delta.device).reshape(1)
    return threat.norm.steepest(direction, radius)[0]


def _success(subject: Subject, pool: Pool, delta: Tensor, threat: ThreatModel, target: int | None, key: Key) -> Count:
    count = Count(0, 0)
    with subject.opened():
        for x, y in pool:
            question = _ask(subject, x, y, threat, target, key)
            assert isinstance(question.x, Tensor)
            count += counted(question, displaced(delta, question.x, threat), key)
    return count


def counted(question: Question, point: Tensor, key: Key) -> Count:
    """Fooled at ``point``, of those right untouched; rows without a label are right as they are."""
    right = torch.ones_like(question.clean.fooled) if question.wrong is None else ~question.wrong
    with torch.no_grad():
        fooled = judge(question.problem, point, key.fold("judged")).fooled
    allowed = question.checked(point)[""].ok.to(fooled.device)
    return Count(int((fooled & allowed & right).sum()), int(right.sum()))


def _span(threat: ThreatModel, inputs: str) -> tuple[float, float] | None:
    """For ids that survive rounding: the box of raw inputs, where it has two ends."""
    if inputs == "raw" and isinstance(threat.low, float) and isinstance(threat.high, float):
        return threat.low, threat.high
    return None
