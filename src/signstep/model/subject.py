"""The model under attack with everything declared about it, and the question it is asked about a batch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from signstep.engine import arrays
from signstep.engine.around import region_around
from signstep.engine.attack import Attack
from signstep.engine.detours import DRAWS, AllWays, Along
from signstep.engine.eot import Eot
from signstep.engine.keys import Key, WatchedDraws, content_ids
from signstep.engine.oracles import Autograd, Oracle, Surrogates, leaf_of, on_twin
from signstep.engine.origin import foreign
from signstep.engine.outcome import Health, Outcome
from signstep.engine.outputs import Outputs
from signstep.engine.problem import ModelProblem, Warm, judge, nearness
from signstep.engine.region import Region
from signstep.engine.shaped import ShapedThreat
from signstep.engine.targets import choose, classes_of
from signstep.engine.tasks import (
    Aim,
    Multiclass,
    Multilabel,
    Objective,
    Score,
    Segmentation,
    Task,
    TaskName,
    check_loss,
    task_for,
)
from signstep.engine.threat import Threat, ThreatModel, span_of
from signstep.engine.transform import Transform
from signstep.engine.tree import Tree, leaves, named_map, rows, take, tree_map
from signstep.engine.untouched import Mode, RandomnessWatch, guard_of, untouched
from signstep.engine.verify import Verification, verify
from signstep.engine.ways import Detoured, GradientPath, Way
from signstep.errors import GradientError, InputError, LabelError, ModelError, ThreatError
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.model.predictor import Kind, Predictor
from signstep.model.search import Search, Target
from signstep.model.space import InputSpace
from signstep.model.twin import Engine, prepared
from signstep.model.version import weights_version
from signstep.model.victims.endpoint import HttpVictim

Randomness: TypeAlias = Literal["none", "draws", "state", "own"]

# Models that were looked at twice, by mode and version of their weights: whether the two looks differed, and why.
_SEEN: WeakKeyDictionary[Any, dict[str, tuple[object, Randomness]]] = WeakKeyDictionary()
_FEW = 8

_WHY: dict[Randomness, str] = {
    "draws": "the model draws random numbers",
    "state": (
        "the model keeps state from one call to the next, so that its answer depends on the call before (reset the "
        "state at the start of forward(), or pass a function that resets it and then calls the model)"
    ),
    "own": (
        "the model answers the same input differently from call to call, though it draws nothing from the global "
        "generators: it has random numbers of its own, or keeps state between calls (seed or reset it in forward())"
    ),
}


@dataclass(frozen=True, eq=False)
class Question:
    """A batch, ready to be attacked: the problem, the region around it, and what the model says of it untouched.

    ``clean`` is the score of the untouched input under the goal; ``wrong`` (R,) whether the model's answer there
    differs from the label, None without labels. ``twin`` is a fast copy of the model to search on, if one was asked for
    and could be made. ``randomness`` says why the model answers the same input differently: it "draws" from the global
    generators, keeps "state" between calls, or has randomness of its "own"; "none" where it does not. ``ways`` are
    those past a defence that are tried, none where there is no defence; ``draws`` how many stand behind a gradient.
    """

    problem: ModelProblem
    region: Region
    x: Tree
    threats: dict[str, ThreatModel]
    clean: Score
    wrong: Tensor | None
    predicted: Tensor
    labels_predicted: bool
    form: str
    classes: int | None
    notes: tuple[str, ...]
    twin: Predictor | None = None
    randomness: Randomness = "none"
    ways: tuple[Way, ...] = ()
    draws: tuple[int, ...] = (1,)

    def run(self, attack: Attack, key: Key, begin: Tree | None = None) -> Outcome:
        """Attack, then let the independent checker look at what was returned.

        ``begin``: allowed points that earlier attacks came to, for attacks that go on from there.
        """
        refuse_unanswerable(self.problem.predictor, attack)
        needs = getattr(attack, "needs", "gradients")
        if self.form == "labels" and needs in ("scores", "gradients"):
            raise ModelError(
                f"{attack.name} needs {needs}, and this model answers with labels alone",
                remedy=(
                    "use hop-skip-jump or random-direction, pass",
                    Arg("surrogate"),
                    ", or let the model return scores",
                ),
            )
        found = self.searched(attack)(self.problem, self.region, self.x, key, begin)
        verdict = found.verdict
        checks = self.checked(found.x)
        verified = torch.stack([check.ok for check in checks.values()]).all(0)
        sizes = {name: check.size.to(verdict.loss.dtype).to(verdict.loss.device) for name, check in checks.items()}
        notes = [*self.notes, *self.problem.predictor.notes, *found.notes]
        if found.ended is not None:
            notes.append(f"{attack.name} ended early: {found.ended}")
        if not bool(verified.all()):
            notes.append(f"{int((~verified).sum())} returned inputs failed verification and prove nothing")
        return Outcome(
            x=found.x,
            fooled=verdict.fooled & verified,
            undetermined=~verdict.fooled & (found.vanished & ~self.hopeless(verdict.near) | ~verdict.valid) | ~verified,
            valid=verdict.valid,
            loss=self.problem.reported(verdict.loss),
            distance=sizes if isinstance(self.x, dict) else sizes[""],
            answer=verdict.answer,
            near=verdict.near,
            rate=verdict.rate,
            passes=verdict.passes,
            verified=verified,
            tolerance=max(check.tolerance for check in checks.values()),
            health=found.health,
            forwards=found.forwards,
            backwards=found.backwards,
            smallest=found.smallest,
            notes=tuple(dict.fromkeys(notes)),
            ended=found.ended,
            ways=None if found.ways is None else torch.where(verified, found.ways, -1),
        )

    def hopeless(self, near: Tensor) -> Tensor:
        """Of how near rows are to failing (R,), where no other class is present: there is no way to miss or to find."""
        return torch.isneginf(near) if self.classes is not None else torch.zeros_like(near, dtype=torch.bool)

    def take(self, index: Tensor) -> "Question":
        """The question about the rows at ``index`` alone."""

        def pick(threat: ThreatModel, x: Tensor) -> ThreatModel:
            return threat.pick(index, x)

        before = self.x if isinstance(self.x, dict) else {"": self.x}
        return replace(
            self,
            problem=self.problem.take(index),
            region=self.region.take(index),
            x=take(self.x, index),
            threats={name: pick(threat, before[name]) for name, threat in self.threats.items()},
            clean=Score(*(part[index] for part in self.clean)),
            wrong=None if self.wrong is None else self.wrong[index],
            predicted=self.predicted[index],
        )

    def untouched(self) -> Outcome:
        """The batch as it is, without any attack: what the model says of it, at no cost and no distance."""
        loss, none = self.problem.reported(self.clean.loss), torch.zeros_like(self.problem.ids)
        still = torch.zeros_like(loss)
        return Outcome(
            x=self.x,
            fooled=self.clean.fooled,
            undetermined=~self.clean.valid,
            valid=self.clean.valid,
            loss=loss,
            distance=dict.fromkeys(self.x, still) if isinstance(self.x, dict) else still,
            answer=self.predicted,
            near=nearness(self.clean),
            rate=self.clean.fooled.to(loss.dtype),
            passes=1,
            verified=torch.ones_like(self.clean.valid),
            tolerance=0.0,
            health=Health(*(none for _ in Health._fields)),
            forwards=none,
            backwards=none,
            notes=tuple(dict.fromkeys([*self.notes, *self.problem.predictor.notes])),
        )

    def spread(self, outcome: Outcome, index: Tensor) -> Outcome:
        """The outcome of the rows at ``index`` among all rows: the others are where they were, untouched."""
        rest = self.untouched()

        def among(part: Tensor, whole: Tensor) -> Tensor:
            return whole.to(part.dtype).index_copy(0, index, part)

        smallest = outcome.smallest
        if smallest is not None:  # of rows that nobody searched it is known where they have failed already
            smallest = among(smallest, torch.where(rest.fooled, 0.0, torch.full_like(rest.rate, torch.inf)))
        return replace(
            outcome,
            x=tree_map(among, outcome.x, self.x),
            fooled=among(outcome.fooled, rest.fooled),
            undetermined=among(outcome.undetermined, rest.undetermined),
            valid=among(outcome.valid, rest.valid),
            loss=among(outcome.loss, rest.loss),
            distance=tree_map(among, outcome.distance, rest.distance),
            answer=among(outcome.answer, rest.answer),
            near=among(outcome.near, rest.near),
            rate=among(outcome.rate, rest.rate),
            verified=among(outcome.verified, rest.verified),
            health=Health(*map(among, outcome.health, rest.health)),
            forwards=among(outcome.forwards, rest.forwards),
            backwards=among(outcome.backwards, rest.backwards),
            smallest=smallest,
            ways=None if outcome.ways is None else among(outcome.ways, torch.full_like(rest.forwards, -1)),
        )

    def oracle(self, chosen: Oracle | None = None) -> Oracle:
        """Where gradients come from: as chosen, else the model; on the fast twin where there is one."""
        oracle = chosen or Autograd()
        return oracle if self.twin is None else on_twin(oracle, self.twin)

    def searched(self, attack: Attack) -> Attack:
        """The attack as it is carried out: on the fast twin, and by every way past a defence."""
        return self.past(self.searched_on_twin(attack))

    def past(self, attack: Attack) -> Attack:
        """The attack by every way past a defence; itself where there is none."""
        return AllWays(attack, self.ways, self.draws) if self.ways else attack  # type: ignore[return-value]

    def single(self, oracle: Oracle | None) -> Oracle | None:
        """Where a single gradient comes from, as for the curve of one step: of an undefended model if that is asked."""
        return Along(inner=oracle or Autograd(), way="straight") if self.ways == ("straight",) else oracle

    def searched_on_twin(self, attack: Attack) -> Attack:
        """The attack with its search on the fast twin, where there is one and it would have asked the model itself."""
        oracle = getattr(attack, "oracle", None)
        if self.twin is None or oracle is None:
            return attack
        return replace(attack, oracle=on_twin(oracle, self.twin))  # type: ignore[type-var]

    def checked(self, point: Tree) -> dict[str, Verification]:
        """What the independent checker says of ball, box, mask and grid, for each attacked input."""
        before, after = (tree if isinstance(tree, dict) else {"": tree} for tree in (self.x, point))
        return {name: _checked(threat, before[name], after[name]) for name, threat in self.threats.items()}


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and how to read it.

    Attributes:
        predictor: calls the model.
        surrogates: models to take gradients from instead; empty for white-box attacks.
        space: the input space.
        task: what the outputs mean, or a name to find out from the first outputs.
        loss: the loss to climb, or None for the task's default.
        mode: "eval" to attack in evaluation mode, "keep" to leave every submodule as it is.
        engine: "exact" to search on the model itself, "fast" or "float32" to search on a twin (`model.twin`).
        transform: what is declared to happen to inputs on their way to the model; None for nothing.
        eot: draws over which each gradient is averaged.
        path: "aware" or "straight", past a transform that is a defence.
    """

    predictor: Predictor
    surrogates: tuple[Predictor, ...]
    space: InputSpace
    task: Task | TaskName
    loss: str | None
    mode: Mode
    engine: Engine = "exact"
    transform: Transform | None = None
    eot: int = 1
    path: GradientPath = "aware"

    @classmethod
    def of(cls, model: Model, search: Search | None = None) -> "Subject":
        """A declared model, searched as `Search` says.

        Raises:
            InputError: the two do not go together.
        """
        search = search or Search()
        space = model.space(search.budget)
        if model.transform is not None and space.budget == "normalised":
            raise InputError(
                Arg("transform"),
                "changes raw inputs,",
                Arg("budget", "normalised"),
                "searches others",
                remedy="drop one of the two",
            )
        gradients: Kind = "auto" if model.kind == "labels" else model.kind
        return cls(
            model.predictor(space),
            tuple(
                other.predictor(other.space(search.budget))
                if isinstance(other, Model)
                else replace(model, network=other).predictor(space, gradients)
                for other in search.surrogates
            ),
            space,
            model.task,
            search.loss,
            model.mode,
            search.engine,
            model.transform,
            search.eot,
            search.gradient_path,
        )

    @property
    def oracle(self) -> Oracle | None:
        """Where gradients come from, if not from a single pass of the model itself."""
        inner: Oracle | None = Surrogates(self.surrogates) if self.surrogates else None
        return inner if self.eot == 1 else Eot(self.eot, inner=inner or Autograd())

    def searched_on_twin(self, x: Tree) -> "Subject":
        """The same subject with the twin in the model's place, for crafting without verdict; only inside `opened`."""
        raw = self.space.mean is not None and self.space.inputs == "raw"
        model, _ = self._twin(tree_map(self.space.normalise, x) if raw else x)
        if model is None:
            return self
        return replace(self, predictor=replace(self.predictor, model=model), engine="exact")

    def refuse(self, attack: Attack) -> None:
        """See that an endpoint, whose every answer may cost, can give what an attack needs; before it is asked.

        Raises:
            GradientError: the attack needs gradients.
            ModelError: it needs scores, and the endpoint is declared to answer with labels.
        """
        refuse_unanswerable(self.predictor, attack)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Everything that touches the models happens inside; afterwards they are as before."""
        with untouched(self.predictor.model, *(other.model for other in self.surrogates), mode=self.mode):
            yield

    def ask(
        self,
        x: Tree | arrays.Array,
        y: Tensor | arrays.Array | None,
        threat: Threat,
        *,
        target: Target = None,
        key: Key,
        ids: Tensor | arrays.Array | None = None,
        attack: Attack | None = None,
        randomness: Randomness | None = None,
    ) -> Question:
        """Look at a batch and state the question; only inside `opened`.

        Args:
            x: inputs (R, ...) in the declared units, or a dict of them; in any spelling of `engine.arrays`.
            y: labels, or None for the model's own predictions; likewise.
            threat: a threat model, or one for each attacked input of a dict.
            target: for targeted goals.
            key: the randomness of random targets.
            ids: (R,) int64 keys of the rows' draws; None derives them from the content.
            attack: the one attack to come: if it starts at the clean input, the pass made here serves as its first.
            randomness: of the model, where that is known; None finds out by watching the global generators and, once
                for each model, by a second look at a few rows.
        """
        remarks: list[str] = []
        if attack is not None:
            self.refuse(attack)
        attacked, frozen, threats = self._split(self.plain(x, remarks), threat)
        region = region_around(attacked, threats if isinstance(attacked, dict) else threats[""])
        inputs = {**frozen, **attacked} if isinstance(attacked, dict) else attacked
        twin, said = self._twin(inputs if self.predictor.prepare is None else self.predictor.prepare(inputs))
        shaken = self.transform is not None and self._is_drawn(self.transform, attacked, key)
        render = None if self.transform is None or shaken else self._rendering(self.transform, attacked, key)
        shared = attack is not None and attack.from_clean and twin is None and not shaken
        watch = RandomnessWatch(leaves(attacked)[0].device, key.fold("look").integer())
        leaf = leaf_of(attacked) if shared else attacked
        with torch.set_grad_enabled(shared):
            shown = leaf if render is None else render(leaf)
            outputs = self.predictor({**frozen, **shown} if isinstance(shown, dict) else shown)
        if watch.drew():
            randomness = "draws"
        elif randomness is None:
            randomness = self._answers_differ(inputs)
        random = randomness != "none" or shaken
        task = task_for(self.task, outputs.scores.detach())
        if isinstance(task, Multilabel):
            outputs = self.predictor.reread(outputs)
        if ids is None:
            needs_ids = target == "random" or random or attack is None or attack.draws
            ids = (
                content_ids(inputs, span_of(threats))
                if needs_ids
                else torch.zeros(rows(inputs), dtype=torch.int64, device="cpu")
            )
        ids = _check_ids(ids, rows(inputs), leaves(attacked)[0].device)
        aim, notes = self._aim(task, outputs, arrays.labels(y), target, ids, key)
        notes += [*remarks, *said, *self._remarks(randomness, random=random)]
        goal: Literal["untargeted", "targeted"] = "untargeted" if aim.target is None else "targeted"
        classes = classes_of(task, outputs)
        loss = check_loss(task, self.loss, classes, goal, labelled=aim.y is not None)
        problem = ModelProblem(
            self.predictor,
            task,
            aim,
            loss,
            ids,
            random,
            frozen,
            render,
            shape=None if outputs.form == "labels" else outputs.raw.shape,
            transform=self.transform if shaken else None,
        )
        calm = Outputs(outputs.raw.detach(), outputs.scores.detach(), outputs.form)
        if shared:
            warm = Warm(attacked, leaf, problem.read(outputs))
            problem, clean = replace(problem, warm=warm), Score(*(part.detach() for part in warm.score))
        else:
            clean = problem.read(calm)
        wrong = clean.fooled | ~clean.valid if aim.target is None else None
        if aim.target is not None and aim.y is not None:
            wrong = task.score(calm, Aim(aim.y), loss).fooled | ~clean.valid
        if random:  # one look at a random model proves nothing, at the untouched input neither
            judged = judge(problem, attacked, key.fold("clean"))
            clean = clean._replace(fooled=judged.fooled, loss=judged.loss)
            if wrong is not None:
                wrong = judge(replace(problem, aim=Aim(aim.y)), attacked, key.fold("clean")).fooled
        return Question(
            problem,
            region,
            attacked,
            threats,
            clean,
            wrong,
            task.predict(calm),
            y is None and aim.y is not None,
            outputs.form,
            classes,
            tuple(notes),
            None if twin is None else self._as_twin(twin, outputs.form),
            randomness,
            self._ways(),
            DRAWS if shaken and self.eot == 1 else (1,),
        )

    def plain(self, x: Tree | arrays.Array, notes: list[str]) -> Tree:
        """Inputs in any spelling as tensors; arrays come in the precision and on the device of the model's weights.

        Raises:
            InputError: no numbers, or no rows.
        """
        made = arrays.inputs(x, notes, home=arrays.Home(self.predictor.model))
        for part in leaves(made):
            if part.ndim and not len(part):
                raise InputError(
                    Arg("x", tuple(part.shape), of="shape"), ", which is empty", remedy="pass one example or more"
                )
        return made

    def _twin(self, inputs: Tree) -> tuple[nn.Module | None, list[str]]:
        """The fast copy to search on, and what is to be said about it; ``inputs`` as the model takes them."""
        model = self.predictor.model
        if self.engine == "exact" or self.surrogates:
            return None, []
        if not isinstance(model, nn.Module):
            return None, [f"engine={self.engine!r} changes nothing: the model is a function, not an nn.Module"]
        made = prepared(model, inputs, engine=self.engine)
        return (made.model if made.steps else None), [str(made)]

    def _as_twin(self, model: nn.Module, form: str) -> Predictor:
        """Reads the twin as the model is read; a head that was looked for and not found is not looked for again."""
        kind: Kind = "logits" if form == "logits" else self.predictor.kind
        return replace(self.predictor, model=model, kind=kind, notes=[])

    def _ways(self) -> tuple[Way, ...]:
        """Those past a defence that are tried."""
        if self.transform is None or not isinstance(self.transform, Detoured):
            return ()
        return self.transform.ways if self.path == "aware" else ("straight",)

    def _remarks(self, randomness: Randomness, *, random: bool) -> list[str]:
        """What is to be said of the mode in which the modules ran, of surrogates, units and randomness."""
        notes = []
        guard = guard_of(self.predictor.model)
        if guard is not None and guard.switched:
            notes.append("the model was in training mode; it was attacked in evaluation mode and put back")
        if guard is not None and guard.mixes_rows:
            notes.append(
                "BatchNorm takes its statistics from the batch (training mode, or none are kept): rows depend on each "
                "other, and figures on the batches"
            )
        if self.surrogates:
            notes.append("transfer attack: gradients come from a surrogate, the model itself may be far less robust")
        if self.space.budget == "normalised":
            notes.append("eps, distance and x are in the model's normalised coordinates (budget='normalised')")
        if random:
            drawn = _WHY.get(randomness, f"inputs pass through a transform, {self.transform}")
            notes.append(f"{drawn}: a row counts as fooled when most of 32 held-out passes fail")
        elif self.transform is not None:
            notes.append(f"inputs pass through a transform, {self.transform}, which draws nothing: one pass decides")
        if self.path == "straight":
            notes.append(
                "gradient_path='straight': an attacker who does not know of the defence; one who does may find far more"
                if isinstance(self.transform, Detoured)
                else "gradient_path='straight' changes nothing: the model declares no defence"
            )
        if not random and self.eot > 1:
            notes.append(f"eot={self.eot} changes nothing but the cost: neither model nor transform draws numbers")
        return notes

    def _is_drawn(self, transform: Transform, u: Tree, key: Key) -> bool:
        """Whether the declared transform draws numbers; one that does not is judged in one pass like any model.

        It is applied twice, under two keys: it draws if it asks for draws, moves a global generator, or gives
        something else the second time.
        """
        device = leaves(u)[0].device
        watch = RandomnessWatch(device, key.fold("transform").integer())
        looks: list[Tree] = []
        for number in range(2):
            draws = WatchedDraws(
                key.fold("transform", number), torch.arange(rows(u), dtype=torch.int64, device=device), device
            )
            with torch.no_grad(), foreign("transform="):
                looks.append(tree_map(lambda part, draws=draws: transform(part.clone(), draws), u))
            if draws.asked or watch.drew():
                return True
        same = tree_map(lambda one, other: torch.eq(torch.nan_to_num(one), torch.nan_to_num(other)).all(), *looks)
        return not all(bool(part) for part in leaves(same))

    def _rendering(self, transform: Transform, u: Tree, key: Key) -> Callable[[Tree], Tree]:
        """The inputs behind a transform that draws nothing."""
        draws = key.fold("transform").draws(torch.zeros(rows(u), dtype=torch.int64, device="cpu"), leaves(u)[0].device)

        def render(point: Tree) -> Tree:
            with foreign("transform="):
                return tree_map(lambda part: transform(part, draws), point)

        return render

    def _answers_differ(self, inputs: Tree) -> Randomness:
        """Whether two passes over a few rows differ, though the global generators did not move.

        The model has randomness of its own then, or keeps state: put back to what modules kept before, a model that
        keeps state answers alike. Found out once for each mode of a model, until its weights change.
        """
        try:
            known = _SEEN.setdefault(self.predictor.model, {})
        except TypeError:  # neither hashable nor weakly referable
            known = {}
        guard = guard_of(self.predictor.model)
        version = weights_version(() if guard is None else guard.held)
        if self.mode not in known or known[self.mode][0] != version:
            few = tree_map(lambda part: part[:_FEW], inputs)

            def differ(*, rewound: bool) -> bool:
                looks = []
                for _ in range(2):
                    if rewound and guard is not None:
                        guard.rewind()
                    looks.append(self.predictor(few).raw.float())
                first, second = looks
                # Absent classes say nothing about the size of the others.
                scale = torch.nan_to_num(first, 0.0, 0.0, 0.0).abs().max().clamp_min(1e-6)
                return bool(torch.nan_to_num((first - second).abs()).max() > 1e-5 * scale)

            with torch.no_grad():
                if isinstance(self.predictor.model, HttpVictim):  # which pays for each look: it was asked just now
                    found: Randomness = "own" if self.predictor.model.answers_differ() else "none"
                elif not differ(rewound=False):
                    found = "none"
                else:
                    found = "own" if differ(rewound=True) else "state"
            known[self.mode] = (version, found)
        return known[self.mode][1]

    def _split(self, x: Tree, threat: Threat) -> tuple[Tree, dict[str, Tensor], dict[str, ThreatModel]]:
        """Attacked inputs in search units, frozen ones, and the threats by name ("" for a single tensor)."""
        if isinstance(x, Mapping):
            if self.space.mean is not None:
                raise InputError(
                    Arg("mean"),
                    "and",
                    Arg("std"),
                    "are for a single input tensor",
                    remedy="put the normalisation of a dict into the model",
                )
            if isinstance(threat, ThreatModel):
                floating = [name for name, part in x.items() if isinstance(part, Tensor) and part.is_floating_point()]
                if len(floating) != 1:
                    raise ThreatError(
                        Arg("x"),
                        f"has the floating inputs {floating}",
                        remedy=("pass", Arg("threat", Blank("{name: threat}")), "for those that may change"),
                    )
                threat = {floating[0]: threat}
            missing = [name for name in threat if name not in x]
            if missing or not threat:
                raise ThreatError(
                    Arg("threat"), f"names {list(threat)}, the inputs are {list(x)}", remedy="name one or more of them"
                )
            for name in threat:
                if not isinstance(x[name], Tensor):
                    raise ThreatError(
                        Arg("threat"), f"names {name!r}, which is {x[name]!r}", remedy="name an input with rows"
                    )
            _same_rows(x)
            attacked = {name: _plain(x[name]) for name in threat}
            _check_wide(attacked)
            others = {name: part for name, part in x.items() if name not in threat}
            return attacked, named_map(_plain, others), dict(threat)
        if isinstance(threat, Mapping):
            raise ThreatError(
                Arg("threat"), f"names the inputs {list(threat)}, but x is one tensor", remedy="pass one threat model"
            )
        if not isinstance(threat, ThreatModel):
            raise ThreatError(Arg("threat"), f"is {threat!r}", remedy="pass a threat model such as ss.linf('8/255')")
        if x.ndim == 0:
            raise InputError(Arg("x"), "has no dimensions", remedy="pass a batch, one row for each example")
        _check_wide({"": x})
        plain = _plain(x)
        if plain.is_floating_point():
            plain = self.space.to_search(plain, threat)
        return plain, {}, {"": self.space.threat(threat, plain)}

    def _aim(
        self, task: Task, outputs: Outputs, y: Tensor | None, target: Target, ids: Tensor, key: Key
    ) -> tuple[Aim, list[str]]:
        notes = []
        raw = outputs.raw.detach()
        labels: Tensor | None
        if y is None:
            # An objective has no right answer that could stand for a label.
            needed = (target is None or isinstance(target, str)) and not isinstance(task, Objective)
            labels = task.predict(outputs).detach() if needed else None
            if needed:
                notes.append(
                    "labels are the model's own predictions, so they cannot leak; this is not accuracy on true labels"
                )
        else:
            labels = task.labels(y, raw, "y").to(raw.device)
        if target is None:
            return Aim(labels), notes
        if isinstance(target, str):
            return Aim(labels, choose(target, task, outputs, labels, ids, key)), notes
        goals = arrays.labels(target, name="target")
        assert goals is not None
        wanted = task.labels(goals, raw, "target").to(raw.device)
        absent = _absent(task, raw, wanted)
        if absent:
            raise LabelError(
                Arg("target"),
                f"is a class that the model gives a score of -inf in {absent} of {wanted.numel()} cases, so "
                "that it can never be the answer there",
                remedy="pass other targets, or attack those rows without one",
            )
        if labels is not None and isinstance(task, Multiclass) and bool((wanted == labels).any()):
            raise LabelError(
                Arg("target"),
                f"equals y in {int((wanted == labels).sum())} of {len(wanted)} rows; a targeted attack leads "
                "away from y",
                remedy=("pass other targets, or", Arg("target", "random"), ", 'least-likely' or 'next'"),
            )
        return Aim(labels, wanted), notes


def refuse_unanswerable(predictor: object, attack: Attack) -> None:
    """See `Subject.refuse`."""
    victim, needs = getattr(predictor, "model", None), getattr(attack, "needs", "gradients")
    if not isinstance(predictor, Predictor) or not isinstance(victim, HttpVictim):
        return
    if needs == "gradients" and not getattr(getattr(attack, "oracle", None), "sees_victim", True):
        return  # surrogates lend theirs
    by_asking = "hop-skip-jump" if predictor.kind == "labels" else "square or hop-skip-jump"
    remedy = (f"use {by_asking}, which ask for what it has, or pass", Arg("surrogate"))
    if needs == "gradients":
        raise GradientError(
            f"{attack.name} needs gradients, and {victim.address} answers requests alone", remedy=remedy
        )
    if needs == "scores" and predictor.kind == "labels":
        raise ModelError(f"{attack.name} needs scores, and {victim.address} answers with labels alone", remedy=remedy)


def _checked(threat: ThreatModel, before: Tensor, after: Tensor) -> Verification:
    """By the threat's own checker, where its set is not a ball in a box."""
    if isinstance(threat, ShapedThreat):
        return threat.checked(before, after)
    return verify(before, after, threat.terms())


def _absent(task: Task, raw: Tensor, wanted: Tensor) -> int:
    """In how many cases the class that is wanted is absent: (R,), or (R, ...) at every position."""
    if isinstance(task, Segmentation):
        counted = torch.ones_like(wanted, dtype=torch.bool) if task.ignore is None else wanted != task.ignore
        scores = raw.gather(1, torch.where(counted, wanted, 0).unsqueeze(1)).squeeze(1)
        return int((torch.isneginf(scores) & counted).sum())
    if isinstance(task, Multiclass) and raw.ndim == 2 and raw.shape[1] > 1:
        return int(torch.isneginf(raw.gather(1, wanted.unsqueeze(1))).sum())
    return 0


def _plain(x: Tensor) -> Tensor:
    """A tensor that can carry gradients: detached, and copied out of inference mode."""
    return x.clone() if x.is_inference() else x.detach()


def _check_ids(ids: Tensor | arrays.Array, count: int, device: torch.device) -> Tensor:
    ids = arrays.number(ids, "ids", InputError)
    if ids.shape != (count,) or ids.is_floating_point():
        raise InputError(
            Arg("ids", tuple(ids.shape), of="shape"),
            f"and dtype {ids.dtype} for {count} examples",
            remedy=f"pass int64 ({count},)",
        )
    return ids.long().to(device)


def _check_wide(attacked: Mapping[str, Tensor]) -> None:
    for name, part in attacked.items():
        if part.ndim < 2:
            raise InputError(
                f"{f'the input {name!r}' if name else 'x'} has shape {tuple(part.shape)}, and an input under "
                "attack needs a dimension beside the examples",
                remedy="pass x.unsqueeze(1), and let the model take it",
            )


def _same_rows(x: Mapping[str, Tensor]) -> None:
    counts = {name: len(part) for name, part in x.items() if isinstance(part, Tensor)}
    if len(set(counts.values())) != 1:
        raise InputError(
            f"the inputs have different numbers of rows: {counts}",
            remedy="pass one row for each example in every input",
        )
