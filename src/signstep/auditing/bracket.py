"""Bounds in an audit: what is proved of each example before it is attacked, beside what the attacks find."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from signstep.auditing.counterexamples import ExactSearch
from signstep.certify.certified import layers_of, sized
from signstep.certify.methods import OPEN, SECONDS, method_of
from signstep.certify.proving import Prover
from signstep.engine.region import BallRegion
from signstep.engine.shaped import ShapedThreat
from signstep.engine.tasks import Multiclass
from signstep.engine.verify import verify
from signstep.errors import InputError, SignstepError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.subject import Question


@dataclass(frozen=True)
class Bounds:
    """Which bounds an audit takes, and whether what they prove is attacked all the same.

    Attributes:
        method: "interval", "crown-ibp", "crown", "alpha", "exact" or "auto-lirpa", see `signstep.certified`.
        attack_all: attack also the examples that are proved. Nothing can come of it but the discovery that one of the
            two is wrong; by default they are left out, which makes audits of certified models faster.
        seconds: of exact search for each example.
        curve: prove also at the other sizes of the security curve, by alpha-CROWN at most: up to twice the sizes of
            the work.
    """

    method: str = "crown"
    attack_all: bool = False
    seconds: float = SECONDS
    curve: bool = True

    def __post_init__(self) -> None:
        method_of(self.method, "bounds")
        if not 0 < self.seconds < math.inf:
            raise InputError(Arg("seconds", self.seconds), remedy="pass the seconds of each example, above 0")

    @classmethod
    def of(cls, given: "str | Bounds | None") -> "Bounds | None":
        """From "crown", or with options: "exact:seconds=10,attack_all=true".

        Raises:
            InputError: no such method or option.
        """
        if not isinstance(given, str):
            return given
        method, _, rest = given.partition(":")
        options: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            name, _, value = part.partition("=")
            read = _number(value) if name == "seconds" else _READ.get(name, {}).get(value.lower())
            if name not in _READ or read is None:
                raise InputError(
                    Arg("bounds", given), f"has {part!r}", remedy="write exact:seconds=10 or crown:attack_all=true"
                )
            options[name] = read
        return cls(method, **options)

    @classmethod
    def of_terms(cls, terms: Mapping[str, Any]) -> "Bounds | None":
        """Those that a record says were taken.

        Raises:
            InputError: there are none such.
        """
        stated = terms.get("bounds")
        if stated is None:
            return None
        return cls(stated["method"], stated["attack_all"], stated["seconds"], stated["curve"])

    def terms(self) -> dict[str, Any]:
        """What a record says of them."""
        return {
            "method": self.method,
            "attack_all": self.attack_all,
            "seconds": self.seconds,
            "curve": self.curve,
        }


_SAID = {"true": True, "false": False}
_READ: dict[str, dict[str, bool]] = {"attack_all": _SAID, "seconds": {}, "curve": _SAID}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(eq=False)
class Bracket:
    """Bounds on the examples of an audit, batch by batch.

    Attributes:
        asked: which; None for none.
        declared: the model.
        budget: the units of eps.
        prover: once there was a batch that it can be asked about.
        reason: why there are no bounds; "" while there are.
        search: what exact search found of the current batch, as an attack; None where it was not asked for.
    """

    asked: Bounds | None
    declared: Model
    budget: Literal["raw", "normalised"] = "raw"
    prover: Prover | None = None
    reason: str = ""
    said: list[str] = field(default_factory=list)
    search: ExactSearch | None = None

    @classmethod
    def of(cls, given: str | Bounds | None, declared: Model, budget: Literal["raw", "normalised"]) -> "Bracket":
        """The bounds that were asked for, if any."""
        asked = Bounds.of(given)
        found = cls(asked, declared, budget)
        if asked is not None and asked.method == "exact":
            found.search = ExactSearch()
        return found

    @property
    def attack_all(self) -> bool:
        """Whether proved examples are attacked too."""
        return self.asked is None or self.asked.attack_all

    @property
    def terms(self) -> dict[str, Any]:
        """What a record says of them; nothing where there are none."""
        return {} if self.reason or self.asked is None else {"bounds": self.asked.terms()}

    def letters(self, question: Question) -> str | None:
        """A letter for each row of a batch, see `Examples.bounds`; None where there are no bounds at all."""
        if self.search is not None:
            self.search.points = {}
        if self.reason or self.asked is None:
            return None
        reason = _refused(question)
        if not reason:
            try:
                return self._letters(question, self.asked)
            except SignstepError as error:
                reason = str(error).partition("; ")[0]
        if self.prover is None:
            self.reason = reason
            return None
        note = f"no bounds for some examples: {reason}"
        self.said += [] if note in self.said else [note]
        return OPEN * len(question.predicted)

    def sizes(self, question: Question, letters: str, levels: Sequence[float]) -> list[float | None] | None:
        """Of each row of a batch the largest size of the curve at which it is proved; None where there is no such.

        A ball lies in every larger one: what is proved at a size is so at all smaller ones, and asked no more.

        Args:
            question: the batch.
            letters: at the size of the audit.
            levels: sizes of the curve, rising.
        """
        eps = question.threats[""].eps if "" in question.threats else None
        if self.asked is None or not self.asked.curve or not levels or not isinstance(eps, (int, float)):
            return None
        found: list[float | None] = [None] * len(letters)
        if self.prover is None or letters == "" or question.wrong is None or self.reason:
            return found
        method = "alpha" if self.prover.method == "exact" else self.prover.method
        prover = replace(self.prover, method=method, points={})
        wrong = question.wrong.tolist()
        smaller = [level for level in levels if level <= eps]
        open_ = [row for row, letter in enumerate(letters) if letter == OPEN and not wrong[row]]
        for level in reversed(smaller):
            if open_ and level < eps:
                held = self._held(prover, question, open_, level)
                for row in held:
                    found[row] = level
                open_ = [row for row in open_ if row not in held]
        standing = [row for row, letter in enumerate(letters) if letter != OPEN]
        for row in standing:
            found[row] = smaller[-1] if smaller else None
        for level in (level for level in levels if level > eps):
            standing = self._held(prover, question, standing, level) if standing else []
            for row in standing:
                found[row] = level
        return found

    @staticmethod
    def _held(prover: Prover, question: Question, index: list[int], level: float) -> list[int]:
        """Which of some rows are proved at another size."""
        rows = torch.tensor(index, dtype=torch.int64, device=question.predicted.device)
        part, threat = question.take(rows), replace(question.threats[""], grid=None, eps=level)
        region, y = part.region, part.problem.aim.y
        assert isinstance(region, BallRegion)
        assert y is not None
        region = replace(region.resized(torch.full_like(region.radius, level)), grid=None)
        try:
            tolerance = verify(region.x, region.x, threat.terms()).tolerance
            letters = prover.prove(sized(region, threat), y, tolerance)
        except SignstepError:
            return []
        return [row for row, letter in zip(index, letters, strict=True) if letter != OPEN]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader must know."""
        if self.reason:
            return (f"no bounds were taken: {self.reason}",)
        if self.prover is None:
            return tuple(self.said)
        return (*self.said, *self.prover.notes)

    def _letters(self, question: Question, asked: Bounds) -> str:
        region, threat, problem = question.region, question.threats[""], question.problem
        assert isinstance(region, BallRegion)
        assert problem.aim.y is not None
        prover = self.prover
        if prover is None:
            network = layers_of(self.declared)
            prover = Prover(network, self.declared.space(self.budget).to_model, asked.method, asked.seconds)
        tolerance = verify(region.x, region.x, replace(threat, grid=None).terms()).tolerance
        letters = prover.prove(sized(replace(region, grid=None), threat), problem.aim.y, tolerance)
        self.prover = prover
        if self.search is not None:
            ids = problem.ids.tolist()
            self.search.points = {ids[row]: point for row, point in prover.points.items()}
        return letters


def _refused(question: Question) -> str:
    """Why there are no bounds for such a question; "" where there may be."""
    threat, problem = question.threats.get(""), question.problem
    if problem.goal == "targeted":
        return "they are about any other class, and the goal is targeted"
    if not isinstance(problem.task, Multiclass) or problem.aim.y is None or question.form != "logits":
        return "they are about scores of one class among several"
    if problem.random:
        return "the model is random"
    if threat is None or isinstance(threat, ShapedThreat) or threat.eps is None:
        return "they need one input and a ball with an eps"
    return "" if isinstance(question.region, BallRegion) else "they need one input and a ball with an eps"
