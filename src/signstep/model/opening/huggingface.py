"""``hf:FOLDER`` and ``hf:org/name``: classifiers of images as the transformers library saves them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from signstep.engine.tasks import TaskName
from signstep.errors import InputError, LoadError
from signstep.io.files import expanded, refuse_unwritable
from signstep.messages import Arg, Part
from signstep.model.declaration import Model
from signstep.model.opening.image_processor import preparation
from signstep.model.opening.opener import Opener, Wanted
from signstep.model.opening.pretrained import CONFIG, Pretrained, quiet, transformers
from signstep.model.shapes import refuse_shape

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@\w[\w./-]*)?")
_PATTERNS = ("*.json", "*.txt", "model.safetensors", "model-*.safetensors")
_TRUSTED = ("pytorch_model*.bin", "*.py")
_UNNAMED = re.compile(r"LABEL_\d+|\d+")
_MULTIMODAL = Arg("domain", "multimodal", python="the domain multimodal")
_TEXT = Arg("domain", "text", python="the domain text")
_WRITES: tuple[Part, ...] = ("which writes text", "pass a model that decides, which is what is attacked")
# What else an architecture is, by a part of its name, and what to do.
_OTHERS: dict[str, tuple[Part, ...]] = {
    "ForSequenceClassification": ("which reads text", "pass", _TEXT, "and a table of texts"),
    "ForTokenClassification": ("which labels words", "pass a classifier, which is what is attacked"),
    "ForObjectDetection": ("which finds objects", "pass a factory that returns what is to fall; see signstep.maximise"),
    "ForSemanticSegmentation": (
        "which labels pixels",
        "pass a factory of a network that scores each, and",
        Arg("task"),
    ),
    "ForCausalLM": _WRITES,
    "ForConditionalGeneration": _WRITES,
}


class Flipped(nn.Module):
    """A network that wants the channels in the opposite order (blue, green, red), for images in the usual one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """From (R, C, H, W)."""
        return self.network(x.flip(1))


def opened(wanted: Wanted) -> Model:
    """The row's model: the processor's normalisation declared, raw pixels attacked.

    Raises:
        InputError: it needs trust, or takes images of another size.
        LoadError: a part is missing or damaged, or does not fit the others.
        MissingExtraError: transformers is not installed.
    """
    folder, title, origin = place_of(wanted.rest, trust=wanted.trust)
    found = Pretrained.of(folder, trust=wanted.trust, weightless=wanted.weights is not None)
    _refuse_others(found)
    channels = _channels(found.config)
    made = preparation(folder, channels, trust=wanted.trust)
    classes = class_names(found.config, folder)
    shape = (channels, made.height, made.width)
    if wanted.shape is not None:
        refuse_shape(shape, wanted.shape)
    network, notes, hashes = found.loaded(wanted.weights)
    title = f"{title} ({found.architecture})" + ("" if wanted.weights is None else f" with {wanted.weights}")
    if made.flipped:
        network, notes = Flipped(network), (*notes, "its network wants blue first: channels are put in that order")
    return Model(
        network,
        mean=made.mean,
        std=made.std,
        task=_task(found.config),
        classes=classes,
        shape=shape,
        name=title,
        hashes=hashes,
        notes=(*origin, _said(made.mean, made.std), *made.notes, *notes),
    )


class Place(NamedTuple):
    """Where a model of transformers lies: its folder, what it is called, and notes on where it came from."""

    folder: Path
    title: str
    notes: tuple[str, ...] = ()


def place_of(name: str, *, trust: bool) -> Place:
    """The folder of that name, else what the hub has under it.

    Raises:
        LoadError: there is neither, or the hub cannot be asked.
    """
    folder = expanded(name)
    if folder.is_dir():
        refuse_unwritable(folder, "the name of the folder")
        return Place(folder, folder.resolve().name)
    if not _NAME.fullmatch(name) or folder.exists():
        raise LoadError(
            f"there is no folder {name}", remedy="pass one that transformers' save_pretrained wrote, or org/name"
        )
    fetched = _fetched(name, trust=trust)
    return Place(fetched, name, (f"from the hub, revision {fetched.name}",))


def class_names(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """The names of the classes, in the order of the outputs; none where they are numbers.

    Raises:
        LoadError: id2label leaves numbers out, or label2id says otherwise.
    """
    table = config.get("id2label")
    if not isinstance(table, dict) or not table:
        return ()
    where = folder / CONFIG
    names = {str(number): str(name) for number, name in table.items()}
    wanted = [str(number) for number in range(len(names))]
    if sorted(names) != sorted(wanted):
        raise LoadError(
            f"id2label in {where} has the numbers {_some(list(names))}, and {len(names)} outputs are numbered from 0",
            remedy="correct it",
        )
    back = config.get("label2id")
    for number, name in names.items():
        other = back.get(name, number) if isinstance(back, dict) else number
        if list(names.values()).count(name) == 1 and str(other) != number:
            said = f"{name!r} is {number} in id2label, {other} in label2id"
            raise LoadError(f"{where} contradicts itself: {said}", remedy="correct it")
    listed = tuple(names[number] for number in wanted)
    return () if all(_UNNAMED.fullmatch(name) for name in listed) else listed


ROW = Opener(
    "hf",
    "a classifier of images as transformers saves it: a folder, or a name on the hub",
    "hf:FOLDER",
    opened,
    prefixes=("hf:",),
    weights=True,
    extra="hf",
)


def _fetched(name: str, *, trust: bool) -> Path:
    transformers()  # whoever has it has the library of the hub
    import huggingface_hub

    repository, _, revision = name.partition("@")
    patterns = [*_PATTERNS, *(_TRUSTED if trust else ())]
    try:
        with quiet():
            return Path(
                huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=patterns)
            )
    except KeyboardInterrupt:
        raise
    except Exception as error:  # of the hub's library, its client and the network
        kind = type(error).__name__
        said, remedy = {
            "RepositoryNotFoundError": (
                f"the hub has no model {repository}, or it is private",
                "check it, or log in",
            ),
            "HFValidationError": (f"{repository} is no name of the hub's", "write org/name, or pass hf:FOLDER"),
            "RevisionNotFoundError": (f"the hub's {repository} has no revision {revision}", "check it"),
            "GatedRepoError": (f"the hub's {repository} is gated", "accept its terms there, and set HF_TOKEN"),
        }.get(kind, (f"the hub cannot be asked for one ({kind})", "download the model, and pass hf:FOLDER"))
        raise LoadError(f"there is no folder {repository}, and {said}", remedy=remedy) from error


def _refuse_others(found: Pretrained) -> None:
    """See that the architecture is a classifier of images.

    Raises:
        InputError: it is another kind of model.
    """
    if "ForImageClassification" in found.architecture:
        return
    others = next((said for part, said in _OTHERS.items() if part in found.architecture), None)
    if others is None and ("text_config" in found.config or "CLIP" in found.architecture):
        others = ("which reads images with text", "pass", _MULTIMODAL, "and a schema that names its tokenizer")
    if others is not None:
        raise InputError(f"{found.folder} holds a {found.architecture}, {others[0]}", remedy=others[1:])
    raise InputError(
        f"{found.folder} holds a {found.architecture}, which is no classifier of images",
        remedy="pass one whose name ends in ForImageClassification, or a factory",
    )


def _channels(config: Mapping[str, Any]) -> int:
    inner = config.get("vision_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        if isinstance(part.get("num_channels"), int):
            return int(part["num_channels"])
    return 3


def _task(config: Mapping[str, Any]) -> TaskName:
    return "multilabel" if config.get("problem_type") == "multi_label_classification" else "auto"


def _said(mean: Sequence[float] | None, std: Sequence[float] | None) -> str:
    if mean is None or std is None:
        return "its processor passes values in [0, 1] as they are"
    return f"normalised by its processor: mean {_few(mean)}, std {_few(std)}"


def _few(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
