"""Attacking a model and its detectors on one batch: the short form, and what detectors learn from."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from signstep.attacks.recipes import recipe
from signstep.detectors.knowing import Knowing
from signstep.detectors.policy import Policy
from signstep.detectors.pursuing import Evaded, Way, pursue
from signstep.engine import arrays
from signstep.engine.keys import Key
from signstep.engine.origin import contained
from signstep.engine.problem import nearness
from signstep.engine.threat import ThreatModel
from signstep.model.declaration import Callee, Model
from signstep.model.search import Search
from signstep.model.subject import Subject


@contained
def evade(
    model: Model | Callee,
    x: Tensor | arrays.Array,
    y: Tensor | arrays.Array | None = None,
    *,
    threat: ThreatModel,
    policy: Policy,
    deny: bool = False,
    seed: int = 0,
    ways: Sequence[Way] | None = None,
) -> Evaded:
    """Attack a model and its detectors together, on one batch.

    Args:
        model: the model that the detectors were calibrated with.
        x: inputs (R, ...) in its declared units.
        y: labels (R,); None takes the model's answers.
        threat: what may change, in raw units.
        policy: the detectors and their rates.
        deny: search for a right answer that is refused, instead of a wrong one that is accepted.
        seed: of all randomness.
        ways: which to go, see `signstep.detectors.WAYS`; None for all.

    Raises:
        InputError: the detectors belong to another model, or this is no classification.

    Example:
        >>> import torch, signstep as ss
        >>> model, x = torch.nn.Linear(4, 3).eval(), torch.rand(200, 4)
        >>> policy = ss.Policy(detectors=[ss.detectors.fit("energy", model, (x, None))], reject=0.05)
        >>> ss.detectors.evade(model, x[:8], threat=ss.linf(0.3), policy=policy).fooled.shape
        torch.Size([8])
    """
    declared = Model.of(model)
    policy.refuse_other(declared)
    subject, key = Subject.of(declared, Search(seed=seed)), Key(seed)
    with subject.opened():
        question = subject.ask(x, y, threat, key=key)
        return pursue(question, policy, key, deny=deny, ways=ways)


def knowing_points(policy: Policy, raw: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Points (S, ...) in raw units that the model gets wrong, as unsuspicious as a short search makes them."""
    assert policy.reader is not None
    declared = policy.reader.model
    subject, key = Subject.of(declared, Search(seed=seed)), Key(seed)
    x = declared.space().normalise(raw) if declared.inputs == "normalised" else raw
    with subject.opened():
        question = subject.ask(x, labels, threat, key=key)
        margin = (-nearness(question.clean)).abs().clamp_min(1e-3)
        problem = Knowing.of(question.problem, policy, policy.reader, margin, deny=False)
        outcome = replace(question, problem=problem, twin=None).run(recipe("apgd:steps=20"), key.fold("rounds"))
    assert isinstance(outcome.x, Tensor)
    return outcome.x[outcome.answer != labels.to(outcome.answer)].detach()
