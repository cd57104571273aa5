"""Detectors and their policy as a row of the cost table."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from signstep.auditing.detection import standing
from signstep.auditing.run import Run, audit
from signstep.defences.cost.bench import Bench
from signstep.defences.cost.record import CostRow
from signstep.detectors.policy import Policy


@dataclass(frozen=True, eq=False)
class Watched:
    """The undefended model behind a policy: what is flagged is answered by nobody.

    An example holds where it is right untouched and not flagged, and no attack leads it to a wrong answer that is not.
    Unaware are the attacks on the model alone; aware is the union of all ways of `signstep.detectors.pursuing`.
    """

    policy: Policy
    kind: str = "detector"

    @property
    def name(self) -> str:
        """Its detectors and the rate of clean inputs that it may flag."""
        return f"{' + '.join(one.name for one in self.policy.detectors)} at {self.policy.rate:g}"

    def measured(self, bench: Bench) -> CostRow:
        """An audit with the policy."""
        found = audit(
            bench.model,
            [(bench.x, bench.y)],
            threat=bench.threat,
            attacks=bench.attacks,
            curve=False,
            search=replace(bench.search, gradient_path="aware"),
            run=Run(device=bench.x.device, policy=self.policy),
        )
        detection = found.detection
        assert detection is not None
        examples = found.per_example
        left = standing(detection, examples.clean, examples.verdicts)
        rows = zip(examples.clean, detection.clean(), detection.evaded, strict=True)
        letters = ["h" if right == "r" and not detection.flagged(p) and gone != "f" else "f" for right, p, gone in rows]
        plain = bench.caller(bench.model)

        def call(x: Tensor) -> Any:
            decided = self.policy.decide(x)
            return plain(x) if decided.answers is None else decided

        return bench.row(
            self.name,
            self.kind,
            clean=left.served / found.examples,
            unaware=left.plain / found.examples,
            aware=left.knowing / found.examples,
            p=bench.against_base(letters),
            latency=bench.latency(call),
            training="clean rows to calibrate on",
            ease="medium: somebody has to deal with what is refused",
            note=f"{left.refused} right answers refused untouched, {left.denied} more where an attacker wants it",
        )
