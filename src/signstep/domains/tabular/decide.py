"""The decision of a model about wide rows, and how far it is from the other one; every question is counted."""

import torch
from torch import Tensor

from signstep.core.outputs import Outputs, Predictor
from signstep.core.subject import Model
from signstep.core.tasks import task_for
from signstep.domains.tabular.encode import Layout

_PIECE = 32768


class Decider:
    """Asks a model for the favourable class ``good``: granted or not, and by how much.

    Attributes:
        model: that is asked.
        forwards: rows asked for so far.
        backwards: rows whose gradient was taken.
    """

    def __init__(self, model: Model, layout: Layout) -> None:
        self.model, self.layout, self.good = model, layout, layout.schema.target.good
        self._predictor = Predictor(model)
        self.forwards = self.backwards = 0

    @torch.no_grad()
    def __call__(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """For decoded records (R, F): the lead (R,) of the favourable class over the others; whether it is granted."""
        self.forwards += len(decoded)
        parts = [self._look(self.layout.widen(part)) for part in torch.split(decoded, _PIECE)]
        return torch.cat([lead for lead, _ in parts]), torch.cat([granted for _, granted in parts])

    def slope(self, decoded: Tensor) -> Tensor:
        """The gradient (R, width) of the lead along wide rows."""
        wide = self.layout.widen(decoded).requires_grad_()
        lead, _ = self._look(wide)
        self.forwards += len(decoded)
        self.backwards += len(decoded)
        return torch.autograd.grad(lead.sum(), wide)[0].detach()

    def _look(self, wide: Tensor) -> tuple[Tensor, Tensor]:
        outputs: Outputs = self._predictor(wide)
        if outputs.form == "labels":
            granted = outputs.raw == self.good
            return torch.where(granted, 1.0, -1.0).double(), granted
        task = task_for("auto", outputs.scores.detach())
        scores = task.logits(outputs).double() if hasattr(task, "logits") else outputs.scores.double()
        others = scores.clone()
        others[:, self.good] = -torch.inf
        return scores[:, self.good] - others.amax(1), task.predict(outputs) == self.good
