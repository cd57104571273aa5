"""Does it optimise while it answers?"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from signstep.diagnosing.bench import Bench, Cure
from signstep.diagnosing.test import Observed, Suspect, Test
from signstep.engine.outputs import Outputs
from signstep.engine.tree import Tree

CAUSE = "test-time defence"


class _Watch(TorchFunctionMode):
    """Counts calls of autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls += func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
        return func(*args, **(kwargs or {}))


def _run(bench: Bench) -> Observed:
    watch = _Watch()
    with bench.asking(bench.few(4)) as question, torch.no_grad():
        u: Tree = question.problem.inputs(question.x)
        bench.need(len(bench.few(4)))
        bench.spend(len(bench.few(4)))
        with watch:
            outputs: Outputs = question.problem.predictor(u)
        del outputs
    if not watch.calls:
        return Observed(0.0, False, "no gradient is computed while it answers")
    told = f"{watch.calls} gradients are computed while it answers"
    cures = (Cure("bpda-pgd:steps=40"), Cure("bpda-pgd:steps=40,restarts=3"))
    return Observed(float(watch.calls), True, told, suspects=(Suspect(CAUSE, told, cures),))


ROW = Test(
    "dynamic",
    "Does it optimise while it answers?",
    "calls of autograd during one pass",
    "any",
    "Croce, Gowal et al. 2022 (arXiv:2202.13711); AutoAttack's check of dynamic defences",
    (CAUSE,),
    "bpda-pgd, which takes the optimisation for the identity; transfer from a student",
    "1 forward on 4 examples",
    _run,
)
