"""Plants: differentiable dynamics, equal to gymnasium's own, and when they count as failed.

A state is (R, N), an action (R,). Nothing is clipped that gymnasium does not clip.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True)
class Quantity:
    """A coordinate of the state: its name, its unit, and the limit of its absolute value, None for none."""

    name: str
    unit: str
    limit: float | None = None


class Plant(Protocol):
    """What is controlled."""

    @property
    def name(self) -> str:
        """For records."""

    @property
    def interval(self) -> float:
        """Seconds from one sample to the next."""

    @property
    def state(self) -> tuple[Quantity, ...]:
        """The coordinates, each of which a sensor reads; failure is any of them beyond its limit."""

    @property
    def largest(self) -> float:
        """The largest absolute action."""

    @property
    def spread(self) -> tuple[float, ...]:
        """Starts are uniform within plus and minus this, one number for each coordinate."""

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """The state (R, N) one sample later, under the action (R,)."""


@dataclass(frozen=True)
class CartPole:
    """A pole on a cart, in the equations of gymnasium's CartPole-v1 (Barto, Sutton & Anderson 1983; Florian 2007).

    Euler steps of 0.02 s. gymnasium pushes with plus or minus 10 N; here the force is any number, cut to 10 N. Failed
    as in gymnasium: the pole beyond 12 degrees, or the cart beyond 2.4 m. Starts: gymnasium's, all four within 0.05.
    """

    name: str = "cart-pole"
    interval: float = 0.02
    largest: float = 10.0
    spread: tuple[float, ...] = (0.05, 0.05, 0.05, 0.05)
    gravity: float = 9.8
    cart: float = 1.0
    pole: float = 0.1
    half_length: float = 0.5

    @property
    def state(self) -> tuple[Quantity, ...]:
        """Position, velocity, angle from upright, angular velocity."""
        return (
            Quantity("cart position", "m", 2.4),
            Quantity("cart velocity", "m/s"),
            Quantity("pole angle", "rad", 12 * 2 * math.pi / 360),
            Quantity("pole angular velocity", "rad/s"),
        )

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """One Euler step."""
        _, velocity, angle, spin = state.unbind(1)
        sine, cosine = angle.sin(), angle.cos()
        total = self.cart + self.pole
        lever = self.pole * self.half_length
        push = (action.clamp(-self.largest, self.largest) + lever * spin.square() * sine) / total
        inertia = self.half_length * (4 / 3 - (self.pole / total) * cosine.square())
        turn = (self.gravity * sine - cosine * push) / inertia
        pull = push - (lever / total) * turn * cosine
        return state + self.interval * torch.stack([velocity, pull, spin, turn], 1)


@dataclass(frozen=True)
class Pendulum:
    """An inverted pendulum, in the equations of gymnasium's Pendulum-v1, balanced upright.

    Steps of 0.05 s; torque cut to 2 N m and speed to 8 rad/s, as there. The motor is weaker than gravity beyond
    0.41 rad, so failed is: more than 0.4 rad from upright. gymnasium itself never ends an episode.
    """

    name: str = "pendulum"
    interval: float = 0.05
    largest: float = 2.0
    spread: tuple[float, ...] = (0.05, 0.05)
    gravity: float = 10.0

    @property
    def state(self) -> tuple[Quantity, ...]:
        """Angle from upright, angular velocity."""
        return (Quantity("angle", "rad", 0.4), Quantity("angular velocity", "rad/s"))

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """One semi-implicit Euler step: the new speed moves the angle."""
        angle, spin = state.unbind(1)
        torque = action.clamp(-self.largest, self.largest)
        spin = (spin + (1.5 * self.gravity * angle.sin() + 3.0 * torque) * self.interval).clamp(-8.0, 8.0)
        return torch.stack([angle + self.interval * spin, spin], 1)


PLANTS: dict[str, Callable[[], Plant]] = {"cart-pole": CartPole, "pendulum": Pendulum}


def plant(name: str) -> Plant:
    """A built-in plant by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PLANTS:
        raise InputError(
            Arg("plant", name), f"is not one of {', '.join(PLANTS)}", remedy="correct it, or write module:factory"
        )
    return PLANTS[name]()
