"""Attackers of a running guard. Each sees what a client sees; none knows the detectors, the charts or the store.

fgsm, pgd    a surrogate's gradients, one query for each example
square       scores from the answer's confidence (Andriushchenko et al. 2020)
hop          labels alone (HopSkipJump, Chen et al. 2020)
oracle       square, and a rejection is a signal: the proposal is walked back towards the clean input until it is
             accepted, and that answer taken (after OARS, Feng et al. 2023)
many         square, with another key for each query
slow         square, with nine clean inputs before each query, so that no chart of shares fills
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.api import attack
from signstep.engine.threat import ThreatModel
from signstep.guard.asking import Client, Heard
from signstep.model.declaration import Model
from signstep.model.search import Search

BY_TRANSFER = ("fgsm", "pgd")
BY_QUERIES = ("square", "hop", "oracle", "many", "slow")
NAMES = (*BY_TRANSFER, *BY_QUERIES)
KEYS_OF_MANY = 20
_CLEAN_BETWEEN = 9
_HALVES = 4


@dataclass(frozen=True)
class Target:
    """One clean input that an attacker starts from.

    Attributes:
        x: it, (1, ...).
        y: its label, (1,).
    """

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Try:
    """What came of one target.

    Attributes:
        success: whether the service gave a wrong answer within the threat, and meant it: neither held nor refused.
        decision: of the answer that counted; "" without one.
        queries: spent.
        x: the input that succeeded; None where none did.
    """

    success: bool
    decision: str
    queries: int
    x: Tensor | None


@dataclass(frozen=True)
class Means:
    """What an attacker has.

    Attributes:
        client: of the service.
        surrogate: a model of its own, for gradients and for the number of classes.
        threat: what it may change.
        queries: for each target, at most.
        clean: inputs of its own that nobody would flag, for hiding among them.
        seed: of the search.
    """

    client: Client
    surrogate: Model
    threat: ThreatModel
    queries: int
    clean: Iterator[Tensor]
    seed: int = 0


def tried(name: str, target: Target, means: Means) -> Try:
    """One attacker at one target."""
    client, before = means.client, len(means.client.asked)
    if name in BY_TRANSFER:
        outcome = attack(
            means.surrogate, target.x, target.y, threat=means.threat, recipe=name, search=Search(seed=means.seed)
        )
        assert isinstance(outcome.x, Tensor)
        heard = client(outcome.x)
        won = heard.action == "accept" and heard.label != int(target.y) and bool(outcome.verified.all())
        return Try(won, heard.id if won else "", 1, outcome.x if won else None)
    ask = _Asked(client, target, name, means)
    if name == "hop":
        recipe, victim = f"hop-skip-jump:queries={means.queries}", Model(ask.labels, outputs="labels")
    else:
        recipe, victim = f"square:queries={means.queries}", Model(ask.scores, outputs="logits")
    search = Search(seed=means.seed)
    outcome = attack(victim, target.x, target.y, threat=means.threat, recipe=recipe, search=search)
    assert isinstance(outcome.x, Tensor)
    won = bool((outcome.fooled & outcome.verified).all()) and bool(ask.won)
    return Try(won, ask.won if won else "", len(client.asked) - before, outcome.x if won else None)


class _Asked:
    """The service as a function of inputs, for one target; what is withheld counts as the right answer.

    Attributes:
        won: the decision at which the last wrong answer was given, or "".
    """

    def __init__(self, client: Client, target: Target, name: str, means: Means) -> None:
        self._client, self._target, self._name, self._means = client, target, name, means
        self._classes = _classes(means.surrogate, target.x)
        self.won = ""

    def labels(self, x: Tensor) -> Tensor:
        """(R,) labels."""
        said = [self._one(row[None]).label for row in x]
        own = int(self._target.y)
        return torch.tensor([own if label is None else label for label in said], dtype=torch.int64, device="cpu")

    def scores(self, x: Tensor) -> Tensor:
        """(R, K) logarithms of probabilities, from the label and its confidence where that is all."""
        return torch.stack([self._scored(self._one(row[None])) for row in x])

    def _one(self, x: Tensor) -> Heard:
        if self._name == "slow":
            for _ in range(_CLEAN_BETWEEN):
                self._client(next(self._means.clean))
        heard = self._client(x)
        if self._name == "oracle" and heard.label is None:
            heard = self._nearer(x)
        if heard.action == "accept" and heard.label is not None and heard.label != int(self._target.y):
            self.won = heard.id
        return heard

    def _nearer(self, x: Tensor) -> Heard:
        """The answer at the first point on the way back to the clean input that is not refused."""
        heard = Heard("", "reject", None, None, None)
        for halves in range(1, _HALVES + 1):
            heard = self._client(self._target.x + (x - self._target.x) / 2**halves)
            if heard.label is not None:
                # Its answer is a signal; what was asked for was refused, so that it is no success.
                right = heard.label == int(self._target.y)
                return heard if right else Heard(heard.id, "reject", heard.label, heard.confidence, heard.scores)
        return heard

    def _scored(self, heard: Heard) -> Tensor:
        if heard.scores is not None and len(heard.scores) == self._classes and heard.action == "accept":
            return torch.tensor(heard.scores, dtype=torch.float32, device="cpu")
        label = int(self._target.y) if heard.label is None or heard.action != "accept" else heard.label
        sure = 1.0 if heard.confidence is None else heard.confidence
        if heard.action != "accept" and heard.label is not None and heard.label != int(self._target.y):
            sure = 0.5  # nearer than what is refused outright, and not fooled
        sure = min(max(sure, 1e-6), 1 - 1e-6)
        rest = math.log((1 - sure) / max(self._classes - 1, 1))
        made = torch.full((self._classes,), rest, dtype=torch.float32, device="cpu")
        made[label] = max(math.log(sure), rest + 1e-3)
        return made


def _classes(surrogate: Model, x: Tensor) -> int:
    with torch.no_grad():
        wide = surrogate(x).shape[-1]
    return max(int(wide), 2)


def around(rows: Tensor) -> Callable[[], Iterator[Tensor]]:
    """Clean inputs one after the other, from the first again after the last."""

    def going() -> Iterator[Tensor]:
        while True:
            yield from (row[None] for row in rows)

    return going
