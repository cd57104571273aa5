"""The table that guides print of attacks, measured on the model that is diagnosed."""

import time
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from signstep.attacks.recipes import needs_of, recipe
from signstep.auditing.result import Result
from signstep.auditing.run import Run, audit
from signstep.auditing.sections import Section
from signstep.diagnosing.bench import Bench
from signstep.diagnosing.student import distilled
from signstep.diagnosing.view import Shown, View, unseen
from signstep.engine.statistics import wilson
from signstep.engine.threat import ThreatModel, l2
from signstep.errors import SignstepError
from signstep.model.declaration import Model

FEW = 32
TITLE = "The attacks of the guides, on this model"
ATTACKS = ("fgsm", "pgd", "cw:steps=50", "square:queries=300")
LOUD = 1e4
_KNOWS = {"gradients": "weights", "scores": "scores", "labels": "labels", "nothing": "nothing"}
_GOALS = {"cw": "smallest change", "fgsm": "within eps", "pgd": "within eps", "square": "within eps"}


class Louder(nn.Module):
    """A network whose scores are multiplied: the same answers, and a cross-entropy that has no gradient left."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Any, **named: Any) -> Any:
        """The scores times 10^4."""
        scores = self.network(*args, **named)
        return scores * LOUD if isinstance(scores, Tensor) else scores


def _run(bench: Bench) -> Shown:
    if bench.classes is None or not isinstance(bench.threat, ThreatModel) or bench.form == "labels":
        return unseen(TITLE, "it needs classes, scores and one threat")
    index = bench.some(FEW)
    loud = bench.form == "logits" and bench.model.output is None
    student = distilled(bench) if isinstance(bench.x, Tensor) else None
    rows = []
    lost: dict[str, float] = {}
    for spec in ATTACKS:
        row, masked = _measured(bench, spec, index, student, loud)
        rows.append(row)
        lost |= {} if masked is None else {f"{spec.partition(':')[0]}, success lost to logits x 10^4": masked}
    header = (
        "attack", "knows", "goal", "steps", "fell", "median size", "ms each", "passes each", "falls on a student",
        "lost to logits x 10^4", "led to a class",
    )  # fmt: skip
    text = (
        f"On {len(index)} examples, {bench.threat}. Median size: of the changes that fooled, in the threat's norm. "
        "Falls on a student: of its points, those that a small network trained on the model's answers gets wrong too, "
        "of those that it answers rightly untouched. The attack of Carlini & Wagner is one in L2, and is run in the "
        "smallest L2 ball that holds the threat's.",
        "Lost to logits x 10^4: success under the plain cross-entropy of the textbooks, less that on the same network "
        "with its scores multiplied, in points; what the losses here do not lose is said behind it. Led to a class: "
        "examples that reach the class after their own, which was asked for.",
    )
    return Shown((Section(TITLE, text, header, tuple(rows)),), lost)


def _measured(
    bench: Bench, spec: str, index: Tensor, student: Model | None, loud: bool
) -> tuple[tuple[str, ...], float | None]:
    attack = recipe(spec)
    began = time.perf_counter()
    found = _audited(bench, bench.model, spec, index, transfer=student)
    seconds = time.perf_counter() - began
    if found is None:
        return (spec, _KNOWS[needs_of(attack)], *(["not defined here"] + ["-"] * 8)), None
    entry = found.attacks[0]
    shown = entry.transfers.get("student")
    masked, told = (None, "not asked") if not loud else _masked(bench, spec, index)
    led = _led(bench, spec, index)
    low, high = wilson(entry.fooled, max(1, found.clean_right))
    name = spec.partition(":")[0]
    return (
        spec,
        _KNOWS[entry.needs],
        _GOALS[name],
        "-" if entry.needs == "scores" else str(entry.steps),
        f"{entry.fooled} of {found.clean_right} [{low:.0%}, {high:.0%}]",
        "none" if entry.distance is None else f"{entry.distance:.3g}",
        f"{1000 * seconds / found.examples:.1f}",
        f"{entry.forwards + entry.backwards:.1f}",
        "-" if shown is None else f"{shown[0]} of {shown[1]}",
        told,
        led,
    ), masked


def _masked(bench: Bench, spec: str, index: Tensor) -> tuple[float | None, str]:
    """Points of success that an attack loses where scores are multiplied: by the plain cross-entropy, and by ours."""
    louder = replace(bench.model, network=Louder(bench.model.network))
    if needs_of(recipe(spec)) != "gradients":
        plain = [_audited(bench, model, spec, index) for model in (bench.model, louder)]
        if plain[0] is None or plain[1] is None:
            return None, "not asked"
        lost = 100 * (plain[0].success_rate - plain[1].success_rate)
        return lost, f"{lost:.0f}"
    found = {
        loss: [_audited(bench, model, spec, index, loss=loss) for model in (bench.model, louder)]
        for loss in ("plain-ce", None)
    }
    ours, theirs = found[None], found["plain-ce"]
    if ours[0] is None or ours[1] is None:
        return None, "not asked"
    own = 100 * (ours[0].success_rate - ours[1].success_rate)
    if theirs[0] is None or theirs[1] is None:
        return own, f"{own:.0f} by its own loss"
    lost = 100 * (theirs[0].success_rate - theirs[1].success_rate)
    return lost, f"{lost:.0f}; {own:.0f} by ours"


def _led(bench: Bench, spec: str, index: Tensor) -> str:
    found = _audited(bench, bench.model, spec, index, target="next")
    if found is None or found.attacks[0].reached is None:
        return "not asked"
    return f"{found.attacks[0].reached} of {found.examples}"


def _audited(
    bench: Bench,
    model: Model,
    spec: str,
    index: Tensor,
    *,
    loss: str | None = None,
    target: Any = None,
    transfer: Model | None = None,
) -> Result | None:
    """One audit of some examples; None where the attack is not defined for this threat, model or goal."""
    search = replace(bench.search, target=target, loss=bench.search.loss if loss is None else loss)
    assert isinstance(bench.threat, ThreatModel)
    threat = _in_l2(bench.threat, bench.x) if spec.startswith("cw") else bench.threat
    try:
        found = audit(
            model,
            bench.batches(index),
            threat=threat,
            attacks=[spec],
            curve=False,
            search=search,
            run=Run(transfer_to={} if transfer is None else {"student": transfer}),
        )
    except SignstepError:
        return None
    if found.partial:
        raise KeyboardInterrupt
    entry = found.attacks[0]
    bench.spend(round((entry.forwards + entry.backwards + 1) * found.examples))
    return found


def _in_l2(threat: ThreatModel, x: Any) -> ThreatModel:
    """The smallest L2 ball that holds a threat's own: eps sqrt(D) for L-infinity; what is no such ball stays."""
    if not isinstance(x, Tensor) or not isinstance(threat.eps, float) or threat.norm.name not in ("linf", "l1"):
        return threat
    wide = threat.eps * (x[0].numel() ** 0.5 if threat.norm.name == "linf" else 1.0)
    return replace(l2(wide), low=threat.low, high=threat.high, mask=threat.mask, grid=threat.grid)


ROW = View(
    "attacks",
    TITLE,
    "What does each of the well-known attacks know, want, cost and find here?",
    "the tables of Carlini et al. 2019 (arXiv:1902.06705) and Croce & Hein 2020 (arXiv:2003.01690)",
    f"FGSM, PGD, Carlini & Wagner and Square on {FEW} examples, each up to six times",
    _run,
)
