"""Moves: from a gradient to the next displacement, composable as in optax.

A move is a pair of pure functions. ``init`` makes the state of R rows; ``update`` maps (gradient, state, view) to
(change, state): for the last move of a chain the change is a displacement in input units, before that it is a
transformed gradient. A state is None, a tree with R rows, or a tuple of states, so that rows can leave during a run.
The view holds the point and its loss, so that a move can remember the best point it saw, as APGD's must.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from signstep.engine.keys import RowDraws
from signstep.engine.region import Region
from signstep.engine.tree import Tree, take, tree_map, unit_l1
from signstep.errors import InputError
from signstep.messages import Arg

State: TypeAlias = "Tree | tuple[State, ...] | None"


class Best(NamedTuple):
    """Of each row the displacement with the largest loss so far, the gradient there, and that loss (R,)."""

    d: Tree
    gradient: Tree
    loss: Tensor


class View(NamedTuple):
    """What a move may look at: the region, the displacement ``d`` with its ``loss`` (R,), step number and total.

    ``moved`` is False as long as d is zero, the clean input. ``best`` is there for moves that ask to remember, and
    for those that probe ``probe(point, number)``, the gradient at another input, and ``draws`` to choose it by.
    """

    region: Region
    d: Tree
    loss: Tensor
    step: int
    steps: int
    moved: bool = True
    best: Best | None = None
    probe: Callable[[Tree, int], Tree] | None = None
    draws: RowDraws | None = None


class Move(NamedTuple):
    """``init(region, d) -> state`` and ``update(gradient, state, view) -> (change, state)``.

    ``feasible`` promises that the change from the clean input is `Region.step`'s own and needs no projection to land.
    ``remembers`` asks for the view's ``best``. ``ahead(d, state)`` is where the gradient is wanted instead of at d; it
    is projected first (Nesterov's look-ahead). ``probes``, how often each step but the last, whose state nobody reads,
    looks at a gradient elsewhere: it gets the view's ``probe`` and ``draws``.
    """

    init: Callable[[Region, Tree], State]
    update: Callable[[Tree, State, View], tuple[Tree, State]]
    feasible: bool = False
    remembers: bool = False
    ahead: Callable[[Tree, State], Tree] | None = None
    probes: int = 0


def steepest(relative: float) -> Move:
    """A step of length ``relative * eps`` in the steepest direction of the region's norm: eps*sign(g) for L-infinity.

    Exact over the step's ball, the box and the mask (see `Region.step`). With eps None the radius is infinite and so is
    the step: it goes to the box.
    """
    if not relative > 0:
        raise InputError(
            Arg("step", relative), remedy="pass a step length relative to eps, above 0 (1 is the whole radius)"
        )

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        here = view.d if view.moved else None
        return view.region.step(here, gradient, view.region.radius * relative), state

    return Move(_no_state, update, feasible=True)


def shrinking(first: float, last: float) -> Move:
    """Steepest steps whose length falls linearly over the run, from ``first * eps`` towards ``last * eps``."""
    if not first >= last > 0:
        raise InputError(
            Arg("step", first), remedy=f"pass a first step relative to eps of at least the last one, {last}, above 0"
        )

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        here = view.d if view.moved else None
        length = first + (last - first) * view.step / view.steps
        return view.region.step(here, gradient, view.region.radius * length), state

    return Move(_no_state, update)


def momentum(decay: float) -> Move:
    """g_t = decay * g_(t-1) + gradient / its L1 length (MI-FGSM; Dong et al. 2018, algorithm 1)."""
    if not decay >= 0:
        raise InputError(Arg("decay", decay), remedy="pass a momentum factor >= 0; 1.0 is the paper's")

    def init(region: Region, d: Tree) -> State:  # noqa: ARG001
        return tree_map(torch.zeros_like, d)

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:  # noqa: ARG001
        assert state is not None
        assert not isinstance(state, tuple)
        memory = tree_map(lambda old, new: decay * old + new, state, unit_l1(gradient))
        return memory, memory

    return Move(init, update)


def chain(*moves: Move) -> Move:
    """Apply moves one after the other: what one returns is the next one's gradient."""

    def init(region: Region, d: Tree) -> State:
        return tuple(move.init(region, d) for move in moves)

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        kept: list[State] = []
        for move, own in zip(moves, _parts(state), strict=True):
            gradient, after = move.update(gradient, own, view)
            kept.append(after)
        return gradient, tuple(kept)

    return Move(
        init,
        update,
        moves[-1].feasible,
        any(move.remembers for move in moves),
        _look_ahead(moves),
        sum(move.probes for move in moves),
    )


def _look_ahead(moves: tuple[Move, ...]) -> Callable[[Tree, State], Tree] | None:
    """The look-ahead of the one move of a chain that has one."""
    looking = [number for number, move in enumerate(moves) if move.ahead is not None]
    if not looking:
        return None
    if len(looking) > 1:
        raise InputError("a chain can look ahead once", remedy=("pass one move with", Arg("ahead")))
    ahead = moves[looking[0]].ahead
    assert ahead is not None
    return lambda d, state: ahead(d, _parts(state)[looking[0]])


def rose(loss: Tensor, before: Tensor) -> Tensor:
    """Whether a loss (R,) is larger than before by more than rounding.

    Kernels round differently in batches of different sizes; a decision that hangs on the last place would make the
    result depend on the batch.
    """
    slack = 16 * torch.finfo(loss.dtype).eps * torch.maximum(loss.abs(), before.abs())
    return (loss > before + slack) | (torch.isneginf(before) & (loss > before))


def take_state(state: State, index: Tensor) -> State:
    """The state of the rows at ``index``."""
    if isinstance(state, tuple):
        return tuple(take_state(part, index) for part in state)
    return None if state is None else take(state, index)


def _parts(state: State) -> tuple[State, ...]:
    if not isinstance(state, tuple):
        raise TypeError("the state of a chain is a tuple with one entry for each move")
    return state


def _no_state(region: Region, d: Tree) -> State:  # noqa: ARG001
    return None
