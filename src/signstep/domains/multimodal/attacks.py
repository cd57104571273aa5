"""Attacks on some of a model's inputs, and a witness of what they move."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import torch

from signstep.attacks.recipes import recipe
from signstep.domains.language.victim import Victim, tokens_of
from signstep.domains.multimodal.branches import embeddings, moved
from signstep.engine.attack import GradientAttack
from signstep.engine.keys import Key
from signstep.engine.outcome import Found
from signstep.engine.problem import ModelProblem, Problem, nearness
from signstep.engine.region import ProductRegion, Region
from signstep.engine.tree import Tree
from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True, eq=False)
class Partial(GradientAttack):
    """A gradient attack on some inputs; the others stay untouched, bit for bit.

    Attributes:
        inputs: names of those that may change.
        witness: told of every point that comes back.
    """

    inputs: tuple[str, ...] = ()
    witness: "Witness | None" = None

    @property
    def draws(self) -> bool:
        """Whether it needs the ids of the examples: a witness tells them apart by these."""
        return super().draws or self.witness is not None

    @property
    def from_clean(self) -> bool:
        """No: a pass at the clean input is of all inputs, this attack differentiates some."""
        return False

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
        """Attack every row in these inputs alone; for the others no gradient is computed."""
        if not isinstance(region, ProductRegion) or not isinstance(clean, dict):
            raise InputError(f"{self.name} is for models of several named inputs", remedy="pass x as a dict")
        missing = [name for name in self.inputs if name not in region.parts]
        if missing:
            raise InputError(
                f"{self.name}: {missing[0]!r} is not attacked", remedy=f"name some of {sorted(region.parts)}"
            )
        if not isinstance(problem, ModelProblem) or problem.transform is not None:
            raise InputError(
                f"{self.name} attacks some inputs of a model itself",
                remedy=("drop", Arg("transform"), "or attack all inputs"),
            )
        still = {name: part for name, part in clean.items() if name not in self.inputs}
        found = super().__call__(
            replace(problem, frozen={**problem.frozen, **still}, warm=None),
            ProductRegion({name: region.parts[name] for name in self.inputs}),
            self._own(clean),
            key,
            None if begin is None else self._own(begin),
        )
        assert isinstance(found.x, dict)
        whole: Tree = {name: found.x.get(name, part) for name, part in clean.items()}
        if self.witness is not None:
            self.witness.see(self.name, problem, clean, whole)
        return found._replace(x=whole)

    def _own(self, tree: Tree) -> Tree:
        assert isinstance(tree, dict)
        return {name: tree[name] for name in self.inputs}


def on(spec: str, inputs: Sequence[str], witness: "Witness | None" = None, *, label: str | None = None) -> Partial:
    """A recipe on some inputs: ``on("pgd:steps=10", ["image"])`` is called "pgd:steps=10 on image".

    ``label`` stands in for the recipe in that name.

    Runs of several steps return the best point they saw, not the last one.

    Raises:
        InputError: the recipe is not a gradient attack.
    """
    found = recipe(spec)
    if not isinstance(found, GradientAttack):
        raise InputError(f"{spec} is not a gradient attack", remedy="pass random-sign, fgsm, pgd, mi-fgsm or apgd")
    own = {part.name: getattr(found, part.name) for part in fields(GradientAttack)}
    if found.steps > 1:
        own["keep"] = "best"  # steps among texts do not shrink: the last one is not the best one
    named = f"{label or spec} on {' + '.join(inputs)}"
    return Partial(**{**own, "name": named}, inputs=tuple(inputs), witness=witness)


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Each input alone, and all of them together."""
    alone: list[tuple[str, ...]] = [(name,) for name in names]
    return alone if len(names) == 1 else [*alone, tuple(names)]


@dataclass
class Trace:
    """What one attack did to the examples it met, by their id.

    ``margin`` is before and after, ``moves`` by branch (relative length, cosine distance), ``right`` whether the
    example was right untouched.
    """

    right: dict[int, bool] = field(default_factory=dict)
    margin: dict[int, tuple[float, float]] = field(default_factory=dict)
    moves: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)
    swaps: Counter[tuple[int, int]] = field(default_factory=Counter)


@dataclass
class Witness:
    """Looks at the points that attacks return and notes how far the decision and each branch's embedding moved.

    Attributes:
        victim: the model behind its channels.
        branches: from names to module paths, see `branches.embeddings`.
        traces: by attack.
    """

    victim: Victim
    branches: Mapping[str, str]
    traces: dict[str, Trace] = field(default_factory=dict)

    @torch.no_grad()
    def see(self, name: str, problem: Problem, clean: Tree, point: Tree) -> None:
        """Two passes over the batch, outside the attack's own accounts."""
        assert isinstance(problem, ModelProblem)
        trace = self.traces.setdefault(name, Trace())
        before, after = problem.inputs(clean), problem.inputs(point)
        assert isinstance(before, dict)
        assert isinstance(after, dict)
        scores = problem(clean), problem(point)
        near = [nearness(score).tolist() for score in scores]
        ids = problem.ids.tolist()
        right = (~scores[0].fooled & scores[0].valid).tolist()
        trace.right.update(zip(ids, right, strict=True))
        trace.margin.update(zip(ids, ((-a, -b) for a, b in zip(*near, strict=True)), strict=True))
        old, new = (embeddings(self.victim, part, self.branches) for part in (before, after))
        for branch in self.branches:
            lengths, cosines = moved(old[branch], new[branch])
            trace.moves.setdefault(branch, {}).update(
                zip(ids, zip(lengths.tolist(), cosines.tolist(), strict=True), strict=True)
            )
        for channel in self.victim.channels:
            if channel.form == "choices":
                was, now = tokens_of(before[channel.name]), tokens_of(after[channel.name])
                changed = was != now
                trace.swaps.update(zip(was[changed].tolist(), now[changed].tolist(), strict=True))
