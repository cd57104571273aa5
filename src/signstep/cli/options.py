"""Options that several commands share, and turning their text into values."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar, cast

import torch
import typer

from signstep.attacks.recipes import RECIPES, canonical, split
from signstep.data.targets import ClassIndex
from signstep.errors import InputError
from signstep.importing import is_spec
from signstep.messages import Arg

Default = TypeVar("Default")
Side: TypeAlias = Literal["raw", "normalised"]
Rule: TypeAlias = Literal["random", "least-likely", "next"]

GOALS = ("untargeted", "random", "least-likely", "next")

Model = Annotated[
    str | None,
    typer.Option(
        help="package.module:factory (the current folder is importable), hf:FOLDER, https://HOST/PATH, or a file."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Weights: .safetensors, or a state dict (.pt, .pth).")]
ModelArg = Annotated[list[str] | None, typer.Option(help="Argument of the factory, name=value; may be repeated.")]
Trust = Annotated[bool, typer.Option(help="Allow files whose loading can run code: .pt2, .joblib, pickled weights.")]
Data = Annotated[
    str | None,
    typer.Option(
        help=".npz, .csv, .parquet, MNIST IDX, images by class, shards, a saved Hugging Face set (hf-dataset:FOLDER), "
        "digits, your own module:name, or the URI of one file (s3://BUCKET/test.npz)."
    ),
]
LabelColumn = Annotated[str | None, typer.Option(help="Tables: the column that holds the label.")]
IgnoreColumn = Annotated[
    list[str] | None, typer.Option(help="With --domain tabular or control: leave this column out; may be repeated.")
]
Classes = Annotated[Path | None, typer.Option(help="A text file with one class name per line: the model's order.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out bad rows and unreadable images; they are counted.")
]
IgnoreLabel = Annotated[
    int | None,
    typer.Option(help="The label that stands for none, such as -100 or 255: left out and counted."),
]
MaxPixels = Annotated[int | None, typer.Option(help="The most pixels that an image may have; 25 million if not given.")]
Split = Annotated[str | None, typer.Option(help="test or train, where the data has both.")]
Resize = Annotated[str | None, typer.Option(help="Bring images to HEIGHTxWIDTH, such as 224x224.")]
Limit = Annotated[int | None, typer.Option(help="Use the first so many examples.")]
BatchSize = Annotated[str, typer.Option(help="Examples at a time; auto plans from measured bytes.")]
ThreatText = Annotated[
    str | None,
    typer.Option(
        help="norm:eps in raw input units: linf:8/255, l2:0.5, l1:12, l0:10, pixel:0.1, linf:none; or your own "
        "module:norm:eps."
    ),
]
BoxText = Annotated[str | None, typer.Option(help="Valid inputs: LOW,HIGH or none; 0,1 if the data does not say.")]
Grid = Annotated[int | None, typer.Option(help="255 keeps attacked images on the 8-bit grid.")]
Goal = Annotated[str, typer.Option(help="untargeted, or towards a class: random, least-likely or next.")]
PredictedLabels = Annotated[
    bool, typer.Option("--predicted-labels", help="Take the model's own predictions for labels.")
]
TaskText = Annotated[str, typer.Option(help="auto, multiclass, binary, multilabel, segmentation or regression.")]
Tolerance = Annotated[float | None, typer.Option(help="Regression: the largest error that still counts as right.")]
Loss = Annotated[str | None, typer.Option(help="Loss to climb: ce (default), margin, dlr, plain-ce.")]
Mean = Annotated[str | None, typer.Option(help="The model wants (x - mean) / std: one number or one for each channel.")]
Std = Annotated[str | None, typer.Option(help="See --mean.")]
Inputs = Annotated[str, typer.Option(help="raw, or normalised if the data already is (x - mean) / std.")]
FailOn = Annotated[
    list[str] | None,
    typer.Option(help="Gate: exit with status 1 on the verdict inflated or undetermined; may be repeated."),
]
Show = Annotated[
    list[str] | None,
    typer.Option(
        help="Show beside the verdict: landscape, gradients, layers, stain, attacks; several with commas, or repeat."
    ),
]
Budget = Annotated[str, typer.Option(help="raw, or normalised to measure eps in the model's coordinates.")]
Output = Annotated[str | None, typer.Option(help="Key or index of the scores in what the model returns.")]
Outputs = Annotated[str, typer.Option(help="auto, logits or probabilities.")]
Mode = Annotated[str, typer.Option(help="eval, or keep to leave the model's modes as they are.")]
Seed = Annotated[int, typer.Option(help="All randomness, together with each example's content.")]
Detect = Annotated[
    list[str] | None,
    typer.Option(
        help="A detector, such as squeeze:bits=4 or the file of one, beside the model; may be repeated, see signstep "
        "list."
    ),
]
Reject = Annotated[float | None, typer.Option(help="Share of clean inputs that they may reject, such as 0.01.")]
Review = Annotated[float, typer.Option(help="Share of clean inputs that they may send to review beside those.")]
Clean = Annotated[
    str | None, typer.Option(help="Clean data to fit and calibrate detectors on, none of it among --data.")
]
Endpoint = Annotated[
    Path | None,
    typer.Option("--endpoint", help="Of a model https://HOST/PATH: a TOML file that says what it takes and answers."),
]
MaxRequests = Annotated[
    int | None, typer.Option(min=1, help="Of such a model: the most requests that it is sent, repetitions included.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Of such a model: show the first request as it would be sent, and send none.")
]
Surrogate = Annotated[
    list[str] | None,
    typer.Option(help="Take gradients from this model instead, MODEL or MODEL@WEIGHTS; the mean over several."),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine", help="exact, or fast or float32 to search on a copy of the model; verdicts are the model's own."
    ),
]
Eot = Annotated[
    int, typer.Option(min=1, help="Average each gradient over this many passes, for models that draw random numbers.")
]
Defend = Annotated[
    list[str] | None,
    typer.Option(
        help="Put a transformation of inputs in front of the model, such as jpeg:quality=75; repeat for a chain."
    ),
]
GradientPath = Annotated[
    str,
    typer.Option(help="With --defend: aware tries every way past it; straight is an attacker who does not know of it."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Workers = Annotated[
    str | None,
    typer.Option(
        help="Audit in units that are kept as they are done, with so many workers; auto: one for each core, 1: this "
        "process."
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        help="Where: pool (processes here), ray or ray:HOST:PORT, slurm, or your own module:name.",
    ),
]
Partition = Annotated[str | None, typer.Option(help="With --on slurm: the partition.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the units in the output folder: what is done stays.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads for torch.")]


def attacks_of(given: Sequence[str] | None) -> Sequence[str]:
    """Recipes separated by commas; a piece with = and no colon is a further option of the recipe before it."""
    if not given:
        return ("random-sign", "fgsm", "pgd")
    names: list[str] = []
    for piece in ",".join(given).split(","):
        # "pgd near<=0.3" begins a rung, "restarts=10" does not.
        if _OPTION.match(piece) and names:
            names[-1] += f",{piece.strip()}"
        elif piece.strip():
            names.append(piece.strip())
    return names


_OPTION = re.compile(r"\s*\w+\s*=")


def ladder_of(given: Sequence[str] | None) -> str | Sequence[str] | None:
    """A preset by its name, or rungs; None for no ladder."""
    if not given:
        return None
    rungs = attacks_of(given)
    name = split(canonical(rungs[0].partition(" ")[0]))[0]
    if len(rungs) == 1 and name not in RECIPES and not is_spec(name):
        return rungs[0]
    return rungs


def whole(text: str, name: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise InputError(Arg(name, text), remedy="pass a whole number from 1 on")
    return int(text)


def shard_of(text: str | None) -> tuple[int, int] | None:
    """(i, n) from ``--shard``."""
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise InputError(
            Arg("shard", text), "is not I/N with 0 <= I < N", remedy="pass for example 0/4, 1/4, 2/4 and 3/4"
        )
    return int(number), int(count)


def rule_of(goal: str) -> Rule | None:
    """The target rule from ``--goal``; None for untargeted."""
    if goal not in GOALS:
        raise InputError(
            Arg("goal", goal),
            f"is not one of {', '.join(GOALS)}",
            remedy="pass one of these (one class as a goal: signstep attack)",
        )
    return None if goal == "untargeted" else cast("Rule", goal)


def class_of(goal: str, classes: Sequence[str]) -> int:
    """The number of the class that ``--goal`` names, by its name or, where no class has such a name, by its number."""
    index = ClassIndex(classes)
    if goal in index:
        return index.number(goal, "--goal", InputError)
    if goal.isdecimal():
        return int(goal)
    near = difflib.get_close_matches(goal, [*GOALS, *classes], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"pass {', '.join(GOALS)}, or a class by its name or number"
    raise InputError(Arg("goal", goal), "is neither a goal nor a class", remedy=hint)


def output_of(text: str | None) -> str | int | None:
    """A key, or an index where the text is a number."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def numbers(text: str | None, name: str) -> list[float] | None:
    """Numbers separated by commas; fractions such as 8/255 are allowed."""
    if text is None:
        return None
    values = []
    for piece in str(text).split(","):
        top, slash, bottom = piece.partition("/")
        try:
            values.append(float(top) / float(bottom) if slash else float(top))
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(
                Arg(name, text), f": {piece!r} is not a number", remedy="separate numbers by commas"
            ) from error
    return values


def size_of(text: str | None) -> tuple[int, int] | None:
    """(height, width) from HEIGHTxWIDTH."""
    if text is None:
        return None
    height, cross, width = text.lower().partition("x")
    if not cross or not height.isdigit() or not width.isdigit():
        raise InputError(Arg("resize", text), "is not HEIGHTxWIDTH", remedy="pass for example 224x224")
    return int(height), int(width)


def device_of(name: str) -> torch.device:
    """The device; "auto" takes a CUDA GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device, dtype=torch.float32)
    except (RuntimeError, AssertionError) as error:
        raise InputError(Arg("device", name), "is not available here", remedy="pass cpu or auto") from error
    return device


def box_of(text: str | None, default: Default) -> tuple[float, float] | Default | None:
    """(low, high) from LOW,HIGH; None for "none"; the default where nothing was said."""
    if text is None:
        return default
    if text.lower() == "none":
        return None
    ends = numbers(text, "box")
    if ends is None or len(ends) != 2:
        raise InputError(Arg("box", text), "is not LOW,HIGH", remedy="pass two numbers such as 0,1, or none")
    return (ends[0], ends[1])


def rows_of(batch_size: str | int) -> int | None:
    """Examples at a time; None for "auto"."""
    if batch_size == "auto":
        return None
    if not str(batch_size).isdigit() or int(batch_size) < 1:
        raise InputError(Arg("batch_size", batch_size), remedy="pass a number of examples, or auto")
    return int(batch_size)
