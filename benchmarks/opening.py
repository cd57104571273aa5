"""What it costs to open a model by its spelling: forward passes, and milliseconds beside the same model made by hand.

    python benchmarks/opening.py

Small networks, made on the spot; what is missing here (transformers, onnx) is left out with a line. A pass is a call of
the outermost module, of whatever number of inputs.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import signstep as ss
from signstep.networks.small import digits_cnn

TRIES = 9
X, Y = torch.rand(64, 3, 16, 16), torch.arange(64) % 4


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 4))


def factory() -> tuple[str, Callable[[], Any]]:
    return "signstep.networks.small:digits_cnn", digits_cnn


def huggingface() -> tuple[str, Callable[[], Any]]:
    import transformers

    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_labels": 4,
    }
    config = transformers.ViTConfig(image_size=16, patch_size=4, **small)
    transformers.ViTForImageClassification(config).save_pretrained("vit")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained("vit")
    return "hf:vit", lambda: transformers.AutoModelForImageClassification.from_pretrained("vit").eval()


def onnx() -> tuple[str, Callable[[], Any]]:
    import onnx as graphs
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    state = {name: numpy_helper.from_array(part.numpy(), name) for name, part in network().state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["x", "0.weight", "0.bias"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "3.weight", "3.bias"], ["y"], transB=1),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "net", [given], [out], list(state.values()))
    graphs.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net.onnx")
    return "net.onnx", lambda: onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])


def passes(work: Callable[[], Any]) -> int:
    """Calls of outermost modules while ``work`` runs."""
    depth, count = [0], [0]

    def enter(*_: object) -> None:
        count[0] += depth[0] == 0
        depth[0] += 1

    def leave(*_: object) -> None:
        depth[0] -= 1

    before = nn.modules.module.register_module_forward_pre_hook(enter)
    after = nn.modules.module.register_module_forward_hook(leave, always_call=True)
    try:
        work()
    finally:
        before.remove()
        after.remove()
    return count[0]


def milliseconds(work: Callable[[], Any]) -> float:
    taken = []
    for _ in range(TRIES):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def main() -> None:
    torch.set_num_threads(1)
    print("model                                passes   ss.open, ms   by hand, ms")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for make in (factory, huggingface, onnx):
            try:
                spelling, by_hand = make()
            except ImportError as error:
                print(f"{make.__name__}: left out, {error}", file=sys.stderr)
                continue

            def opened(spelling: str = spelling) -> ss.Model:
                return ss.open(spelling)

            opened()  # imports
            by_hand()
            counted = passes(opened)
            print(f"{spelling:36} {counted:6} {milliseconds(opened):13.1f} {milliseconds(by_hand):13.1f}")
        os.chdir(Path(folder).parent)


if __name__ == "__main__":
    main()
