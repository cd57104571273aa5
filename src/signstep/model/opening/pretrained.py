"""A folder of the transformers library as a network: the one that its config names, whole, without running its code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.frames import named
from signstep.io.archives import check_safetensors
from signstep.io.documents import read_json
from signstep.io.files import refuse_unwritable
from signstep.messages import Arg
from signstep.model.opening.hashing import file_hash, files_hash
from signstep.model.opening.weights import load_weights

CONFIG = "config.json"
_SHARDS = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Pretrained:
    """What is known of a folder before its weights are read.

    Attributes:
        folder: with a config.json.
        config: the content of that.
        architecture: the name of the class that it was saved from.
        weights: the files of weights, by name.
        pickled: whether these are pickles.
    """

    folder: Path
    config: Mapping[str, Any]
    architecture: str
    weights: tuple[Path, ...]
    pickled: bool

    @classmethod
    def of(cls, folder: Path, *, trust: bool, weightless: bool = False) -> "Pretrained":
        """Look at a folder.

        Args:
            folder: that ``save_pretrained`` wrote, or the hub has.
            trust: allow pickles, and Python of the folder's own.
            weightless: weights come from elsewhere.

        Raises:
            InputError: it needs trust.
            LoadError: it is no such folder, or a part is missing.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise LoadError(
                f"{folder} has no {CONFIG}", remedy="pass a folder that transformers' save_pretrained wrote"
            )
        config = json_of(path)
        if config.get("auto_map") and not trust:
            raise InputError(
                f"{path} names Python code of the folder's own (auto_map), which loading would run",
                remedy=("pass", Arg("trust", True), "if you trust it"),
            )
        names = config.get("architectures")
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise LoadError(f"{path} names no architecture", remedy="save the model with its save_pretrained")
        weights, pickled = ((), False) if weightless else _weights(folder, trust=trust)
        return cls(folder, config, names[0], weights, pickled)

    def loaded(self, weights: Path | None = None) -> tuple[nn.Module, tuple[str, ...], dict[str, str]]:
        """The network with its own weights or those of a file, notes, and SHA-256 of weights and config.

        Raises:
            LoadError: they do not fit each other, or a file cannot be used.
        """
        described = [self.folder / name for name in (CONFIG, "preprocessor_config.json", "processor_config.json")]
        hashes = {"config": files_hash(path for path in described if path.is_file())}
        if weights is None:
            network, notes = self.network()
            return network, notes, hashes | {"weights": files_hash(self.weights)}
        refuse_unwritable(weights, "the name of the weights file")
        network = self.empty()
        notes = load_weights(network, weights)
        return network, notes, hashes | {"weights": file_hash(weights)}

    def network(self) -> tuple[nn.Module, tuple[str, ...]]:
        """The network with its weights, in evaluation mode and single precision, and what must be said of it.

        Raises:
            LoadError: they do not fit each other, or transformers does not know the architecture.
        """
        kind, config = self._kind(), self._config()
        try:
            with quiet(), torch.random.fork_rng(devices=[]):
                loaded = kind.from_pretrained(
                    self.folder,
                    config=config,
                    local_files_only=True,
                    use_safetensors=not self.pickled,
                    output_loading_info=True,
                    **self._own_code(),
                )
        except (KeyboardInterrupt, LoadError):
            raise
        except Exception as error:  # of every kind that transformers, safetensors and torch have
            raise LoadError(
                f"{self.folder} holds no {self.architecture} that transformers can read ({named(error)})",
                remedy="save or download it again",
            ) from error
        network, info = loaded
        self._refuse_partial(info)
        return self._single(network)

    def empty(self) -> nn.Module:
        """The network with first weights of seed 0, for weights from elsewhere.

        Raises:
            LoadError: transformers does not know the architecture, or cannot make it.
        """
        kind, config = self._kind(), self._config()
        try:
            with quiet(), torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                network: nn.Module = kind(config)
        except Exception as error:
            raise LoadError(
                f"{self.folder / CONFIG} describes no {self.architecture} ({named(error)})",
                remedy="save the model again",
            ) from error
        return self._single(network.eval())[0]

    def _kind(self) -> Any:
        library = transformers()
        kind = getattr(library, self.architecture, None)
        if kind is None and self.config.get("auto_map"):
            auto = (name for name in self.config["auto_map"] if name.startswith("AutoModel"))
            kind = next((getattr(library, name, None) for name in auto), None)
        if kind is None:
            version = f"transformers {library.__version__}"
            raise LoadError(
                f"{self.folder / CONFIG} names {self.architecture}, which {version} does not have",
                remedy="install the version that the model was made for",
            )
        return kind

    def _config(self) -> Any:
        try:
            with quiet():
                return transformers().AutoConfig.from_pretrained(self.folder, local_files_only=True, **self._own_code())
        except Exception as error:
            raise LoadError(
                f"{self.folder / CONFIG} cannot be read by transformers ({named(error)})",
                remedy="save or download it again",
            ) from error

    def _own_code(self) -> dict[str, bool]:
        """Said in any case, for else transformers would ask at the keyboard."""
        return {"trust_remote_code": bool(self.config.get("auto_map"))}

    def _refuse_partial(self, info: Mapping[str, Any]) -> None:
        """What transformers would have filled with random numbers, and warned of.

        Raises:
            LoadError: there is something.
        """
        missing = sorted(map(str, info.get("missing_keys", ())))
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise LoadError(
                f"the weights in {self.folder} lack {len(missing)} tensors of {self.architecture} ({shown}), "
                "which would be random",
                remedy="pass a folder whose model was trained with its head",
            )

    def _single(self, network: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
        stored = {part.dtype for part in network.parameters() if part.is_floating_point()} - {torch.float32}
        if not stored:
            return network, ()
        words = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in stored))
        return network.float(), (f"weights stored as {words} converted to float32",)


def transformers() -> Any:
    """The library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import transformers as library
    except ImportError as error:
        raise MissingExtraError("transformers", "hf") from error
    return library


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers neither logs nor draws bars: what matters of it becomes notes and errors."""
    logging = transformers().utils.logging
    before, bars = logging.get_verbosity(), getattr(logging, "is_progress_bar_enabled", lambda: True)()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def json_of(path: Path) -> dict[str, Any]:
    """A JSON object of a file.

    Raises:
        LoadError: it is none.
    """
    found = read_json(path, "the description of a model")
    if not isinstance(found, dict):
        raise LoadError(f"{path} holds no JSON object", remedy="save or download it again")
    return found


def _weights(folder: Path, *, trust: bool) -> tuple[tuple[Path, ...], bool]:
    """The files of weights of a folder, and whether they are pickles.

    Raises:
        InputError: they are, and it is not trusted.
        LoadError: one is missing or damaged.
    """
    whole, shards = folder / _WHOLE, folder / _SHARDS
    if whole.is_file():
        files: tuple[Path, ...] = (whole,)
    elif shards.is_file():
        files = _shards(shards)
    else:
        pickled = [folder / name for name in _PICKLED if (folder / name).is_file()]
        if not pickled:
            raise LoadError(
                f"{folder} has no {_WHOLE}", remedy="download the whole model, or save it with save_pretrained"
            )
        if not trust:
            raise InputError(
                f"{pickled[0]} is a pickle, and loading one can run code",
                remedy=("save the model with safetensors (save_pretrained does), or pass", Arg("trust", True)),
            )
        return tuple(sorted(folder.glob("pytorch_model*.bin"))), True
    for path in files:
        check_safetensors(path)
    return files, False


def _shards(index: Path) -> tuple[Path, ...]:
    table = json_of(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise LoadError(f"{index} lists no files of weights", remedy="save or download the model again")
    names = sorted(set(table.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise LoadError(
            f"{index} names {outside[0]!r}, which is no file of its own folder", remedy="download the model again"
        )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise LoadError(
            f"{index.parent} lacks {missing[0]}, one of {len(names)} files of weights", remedy="download the rest"
        )
    return tuple(index.parent / name for name in names)
