"""Sensors: what an attacker may write into each of them, in physical units, and when.

A sensor's error is a series e_t, t = 0..T-1, added to what it would have read. The attacker's set for one sensor is

    S = {e : |e_t| <= budget,  |e_t - e_(t-1)| <= rate * interval,  e_t = 0 outside the windows},     e_(-1) = 0,

for the shape "free". A "bias" is c p_t with one number |c| <= 1 and the profile p that goes to the budget as fast as
the rate allows and stays there; a "drift" rises linearly over the window and meets the budget at its end. A sensor that
reads wrong for no longer than its windows must come back by their end, at the same rate.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from signstep.errors import InputError
from signstep.messages import Arg
from signstep.plain import one_line

Shape = Literal["free", "bias", "drift"]


@dataclass(frozen=True)
class Sensor:
    """One channel, and what an attacker may do to it.

    Attributes:
        name: as people call it.
        unit: of its readings: "rad", "m/s", "kPa".
        budget: the largest error, in the unit; 0 for a sensor that can be trusted.
        rate: the largest change of the error in one second, in units per second; None for no limit.
        shape: "free" noise, "bias" (one number) or "drift" (one slope).
        windows: (from, to) in seconds, from included and to excluded; empty: all the time.
    """

    name: str
    unit: str = ""
    budget: float = 0.0
    rate: float | None = None
    shape: Shape = "free"
    windows: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        where = f"sensor {self.name!r}"
        if not self.name:
            raise InputError("a sensor has no name", remedy="give each a name of its own")
        if not math.isfinite(self.budget) or self.budget < 0:
            raise InputError(
                Arg("budget", self.budget), remedy=f"give the largest error in {self._unit}, 0 or more", where=where
            )
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise InputError(
                Arg("rate", self.rate),
                remedy=f"give the largest change in {self._unit} per second, above 0, or leave it out for no limit",
                where=where,
            )
        if self.shape not in get_args(Shape):
            raise InputError(Arg("shape", self.shape), remedy=f"give one of {', '.join(get_args(Shape))}", where=where)
        end = 0.0
        for first, last in self.windows:
            if not 0 <= first < last < math.inf:
                raise InputError(
                    f"{where}: the window [{first}, {last}] is not 0 <= from < to, in seconds", remedy="correct it"
                )
            if first < end:
                raise InputError(
                    f"{where}: the window [{first}, {last}] begins before the one before it ends", remedy="sort them"
                )
            end = last

    @property
    def compromised(self) -> bool:
        """Whether an attacker can write into it at all."""
        return self.budget > 0

    @property
    def _unit(self) -> str:
        return self.unit or "the sensor's unit"

    def __str__(self) -> str:
        if not self.compromised:
            return one_line(f"{self.name} (trusted)")
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.name} {self.shape} within {self.budget:g}{unit}"
        if self.rate is not None:
            text += f", {self.rate:g}{unit}/s" if unit else f", {self.rate:g} per s"
        if self.windows:
            text += ", in " + " and ".join(f"{first:g}-{last:g} s" for first, last in self.windows)
        return one_line(text)


@dataclass(frozen=True)
class Sensors:
    """All channels of a series, in their order, and the time between two samples.

    Attributes:
        parts: the sensors, as many as the series has channels.
        interval: seconds between samples.
    """

    parts: tuple[Sensor, ...]
    interval: float = 1.0

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("there are no sensors", remedy="describe each channel with a [[sensor]] of its own")
        names = [sensor.name for sensor in self.parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"two sensors are called {twice[0]!r}", remedy="give each a name of its own")
        if not (math.isfinite(self.interval) and self.interval > 0):
            raise InputError(Arg("interval", self.interval), remedy="give the seconds between two samples, above 0")
        if not any(sensor.compromised for sensor in self.parts):
            raise InputError(
                "no sensor has a budget above 0, so nothing may change", remedy="give a budget to one of them"
            )

    def __len__(self) -> int:
        return len(self.parts)

    def __str__(self) -> str:
        bad = [str(sensor) for sensor in self.parts if sensor.compromised]
        trusted = len(self.parts) - len(bad)
        few = bad if len(bad) <= 4 else [*bad[:3], f"{len(bad) - 3} more"]
        return "; ".join(few) + (f"; {trusted} trusted" if trusted else "")

    def plain(self) -> dict[str, Any]:
        """Plain JSON values, for a record."""
        return {
            "interval": self.interval,
            "sensors": [
                {
                    "name": sensor.name,
                    "unit": sensor.unit,
                    "budget": sensor.budget,
                    "rate": sensor.rate,
                    "shape": sensor.shape,
                    "windows": [list(window) for window in sensor.windows],
                }
                for sensor in self.parts
            ],
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Sensors":
        """What `plain` gave."""
        parts = tuple(
            Sensor(**{**entry, "windows": tuple((float(a), float(b)) for a, b in entry["windows"])})
            for entry in plain["sensors"]
        )
        return cls(parts, plain["interval"])
