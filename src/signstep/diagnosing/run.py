"""`diagnose`: is the number that an attack gives real?"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from signstep.attacks.recipes import recipe as find_recipe
from signstep.auditing.run import Run
from signstep.auditing.sections import Section
from signstep.auditing.stream import Data
from signstep.diagnosing.battery import TESTS, mode, numerics
from signstep.diagnosing.battery.losses import TERMS
from signstep.diagnosing.battery.self_test import ENOUGH
from signstep.diagnosing.bench import STANDARD, TIMES, Bench, Ran, Spec, TooDearError, finite, ladder_of
from signstep.diagnosing.choosing import MOST, chosen
from signstep.diagnosing.diagnosis import Cause, Cost, Diagnosis, Tested
from signstep.diagnosing.harder import harder
from signstep.diagnosing.inner import MEMBERS, NAME, Inner
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.diagnosing.verdict import Tried, cover, hinted, judged, left_standing, nothing, weighed
from signstep.diagnosing.views import VIEWS, shown
from signstep.diagnosing.weighed import Tempered, Term
from signstep.engine.arrays import Home
from signstep.engine.keys import Key
from signstep.engine.origin import contained
from signstep.engine.shaped import need_check
from signstep.engine.tasks import ignored
from signstep.engine.threat import Threat, ThreatModel, one_example
from signstep.engine.tree import leaves, tree_map
from signstep.errors import GradientError, InputError, ModelError, VictimError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.search import Search, refuse, search_of
from signstep.model.space import Statistic
from signstep.version import VERSION


@contained
def diagnose(
    model: Model | Callee,
    data: Data,
    *,
    threat: Threat,
    attack: Spec = "pgd",
    examples: int = MOST,
    mean: Statistic = None,
    std: Statistic = None,
    limit: int | None = None,
    show: Sequence[str] = (),
    search: Search | None = None,
    run: Run | None = None,
) -> Diagnosis:
    """Doubt the number that an attack gives, adapt the attack to what is suspected, and say what is left of it.

    A pair of model and attack is *inflated* where the robust accuracy under the attack exceeds that under the best
    attack known here by more than 2 points, on the same examples. ``standard`` is judged beside the attack. Robust
    accuracy is here the share of examples that are answered rightly and left standing, undetermined ones included: what
    other tools print.

    Tests name causes, each cause has cures, which are attacks, and these are run by the usual engine: every point that
    counts was seen by the model itself and by the independent checker. Tests and cures together cost at most ten times
    the passes of ``standard`` on the same examples; what would cost more is not asked. The model is left as it was.

    Args:
        model: an `ss.Model`, or a bare nn.Module or callable.
        data: as for `signstep.audit`; of it ``examples`` are chosen by their content and the seed.
        threat: what may change, the same for all examples.
        attack: that is diagnosed: a recipe with options, an attack object, or a ladder such as "standard".
        examples: to look at, at most 128.
        mean: of a bare network: it wants (x - mean) / std.
        std: see ``mean``.
        limit: choose among so many first examples of the data.
        show: what to show beside the verdict, as sections of the report: "landscape", "gradients", "layers", "stain",
            "attacks"; each costs passes of its own, see `signstep explain` for each.
        search: loss, surrogate, draws, seed: how the attack that is diagnosed searches. No target.
        run: device and what the record calls the data; its other fields have no meaning here.

    Returns:
        A `Diagnosis`: ``.verdict``, whose text begins with real, inflated or undetermined, ``.causes``, ``.before``,
        ``.after``, ``.tests``, ``.commands``; print it. Interrupted by Ctrl-C after the attack and ``standard`` it has
        what was found until then.

    Raises:
        InputError: the data is empty, or an argument does not fit.
        ModelError: the model cannot be called or read.

    Example:
        >>> import torch, signstep as ss
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> x = torch.rand(12, 4)
        >>> d = ss.diagnose(net, (x, net(x).argmax(1)), threat=ss.linf(0.3), attack="pgd:steps=5")
        >>> str(d.verdict).split()[0] in ("real", "inflated", "undetermined")
        True
    """
    declared, search, run = Model.of(model, mean=mean, std=std), search_of(search), run or Run()
    refuse(
        search,
        "diagnose",
        target="it asks about the number for any wrong answer",
        budget="eps is in raw units here",
        gradient_path="it doubts the number of an attacker who knows all",
    )
    need_check(threat)
    if ladder_of(attack) is None:
        find_recipe(attack)
    for name in show:
        VIEWS.find(name)
    home = Home(declared.network)
    where = home.device if run.device is None else torch.device(run.device)
    taken = chosen(
        data,
        examples,
        Key(search.seed),
        threat,
        Home(device=torch.device("cpu"), dtype=home.dtype),
        limit=limit,
        ignore=ignored(declared.task),
    )
    _check_shared(threat, leaves(taken.x)[0].ndim)
    x = tree_map(lambda part: part.to(where), taken.x)
    bench = Bench(declared, x, None if taken.y is None else taken.y.to(where), threat, search, attack)
    bench.look()
    work = _Work(bench, run.progress)
    work.all()
    described = run.data or ("tensors" if isinstance(data, tuple) else type(data).__name__)
    found = work.diagnosis(described, taken.seen, taken.said)
    return _with_views(bench, found, show)


def _with_views(bench: Bench, found: Diagnosis, names: Sequence[str]) -> Diagnosis:
    """The diagnosis with what is to be shown beside it; an interruption keeps what is there."""
    if found.partial or not names:
        return found
    bench.allowed, bench.spent = None, 0
    sections: list[Section] = []
    measures: dict[str, float] = {}
    notes = list(found.notes)
    partial = False
    try:
        for name in dict.fromkeys(names):
            made = shown(bench, name)
            sections += made.sections
            measures |= {key: value for key, value in made.measures.items() if math.isfinite(value)}
    except (KeyboardInterrupt, VictimError) as error:
        partial = True
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else error.text
        notes.append(f"not all was shown that was asked for: {why}")
    return replace(
        found,
        sections=(*found.sections, *sections),
        measures=measures,
        cost=replace(found.cost, shown=bench.spent),
        notes=tuple(dict.fromkeys((*notes, *bench.notes))),
        partial=partial,
    )


def _check_shared(threat: Threat, ndim: int) -> None:
    parts = [threat] if isinstance(threat, ThreatModel) else list(threat.values())
    several = next(filter(None, (one_example(part, ndim) for part in parts)), None)
    if several is not None:
        raise InputError(
            Arg("threat"),
            f"has a {several} for each example, and a diagnosis chooses among them",
            remedy=f"pass one {several} for all",
        )


# Of what the attack left standing, that a cure must take away before it is made harder at once.
MOST_OF = 0.5


class _Work:
    """One diagnosis on its way: attack, standard, tests, cures."""

    def __init__(self, bench: Bench, progress: Callable[[int], None] | None) -> None:
        self.bench, self._progress = bench, progress
        self.observed: dict[str, tuple[Test, Observed, int]] = {}
        self.tried: list[Tried] = []
        self.left_out: list[str] = []
        self.partial = False
        self.attack_cost = self.standard_cost = 0
        self.standard_error = ""
        self._polished = False
        self._done = 0

    def all(self) -> None:
        """Everything, in its order; an interruption after the attack and `standard` keeps what was found."""
        bench = self.bench
        bench.spent = 0
        bench.named = bench.run(bench.attack)
        self.attack_cost, bench.spent = bench.spent, 0
        self._step()
        try:
            bench.standard = bench.named if ladder_of(bench.attack) == ladder_of(STANDARD) else bench.run(STANDARD)
            self.standard_cost = bench.standard.passes
        except (InputError, ModelError) as error:
            if isinstance(error, VictimError):
                raise
            self.standard_error, self.standard_cost = error.text, self.attack_cost
        bench.allowed, bench.spent = TIMES * self.standard_cost, 0
        self._step()
        try:
            waiting: list[str] = []
            for test in TESTS.asked_for.values():
                self._ask(test)
                waiting.append(test.id)
                # Cures come first where passes are few; those for a random model need to know how many draws.
                if not bench.random or "random" in self.observed:
                    self._cure(waiting, last=False)
                    waiting = []
                    self._polish(early=True)
                self._step()
            if not any(one.takes for one in self.tried):
                self._cure(list(self.observed), last=True)
            self._polish()
        except (KeyboardInterrupt, VictimError) as error:
            self.partial = True
            if isinstance(error, VictimError):
                bench.notes.append(f"the diagnosis ended early: {error.text}")

    def _step(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done)

    def _ask(self, test: Test) -> None:
        bench = self.bench
        before = bench.spent
        if not bool(bench.right.any()):
            seen = not_asked("the model answers no example rightly")
        elif not bool(bench.held.any()):
            seen = not_asked("the attack left nothing standing")
        else:
            try:
                bench.need(1)
                seen = test.run(bench)
            except TooDearError as error:
                seen = not_asked(f"left out: {error}")
            except (InputError, ModelError) as error:
                if isinstance(error, VictimError):
                    raise
                seen = not_asked(error.text)
        self.observed[test.id] = (test, seen, bench.spent - before)

    def _cure(self, tests: Sequence[str], *, last: bool) -> None:
        for name in tests:
            _, seen, _ = self.observed[name]
            self.tried += [self._cured(name, suspect, last=last) for suspect in seen.suspects]

    def _cured(self, test: str, suspect: Suspect, *, last: bool) -> Tried:
        """Run the cures of a suspect, also where all has fallen to others: what each takes away is what it is."""
        bench = self.bench
        felled, best, most = nothing(bench), None, 0
        for cure in (cure for cure in suspect.cures if cure.last == last):
            try:
                ran = bench.cure(cure)
            except TooDearError:
                self.left_out.append(str(cure))
                continue
            except (InputError, ModelError) as error:
                if isinstance(error, VictimError):
                    raise
                self.left_out.append(f"{cure} ({error.text})")
                continue
            taken = ran.fooled & bench.held
            if int(taken.sum()) > most or best is None:
                best, most = cure, int(taken.sum())
            felled = felled | taken
            if bool((felled | ~bench.held).all()):
                break
        return Tried(test, suspect, felled, best)

    def _polish(self, *, early: bool = False) -> None:
        """What the best cure left standing, once more and harder along the same way, and by queries.

        ``early``, where a cure takes most away already, only the former: passes spent on it are worth more than on
        tests that could but name what is known. Not of a random model, where the best single run counts.
        """
        bench = self.bench
        best = max((one for one in self.tried if one.takes), key=lambda one: one.takes, default=None)
        if best is None or best.best is None or bench.random:
            return
        if early and (self._polished or best.takes < MOST_OF * int(bench.held.sum())):
            return
        self._polished = True
        for cure in harder(best.best)[: 1 if early else None]:
            if not bool(bench.standing.any()):
                return
            with suppress(TooDearError, GradientError, InputError):
                bench.run(cure.rung, on=bench.standing, changes=cure.changes, name=cure.name)

    # The record.

    def diagnosis(self, data: str, seen: int, said: Sequence[str]) -> Diagnosis:
        """What was found."""
        bench = self.bench
        assert bench.named is not None
        causes, idle = weighed(self.tried)
        left = left_standing(bench)
        causes = hinted(bench, bench.named, left, causes)
        blocked = self._blocked(idle)
        passed = self._passed()
        verdict = judged(bench, bench.named, left, causes, blocked, passed)
        standard = None
        if bench.standard is not None:
            own = tuple(cause for cause in causes if self._beyond(cause.name, bench.standard))
            standard = judged(bench, bench.standard, left, own, blocked, "no attack found more")
        needs = tuple(self._needs(idle)) if verdict.word == "undetermined" else ()
        commands = self._commands(left, causes)
        notes = [*said, *bench.notes]
        notes += [f"standard could not be run: {self.standard_error}"] if self.standard_error else []
        notes += [f"{bench.named.spec} could not be run: {bench.named.error}"] if bench.named.error else []
        notes += [
            f"cures left out, which might cost more than was left: {', '.join(dict.fromkeys(self.left_out))}"
        ] * bool(self.left_out)
        notes += ["partial: interrupted; what was found until then is here"] * self.partial
        return Diagnosis(
            model=bench.model.title,
            data=data,
            threat=_said(bench.threat),
            attack=bench.named.spec,
            examples=bench.count,
            seen=seen,
            right=int(bench.right.sum()),
            before=int(bench.held.sum()),
            after=int(left.sum()),
            standard=None if bench.standard is None else int((bench.right & ~bench.standard.fooled).sum()),
            verdict=verdict,
            standard_verdict=standard,
            causes=causes,
            signs=tuple(f"{one.suspect.cause} (test {one.test}): {one.suspect.because}" for one in idle),
            tests=tuple(self._tested(*one) for one in self.observed.values()),
            cost=Cost(self.attack_cost, self.standard_cost, bench.spent, bench.allowed or 0),
            commands=commands,
            stated=_terms(bench),
            needs=needs,
            ineligible=self._ineligible(),
            notes=tuple(dict.fromkeys(notes)),
            sections=tuple(bench.sections),
            partial=self.partial,
            versions={"signstep": VERSION, "torch": torch.__version__},
            student=bench.seen.get("student"),
        )

    def _blocked(self, idle: Sequence[Tried]) -> list[str]:
        """Why nothing can be said, where nothing better was found."""
        found = [one.suspect.because for one in idle if one.suspect.blocks]
        if self.partial:
            found.append("it was interrupted before all tests were asked")
        if self.bench.named is not None and self.bench.named.error:
            found.append(self.bench.named.error)
        return found

    def _needs(self, idle: Sequence[Tried]) -> list[str]:
        found = [one.suspect.remedy for one in idle if one.suspect.blocks and one.suspect.remedy]
        found += ["run it again and let it end"] * self.partial
        return list(dict.fromkeys(found)) or [
            "a surrogate to take gradients from: ss.Search(surrogate=other), --surrogate MODEL@WEIGHTS"
        ]

    def _passed(self) -> str:
        """The clean bill."""
        asked = [seen for _, seen, _ in self.observed.values() if seen.asked]
        fired = sum(seen.fired for seen in asked)
        signs = (
            "no sign of masking"
            if not fired
            else "no cure found more for " + ("one sign" if fired == 1 else f"{fired} signs")
        )
        text = f"{signs} in {len(asked)} tests"
        if "self-test" in self.bench.seen:
            share, chance = self.bench.seen["self-test"]
            word = "passed" if share >= ENOUGH else "had"
            text += f"; the attack {word} its self-test at {share:.0%} (random sampling {chance:.0%})"
        return text

    def _beyond(self, cause: str, ran: Ran) -> bool:
        """Whether the cures of a cause felled something that a run left standing."""
        return any(bool((one.felled & ~ran.fooled).any()) for one in self.tried if one.suspect.cause == cause)

    @staticmethod
    def _tested(test: Test, seen: Observed, passes: int) -> Tested:
        return Tested(
            test.id, test.question, seen.asked, seen.fired, test.statistic, test.threshold, finite(seen.value), seen.p,
            seen.told, passes,
        )  # fmt: skip

    def _ineligible(self) -> tuple[str, ...]:
        """Why RobustBench would not: it asks for gradients that are not zero, no random numbers and no optimisation."""
        fired = {name for name, (_, seen, _) in self.observed.items() if seen.fired}
        reasons = {
            "graph": "its gradient is cut or turned by a step without one",
            "health": "gradients are zero on many examples",
            "dynamic": "it computes gradients while it answers",
        }
        found = [text for name, text in reasons.items() if name in fired]
        return (*found, *(["it draws random numbers"] if self.bench.random else []))

    def _commands(self, left: Tensor, causes: Sequence[Cause]) -> tuple[tuple[str, ...], ...]:
        """Options of audits whose union is what fell: runs under one search are one command."""
        cures = [cause.cure.partition(" ")[0] for cause in causes]
        by_search: dict[tuple[str, ...], list[str]] = {}
        for ran in cover(self.bench, left, cures):
            options = _options(self.bench.search, ran)
            if options is None:
                self.bench.notes.append(untyped(ran.name, ran.spec, ran.changes.get("surrogate")))
            else:
                group = ("--ladder",) if ran.ladder else ("--attack",)
                by_search.setdefault((*group, *options), []).append(ran.spec)
        found = []
        for (kind, *options), specs in by_search.items():
            joined = [ladder_of(specs[0]) or specs[0]] if kind == "--ladder" else [",".join(dict.fromkeys(specs))]
            found.append((kind, *joined, *options))
        return tuple(found)


def _terms(bench: Bench) -> tuple[str, ...]:
    """What model, data and threat are called in a command: those who know better replace it."""
    threat = bench.threat
    label = f"{threat.norm.name}:{threat.label}" if isinstance(threat, ThreatModel) else "THREAT"
    return ("--model", "MODEL", "--data", "DATA", "--threat", label)


def _options(search: Search, ran: Ran) -> list[str] | None:
    """A search as options; None where it cannot be typed."""
    changed: Mapping[str, Any] = {name: value for name, value in ran.changes.items() if name != "surrogate"}
    asked = replace(search, **changed)
    words = [] if asked.loss is None else ["--loss", asked.loss]
    words += [] if asked.eot == 1 else ["--eot", str(asked.eot)]
    words += [] if asked.seed == 0 else ["--seed", str(asked.seed)]
    other = ran.changes.get("surrogate")
    if other is not None:
        if not (isinstance(other, Model) and str(other.name).startswith("student:")):
            return None  # a copy of the model that stands in no file
        words += ["--surrogate", f"signstep.networks.student:{other.name}@student.safetensors"]
    return words


def untyped(name: str, spec: str, copied: object = None) -> str:
    """What to write in Python where a cure takes gradients from a copy that no command can name."""
    network = copied.network if isinstance(copied, Model) else None
    places = f"{network.classes}, {network.picked}" if isinstance(network, Inner) else "classes, picked"
    lines = {
        numerics.WIDE: ("Wide(copy.deepcopy(network))", numerics.Wide),
        numerics.NARROW: ("Wide(copy.deepcopy(network), torch.float32)", numerics.Wide),
        mode.COPY: ("copy.deepcopy(network).eval()", None),
        NAME: (f"Inner(network, {places})", Inner),
        MEMBERS: (f"Inner(network, {places})", Inner),
        TERMS[0]: ("Term(network, 0)", Term),
        TERMS[1]: ("Term(network, 1)", Term),
        "scores at temperature": (f"Tempered(network, {name.rpartition(' ')[2]})", Tempered),
    }
    line, of = next((found for start, found in lines.items() if name.startswith(start)), ("the copy", None))
    outputs = ', outputs="logits"' if of is Inner else ""
    outputs = ', outputs="probabilities"' if name.endswith(numerics.SHARES) else outputs
    where = f", {of.__name__} of {of.__module__}" if of is not None else ""
    return (
        f"{spec} along the gradients of {name} stands in no command; in Python: "
        f"ss.Search(surrogate=ss.Model({line}{outputs})){where}"
    )


def _said(threat: Threat) -> str:
    if isinstance(threat, ThreatModel):
        return str(threat)
    return "; ".join(f"{name}: {part}" for name, part in threat.items())
