"""For what no row takes: one sentence that names the row that fits, or how to get from there to here."""

import re
from pathlib import Path

from signstep.errors import InputError
from signstep.io.files import expanded
from signstep.messages import Arg, Blank, Part
from signstep.model.victims.address import bare, is_loopback

_WEIGHTS = (".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin")
# A host with a port, a path or both: api.example.com alone could be anything.
_HOST = re.compile(r"(localhost|\d+(\.\d+){3}|[\w-]+(\.[\w-]+)+)((:\d+)(/\S*)?|/\S*)")
_KERAS = ("a Keras model", "export it to ONNX (model.export(path, format='onnx')) and pass the .onnx file")
_CORE_ML = (
    "a Core ML model",
    "pass the model that it was converted from, or let a factory return a function that asks it, "
    "signstep.model.victims.from_numpy",
)
_TENSORRT = ("a TensorRT engine, made for one machine", "pass the .onnx file that it was built from")
_AS_DATA = ("pass it as", Arg("data"), ", and a model as", Arg("model"))
# What a file is, and what to do.
_FILES: dict[str, tuple[str, *tuple[Part, ...]]] = {
    ".h5": _KERAS,
    ".keras": _KERAS,
    ".pb": ("a TensorFlow graph", "export it to ONNX (python -m tf2onnx.convert) and pass the .onnx file"),
    ".tflite": ("a TensorFlow Lite model", "export it (python -m tf2onnx.convert) and pass the .onnx file"),
    ".mlmodel": _CORE_ML,
    ".mlpackage": _CORE_ML,
    ".engine": _TENSORRT,
    ".plan": _TENSORRT,
    ".gguf": ("a file of llama.cpp, whose models write text", "pass a model that decides, which is what is attacked"),
    ".py": ("Python", "name the function in it that returns the model, module:factory"),
    ".npz": ("arrays, which are data", *_AS_DATA),
    ".csv": ("a table, which is data", *_AS_DATA),
}


def advice(spec: str) -> InputError | None:
    """The error that says it; None for what looks like "module:factory" and is not written so."""
    path = expanded(spec)
    suffix = path.suffix.lower()
    if path.is_dir():
        said = _folder(path)
        if said is not None:
            return InputError(f"{spec} is {said[0]}", remedy=said[1:])
    if suffix in _WEIGHTS:
        if (path.parent / "config.json").is_file():
            return InputError(
                f"{spec} holds weights of a folder of transformers",
                remedy=("pass", _spec(f"hf:{path.parent}")),
            )
        return InputError(
            f"{spec} holds weights, which need an architecture",
            remedy=("pass", _spec("module:factory"), Arg("weights", spec)),
        )
    if suffix in _FILES and ":" not in spec:
        return InputError(f"{spec} is {_FILES[suffix][0]}", remedy=_FILES[suffix][1:])
    if _HOST.fullmatch(spec) is not None and not path.exists():
        here = is_loopback(re.split("[:/]", spec)[0])
        return InputError(
            f"{bare(spec)} is the address of an endpoint, and how it is reached is not said",
            remedy=(
                "pass",
                _spec(f"{'http' if here else 'https'}://{bare(spec)}"),
                Arg("endpoint", Blank("file.toml")),
            ),
        )
    return None


def _folder(path: Path) -> tuple[str, *tuple[Part, ...]] | None:
    if (path / "saved_model.pb").is_file():
        return "a TensorFlow SavedModel", "export it to ONNX (python -m tf2onnx.convert) and pass the .onnx file"
    if (path / "config.json").is_file() or (path / "preprocessor_config.json").is_file():
        return "a folder of transformers", "pass", _spec(f"hf:{path}")
    if path.suffix.lower() in _FILES:
        return _FILES[path.suffix.lower()]
    files = sorted(one.name for one in path.glob("*.onnx"))
    if files:
        return "a folder", "pass the file in it,", _spec(str(path / files[0]))
    return None


def _spec(text: str) -> Arg:
    """What to open instead; the command line has an option for it."""
    return Arg("model", text, python=repr(text))
