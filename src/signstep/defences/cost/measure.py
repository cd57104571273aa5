"""``ss.defences.table``: defences on the same examples, attacked by one who does not know of them and one who does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from signstep.attacks.recipes import canonical, recipe
from signstep.auditing.stream import Data, batches
from signstep.defences.chain import Chain
from signstep.defences.cost.bench import Bench, Candidate
from signstep.defences.cost.record import CostRow, CostTable
from signstep.defences.cost.watched import Watched
from signstep.defences.defend import defend
from signstep.defences.known import DEFENCES
from signstep.defences.smoothing import smooth
from signstep.defences.step import Ends, Step
from signstep.detectors.policy import Policy
from signstep.engine import arrays
from signstep.engine.attack import Attack
from signstep.engine.origin import contained
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError, MissingExtraError, ModelError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.search import Search
from signstep.version import VERSION

Wanted: TypeAlias = str | Step | Sequence[str | Step] | Policy | Candidate

UNDEFENDED = "undefended"
_FREE = "none"
_VOTES = 100  # draws of a vote in use


@dataclass(frozen=True, eq=False)
class Transformed:
    """A chain of transformations as a row of the table."""

    chain: tuple[str | Step, ...]
    box: Ends
    kind: str = "transformation"

    @property
    def name(self) -> str:
        """The steps as they are typed."""
        return " + ".join(map(str, self.chain))

    def measured(self, bench: Bench) -> CostRow:
        """Attacked unaware and aware."""
        guarded = defend(bench.model, list(self.chain), box=self.box)
        unaware, aware = bench.audited(guarded, "straight"), bench.audited(guarded)
        chain = guarded.transform
        assert isinstance(chain, Chain)
        rows = [DEFENCES.get(step.called) for step in chain.steps]
        hard = [row.ease for row in rows if row is not None and not row.ease.startswith("low")]
        plain = "low: one function in front of the model"
        return bench.row(
            " + ".join(chain.specs),
            self.kind,
            clean=aware.clean_accuracy,
            unaware=unaware.robust_accuracy,
            aware=aware.robust_accuracy,
            p=bench.against_base(aware.worst_case),
            latency=bench.latency(bench.caller(guarded)),
            training=_FREE,
            ease=hard[0] if hard else plain,
            note=", ".join(f"{name} {version}" for name, version in chain.versions.items()),
        )


@dataclass(frozen=True, eq=False)
class Trained:
    """Another model of the same task, which somebody has trained to be robust."""

    name: str
    model: Model
    kind: str = "training"

    def measured(self, bench: Bench) -> CostRow:
        """Attacked as the undefended model is: there is nothing to know of but the model itself."""
        found = bench.audited(self.model)
        return bench.row(
            self.name,
            self.kind,
            clean=found.clean_accuracy,
            aware=found.robust_accuracy,
            p=bench.against_base(found.worst_case),
            latency=bench.latency(bench.caller(self.model)),
            training="a training run, k + 1 times the usual passes with k inner steps",
            ease="high: the model is trained anew",
        )


@dataclass(frozen=True, eq=False)
class Vote:
    """Randomised smoothing of the undefended model."""

    sigma: float
    draws: int = 1000
    kind: str = "smoothing"

    @property
    def name(self) -> str:
        """With its noise."""
        return f"smoothing:sigma={self.sigma:g}"

    def measured(self, bench: Bench) -> CostRow:
        """Not attacked but certified, in L2: a line of its own."""
        smoothed = smooth(bench.model, self.sigma, seed=bench.search.seed)
        y = bench.y
        if y is None:
            y = bench.caller(bench.model)(bench.x).raw.argmax(1)
        found = smoothed.certify([(bench.x, y)], n=self.draws)
        eps = bench.threat.eps
        radius = float(eps) if bench.threat.norm.name == "l2" and isinstance(eps, float) else self.sigma / 2
        base = bench.base
        assert base is not None
        proved = 100 * found.certified_accuracy(radius)
        cost = 100 * (base.clean_accuracy - found.clean_accuracy)
        return bench.row(
            self.name,
            self.kind,
            clean=found.clean_accuracy,
            latency=bench.latency(lambda x: smoothed.predict(x, n=_VOTES)),
            training="none for the vote; a model that was trained under such noise is proved far more",
            ease=f"high: {_VOTES} passes for each answer",
            verdict=(
                f"costs {cost:.1f} points clean; the vote is proved right for {proved:.1f} % within {radius:.4g} in "
                "L2, whatever the attack; of other norms and of the model without the vote it says nothing"
            ),
            note=f"abstained on {found.abstained} of {found.examples}, {self.draws} draws, alpha {found.alpha:g}",
        )


@contained
def table(
    model: Model | Callee,
    data: Data,
    *,
    threat: ThreatModel,
    rows: Sequence[Wanted] | None = None,
    trained: Mapping[str, Model | Callee] | None = None,
    sigma: float | None = None,
    attacks: Sequence[str | Attack] = ("pgd:steps=20",),
    box: Ends | None = None,
    limit: int | None = 100,
    search: Search | None = None,
    name: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> CostTable:
    """What each defence costs on a model, and what it is worth: the table of the guides, measured.

    For each: clean accuracy kept; robust accuracy against an attacker who does not know of it, and against one who
    does; time for a batch of 1 and of 64 as a multiple; what it costs to make and to bring in; and one sentence. Every
    number is of the same examples. Robust accuracies are upper bounds: a stronger attack can only lower them.

    Args:
        model: undefended: an `ss.Model`, or a bare network.
        data: as for `ss.audit`.
        threat: what may change.
        rows: transformations, each a name, a `Step`, or a list of them that makes a chain; detectors with their rates,
            an `ss.Policy`; or objects that measure themselves (`Candidate`). None: every transformation that fits the
            inputs.
        trained: models that were trained to be robust, by name.
        sigma: add randomised smoothing of the model with this noise; see `ss.smooth`.
        attacks: that every row meets.
        box: the ends of valid raw inputs; None for those of the threat.
        limit: examples.
        search: how attacks search; see `ss.Search`.
        name: what the record calls the data.
        progress: called with the number of rows done.

    Raises:
        InputError: the data or an option does not fit.

    Example:
        >>> import torch, signstep as ss
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> x = torch.rand(8, 1, 4, 4)
        >>> found = ss.defences.table(model, (x, None), threat=ss.linf(0.1), rows=["bit-depth:bits=3"])
        >>> [row.name for row in found.rows]
        ['undefended', 'bit-depth:bits=3']
    """
    declared, search = Model.of(model), search or Search()
    ends = box or _ends(threat)
    x, y = _examples(data, limit, declared)
    bench = Bench(declared, x, y, threat, tuple(attacks), search)
    bench = replace(bench, base=bench.audited(declared))
    wanted = _wanted(rows, ends)
    wanted += [] if sigma is None else [Vote(sigma)]
    wanted += [Trained(called, _like(declared, other)) for called, other in (trained or {}).items()]
    assert bench.base is not None
    base = bench.base
    plain = CostRow(
        UNDEFENDED, "none", base.clean_accuracy, base.robust_accuracy, base.robust_accuracy, None, (1.0, 1.0), _FREE,
        "none", "",
    )  # fmt: skip
    found, notes, partial = [plain], [note for note in base.notes if "labels are the model's own" in note], False
    try:
        for number, candidate in enumerate(wanted):
            try:
                found.append(candidate.measured(bench))
            except (InputError, ModelError, MissingExtraError) as error:
                if rows is not None:  # somebody asked for it
                    raise
                notes.append(f"{candidate.name} was not measured: {error}")
            if progress is not None:
                progress(number + 1)
    except KeyboardInterrupt:
        partial = True
    return CostTable(
        model=declared.title,
        data=name or ("tensors" if isinstance(data, tuple) else type(data).__name__),
        examples=len(x),
        threat=str(threat),
        attacks=tuple(canonical(one) if isinstance(one, str) else recipe(one).name for one in attacks),
        rows=tuple(found),
        notes=tuple(notes),
        versions={"signstep": VERSION, "torch": torch.__version__},
        partial=partial,
    )


def _wanted(rows: Sequence[Wanted] | None, ends: Ends) -> list[Any]:
    """The rows that were asked for, as candidates."""
    if isinstance(rows, str):
        raise InputError(Arg("rows", rows), "is no list", remedy="pass a list, such as ['jpeg:quality=75']")
    found: list[Any] = []
    for one in DEFENCES.own if rows is None else rows:
        if isinstance(one, (str, Step)):
            found.append(Transformed((one,), ends))
        elif isinstance(one, Policy):
            found.append(Watched(one))
        elif isinstance(one, Candidate):
            found.append(one)
        elif isinstance(one, Sequence) and one:
            found.append(Transformed(tuple(one), ends))
        else:
            raise InputError(
                Arg("rows"), f"has {one!r}", remedy="pass names, chains of names, or objects with name, kind, measured"
            )
    return found


def _ends(threat: ThreatModel) -> Ends:
    if not isinstance(threat, ThreatModel) or isinstance(threat, ShapedThreat):
        raise InputError(Arg("threat", threat), remedy="pass a ball, such as ss.linf('8/255')")
    if not isinstance(threat.low, float) or not isinstance(threat.high, float):
        raise InputError(
            Arg("box"), "is not known: the threat has no box with two ends", remedy=("pass", Arg("box", (0.0, 1.0)))
        )
    return threat.low, threat.high


def _examples(data: Data, limit: int | None, model: Model) -> tuple[Tensor, Tensor | None]:
    home = arrays.Home(model.network)
    parts: list[Tensor] = []
    labels: list[Tensor] = []
    for x, y in batches(data, limit):
        if not isinstance(x, Tensor):
            raise InputError("the table needs one input, the data has several", remedy="pass one tensor")
        parts.append(x.to(home.device))
        labels += [] if y is None else [y.to(home.device)]
    if not parts:
        raise InputError(Arg("data"), "gave no examples", remedy="pass at least one")
    return torch.cat(parts), torch.cat(labels) if labels else None


def _like(declared: Model, other: Model | Callee) -> Model:
    return other if isinstance(other, Model) else replace(declared, network=other, name=None, hashes={})
