"""What no row opens gets one sentence that names the row that fits, or how to get from there to here."""

from pathlib import Path

import pytest

from signstep.errors import InputError
from signstep.model.opening import open_model, path_of, spelled


def laid(folder: Path) -> None:
    for name in ("saved/saved_model.pb", "hub/config.json", "hub/model.safetensors", "files/net.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("localhost:8000/predict", "is the address of an endpoint"),
        ("10.0.0.7/v1", "is the address of an endpoint"),
        ("api.example.com:443", "is the address of an endpoint"),
        ("saved", "is a TensorFlow SavedModel; export it to ONNX"),
        ("hub", "is a folder of transformers; pass 'hf:hub'"),
        ("hub/model.safetensors", "holds weights of a folder of transformers; pass 'hf:hub'"),
        ("files", "is a folder; pass the file in it, 'files/net.onnx'"),
        ("net.safetensors", "holds weights, which need an architecture; pass 'module:factory', weights="),
        ("net.pt", "holds weights, which need an architecture"),
        ("net.h5", "is a Keras model; export it to ONNX"),
        ("net.keras", "is a Keras model; export it to ONNX"),
        ("graph.pb", "is a TensorFlow graph; export it to ONNX"),
        ("net.tflite", "is a TensorFlow Lite model"),
        ("net.mlmodel", "is a Core ML model"),
        ("net.engine", "is a TensorRT engine"),
        ("nets.py", "is Python; name the function in it"),
        ("test.npz", "is arrays, which are data"),
        ("resnet18", "a model is written module:factory"),
    ],
)
def test_a_spelling_that_no_row_takes(spec: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        open_model(spec)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nets:net", ("nets:net", (), None)),
        ("nets:net@w.pt", ("nets:net", (), "w.pt")),
        ("nets.deep:net:width=3,size=(2,2)@a/w.pt", ("nets.deep:net", ("width=3", "size=(2,2)"), "a/w.pt")),
        ("net.pt2", ("net.pt2", (), None)),
        ("https://me@host:8000/p?a=b", ("https://me@host:8000/p?a=b", (), None)),
    ],
)
def test_one_word_for_model_arguments_and_weights(text: str, parts: tuple[str, tuple[str, ...], str | None]) -> None:
    found = spelled(text)
    assert (found.spec, found.args, None if found.weights is None else str(found.weights)) == parts


def test_the_path_behind_a_spelling() -> None:
    assert path_of("nets:net") is None
    assert path_of("a/net.pt2") == Path("a/net.pt2")
    assert path_of("what/ever") == Path("what/ever")
