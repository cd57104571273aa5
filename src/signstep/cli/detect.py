"""``signstep detect``: fit detectors, score inputs, check whether the promise still holds."""

import json as jsonlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.first import look_first, refuse_missing
from signstep.cli.groups import (
    DataOptions,
    DetectorOptions,
    MachineOptions,
    ModelOptions,
    ThreatOptions,
    other_model,
    request_of,
    spread,
)
from signstep.cli.policies import check_detectors, detector_of, is_saved, policy_of
from signstep.cli.terminal import aside, say, told
from signstep.cli.work import refuse_foreign
from signstep.detectors import ACTIONS, DETECTORS, Detector, check, rows_needed
from signstep.detectors.storage import read_detector
from signstep.domains.case import Request
from signstep.domains.image.case import defended, opened_data, opened_model, threat_of
from signstep.domains.image.declared import agreed
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model

_HELP = """Detectors with a promised false-alarm rate: fit one, score inputs, check whether the promise still holds.

fit splits the clean rows of --data by what they contain, fits on one half, calibrates on the other and writes the
detector to --out. score says of each input of --data what the policy does with it. check tests the rate --reject on
new clean rows, and compares their raw scores with those of the calibration: exit status 1 if the promise is broken.

Detectors: {names}.

Examples:

  signstep detect fit --model nets:net --weights net.safetensors --data clean.npz --detect squeeze:bits=4 --out
  squeeze.safetensors

  signstep detect score --model nets:net --weights net.safetensors --data inputs.npz --detect squeeze.safetensors
  --reject 0.01

  signstep detect check --model nets:net --weights net.safetensors --data new_clean.npz --detect squeeze.safetensors
  --reject 0.01
""".format(names=", ".join(DETECTORS.own))

_LEVEL = 0.9
_RATES = (0.01, 0.05)


@app.command(short_help="Detectors: fit, score inputs, check the promise.", help=_HELP)
@spread
def detect(
    action: Annotated[str, typer.Argument(help="fit, score or check.")],
    model: ModelOptions,
    data: DataOptions,
    threat: ThreatOptions,
    machine: MachineOptions,
    detectors: DetectorOptions,
    by_class: Annotated[
        bool, typer.Option(help="fit: p-values within the class that the model answers; needs rows of each.")
    ] = False,
    other: Annotated[str | None, typer.Option(help="The second model of second-model: MODEL or MODEL@WEIGHTS.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="fit: recipes that a detector which learns is trained on.")
    ] = None,
    seed: o.Seed = 0,
    out: Annotated[Path, typer.Option(help="fit: the file to write.")] = Path("detector.safetensors"),
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Fit, score or check."""
    if action not in ("fit", "score", "check"):
        raise InputError(f"detect {action!r} is none of fit, score and check", remedy="write one of them")
    request = request_of(model, data, threat)
    _check(action, request, detectors, by_class=by_class, attack=attack)
    if action == "fit":
        refuse_foreign(out, read_detector)
    where, quiet = machine.ready(), aside()
    look_first(replace(request, threat=request.threat or "linf:0"))
    source = opened_data(request)
    asked, declared = agreed(request, opened_model(request, source.shape), source)
    source = source if asked is request else opened_data(asked)
    declared = defended(asked, declared, source.bounds).to(where)
    second = None if other is None else other_model(other, model, option="other")
    if action == "fit":
        assert detectors.detect is not None
        allowed = None if request.threat is None else threat_of(request, source.bounds)
        assert allowed is None or isinstance(allowed, ThreatModel)
        assert request.data is not None
        made = detector_of(
            detectors.detect[0],
            asked,
            declared,
            request.data,
            other=second,
            by_class=by_class,
            threat=allowed,
            attacks=tuple(o.attacks_of(attack)) if attack else (),
            seed=seed,
        )
        made.save(out)
        told(jsonlib.dumps(_described(made), indent=1) if json else _said(made))
        say(quiet, f"written: {out}")
    elif action == "score":
        _score(detectors, asked, declared, second, json=json)
    else:
        assert detectors.detect is not None
        assert detectors.reject is not None
        found = [
            check(detector_of(text, asked, declared, None, other=second), source, detectors.reject)
            for text in detectors.detect
        ]
        plain = [{"name": one.name, "holds": one.holds, "alike": one.alike, **_plain(one.kept)} for one in found]
        told(jsonlib.dumps(plain, indent=1) if json else "\n".join(map(str, found)))
        if not all(one.holds for one in found):
            raise typer.Exit(1)


def _score(given: DetectorOptions, request: Request, model: Model, other: Model | None, *, json: bool) -> None:
    policy = policy_of(given, request, model, other=other)
    assert policy is not None
    rows: list[dict[str, Any]] = []
    for x, _ in opened_data(request):
        assert isinstance(x, Tensor)
        decided = policy.decide(x)
        for action, p, by in zip(decided.action.tolist(), decided.p_value.tolist(), decided.by.tolist(), strict=True):
            rows.append({"row": len(rows), "action": ACTIONS[action], "p": p, "by": policy.detectors[by].name})
    if json:
        told(jsonlib.dumps(rows))
        return
    flagged = [row for row in rows if row["action"] != "accept"]
    lines = [f"{row['row']}: {row['action']}, p = {row['p']:.4g} by {row['by']}" for row in flagged]
    told("\n".join([*lines, f"{len(flagged)} of {len(rows)} inputs are flagged, {100 * policy.rate:g} % asked."]))


def _check(action: str, request: Request, given: DetectorOptions, *, by_class: bool, attack: list[str] | None) -> None:
    """See that what is asked makes sense, before anything is loaded."""
    if request.model is None or request.data is None:
        missing = "model" if request.model is None else "data"
        raise InputError(Arg(missing), "is missing", remedy=("pass", Arg("model"), "and", Arg("data")))
    if not given.detect:
        raise InputError(Arg("detect"), "is missing", remedy=("pass", Arg("detect", "squeeze")))
    saved = [is_saved(text) for text in given.detect]
    if request.grid is not None and request.threat is None:
        raise InputError(Arg("grid", request.grid), "has no effect without a threat", remedy=("pass", Arg("threat")))
    if action == "fit":
        if len(given.detect) > 1 or any(saved):
            raise InputError(Arg("detect", given.detect), "is no single name", remedy="fit one detector at a time")
        if given.reject is not None or given.review or given.clean is not None:
            raise InputError(
                "a detector is fitted without rates, on", Arg("data"), remedy="drop --reject, --review and --clean"
            )
        check_detectors(replace(given, reject=0.5, clean=""), None)
        return
    if by_class or attack:
        raise InputError(Arg("by_class" if by_class else "attack"), "is for fit alone", remedy="drop it")
    for text in given.detect:
        if is_saved(text):
            refuse_missing("detect", Path(text))
    if action == "check" and not all(saved):
        raise InputError(
            Arg("detect", given.detect), "names no file", remedy="pass files that signstep detect fit wrote"
        )
    check_detectors(given, str(request.data))


def _described(made: Detector) -> dict[str, Any]:
    return {
        "name": made.name,
        "options": dict(made.options),
        "fit_rows": made.fit_rows,
        "calibration_rows": len(made.calibration),
        "passes": made.passes,
        "by_class": made.classes is not None,
        "digests": dict(made.digests),
    }


def _said(made: Detector) -> str:
    """What was made, and which rates it can promise."""
    row = DETECTORS.get(made.name)
    smallest = min(made.groups().values())
    lines = [
        f"{made.title}: fitted on {made.fit_rows} rows, calibrated on {len(made.calibration)} others; {made.passes} "
        "forward passes for each input beside the model's own."
    ]
    for rate in _RATES:
        if smallest >= rows_needed(rate):
            low, high = (f"{100 * end:.2f}" for end in made.band(rate, _LEVEL))
            lines.append(
                f"{100 * rate:g} % asked: {low} to {high} % with {100 * _LEVEL:g} % confidence, of clean inputs "
                "such as these."
            )
        else:
            lines.append(f"{100 * rate:g} % cannot be promised: that needs {rows_needed(rate)} calibration rows.")
    if row is not None:
        lines.append(f"Known break: {row.broken}. Audit it with an attacker who knows: signstep audit --detect.")
    return "\n".join(lines)


def _plain(thing: Any) -> dict[str, Any]:
    return {part.name: getattr(thing, part.name) for part in fields(thing)}
