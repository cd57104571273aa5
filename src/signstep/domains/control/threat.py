"""The set of sensor errors as a threat model: the engine's steps in it are exact.

Errors are (R, T, S): rows, samples, sensors. ``eps`` scales everything that is declared, budgets and rates alike: 1 is
the declared set, 0.5 the half of it; the length of an error is the smallest eps that allows it.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from signstep.domains.control import chain
from signstep.domains.control.check import check
from signstep.domains.control.sensors import Sensor, Sensors
from signstep.engine.keys import RowDraws
from signstep.engine.norms import Linf
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import Eps, read_eps
from signstep.engine.tree import Tree, per_row, search_dtype
from signstep.engine.verify import Verification
from signstep.errors import InputError, ThreatError
from signstep.messages import Arg


@dataclass(frozen=True, eq=False)
class SensorThreat(ShapedThreat):
    """What an attacker may write into the sensors of a series; see `signstep.domains.control.sensors`.

    Attributes:
        sensors: one for each channel.
    """

    sensors: Sensors = field(kw_only=True)

    @property
    def kind(self) -> str:
        """Of records and checkers."""
        return "sensors"

    def __str__(self) -> str:
        size = "" if self.label == "1" else f"{self.label} x "
        return f"{size}{self.sensors}"

    def sized(self, eps: Eps) -> "SensorThreat":
        """The same sensors at another size."""
        return sensor_threat(self.sensors, eps)

    def around(self, x: Tensor) -> "SensorRegion":
        """The errors that are allowed on top of x (R, T, S).

        Raises:
            ThreatError: x is not (R, T, S) with one channel for each sensor, or nothing in it may change.
            InputError: x has values that are not finite.
        """
        if x.ndim != 3 or x.shape[2] != len(self.sensors):
            raise ThreatError(
                f"the series have shape {tuple(x.shape)}, the schema {len(self.sensors)} sensors",
                remedy=f"pass (examples, samples, {len(self.sensors)})",
            )
        if not x.is_floating_point() or not bool(torch.isfinite(x).all()):
            raise InputError("the series have values that are not finite numbers", remedy="remove those examples")
        if self.eps is None:
            raise ThreatError(Arg("eps", None), "has no meaning for sensors", remedy="pass 1 for the declared budgets")
        profiles = [profile(sensor, x.shape[1], self.sensors.interval) for sensor in self.sensors.parts]
        bound = torch.stack(profiles, 1).to(x.device)
        if not bool((bound > 0).any()):
            raise ThreatError(
                f"no sample of the {x.shape[1]} lies in a window of a compromised sensor",
                remedy="move the windows, or remove them",
            )
        radius = torch.as_tensor(self.eps, dtype=torch.float64, device=x.device)
        if radius.ndim and len(radius) != len(x):
            raise ThreatError(
                Arg("eps"), f"has {len(radius)} entries for {len(x)} series", remedy="pass one number or one for each"
            )
        return SensorRegion(self.sensors, x, radius.expand(len(x)), bound)

    def checked(self, x: Tensor, point: Tensor) -> Verification:
        """What the independent checker says of the errors point - x."""
        return check({**self.sensors.plain(), "eps": self.eps}, x, point)


def sensor_threat(sensors: Sensors, eps: Eps = 1.0) -> SensorThreat:
    """The declared set, or ``eps`` times it; eps may be a tensor (R,), one size for each example."""
    label = eps.replace(" ", "") if isinstance(eps, str) else ""
    return SensorThreat(Linf(), read_eps(eps), None, None, label=label, sensors=sensors)


def profile(sensor: Sensor, steps: int, interval: float) -> Tensor:
    """The largest error of a sensor at each sample, (T,) float64; for a bias and a drift their one series, at c = 1."""
    bound = torch.zeros(steps, dtype=torch.float64, device="cpu")
    for first, last in sensor.windows or ((0.0, steps * interval),):
        inside = [t for t in range(steps) if first - 1e-9 <= t * interval < last - 1e-9]
        ramp = torch.arange(1, len(inside) + 1, dtype=torch.float64, device="cpu") / max(1, len(inside))
        bound[inside] = sensor.budget * (ramp if sensor.shape == "drift" else torch.ones_like(ramp))
    if sensor.rate is None:
        return bound
    return chain.envelope(bound[None], bound.new_tensor([sensor.rate * interval]))[0]


@dataclass(frozen=True)
class SensorRegion:
    """The allowed errors around each row of ``x`` (R, T, S).

    ``radius`` (R,) float64 scales ``bound`` (T, S), the largest error at each sample, and the rates.
    """

    sensors: Sensors
    x: Tensor
    radius: Tensor
    bound: Tensor

    def steepest(self, gradient: Tree) -> Tensor:
        """The allowed error that maximises <gradient, e>, exactly."""
        return self.step(None, gradient, 2 * self.radius)

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> Tensor:
        """The change s from d that maximises <gradient, s> with |s_t| <= length * bound_t and d + s allowed; exact."""
        g = _tensor(gradient).double()
        here = torch.zeros_like(g) if d is None else _tensor(d).double()
        reach, move = self._sized(self.radius), self._sized(length)
        end = torch.clamp(here + move * g.sign(), -reach, reach)
        for column, sensor in enumerate(self.sensors.parts):
            if sensor.shape != "free":
                along = self._number(here, column) + length * (g[..., column] @ self.bound[:, column]).sign()
                end[..., column] = self._line(along, column)
        index = self._limited()
        if index:
            low, high = torch.maximum(-reach, here - move), torch.minimum(reach, here + move)
            parts = [_series(part, index) for part in (g, low, torch.maximum(low, high), here)]
            end[..., index] = _columns(
                chain.steepest(parts[0], self._rates(index), parts[1], parts[2], near=parts[3]), len(index), len(g)
            )
        return (end - here).to(search_dtype(self.x.dtype))

    def project(self, d: Tree) -> Tensor:
        """The nearest allowed error: in the largest difference under a rate limit, else in the Euclidean length."""
        wide = _tensor(d).double()
        reach = self._sized(self.radius)
        end = torch.clamp(wide, -reach, reach)
        for column, sensor in enumerate(self.sensors.parts):
            if sensor.shape != "free":
                end[..., column] = self._line(self._number(wide, column), column)
        index = self._limited()
        if index:
            series, bound = _series(wide, index), _series(reach, index)
            end[..., index] = _columns(chain.nearest(series, self._rates(index), bound), len(index), len(wide))
        return end.to(search_dtype(self.x.dtype))

    def land(self, d: Tree) -> Tensor:
        """The series with the error d added, in their own dtype."""
        return (self.x + _tensor(d)).to(self.x.dtype)

    def sample(self, draws: RowDraws) -> Tensor:
        """Uniform between the largest errors, then projected; one number of a bias or drift is uniform itself."""
        noise = 2 * draws.uniform("sensor errors", tuple(self.x.shape[1:])).double() - 1
        d = self._sized(self.radius) * noise
        for column, sensor in enumerate(self.sensors.parts):
            if sensor.shape != "free":
                d[..., column] = self._line(self.radius * noise[:, 0, column], column)
        return self.project(d)

    def vertex(self, draws: RowDraws) -> Tensor:
        """The steepest error in a random direction: random signs where there is no rate limit."""
        return self.steepest(draws.normal("vertex", tuple(self.x.shape[1:])))

    def restrict(self, gradient: Tree) -> Tensor:
        """The gradient with zeros where no error is allowed."""
        return torch.where(self.bound > 0, _tensor(gradient), 0.0)

    def frozen(self) -> Tensor:
        """The number of samples and channels where no error is allowed, (1,) int64."""
        return (self.bound <= 0).sum().reshape(1)

    def zero(self) -> Tensor:
        """No error."""
        return torch.zeros((), dtype=search_dtype(self.x.dtype), device=self.x.device).expand(self.x.shape)

    def take(self, index: Tensor) -> "SensorRegion":
        """The region of the rows at ``index``."""
        return replace(self, x=self.x[index], radius=self.radius[index])

    def resized(self, radius: Tensor) -> "SensorRegion":
        """The same region at other sizes (R,)."""
        return replace(self, radius=radius.to(self.radius))

    def _sized(self, size: Tensor) -> Tensor:
        return per_row(size.double(), self.x) * self.bound

    def _limited(self) -> list[int]:
        """The columns of free errors with a rate limit."""
        return [
            column
            for column, sensor in enumerate(self.sensors.parts)
            if sensor.compromised and sensor.shape == "free" and sensor.rate is not None
        ]

    def _rates(self, index: list[int]) -> Tensor:
        """The largest difference between neighbours of each series of `_series`."""
        rates = [self.sensors.parts[column].rate or 0.0 for column in index]
        each = self.radius.new_tensor(rates) * self.sensors.interval
        return (self.radius[:, None] * each).reshape(-1)

    def _number(self, d: Tensor, column: int) -> Tensor:
        """The c (R,) for which c times the profile is nearest to a column of d."""
        shape = self.bound[:, column]
        return (d[..., column] @ shape) / (shape @ shape).clamp_min(torch.finfo(shape.dtype).tiny)

    def _line(self, number: Tensor, column: int) -> Tensor:
        return torch.clamp(number, -self.radius, self.radius)[:, None] * self.bound[:, column]


def _series(part: Tensor, index: list[int]) -> Tensor:
    """Columns (R, T, S) as series (R * S, T)."""
    return part[..., index].transpose(1, 2).reshape(-1, part.shape[1])


def _columns(series: Tensor, columns: int, rows: int) -> Tensor:
    return series.reshape(rows, columns, -1).transpose(1, 2)


def _tensor(tree: Tree) -> Tensor:
    if not isinstance(tree, Tensor):
        raise TypeError("expected one tensor, got a dict of inputs")
    return tree
