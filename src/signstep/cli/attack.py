"""``signstep attack``: craft attacked inputs, save them, and score what lies on disk."""

import io
import json
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor

from signstep.cli import options as o
from signstep.cli.app import app
from signstep.cli.job import job_of, progress, say, sized, writable
from signstep.core.files import write_whole
from signstep.core.keys import Key
from signstep.core.problem import judge
from signstep.core.recipes import recipe
from signstep.core.subject import Question, Subject
from signstep.core.threat import ThreatModel
from signstep.errors import InputError
from signstep.export import read_png, write_png

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
    split: o.Split = None,
    resize: o.Resize = None,
    limit: o.Limit = None,
    batch_size: o.BatchSize = "auto",
    threat: o.ThreatText = None,
    box: o.BoxText = None,
    grid: o.Grid = None,
    recipe_: Annotated[str, typer.Option("--recipe", help="One recipe, such as fgsm or pgd:steps=50.")] = "fgsm",
    target: o.Target = None,
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
    quiet = Console(stderr=True)
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
        trust=trust,
    )
    where = o.device_of(device)
    terms = o.threat_of(threat or job.threat, box, grid, job.data.bounds)
    if kind == "png" and not (isinstance(terms.low, float) and isinstance(terms.high, float)):
        raise InputError(
            f"--format png needs a box with two ends, the box is {terms.box}; pass --box LOW,HIGH or --format npz"
        )
    folder = writable(out, marks=(_MARK,))
    say(quiet, *job.opening)
    subject = Subject.of(
        job.model.to(where),
        task=o.task_of(task, tolerance),
        loss=loss,
        mean=o.numbers(mean, "mean"),
        std=o.numbers(std, "std"),
        inputs=cast("o.Side", inputs),
        output=o.output_of(output),
        outputs=cast("Literal['auto', 'logits', 'probabilities']", outputs),
        mode=cast("Literal['eval', 'keep']", mode),
    )
    chosen, key = recipe(recipe_), Key(seed)
    book = _Book(folder, kind, terms)
    stopped = False
    try:
        with progress(quiet, job.data.len_hint, "attacking") as advance:
            for x, y in sized(job, batch_size):
                with subject.opened():
                    question = subject.ask(
                        x.to(where),
                        None if predicted_labels else y.to(where),
                        terms,
                        target=cast("Literal['random', 'least-likely', 'next'] | None", target),
                        key=key,
                        attack=chosen,
                    )
                    outcome = question.run(chosen, key.fold(chosen.name))
                    assert isinstance(outcome.x, Tensor)
                    book.add(question, outcome.x, outcome.answer, outcome.fooled)
                advance(book.rows)
    except KeyboardInterrupt:
        stopped = True
    book.close()
    typer.echo((f"PARTIAL (interrupted after {book.rows} inputs): " if stopped else "") + book.summary())
    say(quiet, f"written: {folder}")
    if stopped:
        raise typer.Exit(130)


# Written into the folder, so that a later run knows its own files from others.
_MARK = "attacked.json"


class _Book:
    """What was crafted, what lies on disk, and what the model says to each."""

    def __init__(self, folder: Path, kind: str, terms: ThreatModel) -> None:
        self.folder, self.kind, self.terms = folder, kind, terms
        self.rows = self.already = self.found = self.on_disk = self.outside = 0
        self._on_grid = True
        self._kept: dict[str, list[np.ndarray]] = {}
        for old in folder.glob("[0-9]*_to_*.png") if (folder / _MARK).exists() else ():
            old.unlink()
        if (folder / _MARK).exists():
            (folder / "attacked.npz").unlink(missing_ok=True)
        write_whole(folder / _MARK, "{}\n")

    def add(self, question: Question, x: Tensor, answer: Tensor, fooled: Tensor) -> None:
        """Save a batch and score it again from the files."""
        already = question.clean.fooled
        self.already += int(already.sum())
        self.found += int((fooled & ~already).sum())
        if self.kind == "png":
            self._png(question, x, answer)
        else:
            parts = {"x": x, "x_clean": question.x, "answer": answer, "fooled": fooled, "y": question.problem.aim.y}
            for name, part in parts.items():
                if isinstance(part, Tensor):
                    self._kept.setdefault(name, []).append(part.cpu().numpy())
            self.on_disk = self.found
        self.rows += len(x)

    def close(self) -> None:
        """Write what was gathered."""
        if self.kind == "npz" and self._kept:
            buffer = io.BytesIO()
            np.savez(buffer, **{name: np.concatenate(parts) for name, parts in self._kept.items()})  # type: ignore[arg-type]
            write_whole(self.folder / "attacked.npz", buffer.getvalue())
        figures = {"inputs": self.rows, "failed_untouched": self.already, "fooled": self.found, "on_disk": self.on_disk}
        write_whole(self.folder / _MARK, json.dumps({**figures, "threat": str(self.terms)}, indent=1) + "\n")

    def summary(self) -> str:
        """Both success figures, in words."""
        able = self.rows - self.already
        lines = [f"{self.found} of {able} inputs that did not fail by themselves now do ({self.rows} inputs in all)."]
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

    def _png(self, question: Question, x: Tensor, answer: Tensor) -> None:
        low, high = self.terms.low, self.terms.high
        assert isinstance(low, float)
        assert isinstance(high, float)
        said = answer.tolist() if answer.ndim == 1 else ["x"] * len(answer)
        before = question.predicted.tolist() if question.predicted.ndim == 1 else ["x"] * len(answer)
        assert isinstance(question.x, Tensor)
        levels = (question.x.double() - low) * (255 / (high - low))
        self._on_grid &= bool(((levels - levels.round()).abs() < 1e-3).all())
        paths = [
            self.folder / f"{self.rows + number:06d}_{old}_to_{new}.png"
            for number, (old, new) in enumerate(zip(before, said, strict=True))
        ]
        write_png(x, paths, low=low, high=high)
        again = read_png(paths, low=low, high=high).to(x)
        with torch.no_grad():
            fooled = judge(question.problem, again, Key(0).fold("disk")).fooled
        inside = question.checked(again)[""].ok
        self.on_disk += int((fooled & ~question.clean.fooled).sum())
        self.outside += int((~inside).sum())
