"""Transfer: inputs crafted on some models, shown to others."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from signstep.attacks.recipes import needs_of
from signstep.attacks.recipes import recipe as find_recipe
from signstep.auditing.asked import Asked
from signstep.auditing.matrix import Cell, TransferMatrix
from signstep.data.pools import Data, Pool
from signstep.engine.arrays import Home
from signstep.engine.attack import Attack
from signstep.engine.counts import Count
from signstep.engine.eot import Eot
from signstep.engine.keys import Key
from signstep.engine.oracles import Oracle, Surrogates
from signstep.engine.origin import contained
from signstep.engine.outcome import Outcome
from signstep.engine.problem import judge
from signstep.engine.shaped import need_check
from signstep.engine.tasks import Task, TaskName, ignored
from signstep.engine.threat import ThreatModel, one_example
from signstep.engine.tree import Tree, take
from signstep.errors import InputError, ThreatError, VictimError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.declaration import same as same_model
from signstep.model.search import Search, refuse, search_of
from signstep.model.space import Statistic
from signstep.model.subject import Question, Subject
from signstep.model.victims.endpoint import HttpVictim
from signstep.version import VERSION

ALL, CONTROL = "all", "random-sign"


Models: TypeAlias = Mapping[str, Model | Callee] | Sequence[Model | Callee]


@contained
def transfer(
    surrogates: Models,
    victims: Models,
    data: Data,
    *,
    threat: ThreatModel,
    recipe: str | Attack = "mi-fgsm",
    ensemble: bool = True,
    mean: Statistic = None,
    std: Statistic = None,
    rows: int = 128,
    search: Search | None = None,
) -> TransferMatrix:
    """Craft on every surrogate, score on every victim.

    A cell counts the examples that the victim gets right untouched and fails on at the crafted input. A surrogate is
    attacked with all steps, also where it is fooled early: what has only just crossed one model's boundary seldom
    crosses another's (Papernot et al. 2016, arXiv:1605.07277; Liu et al. 2017, arXiv:1611.02770, for the mean over
    several). No victim is asked on the way. Where surrogate and victim are the same object the cell is the white-box
    attack, exactly `signstep.attack`.

    Args:
        surrogates: models to craft on, by name or in a row: each an `ss.Model`, or a bare nn.Module or callable.
        victims: models to score on, likewise.
        data: batches (x, y) that can be read again, or two tensors; labels are needed, since models would disagree.
        threat: what may change; each part for all examples.
        recipe: the attack: a name with options, or an attack object.
        ensemble: with two surrogates or more also the mean over them as a row "all". The victim's own copy is left out
            of it.
        mean: of bare networks: they want (x - mean) / std. An `ss.Model` has a mean and std of its own.
        std: see ``mean``.
        rows: examples at a time.
        search: loss, draws, engine, seed and target ("random" or "next": other rules differ from model to model).

    Returns:
        A `TransferMatrix`: print it for the table; ``.cell(source, victim)``, ``.save(path)``.

    Raises:
        InputError: no models, a name that is taken, no labels, or an option that makes no sense.

    Example:
        >>> import torch, signstep as ss
        >>> a, b = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> x, y = torch.rand(20, 4), torch.randint(3, (20,))
        >>> matrix = ss.transfer({"a": a}, {"a": a, "b": b}, (x, y), threat=ss.linf(0.1))
        >>> matrix.cell("a", "a").white_box, matrix.cell("a", "b").white_box
        (True, False)
    """
    need_check(threat)
    search = search_of(search)
    refuse(
        search,
        "transfer",
        surrogate="surrogates are its first argument",
        budget="models share the inputs' raw units",
        gradient_path="points of the undefended model are what a transfer from it has: name it as a surrogate",
    )
    if search.target not in (None, "random", "next"):
        raise InputError(
            Arg("target", search.target),
            "is a rule that differs from model to model",
            remedy="pass 'random' or 'next'",
        )
    declared: list[Model] = []
    crafting = _declared("surrogates", surrogates, declared, mean, std)
    sides = (crafting, _declared("victims", victims, declared, mean, std))
    _check(*sides)
    task = _common(sides)
    chosen = _recipe(recipe)
    subjects = {id(model): Subject.of(model, search) for side in sides for model in side.values()}
    for model in crafting.values():
        subjects[id(model)].refuse(chosen)
    asked = {name: Asked.of(model.network) for name, model in sides[1].items()}
    run = _Run(*sides, subjects, threat, chosen, search, Key(search.seed), ensemble and len(sides[0]) > 1)
    home = Home(next(iter(sides[1].values())).network)
    pool = Pool(data, rows, home, ignore=ignored(task))
    interrupted = False
    try:
        for x, y in pool:
            if y is None:
                raise InputError(Arg("data"), "has no labels, and models answer differently", remedy="pass (x, y)")
            several = one_example(threat, x.ndim)
            if several is not None:
                raise ThreatError(
                    f"{several} is given for each example, and a transfer cuts batches anew",
                    remedy=f"pass one {several}",
                )
            run = run.after(x, y)
            interrupted = bool(run.stopped)
            if len(run.stopped) == len(sides[1]) or any(one.interrupted for one in asked.values()):
                break
    except KeyboardInterrupt:
        if run.examples == 0:
            raise
        interrupted = True
    if run.examples == 0:
        raise InputError(Arg("data"), "has no examples", remedy="pass at least one batch")
    said = recipe if isinstance(recipe, str) else recipe.name
    terms = {"threat": str(threat), "recipe": said, "goal": search.target or "untargeted", "seed": search.seed}
    return run.matrix(terms, pool.batches.said, asked, partial=interrupted)


def _recipe(spec: str | Attack) -> Attack:
    found = find_recipe(spec)
    if isinstance(spec, str) and needs_of(found) in ("labels", "nothing"):
        raise InputError(
            Arg("recipe", spec),
            "asks the model itself for answers",
            remedy="pass one that takes gradients, such as mi-fgsm",
        )
    return found


def _declared(side: str, models: Models, declared: list[Model], mean: Statistic, std: Statistic) -> dict[str, Model]:
    """The models of one side by name, declared; ``declared`` knows those of both, so that the same one stays the same.

    Raises:
        InputError: there are none, or one cannot be called.
    """
    if isinstance(models, (Model, nn.Module)) or not isinstance(models, (Mapping, Sequence)):
        raise InputError(
            f"{side} is a {type(models).__name__}", remedy="pass a dict from names to models, or a list of models"
        )
    if not models:
        raise InputError(f"{side} is empty", remedy="pass a dict from names to models, or a list of models")
    found: dict[str, Model] = {}
    for name, model in models.items() if isinstance(models, Mapping) else ((None, model) for model in models):
        if not callable(model):
            raise InputError(f"{side} has a {type(model).__name__}, which cannot be called", remedy="pass models")
        own = isinstance(model, Model)
        made = Model.of(model) if own else Model.of(model, mean=mean, std=std)
        made = next((known for known in declared if same_model(known, made)), made)
        declared.append(made)
        title = made.title if name is None else name
        same = sum(other == title or other.startswith(f"{title} #") for other in found)
        found[title if name is not None or not same else f"{title} #{same + 1}"] = made
    return found


def _check(surrogates: Mapping[str, Model], victims: Mapping[str, Model]) -> None:
    if len({id(model) for model in surrogates.values()}) < len(surrogates):
        raise InputError(Arg("surrogates"), "has the same model under two names", remedy="pass each once")
    taken = {ALL, CONTROL} & set(surrogates)
    if taken:
        raise InputError(
            Arg("surrogates"),
            f"are named {sorted(taken)}, which are rows of the matrix itself",
            remedy="pass other names",
        )
    everyone = {**surrogates, **victims}
    named = {name: model.space().describe() for name, model in everyone.items() if model.inputs == "normalised"}
    if named and (len(named) < len(everyone) or any(space != next(iter(named.values())) for space in named.values())):
        raise InputError(
            Arg("inputs", "normalised"),
            f"is declared by {', '.join(named)}, and not by all models with the same mean and std",
            remedy="pass raw data, and declare each model's own mean and std",
        )


def _common(sides: Sequence[Mapping[str, Model]]) -> Task | TaskName:
    """The task of all models.

    Raises:
        InputError: they have different ones.
    """
    tasks = {name: model.task for side in sides for name, model in side.items()}
    first, *others = tasks.items()
    for name, task in others:
        if task != first[1]:
            raise InputError(
                Arg("task", task),
                f"is declared by {name}, and {first[1]!r} by {first[0]}",
                remedy="pass models of one task, which a transfer needs",
            )
    return first[1]


@dataclass
class _Run:
    """Counts that grow batch by batch."""

    surrogates: Mapping[str, Model]
    victims: Mapping[str, Model]
    subjects: Mapping[int, Subject]
    threat: ThreatModel
    attack: Attack
    search: Search
    key: Key
    ensemble: bool
    examples: int = 0
    counts: dict[tuple[str, str], Count] = field(default_factory=dict)
    clean: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[str, ...]:
        """The rows of the matrix."""
        return (*self.surrogates, *((ALL,) if self.ensemble else ()), CONTROL)

    def after(self, x: Tensor, y: Tensor) -> "_Run":
        """With a batch more, crafted and scored; this one stays, for an interruption on the way."""
        run = replace(
            self,
            counts=dict(self.counts),
            clean=dict(self.clean),
            lost=dict(self.lost),
            seen=dict(self.seen),
            stopped=dict(self.stopped),
        )
        run._take(x, y)
        return run

    def _take(self, x: Tensor, y: Tensor) -> None:
        if not self.examples:
            self._check_classes(x)
        self.examples += len(x)
        crafted: dict[str, Tree] = {}
        for name, model in self.surrogates.items():
            outcome = self._crafted((model,), x, y)
            crafted[name] = outcome.x
            self.lost[name] = self.lost.get(name, 0) + int(outcome.undetermined.sum())
        together: Tree | None = None
        for victim, model in self.victims.items():
            points = dict(crafted)
            others = tuple(other for other in self.surrogates.values() if other is not model)
            if self.ensemble and len(others) < len(self.surrogates):
                points[ALL] = self._crafted(others, x, y).x
            elif self.ensemble:
                together = self._crafted(others, x, y).x if together is None else together
                points[ALL] = together
            self._score(victim, model, points, x, y)

    def _check_classes(self, x: Tensor) -> None:
        """See that all models number the same classes; else "the other model is right" means nothing.

        Raises:
            InputError: one has more outputs than another.
        """
        widths: dict[int, str] = {}
        for name, model in (*self.surrogates.items(), *self.victims.items()):
            subject = self.subjects[id(model)]
            try:
                with subject.opened(), torch.no_grad():
                    outputs = subject.predictor(x[:1])
            except VictimError:  # of an endpoint that is not as described nothing more is asked
                raise
            except Exception:  # the work itself will say what is wrong with the model or the data
                return
            if outputs.form != "labels" and outputs.raw.ndim == 2 and outputs.raw.shape[1] > 1:
                widths.setdefault(outputs.raw.shape[1], name)
        if len(widths) > 1:
            (few, one), (many, other) = sorted(widths.items())[:2]
            raise InputError(
                f"{one} has {few} outputs and {other} has {many}; a transfer needs models of the same classes, "
                "in the same order",
                remedy="pass such, or select outputs with a wrapper",
            )

    def _score(self, victim: str, model: Model, points: dict[str, Tree], x: Tensor, y: Tensor) -> None:
        """Show the points of each source to one victim; to an endpoint a request at a time, as far as it answers.

        Raises:
            VictimError: it was shown nothing yet, and does not answer.
        """
        network = model.network
        size = network.batch if isinstance(network, HttpVictim) else len(x)
        for start in range(0, len(x), size):
            if victim in self.stopped:
                return
            index = torch.arange(start, min(start + size, len(x)), dtype=torch.int64, device=x.device)
            part = points if size >= len(x) else {name: take(point, index) for name, point in points.items()}
            try:
                self._show(victim, model, part, x[index], y[index.to(y.device)])
            except VictimError as error:
                if not self.seen.get(victim):
                    if isinstance(network, HttpVictim) and network.interrupted:
                        raise KeyboardInterrupt from error
                    raise
                self.stopped[victim] = str(error)

    def _show(self, victim: str, model: Model, points: dict[str, Tree], x: Tensor, y: Tensor) -> None:
        """Show some points to one victim; they count once all of them were shown."""
        subject, noise = self.subjects[id(model)], find_recipe(CONTROL)
        with subject.opened():
            # Without naming the attack: rows are then known by their content, with the same draws in every cell.
            question = self._ask(subject, x, y, None)
            right = torch.ones_like(question.clean.fooled) if question.wrong is None else ~question.wrong
            able = right if self.search.target is None else right & ~question.clean.fooled
            found: dict[str, Tensor] = {}
            if isinstance(model.network, HttpVictim) and not bool(able.any()):
                points, found = {}, dict.fromkeys((CONTROL, *points), ~able)  # nothing to be learnt for its price
            else:
                control = question.run(noise, self.key.fold(noise.name))
                if control.ended is not None:
                    what, _, cure = control.ended.partition("; ")
                    raise VictimError(what, remedy=cure)
                found[CONTROL] = control.fooled
            for source, point in points.items():
                if self.surrogates.get(source) is model:
                    white = self._ask(subject, x, y, self.attack)
                    fooled = white.run(
                        find_recipe(self.attack, oracle=subject.oracle), self.key.fold(self.attack.name)
                    ).fooled
                else:
                    fooled = judge(question.problem, point, self.key.fold("judged")).fooled
                    fooled = fooled & question.checked(point)[""].ok.to(fooled.device)
                found[source] = fooled
        self.clean[victim] = self.clean.get(victim, 0) + int(right.sum())
        self.seen[victim] = self.seen.get(victim, 0) + len(x)
        for source, fooled in found.items():
            self._add(source, victim, fooled, able)

    def matrix(
        self, terms: Mapping[str, Any], said: Sequence[str], asked: Mapping[str, Asked], *, partial: bool
    ) -> TransferMatrix:
        """The record; ``said``: of the data; ``asked``: of the victims."""
        cells = tuple(
            Cell(source, victim, count.hits, count.of, source in self.surrogates and self.surrogates[source] is model)
            for source in self.sources
            for victim, model in self.victims.items()
            for count in (self.counts[source, victim],)
        )
        notes = tuple(
            f"{name}: no gradient could be used on {count} of {self.examples} examples, so nothing was shown there"
            for name, count in self.lost.items()
            if count
        )
        short = {name: self.seen.get(name, 0) for name in self.victims if self.seen.get(name, 0) < self.examples}
        why = {name: self.stopped.get(name, "interrupted") for name in short}
        notes += tuple(
            f"{name} was shown {count} of {self.examples} examples, the others are undetermined: {why[name]}"
            for name, count in short.items()
        )
        notes += tuple(note for name, one in asked.items() for note in one.notes(name))
        ended = f"partial: {'ended' if self.stopped else 'interrupted'} after {self.examples} examples"
        notes = (*notes, *said, *((ended,) if partial else ()))
        versions = {"signstep": VERSION, "torch": torch.__version__}
        return TransferMatrix(
            self.sources,
            tuple(self.victims),
            cells,
            self.clean,
            self.examples,
            terms,
            notes,
            versions,
            partial,
            short,
            {name: one.spent.plain() for name, one in asked.items() if one.spent is not None},
        )

    def _ask(self, subject: Subject, x: Tensor, y: Tensor, attack: Attack | None) -> Question:
        return subject.ask(x, y, self.threat, target=self.search.target, key=self.key, attack=attack)

    def _add(self, source: str, victim: str, fooled: Tensor, able: Tensor) -> None:
        count = Count(int((fooled & able).sum()), int(able.sum()))
        self.counts[source, victim] = self.counts.get((source, victim), Count(0, 0)) + count

    def _crafted(self, models: tuple[Model, ...], x: Tensor, y: Tensor) -> Outcome:
        """The points of an attack with all its steps; between restarts the first model says which rows still stand."""
        subjects = [self.subjects[id(model)] for model in models]
        with ExitStack() as stack:
            for subject in subjects:
                stack.enter_context(subject.opened())
            sources = [subject.searched_on_twin(x).predictor for subject in subjects]
            oracle: Oracle = Surrogates.of(sources)
            oracle = oracle if self.search.eot == 1 else Eot(self.search.eot, inner=oracle)
            attack = find_recipe(self.attack, oracle=oracle)
            question = self._ask(subjects[0], x, y, attack)
            return question.run(attack, self.key.fold(attack.name))
