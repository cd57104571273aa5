"""Where a model is asked: attacks run by the usual engine on the chosen examples, and every pass is booked."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from signstep.attacks.recipes import recipe as find_recipe
from signstep.auditing.ladder import LADDERS
from signstep.auditing.ladder import ladder as find_ladder
from signstep.auditing.result import Result
from signstep.auditing.run import audit
from signstep.engine.attack import Attack
from signstep.engine.keys import Key
from signstep.engine.oracles import Autograd
from signstep.engine.passes import Setting
from signstep.engine.problem import HELD_OUT, ModelProblem
from signstep.engine.tasks import Score
from signstep.engine.threat import Threat
from signstep.engine.tree import Tree, leaves, rows, take
from signstep.errors import GradientError
from signstep.model.declaration import Model
from signstep.model.search import Search
from signstep.model.subject import Question, Subject

STANDARD = "standard"
# All tests and cures together may cost so many times what the ladder "standard" costs on the same examples.
TIMES = 10
# Examples at a time: fixed, so that nothing depends on how a loader cuts its batches.
PIECE = 64
# Rows that must be payable at a time, where there are as many: fewer say nothing.
_LEAST = 4
# Passes of an example under an attack of somebody's own that does not say what it costs.
_UNPLANNED = 1000

Spec: TypeAlias = str | Attack


class TooDearError(Exception):
    """What is asked for would go beyond the allowance."""


@dataclass(frozen=True, eq=False)
class Cure:
    """An attack that adapts to a cause.

    Attributes:
        rung: a recipe with options.
        changes: fields of `Search` that are not as the user has them: ``{"eot": 16}``.
        name: of a surrogate among the changes.
        last: whether it is run only where no other cure has taken anything away: the dear ones.
        upon: the cause whose cure it goes through as well: without that it would find nothing.
    """

    rung: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    last: bool = False
    upon: str = ""

    def __str__(self) -> str:
        said = [f"{name} {value}" for name, value in self.changes.items() if name != "surrogate"]
        said += [f"gradients of {self.name}"] if self.name else []
        return f"{self.rung} ({', '.join(said)})" if said else self.rung


@dataclass(frozen=True, eq=False)
class Ran:
    """What an attack did: whom it fooled, on whom it found out nothing, whom it met; (N,) each, of all examples."""

    spec: str
    changes: Mapping[str, Any]
    name: str
    fooled: Tensor
    undetermined: Tensor
    met: Tensor
    passes: int
    ladder: bool = False
    error: str = ""
    key: tuple[object, ...] = ()
    counts: bool = True  # what it felled, it felled within the threat, and on the model
    unverified: int = 0


class Bench:
    """A model with its examples, and everything that is run on them.

    Attributes:
        model: as declared.
        x: inputs (N, ...); ``y`` their labels or None.
        threat: what may change.
        search: of the user.
        attack: that is diagnosed: a recipe with options, an attack object, or the name of a ladder.
        right: (N,) which examples the model answers rightly untouched.
        fell: (N,) which of those fell to any attack within the threat.
        allowed: passes that tests and cures may still cost; None where that is not known yet.
        spent: passes that they have cost.
        eot: draws that a random model needs, 1 for others.
        random: whether the model answers the same input differently.
        classes: of the model, None where it does not classify.
    """

    def __init__(self, model: Model, x: Tree, y: Tensor | None, threat: Threat, search: Search, attack: Spec) -> None:
        self.model, self.x, self.y = model, x, y
        self.threat, self.search, self.attack = threat, search, attack
        self.count = rows(x)
        self.right = torch.zeros(self.count, dtype=torch.bool, device="cpu")
        self.fell = torch.zeros(self.count, dtype=torch.bool, device="cpu")
        self.ran: list[Ran] = []
        self.allowed: int | None = None
        self.spent = 0
        self.eot = 1
        self.random = False
        self.classes: int | None = None
        self.form = "logits"
        self.notes: list[str] = []
        self.sections: list[Any] = []
        self.named: Ran | None = None  # the attack that is diagnosed
        self.standard: Ran | None = None
        self.seen: dict[str, Any] = {}  # what tests tell each other

    # Which examples.

    @property
    def standing(self) -> Tensor:
        """(N,) right answers that nothing has fooled."""
        return self.right & ~self.fell

    @property
    def held(self) -> Tensor:
        """(N,) right answers that the attack which is diagnosed left standing."""
        assert self.named is not None
        return self.right & ~self.named.fooled

    def few(self, count: int) -> Tensor:
        """Places (at most ``count``) of examples to look at closely: those that the attack left standing come first."""
        order = torch.cat([self.held.nonzero(), (self.right & ~self.held).nonzero()]).squeeze(1)
        return order[:count]

    def some(self, count: int) -> Tensor:
        """Places (at most ``count``) of right examples, whoever fell: to show how it usually is."""
        return self.right.nonzero().squeeze(1)[:count]

    def look(self) -> None:
        """Ask the model about the untouched examples: which it answers rightly, and how it is to be read.

        Raises:
            InputError: model, data and threat do not go together.
        """
        found = []
        for index in pieces(torch.arange(self.count, dtype=torch.int64, device="cpu")):
            with self.asking(index) as question:
                wrong = question.clean.fooled if question.wrong is None else question.wrong
                found.append(~wrong.cpu())
                self.random |= question.problem.random
                self.classes, self.form = question.classes, question.form
                self.notes += [note for note in question.notes if note not in self.notes]
        self.right = torch.cat(found)

    # Running attacks.

    def run(
        self,
        spec: Spec,
        *,
        on: Tensor | None = None,
        changes: Mapping[str, Any] | None = None,
        name: str = "",
        threat: Threat | None = None,
        model: Model | None = None,
    ) -> Ran:
        """An attack on the right answers, or on those among ``on`` (N,); what has been run there is not run again.

        What falls within the threat of the user, on the user's model, counts as fallen.

        Raises:
            TooDearError: it may cost more than is left.
            KeyboardInterrupt: it was interrupted; what it had found by then is kept.
        """
        changes = dict(changes or {})
        said = spec if isinstance(spec, str) else spec.name
        plain = tuple(sorted((key, str(value)) for key, value in changes.items() if key != "surrogate"))
        wanted = self.right if on is None else on & self.right
        key = (said, plain, name, str(threat), model is not None)
        known = [ran for ran in self.ran if ran.key == key and not bool((wanted & ~ran.met).any())]
        if known:
            return known[0]
        search = replace(self.search, **changes)
        ladder = ladder_of(spec)
        worst = 0 if ladder is not None else self._worst(spec, search)
        ran = Ran(said, changes, name, *self._none(), 0, ladder is not None, key=key)
        ran = replace(ran, counts=threat is None and model is None)
        waiting = wanted.nonzero().squeeze(1)
        # Rows are independent: so many at a time as could be paid for if none of them fell.
        while len(waiting):
            most = len(waiting) if worst == 0 or self.allowed is None else int(self.left // worst)
            if most < min(len(waiting), _LEAST):
                self._book(ran)
                raise TooDearError(f"it may cost {worst * len(waiting)} passes, and {int(self.left)} are left")
            index, waiting = waiting[:most], waiting[most:]
            try:
                result = audit(
                    model or self.model,
                    self.batches(index),
                    threat=threat or self.threat,
                    attacks=None if ladder is not None else [spec],
                    ladder=ladder,
                    curve=False,
                    search=search,
                )
            except GradientError as error:
                self.spend(2 * len(index))
                return self._book(replace(ran, met=wanted, error=str(error)))
            ran = self._read(ran, index, result)
            if ran.counts:
                self.fell |= ran.fooled
            if result.partial:
                self._book(ran)
                raise KeyboardInterrupt
        return self._book(ran)

    def cure(self, cure: Cure) -> Ran:
        """A cure on all that the attack left standing; with a search of its own on all right answers.

        What it fells can so be compared with what others fell, and a command that says its search counts alone.
        """
        changes = {**({"eot": self.eot} if self.eot > 1 else {}), **cure.changes}
        alone = bool(changes) and "surrogate" not in changes
        return self.run(cure.rung, on=self.right if alone else self.held, changes=changes, name=cure.name)

    def spend(self, passes: int) -> None:
        """Book forward and backward passes, each example and pass one."""
        self.spent += passes

    @property
    def left(self) -> float:
        """Passes that may still be spent."""
        return float("inf") if self.allowed is None else self.allowed - self.spent

    def need(self, passes: int) -> None:
        """See that so many passes may be spent.

        Raises:
            TooDearError: they may not.
        """
        if passes > self.left:
            raise TooDearError(f"it may cost {passes} passes, and {max(0, int(self.left))} of {self.allowed} are left")

    # Asking more closely.

    @contextmanager
    def asking(self, index: Tensor, changes: Mapping[str, Any] | None = None) -> Iterator[Question]:
        """A question about the examples at ``index``; models are put back afterwards."""
        subject = Subject.of(self.model, replace(self.search, **dict(changes or {})))
        device = leaves(self.x)[0].device
        self.need(len(index) * (1 + 2 * HELD_OUT * self.random))
        with subject.opened():
            self.spend(len(index) * (1 + 2 * HELD_OUT * self.random))
            yield subject.ask(
                take(self.x, index.to(device)),
                None if self.y is None else self.y[index.to(self.y.device)],
                self.threat,
                key=Key(self.search.seed),
            )

    def gradient(
        self,
        question: Question,
        point: Tree,
        key: Key,
        *,
        problem: ModelProblem | None = None,
    ) -> tuple[Score, Tree]:
        """Score and gradient of the rows of a question at a point; booked.

        Raises:
            TooDearError: it would cost more than is left.
        """
        self.need(2 * rows(point))
        self.spend(2 * rows(point))
        return Autograd()(problem or replace(question.problem, warm=None), point, key)

    def batches(self, index: Tensor) -> list[tuple[Tree, Tensor | None]]:
        """The examples at ``index`` with their labels, as an audit takes them."""
        device = leaves(self.x)[0].device
        parts = [part.to(device) for part in pieces(index)]
        return [(take(self.x, part), None if self.y is None else self.y[part.to(self.y.device)]) for part in parts]

    # Within.

    def _worst(self, spec: Spec, search: Search) -> int:
        """Passes of an example that never falls, its look beforehand included."""
        plan = getattr(find_recipe(spec, oracle=Subject.of(self.model, search).oracle), "passes", None)
        if plan is None:
            return 0 if self.allowed is None else _UNPLANNED
        asked = plan(Setting(ways=max(0, (self.classes or 1) - 1), random=self.random))
        backwards = asked.most if asked.backwards is None else asked.backwards
        return int(asked.most + backwards + 1 + 2 * HELD_OUT * self.random)

    def _read(self, ran: Ran, index: Tensor, result: Result) -> Ran:
        fooled, undetermined, met = ran.fooled.clone(), ran.undetermined.clone(), ran.met.clone()
        columns = [result.per_example.verdicts[entry.name] for entry in result.attacks]
        clean = result.per_example.clean
        for row, place in enumerate(index.tolist()[: len(clean)]):
            letters = [column[row] for column in columns]
            fooled[place] = clean[row] == "r" and "f" in letters
            undetermined[place] = clean[row] == "r" and "f" not in letters and all(one in "u-" for one in letters)
            met[place] = True
        forwards = sum(map(sum, result.per_example.passes.values()))
        backwards = round(sum(entry.backwards for entry in result.attacks) * result.examples)
        passes = forwards + backwards + result.examples * (1 + 2 * HELD_OUT * bool(result.terms.get("random_model")))
        self.spend(passes)
        if not ran.changes:  # what is said of surrogates and draws belongs to them
            self.notes += [note for note in result.notes if note not in self.notes]
        unverified = ran.unverified + sum(entry.unverified for entry in result.attacks)
        return replace(
            ran, fooled=fooled, undetermined=undetermined, met=met, passes=ran.passes + passes, unverified=unverified
        )

    def _none(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.zeros_like(self.right), torch.zeros_like(self.right), torch.zeros_like(self.right)

    def _book(self, ran: Ran) -> Ran:
        self.ran.append(ran)
        return ran


def pieces(index: Tensor) -> list[Tensor]:
    """Places, so many at a time as are asked about together."""
    return [index[start : start + PIECE] for start in range(0, len(index), PIECE)]


def ladder_of(spec: Spec) -> str | None:
    """The preset that a text names, with its version; None for recipes and attack objects."""
    if not isinstance(spec, str):
        return None
    known = {name.partition("@")[0] for name in LADDERS} | set(LADDERS)
    return find_ladder(spec).name if spec in known else None


def flat(gradient: Tree) -> Tensor:
    """A gradient (R, D) over all inputs, in float64."""
    return torch.cat([part.detach().double().flatten(1) for part in leaves(gradient)], 1)


def cosine(one: Tree, other: Tree) -> Tensor:
    """Of the angle between two gradients (R,); 0 where one of them vanishes."""
    a, b = flat(one), flat(other)
    length = a.norm(dim=1) * b.norm(dim=1)
    found = (a * b).sum(1) / torch.where(length > 0, length, 1.0)
    return torch.where(length > 0, torch.nan_to_num(found), 0.0)


def median(values: Tensor | Sequence[float]) -> float:
    """The lower median; 0 of nothing."""
    tensor = torch.as_tensor(values, dtype=torch.float64)  # any device: the caller's
    return float(tensor.median()) if tensor.numel() else 0.0


def finite(value: float | None) -> float | None:
    """A number for a record; None for those that are none."""
    return value if value is not None and math.isfinite(value) else None
