"""Any quantity instead of a loss: the whole engine for a callable that returns one number for each example."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.core import given
from signstep.core.attack import Attack, GradientAttack
from signstep.core.keys import Key
from signstep.core.oracles import Autograd
from signstep.core.origin import contained
from signstep.core.outcome import Outcome
from signstep.core.recipes import RECIPES
from signstep.core.recipes import recipe as find_recipe
from signstep.core.subject import Model, Question, Subject
from signstep.core.tasks import Objective
from signstep.core.threat import Threat
from signstep.core.transforms import Transform
from signstep.core.tree import Tree, leaves, per_row, search_dtype, tree_map, wide
from signstep.core.twin import Engine
from signstep.core.untouched import Mode
from signstep.errors import GradientError, InputError


@dataclass(frozen=True, eq=False)
class Maximum:
    """The largest value found inside the threat model, and how far the first order explains it; all (R,).

    Attributes:
        x: the inputs that reach ``after``, allowed, in the dtype of the input.
        before: the value at the untouched input.
        after: the value at ``x``, never below ``before``; where a level was asked for, a row ends once it is reached.
        linear: what first order promises at most: the largest <g, d> over all allowed d, g the gradient at the
            untouched input. None where the objective has no gradient.
        along: <g, d> for the d that was found; None likewise.
        curvature: 2 (after - before - along) / |d|^2, the mean second derivative along d, in units of the objective per
            squared unit of the input; NaN where nothing moved. None likewise.
        distance: the length of d in the threat's norm; a dict for several inputs.
        reached: whether the level is reached at ``x``; all False where none was given.
        undetermined: rows that the attack could find out nothing about (a gradient that vanished at every step, NaN).
        verified: the independent checker found ``x`` inside the threat model.
        forwards: forward passes spent, the two for ``before`` and ``linear`` included.
        backwards: backward passes spent.
        notes: what a reader must know.
        outcome: everything the attack itself returned.
    """

    x: Tree
    before: Tensor
    after: Tensor
    linear: Tensor | None
    along: Tensor | None
    curvature: Tensor | None
    distance: Tree
    reached: Tensor
    undetermined: Tensor
    verified: Tensor
    forwards: Tensor
    backwards: Tensor
    notes: tuple[str, ...]
    outcome: Outcome

    def __len__(self) -> int:
        return len(self.before)

    @property
    def gain(self) -> Tensor:
        """after - before, (R,)."""
        return self.after - self.before

    def __str__(self) -> str:
        rows = len(self)
        middle = float(self.gain.double().quantile(0.5))
        said = f"median gain {middle:.4g} over {rows} example{'s' if rows > 1 else ''}"
        if self.linear is not None:
            said += f", first order promises {float(self.linear.double().quantile(0.5)):.4g}"
        return said


@contained
def maximise(
    objective: Model,
    x: Tree | given.Array,
    threat: Threat,
    recipe: str | Attack = "pgd",
    *,
    level: float | Tensor | given.Array | None = None,
    surrogate: Model | Sequence[Model] | None = None,
    engine: Engine = "exact",
    mode: Mode = "eval",
    transform: Transform | None = None,
    eot: int = 1,
    seed: int = 0,
    ids: Tensor | None = None,
) -> Maximum:
    """Make a quantity as large as the threat model allows.

    The same attacks, regions, checker and accounting as for classifiers: energy of a crystal, force on a beam, error of
    a regression, distance to a limit in a controlled plant.

    Args:
        objective: an nn.Module or any callable that maps inputs (R, ...) to one number each, (R,) or (R, 1), without
            mixing rows; a dict of inputs is passed as keyword arguments. To make something small, return its negative.
        x: inputs (R, ...), floating point, or a dict of tensors of which ``threat`` names those that may change.
        threat: what may change: ``ss.linf(0.1, box=None)``, or one for each attacked input of a dict.
        recipe: as for `signstep.attack`; gradient attacks return the best point of their run. Attacks that look for the
            smallest change need ``level``.
        level: the value that counts as reached, a number or one for each example (R,); a row ends there. None climbs
            to the end.
        surrogate: take gradients from this objective, or the mean over these.
        engine: see `signstep.attack`.
        mode: see `signstep.attack`.
        transform: see `signstep.attack`.
        eot: see `signstep.attack`.
        seed: with the content of each example, all randomness.
        ids: (R,) int64 to key randomness by instead of the content.

    Returns:
        A `Maximum`. It is a lower bound on the true maximum: a stronger attack can only raise it.

    Raises:
        InputError: the recipe looks for the smallest change and there is no level; see also `signstep.attack`.
        ModelError: the objective does not give one number for each example.

    Example:
        >>> import torch, signstep as ss
        >>> bowl = lambda u: (u - 1).square().sum(1)
        >>> found = ss.maximise(bowl, torch.zeros(1, 2), ss.linf(0.5, box=None), recipe="fgsm")
        >>> found.x.tolist(), float(found.gain), float(found.linear), float(found.curvature)
        ([[-0.5, -0.5]], 2.5, 2.0, 2.0)
    """
    each = None if level is None or isinstance(level, (int, float)) else given.labels(level, name="level")
    if each is not None and each.ndim == 0:
        level, each = float(each), None
    subject = Subject.of(
        objective,
        task=Objective(level if isinstance(level, (int, float)) else None),
        surrogate=surrogate,
        engine=engine,
        mode=mode,
        transform=transform,
        eot=eot,
    )
    chosen = find_recipe(recipe, oracle=subject.oracle)
    if isinstance(chosen, GradientAttack):
        chosen = replace(chosen, keep="best")
    elif level is None and (row := RECIPES.get(chosen.name)) is not None and row.smallest:
        raise InputError(
            f"{chosen.name} looks for the smallest change that reaches a level; pass level=, or recipe='pgd'"
        )
    key = Key(seed)
    with subject.opened():
        question = subject.ask(x, each, threat, key=key, ids=ids)
        outcome = question.run(chosen, key.fold(chosen.name))
        gradient = _gradient(question, key)
        return _read(question, outcome, gradient)


def _gradient(question: Question, key: Key) -> Tree | None:
    """The objective's own gradient at the untouched input, where there is one."""
    try:
        _, gradient = Autograd()(question.problem, question.x, key.fold("linear"))
    except GradientError:
        return None
    return question.region.restrict(tree_map(lambda part: part.to(search_dtype(part.dtype)), gradient))


def _read(question: Question, outcome: Outcome, gradient: Tree | None) -> Maximum:
    before, after = question.clean.loss, outcome.loss
    # The untouched input is allowed too, and stays where nothing better was found.
    worse = ~(after > before) & ~outcome.fooled
    x = _where(worse, question.x, outcome.x)
    after = torch.where(worse, before, after)
    moved = tree_map(lambda u, start: wide(u) - wide(start), x, question.x)
    linear = along = curvature = None
    notes = list(outcome.notes)
    if gradient is None:
        notes.append("the objective has no gradient, so nothing is said about first order")
    else:
        linear = _product(gradient, question.region.steepest(gradient)).to(before)
        along = _product(gradient, moved).to(before)
        squared = _product(moved, moved)
        curvature = (2 * ((after - before - along).double() / squared)).to(before)
        curvature = torch.where(squared > 0, curvature, torch.nan)
        if bool((linear == 0).any()):
            notes.append(
                f"{int((linear == 0).sum())} examples have no gradient at the untouched input: first order promises "
                "nothing there, and a recipe that starts there cannot move; pass one with a random start, such as pgd"
            )
    kept = {name: torch.where(worse, 0.0, part) for name, part in _named(outcome.distance).items()}
    return Maximum(
        x,
        before,
        after,
        linear,
        along,
        curvature,
        kept if isinstance(outcome.distance, dict) else kept[""],
        outcome.fooled,
        outcome.undetermined,
        outcome.verified,
        outcome.forwards + 1 + (gradient is not None),
        outcome.backwards + (gradient is not None),
        tuple(notes),
        outcome,
    )


def _where(rows: Tensor, first: Tree, second: Tree) -> Tree:
    return tree_map(lambda one, other: torch.where(per_row(rows, one), one, other), first, second)


def _product(first: Tree, second: Tree) -> Tensor:
    """<first, second> of each row, float64 (R,)."""
    parts = tree_map(lambda a, b: (wide(a) * wide(b)).flatten(1).sum(1), first, second)
    return torch.stack(leaves(parts)).sum(0)


def _named(tree: Tree) -> dict[str, Tensor]:
    return tree if isinstance(tree, dict) else {"": tree}
