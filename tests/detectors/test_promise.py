"""The promise: what is flagged of clean rows, the band around it, its rows, and when it is broken."""

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from detector_nets import rows, trained
from scipy import ndimage, stats
from scipy.stats import beta, betabinom
from torch import Tensor, nn

import signstep as ss
from signstep.detectors import calibration as promise
from signstep.detectors.fitting import fit_half
from signstep.detectors.squeeze import median_filter


@pytest.mark.parametrize("n", [9, 99, 100, 1000])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_p_values_thresholds_and_counts_are_one_rule(n: int, rate: float) -> None:
    """An independent count: p-values by comparing all with all; a score is flagged by either or by neither."""
    draws = torch.Generator().manual_seed(n)
    cal = torch.randint(0, 40, (n,), generator=draws).double().sort().values  # with ties
    scores = torch.arange(-2, 45).double()
    counted = (1 + (cal[None, :] >= scores[:, None]).sum(1)).double() / (n + 1)
    assert torch.equal(promise.p_values(cal, scores), counted)
    assert torch.equal(
        promise.p_values(cal, torch.tensor([math.nan])), torch.tensor([1 / (n + 1)], dtype=torch.float64)
    )
    flagged = counted <= rate * (1 + 1e-9)
    assert torch.equal(flagged, scores > promise.threshold(cal, rate))
    assert (promise.allowed(rate, n) < 1) == (n < promise.rows_needed(rate))


def test_crepes_counts_the_same() -> None:
    """The referee's p-values, without its smoothing, are ours for scores without ties."""
    crepes = pytest.importorskip("crepes")
    draws = np.random.default_rng(0)
    cal, scores = np.sort(draws.normal(size=200)), draws.normal(size=50)
    said = crepes.ConformalClassifier().fit(cal).predict_p(scores[:, None], smoothing=False)[:, 0]
    ours = promise.p_values(torch.as_tensor(cal), torch.as_tensor(scores)).numpy()
    assert np.allclose(said, ours, atol=1e-12)


@pytest.mark.parametrize(("rate", "n", "level"), [(0.01, 1000, 0.9), (0.05, 19, 0.5), (0.2, 333, 0.99), (0.7, 50, 0.9)])
def test_band_is_that_of_scipy(rate: float, n: int, level: float) -> None:
    """Beta(k, n + 1 - k), and the counts on new rows beta-binomial."""
    k = math.floor(rate * (n + 1))
    assert promise.band(rate, n, level) == pytest.approx(beta.interval(level, k, n + 1 - k), abs=1e-9)
    for flagged in (0, 1, 7, 60):
        assert promise.kept(rate, n, flagged, 120).chance == pytest.approx(
            betabinom.sf(flagged - 1, 120, k, n + 1 - k), abs=1e-9
        )


def test_comparison_of_two_samples_is_that_of_scipy() -> None:
    """The asymptotic Kolmogorov-Smirnov test, with its correction for few rows."""
    draws = torch.Generator().manual_seed(0)
    for shift in (0.0, 0.3, 0.6):
        one, two = torch.randn(150, generator=draws), torch.randn(200, generator=draws) + shift
        exact = stats.ks_2samp(one.numpy(), two.numpy()).pvalue
        assert promise.two_samples(one, two) == pytest.approx(exact, rel=0.25, abs=0.02)


class Distance:
    """How far from what was fitted: a rule that knows its own rows by heart."""

    name = "nearest"

    def fit(self, x: Tensor) -> None:
        """Keep the rows."""
        self.rows = x.flatten(1)

    def score(self, x: Tensor) -> Tensor:
        """The distance to the nearest of them."""
        return torch.cdist(x.flatten(1), self.rows).amin(1)


def test_promise_holds_on_held_out_rows_and_breaks_on_fit_rows() -> None:
    """Calibrated on rows that it was fitted on, a detector of distances flags nearly every clean input."""
    model, clean, new = trained(), rows(400, seed=1), rows(600, seed=2)
    fair = ss.detectors.fit(Distance(), model, clean)
    flagged = int(ss.Policy(detectors=[fair], reject=0.05).flags(new[0]).sum())
    assert promise.kept(0.05, len(fair.calibration), flagged, 600).holds
    raw = clean[0][fit_half(clean[0])]
    unfair = replace(fair, calibration=fair.score(raw).sort().values)
    flagged = int(ss.Policy(detectors=[unfair], reject=0.05).flags(new[0]).sum())
    broken = promise.kept(0.05, len(raw), flagged, 600)
    assert flagged > 500
    assert not broken.holds
    with pytest.raises(ss.SignstepError, match="among those to fit on"):
        ss.detectors.fit(Distance(), model, clean, calibrate=clean)


def test_rate_is_kept_on_average_and_within_the_band() -> None:
    """Over resampled calibrations the true rate is Beta: 90 % of them within the band, its mean the rate."""
    model, rate = trained(), 0.1
    detector = ss.detectors.fit("confidence", model, rows(40, seed=3))
    everything = detector.score(rows(4000, seed=4)[0])
    low, high = promise.band(rate, 99)
    shares = []
    for draw in range(100):
        order = torch.randperm(4000, generator=torch.Generator().manual_seed(draw))
        cal, rest = everything[order[:99]].sort().values, everything[order[99:]]
        shares.append(float((promise.p_values(cal, rest) <= rate).double().mean()))
    inside = sum(low <= share <= high for share in shares)
    assert 80 <= inside <= 98
    assert abs(float(np.mean(shares)) - rate) < 0.012


def test_halves_go_by_content_and_copies_stay_together() -> None:
    """A row's half does not depend on the others, on order, or on how often it comes."""
    x, _ = rows(60, seed=5)
    whole = fit_half(x)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_half(x[order]), whole[order])
    assert torch.equal(fit_half(torch.cat([x, x]))[60:], whole)
    assert 15 < int(whole.sum()) < 45
    assert not torch.equal(fit_half(x, seed=1), whole)


def test_several_detectors_keep_the_total() -> None:
    """Bonferroni: with D detectors, even identical or independent ones, no more is flagged than was promised."""
    model, clean, (x, _) = trained(), rows(600, seed=6), rows(2000, seed=7)
    detectors = [ss.detectors.fit(name, model, clean) for name in ("confidence", "energy", "squeeze:bits=2")]
    for policy in (ss.Policy(detectors=chosen, reject=0.05, review=0.1) for chosen in ([detectors[0]] * 3, detectors)):
        decided = policy.decide(x)
        assert int((decided.action == 2).sum()) <= 0.05 * 2000 * 1.6
        assert int(decided.flagged.sum()) <= 0.15 * 2000 * 1.3
        smallest = decided.p_values.min(1)
        assert torch.equal(decided.p_value, (3 * smallest.values).clamp(max=1))
        assert torch.equal(decided.by, smallest.indices)
        assert torch.equal(policy.flags(x), decided.action > 0)
        assert decided.answers is not None
        assert torch.allclose(decided.answers, model(x))


def test_detector_alone_and_policy_say_the_same() -> None:
    """One detector in a policy is its p-values; the row alone, in a batch, or as a normalised input is the same."""
    model, (x, y) = trained(), rows(200, seed=8)
    detector = ss.detectors.fit("squeeze:bits=2,median=2", model, (x, y))
    assert detector.passes == 2
    policy = ss.Policy(detectors=[detector], reject=0.02)
    assert torch.equal(policy.decide(x).p_value, detector.p_values(x))
    assert torch.allclose(detector.score(x[:1]), detector.score(x)[:1], atol=1e-6)
    shifted = ss.Model(torch.nn.Sequential(Back(), model), mean=0.5, std=0.25, inputs="normalised")
    other = ss.detectors.fit("squeeze:bits=2,median=2", shifted, ((x - 0.5) / 0.25, y))
    assert torch.allclose(other.calibration, detector.calibration, atol=1e-4)


class Back(torch.nn.Module):
    """Undoes a normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        """To raw units."""
        return x * 0.25 + 0.5


def test_class_conditional_promise_holds_for_each_answer() -> None:
    """p-values within the class that the model answers are those of the detector restricted to that class."""
    model, (x, y) = trained(), rows(600, seed=9)
    plain = ss.detectors.fit("energy", model, (x, y))
    by_class = ss.detectors.fit("energy", model, (x, y), by_class=True)
    assert by_class.classes is not None
    new = rows(300, seed=10)[0]
    said = model(new).argmax(1)
    for label in range(3):
        alone = by_class.calibration[by_class.classes == label]
        assert torch.equal(
            by_class.p_values(new)[said == label], promise.p_values(alone, plain.score(new)[said == label])
        )
    assert by_class.band(0.1)[1] > plain.band(0.1)[1]
    few = promise.rows_needed(0.002)
    with pytest.raises(ss.SignstepError, match=f"class .* at least {few} clean rows"):
        ss.Policy(detectors=[by_class], reject=0.002)


def test_saved_and_loaded_is_equal_and_belongs_to_its_model(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A file gives the same p-values beside the same model, and none beside another or another preprocessing."""
    model, (x, y) = trained(), rows(200, seed=11)
    detector = ss.detectors.fit("energy", model, (x, y))
    for by_class in (False, True):
        detector = ss.detectors.fit("squeeze:bits=2", model, (x, y), by_class=by_class)
        detector.save(tmp_path / "squeeze.safetensors")
        again = ss.detectors.load(tmp_path / "squeeze.safetensors", model)
        assert torch.equal(again.p_values(x), detector.p_values(x))
        assert (again.options, dict(again.digests)) == (detector.options, dict(detector.digests))
    with pytest.raises(ss.SignstepError, match="another model"):
        ss.detectors.load(tmp_path / "squeeze.safetensors", trained(1))
    with pytest.raises(ss.SignstepError, match="another preprocessing"):
        ss.detectors.load(tmp_path / "squeeze.safetensors", ss.Model(model, mean=0.5, std=0.5))
    two = ss.detectors.fit("energy", trained(1), (x, y))
    with pytest.raises(ss.SignstepError, match="different models"):
        ss.Policy(detectors=[detector, two], reject=0.1)


def test_policy_goes_to_another_process() -> None:
    """Pickled, it decides the same; also of a declared normalisation."""
    x, y = rows(100, seed=15)
    for model in (trained(), ss.Model(trained(), mean=0.5, std=0.25)):
        policy = ss.Policy(detectors=[ss.detectors.fit("mahalanobis", model, (x, y))], reject=0.1)
        again = pickle.loads(pickle.dumps(policy))
        assert torch.equal(again.decide(x).p_value, policy.decide(x).p_value)


def test_median_filter_is_that_of_scipy() -> None:
    """Window, edges and the middle of an even count as scipy has them."""
    x = rows(3, seed=12)[0]
    for size in (2, 3):
        slow = np.stack([ndimage.median_filter(one[0].numpy(), size=size, mode="nearest") for one in x])
        assert np.array_equal(median_filter(x, size)[:, 0].numpy(), slow)


class Broken:
    """A detector whose score is as it is told."""

    def __init__(self, value: Tensor | float) -> None:
        self.value = value

    def score(self, x: Tensor) -> Tensor | float:
        """As told."""
        return self.value if not isinstance(self.value, Tensor) else self.value.expand(len(x))


def _called(model: nn.Module, clean: tuple[Tensor, Tensor], *classes: int) -> tuple[Tensor, Tensor]:
    """Of clean rows those that the model calls so."""
    said = torch.isin(model(clean[0]).argmax(1), torch.tensor(classes))
    return clean[0][said], clean[1][said]


def nan(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model, whose answers to bright inputs are no numbers."""

    def answer(x: Tensor) -> Tensor:
        out: Tensor = model(x)
        return torch.where(x.flatten(1).mean(1, keepdim=True) > 0.42, torch.nan, out)

    return answer


def test_a_score_that_is_no_number_is_as_suspicious_as_can_be() -> None:
    """In use, where nothing can be refused any more: the smallest p-value there is, and the policy flags it."""
    x, y = rows(60, seed=13)

    class Sometimes:
        """NaN for what is bright."""

        def score(self, x: Tensor) -> Tensor:
            """The mean, where it is small."""
            mean = x.flatten(1).mean(1)
            return torch.where(mean > 0.9, torch.nan, mean)

    made = ss.detectors.fit(Sometimes(), trained(), (x, y))
    bright = torch.cat([torch.ones_like(x[:2]), x[:2]])
    assert made.p_values(bright)[:2].tolist() == [1 / 61, 1 / 61]
    assert ss.Policy(detectors=[made], reject=0.02).flags(bright)[:2].tolist() == [True, True]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda m, c: ss.detectors.fit("squeese", m, c), "did you mean 'squeeze'"),
        (lambda m, c: ss.detectors.fit("squeeze:bit=1", m, c), "did you mean bits=1"),
        (lambda m, c: ss.detectors.fit("squeeze:bits=0,median=0", m, c), "leave no squeezer"),
        (lambda m, c: ss.detectors.fit("energy:temperature=0", m, c), "above 0"),
        (lambda m, c: ss.detectors.fit(3, m, c), "has no score"),
        (lambda m, c: ss.detectors.fit(Broken(torch.tensor(math.nan)), m, c), "NaN or infinite"),
        (lambda m, c: ss.detectors.fit(Broken(1.0), m, c), "returned float for"),
        (lambda m, c: ss.detectors.fit("energy", m, (c[0] * math.nan, c[1])), "inputs that are NaN"),
        (lambda m, _: ss.detectors.fit("energy", m, []), "gave no rows"),
        (lambda m, c: ss.detectors.fit("energy", m, c, attacks=["fgsm"]), "clean rows alone"),
        (lambda m, c: ss.detectors.fit("energy", m, c, other=m), "leave it out"),
        (lambda m, c: ss.Policy(detectors=[ss.detectors.fit("energy", m, c)], reject=0.001), "at least 999 clean rows"),
        (lambda m, c: ss.Policy(detectors=[ss.detectors.fit("energy", m, c)], reject=1.5), "below 1"),
        (lambda *_: ss.Policy(detectors=cast("Any", ["energy"]), reject=0.1), "no list of calibrated"),
        (lambda *_: ss.Policy(detectors=[], reject=0), "flag nothing"),
        (lambda m, c: ss.detectors.fit("energy", m, _called(m, c, 0, 1), by_class=True), "calibration rows class 2"),
        (lambda m, c: ss.detectors.fit("mahalanobis", m, (c[0][:1], c[1][:1])), "1 rows, too few for two halves"),
        (lambda m, c: ss.detectors.fit("energy", nan(m), c), "NaN or infinite"),
        (lambda m, c: ss.Policy(detectors=[ss.detectors.fit("energy", m, c)] * 9, reject=0.1), "at least 89 clean"),
        (lambda m, c: ss.detectors.fit("energy", ss.Model(m, task=ss.Regression(0.1)), c), "this task is regression"),
    ],
)
def test_bad_input_is_one_sentence(what, said: str) -> None:  # type: ignore[no-untyped-def]
    """What is wrong, and what to do, on one line."""
    with pytest.raises(ss.SignstepError, match=said) as caught:
        what(trained(), rows(60, seed=13))
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_nothing_is_left_behind() -> None:
    """A network in training mode is judged as deployed, and stays in training mode; no detectors flag nothing."""
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(36, 3)).train()
    x, y = rows(80, seed=14)
    before = {name: part.clone() for name, part in net.state_dict().items()}
    detector = ss.detectors.fit("energy", net, (x, y))
    alone = detector.score(x[:1])
    assert net.training
    assert all(torch.equal(part, before[name]) for name, part in net.state_dict().items())
    assert torch.equal(alone, detector.score(x)[:1]) or torch.allclose(alone, detector.score(x)[:1], atol=1e-6)
    none = ss.Policy(detectors=[], reject=0.01)
    assert not bool(none.flags(x).any())
