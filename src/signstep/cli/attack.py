"""``signstep attack``: craft attacked inputs, save them, and score what lies on disk."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
import torch
import typer
from torch import Tensor

from signstep.attacks.recipes import recipe
from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.job import check_classes, job_of, output_folder, progress, sized
from signstep.cli.terminal import aside, say, told
from signstep.engine.keys import Key
from signstep.engine.problem import judge
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.export import read_png, write_png
from signstep.io.files import write_whole
from signstep.io.folders import replaced
from signstep.model.subject import Question, Subject
from signstep.model.twin import Engine

_HELP = """Craft attacked inputs for the given data and save them.

Images are saved as PNG, read back and scored again: attacks that die on rounding to 8 bits are counted. With --grid 255
they stay on the 8-bit grid, so that what is saved is what was found. JPEG is refused: it changes every pixel.

Examples:

  signstep attack --model nets:net --weights net.safetensors --data photos/ --threat linf:8/255 --grid 255

  signstep attack --model nets:net --data test.npz --threat l2:0.5 --recipe pgd:steps=50 --format npz
"""


@app.command(help=_HELP)
def attack(
    model: o.Model = None,
    weights: o.Weights = None,
    model_arg: o.ModelArg = None,
    trust: o.Trust = False,
    data: o.Data = None,
    label_column: o.LabelColumn = None,
    classes: o.Classes = None,
    skip_bad: o.SkipBad = False,
    ignore_label: o.IgnoreLabel = None,
    max_pixels: o.MaxPixels = None,
    split: o.Split = None,
    resize: o.Resize = None,
    limit: o.Limit = None,
    batch_size: o.BatchSize = "auto",
    threat: o.ThreatText = None,
    box: o.BoxText = None,
    grid: o.Grid = None,
    recipe_: Annotated[str, typer.Option("--recipe", help="One recipe, such as fgsm or pgd:steps=50.")] = "fgsm",
    goal: Annotated[
        str, typer.Option(help="untargeted, or towards a class: random, least-likely, next, a class's name or number.")
    ] = "untargeted",
    predicted_labels: o.PredictedLabels = False,
    task: o.TaskText = "auto",
    tolerance: o.Tolerance = None,
    loss: o.Loss = None,
    mean: o.Mean = None,
    std: o.Std = None,
    inputs: o.Inputs = "raw",
    output: o.Output = None,
    outputs: o.Outputs = "auto",
    mode: o.Mode = "eval",
    engine: o.EngineName = "exact",
    eot: o.Eot = 1,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    format_: Annotated[str, typer.Option("--format", help="png (images), or npz (any inputs, exact).")] = "png",
    out: Annotated[Path, typer.Option(help="Folder for the attacked inputs.")] = Path("signstep-attacked"),
) -> None:
    """Craft and save."""
    kind = format_.lower().lstrip(".")
    if kind in ("jpg", "jpeg"):
        raise InputError(
            "--format jpg: JPEG changes every pixel and most attacks die of it; pass png, or npz to keep floats"
        )
    if kind not in ("png", "npz"):
        raise InputError(f"--format {format_!r} is not known; pass png or npz")
    if threads is not None:
        torch.set_num_threads(threads)
    quiet = aside()
    job = job_of(
        model,
        weights,
        model_arg,
        data,
        split,
        resize,
        limit,
        batch_size,
        real=task == "regression",
        keep_mode=mode == "keep",
        label_column=label_column,
        classes=classes,
        skip_bad=skip_bad,
        ignore_label=ignore_label,
        max_pixels=max_pixels,
        trust=trust,
    )
    where = o.device_of(device)
    terms = o.threat_of(threat or job.threat, box, grid, job.data.bounds)
    if kind == "png" and not (isinstance(terms.low, float) and isinstance(terms.high, float)):
        raise InputError(
            f"--format png needs a box with two ends, the box is {terms.box}; pass --box LOW,HIGH or --format npz"
        )
    rule = o.rule_of(goal) if goal in o.GOALS else None
    single = None if goal in o.GOALS else o.class_of(goal, job.data.classes or ())
    subject = Subject.of(
        job.model.to(where),
        task=o.task_of(task, tolerance, ignore_label),
        loss=loss,
        mean=o.numbers(mean, "mean"),
        std=o.numbers(std, "std"),
        inputs=cast("o.Side", inputs),
        output=o.output_of(output),
        outputs=cast("Literal['auto', 'logits', 'probabilities']", outputs),
        mode=cast("Literal['eval', 'keep']", mode),
        engine=cast("Engine", engine),
        eot=eot,
    )
    chosen, key = recipe(recipe_), Key(seed)
    stopped = False
    with output_folder(out, marks=(_MARK,)) as folder, replaced(folder, _ours) as new:
        if not predicted_labels:
            check_classes(job, task, output)
        say(quiet, *job.opening)
        book = _Book(new, kind, terms)
        try:
            with progress(quiet, job.data.len_hint, "attacking") as advance:
                for x, y in sized(job, batch_size):
                    # An example of the class that is led to has nowhere to go: it is left out, and counted.
                    kept = (
                        torch.arange(len(x), dtype=torch.int64, device="cpu")
                        if single is None
                        else (y != single).nonzero().squeeze(1)
                    )
                    if len(kept):
                        with subject.opened():
                            question = subject.ask(
                                x[kept].to(where),
                                None if predicted_labels else y[kept].to(where),
                                terms,
                                target=rule if single is None else torch.full_like(y[kept], single).to(where),
                                key=key,
                                attack=chosen,
                            )
                            outcome = question.run(chosen, key.fold(chosen.name))
                            assert isinstance(outcome.x, Tensor)
                            book.add(question, outcome.x, outcome.answer, outcome.fooled, kept.tolist())
                    book.seen(len(x), len(x) - len(kept))
                    advance(book.rows)
        except KeyboardInterrupt:
            stopped = True
        book.close()
    told((f"PARTIAL (interrupted after {book.rows} inputs): " if stopped else "") + book.summary())
    say(quiet, f"written: {folder}")
    if stopped:
        raise typer.Exit(130)


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
        self.rows = self.already = self.found = self.on_disk = self.outside = self.left_out = 0
        self._on_grid = True
        self._kept: dict[str, list[np.ndarray]] = {}

    def add(self, question: Question, x: Tensor, answer: Tensor, fooled: Tensor, places: Sequence[int]) -> None:
        """Save a batch and score it again from the files; ``places`` are its rows among the inputs read with it."""
        already = question.clean.fooled
        self.already += int(already.sum())
        self.found += int((fooled & ~already).sum())
        if self.kind == "png":
            self._png(question, x, answer, places)
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

    def close(self) -> None:
        """Write what was gathered."""
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
        }
        write_whole(self.folder / _MARK, json.dumps({**figures, "threat": str(self.terms)}, indent=1) + "\n")

    def summary(self) -> str:
        """Both success figures, in words."""
        able = self.rows - self.left_out - self.already
        lines = [f"{self.found} of {able} inputs that did not fail by themselves now do ({self.rows} inputs in all)."]
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

    def _png(self, question: Question, x: Tensor, answer: Tensor, places: Sequence[int]) -> None:
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
        with torch.no_grad():
            fooled = judge(question.problem, again, Key(0).fold("disk")).fooled
        inside = question.checked(again)[""].ok
        self.on_disk += int((fooled & ~question.clean.fooled).sum())
        self.outside += int((~inside).sum())
