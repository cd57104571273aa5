"""A small neural controller for each built-in plant, trained in seconds and always the same.

The weights lie beside this file; `trained_controller` makes them again.

It imitates a linear-quadratic regulator (Anderson & Moore 1990, chapter 2) of the linearised plant, whose force it cuts
smoothly where the motor ends: a network, because that is what is audited, and one whose teacher is known.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from signstep.domains.control.plants import CartPole, Pendulum, Plant
from signstep.engine.defaults import plain_torch
from signstep.errors import InputError
from signstep.messages import Arg

# For each plant: the weights on the squared state and action, and how far from rest the network is taught.
_TASTE: dict[str, tuple[tuple[float, ...], float, tuple[float, ...]]] = {
    CartPole().name: ((1.0, 0.1, 1.0, 0.1), 0.01, (2.4, 2.0, 0.3, 2.0)),
    Pendulum().name: ((10.0, 0.1), 0.1, (0.5, 2.0)),
}


class Controller(nn.Module):
    """Two hidden layers of tanh; readings (R, S) in, an action (R,) within the motor's limits out."""

    def __init__(self, scale: tuple[float, ...], largest: float, *, width: int = 16) -> None:
        super().__init__()
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32, device="cpu"))
        self.largest = largest
        self.layers = nn.Sequential(
            nn.Linear(len(scale), width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )

    def forward(self, reading: Tensor) -> Tensor:
        """The action."""
        raw: Tensor = self.layers(reading / self.scale.to(reading.dtype))
        return self.largest * raw.squeeze(-1).tanh()


def regulator(plant: Plant, weights: tuple[float, ...], effort: float) -> Tensor:
    """The gain k (N,) of the best linear action -k s: a discrete Riccati recursion until it stands still."""
    size = len(plant.state)
    rest, still = (
        torch.zeros(size, dtype=torch.float64, device="cpu"),
        torch.zeros(1, dtype=torch.float64, device="cpu"),
    )
    step: Callable[[Tensor, Tensor], Tensor] = lambda state, action: plant.step(state[None], action)[0]  # noqa: E731
    a, b = torch.autograd.functional.jacobian(step, (rest, still))  # type: ignore[no-untyped-call]
    cost = torch.diag(torch.tensor(weights, dtype=torch.float64, device="cpu"))
    value = cost
    for _ in range(5000):
        gain: Tensor = (b.T @ value @ a) / (effort + b.T @ value @ b)
        after = cost + a.T @ value @ (a - b @ gain)
        if bool((after - value).abs().amax() <= 1e-12 * value.abs().amax()):
            best: Tensor = gain[0]
            return best
        value = after
    raise InputError(
        f"no regulator was found for {plant.name}: it cannot be balanced from rest", remedy="pass another plant"
    )


@plain_torch()
def controller_for(plant: Plant) -> Controller:
    """The controller that ships for a built-in plant.

    Raises:
        InputError: the plant is not a built-in one.
    """
    _, _, reach = _taste(plant)
    network = Controller(reach, plant.largest)
    network.load_state_dict(load_file(weights_of(plant)))
    return network.eval().requires_grad_(requires_grad=False)


def weights_of(plant: Plant) -> Path:
    """The file of a built-in plant's controller."""
    return Path(__file__).with_name(f"{plant.name}.safetensors")


def _taste(plant: Plant) -> tuple[tuple[float, ...], float, tuple[float, ...]]:
    if plant.name not in _TASTE:
        raise InputError(
            f"there is no controller for {plant.name}", remedy=("pass one with", Arg("model", "module:factory"))
        )
    return _TASTE[plant.name]


@plain_torch()
def trained_controller(plant: Plant, *, seed: int = 0, steps: int = 1500) -> Controller:
    """The network after ``steps`` of Adam on the teacher's actions, over states drawn anew for each step.

    Raises:
        InputError: the plant is not a built-in one.
    """
    weights, effort, reach = _taste(plant)
    gain = regulator(plant, weights, effort).float()
    scale = torch.tensor(reach, dtype=torch.float32, device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Controller(reach, plant.largest)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
        for _ in range(steps):
            # Half of the states near rest, where the loop spends its time.
            state = scale * (2 * torch.rand(256, len(reach), dtype=torch.float32, device="cpu") - 1)
            state[:128] *= 0.2
            wanted = plant.largest * torch.tanh(-(state @ gain) / plant.largest)
            loss = (network(state) - wanted).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval().requires_grad_(requires_grad=False)
