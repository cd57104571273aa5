"""The commands of docs/open.md run, with small models made on the spot under the names that the page has."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import needs
from torch import Tensor, nn

from signstep.cli import main
from signstep.export import write_png
from signstep.model.opening import OPENERS
from signstep.model.opening.pretrained import quiet

PAGE = Path(__file__).resolve().parents[2] / "docs" / "open.md"
TEXT = PAGE.read_text(encoding="utf-8")
MYNET = """
import torch
from signstep.model import victims
from test_open_page import Pooled, named

def build():
    return Pooled()

def asked():
    net = Pooled()
    return victims.from_numpy(lambda x: net(torch.from_numpy(x)).detach().numpy())
"""


class Pooled(nn.Module):
    """For images of any size: the mean of each channel decides."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(5 * torch.eye(3, dtype=torch.float32, device="cpu"))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


def named() -> tuple[str, ...]:
    return ("cat", "dog", "fox")


_OF_VISION = re.compile("torchvision:|timm:")


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("signstep ")]


def photos(_: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for number, name in enumerate(named()):
        place = Path("photos") / name
        place.mkdir(parents=True)
        images = 0.3 * torch.rand(2, 3, 32, 32, generator=generator)
        images[:, number] += 0.5
        write_png(images, [place / f"{row}.png" for row in range(2)], low=0.0, high=1.0)


def arrays(_: Path) -> None:
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    np.savez("test.npz", x=x.numpy(), y=Pooled()(x).argmax(1).numpy())


def mynet(_: Path) -> None:
    from safetensors.torch import save_file

    Path("mynet.py").write_text(MYNET)
    save_file(Pooled().state_dict(), "net.safetensors")


def vit(_: Path) -> None:
    needs("transformers", "PIL")
    import transformers

    names = dict(enumerate(named()))
    config = transformers.ViTConfig(
        image_size=224,
        patch_size=56,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        transformers.ViTForImageClassification(config).save_pretrained("vit")
        transformers.ViTImageProcessor().save_pretrained("vit")


def program(_: Path) -> None:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(Pooled(), (torch.zeros(4, 3, 32, 32, dtype=torch.float32),), dynamic_shapes=shapes)
    torch.export.save(exported, "net.pt2")


def onnx(_: Path) -> None:
    needs("onnx", "onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(part.numpy(), name) for name, part in Pooled().state_dict().items()]
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["a"]),
        helper.make_node("Flatten", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    ends: tuple[tuple[str, list[str | int | None]], ...] = (("x", ["n", 3, 32, 32]), ("y", ["n", 3]))
    given, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    graph = helper.make_graph(nodes, "net", [given], [out], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    Path("net.onnx").write_bytes(model.SerializeToString())


def table() -> tuple["np.ndarray[tuple[int, ...], np.dtype[np.float64]]", list[str]]:
    rows = np.random.default_rng(0).normal(size=(12, 3)).round(3)
    kinds = [("ash", "elm", "oak")[number % 3] for number in range(12)]
    rows[:, 0] += np.arange(12) % 3 * 2
    Path("trees.csv").write_text(
        "height,girth,age,kind\n"
        + "".join(f"{','.join(map(str, row))},{kind}\n" for row, kind in zip(rows.tolist(), kinds, strict=True))
    )
    return rows, kinds


def skops(_: Path) -> None:
    needs("sklearn", "skops")
    import skops.io
    from sklearn.linear_model import LogisticRegression

    skops.io.dump(LogisticRegression().fit(*table()), "trees.skops")


def pickle(_: Path) -> None:
    needs("sklearn")
    import joblib
    from sklearn.linear_model import LogisticRegression

    joblib.dump(LogisticRegression().fit(*table()), "trees.joblib")


def description(_: Path) -> None:
    Path("victim.toml").write_text('[request]\nas = "png"\n[answer]\nis = "scores"\nclasses = ["cat", "dog", "fox"]\n')


def library(name: str) -> Callable[[Path], None]:
    return lambda _: needs(name)


# What lies in the folder of whoever types a command with one of these words in it.
MADE: dict[str, Callable[[Path], None]] = {
    "photos": photos,
    "test.npz": arrays,
    "mynet:": mynet,
    "hf:vit": vit,
    "net.pt2": program,
    "net.onnx": onnx,
    "trees.skops": skops,
    "trees.joblib": pickle,
    "torchvision:": library("torchvision"),
    "timm:": library("timm"),
    "victim.toml": description,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch.export's own
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(line, marks=pytest.mark.vision) if re.search("torchvision:|timm:", line) else line
        for line in commands()
    ],
)
def test_a_command_of_the_page_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for word, make in MADE.items():
        if word in command:
            make(tmp_path)
    words = shlex.split(command)[1:]
    if _OF_VISION.search(command):  # nothing is downloaded in tests
        words += ["--model-arg", "weights=none" if "torchvision:" in command else "pretrained=false"]
        words += ["--model-arg", "num_classes=3", "--attack", "fgsm"]
    assert main(words) == 0
    shutil.rmtree(tmp_path / "photos", ignore_errors=True)


def test_the_table_has_the_commands_and_every_row_is_on_the_page() -> None:
    rows = re.findall(r"^\| .*`(signstep [^`]+)` \|$", TEXT, re.MULTILINE)
    assert rows
    assert set(rows) <= set(commands())
    for row in OPENERS.own.values():
        spelled = (*row.prefixes, *row.suffixes) or ("mynet:",)
        assert any(text in TEXT for text in spelled), f"{row.name} has no place on {PAGE.name}"


def test_what_the_page_says_of_tolerance_and_inputs_is_so() -> None:
    from signstep.model.opening.onnx_file import AGREES, COMPARED

    assert f"on {COMPARED} inputs" in TEXT
    assert AGREES == 1e-4
    assert "no more than 1e-4 of the largest one" in TEXT
