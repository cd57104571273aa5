"""ONNX files: with gradients where the conversion agrees with ONNX Runtime, else asked; hostile ones are refused."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import CLASSES, SHAPE, data, needs, net, onnx_model

import signstep as ss
from signstep.cli import main
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.model.opening import onnx_file, onnx_network
from signstep.model.opening.onnx_network import OnnxNetwork
from signstep.model.victims import session

NET = Path("net.onnx")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    needs("onnx", "onnxruntime")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(model: Any, path: Path = NET) -> None:
    path.write_bytes(model.SerializeToString())


def graph_of(nodes: list[Any], shape: list[int | str], out: list[int | str], kept: list[Any] | None = None) -> Any:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("x", shape), ("y", out))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], kept or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# With gradients, or asked.


def test_a_graph_has_the_gradients_of_the_network_that_it_was_made_from() -> None:
    saved(onnx_model())
    model, (x, y) = ss.open("net.onnx"), data()
    assert isinstance(model.network, OnnxNetwork)
    assert model.shape == SHAPE
    assert model.title == "net.onnx (ONNX)"
    assert model.notes[0].startswith("converted to torch: on 64 inputs it differs from ONNX Runtime by ")
    mine, theirs = (
        torch.autograd.grad(network(leaf).logsumexp(1).sum(), leaf)[0]
        for network in (model.network, net())
        for leaf in (x.clone().requires_grad_(),)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    one, other = (ss.attack(m, x, y, threat=ss.linf(0.05), recipe="pgd:steps=4") for m in (model, ss.Model(net())))
    assert one.fooled.tolist() == other.fooled.tolist()


@pytest.mark.parametrize("rows", [1, 5])
def test_a_graph_for_a_number_of_rows_is_called_with_any(rows: int) -> None:
    saved(onnx_model(rows))
    model, (x, _) = ss.open("net.onnx"), data(7)
    torch.testing.assert_close(model(x), net()(x), rtol=1e-4, atol=1e-5)
    torch.autograd.backward(model(x).sum())


@pytest.mark.parametrize("rows", [1, 4])
def test_a_graph_with_its_rows_written_into_it_is_called_in_pieces(rows: int) -> None:
    from onnx import helper, numpy_helper

    kept = [
        numpy_helper.from_array(np.array([rows, 27], dtype=np.int64), "s"),
        numpy_helper.from_array(np.random.default_rng(0).normal(size=(27, 3)).astype(np.float32), "w"),
    ]
    nodes = [helper.make_node("Reshape", ["x", "s"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    saved(graph_of(nodes, [rows, 3, 3, 3], [rows, 3], kept))
    model = ss.open("net.onnx")
    x = torch.rand(6, 3, 3, 3, requires_grad=True)
    wanted = x.detach().reshape(6, 27) @ torch.from_numpy(numpy_helper.to_array(kept[1]).copy())
    torch.testing.assert_close(model.network(x), wanted, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(model.network(x).sum(), x)
    assert gradient.abs().sum() > 0


def unknown(rows: int | str = "rows") -> Any:
    """The same network with an operator that has no conversion between."""
    from onnx import helper, numpy_helper

    model = onnx_model(rows)
    sizes = numpy_helper.from_array(np.array([1, 1, 1, 1], dtype=np.float32), "scales")
    model.graph.initializer.append(sizes)
    model.graph.node[0].input[0] = "resized"
    node = helper.make_node("Resize", ["x", "", "scales"], ["resized"], mode="nearest")
    model.graph.node.insert(0, node)
    return model


def test_what_has_no_conversion_is_asked_and_the_operator_named(capsys: pytest.CaptureFixture[str]) -> None:
    saved(unknown())
    model, (x, y) = ss.open("net.onnx"), data()
    said = "it gives no gradients (there is no conversion of Resize): it is asked through ONNX Runtime"
    assert model.notes == (said,)
    torch.testing.assert_close(model(x), net()(x), rtol=1e-4, atol=1e-5)
    outcome = ss.attack(model, x, y, threat=ss.linf(0.1), recipe="square:queries=50")
    assert int(outcome.backwards.sum()) == 0
    np.savez("test.npz", x=x.numpy(), y=net()(x).argmax(1).numpy())
    words = ["--data", "test.npz", "--threat", "linf:0.1", "--limit", "6"]
    assert main(["audit", "--model", "net.onnx", *words]) == 0
    record = json.loads(Path("signstep-report/result.json").read_text())
    assert [entry["name"] for entry in record["attacks"]] == ["random-sign", "square:queries=500"]
    assert f"model: {said}" in record["notes"]
    capsys.readouterr()
    assert main(["verify", "signstep-report", "--model", "net.onnx", "--data", "test.npz"]) == 0
    assert main(["train", "--model", "net.onnx", *words]) == 2
    assert "has no weights to train" in capsys.readouterr().err


def test_a_conversion_that_disagrees_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    saved(onnx_model())
    apart = 2e-4 * float(net()(data()[0]).detach().abs().max().clamp_min(1.0))

    class Off(OnnxNetwork):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + apart

    right = onnx_network.converted

    def wrong(*given: Any) -> OnnxNetwork:
        network = right(*given)
        network.__class__ = Off
        return network

    monkeypatch.setattr(onnx_file, "converted", wrong)
    model = ss.open("net.onnx")
    assert not isinstance(model.network, torch.nn.Module)
    assert "its conversion differs from ONNX Runtime by" in model.notes[0]


def test_channels_last_are_put_in_order() -> None:
    from onnx import helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    kept = [numpy_helper.from_array(weight, "w")]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["a"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    for more in ([], [helper.make_node("Resize", ["x", "", "s"], ["r"], mode="nearest")]):
        if more:
            kept.append(numpy_helper.from_array(np.ones(4, dtype=np.float32), "s"))
            nodes[0].input[0] = "r"
        saved(graph_of([*more, *nodes], ["n", 8, 8, 3], ["n", 4], kept))
        model, x = ss.open("net.onnx", shape=(3, 8, 8)), torch.rand(5, 3, 8, 8)
        assert model.shape == (3, 8, 8)
        assert "it takes channels last: images are put in that order" in model.notes
        torch.testing.assert_close(model(x), x.mean((2, 3)) @ torch.from_numpy(weight), rtol=1e-4, atol=1e-5)
        with pytest.raises(InputError, match=r"takes examples of shape \(3, 8, 8\), these have \(3, 9, 9\)"):
            ss.open("net.onnx", shape=(3, 9, 9))


def test_sizes_that_the_file_leaves_open_are_those_of_the_data() -> None:
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3, 9, 9)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["y"]),
    ]
    saved(graph_of(nodes, ["n", 3, "h", "w_"], ["n", 4], [weight]))
    model = ss.open("net.onnx", shape=(3, 12, 10))
    assert model.shape == (3, None, None)
    assert isinstance(model.network, torch.nn.Module)
    assert model(torch.rand(2, 3, 20, 11)).shape == (2, 4)
    with pytest.raises(InputError, match="pass colour images"):
        ss.open("net.onnx", shape=(1, 12, 10))
    asked = ss.open("net.onnx", shape=(3, 4, 4))  # smaller than the kernel
    assert "ONNX Runtime cannot run it on inputs of shape (3, 4, 4)" in asked.notes[0]


def test_one_of_several_outputs_is_chosen_by_name() -> None:
    from onnx import TensorProto, helper

    model = onnx_model()
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    model.graph.output.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]))
    saved(model)
    opened, (x, _) = ss.open("net.onnx"), data()
    assert isinstance(opened.network, OnnxNetwork)
    assert opened.notes[1] == "of its outputs label, scores scores is read; output=NAME names another"
    labels = ss.open("net.onnx", args={"output": "label"})
    assert torch.equal(labels(x), net()(x).argmax(1))
    assert "it answers with labels" in labels.notes[0]
    with pytest.raises(InputError, match=r"output='none': net.onnx has the outputs label, scores"):
        ss.open("net.onnx", args={"output": "none"})
    with pytest.raises(InputError, match="takes no argument 'width'; the name of the scores is given as output"):
        ss.open("net.onnx", args={"width": 3})


def test_other_inputs_than_one_of_numbers_are_refused() -> None:
    from onnx import TensorProto, helper

    model = onnx_model()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["rows"]))
    model.graph.node.append(helper.make_node("Identity", ["mask"], ["same"]))
    saved(model)
    with pytest.raises(InputError, match=r"takes the inputs x tensor\(float\), mask tensor\(float\); attack a"):
        ss.open("net.onnx")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # the exporter's own
def test_what_exporters_write_is_converted() -> None:
    needs("onnxscript")
    from signstep.networks.vit import vit

    networks = {
        "vit": vit(channels=3, size=8, classes=4, patch=2, width=16, depth=1, heads=2),
        "cnn": torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, padding=1, stride=2),
            torch.nn.SiLU(),
            torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            torch.nn.Flatten(),
            torch.nn.Dropout(),
            torch.nn.Linear(64, 5),
            torch.nn.Softmax(1),
        ),
    }
    free = ({0: torch.export.Dim.DYNAMIC},)
    for name, network in networks.items():
        torch.onnx.export(
            network.eval(), (torch.zeros(2, 3, 8, 8),), f"{name}.onnx", dynamic_shapes=free, verbose=False
        )
        model, x = ss.open(f"{name}.onnx"), torch.rand(5, 3, 8, 8)
        assert isinstance(model.network, OnnxNetwork), model.notes
        torch.testing.assert_close(model(x), network(x), rtol=1e-4, atol=1e-5)


def test_a_classifier_of_skl2onnx_without_scores_says_how_to_get_them() -> None:
    from onnx import TensorProto, helper

    nodes = [helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    outs = [helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])]
    model = helper.make_model(helper.make_graph(nodes, "g", ends, outs), ir_version=8)
    model.opset_import[0].version = 17
    saved(model)
    assert ss.open("net.onnx").notes[1].endswith("has scores with zipmap=False")


# Files that mean harm, or are broken.


def external(location: str, **more: str) -> Any:
    """The model with one tensor in another file."""
    from onnx import TensorProto

    model = onnx_model()
    tensor = next(part for part in model.graph.initializer if part.name == "4.weight")
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    (Path("part.bin")).write_bytes(content)
    return model


def test_tensors_in_a_file_beside_it_are_read_and_hashed() -> None:
    saved(external("part.bin"))
    model, (x, _) = ss.open("net.onnx"), data()
    torch.testing.assert_close(model(x), net()(x), rtol=1e-4, atol=1e-5)
    before = model.hashes["weights"]
    Path("part.bin").write_bytes(Path("part.bin").read_bytes()[::-1])
    assert ss.open("net.onnx").hashes["weights"] != before


def absolute() -> Any:
    return external(str(Path("part.bin").resolve()))


def linked() -> Any:
    model = external("link.bin")
    outside = Path("..") / f"outside-{Path.cwd().name}.bin"
    outside.write_bytes(Path("part.bin").read_bytes())
    Path("link.bin").symlink_to(outside.resolve())
    return model


def above() -> Any:
    model = external("../outside.bin")
    Path("../outside.bin").write_bytes(Path("part.bin").read_bytes())
    return model


def huge() -> Any:
    model = onnx_model()
    model.graph.initializer[0].dims[:] = [2**20, 2**20, 2**20]
    return model


def negative() -> Any:
    model = onnx_model()
    model.graph.initializer[0].dims[:] = [-4, -3, -3, -3]
    return model


def typeless() -> Any:
    model = onnx_model()
    model.graph.initializer[0].data_type = 99
    return model


def bomb() -> Any:
    from onnx import helper, numpy_helper

    model = onnx_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**20], dtype=np.int64), "s"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["s"], ["zeros"]))
    return model


def hidden_bomb() -> Any:
    """The same inside of a branch's own constants."""
    from onnx import helper

    model = onnx_model()
    node = helper.make_node("Constant", [], ["s"], value_ints=[1])
    node.attribute[0].CopyFrom(helper.make_attribute("value", huge().graph.initializer[0]))
    model.graph.node.insert(0, node)
    return model


def empty() -> Any:
    model = onnx_model()
    del model.graph.node[:]
    return model


HOSTILE: dict[str, tuple[Callable[[], Any], str]] = {
    "a path from the root": (absolute, "lies in '/.*', outside of the model's folder"),
    "a folder above": (above, r"lies in '../outside.bin', outside of the model's folder"),
    "a link": (linked, "lies in 'link.bin', outside of the model's folder"),
    "no place": (lambda: external(""), "lies in '', outside of the model's folder"),
    "a file that is not there": (lambda: external("none.bin"), "which is missing; copy that file beside net.onnx too"),
    "a longer file": (lambda: external("part.bin", length="99999999"), "bytes of part.bin, which has fewer"),
    "an offset behind the end": (lambda: external("part.bin", offset="4"), "bytes of part.bin, which has fewer"),
    "an offset in words": (lambda: external("part.bin", offset="-1"), "bytes of part.bin, which has fewer"),
    "a huge tensor": (huge, "over 8589934592; save it in parts"),
    "a negative size": (negative, "claims the shape"),
    "an unknown type": (typeless, r"has no type that there is \(99\)"),
    "a spread constant": (bomb, "what ConstantOfShape makes has .* bytes, over"),
    "a constant in a node": (hidden_bomb, "bytes, over"),
    "no nodes": (empty, "holds no graph of ONNX"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_before_it_is_opened(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, said = HOSTILE[name]
    saved(make())
    monkeypatch.setattr(session.Session, "of", lambda *_, **__: pytest.fail("ONNX Runtime was asked"))
    with pytest.raises(LoadError, match=said) as caught:
        ss.open("net.onnx")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\x08" * 9])
def test_no_model_is_one_sentence(content: bytes) -> None:
    NET.write_bytes(content)
    with pytest.raises(LoadError, match=r"cannot be loaded as an ONNX model|holds no graph of ONNX") as caught:
        ss.open("net.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("at", range(0, 1200, 97))
def test_a_flipped_byte_is_a_model_or_one_sentence(at: int) -> None:
    """Whatever it turns into: a `Model`, or an error of ours; never another exception."""
    content = bytearray(onnx_model().SerializeToString())
    content[at % len(content)] ^= 0x55
    NET.write_bytes(bytes(content))
    with contextlib.suppress(LoadError, InputError):
        ss.open("net.onnx")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    saved(onnx_model())
    for package in ("onnxruntime", "onnx"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtraError, match=rf"needs the package {package}; run pip install .*onnx"):
                ss.open("net.onnx")


def test_opening_one_prints_nothing() -> None:
    saved(onnx_model())
    code = "import signstep as ss; ss.open('net.onnx')"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert CLASSES == 3
