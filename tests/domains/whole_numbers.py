"""A small domain for tests: whole numbers, of which an attacker may change a few by one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from signstep.auditing.result import Result
from signstep.auditing.sections import Chart, Line, Section
from signstep.domains.case import Case, Request
from signstep.engine.keys import RowDraws
from signstep.engine.norms import L1
from signstep.engine.shaped import ShapedThreat
from signstep.engine.tree import Tree
from signstep.engine.verify import Verification
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model


@dataclass(frozen=True, eq=False)
class FewByOne:
    """At most ``radius`` (R,) entries differ from x, each by one."""

    x: Tensor
    radius: Tensor

    def steepest(self, gradient: Tree) -> Tensor:
        assert isinstance(gradient, Tensor)
        order = gradient.abs().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        chosen = order < self.radius.floor().unsqueeze(1)
        return torch.where(chosen, torch.sign(gradient), 0.0)

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> Tensor:  # noqa: ARG002
        target = self.steepest(gradient)
        return target if d is None else target - self._own(d)

    def project(self, d: Tree) -> Tensor:
        rounded = self._own(d).round().clamp(-1, 1)
        order = rounded.abs().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return torch.where(order < self.radius.floor().unsqueeze(1), rounded, 0.0)

    def land(self, d: Tree) -> Tensor:
        return self.x + self.project(d)

    def sample(self, draws: RowDraws) -> Tensor:
        return self.steepest(draws.normal("sample", tuple(self.x.shape[1:])).to(self.x))

    def vertex(self, draws: RowDraws) -> Tensor:
        return self.steepest(draws.normal("vertex", tuple(self.x.shape[1:])).to(self.x))

    def restrict(self, gradient: Tree) -> Tensor:
        return self._own(gradient)

    def frozen(self) -> Tensor:
        return torch.zeros(1, dtype=torch.int64)

    def zero(self) -> Tensor:
        return torch.zeros_like(self.x)

    def take(self, index: Tensor) -> "FewByOne":
        return FewByOne(self.x[index], self.radius[index])

    def resized(self, radius: Tensor) -> "FewByOne":
        return replace(self, radius=radius.to(self.radius))

    def _own(self, tree: Tree) -> Tensor:
        assert isinstance(tree, Tensor)
        return tree


@dataclass(frozen=True, eq=False)
class FewThreat(ShapedThreat):
    """The threat of `FewByOne`."""

    @property
    def kind(self) -> str:
        return "few-by-one"

    def around(self, x: Tensor) -> FewByOne:
        assert isinstance(self.eps, float)
        return FewByOne(x, torch.full((len(x),), self.eps))

    def checked(self, x: Tensor, point: Tensor) -> Verification:
        assert isinstance(self.eps, float)
        return few_checked(self.eps, x, point)


def few_checked(eps: float, x: Tensor, point: Tensor) -> Verification:
    change = point.double() - x.double()
    whole = ((change == 0) | (change.abs() == 1)).all(1)
    size = change.abs().sum(1)
    return Verification(whole & (size <= eps), size, size - eps, 0.0)


def check(terms: Mapping[str, Any], x: Tensor, point: Tensor) -> Verification:
    return few_checked(terms["threat_terms"]["eps"], x, point)


CHECKERS = {"few-by-one": check}


def few(eps: float) -> FewThreat:
    return FewThreat(L1(), eps, None, None)


class Weigher(torch.nn.Module):
    """Two classes by a weighted sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor([[3.0, 1.0, -2.0, 0.5], [0.0, 0.0, 0.0, 0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weights.T


def records() -> tuple[Tensor, Tensor]:
    """Rows whose class-0 margins are 7, 2, 4 and -1, labels right for all."""
    x = torch.tensor([[2.0, 2.0, 0.0, -2.0], [1.0, 1.0, 1.0, 0.0], [2.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]])
    return x, torch.tensor([0, 0, 0, 1])


def case(request: Request) -> Case:
    """Four records."""
    if request.data == "broken":
        raise InputError(
            Arg("data", "broken"),
            ": row 3, column b is empty",
            remedy=("fill it, or pass", Arg("skip_bad", True)),
        )
    x, y = records()

    def drawn() -> Iterator[tuple[Tree, Tensor | None]]:
        yield x[:3], y[:3]
        yield x[3:], y[3:]

    def summary(result: Result, points: Mapping[str, Tensor]) -> tuple[Section, ...]:
        kept = tuple(str(row) for row in points.get("row", torch.empty(0)).tolist())
        chart = Chart(
            "lines",
            "Weights along the change",
            "One line that falls.",
            "entries changed",
            "margin",
            (Line("adversarial", (0.0, 1.0, 2.0), (7.0, 4.0, None)), Line("random", (0.0, 1.0, 2.0), (7.0, 6.0, 5.5))),
            limits=(("decision", 0.0),),
        )
        text = (f"{result.fooled} records flip.", f"Kept: {', '.join(kept)}.")
        return (Section("What flips", text, ("record", "changes"), tuple((row, "1") for row in kept), chart),)

    return Case(
        "few",
        Model(Weigher(), task="multiclass", name="a weigher"),
        drawn(),
        few(2.0 if request.threat is None else float(request.threat.partition(":")[2])),
        "four records",
        summary,
        attacks=("random-sign", "fgsm", "pgd:steps=3"),
        opening=("An example.",),
        notes=("one record was left out",) if request.skip_bad else (),
        total=4,
        terms={"columns": ["a", "b", "c", "d"]},
    )


def infer(request: Request) -> str:
    """A schema."""
    return f'data = "{request.data}"\n'
