"""Code of others that would end the process ends as a failure, wherever it is called; an interrupt stays itself."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import signstep as ss
from flat import flat
from signstep.cli import main
from signstep.engine.tasks import Custom
from signstep.errors import SignstepError
from signstep.model.victims import from_numpy
from signstep.testing import assert_robust
from signstep.train import fit

Raised = Callable[[], Any]
X = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3
BALL = ss.linf(0.1)


def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(4, 3).eval()


def _audit(model: Any = None, data: Any = None, **options: Any) -> Any:
    declared, chosen = flat(model or _net(), {"attacks": ("fgsm",), "curve": False, **options})
    return ss.audit(declared, data or (X, Y), threat=BALL, **chosen)


class _Late:
    """An iterable that raises when it is asked for the second batch."""

    def __init__(self, leave: Raised) -> None:
        self.leave = leave

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield X, Y
        self.leave()


class _Rows(Dataset[Any]):
    def __init__(self, leave: Raised) -> None:
        self.leave = leave

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> Any:
        return self.leave() if row == 5 else (X[row], int(Y[row]))


class _Model(nn.Module):
    def __init__(self, leave: Raised, *, backward: bool = False) -> None:
        super().__init__()
        self.head, self.leave, self.late = _net(), leave, backward

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(x)
        if not self.late:
            self.leave()
        elif z.requires_grad:
            z.register_hook(lambda _: self.leave())  # type: ignore[no-untyped-call]
        return z


class _Attack:
    """Somebody's own attack."""

    name, steps, needs, source = "mine", 1, "gradients", ""

    def __init__(self, leave: Raised) -> None:
        self.leave = leave

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self.leave()


class _Array:
    """Something that reads like an array."""

    def __init__(self, leave: Raised) -> None:
        self.leave = leave
        self.shape, self.dtype, self.ndim = (8, 4), np.dtype("f4"), 2

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.leave()


def _wrong(z: Tensor, y: Tensor | None) -> Tensor:
    assert y is not None
    return z.argmax(1).ne(y)


def _transform(leave: Raised) -> Callable[..., Any]:
    return lambda u, draws: leave()  # noqa: ARG005


def _calls(leave: Raised) -> Callable[..., Any]:
    return lambda *_, **__: leave()


SEAMS: dict[str, Callable[[Raised], Any]] = {
    "forward": lambda leave: _audit(_Model(leave)),
    "forward of attack": lambda leave: ss.attack(_Model(leave), X, Y, threat=BALL),
    "forward of fgsm": lambda leave: ss.fgsm(_Model(leave), X, Y, eps=0.1),
    "backward": lambda leave: _audit(_Model(leave, backward=True)),
    "a function": lambda leave: ss.attack(_calls(leave), X, Y, threat=BALL),
    "a function on arrays": lambda leave: _audit(from_numpy(_calls(leave)), attacks=("square:queries=5",)),
    "a loader": lambda leave: _audit(data=_Late(leave)),
    "a Dataset": lambda leave: _audit(data=_Rows(leave)),
    "a DataLoader": lambda leave: _audit(data=DataLoader(_Rows(leave), 3)),
    "a collate_fn": lambda leave: _audit(data=DataLoader(_Rows(lambda: (X[5], 0)), 3, collate_fn=_calls(leave))),
    "an array": lambda leave: ss.attack(_net(), _Array(leave), Y, threat=BALL),
    "transform=": lambda leave: _audit(transform=_transform(leave)),
    "output=": lambda leave: _audit(output=_calls(leave)),
    "a loss": lambda leave: _audit(task=Custom(_calls(leave), _wrong)),
    "a success rule": lambda leave: _audit(task=Custom(lambda z, _: z.sum(1), _calls(leave))),
    "progress=": lambda leave: _audit(progress=_calls(leave)),
    "an attack": lambda leave: _audit(attacks=(_Attack(leave),)),
    "a bpda forward": lambda leave: _audit(nn.Sequential(ss.bpda(_calls(leave)), _net())),
    "a bpda backward": lambda leave: _audit(nn.Sequential(ss.bpda(lambda x: x, _calls(leave)), _net())),
    "a model that points are shown to": lambda leave: _audit(transfer_to={"b": _Model(leave)}),
    "a surrogate": lambda leave: _audit(surrogate=_Model(leave)),
    "the plugin": lambda leave: assert_robust(_net(), _Late(leave), threat=BALL, at_least=0.0),
    "transfer": lambda leave: ss.transfer({"a": _net()}, {"b": _Model(leave)}, (X, Y), threat=BALL),
    "transfer's data": lambda leave: ss.transfer({"a": _net()}, {"b": _net()}, _Late(leave), threat=BALL),
    "maximise": lambda leave: ss.maximise(_calls(leave), X, threat=BALL),
    "universal": lambda leave: ss.universal(_net(), _Late(leave), threat=BALL, epochs=1),
    "patch": lambda leave: ss.patch(
        nn.Sequential(nn.Flatten(), _Model(leave)), (torch.rand(4, 1, 2, 2), Y[:4]), size=1, steps=1
    ),
    "certified": lambda leave: ss.certified(_Model(leave), X, Y, threat=BALL),
    "adversarial_loss": lambda leave: ss.adversarial_loss(_Model(leave), X, Y, threat=BALL),
    "a criterion": lambda leave: ss.adversarial_loss(_net(), X, Y, threat=BALL, criterion=_calls(leave)),
    "watch=": lambda leave: fit(_net(), X, Y, threat=BALL, watch=_calls(leave)),
    "training rows": lambda leave: fit(_net(), _Rows(leave), threat=BALL),
}


def _exit_well() -> Any:
    raise SystemExit(0)


class _Own(BaseException):
    """What only its owner knows."""


def _own() -> Any:
    raise _Own("mine")


def _command_ends() -> Any:
    """As a command of typer ends: an ``Exception``, and its status is 0."""
    raise typer.Exit


@pytest.mark.parametrize("leave", [_exit_well, sys.exit, _own, _command_ends])
@pytest.mark.parametrize("seam", SEAMS)
def test_what_would_end_the_process_is_a_failure(seam: str, leave: Raised) -> None:
    with pytest.raises(SignstepError) as caught:
        SEAMS[seam](leave)
    assert "\n" not in str(caught.value)
    if leave is not _command_ends:
        assert "SystemExit" in str(caught.value) or "_Own" in str(caught.value)


def _interrupt() -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("seam", SEAMS)
def test_an_interrupt_stays_itself(seam: str) -> None:
    try:
        result = SEAMS[seam](_interrupt)
    except KeyboardInterrupt:
        return
    except AssertionError as error:
        if "the audit was interrupted" not in str(error):
            raise
        return
    assert result is None or result.partial  # after the first batch


MODULE = """
import sys, torch
from torch import nn
{early}
def net():
    {factory}
    return Net()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
    def forward(self, x):
        {forward}
        return self.head(x.flatten(1))
    def state_dict(self, *a, **k):
        {state}
        return super().state_dict(*a, **k)
    def to(self, *a, **k):
        {move}
        return super().to(*a, **k)
    def eval(self):
        {mode}
        return super().eval()
"""
PLACES = ("early", "factory", "forward", "state", "move", "mode")
LINEAR = ["--model", "torch.nn:Linear", "--model-arg", "in_features=4", "--model-arg", "out_features=2"]
COMMANDS: dict[str, list[str]] = {
    "audit": ["audit", "--model", "{m}:net"],
    "attack": ["attack", "--model", "{m}:net", "--format", "npz"],
    "transfer": ["transfer", "--surrogate", "a={m}:net", "--victim", "b={m}:net"],
    "compare": ["compare", "--model", "a={m}:net", "--model", "b={m}:net", "--ladder", "quick@1"],
    "transfer-to": ["audit", *LINEAR, "--transfer-to", "b={m}:net"],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_ends_well_when_its_model_leaves(
    command: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"leaves_{command.replace('-', '_')}_{place}"
    parts = {part: "pass" if part != place else "sys.exit(0)" for part in PLACES}
    Path(f"{name}.py").write_text(MODULE.format(**parts))
    np.savez("data.npz", x=X.numpy(), y=Y.numpy() % 2)
    words = [word.format(m=name) for word in COMMANDS[command]]
    status = main([*words, "--data", "data.npz", "--threat", "linf:0.1", "--out", "out"])
    sys.modules.pop(name, None)
    err = capsys.readouterr().err
    assert status in (2, 3)
    assert "SystemExit" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("place", PLACES)
def test_a_model_that_ends_as_a_command_does_is_no_success(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"ends_{place}"
    parts = {part: "pass" if part != place else "import typer; raise typer.Exit" for part in PLACES}
    Path(f"{name}.py").write_text(MODULE.format(**parts))
    np.savez("data.npz", x=X.numpy(), y=Y.numpy() % 2)
    words = ["audit", "--model", f"{name}:net", "--data", "data.npz", "--threat", "linf:0.1", "--out", "out"]
    status = main([*words, "--fail-under", "0"])
    sys.modules.pop(name, None)
    assert status in (2, 3), capsys.readouterr().err
    assert not list(tmp_path.rglob("result.json"))


def test_the_process_itself_ends_with_a_status_that_no_gate_passes(tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text(
        MODULE.format(**{part: "pass" for part in PLACES if part != "forward"}, forward="sys.exit()")
    )
    np.savez(tmp_path / "data.npz", x=X.numpy(), y=Y.numpy() % 2)
    words = ["audit", "--model", "leaving:net", "--data", "data.npz", "--threat", "linf:0.1", "--fail-under", "0"]
    ended = subprocess.run(
        [sys.executable, "-m", "signstep.cli", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode in (2, 3)
    assert "SystemExit" in ended.stderr


@pytest.mark.parametrize("leave", [_exit_well, _own])
def test_a_training_recipe_of_rows_that_leave_keeps_the_random_state(leave: Raised) -> None:
    before = torch.get_rng_state()
    with pytest.raises(SignstepError):
        fit(_net(), _Rows(leave), threat=BALL)
    assert torch.equal(torch.get_rng_state(), before)
