"""Plants, controllers, and the loop as a model."""

from typing import Any

import pytest
import torch
from torch import Tensor

from signstep.domains.control import CartPole, ClosedLoop, Pendulum, controller_for, starts, trained_controller
from signstep.domains.control.plants import Plant, plant
from signstep.errors import InputError, ModelError

gymnasium = pytest.importorskip("gymnasium")


def cart_pole_of(state: Tensor, force: float) -> Tensor:
    env: Any = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    env.state, env.force_mag = state.numpy(), abs(force)
    env.step(int(force > 0))
    return torch.as_tensor(env.state)


def test_the_cart_pole_is_gymnasiums() -> None:
    generator = torch.Generator().manual_seed(0)
    state = 0.2 * torch.randn(40, 4, generator=generator, dtype=torch.float64)
    force = 10 * (2 * torch.rand(40, generator=generator, dtype=torch.float64) - 1)
    force[:2] = torch.tensor([-10.0, 10.0])
    after = CartPole().step(state, force)
    for row in range(40):
        assert torch.allclose(after[row], cart_pole_of(state[row], float(force[row])), atol=1e-12, rtol=0)


def test_the_pendulum_is_gymnasiums() -> None:
    env: Any = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(40, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 5.0])
    torque = 3 * torch.randn(40, generator=generator, dtype=torch.float64)
    after = Pendulum().step(state, torque)
    for row in range(40):
        env.state = state[row].numpy()
        env.step(torque[row : row + 1].numpy())
        assert torch.allclose(after[row], torch.as_tensor(env.state), atol=1e-12, rtol=0)


def test_a_whole_run_is_gymnasiums() -> None:
    known = CartPole()
    loop = ClosedLoop(known, controller_for(known))
    start = starts(known, 1, seed=5).double()
    wrong = 0.02 * torch.randn(1, 200, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = loop.states(wrong, start)[0]
    env: Any = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    env.state = start[0].numpy()
    for t in range(200):
        reading = torch.as_tensor(env.state)[None] + wrong[:, t]
        force = float(loop.action(reading))
        env.force_mag = abs(force)
        assert not env.step(int(force > 0))[2]
        assert torch.allclose(ours[t + 1], torch.as_tensor(env.state), atol=1e-6, rtol=0)


def test_limits_are_gymnasiums() -> None:
    env: Any = gymnasium.make("CartPole-v1").unwrapped
    assert [part.limit for part in CartPole().state] == [env.x_threshold, None, env.theta_threshold_radians, None]


@pytest.mark.parametrize("known", [CartPole(), Pendulum()], ids=lambda known: known.name)
def test_the_shipped_controller_balances(known: Plant) -> None:
    loop = ClosedLoop(known, controller_for(known))
    start = starts(known, 100)
    error = torch.zeros(100, 250, len(known.state))
    assert bool((loop(error=error, start=start) < -0.5).all())
    assert float(loop.states(error, start)[:, -1].abs().max()) < 0.02


def test_training_gives_the_shipped_controller() -> None:
    known = Pendulum()
    reading = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.3, 1.0])
    shipped, again = controller_for(known)(reading), trained_controller(known)(reading)
    # other machines round otherwise; after 1,500 steps of training that can be seen, but not felt
    assert torch.allclose(shipped, again, atol=0.05)


@pytest.mark.parametrize("known", [CartPole(), Pendulum()], ids=lambda known: known.name)
def test_the_adjoint_is_the_gradient(known: Plant) -> None:
    loop = ClosedLoop(known, controller_for(known).double())
    start = starts(known, 6).double()
    error = 0.05 * torch.randn(6, 60, len(known.state), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    error[0] *= 100  # this one falls on the way
    error.requires_grad_()
    margin = loop(error=error, start=start)
    assert bool(margin[0] >= 0)
    (found,) = torch.autograd.grad(margin.sum(), error)
    margins = loop.margins(loop.states(error, start)[:, 1:]).flatten(1)
    weights = torch.softmax(margins.detach() / loop.sharpness, 1)
    (plain,) = torch.autograd.grad((weights * margins).sum(), error)
    assert float(plain.abs().max()) > 1e-3
    assert torch.allclose(found, plain, atol=1e-12, rtol=1e-9)
    assert torch.equal(margin, margins.amax(1))


def test_a_run_ends_where_it_failed() -> None:
    known = CartPole()
    loop = ClosedLoop(known, controller_for(known))
    start = torch.tensor([[0.0, 0.0, 0.2, 2.0], [0.0, 0.0, 0.0, 0.0]])
    states = loop.states(torch.zeros(2, 50, 4), start)
    first = int(loop.failed(states[0]).long().argmax())
    assert 0 < first < 10
    assert torch.equal(states[0, first], states[0, -1])
    assert loop(error=torch.zeros(2, 50, 4), start=start).sign().tolist() == [1.0, -1.0]


def test_clear_sentences() -> None:
    with pytest.raises(InputError, match="plant='crane' is not one of cart-pole, pendulum"):
        plant("crane")
    loop = ClosedLoop(CartPole(), torch.nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"the controller gave shape \(3, 2\) for readings \(3, 4\)"):
        loop(error=torch.zeros(3, 5, 4), start=torch.zeros(3, 4))


def test_starts_do_not_depend_on_their_number() -> None:
    assert torch.equal(starts(CartPole(), 9)[:4], starts(CartPole(), 4))
    assert not torch.equal(starts(CartPole(), 4, seed=1), starts(CartPole(), 4))
