"""The attacker who knows of the detectors: another goal for the engine there is, and ways to search for it.

Evading: fooled is a wrong answer that the combined rule does not flag. Denying: a right answer that it flags. Both join
the margin m (at most 0 where the answer is wrong) with the detectors' slack s, the largest (score - threshold) / spread
over the detectors, above 0 where one flags. Each search climbs one of these, towards one class k or the nearest:

- sum:        -relu(m + a) - w relu(s + b)
- selective:  the one of the two that is not won yet
- max:        -max(m, s), for searches that only ask
- features:   minus the distance to the penultimate features of a clean input of another class

The verdict is the model's own answer and the policy's own rule, at the very point.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from signstep.detectors.detector import Detector
from signstep.detectors.policy import Policy
from signstep.detectors.seen import Reader, Seen
from signstep.engine.keys import Key
from signstep.engine.outputs import Outputs
from signstep.engine.problem import ModelProblem, nearness
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree
from signstep.engine.untouched import reseed
from signstep.errors import InputError

Mix = Literal["sum", "selective", "max", "features"]

# Beyond the boundary, in units of the clean margin and of the spread of clean scores: what rounding takes back.
MARGIN, _SLACK = 0.05, 0.02
# The selective loss of a row whose answer is not wrong yet: below that of any whose answer is.
_BEHIND = 1e3
_LARGE = 1e6


@dataclass(frozen=True, eq=False)
class Knowing(ModelProblem):
    """The question about model and detectors together.

    Attributes:
        policy: the combined rule.
        reader: of the model, for detectors.
        mix: which loss leads.
        deny: whether the goal is a right answer that is flagged, instead of a wrong one that is not.
        weight: w of the sum.
        scale: the clean margin (R,), which margins are measured by.
        guides: features (R, F) to match, for the mix of that name.
    """

    policy: Policy = field(default_factory=lambda: Policy(detectors=(), reject=0.5))
    reader: Reader | None = None
    mix: Mix = "sum"
    deny: bool = False
    weight: float = 1.0
    scale: Tensor = field(default_factory=lambda: torch.ones(1, dtype=torch.float32, device="cpu"))
    guides: Tensor | None = None

    @classmethod
    def of(cls, problem: ModelProblem, policy: Policy, reader: Reader, scale: Tensor, *, deny: bool) -> "Knowing":
        """The question beside a plain one."""
        return cls(
            problem.predictor,
            problem.task,
            problem.aim,
            problem.loss,
            problem.ids,
            problem.random,
            problem.frozen,
            problem.render,
            shape=problem.shape,
            transform=problem.transform,
            policy=policy,
            reader=reader,
            deny=deny,
            scale=scale,
        )

    def __call__(self, u: Tree, key: Key | None = None) -> Score:
        """The joint score of every row at u."""
        return self.parts(u, key)[0]

    def parts(self, u: Tree, key: Key | None) -> tuple[Score, Tensor, Tensor]:
        """The joint score, and how far each row is from the wished answer and flag: (R,) each, at most 0 there."""
        if self.random and key is not None:
            reseed(key.integer())
        seen = self.look(u, key)
        base = self.read(seen.outputs)
        if not self.policy.detectors and not self.deny:
            return base, nearness(base).neg(), torch.full_like(base.loss, -torch.inf)
        slack = self.slack(seen)
        flagged = slack > 0
        if torch.is_grad_enabled() and any(not one.exact for one in self.policy.detectors):
            with torch.no_grad():  # the verdict is that of the real scores, wherever a likeness leads
                flagged = self.slack(seen) > 0
        # The loss is found in the precision of the margins: beyond so much more of it means nothing.
        slack = slack.clamp(-_LARGE, _LARGE).to(base.ways.dtype)
        margins = base.ways / self.scale.to(base.ways).unsqueeze(1)
        if self.deny:
            answer = -margins.amin(1)
            fooled, ways = ~base.fooled & base.valid & flagged, torch.maximum(answer, -slack).unsqueeze(1)
            slack = -slack
        else:
            way = self.aim.way
            answer = margins.amin(1) if way is None else margins.gather(1, way.unsqueeze(1)).squeeze(1)
            fooled, ways = base.fooled & ~flagged, torch.maximum(margins, slack.unsqueeze(1))
        loss = self._loss(answer, slack, seen)
        return Score(loss, ways, fooled, base.valid, base.answer), answer, slack

    def look(self, u: Tree, key: Key | None) -> Seen:
        """What detectors are shown at u; further passes draw as the first one does."""
        assert self.reader is not None
        if not isinstance(u, Tensor):
            raise InputError("detectors look at one tensor, and several inputs are attacked", remedy="attack one")

        def ask(raw: Tensor) -> Outputs:
            again = len(raw) // max(1, len(self.ids))
            asked = self if again == 1 else replace(self, ids=self.ids.repeat(again))
            return asked.predictor(asked.inputs(raw, key))

        return Seen(self.reader, u, ask)

    def slack(self, seen: Seen) -> Tensor:
        """The largest slack (R,) of the detectors in float64, differentiable where they are."""
        parts = [slack_of(one, seen, self.policy.share(self.policy.rate)) for one in self.policy.detectors]
        if not parts:
            return torch.full((len(seen),), -torch.inf, dtype=torch.float64, device=seen.raw.device)
        return torch.stack(parts).amax(0)

    def _loss(self, answer: Tensor, slack: Tensor, seen: Seen) -> Tensor:
        if self.mix == "max":
            return -torch.maximum(answer, slack)
        if self.mix == "selective":
            return torch.where(answer > -MARGIN, -_BEHIND - answer, -slack)
        if self.mix == "features" and self.guides is not None:
            ahead = (seen.features - self.guides).square().sum(1)
            return -ahead / self.guides.square().sum(1).clamp_min(1e-12)
        return -(answer + MARGIN).relu() - self.weight * (slack + _SLACK).relu()

    def take(self, index: Tensor, way: Tensor | None = None, loss: str | None = None) -> "Knowing":
        """The rows at ``index``."""
        taken: Any = super().take(index, way, loss)
        guides = None if self.guides is None else self.guides[index]
        return replace(taken, scale=self.scale[index], guides=guides)  # type: ignore[no-any-return]

    def with_loss(self, loss: str | None) -> "Knowing":  # noqa: ARG002
        """The same: the joint loss has the margin's part in any case."""
        return self

    def reported(self, loss: Tensor) -> Tensor:
        """The joint loss as it is."""
        return loss

    @property
    def classwise(self) -> bool:
        """Whether rows can be led towards one class."""
        return super().classwise and not self.deny


def slack_of(detector: Detector, seen: Seen, rate: float) -> Tensor:
    """(score - threshold) / spread (R,) float64: above 0 exactly where the detector flags at this rate."""
    made = detector.rule.surrogate(seen) if torch.is_grad_enabled() else None
    scores = detector.of(seen) if made is None else torch.nan_to_num(made.double(), nan=_LARGE)
    limits = detector.thresholds(rate, seen.classes if detector.classes is not None else scores).to(scores.device)
    return (scores - limits) / detector.spread
