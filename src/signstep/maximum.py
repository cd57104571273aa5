"""Any quantity instead of a loss: the whole engine for a callable that returns one number for each example."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.attacks.recipes import RECIPES, defined_for
from signstep.attacks.recipes import recipe as find_recipe
from signstep.attacks.search.explore import Explore, uniform
from signstep.engine import arrays
from signstep.engine.attack import Attack, GradientAttack
from signstep.engine.keys import Key
from signstep.engine.oracles import Autograd
from signstep.engine.origin import contained
from signstep.engine.outcome import Outcome
from signstep.engine.shaped import need_check
from signstep.engine.tasks import Objective
from signstep.engine.threat import Threat
from signstep.engine.tree import Tree, leaves, per_row, rows, search_dtype, tree_map, wide
from signstep.errors import GradientError, InputError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.search import Search, refuse, search_of
from signstep.model.subject import Question, Subject
from signstep.model.twin import Engine


@dataclass(frozen=True, eq=False)
class Maximum:
    """The largest value found inside the threat model, and how far the first order explains it; all (R,).

    Attributes:
        x: the inputs that reach ``after``, allowed, in the dtype of the input: the untouched one where the attack found
            nothing better, and where it is at its level already.
        before: the value at the untouched input; of a random objective the mean over held-out passes, as ``after``.
        after: the value at ``x``, never below ``before`` (a NaN is below every number); where a level was asked for, a
            row ends once it is reached. Of a random objective ``reached`` is what most of the passes say, so that the
            mean may be lower there.
        linear: what first order promises at most: the largest <g, d> over all allowed d, g the gradient at the
            untouched input. None where the objective has no gradient.
        along: <g, d> for the d that was found; None likewise.
        curvature: 2 (after - before - along) / |d|^2, the mean second derivative along d, in units of the objective per
            squared unit of the input; NaN where nothing moved. None likewise.
        distance: the length of d in the threat's norm; a dict for several inputs.
        reached: whether the level is reached at ``x``; the untouched input is a witness as good as any. All False where
            no level was given.
        undetermined: rows that the attack could find out nothing about (a gradient that vanished at every step, NaN);
            never one that is reached.
        verified: the independent checker found ``x`` inside the threat model, and the point that the attack returned;
            where that one lay outside it counts for nothing, and ``x`` is the untouched input.
        forwards: forward passes spent, the two for ``before`` and ``linear`` included.
        backwards: backward passes spent.
        notes: what a reader must know.
        outcome: everything the attack itself returned; rows at their level untouched are not attacked, and stand in it
            as they are.
        control: of the recipe ``explore`` the best value (R,) of as many uniform points as it spent passes; the better
            of the two is returned, so ``after`` is never below it. None for other recipes.
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
    control: Tensor | None = None

    def __len__(self) -> int:
        return len(self.before)

    @property
    def gain(self) -> Tensor:
        """after - before, (R,); 0 where nothing better was found, also where both are infinite."""
        return torch.where(self.after == self.before, 0.0, self.after - self.before)

    def __str__(self) -> str:
        middle, count = float(self.gain.double().quantile(0.5)), len(self)
        said = f"median gain {middle:.4g} over {count} example{'s' if count > 1 else ''}"
        if self.linear is not None:
            said += f", first order promises {float(self.linear.double().quantile(0.5)):.4g}"
        if self.control is not None:
            random = float((self.control - self.before).clamp_min(0).double().quantile(0.5))
            said += f", as many random points gain {random:.4g}"
        return said


@contained
def maximise(
    objective: Model | Callee,
    x: Tree | arrays.Array,
    threat: Threat,
    recipe: str | Attack = "pgd",
    *,
    level: float | Sequence[float] | Tensor | arrays.Array | None = None,
    engine: Engine | None = None,
    search: Search | None = None,
    ids: Tensor | None = None,
) -> Maximum:
    """Make a quantity as large as the threat model allows.

    The same attacks, regions, checker and accounting as for classifiers: energy of a crystal, force on a beam, error of
    a regression, distance to a limit in a controlled plant.

    Args:
        objective: an nn.Module or any callable that maps inputs (R, ...) to one number each, (R,) or (R, 1), without
            mixing rows; a dict of inputs is passed as keyword arguments. To make something small, return its negative.
            Or an `ss.Model` that declares more about it: mean and std, a transform, where the number is.
        x: inputs (R, ...), floating point, or a dict of tensors of which ``threat`` names those that may change.
        threat: what may change: ``ss.linf(0.1, box=None)``, or one for each attacked input of a dict.
        recipe: as for `signstep.attack`; gradient attacks return the best point of their run. Attacks that look for the
            smallest change need ``level``.
        level: the value that counts as reached, a number or one for each example (R,); a row ends there, and one that
            is there untouched is not attacked. None climbs to the end.
        engine: see `signstep.attack`.
        search: surrogate objectives, draws, engine, seed: an `ss.Search`.
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
    need_check(threat)
    declared, search = Model.of(objective), search_of(search, engine=engine)
    _check(declared, search)
    levels = None if level is None else _levels(level, x, declared.network)
    alike = levels is None or levels.ndim == 0
    task = Objective(float(levels) if levels is not None and alike else None)
    subject = Subject.of(replace(declared, task=task), search)
    chosen = find_recipe(recipe, oracle=subject.oracle)
    if isinstance(chosen, GradientAttack):
        chosen = replace(chosen, keep="best")
    elif level is None and (row := RECIPES.get(chosen.name)) is not None and row.smallest:
        raise InputError(
            f"{chosen.name} looks for the smallest change that reaches a level",
            remedy=("pass", Arg("level"), ", or", Arg("recipe", "pgd")),
        )
    key = Key(search.seed)
    with subject.opened():
        question = subject.ask(x, None if alike else levels, threat, key=key, ids=ids)
        outcome = _climbed(question, chosen, key.fold(chosen.name))
        control = None
        if isinstance(chosen, Explore):
            spent = int((outcome.forwards + outcome.backwards).max())
            drawn = _climbed(question, uniform(max(1, spent)), key.fold("control"))
            control, outcome = drawn.loss, _best_of(outcome, drawn)
        gradient = _gradient(question, key)
        return replace(_read(question, chosen, outcome, gradient), control=control)


def _check(declared: Model, search: Search) -> None:
    """See that nothing is declared or asked for that only answers have.

    Raises:
        InputError: it is.
    """
    if declared.task != "auto":
        raise InputError(
            Arg("task", declared.task),
            "is declared, and maximise() climbs the numbers themselves",
            remedy="leave it out, or call attack()",
        )
    if declared.classes:
        raise InputError(
            Arg("classes"), "are declared, and an objective has none", remedy="leave them out, or call attack()"
        )
    reason = "it climbs the objective itself"
    refuse(
        search,
        "maximise",
        target=reason,
        loss=reason,
        budget="objectives are measured in raw units",
        gradient_path="it climbs through what the objective declares",
    )


def _levels(level: float | Sequence[float] | arrays.Array, x: Tree | arrays.Array, objective: object) -> Tensor:
    """A level for all, without dimensions, or one for each row of ``x``, (R,).

    Raises:
        InputError: it is neither, or no number.
    """
    if isinstance(level, (int, float)):
        levels = torch.tensor(level, dtype=torch.float64, device="cpu")
    else:
        given_levels = arrays.labels(level, name="level")
        assert given_levels is not None
        levels = wide(given_levels)
        count = rows(arrays.inputs(x, [], home=arrays.Home(objective)))
        if levels.numel() == count and levels.ndim in (1, 2):
            levels = levels.reshape(count)
        elif levels.ndim:
            raise InputError(
                Arg("level", tuple(levels.shape), of="shape"),
                remedy=f"pass a number, or one for each example, ({count},)",
            )
    if bool(torch.isnan(levels).any()):
        raise InputError(
            Arg("level"), "is NaN", remedy="pass the value that counts as reached, for each example or for all"
        )
    return levels


def _climbed(question: Question, chosen: Attack, key: Key) -> Outcome:
    """What the attack makes of the rows that are not at their level yet; the others are witnesses as they are."""
    index = (~question.clean.fooled).nonzero().squeeze(1)
    if len(index) == len(question.clean.fooled):
        return question.run(chosen, key)
    if len(index) == 0:
        known, row = question.untouched(), RECIPES.get(chosen.name)
        return replace(known, smallest=torch.zeros_like(known.rate)) if row is not None and row.smallest else known
    return question.spread(question.take(index).run(chosen, key), index)


def _best_of(first: Outcome, second: Outcome) -> Outcome:
    """Row by row the outcome that reached its level, or has the larger value; the passes of both."""
    larger = (second.loss > first.loss) | (torch.isnan(first.loss) & ~torch.isnan(second.loss))
    chosen = second.verified & ((second.fooled & ~first.fooled) | (larger & (second.fooled | ~first.fooled)))

    def either(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(per_row(chosen, one), one, other)

    return replace(
        first,
        fooled=either(second.fooled, first.fooled),
        undetermined=either(second.undetermined, first.undetermined),
        valid=either(second.valid, first.valid),
        loss=either(second.loss, first.loss),
        answer=either(second.answer, first.answer),
        near=either(second.near, first.near),
        rate=either(second.rate, first.rate),
        verified=either(second.verified, first.verified),
        x=tree_map(either, second.x, first.x),
        distance=tree_map(either, second.distance, first.distance),
        forwards=first.forwards + second.forwards,
        backwards=first.backwards + second.backwards,
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
        ended=first.ended or second.ended,
    )


def _gradient(question: Question, key: Key) -> Tree | None:
    """The objective's own gradient at the untouched input, where there is one."""
    try:
        _, gradient = Autograd()(question.problem, question.x, key.fold("linear"))
    except GradientError:
        return None
    return question.region.restrict(tree_map(lambda part: part.to(search_dtype(part.dtype)), gradient))


def _read(question: Question, chosen: Attack, outcome: Outcome, gradient: Tree | None) -> Maximum:
    before, found = question.clean.loss, outcome.loss
    # The untouched input is allowed too, and stays where nothing better was found; a NaN is below every number, and a
    # point outside the threat model is none.
    higher = (found > before) | (torch.isnan(before) & ~torch.isnan(found))
    moves = outcome.verified & (higher | outcome.fooled) & ~question.clean.fooled
    x = _where(moves, outcome.x, question.x)
    after = torch.where(moves, found, before)
    reached = question.clean.fooled | (moves & outcome.fooled)
    undetermined = outcome.undetermined & ~reached
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
        flat = _flat(question, gradient) & ~reached
        if bool(flat.any()):
            notes.append(_advice(question, chosen, int(flat.sum()), int((flat & undetermined).sum())))
    checks = question.checked(x)
    sizes = {name: check.size.to(before.dtype).to(before.device) for name, check in checks.items()}
    return Maximum(
        x,
        before,
        after,
        linear,
        along,
        curvature,
        sizes if isinstance(question.x, dict) else sizes[""],
        reached,
        undetermined,
        outcome.verified & torch.stack([check.ok for check in checks.values()]).all(0),
        outcome.forwards + 1 + (gradient is not None),
        outcome.backwards + (gradient is not None),
        tuple(notes),
        outcome,
    )


def _flat(question: Question, gradient: Tree) -> Tensor:
    """Rows (R,) that might change, and whose gradient (R, ...) has no usable coordinate."""
    usable = [(torch.isfinite(part) & (part != 0)).flatten(1).any(1) for part in leaves(gradient)]
    size = sum(part[0].numel() for part in leaves(gradient))
    return ~torch.stack(usable).any(0) & (question.region.radius > 0) & (question.region.frozen() < size)


def _advice(question: Question, chosen: Attack, flat: int, stuck: int) -> str:
    """That so many rows have no gradient where they start, and what else may be tried: never what has been."""
    said = (
        f"{flat} example{'s have' if flat > 1 else ' has'} no gradient at the untouched input: first order promises "
        "nothing there"
    )
    threats = list(question.threats.values())
    others = [name for name in _ALTERNATIVES if name != chosen.name and defined_for(RECIPES[name], threats)]
    asking = [name for name in others if RECIPES[name].needs == "scores"]
    if stuck and others and isinstance(chosen, GradientAttack) and chosen.start in ("clean", "best"):
        return (
            f"{said}; {chosen.name} starts there and could not move, pass one with a random start, such as {others[0]}"
        )
    if stuck and asking:
        return f"{said}, and {chosen.name} met none elsewhere in {stuck}; pass one that only asks, such as {asking[0]}"
    return said


def _where(chosen: Tensor, first: Tree, second: Tree) -> Tree:
    return tree_map(lambda one, other: torch.where(per_row(chosen, one), one, other), first, second)


def _product(first: Tree, second: Tree) -> Tensor:
    """<first, second> of each row, float64 (R,)."""
    parts = tree_map(lambda a, b: (wide(a) * wide(b)).flatten(1).sum(1), first, second)
    return torch.stack(leaves(parts)).sum(0)


# What may be tried where there is no gradient at the untouched input, the cheapest first.
_ALTERNATIVES = ("pgd", "apgd", "explore", "square", "spsa", "nes")
