"""Attacks on the closed loop, and random errors of the same size."""

import pytest
import torch
from torch import Tensor

import signstep as ss
from signstep.domains.control import (
    CartPole,
    CausalFgsm,
    ClosedLoop,
    Sensor,
    Sensors,
    check,
    controller_for,
    random_trials,
    sensor_threat,
    smallest_error,
    starts,
)
from signstep.domains.control.loop_case import EXAMPLES
from signstep.domains.control.trials import KINDS, Kind, random_errors
from signstep.engine.keys import Key
from signstep.errors import InputError

PLANT = CartPole()
SENSORS = Sensors(EXAMPLES[PLANT.name], PLANT.interval)


@pytest.fixture(scope="module")
def loop() -> ClosedLoop:
    return ClosedLoop(PLANT, controller_for(PLANT)).eval()


def test_attacks_fail_what_random_errors_do_not(loop: ClosedLoop) -> None:
    start, steps = starts(PLANT, 6, seed=11), 200
    x = {"error": torch.zeros(6, steps, 4), "start": start}
    threat = sensor_threat(SENSORS)
    outcome = ss.attack(ss.Model(loop, task=ss.Objective(0.0)), x, threat={"error": threat}, recipe="pgd:steps=20")
    assert int(outcome.fooled.sum()) >= 5
    assert bool(outcome.verified.all())
    trials = random_trials(loop, start, steps, threat=threat, count=200)
    assert int(trials.any.sum()) == 0


def test_the_causal_attack_does_not_know_the_future(loop: ClosedLoop) -> None:
    threat = sensor_threat(Sensors((*SENSORS.parts[:3], Sensor("spin", "rad/s", 0.1, 2.0)), PLANT.interval))
    start = starts(PLANT, 3, seed=1)
    errors = []
    for steps in (40, 60):
        x = {"error": torch.zeros(3, steps, 4), "start": start}
        outcome = ss.attack(
            ss.Model(loop, task=ss.Objective(0.0)), x, threat={"error": threat}, recipe=CausalFgsm(loop, horizon=20)
        )
        assert bool(outcome.verified.all())
        assert not bool(outcome.undetermined.any())
        assert int(outcome.forwards.max()) == steps + 1  # one look ahead for each sample, and the verdict
        assert isinstance(outcome.x, dict)
        errors.append(outcome.x["error"])
    assert torch.equal(errors[0], errors[1][:, :40])
    assert float(errors[0].abs().max()) > 0.1


def test_the_smallest_error_fails_and_is_allowed(loop: ClosedLoop) -> None:
    start, steps = starts(PLANT, 3, seed=2), 120
    threat = sensor_threat(SENSORS)
    found = smallest_error(loop, start, steps, threat=threat, recipe="pgd:steps=10", halvings=4)
    assert bool((found.eps > 0.3).all())
    assert bool((found.eps < 2).all())
    assert bool((loop(error=found.error, start=start) >= 0).all())
    assert bool(check({**SENSORS.plain(), "eps": found.eps}, 0 * found.error, found.error).ok.all())
    states = loop.states(found.error, start)
    for row, sample in enumerate(found.when.tolist()):
        assert not bool(loop.failed(states[row, :sample]).any())
        assert bool(loop.failed(states[row, sample]))


def test_what_cannot_be_found_and_what_needs_no_error(loop: ClosedLoop) -> None:
    start = torch.tensor([[0.0] * 4, [0.0, 0.0, 0.2, 2.0]])
    found = smallest_error(loop, start, 30, threat=sensor_threat(SENSORS), largest=0.01, halvings=1)
    assert found.eps.tolist() == [torch.inf, 0.0]
    assert found.when.tolist()[0] == -1


@pytest.mark.parametrize("kind", KINDS)
def test_random_errors_are_allowed_and_their_own(kind: Kind) -> None:
    sensors = Sensors((Sensor("a", "m", 0.5, 3.0), Sensor("b", "m", 0.2), Sensor("c", "m", 0.4, None, "bias")), 0.1)
    sizes = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    x = torch.zeros(3, 50, 3)
    draws = Key(0).draws(torch.tensor([5, 6, 7]), torch.device("cpu"))
    region = sensor_threat(sensors, sizes).around(x)
    errors = random_errors(region, kind, draws)
    assert bool(check({**sensors.plain(), "eps": sizes}, x, x + errors).ok.all())
    alone = random_errors(
        sensor_threat(sensors, 2.0).around(x[:1]), kind, Key(0).draws(torch.tensor([7]), torch.device("cpu"))
    )
    assert torch.allclose(alone[0], errors[2], atol=1e-7)
    if kind in ("signs", "held"):
        assert torch.allclose(errors[..., 1].abs().amax(1), 0.2 * sizes.float(), atol=1e-6)


def test_trials_are_counted(loop: ClosedLoop) -> None:
    start = torch.tensor([[0.0] * 4, [0.0, 0.0, 0.2, 2.0]])  # the second falls whatever happens
    trials = random_trials(loop, start, 40, threat=sensor_threat(SENSORS), count=40)
    assert (trials.total, trials.any.tolist(), trials.share) == (40, [False, True], 0.5)
    with pytest.raises(InputError, match="count=10; pass a multiple of 4"):
        random_trials(loop, start, 40, threat=sensor_threat(SENSORS), count=10)


@pytest.mark.kernels
def test_a_batch_of_trials_is_its_rows(loop: ClosedLoop) -> None:
    start, threat = starts(PLANT, 3), sensor_threat(SENSORS, torch.tensor([3.0, 4.0, 5.0]))
    whole = random_trials(loop, start, 60, threat=threat, count=80)
    alone = random_trials(loop, start[2:], 60, threat=sensor_threat(SENSORS, 5.0), count=80)
    counts: dict[Kind, Tensor] = whole.failed
    assert {kind: int(part[2]) for kind, part in counts.items()} == {k: int(v) for k, v in alone.failed.items()}
    assert int(alone.any.sum()) == 1
