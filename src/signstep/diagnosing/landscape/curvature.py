"""The curvature of the loss: its largest by power iteration on products of the Hessian with vectors.

    J(x + d) = J(x) + <g, d> + rest,    |rest| <= 1/2 beta ||d||_2^2,    beta = max |eigenvalue| of the Hessian

over the segment from x to x + d. The maximum is taken over a few points of it, so it is an estimate from below.

Source: Pearlmutter 1994, Fast exact multiplication by the Hessian; Moosavi-Dezfooli et al. 2019 (arXiv:1811.09716).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from signstep.diagnosing.bench import Bench
from signstep.engine.keys import Key
from signstep.engine.tree import Tree, leaves, per_row, rows, tree_map
from signstep.errors import GradientError
from signstep.model.subject import Question

ITERATIONS = 6
# Points of the segment, as shares of it.
PLACES = (0.0, 0.5, 1.0)
# Of the length of the vector: half the way between the gradients where there is no second derivative.
_STEP = 1e-2


def largest(bench: Bench, question: Question, d: Tree, key: Key) -> tuple[Tensor, str]:
    """The largest |eigenvalue| of the Hessian of the loss (R,) along the segment from x to x + d, and how it was found.

    Raises:
        TooDearError: it would cost more than is left.
        GradientError: there is no gradient.
    """
    found = torch.zeros(len(question.problem.ids), dtype=torch.float64, device=leaves(question.x)[0].device)
    how = "products of the Hessian with vectors"
    for share in PLACES:
        point = question.region.land(tree_map(lambda part, share=share: part * share, d))
        v = question.region.vertex(key.draws(question.problem.ids, found.device).of("curvature"))
        product, how = _product(bench, question, point, key)
        for _ in range(ITERATIONS):
            length = _length(v)
            v = tree_map(lambda part, length=length: part / per_row(length, part), v)
            out = product(v)
            # Of the Rayleigh quotient's kind, for one sign or the other.
            size = _length(out)
            found = torch.maximum(found, torch.nan_to_num(size.double(), 0.0, 0.0, 0.0))
            v = tree_map(lambda a, b, size=size: torch.where(per_row(size, a) > 0, a, b), out, v)
    return found, how


def _product(bench: Bench, question: Question, point: Tree, key: Key) -> tuple[Callable[[Tree], Tree], str]:
    """v -> H v at a point: by the second derivative, or by the difference of two gradients where there is none."""
    try:
        product = _twice(bench, question, point, key)
        product(question.region.vertex(key.draws(question.problem.ids, leaves(point)[0].device).of("probe")))
    except (RuntimeError, GradientError):  # a step with a backward pass of its own
        return _between(bench, question, point, key), "differences of gradients"
    return product, "products of the Hessian with vectors"


def _twice(bench: Bench, question: Question, point: Tree, key: Key) -> Callable[[Tree], Tree]:
    def product(v: Tree) -> Tree:
        bench.need(4 * rows(point))
        bench.spend(4 * rows(point))
        with torch.enable_grad():
            u = tree_map(lambda part: part.detach().clone().requires_grad_(part.is_floating_point()), point)
            inside = [part for part in leaves(u) if part.requires_grad]
            loss = question.problem(u, key).loss.sum()
            first = torch.autograd.grad(loss, inside, create_graph=True, allow_unused=True)
            along = [
                (g * w.to(g.dtype)).sum()
                for g, w in zip(first, leaves(v), strict=True)
                if g is not None and g.requires_grad
            ]
            second: tuple[Tensor | None, ...] = (None,) * len(inside)
            if along:
                second = torch.autograd.grad(sum(along[1:], along[0]), inside, allow_unused=True)
                if all(part is None for part in second):  # a backward pass that cannot be differentiated says nothing
                    raise GradientError("the gradient has no derivative", remedy="take differences of gradients")
        parts = iter(second)
        return tree_map(lambda part: _or_zero(next(parts), part), u)

    return product


def _between(bench: Bench, question: Question, point: Tree, key: Key) -> Callable[[Tree], Tree]:
    def product(v: Tree) -> Tree:
        scale = _STEP * question.region.radius.abs().clamp(1e-6, 1.0)
        ends = []
        for sign in (1, -1):
            near = tree_map(lambda a, b, sign=sign: (a + sign * per_row(scale, a) * b).to(a.dtype), point, v)
            ends.append(bench.gradient(question, near, key)[1])
        return tree_map(lambda a, b: (a - b) / (2 * per_row(scale, a)), *ends)

    return product


def _length(tree: Tree) -> Tensor:
    return torch.stack([part.flatten(1).double().square().sum(1) for part in leaves(tree)]).sum(0).sqrt()


def _or_zero(found: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if found is None else found.detach()
