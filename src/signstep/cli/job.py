"""From options to a model and its data; without either, the demonstration."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from signstep.auditing.memory import planned_rows
from signstep.cli.options import output_of, size_of
from signstep.cli.terminal import bars, noted
from signstep.data import DataSource, open_data
from signstep.demo import demo
from signstep.engine.untouched import untouched
from signstep.errors import InputError
from signstep.io.files import is_own
from signstep.io.folders import sweep
from signstep.io.locks import alone_in
from signstep.model.opening import load_model, parse_args
from signstep.model.opening.sources import code_hash, source_files
from signstep.model.predictor import Predictor
from signstep.networks.small import digits_cnn
from signstep.plain import one_line

_DEFAULT = 256


@dataclass(frozen=True)
class Job:
    """What to work on, what to say about it first, and what the demonstration brings along."""

    model: nn.Module
    data: DataSource
    description: str
    opening: tuple[str, ...]
    hashes: dict[str, str]
    threat: str | None = None
    curve: tuple[float, ...] | None = None


def job_of(
    model: str | None,
    weights: Path | None,
    model_arg: Sequence[str] | None,
    data: str | None,
    split: str | None,
    resize: str | None,
    limit: int | None,
    batch_size: str,
    *,
    real: bool = False,
    keep_mode: bool = False,
    label_column: str | None = None,
    classes: Path | None = None,
    skip_bad: bool = False,
    ignore_label: int | None = None,
    max_pixels: int | None = None,
    trust: bool = False,
) -> Job:
    """Load model and data.

    Raises:
        InputError: one of the two is missing, or an option has no effect.
        LoadError: a file cannot be used.
    """
    rows = rows_of(batch_size)
    if model is None and data is None and weights is None:
        extra: dict[str, object] = {"--model-arg": model_arg, "--split": split, "--resize": resize, "--trust": trust}
        extra |= {"--label-column": label_column, "--classes": classes, "--skip-bad": skip_bad}
        extra |= {"--ignore-label": ignore_label, "--max-pixels": max_pixels}
        for name, value in extra.items():
            if value not in (None, False, []):
                raise InputError(f"{name} has no effect without --model and --data; pass these, or drop it")
        show = demo(batch_size=rows or _DEFAULT)
        source = (
            show.data if limit is None else open_data("digits", batch_size=rows or _DEFAULT, limit=limit, split="test")
        )
        opening = (
            f"Demonstration: {show.description}.",
            "For yours: signstep audit --model package.module:factory --weights FILE --data PATH --threat linf:8/255",
            *show.notes,
        )
        hashes = {"data": source.fingerprint(), "weights": _hash_of(show.model)}
        hashes |= _hash_of_code(code_hash(source_files(digits_cnn.__module__, show.model)))
        return Job(show.model, source, show.description, opening, hashes, show.threat, show.eps_curve)
    if model is None:
        raise InputError("--data and --weights need a model: pass --model package.module:factory")
    if data is None:
        raise InputError(
            f"--model {model} needs data: pass --data (.npz, .csv, .parquet, MNIST IDX, images by class, ...)"
        )
    source = open_data(
        data,
        batch_size=rows or _DEFAULT,
        limit=limit,
        split=split,
        resize=size_of(resize),
        label_column=label_column,
        classes=classes,
        skip_bad=skip_bad,
        real=real,
        ignore_label=ignore_label,
        max_pixels=max_pixels,
    )
    arguments = parse_args(list(model_arg or []))
    loaded = load_model(model, weights=weights, args=arguments, trust=trust, keep_mode=keep_mode)
    opening = (f"model: {loaded.description}", *loaded.notes, f"data: {source.description}", *source.notes)
    hashes = {"data": source.fingerprint(), "weights": loaded.sha256 or _hash_of(loaded.model)}
    hashes |= _hash_of_code(loaded.code)
    return Job(loaded.model, source, loaded.description, opening, hashes)


def others_of(given: Sequence[str] | None, *, trust: bool) -> dict[str, nn.Module]:
    """Other models by name, from NAME=MODEL or NAME=MODEL@WEIGHTS.

    Raises:
        InputError: not written so, or a name comes twice.
        LoadError: a model cannot be loaded.
    """
    found: dict[str, nn.Module] = {}
    for text in given or ():
        name, equals, spec = text.partition("=")
        model, _, weights = spec.partition("@")
        if not (name and equals and model):
            raise InputError(f"--transfer-to {text!r} is not NAME=MODEL or NAME=MODEL@WEIGHTS; such as b=nets:net@b.pt")
        if name in found:
            raise InputError(f"--transfer-to names {name!r} twice; give each model a name of its own")
        found[name] = load_model(model, weights=Path(weights) if weights else None, trust=trust).model
    return found


def check_classes(job: Job, task: str, output: str | None) -> None:
    """See that there are as many class names as the model has outputs; else labels are numbered wrong, silently.

    A class folder that is missing shifts the numbers of all that follow; ImageNet's 1000 names do not fit the models
    whose first output is "background".

    Raises:
        InputError: there are more or fewer.
    """
    names = job.data.classes
    if names is None or task not in ("auto", "multiclass"):
        return
    device = next((part.device for part in (*job.model.parameters(), *job.model.buffers())), torch.device("cpu"))
    try:
        first = next(iter(job.data))[0][:1]
        with untouched(job.model), torch.no_grad():
            shape = Predictor(job.model, output_of(output))(first.to(device)).scores.shape
    except Exception:  # the work itself will say what is wrong with the model or the data
        return
    if len(shape) == 2 and shape[1] > 1 and shape[1] != len(names):
        raise InputError(
            f"{job.data.name} has {len(names)} class names and the model {shape[1]} outputs, so labels would be "
            f"numbered wrong; pass --classes FILE with {shape[1]} names in the order of the outputs"
        )


def all_hashes(job: Job, mean: list[float] | None, std: list[float] | None, inputs: str) -> dict[str, str]:
    """The job's hashes, and that of the canonical text of what Signstep itself does to the data.

    The text is JSON: the arithmetic of the data source in its own words, and the normalisation that is declared.
    """
    stated = {"data": list(job.data.treatment), "inputs": inputs, "mean": mean, "std": std}
    text = json.dumps(stated, sort_keys=True, separators=(",", ":"))
    return {**job.hashes, "preprocessing": hashlib.sha256(text.encode()).hexdigest()}


def _hash_of_code(digest: str | None) -> dict[str, str]:
    return {} if digest is None else {"code": digest}


def _hash_of(model: nn.Module) -> str:
    """SHA-256 of the weights as they are in memory, for models that come without a file of them."""
    digest = hashlib.sha256()
    for name, part in sorted(model.state_dict().items()):
        if isinstance(part, Tensor):
            digest.update(f"{name} {part.dtype} {tuple(part.shape)}\n".encode())
            digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def sized(job: Job, batch_size: str) -> DataSource:
    """The job's data in batches of the given size, or of one that fits: planned on the model where it now is."""
    if rows_of(batch_size) is not None:
        return job.data
    part = next((part for part in (*job.model.parameters(), *job.model.buffers())), None)
    first = next(iter(job.data), None)
    if part is None or first is None:
        return job.data
    try:
        with untouched(job.model):
            planned = planned_rows(job.model, first[0][:2].to(part.device), of=len(job.data.labels))
    except Exception:  # the audit itself will say what is wrong with the model or the data
        return job.data
    return replace(job.data, batch_size=min(planned, _DEFAULT if part.device.type == "cpu" else planned))


def rows_of(batch_size: str) -> int | None:
    """None for "auto"."""
    if batch_size == "auto":
        return None
    if not str(batch_size).isdigit() or int(batch_size) < 1:
        raise InputError(f"--batch-size {batch_size!r}: pass a number of examples, or auto")
    return int(batch_size)


@contextmanager
def progress(console: Console, total: int | None, word: str) -> Iterator[Callable[[int], None]]:
    """A bar with the time left, where someone is watching."""
    with bars(console) as shown:
        row = shown.add_task(one_line(word), total=total)
        yield lambda done: shown.update(row, completed=done)


@contextmanager
def interruptible() -> Iterator[None]:
    """Work that was interrupted before it had any result ends without one."""
    try:
        yield
    except KeyboardInterrupt:
        noted("interrupted before the first batch was done: no report was written")
        raise typer.Exit(130) from None


# Lies in the folder while a run is at it, and stays where it is killed: the next run then knows the folder for ours.
_BEGUN = ".signstep-begun"


@contextmanager
def output_folder(folder: Path, *, marks: Sequence[str]) -> Iterator[Path]:
    """Make the output folder and see that it can be written, before any work is done; failed work leaves none behind.

    It is held until the end: another run that wants it is refused. What a killed run left in it is cleaned away.
    ``marks`` are patterns of files that say that the folder is one of ours: without any a folder that holds something
    is refused.

    Raises:
        InputError: it cannot.
    """
    with ExitStack() as held:
        made = _begun(folder, marks, held)
        try:
            yield folder
        finally:
            with suppress(OSError):  # the end of the work is not the place to fail for it
                (folder / _BEGUN).unlink(missing_ok=True)
                if made and not any(folder.iterdir()):
                    folder.rmdir()


def _begun(folder: Path, marks: Sequence[str], held: ExitStack) -> bool:
    """Make, hold, clean and mark the folder; whether it was made."""
    try:
        made = not os.path.lexists(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not held.enter_context(alone_in(folder)):
            raise InputError(
                f"--out {folder} is being written by another run; wait for its end, or pass another folder"
            )
        sweep(folder)
        ours = any(next(folder.glob(mark), None) for mark in (_BEGUN, *marks))
        if not ours and any(not is_own(path.name) for path in folder.iterdir()):
            raise InputError(f"--out {folder} holds other files; pass a new folder, or one of an earlier report")
        (folder / _BEGUN).write_bytes(b"")
    except OSError as error:
        raise InputError(f"--out {folder} cannot be written ({_why(folder, error)}); pass another folder") from error
    return made


def _why(folder: Path, error: OSError) -> str:
    """What stands in the way of a folder, in words that say more than "File exists"."""
    if isinstance(error, FileExistsError) and folder.is_symlink():
        try:
            return "it is a link to a file" if folder.exists() else f"it is a link to {folder.readlink()}, not there"
        except OSError:
            return "it is a link that cannot be followed"
    if isinstance(error, FileExistsError):
        return "it is a file"
    return error.strerror or str(error)
