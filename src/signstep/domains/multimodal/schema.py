"""What a TOML file says about inputs, text, labels and the model's parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from signstep.domains.schemas import row_of, table_of
from signstep.errors import InputError
from signstep.io.documents import read_toml
from signstep.messages import Key

KINDS = ("image", "text", "tensor")
TOKENIZERS = ("words", "wordpiece", "folder")
READINGS = ("scores", "pair")


@dataclass(frozen=True)
class InputRow:
    """One input of the model: a table ``[inputs.NAME]``.

    Attributes:
        name: NAME.
        kind: "image" (a path), "text" (a sentence) or "tensor" (a list of numbers).
        column: of the data; NAME where it is not given.
        argument: of the model's forward; NAME where it is not given.
        threat: "norm:eps", or "substitutions:2" for text; "" leaves the input alone.
        size: images: (height, width) to resize to; () keeps that of the first.
        mean: images: subtracted before the model, by channel.
        std: images: divided by, by channel.
        grid: images: steps across [0, 1] on which the attacked image lies; 0 for none.
        box: tensors: (low, high) of valid values; () for none.
        length: text: tokens that the model takes.
        mask: text: argument for 1 at tokens, 0 at padding; "" for none.
        embedding: text: path of the model's nn.Embedding; "" finds it.
        nearest: text: tokens on offer for each.
        protected: text: words that may neither be replaced nor put in.
        groups: text: words that may stand for each other; with it no others may.
    """

    name: str
    kind: str
    column: str = ""
    argument: str = ""
    threat: str = ""
    size: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    grid: int = 0
    box: tuple[float, ...] = ()
    length: int = 0
    mask: str = ""
    embedding: str = ""
    nearest: int = 8
    protected: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                Key("kind", self.kind), remedy=f"write one of {', '.join(KINDS)}", where=f"[inputs.{self.name}]"
            )
        if self.kind == "text" and self.length < 1:
            raise InputError(
                f"[inputs.{self.name}] has no length", remedy="write the number of tokens that the model takes"
            )
        if self.size and (len(self.size) != 2 or min(self.size) < 1):
            raise InputError(
                Key("size", list(self.size)), remedy="write [height, width]", where=f"[inputs.{self.name}]"
            )
        if self.box and len(self.box) != 2:
            raise InputError(Key("box", list(self.box)), remedy="write [low, high]", where=f"[inputs.{self.name}]")
        if len(self.mean) != len(self.std):
            raise InputError(
                f"[inputs.{self.name}] has {len(self.mean)} mean and {len(self.std)} std", remedy="write as many"
            )


@dataclass(frozen=True)
class LabelRow:
    """The table ``[label]``: its column, and the classes in their order; without classes whole numbers from 0."""

    column: str = "label"
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenizerRow:
    """The table ``[tokenizer]``.

    Attributes:
        kind: "words" (one token a word), "wordpiece" (BERT's) or "folder" (what save_pretrained wrote).
        path: the vocabulary or the folder, from where the schema lies.
    """

    kind: str
    path: str

    def __post_init__(self) -> None:
        if self.kind not in TOKENIZERS:
            raise InputError(
                Key("kind", self.kind), remedy=f"write one of {', '.join(TOKENIZERS)}", where="[tokenizer]"
            )


@dataclass(frozen=True)
class OutputRow:
    """The table ``[output]``.

    Attributes:
        read: "scores" finds the logits; "pair" asks a CLIP-like model whether text and image of a row fit.
        threshold: for "pair": of the entry of logits_per_image from which on they fit.
    """

    read: str = "scores"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.read not in READINGS:
            raise InputError(Key("read", self.read), remedy=f"write one of {', '.join(READINGS)}", where="[output]")


@dataclass(frozen=True)
class Schema:
    """Everything together.

    Attributes:
        inputs: in the order of the file.
        label: the truth.
        tokenizer: None where no input is text.
        output: how the model is read.
        branches: names of the model's parts to look at, with their module paths.
        folder: where the file lies.
    """

    inputs: tuple[InputRow, ...]
    label: LabelRow = LabelRow()
    tokenizer: TokenizerRow | None = None
    output: OutputRow = OutputRow()
    branches: Mapping[str, str] | None = None
    folder: Path = Path()

    def __post_init__(self) -> None:
        if not self.inputs:
            raise InputError("the schema names no inputs", remedy="write a table [inputs.NAME] for each")
        if not any(row.threat for row in self.inputs):
            raise InputError(
                "no input has a threat", remedy="write threat = 'linf:4/255' or 'substitutions:2' into one or more"
            )
        if any(row.kind == "text" for row in self.inputs) and self.tokenizer is None:
            raise InputError("a text input needs a tokenizer", remedy="write a table [tokenizer] with kind and path")

    @property
    def attacked(self) -> tuple[InputRow, ...]:
        """Inputs with a threat."""
        return tuple(row for row in self.inputs if row.threat)


def read_schema(path: Path) -> Schema:
    """Read a schema.

    Raises:
        LoadError: the file cannot be read.
        InputError: something in it is unknown or missing.
    """
    plain = read_toml(path, "the schema")
    unknown = sorted(set(plain) - {"inputs", "label", "tokenizer", "output", "branches"})
    if unknown:
        raise InputError(
            f"{path} has [{unknown[0]}], which means nothing here",
            remedy="write inputs, label, tokenizer, output or branches",
        )
    inputs = tuple(row_of(InputRow, {"name": name, **part}, name) for name, part in table_of(plain, "inputs").items())
    return Schema(
        inputs,
        row_of(LabelRow, table_of(plain, "label"), "label"),
        row_of(TokenizerRow, plain["tokenizer"], "tokenizer") if "tokenizer" in plain else None,
        row_of(OutputRow, table_of(plain, "output"), "output"),
        {name: str(part) for name, part in table_of(plain, "branches").items()},
        path.parent,
    )
