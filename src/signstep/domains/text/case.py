"""From what a person asked for to an audit of a classifier of texts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from signstep.domains.case import Case, Request
from signstep.domains.language.loading import sha256
from signstep.domains.own_attacks import named_in
from signstep.domains.text.attacks import RECIPES
from signstep.domains.text.codes import codes_of
from signstep.domains.text.edits import Edits
from signstep.domains.text.embedding import asked_for, embedding_case
from signstep.domains.text.example import CLASSES, SYNONYMS, example
from signstep.domains.text.offers import offers_of, vocabulary
from signstep.domains.text.opening import Given, given_model, of_pair
from signstep.domains.text.records import Records, read_records
from signstep.domains.text.region import allowance
from signstep.domains.text.schema import ChangeRow, Schema, read_schema, synonyms_of, with_threat
from signstep.domains.text.searching import read_to, read_words
from signstep.domains.text.summary import Teller
from signstep.domains.text.threat import TextThreat, text_threat
from signstep.domains.text.words import words_of
from signstep.errors import InputError
from signstep.io.documents import read_text
from signstep.io.files import expanded
from signstep.messages import Arg
from signstep.model.declaration import Model

DOMAIN = "text"
_THREAT = "synonyms+typos+homoglyphs:3"
_OWN = Schema(
    change=ChangeRow(groups=SYNONYMS),
    synonyms=synonyms_of([(word, [other for other in pair if other != word]) for pair in SYNONYMS for word in pair]),
)


def case(request: Request) -> Case:
    """The audit that a request asks for; without model and data that of the embedded messages.

    Raises:
        InputError: something is missing or does not fit.
        LoadError: a file cannot be used.
    """
    if request.model is None and request.data is None and request.schema is None:
        return _example(request)
    missing = [name for name in ("model", "data") if getattr(request, name) is None]
    if missing:
        raise InputError(
            Arg("domain", DOMAIN),
            "needs",
            Arg(missing[0]),
            "beside what was given",
            remedy=(
                "pass",
                Arg("model", "hf:FOLDER"),
                "(or module:factory),",
                Arg("data", "mails.csv"),
                "and",
                Arg("threat", "typos:2"),
                ", or none of them for the built-in example",
            ),
        )
    assert request.data is not None
    schema = Schema() if request.schema is None else read_schema(request.schema)
    embedding = asked_for(request.threat)
    if not embedding:
        schema = with_threat(schema, request.threat)
    given = given_model(request, schema.model.length)
    given = _named(given, _classes(request, schema))
    path = expanded(request.data)
    label = request.label_column or schema.data.label
    records = read_records(path, schema.data.text, label, given.model.classes, skip_bad=request.skip_bad)
    notes = list(records.notes)
    if records.labels is None:
        if request.label_column is not None:
            raise InputError(Arg("label_column", label), f"is no column of {path.name}", remedy="check its first line")
        notes.append(f"the table has no column {label!r}: the model's own answers count as right")
    hashes = {"data": sha256(path)}
    if request.schema is not None:
        hashes["schema"] = sha256(request.schema)
    origin = _Origin(request.data, tuple(notes), hashes)
    return _case(request, schema, given, records, origin)


@dataclass(frozen=True)
class _Origin:
    """Where texts come from: what the data is called, notes, hashes, and lines to say first."""

    data: str
    notes: tuple[str, ...] = ()
    hashes: dict[str, str] | None = None
    opening: tuple[str, ...] = ()


def _example(request: Request) -> Case:
    """A few messages and a small filter."""
    records, tokenizer, net = example()
    model = Model(net, classes=CLASSES, name="a small filter, trained on 42 other messages on the spot")
    given = of_pair(tokenizer, net, model, argument="tokens")
    schema = _OWN if asked_for(request.threat) else with_threat(_OWN, request.threat or _THREAT)
    origin = _Origin(
        "22 short messages, wanted and unwanted, written for Signstep",
        ("messages and filter are Signstep's own example: the figures say nothing about any real filter",),
        opening=(
            "No model and data given: auditing a small filter of messages that travel with Signstep.",
            "Your own: --model hf:FOLDER --data mails.csv --threat typos+homoglyphs:2.",
        ),
    )
    return _case(request, schema, given, records, origin)


def _case(request: Request, schema: Schema, given: Given, records: Records, origin: _Origin) -> Case:
    if asked_for(request.threat):
        kept = records.first(request.limit)
        made = embedding_case(request, given, kept.texts, kept.labels, origin.data, origin.hashes or {})
        opening = (*origin.opening, *made.opening)
        return replace(made, notes=(*made.notes, *origin.notes), opening=opening)
    # Of all texts, also where fewer are audited: neither ids nor rules hang on the limit.
    threat = _threat(schema, given, records.texts)
    width = max(map(len, records.texts)) + int(_most(threat)) * threat.edits.growth
    kept = records.first(request.limit)
    gradients = given.gradients
    words = int(_most(threat))
    return Case(
        domain=DOMAIN,
        model=given.model,
        batches=_batches(kept, width, request.rows),
        threat=threat,
        data=origin.data,
        summary=Teller(tuple(given.model.classes), words),
        attacks=(*(("hotflip",) if gradients else ()), "word-search", "random-words"),
        named=named_in(RECIPES),
        curve=tuple(float(size) for size in range(1, words + 1)) or False,
        opening=(*origin.opening, f"change: {threat}"),
        notes=(*origin.notes, *_notes(given, threat, kept)),
        hashes=origin.hashes or {},
        search=request.search,
        total=len(kept.texts),
        terms={"change": dict(threat.rules), "length": given.length, "bad_rows": list(records.bad)},
    )


def _threat(schema: Schema, given: Given, texts: tuple[str, ...]) -> TextThreat:
    """What may change in these texts."""
    change = schema.change
    offers = offers_of(schema, vocabulary(texts), given.network.tokens)
    edits = Edits(change.kinds, change.typos, change.keep, offers)
    words = change.words or max(allowance(text, float("inf"), change.share) for text in texts)
    return text_threat(edits, words, share=change.share)


def _most(threat: TextThreat) -> float:
    assert isinstance(threat.eps, float)
    return threat.eps


def _notes(given: Given, threat: TextThreat, records: Records) -> Iterator[str]:
    """What the reader must know of texts that are cut, and of those in which nothing may change."""
    model = given.network
    cut = [text for text in records.texts if read_to(model, text) is not None]
    if cut:
        read = sum(read_words(model, text) or 0 for text in cut)
        whole = sum(sum(1 for word in words_of(text) if word.core) for text in cut)
        yield (
            f"{len(cut)} of {len(records.texts)} texts are longer than the {given.length} tokens that the model reads: "
            f"of their {whole} words it reads {read}, and only these are changed, since the rest cannot matter"
        )
    still = sum(
        1
        for text in records.texts
        if not allowance(text, _most(threat), threat.share)
        or not any(threat.edits.of(word.core) for word in words_of(text))
    )
    if still:
        yield f"in {still} of {len(records.texts)} texts nothing may change under this threat: they hold by that alone"
    if not given.gradients:
        yield "the model gives no gradients: attacks ask for scores alone, and the true robustness may be lower"


def _named(given: Given, classes: tuple[str, ...]) -> Given:
    """The model with the names of its classes, where it has none of its own."""
    if not classes:
        return given
    if given.model.classes and tuple(given.model.classes) != classes:
        raise InputError(
            Arg("classes", list(classes)),
            f"are not the model's own, {', '.join(given.model.classes)}",
            remedy="leave them out",
        )
    return replace(given, model=replace(given.model, classes=classes))


def _classes(request: Request, schema: Schema) -> tuple[str, ...]:
    """Names of the classes that were given, on the command line or in the schema."""
    said: Any = request.classes
    if isinstance(said, Path):
        said = tuple(line.strip() for line in read_text(said, "the names of the classes").splitlines() if line.strip())
    return tuple(said) if said else schema.label.classes


def _batches(records: Records, width: int, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    for start in range(0, len(records.texts), size):
        labels = None if records.labels is None else records.labels[start : start + size]
        yield codes_of(records.texts[start : start + size], width), labels
