"""The boundary near a point, one hyperplane for each way of failing: one forward pass, a backward pass for each."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from signstep.engine.keys import Key
from signstep.engine.oracles import Autograd, Oracle, Surrogates, Twin, gradient_of, leaf_of, mean_score
from signstep.engine.problem import Problem
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, tree_map
from signstep.errors import InputError
from signstep.messages import Arg

Pick = Callable[[Score], Tensor]


class Differentiated(NamedTuple):
    """A score, the ways picked from it (R, M), minus their gradients (one tree for each of M), and what it took.

    Passes are counted for each row (R,): a way that a row does not have was differentiated for others.
    """

    score: Score
    ways: Tensor
    slopes: list[Tree]
    forwards: Tensor
    backwards: Tensor


def closest(count: int, *, jointly: bool = False) -> Pick:
    """The ``count`` ways (R, M) nearest to failing, the nearest first; the farthest one where all must fail."""

    def pick(score: Score) -> Tensor:
        ways = torch.nan_to_num(score.ways, nan=torch.inf, posinf=torch.inf)
        if jointly:
            return torch.where(torch.isinf(ways), -torch.inf, ways).argmax(1, keepdim=True)
        there = int(torch.isfinite(ways).sum(1).amax())
        order: Tensor = ways.argsort(stable=True, dim=1)
        return order[:, : max(1, min(count, there))]

    return pick


def margin(score: Score, *, jointly: bool = False) -> Tensor:
    """How far the outputs are from failing (R,), at most 0 where they have failed; inf where that is not a number."""
    ways = torch.nan_to_num(score.ways, nan=torch.inf, posinf=torch.inf)
    found = torch.where(torch.isinf(ways), -torch.inf, ways).amax(1) if jointly else ways.amin(1)
    return torch.where(torch.isneginf(found), torch.inf, found) if jointly else found


def differentiated(oracle: Oracle, problem: Problem, point: Tree, key: Key, pick: Pick, name: str) -> Differentiated:
    """Score a point and differentiate the ways that ``pick`` names (R, M).

    Surrogates count with the plain mean of their ways, since a hyperplane needs gradients of the right size; where an
    oracle is of an unknown kind it is asked anew for each way.

    Raises:
        InputError: the task has no ways that could be differentiated.
    """
    asked = _asked(oracle, problem)
    if asked is None:
        score = oracle.look(problem, point, key)
        ways = pick(score)
        slopes = [oracle(problem, point, key, _falling(score, way))[1] for way in ways.T]
        count = oracle.gradients * _needed(score, ways)
        return Differentiated(score, ways, slopes, oracle.looks + count, count)
    passes = [_forward(one, point, key) for one in asked]
    if any(score.loss.requires_grad and not score.ways.requires_grad for _, score in passes):
        raise InputError(
            f"{name} follows differences of scores, and this task has none that could be differentiated "
            "(segmentation and custom losses)",
            remedy=("pass", Arg("recipe", "ddn"), ", which follows the loss"),
        )
    score = mean_score([Score(*(part.detach() for part in score)) for _, score in passes])
    ways = pick(score)
    slopes = []
    for number, way in enumerate(ways.T):
        falling, again = _falling(score, way), number + 1 < ways.shape[1]
        parts = [
            gradient_of((torch.where(falling != 0, one.ways, 0.0) * falling).sum(), u, again=again) for u, one in passes
        ]
        slopes.append(parts[0] if len(parts) == 1 else tree_map(lambda *part: torch.stack(part).mean(0), *parts))
    needed = _needed(score, ways)
    return Differentiated(score, ways, slopes, torch.full_like(needed, len(passes)), len(passes) * needed)


def _needed(score: Score, ways: Tensor) -> Tensor:
    """How many of the picked ways (R, M) each row has; one where it has none."""
    return (~torch.isposinf(score.ways.gather(1, ways))).sum(1).clamp_min(1)


def _asked(oracle: Oracle, problem: Problem) -> list[Problem] | None:
    """The problems whose mean this oracle differentiates; None where it is of another kind."""
    if isinstance(oracle, Autograd):
        return [problem]
    if isinstance(oracle, Twin):
        return [problem.by(oracle.predictor)]
    if isinstance(oracle, Surrogates):
        return [problem.on(predictor) for predictor in oracle.predictors]
    return None


def _forward(problem: Problem, point: Tree, key: Key) -> tuple[Tree, Score]:
    """A differentiable pass; at the clean input the one already paid for."""
    if problem.warm is not None and problem.warm.x is point:
        return problem.warm.u, problem.warm.score
    u = leaf_of(point)
    return u, problem(u, key)


def _falling(score: Score, way: Tensor) -> Tensor:
    """The cotangent (R, K) under which one way of each row falls; zero where the way is infinitely far."""
    column = way[:, None]
    weights = torch.zeros_like(score.ways).scatter(1, column, -1.0)
    return torch.where(torch.isfinite(score.ways), weights, 0.0)
