"""Points that exact search found, as one more attack: judged by the model itself, and kept like any other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from signstep.auditing.record import EXACT_SEARCH, AttackResult
from signstep.engine.attack import Needs
from signstep.engine.interrupted import Run, found, settle
from signstep.engine.keys import Key
from signstep.engine.ledger import Ledger
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import Problem
from signstep.engine.region import Region
from signstep.engine.tree import Tree


@dataclass(eq=False)
class ExactSearch:
    """What a proof that failed has left: of some examples an input at which a margin is too small.

    The point is brought back into the allowed set of the attack, which the proof's is a little wider than, and the
    model is asked there. Of other examples, and where it does not fail, it is asked at the clean input.

    Attributes:
        points: displacements (...) in the units of the threat, by the identity of the example.
    """

    points: dict[int, Tensor] = field(default_factory=dict)
    name: str = EXACT_SEARCH
    steps: int = 0
    draws: bool = False
    from_clean: bool = False
    needs: Needs = "nothing"

    def passes(self, setting: Setting) -> Passes:  # noqa: ARG002
        """One for each example: the verdict."""
        return Passes(1, 1, 1, 0, 0)

    @torch.no_grad()
    def __call__(
        self,
        problem: Problem,
        region: Region,
        clean: Tree,
        key: Key,
        begin: Tree | None = None,  # noqa: ARG002
    ) -> Found:
        """Show the model what was found."""
        assert isinstance(clean, Tensor)  # bounds are for one input
        d = torch.zeros_like(clean)
        for row, identity in enumerate(problem.ids.tolist()):
            if identity in self.points:
                d[row] = self.points[identity].to(d)
        ledger, every = Ledger(problem.ids), torch.arange(len(clean), dtype=torch.int64, device=clean.device)
        fooled = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        ended = settle(ledger, problem, every, Run(region.land(region.project(d)), fooled), key)
        return found(ledger, region, ended)


def without_search(attacks: Sequence[AttackResult]) -> list[str]:
    """The names of attacks, without that of exact search, which comes with the bounds and after all others."""
    names = [entry.name for entry in attacks]
    return names[:-1] if names and names[-1] == EXACT_SEARCH else names
