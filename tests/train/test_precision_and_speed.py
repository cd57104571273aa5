"""Half precision, compiled steps and declared normalisation change how a step is computed, not what it means."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.data.digits import digits
from signstep.errors import InputError
from signstep.networks.parts import bounded
from signstep.train import Settings, Trained, fit
from signstep.train.averaging import Average
from signstep.train.deployed import Deployed
from signstep.train.recipes import TRAINING_RECIPES, training_recipe
from signstep.train.run import Run

THREAT, QUICK = ss.linf(0.1), Settings(epochs=2, batch=64, check_every=3)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x, y = digits("train")
    return x[:150], y[:150]


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10))


def run(
    data: tuple[Tensor, Tensor], settings: Settings, recipe: str = "n-fgsm", *, norm: bool = False
) -> tuple[Tensor, Trained]:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), network()) if norm else network()
    trained = fit(model, *data, threat=THREAT, recipe=recipe, settings=settings)
    return torch.cat([part.detach().flatten().float() for part in model.state_dict().values()]), trained


@pytest.mark.parametrize("recipe", list(TRAINING_RECIPES))
def test_float16_comes_near_float32(recipe: str, data: tuple[Tensor, Tensor]) -> None:
    settings = replace(QUICK, optimiser="sgd", rate=0.05, epochs=4)
    full, _ = run(data, settings, recipe)
    half, trained = run(data, replace(settings, autocast="float16"), recipe)
    assert bool(torch.isfinite(half).all())
    assert trained.steps == trained.total
    moved = (full - torch.cat([part.detach().flatten() for part in network().parameters()])).norm()
    assert float((half - full).norm()) < 0.35 * float(moved)


def test_the_scale_of_the_loss_is_part_of_a_checkpoint(data: tuple[Tensor, Tensor]) -> None:
    runs = [
        Run(network(), *data, THREAT, training_recipe("fgsm-rs"), replace(QUICK, autocast="float16")) for _ in range(2)
    ]
    assert runs[0].scaler is not None
    assert runs[1].scaler is not None
    runs[0].advance()
    runs[0].scaler.update(8.0)
    runs[1].load(runs[0].state())
    assert runs[1].scaler.get_scale() == runs[0].scaler.get_scale() == 8.0
    assert runs[0].advance() == runs[1].advance()
    plain = Run(network(), *data, THREAT, training_recipe("fgsm-rs"), QUICK)
    assert plain.scaler is None


def test_an_overflow_skips_the_step_and_lowers_the_scale(data: tuple[Tensor, Tensor]) -> None:
    training = Run(network(), *data, THREAT, training_recipe("natural"), replace(QUICK, autocast="float16"))
    assert training.scaler is not None
    training.advance()
    training.scaler.update(1e38)
    before = [part.detach().clone() for part in training.model.parameters()]
    training.advance()
    assert all(torch.equal(*pair) for pair in zip(before, training.model.parameters(), strict=True))
    assert training.scaler.get_scale() < 1e38


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_steps_give_the_same_weights(backend: str, data: tuple[Tensor, Tensor]) -> None:
    plain, _ = run(data, QUICK, "fgsm-rs")
    fast, trained = run(data, replace(QUICK, compile=backend), "fgsm-rs")
    assert trained.notes == ()
    assert torch.allclose(fast, plain, atol=1e-4)


def test_without_a_compiler_training_goes_on_and_says_so(data: tuple[Tensor, Tensor]) -> None:
    plain, _ = run(data, QUICK, norm=True)
    for backend in ("no such backend", "failing"):
        with pytest.MonkeyPatch.context() as patch:
            if backend == "failing":

                class Failing(nn.Module):
                    def __init__(self, model: nn.Module) -> None:
                        super().__init__()
                        self.model, self.calls = model, 0

                    def forward(self, x: Tensor) -> Tensor:
                        self.calls += 1
                        if self.calls == 2:  # in the middle of a step
                            raise OSError("g++ is missing\nand more")
                        found: Tensor = self.model(x)
                        return found

                patch.setattr(torch, "compile", lambda model, **_: Failing(model))
            slow, trained = run(data, replace(QUICK, compile=backend), norm=True)
        assert torch.equal(slow, plain)
        assert len(trained.notes) == 1
        assert trained.notes[0].startswith("torch.compile does not work here (")
        assert "and more" not in trained.notes[0]


@pytest.mark.parametrize("recipe", ["pgd-at:steps=2", "trades:steps=2"])
def test_compiled_code_of_the_attack_wants_no_weight_gradients(recipe: str, data: tuple[Tensor, Tensor]) -> None:
    wanted: list[set[bool]] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        weights = [part for part in (*inputs, *graph.parameters()) if isinstance(part, nn.Parameter)]
        wanted.append({part.requires_grad for part in weights})
        return graph.forward

    torch.compiler.reset()  # there is a limit to how often one function is compiled
    net = network()
    loss = ss.adversarial_loss(torch.compile(net, backend=backend), *data, recipe, threat=THREAT)
    assert wanted == [{False}] * (len(wanted) - 1) + [{True}]
    assert len(wanted) > 1
    assert all(part.requires_grad for part in net.parameters())
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(part.grad is not None for part in net.parameters())


def test_gradalign_runs_uncompiled(data: tuple[Tensor, Tensor]) -> None:
    plain, _ = run(data, QUICK, "gradalign")
    same, trained = run(data, replace(QUICK, compile="eager"), "gradalign")
    assert torch.equal(same, plain)
    assert "differentiates its gradient once more" in trained.notes[0]


def test_declared_normalisation_is_that_of_a_wrapped_model(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    bare, wrapped = network(), network()
    fit(bare, *data, threat=THREAT, settings=QUICK, mean=0.3, std=0.2, folder=tmp_path)
    fit(Deployed(ss.Model(wrapped, mean=0.3, std=0.2)), *data, threat=THREAT, settings=QUICK)
    assert all(torch.equal(*pair) for pair in zip(bare.parameters(), wrapped.parameters(), strict=True))
    assert not bare.training
    with torch.no_grad():
        assert torch.equal(Deployed(ss.Model(bare, mean=0.3, std=0.2))(data[0]), bare((data[0] - 0.3) / 0.2))
    # Another mean is another run.
    with pytest.raises(InputError, match="other settings"):
        fit(network(), *data, threat=THREAT, settings=QUICK, mean=0.4, std=0.2, folder=tmp_path)
    with pytest.raises(InputError, match="std is missing"):
        fit(network(), *data, threat=THREAT, settings=QUICK, mean=0.4)


def test_an_averaged_spectral_norm_is_still_one(data: tuple[Tensor, Tensor]) -> None:
    """Averaged as they are, the singular vectors lose their length, and the layers grow to 3 and 4."""
    model = bounded(network())
    average = Average(model, 0.9)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data[0]), data[1]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        average.follow(model)
    gains = [
        float(torch.linalg.matrix_norm(part.weight.detach(), 2))
        for part in average.model.modules()
        if isinstance(part, nn.Linear)
    ]
    assert len(gains) == 2
    assert all(0.9 < gain < 1.3 for gain in gains)
    assert not any(part.training for part in average.model.modules())
