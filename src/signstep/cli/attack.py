"""``signstep attack``: craft attacked inputs, save them, and score what lies on disk."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from signstep.attacks.recipes import recipe as find_recipe
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.first import look_first
from signstep.cli.groups import (
    BatchOptions,
    DataOptions,
    EndpointOptions,
    MachineOptions,
    ModelOptions,
    SearchOptions,
    ThreatOptions,
    request_of,
    search_of,
    spread,
)
from signstep.cli.requests import shown_once, spent_by, spent_of
from signstep.cli.terminal import aside, say, told
from signstep.cli.work import output_folder, progress
from signstep.domains import IMAGES, Case
from signstep.engine.attack import Attack
from signstep.engine.keys import Key
from signstep.engine.outcome import Outcome
from signstep.engine.problem import judge
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError, VictimError
from signstep.export import read_png, write_png
from signstep.io.files import write_whole
from signstep.io.folders import replaced
from signstep.messages import Arg, Blank
from signstep.model.subject import Question, Subject

_HELP = """Craft attacked inputs for the given data and save them.

Images are saved as PNG, read back and scored again: attacks that die on rounding to 8 bits are counted. With --grid 255
they stay on the 8-bit grid, so that what is saved is what was found. JPEG is refused: it changes every pixel.

Examples:

  signstep attack --model nets:net --weights net.safetensors --data photos/ --threat linf:8/255 --grid 255

  signstep attack --model nets:net --data test.npz --threat l2:0.5 --recipe pgd:steps=50 --format npz
"""


@app.command(short_help="Craft attacked inputs, save them, score the files.", help=_HELP)
@spread
def attack(
    model: ModelOptions,
    endpoint: EndpointOptions,
    data: DataOptions,
    batch: BatchOptions,
    threat: ThreatOptions,
    search: SearchOptions,
    machine: MachineOptions,
    recipe_: Annotated[str, typer.Option("--recipe", help="One recipe, such as fgsm or pgd:steps=50.")] = "fgsm",
    goal: Annotated[
        str, typer.Option(help="untargeted, or towards a class: random, least-likely, next, a class's name or number.")
    ] = "untargeted",
    gradient_path: o.GradientPath = "aware",
    format_: Annotated[str, typer.Option("--format", help="png (images), or npz (any inputs, exact).")] = "png",
    out: Annotated[Path, typer.Option(help="Folder for the attacked inputs.")] = Path("signstep-attacked"),
) -> None:
    """Craft and save."""
    kind = _format(format_)
    where, quiet = machine.ready(), aside()
    rule = o.rule_of(goal) if goal in o.GOALS else None
    request = request_of(model, endpoint, data, batch, threat)
    look_first(request, attacks=[recipe_], search=search, out=(out, (_MARK,)))
    asked = search_of(search, rule=rule, reading=model, path=gradient_path)
    chosen, key = find_recipe(recipe_), Key(asked.seed)
    case = IMAGES.case(replace(request, search=asked))
    terms = case.threat
    assert isinstance(terms, ThreatModel)
    if kind == "png" and not (isinstance(terms.low, float) and isinstance(terms.high, float)):
        raise InputError(
            Arg("format", "png"),
            f"needs a box with two ends, the box is {terms.box}",
            remedy=("pass", Arg("box", Blank("low", "high")), "or", Arg("format", "npz")),
        )
    single = None if goal in o.GOALS else o.class_of(goal, case.model.classes)
    subject = Subject.of(case.model.to(where), asked)
    chosen = find_recipe(recipe_, oracle=subject.oracle)
    if endpoint.dry_run:
        shown_once([case.model], case.batches)
        raise typer.Exit
    subject.refuse(chosen)
    job = _Job(case, subject, terms, chosen, key, rule, single)
    with output_folder(out, marks=(_MARK,)) as folder, replaced(folder, _ours) as new:
        say(quiet, *case.said)
        book = _Book(new, kind, terms)
        with progress(quiet, case.total, "attacking") as advance:
            stopped = job.done(book, where, advance)
        book.close(spent_of(case.model.network))
    told((f"PARTIAL ({stopped}): " if stopped else "") + book.summary())
    sent = spent_by(case.model.network)
    say(quiet, *(() if sent is None else (f"sent: {sent}",)), f"written: {folder}")
    if stopped:
        raise typer.Exit(130)


@dataclass(frozen=True)
class _Job:
    """What is to be crafted of each batch."""

    case: Case
    subject: Subject
    terms: ThreatModel
    attack: Attack
    key: Key
    rule: o.Rule | None
    single: int | None

    def done(self, book: "_Book", where: torch.device, advance: Callable[[int], None]) -> str:
        """Go through the batches; returns why that ended before its time, or nothing.

        Raises:
            VictimError: an endpoint did not answer to begin with.
        """
        try:
            for x, y in self.case.batches:
                assert isinstance(x, Tensor)
                kept = self._kept(x.to(where), y)
                if len(kept):
                    labels = None if y is None else y[kept].to(where)
                    with self.subject.opened():
                        book.add(*self._crafted(x[kept].to(where), labels), kept.tolist())
                book.seen(len(x), len(x) - len(kept))
                advance(book.rows)
                if book.ended:
                    return f"ended after {book.rows} inputs: {book.ended}"
        except KeyboardInterrupt:
            return f"interrupted after {book.rows} inputs"
        except VictimError as error:  # before the attack on a batch: those before it stay
            if getattr(self.case.model.network, "interrupted", False):
                return f"interrupted after {book.rows} inputs"
            if not book.rows:
                raise
            return f"ended after {book.rows} inputs: {error}"
        return ""

    def _crafted(self, x: Tensor, y: Tensor | None) -> tuple[Question, Outcome]:
        single = None if self.single is None else torch.full((len(x),), self.single, dtype=torch.int64, device=x.device)
        question = self.subject.ask(
            x, y, self.terms, target=self.rule if single is None else single, key=self.key, attack=self.attack
        )
        return question, question.run(self.attack, self.key.fold(self.attack.name))

    def _kept(self, x: Tensor, y: Tensor | None) -> Tensor:
        """An example of the class that is led to has nowhere to go: it is left out, and counted."""
        own = _answers(self.subject, x, self.terms, self.key) if self.single is not None and y is None else y
        if self.single is None or own is None:
            return torch.arange(len(x), dtype=torch.int64, device="cpu")
        return (own.cpu() != self.single).nonzero().squeeze(1)


def _answers(subject: Subject, x: Tensor, threat: ThreatModel, key: Key) -> Tensor:
    """What the model takes untouched inputs for, (R,)."""
    with subject.opened():
        return subject.ask(x, None, threat, key=key).predicted


def _format(text: str) -> str:
    """png or npz.

    Raises:
        InputError: neither.
    """
    kind = text.lower().lstrip(".")
    if kind in ("jpg", "jpeg"):
        raise InputError(
            Arg("format", text),
            ": JPEG changes every pixel and most attacks die of it",
            remedy="pass png, or npz to keep floats",
        )
    if kind not in ("png", "npz"):
        raise InputError(Arg("format", text), "is not known", remedy="pass png or npz")
    return kind


# Written into the folder, so that a later run knows its own files from others.
_MARK = "attacked.json"


def _ours(folder: Path) -> Iterator[Path]:
    """What an earlier run left in a folder."""
    if (folder / _MARK).exists():
        yield from folder.glob("[0-9]*_to_*.png")
        yield from (folder / name for name in (_MARK, "attacked.npz") if (folder / name).is_file())


class _Book:
    """What was crafted, what lies on disk, and what the model says to each."""

    def __init__(self, folder: Path, kind: str, terms: ThreatModel) -> None:
        self.folder, self.kind, self.terms = folder, kind, terms
        self.rows = self.already = self.found = self.on_disk = self.outside = self.left_out = self.undetermined = 0
        self.ended = ""
        self._on_grid = True
        self._kept: dict[str, list[np.ndarray]] = {}

    def add(self, question: Question, outcome: Outcome, places: Sequence[int]) -> None:
        """Save a batch and score it again from the files; ``places`` are its rows among the inputs read with it."""
        x, answer, fooled, already = outcome.x, outcome.answer, outcome.fooled, question.clean.fooled
        assert isinstance(x, Tensor)
        self.ended = outcome.ended or self.ended
        self.undetermined += int((outcome.undetermined & ~already).sum())
        self.already += int(already.sum())
        self.found += int((fooled & ~already).sum())
        if self.kind == "png":
            self._png(question, outcome, places)
        else:
            parts = {"x": x, "x_clean": question.x, "answer": answer, "fooled": fooled, "y": question.problem.aim.y}
            for name, part in parts.items():
                if isinstance(part, Tensor):
                    self._kept.setdefault(name, []).append(part.cpu().numpy())
            self.on_disk = self.found

    def seen(self, count: int, left_out: int) -> None:
        """So many more inputs were read, and so many of them left out."""
        self.rows += count
        self.left_out += left_out

    def close(self, requests: dict[str, Any] | None) -> None:
        """Write what was gathered, and what an endpoint was asked."""
        if self.kind == "npz" and self._kept:
            buffer = io.BytesIO()
            np.savez(buffer, **{name: np.concatenate(parts) for name, parts in self._kept.items()})  # type: ignore[arg-type]
            write_whole(self.folder / "attacked.npz", buffer.getvalue())
        figures = {
            "inputs": self.rows,
            "left_out": self.left_out,
            "failed_untouched": self.already,
            "fooled": self.found,
            "on_disk": self.on_disk,
            "undetermined": self.undetermined,
            **({} if requests is None else {"requests": requests}),
        }
        write_whole(self.folder / _MARK, json.dumps({**figures, "threat": str(self.terms)}, indent=1) + "\n")

    def summary(self) -> str:
        """Both success figures, in words."""
        able = self.rows - self.left_out - self.already
        lines = [f"{self.found} of {able} inputs that did not fail by themselves now do ({self.rows} inputs in all)."]
        if self.undetermined:
            lines.append(f"{self.undetermined} are undetermined: the attack could not find out about them.")
        if self.left_out:
            lines.append(f"{self.left_out} were left out: their label is the goal.")
        if self.kind == "png":
            lines.append(f"Written to PNG and read back: {self.on_disk} of {able}.")
            if self.on_disk < self.found:
                lines.append(
                    f"{self.found - self.on_disk} healed by rounding to 8 bits; --grid 255 attacks on the grid."
                )
            if self.outside:
                lines.append(
                    f"{self.outside} files lie outside the threat model after rounding; --grid 255 keeps them inside."
                )
        return "\n".join(lines)

    def _png(self, question: Question, outcome: Outcome, places: Sequence[int]) -> None:
        x, answer = outcome.x, outcome.answer
        assert isinstance(x, Tensor)
        low, high = self.terms.low, self.terms.high
        assert isinstance(low, float)
        assert isinstance(high, float)
        said = answer.tolist() if answer.ndim == 1 else ["x"] * len(answer)
        before = question.predicted.tolist() if question.predicted.ndim == 1 else ["x"] * len(answer)
        assert isinstance(question.x, Tensor)
        levels = (question.x.double() - low) * (255 / (high - low))
        self._on_grid &= bool(((levels - levels.round()).abs() < 1e-3).all())
        paths = [
            self.folder / f"{self.rows + place:06d}_{old}_to_{new}.png"
            for place, old, new in zip(places, before, said, strict=True)
        ]
        write_png(x, paths, low=low, high=high)
        again = read_png(paths, low=low, high=high).to(x)
        if getattr(question.problem.predictor.model, "levels", None) and torch.equal(again, x):
            fooled = outcome.fooled  # the file is what the endpoint was sent, and each answer may cost
        else:
            with torch.no_grad():
                fooled = judge(question.problem, again, Key(0).fold("disk")).fooled
        inside = question.checked(again)[""].ok
        self.on_disk += int((fooled & ~question.clean.fooled).sum())
        self.outside += int((~inside).sum())
