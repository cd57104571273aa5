import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from signstep.data import open_data
from signstep.detectors.seen import Reader, Seen
from signstep.errors import LoadError
from signstep.model.opening import open_model
from signstep.networks.mobilenet import mobilenet_v2

SHARED = Path(__file__).parents[2] / ".." / "shared"
NAME = "mobilenet_v2_1.0_224"


def conv(out: int, into: int, key: str, **more: Any) -> dict[str, Any]:
    entry = {"op": "CONV_2D", "inputs": [into], "out": out, "key": key, "stride": 1, "pad": "SAME", "act": "none"}
    return {**entry, **more}


OPS: list[dict[str, Any]] = [
    conv(7, 0, "stem", stride=2, act="relu6"),
    conv(8, 7, "deep", op="DEPTHWISE_CONV_2D", stride=2, act="relu6"),
    conv(9, 8, "flat"),
    {"op": "ADD", "inputs": [9, 8], "out": 10},
    {"op": "AVERAGE_POOL_2D", "inputs": [10], "out": 11},
    conv(12, 11, "head"),
    {"op": "RESHAPE", "inputs": [12], "out": 13},
    {"op": "SOFTMAX", "inputs": [13], "out": 14},
]


def arrays() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    draw = np.random.default_rng(0)
    shapes = {"stem": (4, 3, 3, 3), "deep": (4, 1, 3, 3), "flat": (4, 4, 1, 1), "head": (5, 4, 1, 1)}
    made = {}
    for key, shape in shapes.items():
        made[f"{key}.weight"] = draw.normal(size=shape).astype(np.float32)
        made[f"{key}.bias"] = draw.normal(size=shape[0]).astype(np.float32)
    return made


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a made-up network of the same kinds of operations."""
    write(tmp_path, OPS)
    np.savez(tmp_path / "net.npz", **arrays())  # type: ignore[arg-type]
    return tmp_path


def write(folder: Path, ops: list[dict[str, Any]]) -> None:
    (folder / "net_ops.json").write_text(json.dumps({"input": 0, "ops": ops}))


def test_the_operations_by_hand(tiny: Path) -> None:
    model = mobilenet_v2(tiny, "net")
    assert not any(module.training for module in model.modules())
    w = {name: torch.from_numpy(array) for name, array in arrays().items()}
    x = torch.rand(3, 3, 8, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    # TensorFlow's SAME at stride 2: 8 -> 4 takes one row below, 7 -> 4 one column on either side.
    out = F.relu6(F.conv2d(F.pad(2 * x - 1, (1, 1, 0, 1)), w["stem.weight"], w["stem.bias"], 2))
    assert out.shape == (3, 4, 4, 4)
    out = F.relu6(F.conv2d(F.pad(out, (0, 1, 0, 1)), w["deep.weight"], w["deep.bias"], 2, groups=4))
    out = out + F.conv2d(out, w["flat.weight"], w["flat.bias"])
    logits = F.conv2d(out.mean((2, 3), keepdim=True), w["head.weight"], w["head.bias"]).flatten(1)
    torch.testing.assert_close(model(x), logits)
    # What detectors of features look at is the pooled map that the last convolution is given.
    torch.testing.assert_close(Seen(Reader.of(model), x.detach()).features, out.mean((2, 3)))
    ours, theirs = (torch.autograd.grad(scores[:, 1].sum(), x)[0] for scores in (model(x), logits))
    torch.testing.assert_close(ours, theirs)


def test_from_a_spec_and_with_weights_of_its_own_names(tiny: Path) -> None:
    loaded = open_model("signstep.networks.mobilenet:mobilenet_v2", args={"folder": str(tiny), "name": "net"})
    assert set(loaded.module.state_dict()) == set(arrays())


def test_missing_files(tiny: Path) -> None:
    with pytest.raises(LoadError, match=r"other\.npz does not exist; pass the folder that holds both files"):
        mobilenet_v2(tiny, "other")
    (tiny / "net_ops.json").unlink()
    with pytest.raises(LoadError, match=r"net_ops\.json does not exist; pass the folder .* --model-arg folder="):
        mobilenet_v2(tiny, "net")


def test_damaged_files(tiny: Path) -> None:
    (tiny / "net.npz").write_bytes(b"PK no archive")
    with pytest.raises(LoadError, match=r"net\.npz cannot be read as a NumPy archive \(.*; download it again"):
        mobilenet_v2(tiny, "net")
    for text in ("{", "[]", '{"input": 0}', '{"input": 0, "ops": [{"op": "ADD"}]}'):
        (tiny / "net_ops.json").write_text(text)
        with pytest.raises(LoadError, match=r"net_ops\.json is no list of operations \(.*; download it again"):
            mobilenet_v2(tiny, "net")


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([{"op": "TANH", "inputs": [0], "out": 1}], r"the operation 'TANH' is not known here"),
        ([{"op": "ADD", "inputs": [0], "out": 1}], r"ADD with 1 inputs"),
        ([conv(1, 0, "stem", pad="VALID")], r"pad 'VALID'"),
        ([conv(1, 0, "stem", act="swish")], r"act 'swish'"),
        ([conv(1, 2, "stem")], r"operation 0 takes a value that none before it gives"),
        ([], r"a softmax must come last, behind other operations"),
        ([OPS[-1], conv(15, 14, "stem")], r"operation 0 takes a value"),
        ([{"op": "SOFTMAX", "inputs": [0], "out": 1}, conv(2, 1, "stem")], r"a softmax must come last"),
    ],
)
def test_operations_that_cannot_be_run(tiny: Path, ops: list[dict[str, Any]], message: str) -> None:
    write(tiny, ops)
    with pytest.raises(LoadError, match=message):
        mobilenet_v2(tiny, "net")


def test_files_that_do_not_belong_together(tiny: Path) -> None:
    write(tiny, [conv(1, 0, "absent")])
    with pytest.raises(LoadError, match=r"net\.npz has no absent\.weight, .*; pass two files that belong"):
        mobilenet_v2(tiny, "net")
    write(tiny, [conv(1, 0, "stem", op="DEPTHWISE_CONV_2D")])
    with pytest.raises(LoadError, match=r"stem\.weight \(4, 3, 3, 3\) and stem\.bias \(4,\) do not make a DEPTHWISE"):
        mobilenet_v2(tiny, "net")


def test_weights_that_are_not_finite(tiny: Path) -> None:
    bad = arrays()
    bad["deep.bias"][1] = np.nan
    np.savez(tiny / "net.npz", **bad)  # type: ignore[arg-type]
    with pytest.raises(LoadError, match=r"deep\.bias holds something else than finite floats"):
        mobilenet_v2(tiny, "net")


@pytest.mark.skipif(
    not (SHARED / "models" / f"{NAME}.npz").is_file() or not (SHARED / "data" / "photos").is_dir(),
    reason="needs ../shared/models and ../shared/data/photos beside the checkout",
)
def test_the_reference_network_on_photographs(tmp_path: Path) -> None:
    photos = sorted((SHARED / "data" / "photos").glob("imagenet_*_*.jpg"))
    assert len(photos) == 20
    for place, photo in enumerate(photos):
        folder = tmp_path / f"{place:02d}"  # one folder each, so that they are read in this order
        folder.mkdir()
        (folder / photo.name).write_bytes(photo.read_bytes())
    classes = torch.tensor([int(photo.stem.rpartition("_")[2]) for photo in photos]) + 1
    model = mobilenet_v2(SHARED / "models")
    with torch.no_grad():
        answers = torch.cat([model(x).argmax(1) for x, _ in open_data(tmp_path, resize=(224, 224), batch_size=5)])
    assert model(torch.rand(1, 3, 224, 224)).shape == (1, 1001)
    assert int((answers == classes).sum()) >= 17  # 18: a Jeep is called a convertible, a bald eagle a kite
