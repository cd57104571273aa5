"""Randomised smoothing: counts against SciPy's binomial, radii against the closed form of linear models."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.defences.smoothing.radius import chance, radius_of, share_bound
from signstep.errors import InputError, ModelError


def linear(weight: list[float], bias: float) -> nn.Module:
    """Two classes: 1 where w x + b is above 0."""
    layer = nn.Linear(len(weight), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(len(weight)), torch.tensor(weight)]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return layer


TABLE = (
    (1000, 1000, 0.001), (990, 1000, 0.001), (51, 100, 0.05), (700, 1000, 0.01), (3, 10, 0.1), (60_000, 100_000, 0.001)
)  # fmt: skip


def test_bounds_and_tests_are_those_of_the_binomial_table() -> None:
    from scipy.special import bdtr, betaincinv, ndtri

    for votes, of, alpha in TABLE:
        expected = betaincinv(votes, of - votes + 1, alpha)
        assert share_bound(votes, of, alpha) == pytest.approx(expected, abs=1e-9)
        radius = radius_of(votes, of, sigma=0.25, alpha=alpha)
        assert radius == (pytest.approx(0.25 * ndtri(expected), abs=1e-7) if expected > 0.5 else None)
    for first, second in ((100, 0), (60, 40), (9, 1), (7, 7), (51, 49)):
        expected = min(1.0, 2 * bdtr(second, first + second, 0.5))
        assert chance(first, second) == pytest.approx(expected, abs=1e-9)


def test_of_a_linear_model_the_radius_is_the_distance_to_its_plane_and_never_more() -> None:
    weight, bias, sigma = [3.0, -1.0, 2.0], -0.4, 0.5
    x = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    margin = (x @ torch.tensor(weight) + bias) / math.sqrt(14)  # g is the model itself: noise is symmetric
    found = ss.smooth(linear(weight, bias), sigma).certify((x, (margin > 0).long()), n=2000, alpha=0.001)
    for true, radius, answer in zip(margin.tolist(), found.radii, found.answers, strict=True):
        assert radius <= abs(true)  # wrong with a chance of one in a thousand each; under this seed never
        if abs(true) > 0.1:
            assert answer == int(true > 0)
            assert radius > 0.85 * min(abs(true), sigma * 2.5) - 0.05  # 2,000 draws prove no more than 2.7 sigma
    assert found.certified_accuracy(0.0) == 1 - found.abstained / 12
    assert found.certified_accuracy(0.3) == sum(radius >= 0.3 for radius in found.radii) / 12


def test_near_a_tie_it_abstains_and_the_count_is_said() -> None:
    smoothed = ss.smooth(linear([1.0, 0.0], 0.0), 0.5)
    x = torch.tensor([[1e-3, 0.5], [2.0, 0.5]])
    assert smoothed.predict(x).tolist() == [-1, 1]
    found = smoothed.certify((x, torch.tensor([1, 1])), n=400)
    assert found.answers == (-1, 1)
    assert found.radii[0] == 0.0
    assert found.abstained == 1
    assert found.clean_accuracy == 0.5
    assert "abstained on 1 of 2" in str(found)
    assert "nothing of the model without the vote" in str(found)
    assert "nothing of other norms" in str(found)


def test_draws_are_the_examples_own_and_units_are_raw() -> None:
    weight, bias = [3.0, -1.0, 2.0], -1.5
    x = torch.rand(6, 3, generator=torch.Generator().manual_seed(1))
    plain = ss.smooth(linear(weight, bias), 0.3, seed=4)
    whole = plain.certify(x, n=300)
    assert plain.certify(x[4:5], n=300).votes == whole.votes[4:5]
    assert plain.certify(x, n=300) == whole
    assert ss.smooth(linear(weight, bias), 0.3, seed=5).certify(x, n=300).votes != whole.votes

    class Behind(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            out: Tensor = linear(weight, bias)(u * 0.5 + 0.25)
            return out

    declared = ss.smooth(Behind(), 0.3, mean=0.25, std=0.5, seed=4).certify(x, n=300)
    assert max(abs(a - b) for a, b in zip(declared.votes, whole.votes, strict=True)) <= 1  # but for rounding at a tie
    normal = ss.Model(Behind(), mean=0.25, std=0.5, inputs="normalised")
    again = ss.smooth(normal, 0.3, seed=4).certify((x - 0.25) / 0.5, n=300)
    assert max(abs(a - b) for a, b in zip(again.radii, declared.radii, strict=True)) < 0.15


def test_noise_comes_before_a_defence_and_the_record_says_so(tmp_path: Path) -> None:
    guarded = ss.defend(linear([4.0, 0.0], -2.0), ["bit-depth:bits=1"])
    found = ss.smooth(guarded, 0.1).certify((torch.tensor([[0.9, 0.1]]), torch.tensor([1])), n=200)
    assert found.passes == "bit-depth:bits=1"
    plain = json.loads(found.save(tmp_path / "smooth.json").read_text(encoding="utf-8"))
    assert plain["kind"] == "smoothing"
    assert plain["radii"] == list(found.radii)
    assert plain["alpha"] == 0.001


def test_what_makes_no_sense_is_one_sentence_and_ctrl_c_keeps_what_was_done() -> None:
    model, x = linear([1.0, 0.0], 0.0), torch.rand(3, 2)
    wrong: tuple[tuple[Any, str], ...] = (
        (lambda: ss.smooth(model, 0.0), "sigma"),
        (lambda: ss.smooth(model, math.inf), "sigma"),
        (lambda: ss.smooth(model).certify(x, n=0), "n=0"),
        (lambda: ss.smooth(model).predict(x, alpha=1.0), "alpha"),
        (lambda: ss.smooth(model).certify(x.long()), "floating-point"),
    )
    for call, text in wrong:
        with pytest.raises(InputError, match=text):
            call()
    with pytest.raises(ModelError, match="vote on classes"):
        ss.smooth(ss.Model(lambda u: u.sum(1), task=ss.Regression(0.1))).predict(x)

    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    partial = ss.smooth(model).certify(x, n=50, progress=stop)
    assert partial.partial
    assert partial.examples == 2
    assert "PARTIAL" in str(partial)
