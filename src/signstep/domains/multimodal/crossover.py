"""Attack on A, on B, on both: what it costs to fool a model of several inputs through each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor, nn

from signstep.auditing.result import Result
from signstep.auditing.run import Run, audit
from signstep.domains.language.victim import Channel, Victim
from signstep.domains.multimodal.attacks import Partial, Witness, on, subsets
from signstep.engine.statistics import wilson
from signstep.engine.tasks import Task, TaskName
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.search import Search

# What the attacks are called, and what they are: among texts one start of PGD too easily ends where it began.
RECIPES: Mapping[str, str] = {"random": "random-sign", "fgsm": "fgsm", "pgd": "pgd:restarts=3"}
FIXED = 6  # columns before those of the branches
_ON = " on "


@dataclass(frozen=True)
class Cross:
    """One attack on some inputs.

    Attributes:
        attack: what it is called; "random" is the control.
        inputs: what it may change, "image" or "image + text".
        fooled: of ``right`` examples that the model answers rightly untouched.
        right: see there.
        accuracy: share of all examples that are right at the attacked point; None where not all were attacked.
        drop: by how much the margin fell, the median over the examples that were right.
        moves: by branch: the median relative length of its embedding's change, and the median cosine distance.
    """

    attack: str
    inputs: str
    fooled: int
    right: int
    accuracy: float | None
    drop: float | None
    moves: Mapping[str, tuple[float, float]]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of fooled of right."""
        return wilson(self.fooled, self.right)


@dataclass(frozen=True)
class Crossover:
    """The cross-over table, and the audit that it is drawn from.

    >>> print(crossover(model, inputs, y, threats))  # doctest: +SKIP
    """

    rows: tuple[Cross, ...]
    branches: tuple[str, ...]
    result: Result

    def row(self, attack: str, inputs: str) -> Cross:
        """The row of an attack on inputs, as in ``row("pgd", "image + text")``.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.attack, row.inputs) == (attack, inputs):
                return row
        raise KeyError(f"no {attack} on {inputs}; there are {[f'{row.attack} on {row.inputs}' for row in self.rows]}")

    @property
    def header(self) -> tuple[str, ...]:
        """Of the table."""
        return (
            "attack",
            "on",
            "fooled",
            "95 %",
            "acc. there",
            "margin lost",
            *(f"{name} moved" for name in self.branches),
        )

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """The table's rows as text."""
        return tuple(
            (
                row.attack,
                row.inputs,
                f"{row.fooled}/{row.right}",
                "-".join(f"{end:.0%}" for end in row.interval),
                "" if row.accuracy is None else f"{row.accuracy:.1%}",
                "" if row.drop is None else f"{row.drop:.2f}",
                *(_moved(row.moves.get(name)) for name in self.branches),
            )
            for row in self.rows
        )

    def __str__(self) -> str:
        lines = [self.header, *self.cells]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )


def crossover(
    model: Victim | nn.Module,
    inputs: Mapping[str, Tensor],
    y: Tensor | None,
    threats: Mapping[str, ThreatModel],
    *,
    attacks: Sequence[str] | Mapping[str, str] = RECIPES,
    branches: Mapping[str, str] | None = None,
    task: Task | TaskName = "auto",
    batch_size: int = 64,
    seed: int = 0,
) -> Crossover:
    """Attack each input alone and all together, and say how far decision and branches moved.

    Args:
        model: takes the inputs by name; a `Victim` for text, or any module whose arguments have the inputs' names.
        inputs: tensors (N, ...) by name.
        y: labels (N,); None takes the model's own predictions.
        threats: of the inputs that may change; the others are frozen.
        attacks: gradient recipes, or by the names that the table shall give them. Those of several steps return the
            best point they saw.
        branches: names of the model's parts to look at, with module paths, or ``returned:FIELD``.
        task: what the outputs mean, see `signstep.Model`.
        batch_size: examples at a time.
        seed: all randomness.

    Raises:
        InputError: inputs, threats and model do not fit together.
    """
    counts = {name: len(part) for name, part in inputs.items()}
    if len(set(counts.values())) != 1:
        raise InputError(
            f"the inputs have different numbers of rows: {counts}", remedy="pass one row of each for an example"
        )
    missing = sorted(set(threats) - set(inputs))
    if missing or not threats:
        raise InputError(
            f"threats name {missing or 'nothing'}, the inputs are {sorted(inputs)}", remedy="name one or more"
        )
    victim = model if isinstance(model, Victim) else Victim(model, [Channel(name, name) for name in inputs])
    witness = Witness(victim, dict(branches or {}))
    count = next(iter(counts.values()))
    named = attacks if isinstance(attacks, Mapping) else {spec: spec for spec in attacks}
    places = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
    batches = [
        ({name: part[place] for name, part in inputs.items()}, None if y is None else y[place]) for place in places
    ]
    result = audit(
        Model(victim, task=task, name=type(victim.model).__name__),
        batches,
        threat=dict(threats),
        attacks=everywhere(named, list(threats), witness),
        curve=False,
        search=Search(seed=seed),
        run=Run(data="tensors"),
    )
    return crossed(result, witness)


def everywhere(named: Mapping[str, str], inputs: Sequence[str], witness: Witness) -> list[Partial]:
    """Recipes, by the names they shall have, on each input alone and on all together."""
    return [on(spec, group, witness, label=label) for group in subsets(inputs) for label, spec in named.items()]


def on_some(inputs: Sequence[str], witness: Witness, spec: str) -> Partial | None:
    """The attack that a record calls "RECIPE on INPUT + INPUT"; None for a name without " on ".

    Raises:
        InputError: it names what is not attacked.
    """
    recipe, found, said = spec.strip().rpartition(_ON)
    if not found:
        return None
    group = [name.strip() for name in said.split("+")]
    unknown = next((name for name in group if name not in inputs), None)
    if unknown is not None or len(set(group)) < len(group):
        raise InputError(
            Arg("attacks", spec),
            ": after 'on' come inputs that are attacked",
            remedy=f"pass some of {' + '.join(inputs)}",
        )
    return on(RECIPES.get(recipe, recipe), group, witness, label=recipe)


def crossed(result: Result, witness: Witness) -> Crossover:
    """The table of an audit whose attacks are named "RECIPE on INPUTS"."""
    rows = []
    for entry in result.attacks:
        attack, found, inputs = entry.name.partition(_ON)
        if not found:
            inputs = "all inputs"
        trace = witness.traces.get(entry.name)
        drop, moves = None, {}
        if trace is not None:
            right = [identity for identity, was in trace.right.items() if was]
            drop = _median([trace.margin[identity][0] - trace.margin[identity][1] for identity in right])
            for branch, each in trace.moves.items():
                lengths, cosines = zip(*(each[identity] for identity in right), strict=True) if right else ((), ())
                if lengths:
                    moves[branch] = (median(lengths), median(cosines))
        right_there = None if entry.right_after is None else entry.right_after / max(1, result.examples)
        rows.append(
            Cross(
                attack, inputs, entry.fooled, entry.fooled + entry.held + entry.undetermined, right_there, drop, moves
            )
        )
    return Crossover(tuple(rows), tuple(witness.branches), result)


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _moved(move: tuple[float, float] | None) -> str:
    return "" if move is None else f"{move[0]:.1%} ({move[1]:.3f})"
