"""The decision of a model about wide rows, and how far it is from the other one; every question is counted."""

import torch
from torch import Tensor

from signstep.domains.tabular.encode import Layout
from signstep.engine.outputs import Outputs
from signstep.engine.tasks import task_for
from signstep.model.declaration import Callee
from signstep.model.predictor import Predictor

_PIECE = 32768
_ROUNDED = 32.0  # places in the last of the largest score


class Decider:
    """Asks a model for the favourable class ``good``: granted or not, and by how much.

    Attributes:
        model: that is asked.
        forwards: rows asked for so far.
        backwards: rows whose gradient was taken.
        labels: whether the model has answered with labels alone, so that no lead says how near it was.
    """

    def __init__(self, model: Callee, layout: Layout) -> None:
        self.model, self.layout, self.good = model, layout, layout.schema.target.good
        self._predictor = Predictor(model)
        self.forwards = self.backwards = 0
        self.labels = False

    @torch.no_grad()
    def __call__(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """For decoded records (R, F): the lead (R,) of the favourable class over the others; whether it is granted."""
        lead, granted, _ = self.firmly(decoded)
        return lead, granted

    @torch.no_grad()
    def firmly(self, decoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and whether the lead is more than rounding (R,) bool.

        The last places of a score depend on how many rows are asked for at once, and so may a decision by less.
        """
        self.forwards += len(decoded)
        parts = [self._look(self.layout.widen(part)) for part in torch.split(decoded, _PIECE)]
        lead, granted, firm = (torch.cat(part) for part in zip(*parts, strict=True))
        return lead, granted, firm

    def slope(self, decoded: Tensor) -> Tensor:
        """The gradient (R, width) of the lead along wide rows; zero for a model that has none."""
        wide = self.layout.widen(decoded).requires_grad_()
        lead, _, _ = self._look(wide)
        self.forwards += len(decoded)
        if not lead.requires_grad:
            return torch.zeros_like(wide, requires_grad=False)
        self.backwards += len(decoded)
        # A path to weights alone, behind a detach(), is none to the inputs.
        return torch.autograd.grad(lead.sum(), wide, materialize_grads=True)[0].detach()

    def _look(self, wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs: Outputs = self._predictor(wide)
        if outputs.form == "labels":
            self.labels = True
            granted = outputs.raw == self.good
            return torch.where(granted, 1.0, -1.0).double(), granted, torch.ones_like(granted)
        task = task_for("auto", outputs.scores.detach())
        scores = task.logits(outputs).double() if hasattr(task, "logits") else outputs.scores.double()
        others = scores.clone()
        others[:, self.good] = -torch.inf
        lead = scores[:, self.good] - others.amax(1)
        finite = torch.where(scores.isfinite(), scores.abs(), 0.0).amax(1)
        firm = lead.abs() > _ROUNDED * torch.finfo(outputs.raw.dtype).eps * finite
        return lead, task.predict(outputs) == self.good, firm.detach()
