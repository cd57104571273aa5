"""A small region that may show anything: a sticker, optimised over where it may lie."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstep.data.pools import Data, Pool, pools
from signstep.engine import arrays
from signstep.engine.counts import Count
from signstep.engine.keys import Key, content_ids
from signstep.engine.oracles import gradient_of, leaf_of
from signstep.engine.origin import contained
from signstep.engine.outputs import Asked
from signstep.engine.problem import ModelProblem, judge
from signstep.engine.tasks import ignored
from signstep.engine.threat import linf
from signstep.engine.tree import Tree, search_dtype, unit_l1
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.search import Search, refuse, search_of
from signstep.model.subject import Question, Subject
from signstep.physical.placement import Place, Placement
from signstep.physical.storage import count_of, load_kept, save_kept

_KIND = "patch"

# Images that a step should see, and that are judged at once.
_ENOUGH, _ROOM = 32, 256
_DECAY = 0.9  # of the memory of gradients
_APART = 0x1E3779B97F4A7C15


@dataclass(frozen=True, eq=False)
class Patch:
    """The values of a patch, where it may lie, and what it did.

    A draw is one example with the patch at one place, turned and lit once.

    Attributes:
        values: (C, h, w), in raw units.
        placement: where it lies, how it is turned and lit.
        target: the class it leads to; None away from the label.
        train: draws that fooled, of those of examples that it was learned from and that were right untouched. The
            places are fresh.
        heldout: likewise of examples that no step has seen; None where none were set aside.
        grey: what a grey patch of the same size does to those (to the first where none were set aside).
        noise: what a patch of random values does.
        seed: of all randomness.
    """

    values: Tensor
    placement: Placement
    target: int | None
    train: Count
    heldout: Count | None
    grey: Count
    noise: Count
    seed: int

    def apply(self, x: Tensor | arrays.Array, *, seed: int = 0) -> Tensor:
        """Images (R, C, H, W) in raw units with the patch on them, each at a place drawn from its content and the seed.

        Raises:
            InputError: the patch does not fit.
        """
        x = arrays.one_tensor(x, arrays.Home(dtype=self.values.dtype))
        ids = content_ids(x, (self.placement.low, self.placement.high))
        draws = Key(seed).fold("patch", "apply").draws(ids, x.device)
        return self.placement(self.values.to(x.device)[None], x, draws)

    def save(self, path: str | Path) -> None:
        """Write values and terms as safetensors; the file appears whole or not at all.

        Raises:
            LoadError: it cannot be written.
        """
        where = self.placement
        counts = {name: getattr(self, name) for name in ("train", "heldout", "grey", "noise")}
        terms = {
            "place": where.place if where.place == "random" else list(where.place),
            "degrees": where.degrees,
            "light": where.light,
            "low": where.low,
            "high": where.high,
            "target": self.target,
            "seed": self.seed,
            **{name: None if count is None else [count.hits, count.of] for name, count in counts.items()},
        }
        save_kept(path, _KIND, {"values": self.values}, terms)

    @classmethod
    def load(cls, path: str | Path) -> "Patch":
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing, damaged or something else.
        """
        return load_kept(path, _KIND, cls._of)

    @classmethod
    def _of(cls, tensors: Mapping[str, Tensor], terms: Mapping[str, Any]) -> "Patch":
        place: Place = "random" if terms["place"] == "random" else (terms["place"][0], terms["place"][1])
        where = Placement(place, terms["degrees"], terms["light"], terms["low"], terms["high"])
        counts = {name: count_of(terms[name]) for name in ("train", "grey", "noise")}
        values = tensors["values"]
        if values.ndim != 3 or not values.is_floating_point():
            raise ValueError(f"its values are {values.dtype} {tuple(values.shape)}, not (C, H, W)")
        return cls(
            values,
            where,
            None if terms["target"] is None else index(terms["target"]),
            heldout=count_of(terms["heldout"]) if terms["heldout"] else None,
            seed=index(terms["seed"]),
            **counts,
        )

    def __str__(self) -> str:
        size = " x ".join(map(str, self.values.shape[1:]))
        aim = "away from the label" if self.target is None else f"towards class {self.target}"
        lines = [f"a patch of {size} pixels, place {self.placement.place}, {aim}", f"  learned from  {self.train}"]
        if self.heldout is not None:
            lines.append(f"  held out      {self.heldout}")
        return "\n".join([*lines, f"  grey          {self.grey}", f"  random        {self.noise}"])


@contained
def patch(
    model: Model | Callee,
    data: Data,
    *,
    size: int | tuple[int, int],
    placement: Placement = Placement(),  # noqa: B008 - frozen
    target: int | None = None,
    steps: int = 200,
    step: float = 0.05,
    rows: int = 64,
    cap: float = 9.0,
    holdout: float | Data = 0.5,
    draws: int = 1,
    search: Search | None = None,
) -> Patch:
    """A patch that fools the model on as many images as it can, wherever it lies, however it is turned and lit.

    p := clip(p + alpha * sign(m), box), m = 0.9 * m + grad / |grad|_1, grad that of the sum of min(loss, cap) over a
    batch of images with p put on them at places drawn anew (Brown et al. 2017, arXiv:1712.09665, section 2). The paper
    does not name its optimiser, and draws scales and larger angles too; here alpha falls from ``step`` of the box to
    nothing. For one image, pass a batch of one with ``holdout=0`` and ``draws=100``.

    Args:
        model: an `ss.Model`, or a bare nn.Module or callable, of images (R, C, H, W).
        data: batches (x, y) that can be read again, or two tensors; y None takes the model's predictions.
        size: side in pixels, or (height, width).
        placement: where it lies, how it is turned and lit, and the box of images and patch.
        target: a class to lead to; images that have it are left out. None leads away from the label.
        steps: of the search.
        step: length of the first, as a share of the width of the box.
        rows: images of a step.
        cap: images whose loss is larger push no further.
        holdout: share of the images to judge by, chosen by content and seed; 0 for none; or other data.
        draws: fresh places for each image when it is judged.
        search: loss, surrogates, engine, seed: an `ss.Search`. Its ``eot`` is the draws of each image in a step; 1, the
            default, takes enough to make 32 images.

    Returns:
        A `Patch`: ``.values``, ``.apply(x)``, ``.save(path)``, ``.train``, ``.heldout``, ``.grey``, ``.noise``.

    Raises:
        InputError: inputs are not images, the patch does not fit, or an option makes no sense.
    """
    if steps < 1 or not step > 0 or draws < 1:
        raise InputError(
            Arg("steps", steps),
            Arg("step", step),
            Arg("draws", draws),
            remedy="pass steps and draws of at least 1, step above 0",
        )
    declared, search = Model.of(model), search_of(search)
    refuse(
        search,
        "patch",
        target="a patch leads all images to one class: pass target= to patch()",
        budget="the values of a patch are in raw units",
        gradient_path="a patch is learnt through what the model declares",
    )
    where = placement
    subject, key = Subject.of(declared, search), Key(search.seed).fold("patch")
    home, ignore, span = arrays.Home(declared.network), ignored(declared.task), (where.low, where.high)
    learn, judged = pools(data, holdout, rows=rows, home=home, key=key, without=target, span=span, ignore=ignore)
    run = _Run(subject, where, target, key, search.eot)
    with subject.opened():
        values = run.values(learn, size, steps, step, cap)
        by = learn if judged is None else judged
        grey = torch.full_like(values, (where.low + where.high) / 2)
        one = key.fold("noise").draws(torch.zeros(1, dtype=torch.int64, device="cpu"), values.device)
        noise = where.low + (where.high - where.low) * one.uniform("values", tuple(values.shape[1:])).to(values)
        return Patch(
            values[0].cpu(),
            where,
            target,
            train=run.count(learn, values, draws),
            heldout=None if judged is None else run.count(judged, values, draws),
            grey=run.count(by, grey, draws),
            noise=run.count(by, noise, draws),
            seed=search.seed,
        )


@dataclass(frozen=True)
class _Run:
    """Everything that a step and a verdict share; only while the subject is open."""

    subject: Subject
    placement: Placement
    target: int | None
    key: Key
    eot: int

    def values(self, pool: Pool, size: int | tuple[int, int], steps: int, step: float, cap: float) -> Tensor:
        """The values (1, C, h, w) after all steps."""
        low, high = self.placement.low, self.placement.high
        values: Tensor | None = None
        memory: Tensor | None = None
        done = 0
        while done < steps:
            before = done
            for x, y in pool:
                question = self.ask(x, y)
                if values is None:
                    values = self._start(question, size)
                    memory = torch.zeros_like(values)
                assert memory is not None
                shown = _Draws.of(
                    question, self.eot if self.eot > 1 else -(-_ENOUGH // len(x)), 0, self.subject.surrogates
                )
                scaled = _unit(self._push(shown, values, cap, self.key.fold("step", done)))
                memory = _DECAY * memory + scaled
                length = step * (high - low) * (1 - done / steps)
                values = (values + length * memory.sign()).clamp(low, high)
                done += 1
                if done == steps:
                    break
            if done == before:
                raise InputError(
                    Arg("data"), "has no images to learn from", remedy="pass at least one batch, or a smaller holdout"
                )
        assert values is not None
        return values

    def ask(self, x: Tensor, y: Tensor | None) -> Question:
        """The question about a batch, with the box alone for a threat."""
        aims = None if self.target is None else torch.full((len(x),), self.target, device=x.device, dtype=torch.int64)
        box = linf(None, box=(self.placement.low, self.placement.high))
        return self.subject.ask(x, y, box, target=aims, key=self.key)

    def count(self, pool: Pool, values: Tensor, draws: int) -> Count:
        """Draws that fooled, of those of examples that are right untouched; the places belong to no step."""
        total = Count(0, 0)
        for x, y in pool:
            question = self.ask(x, y)
            right = torch.ones_like(question.clean.fooled) if question.wrong is None else ~question.wrong
            at_once = max(1, _ROOM // len(x))
            for first in range(0, draws, at_once):
                many = _Draws.of(question, min(at_once, draws - first), first)
                with torch.no_grad():
                    shown = self._render(many, self.key.fold("judged"))(values)
                    assert isinstance(shown, Tensor)
                    fooled = judge(many.problem, shown, self.key.fold("judged", first)).fooled
                total += Count(int((fooled & right.repeat(many.times)).sum()), int(right.sum()) * many.times)
        return total

    def _start(self, question: Question, size: int | tuple[int, int]) -> Tensor:
        x = question.x
        assert isinstance(x, Tensor)
        tall, broad = (size, size) if isinstance(size, int) else size
        if min(tall, broad) < 1:
            raise InputError(Arg("size", size), remedy="pass a side of at least 1 pixel, or (height, width)")
        shape = (x.shape[1] if x.ndim == 4 else 1, tall, broad)
        self.placement.check(shape, x)
        grey = (self.placement.low + self.placement.high) / 2
        return torch.full((1, *shape), grey, dtype=search_dtype(x.dtype), device=x.device)

    def _render(self, many: "_Draws", key: Key) -> Callable[[Tree], Tree]:
        """From the values to the images that carry them."""
        draws = key.draws(many.ids, many.image.device)

        def render(values: Tree) -> Tree:
            assert isinstance(values, Tensor)
            return self.placement(values, many.image, draws)

        return render

    def _push(self, many: "_Draws", values: Tensor, cap: float, key: Key) -> Tensor:
        total = torch.zeros_like(values)
        for problem in many.sources:
            leaf = leaf_of(values)
            score = problem.through(self._render(many, key))(leaf, key)
            value = torch.where(score.loss <= cap, score.loss, 0.0).sum()
            gradient = gradient_of(value, leaf)
            assert isinstance(gradient, Tensor)
            found = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
            # Several surrogates count alike, however large their logits are.
            total += found if len(many.sources) == 1 else _unit(found)
        return total


@dataclass(frozen=True)
class _Draws:
    """Every image of a batch several times, each time with draws of its own."""

    problem: ModelProblem
    sources: tuple[ModelProblem, ...]
    image: Tensor
    ids: Tensor
    times: int

    @classmethod
    def of(cls, question: Question, times: int, first: int, others: Sequence[Asked] = ()) -> "_Draws":
        """Draws ``first`` to ``first + times``."""
        assert isinstance(question.x, Tensor)
        count = len(question.x)
        index = torch.arange(count, device=question.x.device, dtype=torch.int64).repeat(times)
        number = first + torch.arange(times, device=index.device, dtype=torch.int64).repeat_interleave(count)
        problem = question.problem.take(index)
        own = problem if question.twin is None else problem.by(question.twin)
        sources = tuple(problem.on(other) for other in others) or (own,)
        # Far apart, so that no image takes the draws of another; the sum wraps around.
        return cls(problem, sources, question.x[index], problem.ids + number * _APART, times)


def _unit(gradient: Tensor) -> Tensor:
    scaled = unit_l1(gradient)
    assert isinstance(scaled, Tensor)
    return scaled
