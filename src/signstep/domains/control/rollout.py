"""The closed loop as a model: sensor errors in, the margin to failure at the worst moment out.

    m_t = max_i |s_(t,i)| / limit_i - 1,      s_(t+1) = plant(s_t, controller(s_t + e_t)),      margin = max_t m_t.

It is -1 at rest, 0 on a limit and positive beyond it: at least 0 counts as failed. The state stays where it failed, as
an episode of gymnasium ends there.
"""

from typing import Any

import torch
from torch import Tensor, nn

from signstep.domains.control.plants import Plant
from signstep.errors import ModelError

# How sharply the gradient looks at the worst moment, in units of the margin. Steeper, and an attack hears of one moment
# alone, which at first is often the start, that no error can change any more; flatter, and it does not aim at failure.
SHARPNESS = 0.1


class ClosedLoop(nn.Module):
    """Plant and controller over ``horizon`` samples; called with ``error`` (R, T, S) and ``start`` (R, S).

    The value is exact. Its gradient is that of the soft maximum tau log sum exp(m / tau) over moments and limits, tau =
    `SHARPNESS`: the true one sees a single moment, which is useless as long as that is the start.
    """

    def __init__(self, plant: Plant, controller: nn.Module, *, sharpness: float = SHARPNESS) -> None:
        super().__init__()
        self.plant, self.controller, self.sharpness = plant, controller, sharpness
        limits = [quantity.limit for quantity in plant.state]
        self._limited = [place for place, limit in enumerate(limits) if limit is not None]
        self._limits = [limit for limit in limits if limit is not None]

    def forward(self, error: Tensor, start: Tensor) -> Tensor:
        """The margin (R,)."""
        states: Tensor = _Path.apply(error, start, self)  # type: ignore[no-untyped-call]
        margins = self.margins(states[:, 1:])
        worst: Tensor = _Worst.apply(margins.flatten(1), self.sharpness)  # type: ignore[no-untyped-call]
        return worst

    def states(self, error: Tensor, start: Tensor) -> Tensor:
        """The true states (R, T + 1, N), the start first."""
        state = start
        seen = [state]
        for wrong in error.unbind(1):
            state = self.step(state, wrong)
            seen.append(state)
        return torch.stack(seen, 1)

    def step(self, state: Tensor, wrong: Tensor) -> Tensor:
        """The true state (R, N) one sample later, the sensors wrong by (R, S); unchanged once it has failed."""
        after = self.plant.step(state, self.action(state + wrong))
        return torch.where(self.failed(state)[:, None], state, after)

    def action(self, reading: Tensor) -> Tensor:
        """What the controller does (R,) about a reading (R, S).

        Raises:
            ModelError: it does not answer with one number for each row.
        """
        weight = next(self.controller.parameters(), reading)
        answer: Any = self.controller(reading.to(weight.dtype))
        if not isinstance(answer, Tensor) or answer.numel() != len(reading):
            got = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
            raise ModelError(
                f"the controller gave {got} for readings {tuple(reading.shape)}",
                remedy=f"return one action for each row, ({len(reading)},) or ({len(reading)}, 1)",
            )
        return answer.reshape(len(reading)).to(reading.dtype)

    def margins(self, states: Tensor) -> Tensor:
        """m for each limited coordinate of states (..., N), (..., L)."""
        return states[..., self._limited].abs() / states.new_tensor(self._limits) - 1

    def failed(self, states: Tensor) -> Tensor:
        """Whether states (..., N) are on or beyond a limit, (...)."""
        return (self.margins(states) >= 0).any(-1)


class _Path(torch.autograd.Function):
    """The states of a loop; backwards by the adjoint equation l_t = A_t' l_(t+1) + dm/ds_t.

    The Jacobians A_t (by the state) and B_t (by the error) of all samples come from N backward passes over one large
    batch, where a recorded roll-out would go back through every operation of every sample: the same numbers, several
    times sooner. The start and the controller's weights get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, error: Tensor, start: Tensor, loop: ClosedLoop) -> Tensor:
        states = loop.states(error, start)
        ctx.save_for_backward(error, states)
        ctx.loop = loop
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        error, states = ctx.saved_tensors
        rows, samples, size = error.shape[0], error.shape[1], states.shape[2]
        state = states[:, :-1].reshape(-1, size).requires_grad_()
        wrong = error.detach().reshape(-1, error.shape[2]).requires_grad_()
        with torch.enable_grad():
            after = ctx.loop.step(state, wrong)
            slopes = [
                torch.autograd.grad(after[:, place].sum(), (state, wrong), retain_graph=True) for place in range(size)
            ]
        by_state = torch.stack([slope[0] for slope in slopes], 1).reshape(rows, samples, size, size)
        by_error = torch.stack([slope[1] for slope in slopes], 1).reshape(rows, samples, size, -1)
        adjoint = grads[0][:, samples]
        seen = [adjoint]
        for t in range(samples - 1, 0, -1):
            adjoint = (adjoint[:, None] @ by_state[:, t])[:, 0] + grads[0][:, t]
            seen.append(adjoint)
        adjoints = torch.stack(seen[::-1], 1)
        return (adjoints[:, :, None] @ by_error)[:, :, 0], None, None


class _Worst(torch.autograd.Function):
    """The largest of each row (R, K); backwards the weights of a soft maximum."""

    @staticmethod
    def forward(ctx: Any, margins: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(margins)
        ctx.sharpness = sharpness
        return margins.amax(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (margins,) = ctx.saved_tensors
        return grads[0][:, None] * torch.softmax(margins / ctx.sharpness, 1), None
