"""What the layers say to the untouched examples, to the attacked ones, and to noise of the attack's size."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.attacks.recipes import recipe
from signstep.diagnosing.bench import Bench, flat, ladder_of
from signstep.diagnosing.stain.taken import Taken, taken
from signstep.engine.keys import Key
from signstep.engine.tree import Tree, tree_map
from signstep.model.subject import Question, Subject

FEW, DRAWS = 32, 3
# For ladders, whose rungs are many.
STRONGEST = "apgd:loss=margin,steps=30"


@dataclass(frozen=True, eq=False)
class Alone:
    """Layers where one input alone moves, under the attack and under noise; sizes in L2 (R,) of its change."""

    attacked: Taken
    noisy: tuple[Taken, ...]
    size: Tensor
    sizes: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Moved:
    """Layers of the same rows (R) under several inputs.

    Attributes:
        x: untouched inputs.
        point: attacked ones.
        clean: what the layers say to the untouched.
        attacked: to the attacked.
        noisy: to noise of the attack's size, one for each seed.
        size: of the attack's change in L2 (R,).
        sizes: of the noise, likewise.
        spec: the attack.
        fell: rows (R,) that it fooled.
        reach: which values of each layer (R, ...) the changed inputs can touch at all; empty where that is not known.
        alone: by the name of an input, what the layers say where it alone is the attacked one, then where it alone is
            the noisy one, one for each seed; of several inputs only.
    """

    x: Tree
    point: Tree
    clean: Taken
    attacked: Taken
    noisy: tuple[Taken, ...]
    size: Tensor
    sizes: tuple[Tensor, ...]
    spec: str
    fell: Tensor
    reach: dict[str, Tensor]
    alone: dict[str, "Alone"]


def moved(bench: Bench, *, draws: int = DRAWS) -> Moved:
    """The layers under attack and noise; what was looked at before is not looked at again.

    Raises:
        TooDearError: it would cost more than is left.
        GradientError: the attack finds no gradient.
    """
    known = bench.seen.get("moved")
    if isinstance(known, Moved) and len(known.noisy) >= draws:
        return known
    key = Key(bench.search.seed).fold("stain")
    spec = STRONGEST if ladder_of(bench.attack) is not None else bench.attack
    attack = recipe(spec, oracle=Subject.of(bench.model, bench.search).oracle)
    with bench.asking(bench.some(FEW)) as question:
        outcome = question.run(attack, key.fold(attack.name))
        bench.spend(int(outcome.forwards.sum() + outcome.backwards.sum()))
        x, point, ids = question.x, outcome.x, question.problem.ids
        noise = [question.region.land(question.region.vertex(key.draws(ids, ids.device).of(n))) for n in range(draws)]
        # A random model is asked with the same draws each time.
        clean, attacked, *noisy = (taken(bench, question, part, key) for part in (x, point, *noise))
        reach = _reach(bench, question, x, point, key)
        alone = {}
        if isinstance(x, dict) and isinstance(point, dict) and len(x) > 1:
            alone = {name: _alone(bench, question, name, x, point, noise, key) for name in x}
        found = Moved(
            x, point, clean, attacked, tuple(noisy), _size(x, point), tuple(_size(x, part) for part in noise),
            spec if isinstance(spec, str) else spec.name, outcome.fooled.cpu(), reach, alone,
        )  # fmt: skip
    bench.seen["moved"] = found
    return found


def _alone(bench: Bench, question: Question, name: str, x: dict[str, Tensor], point: dict[str, Tensor],
           noise: Sequence[Tree], key: Key) -> Alone:  # fmt: skip
    moves = [{**x, name: part[name]} for part in (point, *noise)]  # type: ignore[index]
    attacked, *noisy = (taken(bench, question, part, key) for part in moves)
    size, *sizes = (_size(x, part) for part in moves)
    return Alone(attacked, tuple(noisy), size, tuple(sizes))


def _reach(bench: Bench, question: object, x: Tree, point: Tree, key: Key) -> dict[str, Tensor]:
    """Where a change of the changed values arrives: they are made NaN, which no layer can lose on the way."""
    if not isinstance(x, Tensor) or not isinstance(point, Tensor) or not x.is_floating_point():
        return {}
    marked = torch.where(point != x, float("nan"), x)
    try:
        found = taken(bench, question, marked, key)  # type: ignore[arg-type]
    except (RuntimeError, ValueError, ArithmeticError):  # a step that takes no NaN
        return {}
    return {name: torch.isnan(part) for name, part in found.outside.items()}


def _size(x: Tree, point: Tree) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(flat(tree_map(torch.sub, point, x)), dim=1).cpu()
    return found
