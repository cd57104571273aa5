"""Laws over the table of detectors: fitted, saved, gradients, what they see, and adapters."""

from typing import Any

import numpy as np
import pytest
import torch
from detector_nets import rows, trained
from torch import Tensor, nn

import signstep as ss
from signstep.detectors import calibration as promise
from signstep.detectors.fitting import fit_half
from signstep.detectors.knowing import slack_of
from signstep.detectors.lid import Dimension
from signstep.detectors.mahalanobis import Mahalanobis
from signstep.detectors.seen import Reader, Seen
from signstep.engine.batch_invariant import row_sum

THREAT = ss.linf(0.22)
OPTIONS = {"squeeze": "squeeze:bits=2", "learned": "learned:steps=60,rounds=1"}
NAMES = list(ss.detectors.DETECTORS.own)


def fitted(name: str, **more: Any) -> ss.detectors.Detector:
    """The detector of a row with what it needs."""
    if name == "second-model":
        more["other"] = trained(1)
    if name == "learned":
        more |= {"threat": THREAT, "attacks": ["pgd:steps=10"]}
    return ss.detectors.fit(OPTIONS.get(name, name), trained(), rows(400, seed=1), **more)


@pytest.fixture(scope="module")
def detectors() -> dict[str, ss.detectors.Detector]:
    """Every one of them, fitted on the same rows."""
    return {name: fitted(name) for name in NAMES}


@pytest.fixture(scope="module")
def attacked() -> ss.Outcome:
    """Points that fool the network by a wide margin."""
    x, y = rows(60, seed=2)
    return ss.attack(trained(), x, y, threat=THREAT, recipe="pgd:steps=20")


@pytest.mark.parametrize("name", NAMES)
def test_every_row_keeps_its_promise_and_finds_a_plain_attack(
    name: str, detectors: dict[str, ss.detectors.Detector], attacked: ss.Outcome
) -> None:
    """On new clean rows the rate is as promised; the unaware attack on this toy is found by each."""
    detector, policy = detectors[name], ss.Policy(detectors=[detectors[name]], reject=0.1)
    flagged = int(policy.flags(rows(500, seed=3)[0]).sum())
    assert promise.kept(0.1, len(detector.calibration), flagged, 500, level=0.001).holds
    found = policy.flags(attacked.x)[attacked.fooled]
    assert float(found.double().mean()) > 0.8
    row = ss.detectors.DETECTORS[name]
    assert detector.fit_rows > 0 if row.fitted else detector.fit_rows == 0
    assert row.broken
    assert (detector.passes > 0) == (row.passes != "none")


@pytest.mark.parametrize("name", NAMES)
def test_every_row_survives_a_file(name: str, detectors: dict[str, ss.detectors.Detector], tmp_path) -> None:  # type: ignore[no-untyped-def]
    """State, options and calibration are all there is."""
    detectors[name].save(tmp_path / "it")
    more: dict[str, Any] = {"other": trained(1)} if name == "second-model" else {}
    again = ss.detectors.load(tmp_path / "it", trained(), **more)
    x = rows(40, seed=4)[0]
    assert torch.equal(again.score(x), detectors[name].score(x))
    assert again.guides is not None
    if name == "second-model":
        with pytest.raises(ss.SignstepError, match="another second model"):
            ss.detectors.load(tmp_path / "it", trained(), other=trained(2))


@pytest.mark.parametrize("name", NAMES)
def test_surrogate_has_the_values_and_the_slope_of_the_score(
    name: str, detectors: dict[str, ss.detectors.Detector]
) -> None:
    """What an attacker differentiates is the score itself, and descends it; slack is above 0 where p is small."""
    detector, reader = detectors[name], Reader.of(trained())
    x = rows(30, seed=5)[0].requires_grad_()
    seen = Seen(reader, x)
    led = detector.rule.surrogate(seen)
    assert led is not None
    assert torch.allclose(led.detach().double(), detector.score(x.detach()), atol=1e-5, rtol=1e-4)
    (slope,) = torch.autograd.grad(led.sum(), x)
    assert bool((slope.flatten(1).abs().amax(1) > 0).double().mean() > 0.9)
    if ss.detectors.DETECTORS[name].gradient == "exact":
        step = 1e-4 * slope / slope.flatten(1).norm(dim=1).clamp_min(1e-9).reshape(-1, 1, 1, 1)
        below, above = detector.score((x - step).detach()), detector.score((x + step).detach())
        assert bool((above >= below - 1e-6).double().mean() > 0.9)
    with torch.no_grad():
        flagged = slack_of(detector, Seen(reader, x.detach()), 0.1) > 0
    assert torch.equal(flagged, detector.p_values(x.detach()) <= 0.1)


def test_mahalanobis_and_lid_are_their_formulas() -> None:
    """Against slow loops in float64, on features that are the inputs of a linear model."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 3)).double().eval()
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(90, 6, generator=draws, dtype=torch.float64)
    y = torch.arange(90) % 3
    made = ss.detectors.fit("mahalanobis:shrink=0", net, (x, y))
    assert isinstance(made.rule, Mahalanobis)
    half = fit_half(x)
    first, labels = x[half], y[half]
    means = torch.stack([first[labels == c].mean(0) for c in range(3)])
    centred = first - means[labels]
    precision = torch.linalg.inv(centred.T @ centred / len(centred))
    slow = torch.stack([torch.stack([(f - m) @ precision @ (f - m) for m in means]).min() for f in x])
    assert torch.allclose(made.score(x), slow, rtol=1e-3)
    lid = ss.detectors.fit("lid:k=5", net, (x, y))
    assert isinstance(lid.rule, Dimension)
    new = torch.randn(7, 6, generator=draws, dtype=torch.float64)
    near = (new[:, None] - first[None]).square().sum(2).sqrt().sort(1).values[:, :5]
    assert torch.allclose(lid.score(new), -4 / (near[:, :4] / near[:, 4:]).log().sum(1), rtol=1e-4)


class Own(nn.Module):
    """A layer of somebody's own: linear, and no `nn.Linear`."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """x W^T."""
        return x.flatten(1) @ self.weight.flatten(1).T


class Gated(nn.Module):
    """Linear layers run inside, over pooled maps, before the head does; it has a parameter of its own besides."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 1, 6, 6))
        self.body = nn.Conv2d(1, 5, 3, padding=1)
        self.gate = nn.Linear(5, 5)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        maps = self.body(x * self.scale).relu()
        pooled = (maps * self.gate(maps.mean((2, 3))).sigmoid()[:, :, None, None]).mean((2, 3), keepdim=True)
        out: Tensor = self.head(pooled if isinstance(self.head, nn.Conv2d) else pooled.flatten(1))
        return out.flatten(1)


@pytest.mark.parametrize("kind", ["linear", "convolution", "own", "map"])
def test_features_are_what_the_layer_that_makes_the_scores_is_given(kind: str) -> None:
    """A convolution after pooling, and a layer of one's own, give the features of the linear layer of their weights."""
    draws = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 5, generator=draws)
    linear = nn.Linear(5, 3, bias=False)
    convolution = nn.Conv2d(5, 3, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(weight)
        convolution.weight.copy_(weight[:, :, None, None])
    x = torch.rand(120, 1, 6, 6, generator=draws)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = Gated(linear).eval()
    heads = {"linear": linear, "convolution": convolution, "own": Own(weight)}
    if kind == "map":  # over a map of 6 x 6, no pooling: every number of it is a feature
        whole = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 6), nn.Flatten()).eval()
        assert torch.equal(Seen(Reader.of(whole), x).features, whole[1](whole[0](x)).flatten(1))
        return
    net = Gated(heads[kind]).eval()
    net.load_state_dict({**plain.state_dict(), **{f"head.{k}": v for k, v in heads[kind].state_dict().items()}})
    got, wanted = (Seen(Reader.of(one), x).features for one in (net, plain))
    assert got.shape == (120, 5)
    assert torch.allclose(got @ weight.T, plain(x), atol=1e-6)
    assert torch.allclose(got, wanted, atol=1e-6)
    for name in ("mahalanobis:pooled=true", "neighbours:k=3,pooled=true", "lid:k=5"):
        found, there = (ss.detectors.fit(name, one, (x, None)).score(x[:9]) for one in (net, plain))
        assert torch.allclose(found, there, rtol=1e-3, atol=1e-4)


def test_without_such_a_layer_it_is_said() -> None:
    """Convolutions over neighbourhoods make no features, whatever is pooled behind them, nor does a bare function."""
    pooled = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    for net in (pooled, lambda x: x.flatten(1)[:, :3]):
        with pytest.raises(ss.SignstepError, match="no penultimate features") as caught:
            ss.detectors.fit("lid:k=5", net, (torch.rand(60, 1, 6, 6), torch.arange(60) % 3))
        assert "convolution after pooling" in str(caught.value.remedy)


class Usual:
    """An outlier model as scikit-learn has them: fitted on rows (n, D), high for what is usual."""

    def fit(self, x: np.ndarray[Any, Any]) -> None:
        """Remember the mean."""
        self.mean = x.mean(0)

    def score_samples(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Minus the distance from it."""
        found: np.ndarray[Any, Any] = -np.linalg.norm(x - self.mean, axis=1)
        return found


class Unusual(Usual):
    """The same as PyOD has them: high for what is not usual."""

    def decision_function(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The distance from the mean."""
        return -self.score_samples(x)


@pytest.mark.parametrize(("kind", "module"), [(Usual, "sklearn.made.up"), (Unusual, "pyod.models.made_up")])
def test_outlier_models_of_libraries(kind: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the adapter, on inputs and on features; high is suspicious whatever the library means by high."""
    monkeypatch.setattr(kind, "__module__", module)
    model, (x, y) = trained(), rows(300, seed=6)
    half = fit_half(x)
    flat = x.flatten(1).double()
    slow = (flat - flat[half].mean(0)).norm(dim=1)
    seen = ss.detectors.fit(ss.detectors.adapt(kind()), model, (x, y))
    assert torch.allclose(seen.score(x), slow, atol=1e-4)
    assert seen.name == kind.__name__
    assert torch.equal(ss.detectors.fit(kind(), model, (x, y)).calibration, seen.calibration)
    hidden = ss.detectors.fit(ss.detectors.adapt(kind(), on="features"), model, (x, y))
    inner = model[2](model[1](x.flatten(1))).detach().double()
    assert torch.allclose(hidden.score(x), (inner - inner[half].mean(0)).norm(dim=1), atol=1e-3)
    with pytest.raises(ss.SignstepError, match="not saved"):
        hidden.save("anywhere")


def test_anything_with_a_score() -> None:
    """It needs no fitting, and calibrates on all rows; what has no score is told what to be."""
    model, clean = trained(), rows(300, seed=6)

    class Mean:
        """Anything with a score; it needs no fitting, and calibrates on all rows."""

        name = "mean"

        def score(self, x: Tensor) -> Tensor:
            """The sum of the pixels."""
            return row_sum(x)

    own = ss.detectors.fit(Mean(), model, clean)
    assert (own.fit_rows, len(own.calibration), own.name) == (0, 300, "mean")


def test_anothers_row_is_named_and_typed() -> None:
    """The table is open: a row of one's own by its module; one without its known break is refused."""
    row = ss.detectors.DETECTORS["energy"]
    with ss.detectors.DETECTORS.lent(ss.detectors.DetectorRow("warm", row.fit, row.restore, "t", "s", "b", "answers")):
        assert ss.detectors.fit("warm:temperature=2", trained(), rows(60, seed=7)).name == "warm"
    with pytest.raises(ss.SignstepError, match="no broken"):
        ss.detectors.DETECTORS.add(ss.detectors.DetectorRow("bad", row.fit, row.restore, "t", "s", "", "answers"))


@pytest.mark.parametrize(
    ("name", "clean", "said"),
    [
        ("mahalanobis", (rows(60, 8)[0], torch.zeros(60).long()), "class 1 has 0 fit rows"),
        ("neighbours:k=50", rows(60, 8), "fewer than 50"),
        ("lid", rows(10, 8), "neighbours"),
        ("image-statistics", rows(20, 8), "too few"),
        ("image-statistics", (torch.rand(99, 36), None), "no images"),
        ("squeeze", (torch.rand(99, 36), None), "median=0"),
    ],
)
def test_what_rows_cannot_carry_is_said(name: str, clean: Any, said: str) -> None:
    """One sentence with the class, the count and the remedy."""
    with pytest.raises(ss.SignstepError, match=said) as caught:
        ss.detectors.fit(name, trained(), clean)
    assert caught.value.remedy
