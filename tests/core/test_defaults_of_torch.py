"""torch's defaults belong to the user: what the library allocates names its own dtype and device.

Under ``torch.set_default_dtype`` every recipe returns the same points to the bit, and under
``torch.set_default_device`` too: "meta", which holds no numbers, stands in for a card, so that whatever was left to the
default cannot go on unseen. The models are made before, as the user's are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from small_nets import fits, mlp, rand, short
from torch import Tensor

import signstep as ss
from flat import flat
from written_down import written_down

X = rand(6, 3, 8, 8, seed=1, dtype=torch.float32)
NET = mlp(features=192, classes=5, dtype=torch.float32)
with torch.no_grad():
    Y = NET(X).argmax(1)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def _both() -> Iterator[None]:
    with default_dtype(torch.bfloat16), default_device("meta"):
        yield


SETTINGS: dict[str, Callable[[], Any]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16 on a card": _both,
}


def _equal(one: object, other: object) -> bool:
    """The same values in the same dtypes, bit for bit, in whatever they are packed."""
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor)
        assert other.device.type == "cpu"
        assert one.dtype == other.dtype
        return (
            bool(((one == other) | (one.isnan() & other.isnan())).all())
            if one.is_floating_point()
            else one.equal(other)
        )
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        assert isinstance(other, (list, tuple))
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def _alike(run: Callable[[], object], *settings: str) -> None:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        expected = run()
    for name in settings or SETTINGS:
        with SETTINGS[name](), torch.random.fork_rng():
            torch.default_generator.manual_seed(3)
            seen = run()
        assert _equal(expected, seen), name


def _read(outcome: ss.Outcome) -> tuple[object, ...]:
    return (
        outcome.x, outcome.fooled, outcome.loss, outcome.distance, outcome.near, outcome.rate, outcome.forwards,
        outcome.undetermined, tuple(outcome.health), outcome.notes,
    )  # fmt: skip


PAIRS = [
    (name, norm)
    for name, row in ss.RECIPES.items()
    for norm in ("linf", "l2", "l1", "l0", "pixel")
    if fits(row, norm) and (norm == "linf" or not fits(row, "linf") or name in ("pgd", "apgd", "fab", "square"))
]
CAMERA = ss.transforms.Compose(
    (ss.transforms.Affine(9, 0.1, 0.1), ss.transforms.Noise(0.02), ss.transforms.Blur(), ss.transforms.Contrast(0.1))
)
SIZES = {"linf": 0.03, "l2": 0.4, "l1": 2.0, "pixel": 0.1, "l0": 4.0}


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_every_recipe(name: str, norm: str) -> None:
    threat = ss.threat_model(norm, written_down(SIZES, norm, "the size of a change in the norm"), box=(0, 1))
    _alike(lambda: _read(ss.attack(NET, X, Y, threat=threat, recipe=short(ss.RECIPES[name], 2))))


@pytest.mark.parametrize(
    "options",
    [
        {"target": "random"},
        {"loss": "dlr", "recipe": "apgd-t:steps=2"},
        {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3)},
        {"mean": 0.5, "std": 0.25, "inputs": "normalised"},
        {
            "transform": CAMERA,
            "eot": 2,
        },
        {"engine": "fast"},
        {"surrogate": NET},
        {"recipe": "pgd:steps=2,restarts=2"},
        {"recipe": "smooth-pgd:steps=2"},
    ],
    ids=str,
)
def test_every_way_to_ask(options: dict[str, Any]) -> None:
    x = (X - 0.5) / 0.25 if options.get("inputs") == "normalised" else X
    with torch.no_grad():
        y = NET(x).argmax(1) if "inputs" in options else Y
    model, rest = flat(NET, options)
    _alike(lambda: _read(ss.attack(model, x, y, threat=ss.linf("8/255"), **rest)))


@pytest.mark.parametrize(
    "y", [Y.tolist(), Y.numpy(), Y.float().tolist(), None], ids=["list", "numpy", "floats", "none"]
)
def test_labels_and_sizes_as_users_write_them(y: Any) -> None:
    _alike(lambda: _read(ss.attack(NET, X, y, threat=ss.linf(torch.full((6,), 0.03)), recipe="pgd:steps=2")), "float64")
    eps = torch.full((6,), 0.03, dtype=torch.float32)
    _alike(lambda: _read(ss.attack(NET, X, y, threat=ss.linf(eps), recipe="pgd:steps=2")))


@pytest.mark.parametrize(
    "setting", [lambda: default_dtype(torch.float16), lambda: default_device("meta"), lambda: torch.device("meta")]
)
def test_each_setting_by_itself(setting: Callable[[], Any]) -> None:
    def run() -> tuple[object, ...]:
        return _read(ss.attack(NET, X, Y, threat=ss.linf(0.03), recipe="pgd:steps=2,restarts=2"))

    expected = run()
    with setting():
        seen = run()
    assert _equal(expected, seen)
