"""Running an audit: a stream of batches in, one record out; memory does not grow with the stream's tensors."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from signstep.auditing.evidence import Evidence
from signstep.auditing.result import AttackResult, CurvePoint, Examples, Result, worst_case
from signstep.core.attack import Attack
from signstep.core.keys import Key
from signstep.core.oracles import Oracle
from signstep.core.outcome import Outcome
from signstep.core.outputs import Kind, Selector
from signstep.core.ray import FgsmRay
from signstep.core.recipes import RECIPES, canonical, recipe
from signstep.core.space import Statistic
from signstep.core.statistics import quantile
from signstep.core.subject import Model, Question, Subject, Target
from signstep.core.tasks import Multiclass, Task, TaskName
from signstep.core.threat import Threat, ThreatModel
from signstep.core.tree import Tree, rows, take, tree_map
from signstep.core.untouched import Mode
from signstep.errors import InputError
from signstep.version import VERSION

Data: TypeAlias = Iterable[tuple[Tree, Tensor | None]] | tuple[Tensor, Tensor | None] | Dataset[Any]
Progress: TypeAlias = Callable[[int], None]

# torch.OutOfMemoryError is newer than the oldest torch we support.
_OUT_OF_MEMORY: type[Exception] = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)

# Sizes of the default security curve, as shares of eps.
_SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0, 3 / 2, 2.0)
_NOISE = ("random-sign",)
_ROWS = 256  # rows of a batch when the data is given as two tensors


def audit(
    model: Model,
    data: Data,
    *,
    threat: Threat,
    attacks: Sequence[str | Attack] = ("random-sign", "fgsm", "pgd"),
    curve: bool | Sequence[float] = True,
    target: Target = None,
    task: Task | TaskName = "auto",
    loss: str | None = None,
    mean: Statistic = None,
    std: Statistic = None,
    inputs: Literal["raw", "normalised"] = "raw",
    budget: Literal["raw", "normalised"] = "raw",
    output: Selector = None,
    outputs: Kind = "auto",
    mode: Mode = "eval",
    surrogate: Model | Sequence[Model] | None = None,
    seed: int = 0,
    limit: int | None = None,
    device: str | torch.device | None = None,
    describe_model: str | None = None,
    describe_data: str | None = None,
    classes: Sequence[str] = (),
    hashes: Mapping[str, str] | None = None,
    curve_attacks: Sequence[str] = ("random-sign",),
    evidence: Evidence | None = None,
    progress: Progress | None = None,
) -> Result:
    """Attack every example of a data set and return the record of what was found.

    Examples are streamed: any iterable of ``(x, y)`` batches, or two tensors. Every attack takes all examples, also
    those the model gets wrong untouched; attacks combine pointwise, the worst case for each example.

    Args:
        model: an nn.Module or any callable.
        data: batches ``(x, y)``, such as a DataLoader; y None takes the model's own predictions. Or a pair of tensors,
            or a torch Dataset of single examples.
        threat: as for `signstep.attack`, in raw input units.
        attacks: recipes by name, with options ("pgd:steps=50,restarts=10"), or attack objects.
        curve: True for FGSM at shares of eps from 1/8 to 2; a list of sizes; or False. All sizes share one gradient.
        target: for a targeted audit: "random", "least-likely" or "next".
        task: what the outputs mean, see `signstep.attack`.
        loss: the loss to climb, see `signstep.attack`.
        mean: see `signstep.attack`.
        std: see `signstep.attack`.
        inputs: "normalised" if the batches already are.
        budget: "normalised" measures eps in the model's coordinates; the record names it.
        output: where the scores are in what the model returns.
        outputs: "auto", "logits" or "probabilities".
        mode: "eval" or "keep".
        surrogate: take gradients from these models instead.
        seed: all randomness, together with each example's content.
        limit: stop after this many examples.
        device: move batches there; None is where the model's weights are.
        describe_model: for the record.
        describe_data: for the record.
        classes: names of the classes, for the record.
        hashes: SHA-256 of weights and data, for the record.
        curve_attacks: attacks of ``attacks`` to trace over the sizes of the curve beside FGSM; gradient attacks cost a
            run for each size, on the examples that no smaller size has fooled.
        evidence: collects the points that fooled the model.
        progress: called with the number of examples done after each batch.

    Returns:
        A `Result`: print it for the table; ``.clean_accuracy``, ``.robust_accuracy``, ``.attacks``, ``.save(path)``.
        When interrupted by Ctrl-C after the first batch, a result marked partial.

    Raises:
        InputError: the data is empty or does not fit; see `signstep.attack`.
    """
    subject = Subject.of(
        model,
        task=task,
        loss=loss,
        mean=mean,
        std=std,
        inputs=inputs,
        budget=budget,
        output=output,
        outputs=outputs,
        mode=mode,
        surrogate=surrogate,
    )
    if isinstance(target, Tensor):
        raise InputError("target is a tensor; an audit streams its data: pass 'random', 'least-likely' or 'next'")
    chosen = [(_name(spec), recipe(spec, oracle=subject.oracle)) for spec in attacks]
    if not chosen or len({name for name, _ in chosen}) < len(chosen):
        raise InputError(f"attacks={[name for name, _ in chosen]}; pass one or more different recipes")
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}; pass the number of examples to audit, at least 1")
    where = _device_of(model) if device is None else torch.device(device)
    was_training = isinstance(model, nn.Module) and model.training
    began = time.perf_counter()
    unknown = [name for name in curve_attacks if name not in dict(chosen)]
    if unknown and tuple(curve_attacks) != _NOISE:
        raise InputError(
            f"curve_attacks names {unknown}, which are not among the attacks {[name for name, _ in chosen]}"
        )
    traced = [(name, attack) for name, attack in chosen if name in curve_attacks and attack.name != "fgsm"]
    tally = _Tally([name for name, _ in chosen], _levels(curve, threat), [name for name, _ in traced])
    key = Key(seed)
    partial = False

    def attacked(part: Tree, labels: Tensor | None) -> None:
        here = _sliced(threat, tally.examples, tally.examples + rows(part), part)
        question = subject.ask(part, labels, here, target=target, key=key, random=tally.random)
        tally.random = question.problem.random
        _one_batch(question, chosen, traced, subject.oracle, key, tally, evidence)

    try:
        for x, y in _batches(data, limit):  # drawn outside: data may use the global generators
            with subject.opened():
                _fitting(
                    attacked,
                    tree_map(lambda part: part.to(where), x),
                    None if y is None else torch.as_tensor(y).to(where),
                    tally,
                )
            if progress is not None:
                progress(tally.examples)
    except KeyboardInterrupt:
        if tally.examples == 0:
            raise
        partial = True
    if tally.examples == 0:
        raise InputError(
            "data gave no batches; pass an iterable of (x, y) that is not exhausted (a list or a DataLoader)"
        )
    return tally.result(
        model=describe_model or type(model).__name__,
        data=describe_data or ("tensors" if isinstance(data, tuple) else type(data).__name__),
        attacks=chosen,
        terms={**_terms(threat, subject), "target": target, "seed": seed, "device": str(where)},
        notes=(*tally.notes, *_remarks(subject, was_training=was_training)),
        seconds=time.perf_counter() - began,
        partial=partial,
        classes=tuple(classes),
        hashes=dict(hashes or {}),
    )


def _terms(threat: Threat, subject: Subject) -> dict[str, Any]:
    """What the numbers mean, as plain values."""
    single = threat if isinstance(threat, ThreatModel) else None
    return {
        "threat": _text(threat),
        "norm": single.norm.name if single else "several inputs",
        "eps": single.label if single and single.eps is not None else "",
        "eps_value": _single(threat),
        "box_span": _box_span(threat),
        "input_space": subject.space.describe(),
        "mode": subject.mode,
        "gradients_from": "surrogate" if subject.surrogates else "the model",
    }


def _plain_terms(threat: ThreatModel | None) -> dict[str, Any] | None:
    """The threat in numbers; what is a tensor goes with the saved points."""
    if threat is None:
        return None
    terms = threat.terms()
    plain = {
        name: None if isinstance(part, Tensor) and part.ndim else part if part is None else float(part)
        for name, part in (("eps", terms.eps), ("low", terms.low), ("high", terms.high))
    }
    return {"kind": terms.kind, "axes": list(terms.axes), **plain, "grid": terms.grid}


def _remarks(subject: Subject, *, was_training: bool) -> list[str]:
    remarks = []
    if was_training and subject.mode == "eval":
        remarks.append("the model was in training mode; it was attacked in evaluation mode and put back")
    if subject.space.budget == "normalised":
        remarks.append("eps is measured in the model's normalised coordinates, by explicit choice")
    if subject.surrogates:
        remarks.append(
            "gradients came from surrogates: a transfer attack, which says little about white-box robustness"
        )
    return remarks


def _fitting(attacked: Callable[[Tree, Tensor | None], None], x: Tree, y: Tensor | None, tally: "_Tally") -> None:
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
    except _OUT_OF_MEMORY as error:
        tally.forget()
        if count == 1:
            raise InputError(
                "one example does not fit into memory; pass a smaller input, another device, or free memory there"
            ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tally.most = count // 2
        note = f"memory ran out at {count} examples at a time; went on with at most {tally.most}"
        tally.notes.append(note)
        _fitting(attacked, x, y, tally)


def _one_batch(
    question: Question,
    chosen: list[tuple[str, Attack]],
    traced: list[tuple[str, Attack]],
    oracle: Oracle | None,
    key: Key,
    tally: "_Tally",
    evidence: Evidence | None,
) -> None:
    for name, attack in chosen:
        began = time.perf_counter()
        outcome = question.run(attack, key.fold(attack.name))
        tally.add(name, outcome, time.perf_counter() - began)
    if tally.levels:
        ray = FgsmRay(question.problem, question.region, question.x, key, oracle)
        fooled = ray.curve(tally.levels)
        curves = {"fgsm": fooled, **{name: _trace(question, attack, tally.levels, key) for name, attack in traced}}
        tally.add_curves(curves, ray.smallest(tally.levels, fooled, question.clean.fooled))
    if evidence is not None:
        evidence.add(question, tally.outcomes(), tally.examples)
    tally.finish(question)


def _trace(question: Question, attack: Attack, levels: Sequence[float], key: Key) -> Tensor:
    """Whether each row is fooled at each level, (levels, R); what fools at a smaller size fools at a larger one."""
    fooled = question.clean.fooled.clone()
    rows_ = []
    for level in levels:
        index = (~fooled).nonzero().squeeze(1)
        if len(index):
            region = question.region.take(index)
            region = region.resized(torch.full_like(region.radius, level))
            found = attack(question.problem.take(index), region, take(question.x, index), key.fold(attack.name))
            fooled = fooled.index_copy(0, index, found.verdict.fooled)
        rows_.append(fooled)
    return torch.stack(rows_)


@dataclass
class _Sums:
    """Running totals of one attack."""

    verdicts: list[str] = field(default_factory=list)
    reached: int = 0
    already: int = 0
    right_after: int = 0
    distances: list[float] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    health: Tensor = field(default_factory=lambda: torch.zeros(6, dtype=torch.int64))
    unverified: int = 0
    batch: tuple[Outcome, float] | None = None


class _Tally:
    """Counts over the batches seen; keeps one letter and a few numbers for each example, no tensors of inputs."""

    def __init__(self, names: Sequence[str], levels: Sequence[float], traced: Sequence[str]) -> None:
        self.examples = 0
        self.random: bool | None = None
        self.most: int | None = None
        self.levels = tuple(levels)
        self.terms: dict[str, Any] = {}
        self.notes: list[str] = []
        self._sums = {name: _Sums() for name in names}
        self._clean: list[str] = []
        self._ids: list[str] = []
        self._labels: list[int] = []
        self._answers: dict[str, list[int]] = {}
        self._curves = {name: [0] * len(self.levels) for name in ("fgsm", *traced)}
        self._smallest: list[float | None] = []
        self._ray: tuple[dict[str, Tensor], Tensor] | None = None

    def add(self, name: str, outcome: Outcome, seconds: float) -> None:
        """One attack on the current batch; it counts once the batch is finished."""
        self._sums[name].batch = (outcome, seconds)

    def forget(self) -> None:
        """The current batch will be done anew."""
        for sums in self._sums.values():
            sums.batch = None
        self._ray = None

    def add_curves(self, fooled: dict[str, Tensor], smallest: Tensor) -> None:
        """The attacks at several sizes on the batch, (levels, R) each, and the smallest size on the FGSM ray."""
        self._ray = (fooled, smallest)

    def outcomes(self) -> dict[str, Outcome]:
        """The attacks on the current batch."""
        return {name: sums.batch[0] for name, sums in self._sums.items() if sums.batch is not None}

    def finish(self, question: Question) -> None:
        """Book the current batch; until then an interruption leaves the counts as they were."""
        problem, already = question.problem, question.clean.fooled
        wrong = already if question.wrong is None else question.wrong
        targeted = problem.goal == "targeted"
        classes = isinstance(problem.task, Multiclass)
        if classes:
            self._answers.setdefault("clean", []).extend(question.predicted.tolist())
            self._labels += [] if problem.aim.y is None else problem.aim.y.tolist()
        for name, sums in self._sums.items():
            assert sums.batch is not None
            outcome, seconds = sums.batch
            sums.forwards += int(outcome.forwards.sum())
            sums.backwards += int(outcome.backwards.sum())
            sums.seconds += seconds
            sums.health += torch.stack([part.sum() for part in outcome.health]).cpu()
            sums.unverified += int((~outcome.verified).sum())
            self.terms["tolerance"] = max(outcome.tolerance, self.terms.get("tolerance", 0.0))
            self.notes += [note for note in outcome.notes if note not in self.notes]
            if classes:
                self._answers.setdefault(name, []).extend(outcome.answer.tolist())
            hit = outcome.fooled
            sums.verdicts.append(_letters(hit, outcome.undetermined))
            newly = hit & ~already if targeted else hit & ~wrong
            sums.reached += int((hit & ~already).sum())
            sums.already += int(already.sum())
            sums.right_after += int((~hit & outcome.valid & outcome.verified).sum())
            distance = outcome.distance if isinstance(outcome.distance, Tensor) else _largest(outcome.distance)
            sums.distances += distance[newly].tolist()
            sums.batch = None
        self._clean.append("".join("w" if flag else "r" for flag in wrong.tolist()))
        self._ids += [f"{identity & (2**64 - 1):016x}" for identity in problem.ids.tolist()]
        if self._ray is not None:
            curves, smallest = self._ray
            for name, fooled in curves.items():
                for level, row in enumerate(fooled):
                    self._curves[name][level] += int((row & ~wrong).sum())
            self._smallest += [None if eps == float("inf") else eps for eps in smallest.tolist()]
            self._ray = None
        else:
            self._smallest += [None] * len(wrong)
        self.examples += len(wrong)
        self.terms |= {
            "task": problem.task.name,
            "goal": problem.goal,
            "labels": "predicted" if question.labels_predicted else "given",
            "loss": problem.loss,
            "random_model": problem.random,
            "outputs_form": question.form,
            "threat_terms": _plain_terms(question.threats.get("")),
            "classes": question.classes,
        }

    def result(
        self,
        *,
        model: str,
        data: str,
        attacks: list[tuple[str, Attack]],
        terms: dict[str, Any],
        notes: tuple[str, ...],
        seconds: float,
        partial: bool,
        classes: tuple[str, ...],
        hashes: dict[str, str],
    ) -> Result:
        """The record."""
        clean = "".join(self._clean)
        columns = {name: "".join(sums.verdicts) for name, sums in self._sums.items()}
        answers = {name: tuple(values) for name, values in self._answers.items()}
        labels = tuple(self._labels)
        per_example = Examples(tuple(self._ids), clean, columns, tuple(self._smallest), labels, answers)
        entries = tuple(self._entry(name, attack, clean) for name, attack in attacks)
        worst = worst_case(per_example, entries)
        return Result(
            model=model,
            data=data,
            examples=self.examples,
            clean_right=clean.count("r"),
            held=worst.count("h"),
            undetermined=worst.count("u"),
            attacks=entries,
            curves={
                name: tuple(CurvePoint(eps, count) for eps, count in zip(self.levels, counts, strict=True))
                for name, counts in self._curves.items()
                if counts
            },
            terms={**self.terms, **terms},
            notes=notes,
            versions={
                "signstep": VERSION,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            seconds=round(seconds, 3),
            partial=partial,
            per_example=per_example,
            classes=classes,
            hashes=hashes,
        )

    def _entry(self, name: str, attack: Attack, clean: str) -> AttackResult:
        sums = self._sums[name]
        verdicts = "".join(sums.verdicts)
        zero, nonfinite, underflow, coordinates, dead, gradients = sums.health.tolist()
        targeted = self.terms.get("goal") == "targeted"
        share = 1 / coordinates if coordinates else 0.0
        source = RECIPES[attack.name].source if attack.name in RECIPES else ""
        return AttackResult(
            name=name,
            fooled=_count(clean, verdicts, "f"),
            held=_count(clean, verdicts, "h"),
            undetermined=_count(clean, verdicts, "u"),
            reached=sums.reached if targeted else None,
            already=sums.already if targeted else None,
            right_after=None if targeted else sums.right_after,
            distance=quantile(sums.distances, 0.5),
            forwards=sums.forwards / max(1, self.examples),
            backwards=sums.backwards / max(1, self.examples),
            seconds=round(sums.seconds, 3),
            steps=attack.steps,
            gradients=gradients,
            dead_gradients=dead,
            zero=zero * share,
            nonfinite=nonfinite * share,
            underflow=underflow * share,
            unverified=sums.unverified,
            source=source,
        )


def _letters(fooled: Tensor, undetermined: Tensor) -> str:
    pairs = zip(fooled.tolist(), undetermined.tolist(), strict=True)
    return "".join("f" if hit else "u" if open_ else "h" for hit, open_ in pairs)


def _count(clean: str, verdicts: str, letter: str) -> int:
    return sum(1 for right, verdict in zip(clean, verdicts, strict=True) if right == "r" and verdict == letter)


def _largest(distance: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(distance.values())).amax(0)


def _batches(data: Data, limit: int | None) -> Iterator[tuple[Tree, Tensor | None]]:
    """Batches (x, y), at most ``limit`` examples of them."""
    seen = 0
    for number, batch in enumerate(_as_batches(data)):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            kind = type(batch).__name__ + (f" of length {len(batch)}" if isinstance(batch, (tuple, list)) else "")
            raise InputError(f"data gave a {kind} as batch {number}; each batch must be a pair (x, y), y may be None")
        x, y = batch
        if not isinstance(x, (Tensor, dict)):
            raise InputError(
                f"batch {number} has inputs of type {type(x).__name__}; pass tensors, or a dict of tensors"
            )
        if limit is not None and seen + rows(x) > limit:
            keep = limit - seen
            x, y = tree_map(lambda part, keep=keep: part[:keep], x), None if y is None else y[:keep]
        if rows(x):
            yield x, y
        seen += rows(x)
        if limit is not None and seen >= limit:
            return


def _as_batches(data: Data) -> Iterable[Any]:
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor):
        x, y = data
        if y is not None and len(y) != len(x):
            raise InputError(f"data has {len(x)} inputs and {len(y)} labels; pass one label for each input")
        starts = range(0, len(x), _ROWS)
        return ((x[start : start + _ROWS], None if y is None else y[start : start + _ROWS]) for start in starts)
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size=_ROWS)
    if isinstance(data, Tensor):
        raise InputError("data is one tensor; pass (x, y), with y=None to take the model's own predictions for labels")
    return data


def _levels(curve: bool | Sequence[float], threat: Threat) -> tuple[float, ...]:
    if isinstance(curve, bool):
        eps = _single(threat)
        if not curve or eps is None or eps == 0:
            return ()
        span = _box_span(threat)
        linf = isinstance(threat, ThreatModel) and threat.norm.name == "linf"
        shares = [share for share in _SHARES if not linf or span is None or share * eps <= span]
        return tuple(share * eps for share in shares)
    if not isinstance(threat, ThreatModel) and curve and any(part.eps is None for part in threat.values()):
        raise InputError("curve needs a size for every input, and some threat has eps=None; pass curve=False")
    levels = tuple(float(level) for level in curve)
    if not all(level > 0 for level in levels) or list(levels) != sorted(set(levels)):
        raise InputError(f"curve={list(levels)}; pass sizes above 0 in ascending order")
    return levels


def _sliced(threat: Threat, start: int, stop: int, x: Tree) -> Threat:
    if isinstance(threat, ThreatModel):
        return threat.rows(start, stop, x.ndim if isinstance(x, Tensor) else None)
    assert isinstance(x, dict)
    return {name: part.rows(start, stop, x[name].ndim if name in x else None) for name, part in threat.items()}


def _text(threat: Threat) -> str:
    if isinstance(threat, ThreatModel):
        return str(threat)
    return "; ".join(f"{name}: {part}" for name, part in threat.items())


def _single(threat: Threat) -> float | None:
    if not isinstance(threat, ThreatModel) or threat.eps is None:
        return None
    return float(threat.eps) if not isinstance(threat.eps, Tensor) or threat.eps.ndim == 0 else None


def _box_span(threat: Threat) -> float | None:
    if isinstance(threat, ThreatModel) and isinstance(threat.low, float) and isinstance(threat.high, float):
        return threat.high - threat.low
    return None


def _name(spec: str | Attack) -> str:
    return canonical(spec) if isinstance(spec, str) else spec.name


def _device_of(model: object) -> torch.device:
    if isinstance(model, nn.Module):
        for part in (*model.parameters(), *model.buffers()):
            return part.device
    return torch.device("cpu")
