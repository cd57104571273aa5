"""Two results on the same examples: who changed side, and by more than chance."""

import math

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.compare import compare
from signstep.engine.statistics import mcnemar
from signstep.errors import InputError


def models() -> tuple[nn.Module, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(6, 3).eval(), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def data() -> tuple[Tensor, Tensor]:
    x = torch.rand(80, 6, generator=torch.Generator().manual_seed(5))
    return x, models()[0](x).argmax(1)


def run(model: nn.Module, x: Tensor, y: Tensor, eps: float = 0.05) -> ss.Result:
    return ss.audit(model, (x, y), threat=ss.linf(eps), attacks=["fgsm"], curve=False)


def test_sides_are_counted_by_example_whatever_the_order() -> None:
    (first, second), (x, y) = models(), data()
    before = run(first, x, y)
    after = run(second, x.flip(0), y.flip(0))
    comparison = compare(before, after)
    held = [letter == "h" for letter in before.worst_case]
    now = [letter == "h" for letter in after.worst_case][::-1]
    assert comparison.examples == 80
    assert len(comparison.lost) == sum(a and not b for a, b in zip(held, now, strict=True)) > 0
    assert len(comparison.won) == sum(b and not a for a, b in zip(held, now, strict=True))
    assert comparison.held_after - comparison.held_before == len(comparison.won) - len(comparison.lost)
    assert comparison.worse() == (comparison.p_value < 0.05)


def test_a_result_is_not_worse_than_itself() -> None:
    before = run(models()[0], *data())
    comparison = compare(before, before)
    assert (comparison.lost, comparison.won, comparison.p_value, comparison.worse()) == ((), (), 1.0, False)
    assert comparison.notes == ()


def test_terms_that_differ_are_named() -> None:
    x, y = data()
    comparison = compare(run(models()[0], x, y), run(models()[0], x[:50], y[:50], eps=0.06))
    text = str(comparison)
    assert "only 50 examples are in both" in text
    assert "threat differs: linf eps=0.05" in text


def test_copies_of_an_example_are_told_apart() -> None:
    x, y = data()
    before = run(models()[0], torch.cat([x[:5], x[:5]]), torch.cat([y[:5], y[:5]]))
    assert compare(before, before).examples == 10


def test_nothing_in_common_is_an_error() -> None:
    x, y = data()
    with pytest.raises(InputError, match="no example in common"):
        compare(run(models()[0], x[:40], y[:40]), run(models()[0], x[40:], y[40:]))


@pytest.mark.parametrize(("lost", "won"), [(0, 1), (3, 3), (10, 2), (40, 61), (700, 800), (3000, 100)])
def test_mcnemar_is_the_exact_binomial_test(lost: int, won: int) -> None:
    assert math.isclose(mcnemar(lost, won), binomtest(lost, lost + won).pvalue, rel_tol=1e-9, abs_tol=1e-300)
