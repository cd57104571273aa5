"""What a recipe remembers from one step to the next: priors of single examples, or the perturbation of a batch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from signstep.errors import InputError
from signstep.messages import Arg


class Memory:
    """Of the recipes ``fgsm-pgi`` and ``free``; the others leave it empty.

    Args:
        rows: of the training set, where that is known: nobody then waits for a device to say how large ids are, and
            they are not checked; they must be row numbers from 0 and below it.

    Attributes:
        prior: (N, ...) where each example was led last.
        drift: (N, ...) the momentum of the directions it was led in.
        seen: (N,) bool, whether there is such a place yet.
        carried: (R, ...) the perturbation that the next step of ``free`` goes on from, with its gradient.
    """

    def __init__(self, rows: int | None = None) -> None:
        self._rows = rows
        self.prior: Tensor | None = None
        self.drift: Tensor | None = None
        self.seen: Tensor | None = None
        self.carried: Tensor | None = None

    def recall(self, ids: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Prior and drift (R, ...) of the examples ``ids`` (R,); those without one begin at ``fresh``.

        Raises:
            InputError: an id is negative, where the rows of the training set are not known.
        """
        if self._rows is None and bool((ids < 0).any()):
            raise InputError(
                Arg("ids"), f"has the entry {int(ids.min())}", remedy="pass row numbers of the training set, from 0"
            )
        prior, drift, seen = self._room(int(ids.max()) + 1 if self._rows is None else self._rows, fresh)
        known = seen[ids].reshape(-1, *([1] * (fresh.ndim - 1)))
        return torch.where(known, prior[ids], fresh), torch.where(known, drift[ids], 0.0)

    def keep(self, ids: Tensor, prior: Tensor, drift: Tensor) -> None:
        """Remember for the examples ``ids``; after `recall`."""
        assert self.prior is not None
        assert self.drift is not None
        assert self.seen is not None
        self.prior[ids] = prior
        self.drift[ids] = drift
        self.seen[ids] = True

    def forget(self) -> None:
        """Draw all priors anew."""
        if self.seen is not None:
            self.seen.zero_()

    def carry(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """The carried perturbation for a batch of the shape of ``like``, and its gradient if there was a backward."""
        if self.carried is None:
            return torch.zeros_like(like), None
        d, gradient = self.carried.detach(), self.carried.grad
        return _fitted(d, like), None if gradient is None else _fitted(gradient, like)

    def state(self) -> dict[str, Tensor]:
        """All of it, as tensors."""
        parts = {"prior": self.prior, "drift": self.drift, "seen": self.seen, "carried": self.carried}
        state = {name: part.detach().clone() for name, part in parts.items() if part is not None}
        if self.carried is not None and self.carried.grad is not None:
            state["gradient"] = self.carried.grad.clone()
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """What `state` gave."""
        self.prior, self.drift, self.seen = (_copy(state, name) for name in ("prior", "drift", "seen"))
        self.carried = _copy(state, "carried")
        if self.carried is not None:
            self.carried.requires_grad_()
            self.carried.grad = _copy(state, "gradient")

    def _room(self, rows: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = tuple(like.shape[1:])
        if self.prior is None or self.drift is None or self.seen is None or self.prior.shape[1:] != shape:
            self.prior, self.drift = like.new_zeros((rows, *shape)), like.new_zeros((rows, *shape))
            self.seen = torch.zeros(rows, dtype=torch.bool, device=like.device)
        elif len(self.seen) < rows:
            more = rows - len(self.seen)
            self.prior, self.drift = (torch.cat([part, part.new_zeros((more, *shape))]) for part in self._two())
            self.seen = torch.cat([self.seen, self.seen.new_zeros(more)])
        return self.prior, self.drift, self.seen

    def _two(self) -> tuple[Tensor, Tensor]:
        assert self.prior is not None
        assert self.drift is not None
        return self.prior, self.drift


def _copy(state: Mapping[str, Tensor], name: str) -> Tensor | None:
    return state[name].clone() if name in state else None


def _fitted(part: Tensor, like: Tensor) -> Tensor:
    """Batches may differ by a row; what is missing is zero. Another shape begins anew."""
    if part.shape[1:] != like.shape[1:]:
        return torch.zeros_like(like)
    part = part[: len(like)].to(like)
    return (
        part if len(part) == len(like) else torch.cat([part, part.new_zeros((len(like) - len(part), *part.shape[1:]))])
    )
