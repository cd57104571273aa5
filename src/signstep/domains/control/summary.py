"""What an audit of a closed loop means to those who run the plant: sizes in units, moments, and trajectories."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from signstep.auditing.parts import spread
from signstep.auditing.result import Result
from signstep.auditing.sections import Chart, Line, Section
from signstep.domains.control.rollout import ClosedLoop
from signstep.domains.control.smallest import Smallest, first_failure, smallest_error
from signstep.domains.control.threat import SensorThreat
from signstep.domains.control.trials import KINDS, Trials, random_errors, random_trials
from signstep.engine.keys import Key, content_ids
from signstep.engine.statistics import quantile

_LARGEST = 2.0


def summary(
    result: Result,
    points: Mapping[str, Tensor],  # noqa: ARG001
    *,
    loop: ClosedLoop,
    start: Tensor,
    steps: int,
    threat: SensorThreat,
    trials: int = 1000,
    seed: int = 0,
) -> tuple[Section, ...]:
    """The smallest errors and when they strike, the same sizes at random, and one start drawn out.

    Args:
        result: the audit.
        points: not used: the smallest errors are looked for anew.
        loop: what was audited.
        start: the starts (R, N).
        steps: samples of a run.
        threat: what may be written into the sensors.
        trials: random errors for each start.
        seed: all randomness.
    """
    first, step = spread(result.terms.get("shard"))
    start = start[first::step][: result.examples]
    threat = threat.sized(1.0)
    least = smallest_error(loop, start, steps, threat=threat, largest=_LARGEST, recipe="pgd:steps=10", seed=seed)
    hit = torch.isfinite(least.eps) & (least.eps > 0)
    random = None
    if bool(hit.any()):
        sized = threat.sized(least.eps[hit])
        random = random_trials(loop, start[hit], steps, threat=sized, count=trials, seed=seed)
    found = _Found(loop, start, threat, least, hit, random)
    return (
        _smallest(found),
        *(() if random is None else (_at_random(found, random), _trajectories(found, steps, seed))),
    )


class _Found(NamedTuple):
    loop: ClosedLoop
    start: Tensor
    threat: SensorThreat
    least: Smallest
    hit: Tensor
    random: Trials | None


def _smallest(found: _Found) -> Section:
    count, hits = len(found.start), int(found.hit.sum())
    already = int((found.least.eps == 0).sum())
    text = [
        f"PGD, halving the size, drove {hits} of {count} starts into failure with errors of at most {_LARGEST:g} times "
        "the declared budgets and rates. These are upper bounds: a stronger attack may need less. This attacker knows "
        "the start, the plant and the controller."
    ]
    if already:
        text.append(f"{already} of {count} starts fail without any error.")
    if not hits:
        return Section("Smallest sensor error that causes failure", tuple(text))
    sizes = found.least.eps[found.hit].tolist()
    moments = [sample * found.loop.plant.interval for sample in found.least.when[found.hit].tolist()]
    text.append(
        f"Failure came {_three(moments, 's')} after the start (smallest, median, largest); the size was "
        f"{_three(sizes, 'times the budgets')}."
    )
    rows = tuple(
        (
            sensor.name,
            f"{sensor.budget:.4g} {sensor.unit}",
            *(f"{size * sensor.budget:.4g} {sensor.unit}" for size in _quartiles(sizes)),
        )
        for sensor in found.threat.sensors.parts
        if sensor.compromised
    )
    header = ("sensor", "declared budget", "smallest of all starts", "median start", "hardest start")
    return Section("Smallest sensor error that causes failure", tuple(text), header, rows)


def _at_random(found: _Found, random: Trials) -> Section:
    starts, each = int(found.hit.sum()), random.each
    named = {
        "noise": "uniform at each sample",
        "signs": "largest error, random signs",
        "held": "largest error, random signs that last",
        "bias": "one random offset for each sensor",
    }
    rows = tuple(
        (named[kind], f"{int(random.failed[kind].sum())} of {starts * each}", f"{int((random.failed[kind] > 0).sum())}")
        for kind in KINDS
    )
    text = (
        f"At each start {random.total} random errors of exactly the size at which the attack failed it, under the same "
        f"rates and windows: {int(random.any.sum())} of {starts} starts failed in at least one of them, "
        f"{random.share:.2%} of all trials failed.",
    )
    return Section("Random error of the same size", text, ("kind", "trials that failed", f"starts of {starts}"), rows)


def _trajectories(found: _Found, steps: int, seed: int) -> Section:
    """Nominal, worst of the random errors and adversarial, at the start of median size."""
    loop = found.loop
    places = found.hit.nonzero().squeeze(1)
    row = int(places[found.least.eps[places].argsort()[len(places) // 2]])
    start, wrong = found.start[row : row + 1], found.least.error[row : row + 1]
    sized = found.threat.sized(float(found.least.eps[row]))
    chance = _worst(loop, start, steps, sized, seed)
    with torch.no_grad():
        paths = loop.states(torch.cat([torch.zeros_like(wrong), chance, wrong]), start.expand(3, -1))
        margins = loop.margins(paths[2])
    limited = [place for place, part in enumerate(loop.plant.state) if part.limit is not None]
    place = limited[int(margins.amax(0).argmax())]
    part = loop.plant.state[place]
    assert part.limit is not None
    degrees = part.unit == "rad"
    scale, unit = (180 / math.pi, "degrees") if degrees else (1.0, part.unit)
    end = int(first_failure(loop, wrong, start)[0])
    times = tuple(round(t * loop.plant.interval, 6) for t in range(steps + 1))
    lines = []
    for name, path, last in zip(("nominal", "random", "adversarial"), paths, (steps, steps, end), strict=True):
        values = (path[: last + 1, place] * scale).tolist()
        lines.append(Line(name, times[: last + 1], tuple(float(f"{value:.6g}") for value in values)))
    limit = part.limit * scale
    chart = Chart(
        "lines",
        f"The {part.name} of one start: nominal, random and adversarial",
        f"The largest {part.name} is {_peak(lines[0]):.3g} {unit} without error and {_peak(lines[1]):.3g} under the "
        f"worst of 1,000 random errors; the attack's error of the same size passes {limit:.3g} after {times[end]:g} s.",
        "time (s)",
        f"{part.name} ({unit})",
        tuple(reversed(lines)),  # the first is the one to look at
        limits=((f"limit {limit:.3g} {unit}", limit), (f"limit -{limit:.3g} {unit}", -limit)),
    )
    errors = ", ".join(
        f"{sensor.name} {size:.3g} {sensor.unit}"
        for sensor, size in zip(found.threat.sensors.parts, wrong[0].abs().amax(0).tolist(), strict=True)
        if sensor.compromised
    )
    text = (f"The start of median size. Largest errors of the attack: {errors}. Random: the worst of 1,000.",)
    return Section("Trajectories", text, chart=chart)


def _worst(loop: ClosedLoop, start: Tensor, steps: int, threat: SensorThreat, seed: int, each: int = 250) -> Tensor:
    """Of the random errors at one start (1, N) the one that comes nearest to failure, (1, T, S)."""
    many = start.expand(each, -1)
    region = threat.around(many.new_zeros(each, steps, start.shape[1]))
    ids = content_ids(start) + torch.arange(each, dtype=torch.int64, device="cpu")
    best, nearest = start.new_zeros(1, steps, start.shape[1]), -math.inf
    for kind in KINDS:
        errors = region.land(random_errors(region, kind, Key(seed).fold("trials", kind).draws(ids, start.device)))
        with torch.no_grad():
            margin = loop(error=errors, start=many)
        if float(margin.max()) > nearest:
            best, nearest = errors[margin.argmax()][None], float(margin.max())
    return best


def _peak(line: Line) -> float:
    return max(abs(value) for value in line.y if value is not None)


def _quartiles(values: list[float]) -> list[float]:
    """Smallest, median and largest."""
    return [quantile(values, part) or 0.0 for part in (0.0, 0.5, 1.0)]


def _three(values: list[float], unit: str) -> str:
    return ", ".join(f"{value:.3g}" for value in _quartiles(values)) + f" {unit}"
