"""A closed loop as a case: the shipped cart-pole, or the plant and controller that a schema and a model name."""

import hashlib
from dataclasses import replace
from functools import partial

import torch

from signstep.attacks.search.samples import MOST
from signstep.domains.bare import bare_module
from signstep.domains.case import Case, Request
from signstep.domains.control.causal import causal_row
from signstep.domains.control.controller import controller_for, weights_of
from signstep.domains.control.plants import CartPole, Pendulum, Plant, plant
from signstep.domains.control.rollout import SHARPNESS, ClosedLoop
from signstep.domains.control.schema import Schema
from signstep.domains.control.sensors import Sensor, Sensors
from signstep.domains.control.starts import starts
from signstep.domains.control.summary import summary
from signstep.domains.control.threat import sensor_threat
from signstep.domains.control.threat_size import size_of
from signstep.domains.own_attacks import named_in
from signstep.engine.tasks import Objective
from signstep.errors import InputError
from signstep.messages import Arg, Key
from signstep.model.declaration import Model

# What the shipped examples allow: each sensor so much that its share of the controller's action is about the same.
EXAMPLES: dict[str, tuple[Sensor, ...]] = {
    CartPole().name: (
        Sensor("cart position", "m", 0.14, 2.0),
        Sensor("cart velocity", "m/s", 0.12),
        Sensor("pole angle", "rad", 0.019),
        Sensor("pole angular velocity", "rad/s", 0.075),
    ),
    Pendulum().name: (Sensor("angle", "rad", 0.11), Sensor("angular velocity", "rad/s", 0.33)),
}
SECONDS = 4.0
STARTS = 16
# Of few numbers; a saturated controller has no gradient where it begins. As many random points are the control.
_SEARCHES = ("random-direction:queries=670", "explore")


def loop_case(request: Request, schema: Schema) -> Case:
    """An audit of a closed loop: which starts can be driven into failure by errors of the sensors?

    Raises:
        InputError: schema, plant and controller do not fit each other.
        LoadError: a file or the user's module cannot be used.
    """
    if request.data is not None:
        raise InputError(
            Arg("data", request.data),
            "has no meaning for a plant, whose starts are drawn",
            remedy="drop it",
        )
    if request.label_column is not None:
        raise InputError(Arg("label_column", request.label_column), "has no meaning for a plant", remedy="drop it")
    if request.ignore or schema.ignore:
        raise InputError("columns to ignore have no meaning for a plant", remedy="drop them")
    if request.task != "auto" or request.tolerance is not None:
        raise InputError(
            "task and tolerance have no meaning for a plant, which fails at its limits", remedy="drop them"
        )
    loop, description, notes, hashes = _loop(request, schema)
    loop, known = loop.eval(), loop.plant
    sensors = Sensors(_sensors(known, schema), known.interval)
    count = request.limit or schema.starts or STARTS
    steps = max(1, round((schema.seconds or SECONDS) / known.interval))
    start = starts(known, count, seed=request.seed)
    threat = sensor_threat(sensors, size_of(request.threat))
    zeros = torch.zeros(count, steps, len(sensors), dtype=torch.float32, device="cpu")
    batches = [
        ({"error": zeros[first : first + request.rows], "start": start[first : first + request.rows]}, None)
        for first in range(0, count, request.rows)
    ]
    free = any(sensor.compromised and sensor.shape == "free" for sensor in sensors.parts)
    return Case(
        domain="control",
        model=Model(loop, task=Objective(0.0), name=description),
        batches=batches,
        threat={"error": threat},
        data=f"{count} starts of {known.name}, {steps} samples of {known.interval:g} s, drawn with seed {request.seed}",
        summary=partial(summary, loop=loop, start=start, steps=steps, threat=threat, seed=request.seed),
        named=named_in({"causal-fgsm": causal_row(loop)}),
        attacks=(
            *("random-sign", "fgsm", "pgd:steps=20"),
            *(("causal-fgsm",) if free else ()),
            *(_SEARCHES if steps * len(sensors) <= MOST else ()),
        ),
        curve=(0.25, 0.5, 0.75, 1.0, 1.5),
        opening=(
            f"plant: {known.name}, failed beyond "
            + " or ".join(_limit(known, k) for k in range(len(known.state)) if known.state[k].limit is not None),
            f"sensors: {sensors}",
            "open-loop attacks know the start and plan the whole series; causal-fgsm decides from what has been seen",
        ),
        notes=(
            *notes,
            f"the gradient of the margin is that of a soft maximum over moments (sharpness {SHARPNESS:g}); values and "
            "verdicts are exact",
        ),
        hashes=hashes,
        search=request.search,
        total=count,
        terms={
            **sensors.plain(),
            "eps": threat.eps,
            "plant": known.name,
            "samples": steps,
            "limits": {part.name: part.limit for part in known.state if part.limit is not None},
            "attacker": "open-loop, but for causal-fgsm",
        },
    )


def _limit(known: Plant, place: int) -> str:
    part = known.state[place]
    return f"{part.limit:.4g} {part.unit} of {part.name}"


def _loop(request: Request, schema: Schema) -> tuple[ClosedLoop, str, tuple[str, ...], dict[str, str]]:
    """The loop, what it is, what must be said of it, and hashes."""
    known = plant(schema.plant or CartPole().name)
    if request.model is None:
        if request.weights is not None or request.model_args:
            raise InputError(
                "weights and model arguments need a model", remedy=("pass", Arg("model", "module:factory"))
            )
        digest = hashlib.sha256(weights_of(known).read_bytes()).hexdigest()
        loop = ClosedLoop(known, controller_for(known))
        return loop, f"the shipped neural controller of the {known.name}", (), {"weights": digest}
    network, model = bare_module(request)
    said, notes, hashes = model.title, tuple(model.notes), dict(model.hashes)
    if not isinstance(network, ClosedLoop):
        return ClosedLoop(known, network), f"{said}, which controls the {known.name}", notes, hashes
    if schema.plant is not None and schema.plant != network.plant.name:
        raise InputError(
            Key("plant", schema.plant),
            f", and {request.model} is a loop with the plant {network.plant.name!r}",
            remedy="drop one of the two",
        )
    return network, said, notes, hashes


def _sensors(known: Plant, schema: Schema) -> tuple[Sensor, ...]:
    """A sensor for each coordinate of the state, in its order; those that the schema does not name can be trusted."""
    if not schema.sensors:
        if known.name not in EXAMPLES:  # the user's own
            raise InputError(
                f"the schema names no sensors of {known.name}", remedy="write a [[sensor]] with a budget for one"
            )
        return EXAMPLES[known.name]
    names = [part.name for part in known.state]
    given = {sensor.name: sensor for sensor in schema.sensors}
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(
            f"sensor {unknown[0]!r} is not one of {known.name}, which has {', '.join(names)}", remedy="correct it"
        )
    found = []
    for part in known.state:
        sensor = given.get(part.name, Sensor(part.name, part.unit))
        if sensor.unit and sensor.unit != part.unit:
            raise InputError(
                f"sensor {part.name!r} is given in {sensor.unit}, and {known.name} has it in {part.unit}",
                remedy="convert budget and rate",
            )
        if part.name in given and not sensor.compromised and part.name not in schema.trusted:
            raise InputError(
                f"sensor {part.name!r} has no budget", remedy=f"write one in {part.unit}, or compromised = false"
            )
        found.append(replace(sensor, unit=part.unit))
    return tuple(found)
