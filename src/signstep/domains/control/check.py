"""An independent check that sensor errors obey what was declared: budget, rate, windows and shape.

Nothing here is shared with the search: it looks at the two series and the declared numbers, sample by sample, in
float64.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from signstep.domains.control.sensors import Sensor, Sensors
from signstep.engine.defaults import plain_tensor
from signstep.engine.verify import Verification
from signstep.errors import InputError

# What rounding may add: a few units in the last place of the readings, as they are stored.
_PLACES = 2


def check(terms: Mapping[str, Any], before: Tensor, after: Tensor) -> Verification:
    """Check the errors after - before (R, T, S).

    Args:
        terms: "sensors" and "interval" as `Sensors.plain` gives them, and "eps", a number or (R,), 1 if absent; or the
            terms of a record, which have these as "domain_terms".
        before: the untouched series.
        after: the attacked ones.

    Returns:
        ``size`` is the smallest eps that would allow the row's budgets and rates.

    Raises:
        InputError: the shapes do not fit each other or the sensors.
    """
    terms = terms.get("domain_terms", terms)
    sensors = Sensors.of(terms)
    if before.shape != after.shape or before.ndim != 3 or before.shape[2] != len(sensors):
        raise InputError(
            f"attacked series have shape {tuple(after.shape)}, the clean ones {tuple(before.shape)}",
            remedy=f"pass two of (examples, samples, {len(sensors)})",
        )
    eps = plain_tensor(1.0 if terms.get("eps") is None else terms["eps"], dtype=torch.float64).expand(len(before))
    place = torch.finfo(before.dtype if before.dtype != torch.float64 else torch.float64).eps
    size, ok = (
        torch.zeros(len(before), dtype=torch.float64, device="cpu"),
        torch.ones(len(before), dtype=torch.bool, device="cpu"),
    )
    tolerance = 0.0
    first, second = before.detach().cpu().double(), after.detach().cpu().double()
    for column, sensor in enumerate(sensors.parts):
        error = second[..., column] - first[..., column]
        scale = float(first[..., column].abs().amax()) + sensor.budget
        slack = _PLACES * place * scale
        here, fits = _judged(error, sensor, sensors.interval, eps.cpu(), slack)
        size, ok = torch.maximum(size, here), ok & fits
        if sensor.compromised:
            tolerance = max(tolerance, slack / _smallest(sensor, sensors.interval))
    return Verification(ok.to(before.device), size.to(before.device), (size - eps).to(before.device), tolerance)


def _judged(error: Tensor, sensor: Sensor, interval: float, eps: Tensor, slack: float) -> tuple[Tensor, Tensor]:
    """The size (R,) of one sensor's errors (R, T) and whether they are allowed (R,)."""
    steps = error.shape[1]
    inside = torch.tensor([_inside(sensor, t * interval) for t in range(steps)], dtype=torch.bool, device="cpu")
    ok = torch.isfinite(error).all(1) & (error[:, ~inside] == 0).all(1)
    largest = error.abs().amax(1)
    if not sensor.compromised:
        return torch.where(largest > 0, torch.inf, 0.0).to(error), largest == 0
    size = largest / sensor.budget
    ok &= largest <= eps * sensor.budget + slack
    if sensor.rate is not None:
        jumps = torch.cat([error[:, :1], error[:, 1:] - error[:, :-1]], 1).abs().amax(1)
        size = torch.maximum(size, jumps / (sensor.rate * interval))
        ok &= jumps <= eps * sensor.rate * interval + slack
    if sensor.shape != "free":
        pattern = torch.tensor(_pattern(sensor, inside.tolist(), interval), dtype=torch.float64, device="cpu")
        peak = int(pattern.argmax())
        if float(pattern[peak]) > 0:
            number = error[:, peak] / pattern[peak]
            ok &= (error - number[:, None] * pattern).abs().amax(1) <= 2 * slack
            ok &= number.abs() * pattern[peak] <= eps * pattern[peak] + slack
            size = number.abs()
    return size, ok


def _inside(sensor: Sensor, time: float) -> bool:
    return not sensor.windows or any(first - 1e-9 <= time < last - 1e-9 for first, last in sensor.windows)


def _pattern(sensor: Sensor, inside: list[bool], interval: float) -> list[float]:
    """What a bias or drift looks like at full size, from counting samples to the nearest true reading."""
    pattern = []
    for t, held in enumerate(inside):
        height = sensor.budget if held else 0.0
        if held and sensor.shape == "drift":
            mates = [other for other in range(len(inside)) if inside[other] and _together(sensor, t, other, interval)]
            height *= (mates.index(t) + 1) / len(mates)
        pattern.append(height)
    if sensor.rate is None:
        return pattern
    step = sensor.rate * interval
    known = [(-1, 0.0), *enumerate(pattern)]
    return [min(height + step * abs(t - other) for other, height in known) for t in range(len(pattern))]


def _together(sensor: Sensor, first: int, second: int, interval: float) -> bool:
    """Whether two samples lie in the same window."""
    if not sensor.windows:
        return True
    times = (first * interval, second * interval)
    return any(all(start - 1e-9 <= time < end - 1e-9 for time in times) for start, end in sensor.windows)


def _smallest(sensor: Sensor, interval: float) -> float:
    return sensor.budget if sensor.rate is None else min(sensor.budget, sensor.rate * interval)
