"""What an audit of a classifier of series means: alarms silenced and set off, through which sensors, and a picture."""

from collections.abc import Mapping

import torch
from torch import Tensor

from signstep.auditing.result import Result
from signstep.auditing.sections import Chart, Line, Section
from signstep.domains.control.sensors import Sensors
from signstep.domains.control.series import Series

_MANY = 5


def summary(
    result: Result, points: Mapping[str, Tensor], *, series: Series, sensors: Sensors, alarm: bool
) -> tuple[Section, ...]:
    """Success by class, the sensors that carried it, and one series drawn out.

    Args:
        result: the audit.
        points: the series that fooled, as `Evidence` kept them.
        series: what was audited.
        sensors: of the threat.
        alarm: class 0 is normal operation and class 1 a fault.
    """
    sections = [_answers(result, points, series) if series.real else _classes(result, series, alarm=alarm)]
    if points and "x" in points and len(points["x"]):
        sections += [_carriers(points, sensors), _picture(points, series, sensors)]
    return tuple(sections)


def _classes(result: Result, series: Series, *, alarm: bool) -> Section:
    """For each class how many were right, and how many each attack turned."""
    labels, columns = result.per_example.labels, result.per_example.verdicts
    rows, said = [], []
    for label, name in enumerate(series.classes):
        places = [row for row, own in enumerate(labels) if own == label]
        right = [row for row in places if result.per_example.clean[row] == "r"]
        counts = {attack: sum(column[row] == "f" for row in right) for attack, column in columns.items()}
        turned = sum(result.worst_case[row] == "f" for row in right)
        what = ("false alarm set off", "alarm silenced")[label] if alarm else "made to look like another class"
        rows.append((name, str(len(places)), str(len(right)), *(str(count) for count in counts.values()), str(turned)))
        said.append(f"{name}: {what} in {turned} of {len(right)} series that were right untouched.")
    header = ("class", "series", "right untouched", *columns, "any attack")
    return Section("Alarms" if alarm else "By class", tuple(said), header, tuple(rows))


def _answers(result: Result, points: Mapping[str, Tensor], series: Series) -> Section:
    """For each attack how many right answers it pushed beyond the tolerance, and how far the answers moved."""
    right = [row for row, letter in enumerate(result.per_example.clean) if letter == "r"]
    rows = [
        (attack, str(len(right)), str(sum(column[row] == "f" for row in right)))
        for attack, column in result.per_example.verdicts.items()
    ]
    rows.append(("any attack", str(len(right)), str(sum(result.worst_case[row] == "f" for row in right))))
    said = [f"An answer is right within the tolerance of its label: {len(right)} of {len(series.x)} untouched."]
    if len(points.get("answer_adv", ())):
        moved = (points["answer_adv"].double() - points["answer"].double()).abs()
        said.append(
            f"Over the {len(moved)} points that were pushed beyond it the answer moved by {float(moved.median()):.4g} "
            f"(median), {float(moved.max()):.4g} (most); labels lie between {float(series.y.min()):.4g} and "
            f"{float(series.y.max()):.4g}."
        )
    return Section("Answers", tuple(said), ("attack", "right untouched", "pushed beyond the tolerance"), tuple(rows))


def _carriers(points: Mapping[str, Tensor], sensors: Sensors) -> Section:
    """How much of its budget each sensor used, mean over the samples of the series that fooled."""
    error = (points["x_adv"].double() - points["x"].double()).abs()
    used = (
        error.mean((0, 1))
        / torch.tensor(
            [max(sensor.budget, 1e-300) for sensor in sensors.parts], dtype=torch.float32, device="cpu"
        ).double()
    )
    largest = error.amax((0, 1)).tolist()
    bad = [place for place, sensor in enumerate(sensors.parts) if sensor.compromised]
    order = sorted(bad, key=lambda place: -float(used[place]))[:_MANY]
    rows = tuple(
        (
            sensors.parts[place].name,
            f"{sensors.parts[place].budget:.4g} {sensors.parts[place].unit}".strip(),
            f"{largest[place]:.4g} {sensors.parts[place].unit}".strip(),
            f"{float(used[place]):.0%}",
        )
        for place in order
    )
    text = (f"Over the {len(error)} series that were turned; the {len(order)} sensors that used most of their budget.",)
    return Section("Sensors", text, ("sensor", "budget", "largest error", "mean error, share of budget"), rows)


def _picture(points: Mapping[str, Tensor], series: Series, sensors: Sensors) -> Section:
    """The first series that was turned, in the sensor whose error is the largest share of its spread."""
    before, after = points["x"][0].double(), points["x_adv"][0].double()
    spread = series.x.reshape(-1, series.x.shape[2]).double().std(0).clamp_min(1e-12)
    place = int(((after - before).abs().mean(0) / spread).argmax())
    sensor = sensors.parts[place]
    times = tuple(float(f"{t * sensors.interval:.9g}") for t in range(len(before)))

    def line(name: str, values: Tensor) -> Line:
        return Line(name, times, tuple(float(f"{value:.6g}") for value in values[:, place].tolist()))

    names = [series.called(points[part][0]) for part in ("answer", "answer_adv")]
    unit = f" ({sensor.unit})" if sensor.unit else ""
    chart = Chart(
        "lines",
        f"{sensor.name} of one series: as it was, and as it was written",
        f"The series for which the model says {names[0]} when untouched, and the one for which it says {names[1]}; "
        "errors stay "
        f"within {sensor.budget:.4g}{' ' + sensor.unit if sensor.unit else ''}.",
        "time (s)",
        f"{sensor.name}{unit}",
        (line(f"attacked: {names[1]}", after), line(f"untouched: {names[0]}", before)),
    )
    return Section("One series", (f"Example {int(points['row'][0])}.",), chart=chart)
