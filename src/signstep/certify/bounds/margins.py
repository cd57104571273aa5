"""From a network and a box of inputs to bounds on its answers (Gowal et al. 2018, "On the effectiveness of IBP")."""

import torch
from torch import Tensor, nn

from signstep.certify.bounds.graph import planned
from signstep.certify.bounds.interval import Interval
from signstep.certify.bounds.rules import rule_of
from signstep.errors import ModelError
from signstep.model.layout import channels_last, is_channels_last

# Numbers in the differences of last weights that are held at once.
_AT_ONCE = 2**24


def bounds_on(model: nn.Module, low: Tensor, high: Tensor) -> Interval:
    """Outputs that no input between ``low`` and ``high`` can leave; differentiable to the weights.

    Args:
        model: any module whose parts have a rule (`signstep.certify.bounds.rules`); its weights are not touched.
        low: the least inputs (R, ...).
        high: the largest ones.

    Raises:
        ModelError: the network cannot be traced, or a part of it has no rule.
    """
    plan = planned(model)
    inner = plan.walk(model, _between(model, low, high))
    head = plan.head(model)
    return inner if head is None else _through(head, inner)


def answers(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> tuple[Tensor, Interval]:
    """What `worst_margins` (R, K) and `bounds_on` give, by one way through the network.

    Raises:
        ModelError: see these.
    """
    plan = planned(model)
    inner = plan.walk(model, _between(model, low, high))
    head = plan.head(model)
    return _margins(head, inner, y), inner if head is None else _through(head, inner)


def worst_margins(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Upper bounds of z_k - z_y over all inputs between ``low`` and ``high``, (R, K); 0 in column y.

    Where all others are below 0, no input in the box has another answer than y. A last linear layer is joined with the
    difference, so that what classes share cancels.

    Args:
        model: see `bounds_on`.
        low: the least inputs (R, ...).
        high: the largest ones.
        y: classes (R,).

    Raises:
        ModelError: the network cannot be traced, a part of it has no rule, or its outputs are not (R, K).
    """
    plan = planned(model)
    return _margins(plan.head(model), plan.walk(model, _between(model, low, high)), y)


def _margins(head: nn.Linear | None, inner: Interval, y: Tensor) -> Tensor:
    if head is not None and inner.centre.ndim == 2:
        middle: Tensor = head(inner.centre)
        return middle - middle.gather(1, y.unsqueeze(1)) + _reach(head.weight, inner.radius, y)
    outputs = inner if head is None else _through(head, inner)
    if outputs.centre.ndim != 2:
        raise ModelError(
            f"the model's outputs have shape {tuple(outputs.centre.shape)}",
            remedy="return scores (R, K), which have margins",
        )
    margins = outputs.high - outputs.low.gather(1, y.unsqueeze(1))
    return margins.scatter(1, y.unsqueeze(1), 0.0)


def _between(model: nn.Module, low: Tensor, high: Tensor) -> Interval:
    box = Interval.between(low, high)
    return box.shaped(channels_last) if is_channels_last(model) else box


def _reach(weight: Tensor, radius: Tensor, y: Tensor) -> Tensor:
    """sum_d |w_kd - w_yd| r_d of each row, (R, K)."""
    radius = radius.to(weight.dtype)
    if len(y) * weight.numel() <= _AT_ONCE:
        ways = (weight.unsqueeze(0) - weight[y].unsqueeze(1)).abs()  # (R, K, D)
        return torch.bmm(ways, radius.unsqueeze(2)).squeeze(2)
    order, parts = [], []
    for label in torch.unique(y):
        rows = (y == label).nonzero().flatten()
        order.append(rows)
        parts.append(radius[rows] @ (weight - weight[label]).abs().T)
    return torch.cat(parts)[torch.cat(order).argsort()]


def _through(head: nn.Linear, inner: Interval) -> Interval:
    rule = rule_of(head)
    assert rule is not None
    return rule(head, inner)
