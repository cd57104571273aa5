"""Nesterov's look-ahead: the gradient is taken where the memory alone would carry the point."""

import torch
from torch import Tensor

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import Move, State, View, chain, steepest
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.region import BallRegion, ProductRegion, Region, ball_of
from signstep.engine.tree import Tree, leaves, per_row, tree_map, unit_l1
from signstep.errors import InputError
from signstep.messages import Arg


def nesterov(decay: float, relative: float) -> Move:
    """g_t = decay * g_(t-1) + gradient / its L1 length, the gradient taken at x_t + alpha * decay * g_(t-1).

    Lin et al. 2020 (arXiv:1908.06281), section 3.1, with alpha = ``relative * eps``. Divided by its L1 length a
    gradient of n coordinates has entries of about 1/n, and the look-ahead of the paper's equation would be n times
    shorter than a step. Their program divides by the mean instead, and so does the look-ahead here: it is as long as a
    step where all entries are equally large. In other norms than L-infinity "as long as a step" means the step's own
    length. With eps None a step has no length and nothing is looked ahead.

    Args:
        decay: of the memory; 1.0 is the paper's.
        relative: the step that follows, relative to eps.

    Raises:
        InputError: a decay below 0.
    """
    if not decay >= 0:
        raise InputError(Arg("decay", decay), remedy="pass a momentum factor >= 0; 1.0 is the paper's")

    def init(region: Region, d: Tree) -> State:  # noqa: ARG001
        return tree_map(torch.zeros_like, d), tree_map(torch.zeros_like, d)

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        old, _ = _pair(state)
        memory = tree_map(lambda before, new: decay * before + new, old, unit_l1(gradient))
        free = sum(part[0].numel() for part in leaves(memory)) - view.region.frozen()
        scale = decay * relative * free.to(leaves(memory)[0].dtype)
        even = _even_step(view.region, memory)
        look = tree_map(lambda part, each: part * per_row(each * scale, part), memory, even)
        return memory, (memory, look)

    def ahead(d: Tree, state: State) -> Tree:
        return tree_map(torch.add, d, _pair(state)[1])

    return Move(init, update, ahead=ahead)


def _even_step(region: Region, like: Tree) -> Tree:
    """By how much every coordinate moves in an even step of length eps, (R,) for each input; 0 where eps is None."""
    if isinstance(region, ProductRegion):
        assert isinstance(like, dict)
        return {name: _each(ball_of(part, "nesterov"), like[name]) for name, part in region.parts.items()}
    assert isinstance(like, Tensor)
    return _each(ball_of(region, "nesterov"), like)


def _each(region: BallRegion, like: Tensor) -> Tensor:
    length = region.norm.length(torch.ones_like(like[:1])).to(like.dtype)
    return torch.where(torch.isfinite(region.radius), region.radius, 0.0) / length


def _pair(state: State) -> tuple[Tree, Tree]:
    assert isinstance(state, tuple)
    memory, look = state
    assert memory is not None
    assert look is not None
    assert not isinstance(memory, tuple)
    assert not isinstance(look, tuple)
    return memory, look


def ni_fgsm(
    *, steps: int = 10, step: float | None = None, decay: float = 1.0, oracle: Oracle | None = None
) -> GradientAttack:
    """MI-FGSM whose gradients are taken where the memory leads to (Lin et al. 2020, section 3.1)."""
    length = step_length(step, 1.0, steps)
    return GradientAttack(
        "ni-fgsm", chain(nesterov(decay, length), steepest(length)), steps, oracle=oracle or Autograd()
    )


ROW = Recipe(
    "ni-fgsm",
    ni_fgsm,
    "MI-FGSM with Nesterov's look-ahead",
    "Lin et al. 2020 (arXiv:1908.06281), section 3.1",
    WHITE_BOX,
    "steps + 1 forwards, steps backwards",
    balls=True,
)
