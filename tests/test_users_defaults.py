"""torch's defaults belong to the user, also above the attacks: audits, certificates, training, domains, command line.

The laws of `tests/core/test_defaults_of_torch.py` over all that stands on the core.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import signstep as ss
from flat import flat
from signstep.cli import main
from signstep.demo import demo
from signstep.domains.control.controller import controller_for, trained_controller
from signstep.domains.control.plants import PLANTS
from signstep.domains.control.starts import starts
from signstep.train import TRAINING_RECIPES, Settings, fit
from written_down import written_down

X = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5)).eval()


NET, OTHER = _net(), _net()
with torch.no_grad():
    for weight in OTHER.parameters():
        weight.mul_(1.1)
    Y = NET(X).argmax(1)
THREAT = ss.linf("8/255")


@contextmanager
def _defaults(dtype: torch.dtype, device: str | None) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


SETTINGS = {"float64": (torch.float64, None), "a card": (torch.bfloat16, "meta")}
under_settings = pytest.mark.parametrize("setting", list(SETTINGS))


def _plain(found: object) -> object:
    """Without times; tensors as dtypes and numbers."""
    if isinstance(found, Tensor):
        return found.dtype, found.device.type, found.tolist()
    if isinstance(found, dict):
        return {name: _plain(part) for name, part in found.items() if name not in ("seconds", "environment")}
    return [_plain(part) for part in found] if isinstance(found, (list, tuple)) else found


def _audited(**options: Any) -> object:
    source = options.pop("data", (X, Y))
    model, chosen = flat(NET, options)
    result = ss.audit(model, source, threat=THREAT, **chosen)
    return result.per_example, [(one.name, one.fooled, one.distance) for one in result.attacks], result.curves


class Rows(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return X[index], int(Y[index])


def _energy(u: Tensor) -> Tensor:
    return (u - 0.4).square().flatten(1).sum(1)


def _patched() -> object:
    found = ss.patch(NET, (X, Y), size=3, steps=2, holdout=0.5, draws=2)
    return found.values, str(found)


RUNS: dict[str, Callable[[], object]] = {
    "audit": lambda: _audited(attacks=["fgsm", "pgd:steps=2", "fab:steps=2"]),
    "audit of a dataset": lambda: _audited(attacks=["fgsm"], data=TensorDataset(X, Y)),
    "audit of a dataset of whole numbers": lambda: _audited(attacks=["fgsm"], data=Rows()),
    "quick": lambda: _audited(ladder="quick"),
    "standard": lambda: _audited(ladder="standard", data=(X[:4], Y[:4])),
    "autoattack, few": lambda: _audited(
        ladder=["apgd:loss=ce,steps=3", "apgd:loss=dlr,targets=9,steps=2", "fab:targets=9,steps=2", "square:queries=20"]
    ),
    "certified": lambda: ss.certified(NET, X, Y, threat=ss.linf(1e-3)),
    "fgsm": lambda: ss.fgsm(NET, X, Y, eps=0.03),
    "maximise": lambda: ss.maximise(_energy, X, ss.linf(0.1), level=3.0, recipe="pgd:steps=3").x,
    "maximise, a level each": lambda: ss.maximise(_energy, X, ss.linf(0.1), level=Y.float(), recipe="pgd:steps=3").x,
    "transfer": lambda: str(ss.transfer({"a": NET, "b": OTHER}, {"c": OTHER}, (X, Y), threat=THREAT)),
    "universal": lambda: ss.universal(NET, (X, Y), threat=THREAT, epochs=2).delta,
    "patch": _patched,
    "regression": lambda: (
        ss.attack(ss.Model(_energy, task=ss.Regression(0.1)), X, _energy(X), threat=THREAT, recipe="pgd:steps=2").x
    ),
}


@under_settings
@pytest.mark.parametrize("run", list(RUNS))
def test_audits_and_searches(run: str, setting: str) -> None:
    expected = RUNS[run]()
    with _defaults(*SETTINGS[setting]):
        seen = RUNS[run]()
    assert _plain(expected) == _plain(seen)


@pytest.mark.parametrize("recipe", list(TRAINING_RECIPES))
def test_training(recipe: str) -> None:
    def trained() -> object:
        knobs = Settings(epochs=1, batch=6, average=0.9, crop=1, flip=True, warm_up=0.2, smoothing=0.1, validation=0.25)
        fit(net, X, Y, threat=THREAT, recipe=recipe, settings=knobs)
        return dict(net.state_dict())

    net = _net()
    expected = trained()
    net = _net()
    with _defaults(*SETTINGS["a card"]):
        seen = trained()
    assert _plain(expected) == _plain(seen)


COMMANDS = {
    "demo": ["audit", "--limit", "8", "--attack", "fgsm"],
    "tabular": ["audit", "--domain", "tabular", "--limit", "2", "--attack", "fgsm"],
    "atoms": ["audit", "--domain", "atoms", "--limit", "1", "--attack", "random-sign"],
    "multimodal": ["audit", "--domain", "multimodal", "--limit", "1"],
}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_command_line_and_the_domains(command: str, tmp_path: Path) -> None:
    """A model's file may set defaults when it is imported."""
    from signstep.auditing.result import Result

    options = written_down(COMMANDS, command, "the options of the command")

    def ran(name: str) -> object:
        with redirect_stdout(StringIO()):
            assert main([*options, "--out", str(tmp_path / name)]) == 0
        result = Result.load(tmp_path / name / "result.json")
        return result.per_example, result.sections

    expected = ran("plain")
    with _defaults(*SETTINGS["a card"]):
        seen = ran("card")
    assert expected == seen


@under_settings
def test_the_networks_of_the_control_domain(setting: str) -> None:
    def made() -> object:
        plant = PLANTS["pendulum"]()
        return (
            dict(controller_for(plant).state_dict()),
            dict(trained_controller(plant, steps=3).state_dict()),
            starts(plant, 3),
            plant.step(starts(plant, 3), torch.full((3,), 0.5, dtype=torch.float32, device="cpu")),
        )

    expected = made()
    with _defaults(*SETTINGS[setting]):
        seen = made()
    assert _plain(expected) == _plain(seen)


def test_the_demo_is_trained_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from signstep import demo as module

    monkeypatch.setattr(module, "_RECIPE", replace(module._RECIPE, epochs=1))
    states = []
    for number, setting in enumerate([(torch.float32, None), *SETTINGS.values()]):
        monkeypatch.setenv("SIGNSTEP_CACHE", str(tmp_path / str(number)))
        with _defaults(*setting):
            shown = demo()
        states.append(_plain(dict(shown.model.state_dict())))
    assert all(state == states[0] for state in states[1:])
