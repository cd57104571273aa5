"""The FGSM ray: one gradient for every size, and the first size that fools."""

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.gradient.security_curve import FgsmRay
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel
from signstep.model.subject import Question, Subject


class Counting(nn.Module):
    """A linear classifier that counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3).double()
        self.forwards = 0
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 18).reshape(3, 6).roll(5, 1))
            self.layer.bias.copy_(torch.tensor([0.1, 0.0, -0.1]))

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        out: Tensor = self.layer(x)
        return out


class Folded(nn.Module):
    """One feature u, class 1 while u is in [0.5, 0.6] or above 0.8: success along a ray is not monotone."""

    def forward(self, x: Tensor) -> Tensor:
        u = x[:, :1]
        inside = ((u >= 0.5) & (u <= 0.6)) | (u >= 0.8)
        return torch.cat([-u, u - 3 + 4 * inside], 1)


def ask(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Question:
    subject = Subject.of(ss.Model(model))
    with subject.opened():
        return subject.ask(x, y, threat, key=Key(0))


def data(rows: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(rows, 6, generator=generator, dtype=torch.float64)
    return x, Counting()(x).argmax(1)


@pytest.mark.parametrize("threat", [ss.linf(0.1), ss.l2(0.3), ss.l1(0.5), ss.l0(1)], ids=str)
def test_every_level_equals_fgsm_of_that_size_at_one_gradient(threat: ThreatModel) -> None:
    model = Counting()
    x, y = data()
    question = ask(model, x, y, threat)
    levels = [1, 2] if threat.norm.name == "l0" else [0.05, 0.2, 0.4]
    model.forwards = 0
    fooled = FgsmRay(question.problem, question.region, x, Key(0)).curve(levels)
    assert model.forwards == 1 + len(levels)
    for level, row in zip(levels, fooled, strict=True):
        outcome = ss.attack(model, x, y, threat=threat.with_eps(level))
        assert torch.equal(row, outcome.fooled)


def test_smallest_eps_is_exact_on_a_linear_model() -> None:
    model = Counting()
    x, y = data()
    threat = ss.linf(0.4, box=None)
    question = ask(model, x, y, threat)
    ray = FgsmRay(question.problem, question.region, x, Key(0))
    levels = [0.1, 0.2, 0.3, 0.4]
    smallest = ray.smallest(levels, ray.curve(levels), question.clean.fooled, halvings=30)
    assert torch.isfinite(smallest).sum() >= 5
    for row in torch.isfinite(smallest).nonzero().squeeze(1).tolist():
        part = (x[row : row + 1], y[row : row + 1])
        above = ss.attack(model, *part, threat=ss.linf(float(smallest[row]), box=None))
        below = ss.attack(model, *part, threat=ss.linf(float(smallest[row]) - 1e-6, box=None))
        assert bool(above.fooled)
        assert not bool(below.fooled)


def test_the_first_bracket_is_refined_when_success_is_not_monotone() -> None:
    x, y = torch.tensor([[0.3]]), torch.tensor([0])
    question = ask(Folded(), x, y, ss.linf(0.4))
    ray = FgsmRay(question.problem, question.region, x, Key(0))
    levels = [0.1, 0.25, 0.4, 0.6]  # the points 0.4, 0.55 (fooled), 0.7, 0.9 (fooled)
    fooled = ray.curve(levels)
    assert fooled[:, 0].tolist() == [False, True, False, True]
    smallest = ray.smallest(levels, fooled, question.clean.fooled, halvings=20)
    assert smallest.item() == pytest.approx(0.2, abs=1e-4)


def test_rows_that_fail_untouched_have_size_zero_and_rows_that_hold_have_none() -> None:
    x, y = torch.tensor([[0.55], [0.1]]), torch.tensor([0, 0])
    question = ask(Folded(), x, y, ss.linf(0.2))
    ray = FgsmRay(question.problem, question.region, x, Key(0))
    smallest = ray.smallest([0.1, 0.2], ray.curve([0.1, 0.2]), question.clean.fooled)
    assert smallest.tolist() == [0.0, float("inf")]
