"""The points behind a result: what an audit can hand over so that others can score it again."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from signstep.engine.outcome import Outcome
from signstep.engine.tasks import Multiclass
from signstep.engine.tree import Tree, take
from signstep.errors import LoadError
from signstep.model.subject import Question
from signstep.model.victims.endpoint import HttpVictim


@dataclass
class Evidence:
    """Collects, for each example that was right and then fooled, the first attack's point that did it.

    Pass one as ``evidence`` of an `ss.Run`; no more than ``limit`` bytes of inputs are kept. Of a model with several
    inputs each is kept under its name, "x:image" and "x_adv:image"; those that the attack leaves alone as "x:" alone.

    Attributes:
        limit: bytes of inputs to keep; examples beyond it, and those of another shape than the first, are counted in
            ``dropped``.
        dropped: fooled examples that were not kept.
    """

    limit: int = 256 * 2**20
    dropped: int = 0
    _size: int = 0
    _parts: dict[str, list[Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts.get("row", ()))

    def add(self, question: Question, outcomes: Sequence[Outcome | None], first_row: int) -> None:
        """Keep the fooled examples of a batch; ``first_row`` is its place in the stream.

        ``outcomes`` has a place for each attack, None for one that was not run on the batch.
        """
        if question.wrong is None:
            return
        x = inputs_of(question.x)
        untouched = {f"x{name}": part for name, part in inputs_of(question.problem.frozen).items()}
        each = sum(2 * part[:1].nbytes for part in x.values()) + sum(part[:1].nbytes for part in untouched.values())
        left = ~question.wrong
        kept: dict[str, list[Tensor]] = {}
        size, dropped = self._size, self.dropped
        for number, outcome in enumerate(outcomes):
            if outcome is None:
                continue
            index = (left & outcome.fooled).nonzero().squeeze(1)
            left = left & ~outcome.fooled
            room = max(0, (self.limit - size) // max(1, each)) if self._fits(x) else 0
            dropped += max(0, len(index) - room)
            index = index[:room]
            if len(index) == 0:
                continue
            size += each * len(index)
            aim = question.problem.aim
            _keep(kept, "row", index.cpu() + first_row)
            _keep(kept, "id", question.problem.ids[index])
            _keep(kept, "attack", torch.full_like(index, number))
            for name, part in inputs_of(outcome.x).items():
                _keep(kept, f"x{name}", x[name][index])
                _keep(kept, f"x_adv{name}", part[index])
            for name, part in untouched.items():
                _keep(kept, name, part[index])
            _keep(kept, "answer", question.predicted[index])
            _keep(kept, "answer_adv", outcome.answer[index])
            if aim.y is not None:
                _keep(kept, "y", aim.y[index])
            if aim.target is not None:
                _keep(kept, "target", aim.target[index])
            _keep_confidence(kept, question, index, outcome.x)
            _keep_threat(kept, question, index)
        # All at once and last: an interruption or a lack of memory on the way leaves what was kept before.
        self._size, self.dropped = size, dropped
        for name, parts in kept.items():
            self._parts.setdefault(name, []).extend(parts)

    def take_over(self, points: Mapping[str, Tensor], dropped: int) -> int:
        """Keep points that were kept elsewhere, from the first on, as many as there is room for; how many they are.

        Args:
            points: tensors by name, rows aligned, as `tensors` gives them.
            dropped: points that were not kept there.
        """
        self.dropped += dropped
        if not points:
            return 0
        x = {name.removeprefix("x"): part for name, part in points.items() if name.startswith("x_adv")}
        x = {name.removeprefix("_adv"): part for name, part in x.items()}
        each = sum(part[:1].nbytes for name, part in points.items() if name.startswith("x"))
        whole = len(points["row"])
        room = max(0, (self.limit - self._size) // max(1, each)) if self._fits(x) else 0
        count = min(room, whole)
        self.dropped += whole - count
        self._size += each * count
        for name, part in points.items() if count else ():
            self._parts.setdefault(name, []).append(part[:count])
        return count

    def _fits(self, x: Mapping[str, Tensor]) -> bool:
        """Whether rows of this shape can lie beside what is kept."""
        return all(part.shape[1:] == self._parts[f"x{name}"][0].shape[1:] for name, part in x.items() if self._parts)

    def tensors(self) -> dict[str, Tensor]:
        """Everything kept, one tensor for each name, rows aligned."""
        return {name: torch.cat(parts).contiguous() for name, parts in self._parts.items()}

    def rows(self) -> list[int]:
        """Of what is kept, the places in the stream."""
        return [row for part in self._parts.get("row", ()) for row in part.tolist()]

    def at(self, place: int) -> dict[str, Tensor]:
        """One of the kept points: tensors of one row."""
        found: dict[str, Tensor] = {}
        for name, parts in self._parts.items():
            left = place
            for part in parts:
                if left < len(part):
                    found[name] = part[left : left + 1]
                    break
                left -= len(part)
        return found

    def save(self, path: str | Path) -> None:
        """Write the tensors as safetensors; the file appears whole or not at all.

        Raises:
            LoadError: the folder cannot be written.
        """
        write_points(self.tensors(), path)

    @staticmethod
    def load(path: str | Path) -> dict[str, Tensor]:
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing or damaged.
        """
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise LoadError(f"{path} cannot be read: {error}", remedy="pass the points of a report") from error


def write_points(points: Mapping[str, Tensor], path: str | Path) -> None:
    """Write tensors as safetensors; the file appears whole or not at all.

    Raises:
        LoadError: the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file(dict(points), temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise LoadError(f"{path} cannot be written ({_reason(error)})", remedy="pass another folder") from error


def _reason(error: Exception) -> str:
    """What the system says; safetensors passes on its number, in a sentence with several colons."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(number[1])) if number else str(error)


def inputs_of(tree: Tree) -> dict[str, Tensor]:
    """The inputs by the ends of their names: ":image", ":text", or "" for the only one."""
    if isinstance(tree, Tensor):
        return {"": tree}
    return {f":{name}": part for name, part in tree.items() if isinstance(part, Tensor)}


def _keep_confidence(kept: dict[str, list[Tensor]], question: Question, index: Tensor, x_adv: Tree) -> None:
    """The probability of each answer, for classes that have scores; not of an endpoint, where each answer may cost."""
    task, problem = question.problem.task, question.problem.take(index)
    asked = isinstance(getattr(problem.predictor, "model", None), HttpVictim)
    if asked or not isinstance(task, Multiclass) or question.form == "labels":
        return
    for name, x in (("confidence", take(question.x, index)), ("confidence_adv", take(x_adv, index))):
        with torch.no_grad():
            _keep(kept, name, task.logits(problem.ask(x)).softmax(1).amax(1))


def _keep_threat(kept: dict[str, list[Tensor]], question: Question, index: Tensor) -> None:
    """What a record of plain numbers cannot hold: a radius for each example, a mask, bounds for each feature."""
    for end, x in inputs_of(question.x).items():
        threat = question.threats[end[1:]]
        for name in ("eps", "low", "high", "mask"):
            part = getattr(threat, name)
            if not isinstance(part, Tensor) or part.ndim == 0:
                continue
            part = part.to(index.device)
            if name == "eps" or (part.ndim == x.ndim and len(part) == len(x)):
                _keep(kept, name + end, part[index])
            else:
                shaped = part if part.ndim == x.ndim else part.reshape(*([1] * (x.ndim - part.ndim)), *part.shape)
                _keep(kept, name + end, shaped.expand(len(index), *shaped.shape[1:]))


def _keep(kept: dict[str, list[Tensor]], name: str, part: Tensor) -> None:
    kept.setdefault(name, []).append(part.detach().cpu())
