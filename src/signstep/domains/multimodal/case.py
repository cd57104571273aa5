"""From what a person asked for to an audit of a model of several inputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from signstep.domains.case import Case, Request
from signstep.domains.language.loading import Loaded, sha256
from signstep.domains.language.tokenizers import Tokenizer
from signstep.domains.language.victim import Channel, Victim
from signstep.domains.multimodal.attacks import Witness
from signstep.domains.multimodal.choices import ids_of
from signstep.domains.multimodal.crossover import RECIPES, everywhere, on_some
from signstep.domains.multimodal.fusion import FOLDER, scenes_model
from signstep.domains.multimodal.pairing import pair_scores
from signstep.domains.multimodal.prepare import SUBSTITUTIONS, Text, text_input
from signstep.domains.multimodal.records import read_records
from signstep.domains.multimodal.scenes import LENGTH, SYNONYMS, scenes, tokenizer
from signstep.domains.multimodal.schema import InputRow, Schema, read_schema
from signstep.domains.multimodal.sources import model_of, tokenizer_of
from signstep.domains.multimodal.summary import Teller
from signstep.domains.multimodal.threat import TokenThreat
from signstep.engine.threat import ThreatModel, parse_threat
from signstep.errors import InputError
from signstep.io.files import expanded
from signstep.messages import Arg
from signstep.model.declaration import Model

DOMAIN = "multimodal"
_SCENES = 200
_IMAGE, _TEXT = "linf:4/255", "substitutions:2"


def case(request: Request) -> Case:
    """The audit that a request asks for; without model, data and schema that of the rendered scenes.

    Raises:
        InputError: something is missing or does not fit.
        LoadError: a file cannot be used.
    """
    if request.schema is None and request.data is None and request.model is None:
        return _example(request)
    if request.schema is None or request.data is None or request.model is None:
        missing = [name for name in ("model", "data", "schema") if getattr(request, name) is None]
        raise InputError(
            Arg("domain", DOMAIN),
            "needs",
            Arg(missing[0]),
            "beside what was given",
            remedy=(
                "pass",
                Arg("model", "module:factory"),
                "(or a folder of transformers),",
                Arg("data", "pairs.jsonl"),
                "and",
                Arg("schema", "schema.toml"),
                ", or none of them for the built-in example",
            ),
        )
    return _own(request, read_schema(request.schema))


def _example(request: Request) -> Case:
    """Rendered scenes with sentences, and a small model of them."""
    pairs, words = scenes(request.limit or _SCENES, request.seed), tokenizer()
    model = scenes_model()
    said = _threats(request, ("image", "text"), {"image": _IMAGE, "text": _TEXT})
    ids = ids_of(words, pairs.sentences, LENGTH)
    text = text_input(
        model, "text", ids, words, said["text"], embedding="text_branch.embedding", groups=_groups(said["text"])
    )
    threats = {"image": parse_threat(said["image"], grid=255)} if said["image"] else {}
    return _case(
        request,
        Loaded(
            model,
            "FusionNet of scenes, weights that travel with signstep",
            (),
            {"weights": sha256(FOLDER / "scenes.safetensors")},
        ),
        {"image": pairs.images, **text.inputs},
        [Channel("image", "image"), text.channel],
        {**threats, **_given("text", text)},
        pairs.labels,
        {"image": "image_branch", "text": "text_branch", "fused": "fusion"},
        _Origin(
            f"{len(ids)} rendered scenes with sentences, drawn from seed {request.seed}; synthetic",
            ("false", "true"),
            ("the scenes are drawn by Signstep itself: the figures are of this example, not of any real task",),
            ("Words are replaced within groups that say the same here by construction (picture, image, drawing).",),
        ),
        words=words,
    )


def _own(request: Request, schema: Schema) -> Case:
    """The user's model, data and schema."""
    assert request.data is not None
    assert request.schema is not None
    path = expanded(request.data)
    loaded = model_of(request)
    words = tokenizer_of(schema)
    records = read_records(path, schema, words, limit=request.limit, skip_bad=request.skip_bad)
    attacked = tuple(row.name for row in schema.inputs)
    said = _threats(request, attacked, {row.name: row.threat for row in schema.inputs})
    inputs: dict[str, Tensor] = {}
    channels: list[Channel] = []
    threats: dict[str, ThreatModel] = {}
    plain = {row.argument or row.name: _as_given(records.inputs[row.name], row) for row in schema.inputs}
    for row in schema.inputs:
        part = records.inputs[row.name]
        if row.kind == "text":
            assert words is not None
            text = text_input(
                loaded.model,
                row.name,
                part,
                words,
                said[row.name],
                argument=row.argument,
                mask=row.mask,
                embedding=row.embedding,
                others={name: value for name, value in plain.items() if name != (row.argument or row.name)},
                nearest=row.nearest,
                protected=row.protected,
                groups=row.groups,
            )
            inputs |= text.inputs
            channels.append(text.channel)
            threats |= _given(row.name, text)
            continue
        inputs[row.name] = part
        channels.append(Channel(row.name, row.argument or row.name, mean=row.mean, std=row.std))
        if said[row.name]:
            threats[row.name] = _ball(row, said[row.name])
    grouped = any(row.groups for row in schema.inputs)
    return _case(
        request,
        loaded,
        inputs,
        channels,
        threats,
        records.labels,
        schema.branches or {},
        _Origin(
            f"{len(records.labels)} rows of {path.name}",
            schema.label.classes,
            records.notes,
            (_GROUPED if grouped else _NEAREST,),
            {"data": sha256(path), "schema": sha256(request.schema)},
        ),
        words=words,
        output=pair_scores(schema.output.threshold) if schema.output.read == "pair" else None,
    )


_GROUPED = "Words are replaced within the groups that the schema declares to say the same."
_NEAREST = (
    "Words are replaced by their nearest in the model's embedding. Near is not the same in meaning: where a "
    "substitution changes what is true, the model is right to change its answer. Read the examples, and protect the "
    "words that carry the label."
)


@dataclass(frozen=True)
class _Origin:
    """Where the pairs come from, and what is to be said of that."""

    data: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    hashes: Mapping[str, str] = field(default_factory=dict)


def _case(
    request: Request,
    loaded: Loaded,
    inputs: Mapping[str, Tensor],
    channels: list[Channel],
    threats: Mapping[str, ThreatModel],
    labels: Tensor,
    branches: Mapping[str, str],
    origin: "_Origin",
    *,
    words: Tokenizer | None,
    output: Any = None,
) -> Case:
    if not threats:
        raise InputError(
            "no input has a threat", remedy=("write one into the schema or pass", Arg("threat", "image=linf:4/255"))
        )
    victim = Victim(loaded.model, channels, output=output)
    witness = Witness(victim, dict(branches))
    texts = tuple(name for name, threat in threats.items() if isinstance(threat, TokenThreat))
    return Case(
        domain=DOMAIN,
        model=Model(victim, name=loaded.description, classes=origin.classes, hashes=loaded.hashes),
        batches=_batches(inputs, labels, request.rows),
        threat=dict(threats),
        data=origin.data,
        summary=Teller(victim, witness, words, texts, origin.remarks),
        attacks=tuple(everywhere(RECIPES, list(threats), witness)),
        named=partial(on_some, list(threats), witness),
        curve=False,
        opening=tuple(f"{name}: {threat}" for name, threat in threats.items()),
        notes=(*loaded.notes, *origin.notes),
        hashes=origin.hashes,
        search=request.search,
        total=len(labels),
        terms={
            "inputs": {channel.name: channel.form for channel in channels},
            "branches": dict(branches),
            "texts": {
                name: {"eps": threat.eps, "protected": sorted(threat.protected)}
                for name, threat in threats.items()
                if isinstance(threat, TokenThreat)
            },
        },
    )


def _batches(
    inputs: Mapping[str, Tensor], labels: Tensor, size: int
) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
    for start in range(0, len(labels), size):
        place = slice(start, start + size)
        yield {name: part[place] for name, part in inputs.items()}, labels[place]


def _threats(request: Request, names: tuple[str, ...], declared: Mapping[str, str]) -> dict[str, str]:
    """The threat of each input: the schema's, or those of ``--threat image=linf:4/255;text=substitutions:1``."""
    if request.threat is None:
        return dict(declared)
    said = dict.fromkeys(names, "")
    for part in request.threat.split(";"):
        name, equals, threat = part.strip().partition("=")
        if not equals and len(names) == 1:
            name, threat = names[0], name
        if name not in said or not threat:
            raise InputError(
                Arg("threat", request.threat),
                remedy=(
                    f"name the inputs, as in {';'.join(f'{key}=...' for key in names)}; those that are not named "
                    "stay untouched"
                ),
            )
        said[name] = threat
    return said


def _groups(threat: str) -> tuple[tuple[str, ...], ...]:
    return SYNONYMS if threat.startswith(SUBSTITUTIONS) else ()


def _given(name: str, text: Text) -> dict[str, ThreatModel]:
    return {} if text.threat is None else {name: text.threat}


def _ball(row: InputRow, threat: str) -> ThreatModel:
    if row.kind == "image":
        return parse_threat(threat, grid=row.grid or None)
    return parse_threat(threat, box=(row.box[0], row.box[1]) if row.box else None)


def _as_given(part: Tensor, row: InputRow) -> Tensor:
    """As the model takes it, to find its embedding with."""
    return Channel(row.name, row.name, mean=row.mean, std=row.std).normalised(part)
