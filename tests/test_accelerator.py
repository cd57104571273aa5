"""The same questions on a GPU: the same answers, everything stays there, and nothing is left changed.

Runs where torch finds an accelerator; SIGNSTEP_TEST_DEVICE names another device, such as cpu.
"""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.cli import main
from signstep.data.digits import digits
from signstep.engine.threat import parse_threat
from signstep.errors import ModelError
from signstep.networks.small import digits_cnn
from signstep.train import TRAINING_RECIPES, Memory, Settings, Trained, fit
from signstep.train.async_copies import item_later, sent

X, Y = (part[:60] for part in digits("test"))
TRAIN_X, TRAIN_Y = (part[:300] for part in digits("train"))
THREAT = ss.linf(0.1)


def _found() -> torch.device | None:
    near = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    name = os.environ.get("SIGNSTEP_TEST_DEVICE", near)
    return None if name is None else torch.empty(0, device=name).device  # with its number


DEVICE = _found()
pytestmark = pytest.mark.skipif(DEVICE is None, reason="torch finds no accelerator here")


@pytest.fixture(scope="module")
def device() -> torch.device:
    assert DEVICE is not None
    return DEVICE


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """In float64, so that both devices see the same signs; not on MPS, which has none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = digits_cnn()
        fit(model, TRAIN_X, TRAIN_Y, threat=THREAT, settings=Settings(epochs=8, batch=50))
    return model if DEVICE is not None and DEVICE.type == "mps" else model.double()


def _of(net: nn.Module, x: Tensor = X) -> Tensor:
    return x.to(next(net.parameters()).dtype)


THREATS = ["linf:0.1", "l2:0.8", "l1:4"]
DEFINED = [
    (name, threat)
    for name, row in ss.RECIPES.items()
    for threat in THREATS
    if not row.norms or threat.partition(":")[0] in row.norms
]


@pytest.mark.parametrize(("recipe", "threat"), DEFINED)
def test_an_attack_finds_the_same(recipe: str, threat: str, net: nn.Module, device: torch.device) -> None:
    x, chosen = _of(net)[:24], parse_threat(threat)
    here = ss.attack(net, x, Y[:24], threat=chosen, recipe=recipe)
    there = ss.attack(copy.deepcopy(net).to(device), x.to(device), Y[:24].to(device), threat=chosen, recipe=recipe)
    assert isinstance(here.x, Tensor)
    assert isinstance(there.x, Tensor)
    assert there.x.device == there.fooled.device == device
    assert int((there.fooled.cpu() != here.fooled).sum()) <= 1
    near = (there.x.cpu() - here.x).abs().flatten(1).amax(1) < 1e-4
    # Long searches at random amplify the last bit; most rows must agree all the same.
    assert int(near.sum()) >= (24 if recipe in ("fgsm", "fgsm-rs", "random-sign", "bim", "pgd") else 12)


@pytest.mark.parametrize("engine", ["exact", "fast"])
def test_an_audit_counts_the_same(engine: Any, net: nn.Module, device: torch.device) -> None:
    here = ss.audit(net, (_of(net), Y), threat=THREAT, ladder="standard@1", engine=engine)
    moved = copy.deepcopy(net).to(device)
    there = ss.audit(moved, (_of(net), Y), threat=THREAT, ladder="standard@1", engine=engine, run=ss.Run(device=device))
    assert there.clean_right == here.clean_right
    assert abs(there.held - here.held) <= 1
    assert next(moved.parameters()).device == device


def test_an_audit_of_tensors_takes_what_has_room(net: nn.Module, device: torch.device) -> None:
    seen: list[int] = []
    moved = copy.deepcopy(net).to(device)
    moved.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    x, y = _of(net).repeat(10, 1, 1, 1), Y.repeat(10)
    assert ss.audit(moved, (x, y), threat=THREAT, attacks=["fgsm"], curve=False).examples == 600
    assert max(seen) == 256
    seen.clear()
    x, y = x.repeat(4, 1, 1, 1), y.repeat(4)
    assert ss.audit(moved, (x, y), threat=THREAT, attacks=["fgsm"], curve=False).examples == 2400
    assert max(seen) == (600 if device.type == "cuda" else 256)


def test_other_questions_get_the_same_answers(net: nn.Module, device: torch.device) -> None:
    moved = copy.deepcopy(net).to(device)
    x, there = _of(net), (_of(net).to(device), Y.to(device))
    assert torch.equal(
        ss.certified(net, x, Y, threat=ss.linf(0.02)), ss.certified(moved, *there, threat=ss.linf(0.02)).cpu()
    )
    one, other = (ss.universal(model, (x, Y), threat=THREAT, epochs=5) for model in (net, moved))
    stuck, patched = (ss.patch(model, (x, Y), size=3, steps=10) for model in (net, moved))
    assert (one.control, stuck.grey) == (other.control, patched.grey)
    for here, moved_there in ((one.train, other.train), (stuck.train, patched.train)):
        assert abs(here.hits - moved_there.hits) <= 2
    cells = [ss.transfer({"a": model}, {"b": model}, (x, Y), threat=THREAT).cells for model in (net, moved)]
    assert cells[0] == cells[1]

    def total(points: Tensor) -> Tensor:
        return points.flatten(1).sum(1)

    values = [ss.maximise(total, part, THREAT).after.cpu() for part in (x, there[0])]
    assert torch.allclose(values[0], values[1])


def test_inputs_on_another_device_are_refused_in_one_sentence(net: nn.Module, device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("there is one device")
    with pytest.raises(ModelError, match="x is on cpu, the model on"):
        ss.attack(copy.deepcopy(net).to(device), _of(net), Y, threat=THREAT)


def test_random_states_stay_what_they_were(net: nn.Module, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("the state of CUDA's generator")
    moved, before = copy.deepcopy(net).to(device), torch.cuda.get_rng_state(device)
    ss.attack(
        ss.Model(nn.Sequential(nn.Dropout(0.2), moved), mode="keep"), _of(net).to(device), Y.to(device), threat=THREAT
    )
    fit(digits_cnn().to(device), TRAIN_X, TRAIN_Y, threat=THREAT, settings=Settings(epochs=1, crop=1))
    assert torch.equal(torch.cuda.get_rng_state(device), before)


@pytest.mark.parametrize("recipe", list(TRAINING_RECIPES))
def test_a_recipe_trains(recipe: str, device: torch.device) -> None:
    settings = Settings(
        epochs=16, batch=30, average=0.8, crop=1, flip=True, smoothing=0.1, channels_last=True, rate=0.01, warm_up=0.5
    )
    runs = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = digits_cnn().to(device)
        trained = fit(model, TRAIN_X, TRAIN_Y, threat=ss.linf(0.02), recipe=recipe, settings=settings)
        assert trained.steps == trained.total
        assert {part.device for part in model.parameters()} == {device}
        runs.append(model)
    with torch.no_grad():
        answers = [model(X.to(device)).cpu().argmax(1) for model in runs]
    right = [int((answer == Y).sum()) for answer in answers]
    assert min(right) > (20 if recipe == "ibp" else 30), right
    # Cards add in any order, so that two runs agree about, not to the bit.
    assert int((answers[0] == answers[1]).sum()) > 45


@pytest.mark.parametrize("recipe", list(TRAINING_RECIPES))
def test_a_loss_is_where_the_model_is(recipe: str, device: torch.device) -> None:
    model = digits_cnn().to(device)
    memory, ids = Memory(), torch.arange(20, device=device)
    x, y = X[:20].to(device), Y[:20].to(device)
    for _ in range(2):
        loss = ss.adversarial_loss(model, x, y, recipe, threat=THREAT, memory=memory, ids=ids)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.device == device
        assert bool(torch.isfinite(loss))


@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
@pytest.mark.parametrize("recipe", ["n-fgsm", "fgsm-pgi", "trades:steps=2", "mtl-ibp"])
def test_half_precision_learns(recipe: str, autocast: str, device: torch.device) -> None:
    torch.manual_seed(0)
    model = digits_cnn().to(device)
    settings = Settings(epochs=10, batch=50, autocast=autocast, channels_last=True, rate=0.01)
    trained = fit(model, TRAIN_X, TRAIN_Y, threat=ss.linf(0.02), recipe=recipe, settings=settings)
    assert trained.readings[-1].share(trained.readings[-1].clean) > 0.6


def test_compiled_steps_learn(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("the compiler that this asks for is CUDA's")
    model = digits_cnn().to(device)
    settings = Settings(epochs=10, batch=50, autocast="bfloat16", channels_last=True, rate=0.01, compile=True)
    trained = fit(model, TRAIN_X, TRAIN_Y, threat=ss.linf(0.05), recipe="pgd-at:steps=2", settings=settings)
    assert trained.notes == ()
    assert trained.readings[-1].share(trained.readings[-1].clean) > 0.6


def test_numbers_arrive_and_are_sent(device: torch.device) -> None:
    large = torch.rand(2000, 2000, device=device)
    waiting = []
    for number in range(20):
        large = (large @ large).clamp(0, 1)  # something to do before the number is there
        waiting.append((item_later(large.amax() + number), number + 1))
    assert [read() for read, _ in waiting] == [float(number) for _, number in waiting]
    for part in (torch.arange(5), torch.rand(3, 4)):
        assert torch.equal(sent(part, device).cpu(), part)
        assert sent(part, device).device == device


def test_a_run_goes_on_from_its_folder_also_elsewhere(device: torch.device, tmp_path: Path) -> None:
    settings = Settings(epochs=4, batch=50, average=0.9, autocast="bfloat16")

    def run(place: torch.device, steps: int) -> Trained:
        """So many steps more, or to the end."""
        left = iter(range(1, steps))
        return fit(
            digits_cnn().to(place),
            TRAIN_X,
            TRAIN_Y,
            threat=THREAT,
            recipe="fgsm-pgi",
            settings=settings,
            folder=tmp_path,
            watch=lambda _: next(left, None) is None,
        )

    begun, elsewhere, back = run(device, 10), run(torch.device("cpu"), 3), run(device, 1000)
    assert (begun.steps, elsewhere.steps) == (10, 13)
    assert [record.notes[:1] for record in (elsewhere, back)] == [("went on from step 10",), ("went on from step 13",)]
    assert back.steps == back.total


def test_rows_may_lie_anywhere(device: torch.device) -> None:
    images = (TRAIN_X * 255).round().to(torch.uint8).numpy()
    settings = Settings(epochs=1, batch=50)
    fit(digits_cnn().to(device), images, TRAIN_Y, threat=THREAT, settings=settings)
    fit(digits_cnn().to(device), torch.utils.data.TensorDataset(TRAIN_X, TRAIN_Y), threat=THREAT, settings=settings)
    fit(digits_cnn().to(device), TRAIN_X.to(device), TRAIN_Y.to(device), threat=THREAT, settings=settings)


@pytest.mark.parametrize(
    "words",
    [
        ["attack", "--recipe", "pgd"],
        ["audit", "--ladder", "quick@1", "--limit", "60"],
        ["train", "--epochs", "2", "--limit", "200", "--audit-limit", "40", "--autocast", "bfloat16"],
    ],
)
def test_commands_take_the_device(
    words: list[str], device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--device", str(device)]) == 0
