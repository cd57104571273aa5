"""Can this attack find what is certainly there? A boundary point is planted in each ball, and it must be found.

For each example a linear readout of the penultimate features is made that tells one point of the ball, at the distance
eps, from points inside: the same network then has an adversarial example by construction. An attack that does not find
it is too weak for this network, whatever it finds or does not find on the network's own outputs.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from signstep.attacks.recipes import recipe
from signstep.detectors.seen import Tap
from signstep.diagnosing.bench import Bench, Cure, ladder_of
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.batch_invariant import row_sum
from signstep.engine.keys import Key
from signstep.engine.outputs import Outputs
from signstep.engine.passes import Setting
from signstep.engine.problem import ModelProblem
from signstep.engine.tasks import Aim, Multiclass
from signstep.engine.tree import Tree, rows
from signstep.errors import GradientError, ModelError
from signstep.model.subject import Question, Subject

FEW, INNER = 32, 48
# Of eps: the ball that points inside come from.
INSIDE = 0.95
# Of the planted point's margin: where the boundary lies.
AT = 0.999
# Success below which an attack is too weak.
ENOUGH = 0.9
# So many rows can be planted at least, or nothing is said.
LEAST = 8

CAUSE = "attack too weak"
STRONGEST = "apgd:loss=margin,steps=30"  # of the ladder "standard", whose rungs mean its own classes


@dataclass(frozen=True, eq=False)
class Planted(ModelProblem):
    """The problem of a readout (R, F) of features with its threshold (R,): class 1 beyond it, and 0 is right."""

    readout: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float32, device="cpu"))
    threshold: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float32, device="cpu"))

    def ask(self, u: Tree, key: Key | None = None) -> Outputs:
        """Two scores: 0, and how far beyond the threshold."""
        beyond = row_sum(features(self, u, key) * self.readout) - self.threshold
        scores = torch.stack([torch.zeros_like(beyond), beyond], 1)
        return Outputs(scores, scores, "logits")

    def take(self, index: Tensor, way: Tensor | None = None, loss: str | None = None) -> "Planted":
        """The rows at ``index``."""
        taken = super().take(index, way, loss)
        return replace(taken, readout=self.readout[index], threshold=self.threshold[index])  # type: ignore[call-arg, return-value]


def features(problem: ModelProblem, u: Tree, key: Key | None) -> Tensor:
    """Penultimate features (R, F).

    Raises:
        ModelError: no linear layer runs, or it sees other rows.
    """
    with Tap() as tap:
        outputs = problem.predictor(problem.inputs(u, key))
    found = tap.features(outputs.raw)
    if found is None or len(found) != rows(u):
        raise ModelError(
            "no linear layer of the network sees a row for each example: it has no features to plant in",
            remedy="let it end in one, or in a convolution over the whole map, as an nn.Module",
        )
    return found


def planted(question: Question, key: Key) -> tuple[Planted, Tensor]:
    """The problem of planted points, and which rows (R,) have one that can be told from the points inside."""
    problem, region = question.problem, question.region
    draws = key.draws(problem.ids, problem.ids.device)
    within = region.resized(region.radius * INSIDE)
    with torch.no_grad():
        points = [region.zero()]
        points += [(within.vertex if n % 2 else within.sample)(draws.of("inner", n)) for n in range(INNER)]
        inner = torch.stack([features(problem, region.land(d), key).double() for d in points])  # (n, R, F)
        edge = features(problem, region.land(region.vertex(draws.of("edge"))), key)
    middle = inner.mean(0)
    spread, ahead = (inner - middle).transpose(0, 1), edge.double() - middle
    _, size, along = torch.linalg.svd(spread, full_matrices=False)
    ridge = (1e-2 * size.amax(1, keepdim=True)).square().clamp_min(1e-300)
    kept = torch.einsum("rkf,rf->rk", along, ahead) * size.square() / (size.square() + ridge)
    readout = ahead - torch.einsum("rkf,rk->rf", along, kept)
    scores = torch.einsum("nrf,rf->nr", inner, readout)
    best, top = (edge.double() * readout).sum(1), scores.amax(0)
    able = best > top + 1e-4 * (best.abs() + top.abs())
    width = (best - top).clamp_min(1e-300)
    threshold = (top + AT * (best - top)) / width
    return Planted(
        problem.predictor,
        Multiclass(),
        Aim(torch.zeros_like(problem.ids)),
        problem.loss if problem.loss in Multiclass().losses else "ce",
        problem.ids,
        frozen=problem.frozen,
        render=problem.render,
        shape=torch.Size([len(problem.ids), 2]),
        transform=problem.transform,
        readout=(readout / width.unsqueeze(1)).to(edge.dtype),
        threshold=threshold.to(edge.dtype),
    ), able


def _unfit(bench: Bench) -> str:
    """Why the question makes no sense; nothing where it does."""
    if bench.random:
        return "a random model has no fixed features"
    if bench.form == "labels" or not isinstance(bench.model.network, nn.Module):
        return "the model is a function or answers with labels alone, and its features cannot be seen"
    return "gradients come from a surrogate" if bench.search.surrogates else ""


def _run(bench: Bench) -> Observed:
    if why := _unfit(bench):
        return not_asked(why)
    spec = STRONGEST if ladder_of(bench.attack) is not None else bench.attack
    attack = recipe(spec, oracle=Subject.of(bench.model, bench.search).oracle)
    index = bench.few(FEW)
    plan = getattr(attack, "passes", None)
    cost = plan(Setting(ways=1)).most * 2 if plan is not None else 1000
    bench.need(len(index) * (cost + 2 * INNER + 4))
    with bench.asking(index) as question:
        key = Key(bench.search.seed).fold("self-test")
        problem, able = planted(question, key)
        bench.spend((2 * INNER + 2) * len(index))
        put = able.nonzero().squeeze(1)
        if len(put) < LEAST:
            return not_asked(f"a point could be planted in {len(put)} of {len(able)} examples, and {LEAST} are needed")
        asked = replace(question, problem=problem, twin=None).take(put)
        by_chance = _sampled(asked, key)
        try:
            outcome = asked.run(attack, key.fold("attack"))
            bench.spend(int(outcome.forwards.sum() + outcome.backwards.sum()))
            found = int(outcome.fooled.sum())
        except GradientError:
            found = 0
    share, chance = found / len(put), by_chance / len(put)
    told = f"{spec if isinstance(spec, str) else spec.name} finds {share:.0%} of {len(put)} planted points"
    told += f", random sampling {chance:.0%}"
    bench.seen["self-test"] = (share, chance)
    if share >= ENOUGH:
        return Observed(share, False, told)
    cures = (Cure("smooth-pgd:steps=40,start=uniform"), Cure("apgd:loss=margin,steps=50,targets=4", last=True))
    remedy = "attack with a stronger recipe, or through a likeness of what hides the gradient"
    return Observed(share, True, told, suspects=(Suspect(CAUSE, told, cures, remedy, True),))


@torch.no_grad()
def _sampled(question: Question, key: Key) -> int:
    """Rows whose planted point's class is found by as many random points as lie inside."""
    region, problem = question.region, question.problem
    draws = key.draws(problem.ids, problem.ids.device)
    found = torch.zeros_like(question.clean.fooled)
    for number in range(INNER):
        d = (region.vertex if number % 2 else region.sample)(draws.of("chance", number))
        found = found | problem(region.land(d), key).fooled
    return int(found.sum())


ROW = Test(
    "self-test",
    "Can this attack find what is certainly there?",
    "share of planted boundary points that the attack finds, beside that of random sampling",
    f"below {ENOUGH}",
    "Zimmermann, Brendel, Tramèr & Carlini 2022 (arXiv:2206.13991)",
    (CAUSE,),
    "targeted apgd, smooth-pgd",
    f"{2 * INNER + 2} forwards and the attack, on {FEW} examples",
    _run,
)
