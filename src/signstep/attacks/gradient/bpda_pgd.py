"""PGD through stand-ins: the forward pass is the model's, the backward pass gets past what has no gradient.

`ss.bpda` asks for the step and its stand-in; here steps are found while the model runs (`attacks.stand_ins`).

Source: backward pass differentiable approximation, Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 4.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.attacks.stand_ins import StandIns
from signstep.engine.attack import GradientAttack
from signstep.engine.keys import Key
from signstep.engine.moves import steepest
from signstep.engine.oracles import Around, Autograd, Oracle, Surrogates, Twin, innermost
from signstep.engine.outputs import Asked, Outputs
from signstep.engine.problem import ModelProblem, Problem
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree
from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True)
class Lent:
    """A model whose steps without a gradient borrow one while it is called.

    Attributes:
        inner: the model.
        soft: see `StandIns`.
        mode: the stand-ins to use, for those who want to read what was met; None makes new ones for each call.
    """

    inner: Asked
    soft: bool = False
    mode: StandIns | None = None

    @property
    def notes(self) -> list[str]:
        """Those of the model."""
        return self.inner.notes

    @property
    def model(self) -> object:
        """What is called in the end."""
        return self.inner.model

    def __call__(self, u: Tree) -> Outputs:
        """What the model says, differentiable by stand-ins."""
        with self.mode or StandIns(soft=self.soft) as mode:
            outputs = self.inner(u)
        return outputs._replace(raw=mode.derived(outputs.raw), scores=mode.derived(outputs.scores))


@dataclass(frozen=True)
class Lending(Around):
    """Another oracle's gradient through stand-ins. Its scores are the model's, and a row leaves when that confirms.

    Attributes:
        soft: see `StandIns`.
    """

    soft: bool = False

    @property
    def exact(self) -> bool:
        """Never: gradients are kept where the model keeps none, and kernels may then round otherwise."""
        return False

    @property
    def warms(self) -> bool:
        """Never: a pass that was already paid for had no stand-ins."""
        return False

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """The inner oracle's score, and its gradient through stand-ins."""

        def lent(oracle: Oracle) -> Oracle:
            if isinstance(oracle, Twin):
                return replace(oracle, predictor=self._lent(oracle.predictor))
            if isinstance(oracle, Surrogates):
                return replace(oracle, predictors=tuple(map(self._lent, oracle.predictors)))
            return oracle

        if isinstance(problem, ModelProblem):
            problem = problem.by(self._lent(problem.predictor))
        return innermost(self.inner, lent)(problem, point, key, cotangent)

    def _lent(self, predictor: Asked) -> Asked:
        return Lent(predictor, self.soft)  # type: ignore[return-value]


def names_of(module: object) -> Mapping[int, str]:
    """The name of each submodule, by its id."""
    return {id(part): name for name, part in module.named_modules()} if isinstance(module, nn.Module) else {}


BACKWARD = ("identity", "soft")


def bpda_pgd(
    *,
    steps: int = 20,
    step: float | None = None,
    restarts: int = 1,
    backward: str = "identity",
    oracle: Oracle | None = None,
) -> GradientAttack:
    """PGD whose gradient passes through what has none (Athalye, Carlini & Wagner 2018, section 4.1)."""
    if backward not in BACKWARD:
        raise InputError(Arg("backward", backward), remedy=f"pass one of {', '.join(BACKWARD)}", where="bpda-pgd")
    lending = Lending(inner=oracle or Autograd(), soft=backward == "soft")
    return GradientAttack("bpda-pgd", steepest(step_length(step, 2.5, steps)), steps, "uniform", restarts, lending)


ROW = Recipe(
    "bpda-pgd",
    bpda_pgd,
    "PGD through stand-ins for steps without a gradient",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 4.1",
    WHITE_BOX,
    "steps + 1 forwards, steps backwards",
)
