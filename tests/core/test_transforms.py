"""Declared transforms: what they do, that a row's draws are its own, and how success under them is judged."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from small_nets import filled, labels, mlp, rand
from torch import Tensor, nn

import signstep as ss
from signstep.engine.eot import Eot
from signstep.engine.keys import Key, RowDraws
from signstep.errors import InputError
from signstep.physical.perspective import looked_up
from signstep.physical.transforms import Perspective, pixel_grid, print_view_camera, sampled

T = ss.transforms
IMAGES = rand(6, 2, 9, 7, seed=3)
BASIC = [
    T.Noise(0.1),
    T.Brightness(0.2),
    T.Contrast(0.3),
    T.Blur(1.5),
    T.Affine(degrees=20, shift=0.2, scale=0.1),
    T.Compose((T.Affine(degrees=10), T.Noise(0.05), T.Clip())),
]
NOTHING = [T.Noise(0), T.Brightness(0), T.Contrast(0), T.Blur(0), T.Affine(), T.Compose(())]


def _draws(count: int = 6, *, first: int = 0, seed: int = 0) -> RowDraws:
    return Key(seed).draws(torch.arange(first, first + count), torch.device("cpu"))


@pytest.mark.kernels
@pytest.mark.parametrize("transform", BASIC, ids=str)
def test_a_row_gets_its_own_draws_in_any_batch(transform: T.Transform) -> None:
    whole = transform(IMAGES, _draws())
    for row in range(6):
        alone = transform(IMAGES[row : row + 1], _draws(1, first=row))
        # Blur is a matrix product, whose kernel may add up in another order for another batch.
        torch.testing.assert_close(
            alone, whole[row : row + 1], rtol=0, atol=1e-14 if isinstance(transform, T.Blur) else 0
        )
    assert not torch.equal(transform(IMAGES, _draws(seed=1)), whole)
    same = transform(IMAGES[:1].expand(6, -1, -1, -1), _draws())
    assert len(torch.unique(same.flatten(1), dim=0)) >= 4  # a blur of next to nothing leaves two rows alike
    assert whole.shape == IMAGES.shape


@pytest.mark.parametrize("transform", BASIC, ids=str)
def test_gradients_flow_to_every_row(transform: T.Transform) -> None:
    u = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(transform(u, _draws()).square().sum(), u)
    assert bool((gradient.flatten(1).abs().amax(1) > 0).all())


@pytest.mark.parametrize("transform", NOTHING, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_nothing_declared_changes_nothing(transform: T.Transform, dtype: torch.dtype) -> None:
    out = transform(IMAGES.to(dtype), _draws())
    assert out.dtype == dtype
    torch.testing.assert_close(out, IMAGES.to(dtype), rtol=0, atol=1e-12 if dtype == torch.float64 else 0.01)


def test_sizes_are_as_declared() -> None:
    many = torch.full((2000, 1, 4, 4), 0.5, dtype=torch.float64)
    draws = _draws(2000)
    noise = T.Noise(0.1)(many, draws) - many
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    light = (T.Brightness(0.2)(many, draws) - many)[:, 0]
    assert float(light.abs().max()) == pytest.approx(0.2, rel=0.01)
    assert float(light.std(1).max()) == pytest.approx(0.0, abs=1e-12)
    wide = T.Contrast(0.3)(IMAGES[:1].expand(2000, -1, -1, -1), draws)
    factors = wide.flatten(1).std(1) / IMAGES[0].std()
    assert float(factors.min()) == pytest.approx(0.7, abs=0.01)
    assert float(factors.max()) == pytest.approx(1.3, abs=0.01)
    torch.testing.assert_close(wide.flatten(1).mean(1), IMAGES[0].mean().expand(2000))


def test_blur_keeps_a_constant_and_spreads_a_point() -> None:
    flat = torch.full((6, 1, 9, 9), 0.3, dtype=torch.float64)
    torch.testing.assert_close(T.Blur(2.0)(flat, _draws()), flat, rtol=0, atol=1e-6)
    point = torch.zeros(6, 1, 9, 9, dtype=torch.float64)
    point[:, :, 4, 4] = 1
    spread = T.Blur(2.0)(point, _draws())
    assert float(spread[:, 0, 4, 4].min()) < 0.1
    assert bool((spread[:, 0, 4, 3] >= spread[:, 0, 4, 1]).all())
    assert float((spread[:, 0, 4, 3] - spread[:, 0, 4, 1]).max()) > 0.01
    torch.testing.assert_close(spread, spread.transpose(2, 3), rtol=0, atol=1e-6)


def test_the_grid_turns_moves_and_scales() -> None:
    image, zero, one = rand(1, 1, 6, 6, seed=5), torch.zeros(1), torch.ones(1)
    still = pixel_grid(image, angle=zero, size=one, down=zero, across=zero)
    torch.testing.assert_close(sampled(image, still), image, rtol=0, atol=1e-12)
    moved = sampled(image, pixel_grid(image, angle=zero, size=one, down=2 * one, across=-one))
    torch.testing.assert_close(moved[:, :, 2:, :-1], image[:, :, :-2, 1:], rtol=0, atol=1e-12)
    assert float(moved[:, :, :2].abs().max()) == pytest.approx(0.0, abs=1e-12)
    turned = sampled(image, pixel_grid(image, angle=one * torch.pi / 2, size=one, down=zero, across=zero))
    torch.testing.assert_close(turned, torch.rot90(image, 1, (2, 3)), rtol=0, atol=1e-6)
    doubled = sampled(image, pixel_grid(image, angle=zero, size=2 * one, down=zero, across=zero))
    middle = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(doubled, middle[:, :, 3:9, 3:9], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T.Noise(-1), "std=-1"),
        (lambda: T.Contrast(1.5), "below 1"),
        (lambda: T.Affine(scale=1), "scale=1"),
        (lambda: T.Blur(float("nan")), "most=nan"),
        (lambda: Eot(0), "eot=0"),
    ],
)
def test_wrong_sizes_say_what_is_right(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "one", [lambda u: u, nn.Identity(), lambda u, *, draws: u + draws], ids=["function", "module", "named"]
)
def test_a_transform_of_one_argument_is_one_sentence(one: Any) -> None:
    with pytest.raises(
        InputError, match=r"transform=.* does not take two arguments, .*; pass a function of \(u, draws\)"
    ):
        ss.attack(ss.Model(mlp(), transform=one), rand(3, 18), None, threat=ss.linf(0.1))


def test_pixels_are_needed_for_what_moves_pixels() -> None:
    for transform in (T.Blur(1.0), T.Affine(shift=0.1)):
        with pytest.raises(InputError, match=r"needs images \(R, C, H, W\)"):
            ss.attack(ss.Model(mlp(), transform=transform), rand(4, 18, seed=1), threat=ss.linf(0.1))


@dataclass
class Recording:
    """Noise that remembers under which keys it was drawn."""

    std: float = 0.05
    keys: list[tuple[str | int, ...]] = field(default_factory=list)

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        self.keys.append(draws.key.path)
        return T.Noise(self.std)(u, draws)


X = rand(20, 18, seed=1)


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=3,restarts=2", "mi-fgsm:steps=3", "vmi-fgsm:steps=3,samples=2"])
def test_the_verdict_takes_draws_that_no_search_has_used(recipe: str) -> None:
    model, recording = mlp(), Recording()
    outcome = ss.attack(
        ss.Model(model, transform=recording),
        X,
        labels(model, X),
        threat=ss.linf(0.1),
        recipe=recipe,
        search=ss.Search(eot=3),
    )
    verdict = [path for path in recording.keys if "verdict" in path and "clean" not in path]
    others = {path for path in recording.keys if "verdict" not in path}
    runs = 2 if "restarts" in recipe else 1
    assert outcome.passes == 32
    assert len(verdict) == len(set(verdict)) == 32 * runs
    assert len(others) >= 3 * (1 if recipe == "fgsm" else 3)
    assert not set(verdict) & others
    assert any("Recording" in note and "32" in note for note in outcome.notes)


class Thin(nn.Module):
    """Class 1 in a thin shell only: a point found there falls out of it under the slightest noise."""

    def forward(self, x: Tensor) -> Tensor:
        distance = (x[:, 0] - 0.6).abs()
        return torch.stack([distance * 100, torch.full_like(distance, 0.1)], 1)


def test_a_success_that_one_draw_shows_and_most_do_not_is_none() -> None:
    model = Thin()
    x, y = torch.full((8, 1), 0.55, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    bare = ss.attack(model, x, y, threat=ss.linf(0.1), recipe="pgd:steps=400,step=0.005")
    assert bool(bare.fooled.any())
    shaken = ss.attack(ss.Model(model, transform=T.Noise(0.05)), x, y, threat=ss.linf(0.1), recipe="pgd:steps=100")
    assert not bool(shaken.fooled.any())
    assert 0 <= float(shaken.rate.max()) < 0.5


def test_the_rate_is_what_fresh_draws_give() -> None:
    model = mlp(scale=3)
    y = labels(model, X)
    transform = T.Noise(0.15)
    outcome = ss.attack(
        ss.Model(model, transform=transform), X, y, threat=ss.linf(0.05), recipe="pgd:steps=5", search=ss.Search(eot=4)
    )
    assert isinstance(outcome.x, Tensor)
    fresh = [Key(99).fold(number).draws(torch.arange(20), torch.device("cpu")) for number in range(300)]
    wrong = torch.stack([labels(model, transform(outcome.x, draws)) != y for draws in fresh]).double().mean(0)
    assert abs(float((wrong - outcome.rate).mean())) < 0.05
    sure = (wrong - 0.5).abs() > 0.3
    assert torch.equal(outcome.fooled[sure], wrong[sure] > 0.5)


@pytest.mark.kernels
def test_the_batch_does_not_matter_under_a_transform() -> None:
    model, transform = mlp(), T.Compose((T.Brightness(0.1), T.Noise(0.1)))
    y = labels(model, X)
    whole = ss.attack(
        ss.Model(model, transform=transform), X, y, threat=ss.linf(0.1), recipe="pgd:steps=4", search=ss.Search(eot=2)
    )
    for rows in ([3], [7, 1], [19, 18, 17]):
        part = ss.attack(
            ss.Model(model, transform=transform),
            X[rows],
            y[rows],
            threat=ss.linf(0.1),
            recipe="pgd:steps=4",
            search=ss.Search(eot=2),
        )
        assert isinstance(part.x, Tensor)
        assert isinstance(whole.x, Tensor)
        assert torch.equal(part.x, whole.x[rows])
        assert torch.equal(part.rate, whole.rate[rows])


def test_averaging_over_draws_finds_more() -> None:
    """Under heavy noise a gradient of one draw is mostly noise; the mean over sixteen is not."""
    model, x = filled(nn.Sequential(nn.Linear(18, 32), nn.Tanh(), nn.Linear(32, 4)), scale=3), rand(60, 18, seed=2)
    y, found = labels(model, x), {}
    for eot in (1, 16):
        outcome = ss.attack(
            ss.Model(model, transform=T.Noise(0.5)),
            x,
            y,
            threat=ss.linf(0.15),
            recipe="bim:steps=6",
            search=ss.Search(eot=eot),
        )
        found[eot] = float(outcome.rate.mean())
        standing = ~outcome.fooled
        assert int(outcome.backwards[standing].max()) == 6 * eot
    assert found[16] > found[1] + 0.03


def test_averaging_over_the_passes_of_a_random_defence() -> None:
    """Athalye et al. 2018: noise inside the model hides the gradient from one pass, not from the mean over many."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = filled(nn.Sequential(nn.Linear(18, 32), nn.Tanh(), nn.Linear(32, 4)), scale=3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x + torch.randn_like(x))
            return out

    model, x = Noisy(), rand(60, 18, seed=2)
    y = labels(model.net, x)
    rates = [
        float(ss.attack(model, x, y, threat=ss.linf(0.15), recipe="bim:steps=6", search=ss.Search(eot=eot)).rate.mean())
        for eot in (1, 32)
    ]
    assert rates[1] > rates[0] + 0.03


def test_averaging_over_nothing_is_said() -> None:
    outcome = ss.attack(mlp(), X, threat=ss.linf(0.1), search=ss.Search(eot=4))
    assert any("eot=4 changes nothing" in note for note in outcome.notes)
    plain = ss.attack(mlp(), X, threat=ss.linf(0.1))
    assert isinstance(outcome.x, Tensor)
    assert isinstance(plain.x, Tensor)
    assert torch.equal(outcome.x, plain.x)


def test_eot_with_copies_and_surrogates() -> None:
    model, other = mlp(), mlp(seed=5)
    y = labels(model, X)
    outcome = ss.attack(
        ss.Model(model, transform=T.Noise(0.1)),
        X,
        y,
        threat=ss.linf(0.05),
        recipe="si-fgsm:steps=3,copies=2",
        search=ss.Search(surrogate=other, eot=4),
    )
    assert outcome.backwards.tolist() == [3 * 2 * 4] * len(X)
    assert outcome.passes == 32


def test_a_transform_speaks_raw_units() -> None:
    with pytest.raises(InputError, match="budget"):
        ss.attack(
            ss.Model(mlp(), mean=0.5, std=0.5, transform=T.Noise()),
            X,
            threat=ss.linf(0.1),
            search=ss.Search(budget="normalised"),
        )
    with pytest.raises(InputError, match="transforms"):
        ss.attack(ss.Model(mlp(), transform="noise"), X, threat=ss.linf(0.1))  # type: ignore[arg-type]


def test_a_function_is_a_transform_too() -> None:
    def dimmed(u: Tensor, draws: RowDraws) -> Tensor:
        return u * (0.5 + draws.uniform("dim", (1,)).to(u) / 2)

    outcome = ss.attack(ss.Model(mlp(), transform=dimmed), X, threat=ss.linf(0.1))
    assert outcome.passes == 32


def test_corners_come_from_where_they_were_moved_to() -> None:
    """Each corner of the image is shown at the corner of the quadrangle, and straight lines stay straight."""
    corners = torch.tensor([[[0.1, 0.05], [0.8, 0.2], [0.9, 0.95], [0.2, 0.7]]], dtype=torch.float64)
    side = 2001
    grid = (looked_up(corners, side, side)[0] + 1) / 2  # a pixel of the result to its place in the source
    for corner, source in zip(corners[0], ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)), strict=True):
        column, row = (corner * (side - 1)).round().long().tolist()
        torch.testing.assert_close(grid[row, column], torch.tensor(source, dtype=torch.float64), rtol=0, atol=1e-9)
    # The diagonals of the quadrangle cross where those of the source do: a projective map keeps lines.
    (p, q, r, t) = corners[0]
    crossing = torch.linalg.solve(torch.stack([r - p, q - t], 1), q - p)
    column, row = ((p + crossing[0] * (r - p)) * (side - 1)).round().long().tolist()
    torch.testing.assert_close(grid[row, column], torch.full((2,), 0.5, dtype=torch.float64), rtol=0, atol=2e-3)


def test_corners_that_stay_change_nothing() -> None:
    x = rand(5, 3, 16, 12, seed=1, dtype=torch.float32)
    torch.testing.assert_close(Perspective(0)(x, _draws(5)), x, rtol=0, atol=1e-6)
    one = rand(2, 1, 1, 1, seed=1)
    assert Perspective(0.2)(one, _draws(2)).shape == one.shape


@pytest.mark.kernels
def test_a_view_does_not_depend_on_the_batch() -> None:
    x = rand(7, 3, 9, 12, seed=1, dtype=torch.float32)
    whole = Perspective(0.3)(x, _draws(7))
    for row in range(7):
        assert torch.equal(Perspective(0.3)(x[row : row + 1], _draws(1, first=row)), whole[row : row + 1])


def test_a_print_before_a_camera() -> None:
    x = rand(5, 1, 16, 12, seed=1, dtype=torch.float32)
    camera = print_view_camera()
    whole = camera(x, _draws(5))
    assert whole.shape == x.shape
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    torch.testing.assert_close(camera(x[2:3], _draws(1, first=2)), whole[2:3], rtol=0, atol=1e-5)
    u = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(camera(u, _draws(5)).sum(), u)
    assert bool((gradient.flatten(1).abs().amax(1) > 0).all())
    model = filled(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), dtype=torch.float32)
    outcome = ss.attack(
        ss.Model(model, transform=camera), x, threat=ss.linf(0.1), recipe="pgd:steps=3", search=ss.Search(eot=2)
    )
    assert outcome.passes == 32


def test_global_randomness_is_left_alone() -> None:
    model = mlp()
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["pos"]
    ss.attack(
        ss.Model(model, transform=T.Noise()), X, threat=ss.linf(0.1), recipe="pgd:steps=2", search=ss.Search(eot=2)
    )
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state(legacy=False)["state"]["pos"] == before[1]


def _quantised(u: Tensor, draws: RowDraws) -> Tensor:  # noqa: ARG001
    return u + ((u * 8).round() / 8 - u).detach()


STILL = {
    "clip": T.Clip(0.2, 0.8),
    "nothing": T.Compose(()),
    "several": T.Compose((T.Clip(0.1, 0.9), T.Clip(0.2, 0.8))),
    "function": _quantised,
    "module": nn.Hardtanh(0.2, 0.8),
}


def _as_module(transform: Any) -> Any:
    return (lambda u, draws: transform(u)) if isinstance(transform, nn.Module) else transform  # noqa: ARG005


@pytest.mark.parametrize("name", STILL)
@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=3", "square:queries=20", "fab:steps=3"])
@pytest.mark.parametrize("mean", [None, 0.4])
def test_a_transform_that_draws_nothing_is_a_part_of_the_model(name: str, recipe: str, mean: float | None) -> None:
    """As many passes, and the same points, as the model with the transform before it."""
    model, transform = mlp(), _as_module(STILL[name])
    still = Key(0).draws(torch.zeros(1, dtype=torch.int64), torch.device("cpu"))
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))

    def joined(u: Tensor) -> Any:
        shown = transform(u, still)
        return model(shown if mean is None else (shown - mean) / 0.3)

    extra: dict[str, Any] = {} if mean is None else {"mean": mean, "std": 0.3}
    y = joined(X).argmax(1)
    counts = []
    outcomes = []
    for asked in (joined, ss.Model(model, transform=transform, **extra)):
        calls.clear()
        outcomes.append(ss.attack(asked, X, y, threat=ss.linf(0.1), recipe=recipe))
        counts.append(len(calls))
    wanted, found = outcomes
    assert isinstance(wanted.x, Tensor)
    assert isinstance(found.x, Tensor)
    torch.testing.assert_close(found.x, wanted.x, rtol=0, atol=1e-12)
    assert torch.equal(found.fooled, wanted.fooled)
    assert torch.equal(found.forwards, wanted.forwards)
    assert found.passes == 1
    assert counts[1] <= counts[0]
    assert any("draws nothing" in note for note in found.notes)
    assert not any("32 held-out" in note for note in found.notes)


def test_two_passes_are_enough_under_a_transform_that_draws_nothing() -> None:
    outcome = ss.attack(ss.Model(mlp(), transform=T.Clip()), X, threat=ss.linf(0.1))
    assert set(outcome.forwards.tolist()) == {2}
    assert set(outcome.backwards.tolist()) == {1}
    averaged = ss.attack(ss.Model(mlp(), transform=T.Clip()), X, threat=ss.linf(0.1), search=ss.Search(eot=3))
    assert any("eot=3 changes nothing" in note for note in averaged.notes)


@dataclass
class Own:
    """Random without asking for draws: by a global generator, one of its own, or the key itself."""

    source: str
    own: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(3))

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        if self.source == "global":
            return u + 0.1 * torch.randn_like(u)
        if self.source == "own":
            return u + 0.1 * torch.randn(u.shape, generator=self.own, dtype=u.dtype)
        return u + (draws.key.integer() % 100) / 1000


@pytest.mark.parametrize("source", ["global", "own", "key"])
def test_a_transform_that_draws_otherwise_is_random_too(source: str) -> None:
    outcome = ss.attack(ss.Model(mlp(), transform=Own(source)), X, threat=ss.linf(0.1))
    assert outcome.passes == 32


@pytest.mark.parametrize("transform", [T.Clip(0.2, 0.8), T.Noise(0.1)], ids=str)
def test_an_audit_says_once_what_is_random(transform: T.Transform) -> None:
    """Also in its second batch: the transform, not the model."""
    model = mlp()
    y = labels(model, X)
    result = ss.audit(
        ss.Model(model, transform=transform),
        [(X[:11], y[:11]), (X[11:], y[11:])],
        threat=ss.linf(0.1),
        attacks=["fgsm"],
    )
    assert sum("transform" in note for note in result.notes) == 1
    assert not any("the model draws" in note for note in result.notes)
    assert result.terms["random_model"] == isinstance(transform, T.Noise)
