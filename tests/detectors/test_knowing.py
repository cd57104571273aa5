"""The attacker who knows: the joint goal and its laws, and an exact answer on a plane."""

from dataclasses import replace

import pytest
import torch
from detector_nets import rows, trained
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.recipes import recipe
from signstep.detectors.knowing import Knowing
from signstep.detectors.orthogonal import Orthogonal
from signstep.detectors.pursuing import Way, pursue
from signstep.detectors.seen import Reader
from signstep.engine.keys import Key
from signstep.engine.problem import nearness
from signstep.engine.tasks import Score
from signstep.model.search import Search
from signstep.model.subject import Question, Subject

THREAT = ss.linf(0.22)
# Of each kind one, short: a gradient of both, steps off each other, a clean input to lead to, questions alone.
FEW = (Way("sum", "apgd:steps=8"), Way("sum", "pgd:steps=5", orthogonal=True), Way("features", "apgd:steps=4"))


class Constant:
    """Always the same score: it flags nothing, since every p-value is 1, or everything where calibrated below."""

    name = "constant"

    def score(self, x: Tensor) -> Tensor:
        """1 for each."""
        return x.new_ones(len(x))


def asked(model: nn.Module, x: Tensor, y: Tensor, threat: ss.ThreatModel = THREAT) -> tuple[Subject, Question]:
    """The plain question of a batch."""
    subject = Subject.of(ss.Model(model), Search())
    with subject.opened():
        return subject, subject.ask(x, y, threat, key=Key(0))


def joint(model: nn.Module, question: Question, policy: ss.Policy, *, deny: bool = False) -> Knowing:
    """The joint question."""
    margin = (-nearness(question.clean)).abs()
    return Knowing.of(question.problem, policy, Reader.of(model), margin, deny=deny)


def test_without_detectors_it_is_the_plain_attack() -> None:
    """Bit for bit the same scores, and the same verdicts; so with a detector that never flags anything."""
    model, (x, y) = trained(), rows(40, seed=1)
    subject, question = asked(model, x, y)
    with subject.opened():
        none = joint(model, question, ss.Policy(detectors=[], reject=0.1))
        for part, plain in zip(none(x, Key(0)), question.problem(x, Key(0)), strict=True):
            assert torch.equal(part, plain)
        attack = recipe("pgd:steps=10")
        plain_run = question.run(attack, Key(1))
        same = replace(question, problem=none).run(attack, Key(1)).x
        assert isinstance(same, Tensor)
        assert isinstance(plain_run.x, Tensor)
        assert torch.equal(same, plain_run.x)
        never = ss.detectors.fit(Constant(), model, rows(50, seed=2))
        policy = ss.Policy(detectors=[never], reject=0.1)
        assert not bool(policy.flags(x).any())
        margin = replace(joint(model, question, policy), mix="max")
        run = replace(question, problem=margin).run(recipe("apgd:steps=20"), Key(1))
        alone = question.run(recipe("apgd:steps=20,loss=margin"), Key(1))
        assert torch.equal(run.fooled, alone.fooled)


@pytest.mark.parametrize("spec", ["energy", "squeeze:bits=2"])
def test_knowing_is_never_below_unaware(spec: str) -> None:
    """Points of a plain attack that evade count as they are; the verdicts are the policy's own, at points allowed."""
    model, (x, y) = trained(), rows(30, seed=3)
    policy = ss.Policy(detectors=[ss.detectors.fit(spec, model, rows(300, seed=4))], reject=0.05)
    subject, question = asked(model, x, y)
    with subject.opened():
        plain = question.run(recipe("pgd:steps=30"), Key(1))
        assert isinstance(plain.x, Tensor)
        unaware = plain.fooled & ~policy.flags(plain.x)
        found = pursue(question, policy, Key(2), begin=plain.x, ways=FEW)
    assert bool((found.fooled | ~unaware).all())
    assert int(found.fooled.sum()) > int(unaware.sum())
    assert torch.equal(found.fooled, (model(found.x).argmax(1) != y) & ~policy.flags(found.x))
    assert float((found.x - x).abs().max()) <= 0.22 + 1e-6
    assert all((way != "") == hit for way, hit in zip(found.by, found.fooled.tolist(), strict=True))
    again = ss.detectors.evade(model, x, y, threat=THREAT, policy=policy, ways=FEW)
    part = ss.detectors.evade(model, x[10:20], y[10:20], threat=THREAT, policy=policy, ways=FEW)
    assert torch.equal(part.fooled, again.fooled[10:20])


def test_denial_is_a_right_answer_that_is_flagged() -> None:
    """The other way: the answer stays, the flag goes up."""
    model, (x, y) = trained(), rows(30, seed=5)
    policy = ss.Policy(detectors=[ss.detectors.fit("energy", model, rows(300, seed=6))], reject=0.05)
    found = ss.detectors.evade(model, x, y, threat=THREAT, policy=policy, deny=True)
    assert torch.equal(found.fooled, (model(found.x).argmax(1) == y) & policy.flags(found.x))
    assert int(found.fooled.sum()) > 20


def test_a_detector_that_flags_everything_leaves_nothing_and_costs_everything() -> None:
    """No attack succeeds, and no clean input is served."""
    model, (x, y) = trained(), rows(20, seed=7)
    never = ss.detectors.fit(Constant(), model, rows(50, seed=8))
    always = replace(never, calibration=never.calibration - 1)
    policy = ss.Policy(detectors=[always], reject=0.1)
    assert bool(policy.flags(x).all())
    assert not bool(ss.detectors.evade(model, x, y, threat=THREAT, policy=policy, ways=FEW).fooled.any())
    assert bool(ss.detectors.evade(model, x, y, threat=THREAT, policy=policy, deny=True).fooled.all())


class Height:
    """The second coordinate: an attacker may differentiate it, or not."""

    name = "height"

    def __init__(self, slope: bool) -> None:
        if slope:
            self.surrogate = lambda x: x[:, 1]

    def score(self, x: Tensor) -> Tensor:
        """As it is."""
        return x[:, 1]


@pytest.mark.parametrize("slope", [True, False])
def test_on_a_plane_exactly_those_are_evaded_that_can_be(slope: bool) -> None:
    """Answer: sign of u0 + u1; flag: u1 > 0.6. Both goals are linear, so that a corner tells what is possible."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
        model.bias.copy_(torch.tensor([1.0, -1.0]))
    clean = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    detector = replace(
        ss.detectors.fit(Height(slope), model, (clean, None)), calibration=torch.linspace(0, 0.6, 100).double()
    )
    policy = ss.Policy(detectors=[detector], reject=0.01)
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(1)) * 0.5
    x = x[x.sum(1) < 1]
    eps = 0.2
    best = torch.minimum(x[:, 1] + eps, torch.tensor(0.6)) + (x[:, 0] + eps)
    possible = best > 1 + 1e-4
    found = ss.detectors.evade(model, x, torch.zeros(len(x)).long(), threat=ss.linf(eps), policy=policy)
    assert 5 < int(possible.sum()) < len(x)
    assert not bool((found.fooled & ~possible & (best < 1 - 1e-4)).any())
    # Without a slope there are queries alone: they come near all that is possible.
    assert float(found.fooled[possible].double().mean()) >= (1.0 if slope else 0.7)


def test_orthogonal_steps_lose_nothing_of_the_other() -> None:
    """The step off the other's gradient is orthogonal to it, row by row, and climbs its own."""
    model, (x, y) = trained(), rows(20, seed=9)
    policy = ss.Policy(detectors=[ss.detectors.fit("energy", model, rows(300, seed=10))], reject=0.05)
    subject, question = asked(model, x, y)
    with subject.opened():
        problem = joint(model, question, policy)
        score, led = Orthogonal()(problem, x, Key(0))
        u = x.clone().requires_grad_()
        _, answer, slack = problem.parts(u, Key(0))
        first, second = (torch.autograd.grad(part.sum(), u, retain_graph=True)[0] for part in (answer, slack))
    assert isinstance(score, Score)
    assert isinstance(led, Tensor)
    unit = led.flatten(1) / led.flatten(1).norm(dim=1, keepdim=True)
    other = second.flatten(1) / second.flatten(1).norm(dim=1, keepdim=True)
    assert float((unit * other).sum(1).abs().max()) < 1e-3
    assert bool(((led * -first).flatten(1).sum(1) > 0).all())


@pytest.mark.parametrize(
    ("model", "said"),
    [(ss.Model(trained(1)), "another model"), (ss.Model(trained(), mean=0.1, std=1.0), "another preprocessing")],
)
def test_another_models_policy_is_refused(model: ss.Model, said: str) -> None:
    """In one sentence."""
    x, y = rows(4, seed=0)
    policy = ss.Policy(detectors=[ss.detectors.fit("energy", trained(), rows(60, seed=1))], reject=0.1)
    with pytest.raises(ss.SignstepError, match=said):
        ss.detectors.evade(model, x, y, threat=THREAT, policy=policy)
