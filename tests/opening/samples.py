"""For each row of the table of openers a small model made on the spot, and the same model by a factory.

A row without a sample fails the laws: whoever adds one adds how it is tried.
"""

import atexit
import importlib.util
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.model import victims
from signstep.model.opening.pretrained import quiet

SHAPE, CLASSES = (3, 6, 6), 3


@dataclass(frozen=True)
class Sample:
    """What a row opens.

    Attributes:
        spec: as it is typed.
        twin: the same model, made without the table.
        options: of `signstep.open`.
        broken: spoils the file or folder; None where the row reads none.
        shape: of one input.
    """

    spec: str
    twin: ss.Model
    options: Mapping[str, Any] = field(default_factory=dict)
    broken: Callable[[], None] | None = None
    shape: tuple[int, ...] = SHAPE


class Net(nn.Module):
    """A convolution, a batch normalisation, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(SHAPE[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.body(x)
        return scores


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval()


def data(rows: int = 24, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(rows, *shape, generator=generator, dtype=torch.float32)
    return (x * 255).round() / 255, torch.arange(rows, dtype=torch.int64) % CLASSES


def needs(*packages: str) -> None:
    """Skip, visibly, where a package is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the package {package}")


def factory(folder: Path) -> Sample:
    (folder / "opened_by_name.py").write_text("from samples import net\n")
    return Sample("opened_by_name:net", ss.Model(net()))


def exported(folder: Path) -> Sample:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(net(), (torch.zeros(4, *SHAPE, dtype=torch.float32),), dynamic_shapes=shapes)
    path = folder / "net.pt2"
    torch.export.save(program, path)
    return Sample("net.pt2", ss.Model(net()), {"trust": True}, lambda: halved(path))


def fitted() -> Any:
    needs("sklearn")
    from sklearn.linear_model import LogisticRegression

    x, y = data(60)
    return LogisticRegression(C=100.0).fit(x.flatten(1).numpy(), np.array(["ape", "bee", "cat"])[y.numpy()])


def skops(folder: Path) -> Sample:
    needs("skops")
    estimator = fitted()
    import skops.io

    path = folder / "trees.skops"
    skops.io.dump(estimator, path)
    return Sample("trees.skops", ss.Model(victims.from_sklearn(estimator)), broken=lambda: halved(path))


def pickle(folder: Path) -> Sample:
    estimator = fitted()
    import joblib

    path = folder / "trees.joblib"
    joblib.dump(estimator, path)
    return Sample("trees.joblib", ss.Model(victims.from_sklearn(estimator)), {"trust": True}, lambda: halved(path))


def vit() -> nn.Module:
    """A vision transformer of a few hundred weights, from a configuration."""
    needs("transformers", "PIL")
    import transformers

    names = dict(enumerate(("ape", "bee", "cat")))
    config = transformers.ViTConfig(
        image_size=SHAPE[1],
        patch_size=3,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Any = transformers.ViTForImageClassification(config)
        network.eval()
        with torch.no_grad():  # else all answers are alike
            for part in network.parameters():
                if part.ndim > 1:
                    part.normal_(std=0.3)
            network.classifier.bias.sub_(network(data()[0]).logits.mean(0))
    made: nn.Module = network
    return made


def saved_vit(folder: Path, **processor: Any) -> nn.Module:
    """The same as a folder, with a processor."""
    network = vit()
    import transformers

    settings = {"size": {"height": SHAPE[1], "width": SHAPE[2]}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.5] * 3}
    with quiet():
        network.save_pretrained(folder)  # type: ignore[operator]
        transformers.ViTImageProcessor(**(settings | processor)).save_pretrained(folder)
    return network


def huggingface(folder: Path) -> Sample:
    network, place = saved_vit(folder / "vit"), folder / "vit" / "model.safetensors"
    twin = ss.Model(network, mean=(0.4, 0.5, 0.6), std=(0.5, 0.5, 0.5))
    return Sample("hf:vit", twin, broken=lambda: halved(place))


def onnx_model(rows: int | str = "rows") -> Any:
    """The network of the samples as a graph, written node by node."""
    needs("onnx", "onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    weights = {name.removeprefix("body."): part.numpy() for name, part in net().state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["x", "0.weight", "0.bias"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["a", *(f"1.{n}" for n in _STATISTICS)], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "4.weight", "4.bias"], ["scores"], transB=1),
    ]
    ends = (("x", [rows, *SHAPE]), ("scores", [rows, CLASSES]))
    given, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    kept = [numpy_helper.from_array(part, name) for name, part in weights.items() if part.ndim]
    graph = helper.make_graph(nodes, "net", [given], [out], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def onnx_file(folder: Path) -> Sample:
    model = onnx_model()
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return Sample("net.onnx", ss.Model(net()), broken=lambda: halved(path))


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def torchvision(folder: Path) -> Sample:  # noqa: ARG001 - it reads none
    needs("torchvision")
    import torchvision.models

    network = seeded(lambda: torchvision.models.get_model("mobilenet_v3_small", weights=None))
    options = {"args": {"weights": None}}
    return Sample(
        "torchvision:mobilenet_v3_small",
        ss.Model(network, mean=IMAGENET["mean"], std=IMAGENET["std"]),
        options,
        shape=(3, 224, 224),
    )


def timm(folder: Path) -> Sample:  # noqa: ARG001 - it reads none
    needs("timm")
    import timm

    network = seeded(lambda: timm.create_model("test_resnet", pretrained=False))
    options = {"args": {"pretrained": False}}
    twin = ss.Model(network, mean=0.5, std=0.5)
    return Sample("timm:test_resnet", twin, options, shape=(3, 160, 160))


class Answering(BaseHTTPRequestHandler):
    """The network behind HTTP on this machine."""

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        with torch.no_grad():
            scores = net()(torch.tensor(given, dtype=torch.float32)).tolist()
        body = json.dumps({"scores": scores}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@cache
def server() -> ThreadingHTTPServer:
    """One for all tests of a process."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    made.daemon_threads = True
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    atexit.register(made.server_close)
    atexit.register(made.shutdown)
    return made


def https(folder: Path) -> Sample:
    path = folder / "victim.toml"
    path.write_text('[request]\nas = "array"\nbatch = 64\n\n[answer]\nis = "scores"\nat = "scores[]"\n')
    url = f"http://127.0.0.1:{server().server_port}/"
    return Sample(url, ss.Model(victims.from_numpy(_answers)), {"endpoint": "victim.toml"}, lambda: halved(path))


def _answers(x: Any) -> Any:
    with torch.no_grad():
        return net()(torch.from_numpy(x)).double().numpy()


def seeded(make: Callable[[], Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = make()
    return network.eval()


SAMPLES: dict[str, Callable[[Path], Sample]] = {
    "torchvision": torchvision,
    "timm": timm,
    "factory": factory,
    "hf": huggingface,
    "exported": exported,
    "onnx": onnx_file,
    "skops": skops,
    "pickle": pickle,
    "https": https,
}


def halved(path: Path) -> None:
    """Cut a file in the middle, as a download that broke off does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
