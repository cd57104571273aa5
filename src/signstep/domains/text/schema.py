"""What a TOML file, or the words of ``--threat``, say about texts, labels and what may change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from signstep.domains.schemas import read_toml, row_of, table_of
from signstep.domains.text.letters import KINDS, TYPOS
from signstep.domains.text.words import words_of
from signstep.errors import InputError, LoadError, ThreatError
from signstep.io.documents import json_value, read_text, toml_table
from signstep.messages import Arg, Key

EMBEDDING = ("embedding-l2", "embedding-linf")
_TABLES = ("data", "label", "model", "change", "synonyms", "neighbours")
_LISTED = 100_000


@dataclass(frozen=True)
class DataRow:
    """The table ``[data]``: the columns of text and label."""

    text: str = "text"
    label: str = "label"


@dataclass(frozen=True)
class LabelRow:
    """The table ``[label]``: names of the classes in the order of the model's outputs, where it does not name them."""

    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelRow:
    """The table ``[model]``: tokens that the model reads of a text; 0 for as many as it says itself."""

    length: int = 0


@dataclass(frozen=True)
class NeighbourRow:
    """The table ``[neighbours]``: how many of the nearest words of the embedding are on offer, from which cosine on."""

    nearest: int = 8
    cosine: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.nearest <= 100:
            raise InputError(Key("nearest", self.nearest), remedy="write 1 to 100", where="[neighbours]")
        if not -1 <= self.cosine <= 1:
            raise InputError(Key("cosine", self.cosine), remedy="write a cosine, -1 to 1", where="[neighbours]")


@dataclass(frozen=True)
class ChangeRow:
    """The table ``[change]``.

    Attributes:
        kinds: of `letters.KINDS`; () leaves them to ``--threat``.
        words: that may change in a text; 0 where the share alone bounds them.
        share: of the words of a text that may change, rounded down; 0 for no such bound.
        typos: of `letters.TYPOS`.
        keep: words and patterns (``http*``) that stay.
        groups: words that may stand for each other.
        synonyms: a file of synonyms, from where the schema lies: .jsonl with {"word": ["other", ...]} on each line, or
            .toml with word = ["other", ...].
    """

    kinds: tuple[str, ...] = ()
    words: int = 0
    share: float = 0.0
    typos: tuple[str, ...] = TYPOS
    keep: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    synonyms: str = ""

    def __post_init__(self) -> None:
        for name, known in (("kinds", KINDS), ("typos", TYPOS)):
            strange = [one for one in getattr(self, name) if one not in known]
            if strange:
                raise InputError(Key(name, strange[0]), remedy=f"write some of {', '.join(known)}", where="[change]")
        if self.words < 0:
            raise InputError(Key("words", self.words), remedy="write how many may change", where="[change]")
        if not 0 <= self.share <= 1:
            raise InputError(Key("share", self.share), remedy="write a share, 0 to 1", where="[change]")
        for name in ("keep", "groups"):
            if not all(isinstance(word, str) for part in getattr(self, name) for word in _flat(part)):
                raise InputError(
                    f"{name} has something else than words", remedy="write texts in quotes", where="[change]"
                )


@dataclass(frozen=True)
class Schema:
    """Everything together; ``synonyms`` maps a word in small letters to those that may replace it."""

    data: DataRow = DataRow()
    label: LabelRow = LabelRow()
    model: ModelRow = ModelRow()
    change: ChangeRow = ChangeRow()
    neighbours: NeighbourRow = NeighbourRow()
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_schema(path: Path) -> Schema:
    """Read a schema, and the file of synonyms that it names.

    Raises:
        LoadError: a file cannot be read.
        InputError: something in it is unknown or contradicts itself.
    """
    return read_toml(path, lambda plain: _schema(plain, path.parent))


def with_threat(schema: Schema, threat: str | None) -> Schema:
    """The schema with what ``--threat`` says: "typos+homoglyphs:2", "synonyms:10%", or a number for its own kinds.

    Raises:
        ThreatError: it cannot be read, or nothing says what may change.
    """
    if threat is not None:
        said, colon, size = threat.strip().rpartition(":")
        kinds = schema.change.kinds if not colon or said == "words" else tuple(part.strip() for part in said.split("+"))
        strange = [kind for kind in kinds if kind not in KINDS]
        if strange:
            raise ThreatError(
                f"threat {threat!r}",
                remedy=f"write kinds of {', '.join(KINDS)} with a number of words, such as typos+homoglyphs:2, or "
                f"{' or '.join(EMBEDDING)} with a size",
            )
        words, share = _size(size, threat)
        schema = replace(schema, change=replace(schema.change, kinds=kinds, words=words, share=share))
    change = schema.change
    if not change.kinds:
        raise ThreatError(
            "nothing says what may change in a text",
            remedy=("pass", Arg("threat", "typos:2"), f"(kinds are {', '.join(KINDS)}), or a schema with [change]"),
        )
    if not change.words and not change.share:
        raise ThreatError(
            "nothing says how many words may change",
            remedy="write words = 2 or share = 0.1 into [change], or typos:2 for a threat",
        )
    if "synonyms" in change.kinds and not schema.synonyms:
        raise ThreatError(
            "synonyms may stand for words, and none are given",
            remedy=("pass", Arg("schema", "schema.toml"), "with a table [synonyms], groups or a file"),
        )
    return schema


def _size(size: str, threat: str) -> tuple[int, float]:
    """Words, or a share of them in percent."""
    number = size.strip()
    if number.endswith("%"):
        try:
            share = float(number[:-1]) / 100
        except ValueError:
            share = -1.0
        if 0 < share <= 1:
            return 0, share
    elif number.isascii() and number.isdecimal():
        return int(number), 0.0
    raise ThreatError(f"threat {threat!r}", remedy="write a number of words (typos:2) or a share of them (typos:10%)")


def _schema(plain: dict[str, Any], folder: Path) -> Schema:
    unknown = sorted(set(plain) - set(_TABLES))
    if unknown:
        raise InputError(f"[{unknown[0]}] means nothing here", remedy=f"write some of {', '.join(_TABLES)}")
    change = row_of(ChangeRow, table_of(plain, "change"), "change")
    lists: list[tuple[str, Sequence[Any]]] = list(table_of(plain, "synonyms").items())
    lists += [(word, [other for other in group if other != word]) for group in change.groups for word in group]
    if change.synonyms:
        lists += _file(folder / change.synonyms)
    return Schema(
        row_of(DataRow, table_of(plain, "data"), "data"),
        row_of(LabelRow, table_of(plain, "label"), "label"),
        row_of(ModelRow, table_of(plain, "model"), "model"),
        change,
        row_of(NeighbourRow, table_of(plain, "neighbours"), "neighbours"),
        synonyms_of(lists),
    )


def synonyms_of(lists: Sequence[tuple[str, Sequence[Any]]]) -> dict[str, tuple[str, ...]]:
    """Lists of synonyms as one table, in small letters, each word once.

    Raises:
        InputError: something is not one word.
    """
    found: dict[str, dict[str, None]] = {}
    for word, others in lists:
        if not isinstance(others, (list, tuple)):
            raise InputError(Key(word, others), remedy="write a list of words", where="[synonyms]")
        for one in (word, *others):
            if not isinstance(one, str) or [part.core for part in words_of(one)] != [one]:
                raise InputError(
                    f"{one!r} is not one word", remedy="write single words without white space", where="[synonyms]"
                )
        found.setdefault(word.lower(), {}).update(dict.fromkeys(other.lower() for other in others))
    return {word: tuple(other for other in others if other != word) for word, others in found.items()}


def _file(path: Path) -> list[tuple[str, Any]]:
    """The lists of a file of synonyms."""
    text = read_text(path, "the file of synonyms")
    if path.suffix == ".toml":
        return list(toml_table(text, f"the file of synonyms {path}").items())
    found: list[tuple[str, Any]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row = json_value(line, f"{path}, line {number},")
        if not isinstance(row, dict):
            raise LoadError(f"{path}, line {number} is no object", remedy='write {"word": ["other", ...]} on each line')
        found += row.items()
        if len(found) > _LISTED:
            raise LoadError(f"{path} lists more than {_LISTED} words", remedy="write those of the data alone")
    return found


def _flat(part: Any) -> Sequence[Any]:
    return part if isinstance(part, tuple) else (part,)
