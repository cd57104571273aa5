"""The ways an attacker who knows of the detectors goes, one after the other, and the union of what they come to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.attacks.recipes import recipe
from signstep.detectors.knowing import Knowing, Mix
from signstep.detectors.orthogonal import Orthogonal
from signstep.detectors.policy import Policy
from signstep.detectors.seen import Reader, Seen
from signstep.engine.attack import Attack, GradientAttack
from signstep.engine.keys import Key
from signstep.engine.problem import nearness
from signstep.engine.tasks import Multiclass, Score
from signstep.engine.tree import Tree, per_row, put, take
from signstep.errors import InputError, ModelError
from signstep.model.declaration import Model
from signstep.model.subject import Question


@dataclass(frozen=True)
class Way:
    """One way to search: a mix, a recipe, and whether steps are projected or begin at a guide."""

    mix: Mix
    recipe: str
    weight: float = 1.0
    orthogonal: bool = False

    @property
    def name(self) -> str:
        """For records and notes."""
        return f"{'orthogonal' if self.orthogonal else self.mix} {self.recipe}"

    def attack(self) -> Attack:
        """The attack that carries it out."""
        made = recipe(self.recipe, oracle=Orthogonal() if self.orthogonal else None)
        begins = self.mix == "features" and isinstance(made, GradientAttack)
        return replace(made, start="best") if begins else made  # type: ignore[type-var]


WAYS = (
    Way("sum", "apgd:steps=25"),
    Way("selective", "pgd:steps=40"),
    Way("sum", "pgd:steps=40", orthogonal=True),
    Way("features", "apgd:steps=25"),
    Way("sum", "apgd:steps=30,targets=3", weight=4.0),
    Way("max", "square:queries=300,start=best,p=0.1"),
)
DENIALS = (Way("sum", "apgd:steps=25"), Way("max", "square:queries=100"))


@dataclass(frozen=True, eq=False)
class Evaded:
    """What an attacker who knows came to.

    Attributes:
        x: points (R, ...) in raw units, the best of each row.
        fooled: (R,) bool: the goal is reached there, by the model's own answer and the policy's own rule.
        near: (R,) minus the joint margin there.
        by: for each row the way that reached the goal, "" where none did, "plain" where a plain attack had.
        forwards: forward passes spent on each row.
        notes: ways that could not be gone, and why.
    """

    x: Tensor
    fooled: Tensor
    near: Tensor
    by: tuple[str, ...]
    forwards: Tensor
    notes: tuple[str, ...] = ()


def pursue(
    question: Question,
    policy: Policy,
    key: Key,
    *,
    deny: bool = False,
    begin: Tensor | None = None,
    standing: Tensor | None = None,
    ways: Sequence[Way] | None = None,
) -> Evaded:
    """Go every way on the rows that still stand, the union of all.

    Args:
        question: a batch, as it is asked of the model alone.
        policy: the combined rule.
        key: randomness.
        deny: a right answer that is flagged, instead of a wrong one that is not.
        begin: points (R, ...) that plain attacks came to; those that evade already count.
        standing: rows (R,) to attack; None for all.
        ways: to go, in their order; None for all there are.
    """
    base, x = question.problem, question.x
    if not isinstance(base.task, Multiclass) or base.goal == "targeted":
        raise InputError(
            "detectors are attacked untargeted, on models that choose one class", remedy="leave the policy out"
        )
    if not isinstance(x, Tensor):
        raise InputError("detectors look at one tensor, and several inputs are attacked", remedy="attack one")
    reader = policy.reader
    assert reader is not None or not policy.detectors
    declared = Reader.of(Model.of(base.predictor.model)) if reader is None else reader
    margin = -nearness(question.clean)
    scale = torch.where(torch.isfinite(margin), margin.abs(), 1.0).clamp_min(1e-3)
    problem = Knowing.of(base, policy, declared, scale, deny=deny)
    asked = replace(question, problem=problem, twin=None)
    best, fooled, near = x, torch.zeros_like(question.clean.fooled), torch.full_like(margin, -torch.inf)
    by = [""] * len(x)
    spent = torch.zeros_like(base.ids)
    for point in [x] if begin is None or deny else [x, begin]:
        score = _looked(problem, point, key)
        better = nearness(score) > near
        best = torch.where(per_row(better, x), point, best)
        near = torch.where(better, nearness(score), near)
        fooled = fooled | score.fooled
        by = [was or ("plain" if hit else "") for was, hit in zip(by, score.fooled.tolist(), strict=True)]
    alone = torch.ones_like(fooled) if standing is None else standing
    notes: list[str] = []
    gone = ways if ways is not None else DENIALS if deny else WAYS
    for place, way in enumerate(gone if policy.detectors else ()):
        index = (alone & ~fooled).nonzero().squeeze(1)
        if not len(index):
            break
        part = replace(asked.take(index), problem=replace(problem.take(index), mix=way.mix, weight=way.weight))
        at: Tree = take(best, index)
        try:
            if way.mix == "features":
                part, at = _guided(part, policy)
            outcome = part.run(way.attack(), key.fold("knowing", place, way.name), at)
        except (ModelError, InputError) as error:  # no features, no gradient, not for this norm: another way may do
            notes.append(f"the way {way.name!r} was not gone: {str(error).partition('; ')[0]}")
            continue
        assert isinstance(outcome.x, Tensor)
        joint = part.problem
        assert isinstance(joint, Knowing)
        hit = outcome.fooled & _looked(joint, outcome.x, key).fooled
        spent = spent.index_add(0, index, outcome.forwards)
        fooled = fooled.index_copy(0, index, hit | fooled[index])
        for row, reached in zip(index.tolist(), hit.tolist(), strict=True):
            by[row] = way.name if reached else by[row]
        gain = (outcome.verified & ((outcome.near > near[index]) | hit)).nonzero().squeeze(1)
        best = best.clone()
        put(best, index[gain], take(outcome.x, gain))
        near = near.index_copy(0, index[gain], outcome.near[gain])
    return Evaded(best, fooled, near, tuple(by), spent, tuple(dict.fromkeys(notes)))


@torch.no_grad()
def _looked(problem: Knowing, point: Tensor, key: Key) -> Score:
    """The score of the real rule at a point: no likeness leads it."""
    return problem(point, key.fold("verdict"))


def _guided(question: Question, policy: Policy) -> tuple[Question, Tensor]:
    """The question led to the features of the nearest guide of another class, and the allowed point nearest to it.

    Raises:
        InputError: no detector has kept clean rows, or all are of one class.
        ModelError: the model has no features.
    """
    problem, x, region = question.problem, question.x, question.region
    assert isinstance(problem, Knowing)
    assert isinstance(x, Tensor)
    kept = next((one.guides for one in policy.detectors if one.guides is not None), None)
    reader = problem.reader
    if kept is None or not len(kept) or reader is None:
        raise InputError("no detector has kept clean rows to lead to", remedy="fit it again")
    kept = kept.to(x)
    with torch.no_grad():
        guides, here = Seen(reader, kept), problem.look(x, None)
        far = torch.cdist(here.features.double(), guides.features.double())
        labels = problem.aim.y if problem.aim.y is not None else here.classes
        far = torch.where(guides.classes == labels.unsqueeze(1), torch.inf, far)
        chosen = far.argmin(1)
        if bool(torch.isinf(far.amin(1)).any()):
            raise InputError("the clean rows that were kept are of too few classes", remedy="fit it again")
        point = region.land(region.project(kept[chosen].to(x) - x))
        assert isinstance(point, Tensor)
        return replace(question, problem=replace(problem, guides=guides.features[chosen])), point
