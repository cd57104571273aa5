"""Running an audit: a stream of batches in, one record out; memory does not grow with the stream's tensors."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from signstep.attacks.gradient.security_curve import FgsmRay
from signstep.attacks.recipes import RECIPES, canonical, defined_for, needs_of, recipe
from signstep.auditing.asked import Asked
from signstep.auditing.bracket import Bounds, Bracket
from signstep.auditing.evidence import Evidence
from signstep.auditing.ladder import LADDERS, Ladder, Rung, climb
from signstep.auditing.ladder import ladder as find_ladder
from signstep.auditing.look import Look
from signstep.auditing.memory import planned_rows
from signstep.auditing.parts import Part, check_part, named, spread, stated
from signstep.auditing.record import aside_note
from signstep.auditing.result import Result
from signstep.auditing.stream import ROWS, Batches, Data, batches
from signstep.auditing.tally import Tally
from signstep.auditing.transferred import shown
from signstep.auditing.turning import with_knob
from signstep.auditing.watching import Watch
from signstep.certify.methods import OPEN
from signstep.detectors.policy import Policy
from signstep.detectors.pursuing import Way
from signstep.engine.arrays import Home
from signstep.engine.attack import Attack
from signstep.engine.detours import DRAWS
from signstep.engine.keys import Key
from signstep.engine.norms import L0
from signstep.engine.oracles import Oracle
from signstep.engine.origin import contained
from signstep.engine.shaped import ShapedThreat, need_check
from signstep.engine.tasks import Objective, ignored
from signstep.engine.threat import Threat, ThreatModel, one_example
from signstep.engine.tree import Tree, rows, take, tree_map
from signstep.engine.untouched import untouched
from signstep.engine.ways import Detoured
from signstep.errors import GradientError, InputError, ThreatError, VictimError
from signstep.messages import Arg, Blank
from signstep.model.batch_sizes import OUT_OF_MEMORY
from signstep.model.declaration import Callee, Model
from signstep.model.search import Rule, Search, search_of
from signstep.model.space import Statistic
from signstep.model.subject import Question, Subject
from signstep.model.twin import Engine

__all__ = ["Data", "audit"]

Progress: TypeAlias = Callable[[int], None]

_DEFAULT = ("random-sign", "fgsm", "pgd")
# An objective may be flat where it begins: it is searched too, beside as many random points as that costs.
_OF_OBJECTIVES = (*_DEFAULT, "random-direction:queries=670", "explore")

# Sizes of the default security curve, as shares of eps.
_SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0, 3 / 2, 2.0)
_NOISE = ("random-sign",)


@dataclass(frozen=True, eq=False)
class Curve:
    """A security curve: which sizes, and which attacks beside FGSM's step.

    Attributes:
        levels: True for shares of eps from 1/8 to 2; or sizes, ascending. All sizes of FGSM share one gradient.
        attacks: of the audit's attacks those to trace over the sizes; gradient attacks cost a run for each size, on the
            examples that no smaller size has fooled. Attacks that look for the smallest change give their curve in any
            case, from their one run. Not for ladders, whose rungs meet the survivors.
    """

    levels: bool | Sequence[float] | None = True
    attacks: Sequence[str] = _NOISE


@dataclass(frozen=True, eq=False)
class Run:
    """How an audit is carried out and what its record says of its origin.

    Attributes:
        shard: (i, n) to audit every n-th example from the i-th on, i = 0..n-1, or ``range(start, stop)`` for those that
            lie together; `signstep.merge` joins the results into the one that a single audit gives.
        device: move batches there; None is where the model's weights are.
        transfer_to: other models by name: every attack's points are scored on them too, and the record says how many of
            the examples that they answer rightly untouched they get wrong there. Bare networks are read like the model
            itself, an `ss.Model` as it declares.
        data: what the record calls the data; None for its type.
        hashes: SHA-256 of "data", "preprocessing", ..., for the record; those of the model are its own.
        bounds: prove what can be proved of each example before it is attacked, as the other end of a bracket: a method
            ("interval", "crown-ibp", "crown", "alpha", "exact", "auto-lirpa"), with options ("exact:seconds=10"), or a
            `Bounds`. What is proved is not attacked.
        policy: detectors and their rates, as they are deployed beside the model: the audit says what they find of its
            attacks, and attacks model and detectors together as well, knowing of them.
        ways: of that attacker, see `signstep.detectors.WAYS`; None for all.
        evidence: collects the points that fooled the model.
        progress: called with the number of examples done after each batch.
        executor: who does the work, in units that are kept as they are done: ``ss.Pool(4)``, ``ss.Ray(...)``,
            ``ss.Slurm(...)``; ``ss.Pool(0)`` is this process. None for one stream, of which nothing is kept on the way.
        out: with an executor: a folder whose ledger holds what is done; None keeps it for the time of the audit.
        resume: with an executor: go on with the ledger in ``out``.
        unit: with an executor: examples of a unit, which is done or not done as a whole.
    """

    shard: Part | None = None
    device: str | torch.device | None = None
    transfer_to: Mapping[str, Model | Callee] = field(default_factory=dict)
    data: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    bounds: str | Bounds | None = None
    policy: Policy | None = None
    ways: Sequence[Way] | None = None
    evidence: Evidence | None = None
    progress: Progress | None = None
    executor: "Executor | None" = None
    out: str | Path | None = None
    resume: bool = False
    unit: int = ROWS


@dataclass(frozen=True, eq=False)
class Job:
    """An audit as it was asked for, to be carried out by whoever has it; see `audit`."""

    model: Model
    data: Data
    threat: Threat
    attacks: Sequence[str | Attack] | None
    ladder: str | Sequence[str | Attack | Rung] | None
    curve: bool | Sequence[float] | Curve | None
    limit: int | None
    search: Search
    run: Run

    def audited(self, data: Data, run: Run) -> Result:
        """The audit of a part of the data, in this process."""
        return audit(
            self.model,
            data,
            threat=self.threat,
            attacks=self.attacks,
            ladder=self.ladder,
            curve=self.curve,
            search=self.search,
            run=run,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What the record will call its attacks.

        Raises:
            InputError: what was asked for makes no sense.
        """
        drawn = self.curve if isinstance(self.curve, Curve) else Curve(self.curve)
        subject = Subject.of(self.model, self.search)
        need_check(self.threat)
        _rule(self.search)
        return tuple(name for name, _ in _plan(self.attacks, self.ladder, drawn.attacks, subject, self.threat).chosen)


class Executor(Protocol):
    """Who carries out an audit in units."""

    def carry_out(self, job: Job) -> Result:
        """The record of the whole, as one audit in this process would have it."""


@contained
def audit(
    model: Model | Callee,
    data: Data,
    *,
    threat: Threat,
    attacks: Sequence[str | Attack] | None = None,
    ladder: str | Sequence[str | Attack | Rung] | None = None,
    curve: bool | Sequence[float] | Curve | None = True,
    mean: Statistic = None,
    std: Statistic = None,
    engine: Engine | None = None,
    limit: int | None = None,
    search: Search | None = None,
    run: Run | None = None,
) -> Result:
    """Attack every example of a data set and return the record of what was found.

    Examples are streamed: any iterable of ``(x, y)`` batches, or two tensors. With ``attacks``, every attack takes all
    examples, also those the model gets wrong untouched, and they combine pointwise, the worst case for each example.
    With ``ladder``, each attack takes the examples that the ones before it have not fooled.

    Args:
        model: an `ss.Model`, or a bare nn.Module or callable.
        data: batches ``(x, y)``, such as a DataLoader; y None takes the model's own predictions. Or a pair of tensors,
            or a torch Dataset or a list of single examples. NumPy arrays do for tensors. Each
            example counts once; what is left out is counted in ``terms["left_out"]`` and the notes.
        threat: as for `signstep.attack`, in raw input units.
        attacks: recipes by name, with options ("pgd:steps=50,restarts=10"), or attack objects; None for random-sign,
            fgsm and pgd, and where the task is an `ss.Objective` explore and as many random points as it costs.
        ladder: a preset ("quick", "standard@1", ...; see `signstep list`) or a list of recipes, instead of ``attacks``.
        curve: True for FGSM at shares of eps from 1/8 to 2; a list of sizes; False or None for none; or a `Curve`,
            which traces other attacks too.
        mean: of a bare network: it wants (x - mean) / std. Anything else about it is said by an `ss.Model`.
        std: see ``mean``.
        engine: "exact", or "fast" or "float32" to search on a twin of the model; see `ss.Search`.
        limit: stop after this many examples, counted before a shard is taken.
        search: target ("random", "least-likely" or "next"), loss, surrogates, draws, engine, units of the budget, seed:
            an `ss.Search`.
        run: shard, device, other models to score the points on, evidence, progress: an `ss.Run`.

    Returns:
        A `Result`: print it for the table; ``.clean_accuracy``, ``.robust_accuracy``, ``.attacks``, ``.save(path)``.
        When interrupted by Ctrl-C after the first batch, or where an attack ended early (a victim that stopped
        answering), a result marked partial.

    Raises:
        InputError: the data is empty or does not fit; see `signstep.attack`.
    """
    declared, search, run = Model.of(model, mean=mean, std=std), search_of(search, engine=engine), run or Run()
    if run.executor is not None:
        return run.executor.carry_out(Job(declared, data, threat, attacks, ladder, curve, limit, search, run))
    subject, others = Subject.of(declared, search), _others(declared, run)
    target = _rule(search)
    drawn = curve if isinstance(curve, Curve) else Curve(curve)
    need_check(threat)
    plan = _plan(attacks, ladder, drawn.attacks, subject, threat)
    asked = {name: Asked.of(part.predictor.model) for name, part in {"": subject, **others}.items()}
    _check_counts(limit, run)
    home, ignore = Home(declared.network), ignored(declared.task)
    where = home.device if run.device is None else torch.device(run.device)
    stream = _stream(declared, data, where, home)
    began, interrupted = time.perf_counter(), False
    bracket = Bracket.of(run.bounds, declared, search.budget)
    plan = plan if bracket.search is None else plan.then(bracket.search)
    tally, traced = _tally(plan, drawn, threat)
    key, look = Key(search.seed), _look(declared, threat, search, run.shard)
    watch = Watch(run.policy, declared, search, [name for name, _ in plan.chosen], run.ways)

    def attacked(part: Tree, labels: Tensor | None) -> None:
        _check_places(threat, part, ignore)
        here = sliced(threat, tally.examples, tally.examples + rows(part), part, spread(run.shard))
        asked = subject.ask(part, labels, here, target=target, key=key, randomness=tally.randomness)
        question, tally.randomness = look.begin(asked, part, labels), asked.randomness
        if plan.ladder is None:
            _attack_all(question, plan.chosen, key, tally, _proved(bracket, question, tally))
        else:
            climb(question, plan.rungs, key, tally, plan.aside, _proved(bracket, question, tally))
        for name, other in others.items():
            try:
                tally.add_transfers(name, shown(name, other, question, part, here, tally.ran(), key))
            except VictimError as error:  # another model's end: what was found on this one stays
                tally.stop(f"{name}, which points were shown to, ended early: {error}")
        _finish(question, traced, subject.oracle, key, tally, run.evidence, watch)
        look.add(question, part, labels, tally.examples - rows(part))

    try:
        # Drawn outside of `opened`: data may use the global generators.
        for x, y in batches(stream, limit, run.shard):
            with ExitStack() as opened:
                for part in (subject, *others.values()):
                    opened.enter_context(part.opened())
                _fitting(
                    attacked,
                    tree_map(lambda part: part.to(where), x),
                    None if y is None else y.to(where),
                    tally,
                )
            if run.progress is not None:
                run.progress(tally.examples)
            if tally.ended:
                break
    except (KeyboardInterrupt, VictimError) as error:
        if tally.examples == 0:
            _nothing_found(error, asked)
        interrupted = True
        tally.forget()
        if isinstance(error, VictimError):
            tally.notes.append(f"the audit ended early: {error}")
    _check_seen(tally, run.shard, stream.left_out)
    return replace(
        with_knob(
            tally.result(
                model=declared.title,
                data=run.data or ("tensors" if isinstance(data, tuple) else type(data).__name__),
                attacks=plan.chosen,
                terms={
                    **_terms(threat, subject),
                    "target": target,
                    "seed": search.seed,
                    "device": str(where),
                    "shard": stated(run.shard),
                    **({} if interrupted or tally.ended else look.terms()),
                    **({"left_out": stream.left_out} if stream.left_out else {}),
                    **asked[""].terms,
                    **bracket.terms,
                    **({"ways": ways} if (ways := tally.ways()) else {}),
                },
                notes=(
                    *tally.notes,
                    *(note for name, one in asked.items() for note in one.notes(name)),
                    *bracket.notes,
                    *watch.notes(),
                    *stream.said,
                    *_remarks(subject),
                    *unsettled(tally.ways(), tally.examples),
                    *plan.remarks,
                    *(f"model: {n}" for n in declared.notes),
                ),
                seconds=time.perf_counter() - began,
                partial=interrupted or tally.ended,
                classes=tuple(declared.classes),
                hashes={**declared.hashes, **run.hashes},
                ladder="" if plan.ladder is None else plan.ladder.name,
            ),
            run.evidence,
            subject,
            where,
            tally.most,
        ),
        detection=watch.record(),
    )


def _stream(declared: Model, data: Data, where: torch.device, home: Home) -> Batches:
    return Batches(
        data,
        _size(declared, data, where),
        home=Home(device=torch.device("cpu"), dtype=home.dtype),
        ignore=ignored(declared.task),
        classes=declared.classes,
    )


def _check_places(threat: Threat, x: Tree, ignore: int | None) -> None:
    """See that what is given for each example can be told by its place.

    Raises:
        ThreatError: examples are left out on the way, which moves those behind them.
    """
    for name, part in {"": threat}.items() if isinstance(threat, ThreatModel) else threat.items():
        inside = x[name] if isinstance(x, dict) and name in x else x
        several = one_example(part, inside.ndim) if isinstance(inside, Tensor) else None
        if ignore is not None and several is not None:
            raise ThreatError(
                f"{several} is given for each example, and examples with the label {ignore} are left out on the way",
                remedy="leave them out of the data, or pass one for all",
            )


def _look(declared: Model, threat: Threat, search: Search, part: Part | None) -> Look:
    later = isinstance(part, range) and part.start > 0
    return Look(declared, threat, search, sharded=part is not None, later=later)


def _refuse_without_executor(run: Run) -> None:
    """See that nothing is asked for that a stream in one process cannot give.

    Raises:
        InputError: it is.
    """
    for name, value, asked in (
        ("out", run.out, run.out is not None),
        ("resume", True, run.resume),
        ("unit", run.unit, run.unit != ROWS),
    ):
        if asked:
            raise InputError(
                Arg(name, value),
                "is about an audit in units, and there is no executor",
                remedy=("pass", Arg("executor", Blank("ss.Pool(0)")), "for this process"),
            )


def _check_counts(limit: int | None, run: Run) -> None:
    _refuse_without_executor(run)
    check_part(run.shard)
    if limit is not None and limit < 1:
        raise InputError(Arg("limit", limit), remedy="pass the number of examples to audit, at least 1")


def _check_seen(tally: Tally, shard: Part | None, left_out: Mapping[str, int]) -> None:
    """Whether anything was audited.

    Raises:
        InputError: no example was seen.
    """
    if tally.examples == 0 and shard is not None:
        raise InputError(f"{named(shard)} has no examples: the data has too few", remedy="pass a smaller n")
    if tally.examples == 0 and left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(
            Arg("data"), f"has no examples but those left out: {reasons}", remedy="pass others, or leave out fewer"
        )
    if tally.examples == 0:
        raise InputError(
            Arg("data"),
            "gave no batches",
            remedy="pass an iterable of (x, y) that is not exhausted (a list or a DataLoader)",
        )


@dataclass(frozen=True)
class _Plan:
    """What is to be run: attacks by name, on a ladder or all on all examples, and those to trace over sizes."""

    ladder: Ladder | None
    specs: list[Rung]
    chosen: list[tuple[str, Attack]]
    traced: list[tuple[str, Attack]]
    aside: dict[str, str] | None = None

    @property
    def rungs(self) -> list[tuple[str, Rung, Attack]]:
        return [(name, rung, attack) for (name, attack), rung in zip(self.chosen, self.specs, strict=True)]

    def then(self, attack: Attack) -> "_Plan":
        """The same with one more attack at its end."""
        return replace(self, specs=[*self.specs, Rung(attack)], chosen=[*self.chosen, (attack.name, attack)])

    @property
    def remarks(self) -> list[str]:
        """What the reader must know of rungs that were set aside."""
        return [aside_note(name, reason) for name, reason in sorted((self.aside or {}).items())]


def _plan(
    attacks: Sequence[str | Attack] | None,
    ladder: str | Sequence[str | Attack | Rung] | None,
    curve_attacks: Sequence[str],
    subject: Subject,
    threat: Threat,
) -> _Plan:
    """What was asked for; of a preset, rungs that are not defined for the threat are set aside.

    Raises:
        InputError: it makes no sense.
        ModelError: an endpoint cannot give what an attack needs.
    """
    if attacks is not None and ladder is not None:
        raise InputError(
            Arg("attacks"),
            "and",
            Arg("ladder"),
            "are both given",
            remedy="pass one of them (a ladder may be a list of recipes)",
        )
    climbed = None if ladder is None else find_ladder(ladder)
    usual = _OF_OBJECTIVES if isinstance(subject.task, Objective) else _DEFAULT
    specs = [Rung.of(spec) for spec in (climbed.rungs if climbed else usual if attacks is None else attacks)]
    names = rung_names(specs) if climbed else [_name(rung) for rung in specs]
    chosen = [(name, recipe(rung.recipe, oracle=subject.oracle)) for name, rung in zip(names, specs, strict=True)]
    if not chosen or len(set(names)) < len(chosen):
        raise InputError(Arg("attacks", names), remedy="pass one or more different recipes")
    asked = tuple(curve_attacks) != _NOISE
    if climbed and asked and curve_attacks:
        raise InputError(
            Arg("curve_attacks"),
            "are traced over all examples, and rungs meet the survivors",
            remedy="drop one of the two",
        )
    unknown = [name for name in curve_attacks if name not in names]
    if unknown and asked:
        raise InputError(
            Arg("curve_attacks"),
            f"names {unknown}, which are not among the attacks {names}",
            remedy="pass some of these",
        )
    traced = [(name, attack) for name, attack in chosen if name in curve_attacks and not _has_curve(attack)]
    aside: dict[str, str] | None = None
    if climbed and climbed.name in LADDERS:
        parts = [threat] if isinstance(threat, ThreatModel) else list(threat.values())
        aside = {name: "it is not defined for this threat" for name, attack in chosen if not _defined(attack, parts)}
    for _, attack in chosen if aside is None else ():  # those of a preset are set aside on the way
        subject.refuse(attack)
    return _Plan(climbed, specs, chosen, [] if climbed else traced, aside)


def _tally(plan: _Plan, drawn: Curve, threat: Threat) -> tuple[Tally, list[tuple[str, Attack]]]:
    """Counts to begin with, and the attacks that are traced over sizes."""
    rayless = all(needs_of(attack) != "gradients" for _, attack in plan.chosen)
    # The control is traced beside FGSM: alone it tells nothing that is worth its queries.
    traced = [] if rayless and tuple(drawn.attacks) == _NOISE else plan.traced
    tally = Tally([name for name, _ in plan.chosen], levels_of(drawn.levels, threat), [name for name, _ in traced])
    tally.rayless = rayless
    return tally, traced


def _defined(attack: Attack, threats: Sequence[ThreatModel]) -> bool:
    """Whether a rung can be run under these threats, as far as the table of recipes knows."""
    row = RECIPES.get(attack.name)
    return row is None or defined_for(row, threats)


def rung_names(rungs: Sequence[Rung]) -> list[str]:
    """What the rungs of a ladder are called in the record; the second of the same name is told from the first."""
    seen: dict[str, int] = {}
    found = []
    for name in map(_name, rungs):
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found


def _terms(threat: Threat, subject: Subject) -> dict[str, Any]:
    """What the numbers mean, as plain values."""
    return {
        **terms_of(threat),
        "input_space": subject.space.describe(),
        "mode": subject.mode,
        "gradients_from": "surrogate" if subject.surrogates else "the model",
        "engine": subject.engine,
        "transform": None if subject.transform is None else str(subject.transform),
        "eot": subject.eot,
        **defended(subject),
    }


def defended(subject: Subject) -> dict[str, Any]:
    """What a record says of transformations that stand in front of the model, and which attacker it met."""
    transform = subject.transform
    return {"defences": {**transform.terms(), "path": subject.path}} if isinstance(transform, Detoured) else {}


_SETTLED = 0.005  # of the examples: a doubling of draws that fools fewer has changed nothing


def unsettled(ways: Mapping[str, Mapping[str, int]], examples: int) -> list[str]:
    """What is to be said of attacks on a random defence whose last doubling of draws still fooled many."""
    last = f" over {DRAWS[-1]} draws"
    counts = {name: sum(count for way, count in found.items() if way.endswith(last)) for name, found in ways.items()}
    return [
        f"{name}: the last doubling, to {DRAWS[-1]} draws, fooled {count} of {examples} more; a larger eot may go on"
        for name, count in counts.items()
        if count >= _SETTLED * examples
    ]


def terms_of(threat: Threat) -> dict[str, Any]:
    """What a record says of a threat beside its numbers: in words, what eps measures, eps and the width of the box."""
    single = threat if isinstance(threat, ThreatModel) else None
    return {
        "threat": _text(threat),
        "norm": _measure(single) if single else "several inputs",
        "eps": single.label if single and single.eps is not None else "",
        "eps_value": _single(threat),
        "box_span": _box_span(threat),
    }


def _remarks(subject: Subject) -> list[str]:
    remarks = []
    if subject.space.budget == "normalised":
        remarks.append("eps is measured in the model's normalised coordinates, by explicit choice")
    if subject.surrogates:
        remarks.append(
            "gradients came from surrogates: a transfer attack, which says little about white-box robustness"
        )
    return remarks


def _size(declared: Model, data: Data, where: torch.device) -> int:
    """Of a batch where the data is two tensors: on a card what its memory has room for."""
    network = declared.network
    if where.type != "cuda" or not isinstance(network, nn.Module) or not isinstance(data, tuple):
        return ROWS  # of arrays that are no tensors the attempt below fails
    try:
        with untouched(network, mode=declared.mode):
            return planned_rows(network, data[0][:2].to(where), of=len(data[0]))
    except Exception:  # the audit itself will say what is wrong with model or data
        return ROWS


def _rule(search: Search) -> Rule | None:
    """The rule by which targets are chosen."""
    if isinstance(search.target, Tensor):
        raise InputError(
            Arg("target"), "is a tensor; an audit streams its data", remedy="pass 'random', 'least-likely' or 'next'"
        )
    return search.target


def _others(declared: Model, run: Run) -> dict[str, Subject]:
    """The other models to score the points on."""
    return {name: Subject.of(_like(declared, other)) for name, other in run.transfer_to.items()}


def _nothing_found(error: BaseException, asked: Mapping[str, Asked]) -> NoReturn:
    """Raise what ended an audit that has nothing to tell: whoever interrupted a request has interrupted the audit."""
    if any(one.interrupted for one in asked.values()):
        raise KeyboardInterrupt from error
    raise error


def _like(declared: Model, other: Model | Callee) -> Model:
    """Another model: as it declares, a bare network like the one that is audited."""
    return other if isinstance(other, Model) else replace(declared, network=other, name=None, hashes={})


def _fitting(attacked: Callable[[Tree, Tensor | None], None], x: Tree, y: Tensor | None, tally: Tally) -> None:
    """Run ``attacked`` on a batch, in halves if memory runs out; smaller pieces stay the rule from then on.

    Raises:
        InputError: not even one example fits.
    """
    count = rows(x)
    if tally.most is not None and count > tally.most:
        step = tally.most  # it may shrink on the way
        for start in range(0, count, step):
            piece = slice(start, start + step)
            _fitting(
                attacked, tree_map(lambda part, piece=piece: part[piece], x), None if y is None else y[piece], tally
            )
        return
    try:
        attacked(x, y)
    except OUT_OF_MEMORY as error:
        tally.forget()
        if count == 1:
            raise InputError(
                "one example does not fit into memory",
                remedy="pass a smaller input, another device, or free memory there",
            ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tally.most = count // 2
        note = f"memory ran out at {count} examples at a time; went on with at most {tally.most}"
        tally.notes.append(note)
        _fitting(attacked, x, y, tally)


def _proved(bracket: Bracket, question: Question, tally: Tally) -> Tensor | None:
    """Take the bounds of a batch; the rows (R,) that need no attack, None where all do."""
    letters = bracket.letters(question)
    if letters is None:
        return None
    tally.add_bounds(letters, bracket.sizes(question, letters, tally.levels))
    spared = torch.tensor([letter != OPEN for letter in letters], dtype=torch.bool, device=question.predicted.device)
    return None if bracket.attack_all or not bool(spared.any()) else spared


def _attack_all(
    question: Question, chosen: list[tuple[str, Attack]], key: Key, tally: Tally, spared: Tensor | None = None
) -> None:
    """Every attack on every row of the batch, but for those that are proved."""
    index = None if spared is None else (~spared).nonzero().squeeze(1)
    if index is not None and not len(index):
        for name, _ in chosen:
            tally.skip(name)
        return
    part = question if index is None else question.take(index)
    for name, attack in chosen:
        began = time.perf_counter()
        outcome = part.run(attack, key.fold(attack.name))
        seconds = time.perf_counter() - began
        tally.add(name, outcome if index is None else question.spread(outcome, index), seconds, index)


def _finish(
    question: Question,
    traced: list[tuple[str, Attack]],
    oracle: Oracle | None,
    key: Key,
    tally: Tally,
    evidence: Evidence | None,
    watch: Watch,
) -> None:
    """The detectors, the security curve, the points kept, and the batch in the books."""
    watch.look(question, tally.ran(), key)
    tally.rayless |= question.form == "labels"
    ended = any(outcome.ended is not None for outcome in tally.outcomes().values())
    if tally.levels and not ended:
        try:
            curves, smallest = _curve(question, oracle, key, tally)
            curves |= {name: _trace(question, attack, tally.levels, key) for name, attack in traced}
            tally.add_curves(curves, smallest)
        except VictimError as error:  # the attacks of this batch are done: they stay
            tally.stop(f"the security curve ended early: {error}")
    if evidence is not None:
        evidence.add(question, tally.places(), tally.examples)
    tally.finish(question)
    watch.add()


def _curve(
    question: Question, oracle: Oracle | None, key: Key, tally: Tally
) -> tuple[dict[str, Tensor], Tensor | None]:
    """FGSM at every size, (levels, R), and the smallest that fools (R,); neither where there is no gradient.

    What looks at gradients has been set aside then, and this goes with it.
    """
    if tally.rayless:
        return {}, None
    try:
        ray = FgsmRay(question.problem, question.region, question.x, key, question.single(oracle))
    except GradientError as error:
        tally.leave_ray(str(error))
        return {}, None
    fooled = ray.curve(tally.levels)
    return {"fgsm": fooled}, ray.smallest(tally.levels, fooled, question.clean.fooled)


def _trace(question: Question, attack: Attack, levels: Sequence[float], key: Key) -> Tensor:
    """Whether each row is fooled at each level, (levels, R); what fools at a smaller size fools at a larger one."""
    fooled = question.clean.fooled.clone()
    rows_ = []
    for level in levels:
        index = (~fooled).nonzero().squeeze(1)
        if len(index):
            region = question.region.take(index)
            region = region.resized(torch.full_like(region.radius, level))
            part, x = question.problem.take(index), take(question.x, index)
            found = question.past(attack)(part, region, x, key.fold(attack.name))
            fooled = fooled.index_copy(0, index, found.verdict.fooled)
        rows_.append(fooled)
    return torch.stack(rows_)


def levels_of(curve: bool | Sequence[float] | None, threat: Threat) -> tuple[float, ...]:
    """The sizes of the security curve.

    Raises:
        InputError: they do not rise, or there is no size to measure them by.
    """
    if curve is None or isinstance(curve, bool):
        eps = _single(threat)
        if not curve or eps is None or eps == 0:
            return ()
        span = _box_span(threat)
        linf = isinstance(threat, ThreatModel) and threat.norm.name == "linf"
        shares = [share for share in _SHARES if not linf or span is None or share * eps <= span]
        if _counts(threat):
            return tuple(sorted({max(1.0, float(round(share * eps))) for share in shares}))
        return tuple(share * eps for share in shares)
    if not isinstance(threat, ThreatModel) and curve and any(part.eps is None for part in threat.values()):
        raise InputError(
            Arg("curve"),
            "needs a size for every input, and some threat has",
            Arg("eps", None),
            remedy=("pass", Arg("curve", False)),
        )
    levels = tuple(float(level) for level in curve)
    if not all(level > 0 for level in levels) or list(levels) != sorted(set(levels)):
        raise InputError(Arg("curve", list(levels)), remedy="pass sizes above 0 in ascending order")
    if _counts(threat) and any(level % 1 for level in levels):
        raise InputError(
            Arg("curve", list(levels)),
            "has a size that is no whole number, and the threat counts",
            remedy="round it",
        )
    return levels


def _counts(threat: Threat) -> bool:
    """Whether the sizes of a threat are counts: whole numbers."""
    return isinstance(threat, ThreatModel) and isinstance(threat.norm, L0)


def sliced(threat: Threat, start: int, stop: int, x: Tree, shard: tuple[int, int]) -> Threat:
    """The threat for the examples ``start`` to ``stop`` of a shard, whose places in the stream are further apart."""
    if isinstance(threat, ThreatModel):
        return _every(threat, start, stop, x.ndim if isinstance(x, Tensor) else None, shard)
    assert isinstance(x, dict)
    return {
        name: _every(part, start, stop, x[name].ndim if name in x else None, shard) for name, part in threat.items()
    }


def _every(threat: ThreatModel, start: int, stop: int, ndim: int | None, shard: tuple[int, int]) -> ThreatModel:
    first, step = shard
    wide = threat.rows(first + step * start, first + step * (stop - 1) + 1, ndim)
    sliced = {name: getattr(wide, name) for name in ("eps", "low", "high", "mask")}
    thinned = {name: part[::step] for name, part in sliced.items() if part is not getattr(threat, name)}
    return replace(wide, **thinned) if thinned else wide


def _has_curve(attack: Attack) -> bool:
    """Whether one run gives every size: FGSM by its ray, smallest-change attacks by what they look for."""
    row = RECIPES.get(attack.name)
    return attack.name == "fgsm" or (row is not None and row.smallest)


def _text(threat: Threat) -> str:
    if isinstance(threat, ThreatModel):
        return str(threat)
    return "; ".join(f"{name}: {part}" for name, part in threat.items())


def _measure(threat: ThreatModel) -> str:
    """What eps is measured in: a norm, or the rule of a set with a shape of its own."""
    return threat.kind if isinstance(threat, ShapedThreat) else threat.norm.name


def _single(threat: Threat) -> float | None:
    if not isinstance(threat, ThreatModel) or threat.eps is None:
        return None
    return float(threat.eps) if not isinstance(threat.eps, Tensor) or threat.eps.ndim == 0 else None


def _box_span(threat: Threat) -> float | None:
    if isinstance(threat, ThreatModel) and isinstance(threat.low, float) and isinstance(threat.high, float):
        return threat.high - threat.low
    return None


def _name(rung: Rung) -> str:
    return str(replace(rung, recipe=canonical(rung.recipe))) if isinstance(rung.recipe, str) else str(rung)
