"""Every operator of the conversion answers as ONNX Runtime does, and its gradient is that of what this computes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from samples import needs

from signstep.model.opening.onnx_network import converted
from signstep.model.opening.onnx_operators import OPERATORS
from signstep.model.opening.onnx_said import Unconverted

GRID, LIST = (2, 3, 6, 6), (2, 5)


class Case(NamedTuple):
    """A node between an input x and the output; constants are its further inputs."""

    shape: Sequence[int] = GRID
    constants: Sequence[Any] = ()
    attributes: Mapping[str, Any] = {}
    opset: int = 17
    before: str = ""  # a node in front of it, for those that take whole numbers or truth values


def drawn(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    generator = np.random.default_rng(sum(shape))
    return generator.uniform(0.2, 1.0, size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def scalar(value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(value, dtype=np.float32)


KERNEL = {"kernel_shape": [3, 3]}
CASES: dict[str, list[Case]] = {
    **{
        name: [Case(LIST)]
        for name in (
            *(
                "Neg",
                "Abs",
                "Sqrt",
                "Exp",
                "Log",
                "Erf",
                "Reciprocal",
                "Relu",
                "Sigmoid",
                "HardSwish",
                "Tanh",
                "Softplus",
            ),
            *("Softsign", "Identity", "Transpose", "Flatten", "Floor", "Dropout"),
        )
    },
    **{name: [Case(LIST, [drawn(5)]), Case(LIST, [drawn(2, 1)])] for name in ("Add", "Sub", "Mul", "Div", "Pow")},
    **{name: [Case(LIST, [drawn(5), drawn(2, 1)])] for name in ("Max", "Min", "Sum")},
    **{name: [Case(LIST, [drawn(5)])] for name in ("Equal", "Greater", "Less")},
    "Not": [Case(LIST, before="Greater")],
    "And": [Case(LIST, [np.array([True, False, True, False, True])], before="Greater")],
    "Where": [Case(LIST, [drawn(2, 5), drawn(5)], before="Greater")],
    "LeakyRelu": [Case(LIST), Case(LIST, attributes={"alpha": 0.3})],
    "Elu": [Case(LIST), Case(LIST, attributes={"alpha": 0.3})],
    "Selu": [Case(LIST), Case(LIST, attributes={"alpha": 1.2, "gamma": 0.5})],
    "HardSigmoid": [Case(LIST), Case(LIST, attributes={"alpha": 0.3, "beta": 0.1})],
    "PRelu": [Case(GRID, [drawn(3, 1, 1)])],
    "Mish": [Case(LIST, opset=18)],
    "Gelu": [Case(LIST, opset=20), Case(LIST, attributes={"approximate": "tanh"}, opset=20)],
    "Softmax": [Case(GRID), Case(GRID, attributes={"axis": 1}), Case(GRID, opset=11), Case(LIST, opset=11)],
    "LogSoftmax": [Case(LIST), Case(GRID, attributes={"axis": 2}, opset=11)],
    "Clip": [
        Case(LIST, [scalar(0.3), scalar(0.6)]),
        Case(LIST, [scalar(0.5)]),
        Case(LIST, attributes={"min": 0.3, "max": 0.7}, opset=10),
    ],
    "Cast": [Case(LIST, attributes={"to": 11}), Case(LIST, attributes={"to": 7})],
    "Conv": [
        Case(GRID, [drawn(4, 3, 3, 3), drawn(4)], KERNEL),
        Case(GRID, [drawn(4, 3, 3, 3)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        Case(GRID, [drawn(4, 3, 3, 3)], {"pads": [0, 1, 2, 1], "dilations": [2, 1]}),
        Case(GRID, [drawn(6, 1, 3, 3)], {"group": 3, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        Case(GRID, [drawn(4, 3, 2, 2)], {"auto_pad": "SAME_LOWER"}),
        Case(GRID, [drawn(4, 3, 2, 2)], {"auto_pad": "VALID"}),
        Case((2, 3, 7), [drawn(4, 3, 3)], {"pads": [2, 0]}),
    ],
    "ConvTranspose": [Case(GRID, [drawn(3, 2, 3, 3), drawn(2)], {"strides": [2, 2], "pads": [1, 1, 1, 1]})],
    "MaxPool": [
        Case(GRID, attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
        Case(GRID, attributes={**KERNEL, "pads": [1, 1, 1, 1]}),
        Case(GRID, attributes={**KERNEL, "pads": [0, 0, 2, 2], "strides": [2, 2]}),
        Case(GRID, attributes={"kernel_shape": [4, 4], "strides": [4, 4], "ceil_mode": 1}),
        Case(GRID, attributes={**KERNEL, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ],
    "AveragePool": [
        Case(GRID, attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
        Case(GRID, attributes={**KERNEL, "pads": [1, 1, 1, 1]}),
        Case(GRID, attributes={**KERNEL, "pads": [1, 0, 1, 2], "count_include_pad": 1}),
        Case(GRID, attributes={**KERNEL, "auto_pad": "SAME_UPPER"}),
    ],
    "GlobalAveragePool": [Case(GRID)],
    "GlobalMaxPool": [Case(GRID)],
    "BatchNormalization": [Case(GRID, [drawn(3), drawn(3), drawn(3), drawn(3)], {"epsilon": 1e-3})],
    "InstanceNormalization": [Case(GRID, [drawn(3), drawn(3)])],
    "LayerNormalization": [
        Case(LIST, [drawn(5), drawn(5)]),
        Case(GRID, [drawn(6, 6), drawn(6, 6)], {"axis": 2}),
    ],
    "GroupNormalization": [Case((2, 4, 3, 3), [drawn(4), drawn(4)], {"num_groups": 2}, opset=21)],
    "LRN": [Case(GRID, attributes={"size": 3, "alpha": 0.5})],
    "Gemm": [
        Case(LIST, [drawn(5, 3), drawn(3)]),
        Case(LIST, [drawn(3, 5), drawn(1)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
        Case(LIST, [drawn(2, 3)], {"transA": 1}),
    ],
    "MatMul": [Case(LIST, [drawn(5, 3)]), Case(GRID, [drawn(6, 2)])],
    "Pad": [
        Case(GRID, [ints(0, 0, 1, 2, 0, 0, 3, 0)]),
        Case(GRID, [ints(0, 1, 1, 0, 0, 0, 0, 2), scalar(0.7)]),
        Case(GRID, [ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "reflect"}),
        Case(GRID, [ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "edge"}),
        Case(GRID, attributes={"pads": [0, 0, 1, 0, 0, 0, 0, 1], "value": 0.2}, opset=10),
        Case(GRID, [ints(1, 2), scalar(0.1), ints(-2)], opset=18),
    ],
    "Reshape": [Case(GRID, [ints(0, -1)]), Case(GRID, [ints(2, 9, 12)])],
    "Concat": [Case(LIST, [drawn(2, 3)], {"axis": 1})],
    "Split": [
        Case(LIST, [ints(2, 3)], {"axis": 1}),
        Case(GRID, attributes={"axis": 1, "split": [1, 2]}, opset=11),
    ],
    "Slice": [
        Case(GRID, [ints(1, 0), ints(3, -1), ints(1, 2)]),
        Case(GRID, [ints(0), ints(2**62), ints(3), ints(2)]),
        Case(GRID, [ints(-1), ints(-(2**62)), ints(2), ints(-2)]),
        Case(GRID, attributes={"starts": [1], "ends": [5], "axes": [2]}, opset=9),
        Case(LIST, [ints(0), ints(1)]),
    ],
    "Squeeze": [
        Case((2, 1, 3, 1), [ints(1)]),
        Case((2, 1, 3, 1), [ints(-1, 1)]),
        Case((2, 1, 3, 1)),
        Case((2, 1, 3), attributes={"axes": [1]}, opset=11),
    ],
    "Unsqueeze": [Case(LIST, [ints(0, -1)]), Case(LIST, attributes={"axes": [1]}, opset=11)],
    "Gather": [
        Case(GRID, [ints(2, 0)], {"axis": 2}),
        Case(GRID, [np.array(-1, dtype=np.int64)], {"axis": 1}),
        Case(LIST, [np.array([[0, 1], [1, 1]], dtype=np.int64)]),
    ],
    "Shape": [Case(GRID), Case(GRID, attributes={"start": 1, "end": 3})],
    "Expand": [Case((2, 1, 3), [ints(2, 4, 1)])],
    "Tile": [Case(LIST, [ints(1, 3)])],
    "Constant": [],  # below: it has no input
    "ConstantOfShape": [],
    **{
        name: [
            Case(GRID, attributes={"axes": [2, 3]}),
            Case(GRID, attributes={"keepdims": 0}),
            Case(GRID, [ints(1)], opset=18),
            Case(LIST, [ints()], {"noop_with_empty_axes": 1}, opset=18),
        ]
        for name in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2")
    },
    "ReduceSum": [Case(GRID, [ints(2, 3)]), Case(GRID, attributes={"axes": [1], "keepdims": 0}, opset=11)],
    "ArgMax": [Case(LIST, attributes={"axis": 1}), Case(LIST, attributes={"keepdims": 0})],
}
# Whose output is no number, or does not follow from the input by steps that can be differentiated.
STEPS = {"Equal", "Greater", "Less", "Not", "And", "Floor", "Shape", "ArgMax"}
FLAT = [(name, place) for name, cases in CASES.items() for place in range(len(cases))]


@pytest.fixture(autouse=True)
def packages() -> None:
    needs("onnx", "onnxruntime")


def model_of(name: str, case: Case) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    names = [f"c{place}" for place in range(len(case.constants))]
    kept = [numpy_helper.from_array(np.asarray(part), given) for given, part in zip(names, case.constants, strict=True)]
    outputs = ["y", "z"] if name == "Split" else ["y"]
    nodes = []
    given = "x"
    if case.before:
        kept.append(numpy_helper.from_array(scalar(0.6), "half"))
        nodes.append(helper.make_node(case.before, ["x", "half"], ["first"]))
        given = "first"
    nodes.append(helper.make_node(name, [given, *names], outputs, **case.attributes))
    kinds = {"Shape": 7, "ArgMax": 7, "Equal": 9, "Greater": 9, "Less": 9, "Not": 9, "And": 9}
    kind = kinds.get(name, case.attributes.get("to", 1) if name == "Cast" else 1)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(case.shape))]
    graph = helper.make_graph(nodes, "g", ends, [helper.make_tensor_value_info("y", kind, None)], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=8)


def asked(model: Any, x: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(np.asarray(session.run(["y"], {"x": x.numpy()})[0]))


def test_every_operator_has_cases() -> None:
    assert set(CASES) == set(OPERATORS)


@pytest.mark.parametrize(("name", "place"), FLAT, ids=[f"{name}-{place}" for name, place in FLAT])
def test_an_operator_answers_as_onnx_runtime_does(name: str, place: int) -> None:
    case = CASES[name][place]
    model = model_of(name, case)
    x = torch.from_numpy(np.random.default_rng(7).uniform(0.1, 1.0, size=case.shape).astype(np.float32))
    network, wanted = converted(model, "x", "y"), asked(model, x)
    found = network(x).detach()
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "place"),
    [pair for pair in FLAT if pair[0] not in STEPS and not (pair[0] == "Cast" and pair[1] == 1)],
    ids=str,
)
def test_its_gradient_is_that_of_what_onnx_runtime_computes(name: str, place: int) -> None:
    """Central differences of ONNX Runtime's own answers along a random direction."""
    case = CASES[name][place]
    if case.before:
        return  # a comparison stands in front: nothing follows from the input there but by it
    model, generator = model_of(name, case), np.random.default_rng(8)
    x = torch.from_numpy(generator.uniform(0.1, 1.0, size=case.shape).astype(np.float32)).requires_grad_()
    out = converted(model, "x", "y")(x)
    weights = torch.from_numpy(generator.normal(size=tuple(out.shape)).astype(np.float32)).to(out.dtype)
    direction = torch.from_numpy(generator.choice([-1.0, 1.0], size=case.shape).astype(np.float32))
    (gradient,) = torch.autograd.grad((out * weights).sum(), x)
    step = 1e-3
    ends = [asked(model, (x + sign * step * direction).detach()).double() for sign in (1, -1)]
    slope = float(((ends[0] - ends[1]) * weights.double()).sum() / (2 * step))
    along = float((gradient * direction).sum())
    assert along == pytest.approx(slope, rel=0.05, abs=0.02 * float((gradient.abs()).sum()) + 0.01)


def test_constants_of_a_graph() -> None:
    from onnx import TensorProto, helper, numpy_helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
    for attributes in (
        {"value": numpy_helper.from_array(drawn(3))},
        {"value_floats": [0.5, 1.5, 2.5]},
        {"value_float": 0.5},
    ):
        nodes = [
            helper.make_node("Constant", [], ["a"], **attributes),
            helper.make_node("Constant", [], ["s"], value_ints=[2, 3]),
            helper.make_node("ConstantOfShape", ["s"], ["b"], value=numpy_helper.from_array(drawn(1))),
            helper.make_node("Add", ["a", "b"], ["c"]),
            helper.make_node("Mul", ["x", "c"], ["y"]),
        ]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        x = torch.from_numpy(drawn(2, 3))
        network = converted(model, "x", "y")
        torch.testing.assert_close(network(x).detach(), asked(model, x))
        assert len(list(network.parameters())) == 1, "what hangs on constants alone is computed once"


@pytest.mark.parametrize(
    ("name", "case", "said"),
    [
        ("Resize", Case(GRID, [drawn(0), np.array([1, 1, 2, 2], dtype=np.float32)]), "Resize"),
        ("MaxPool", Case(GRID, attributes={**KERNEL, "storage_order": 1}), "MaxPool with indices"),
        ("AveragePool", Case(GRID, attributes={**KERNEL, "ceil_mode": 1}), "AveragePool with ceil_mode"),
        ("Cast", Case(LIST, attributes={"to": 8}), "Cast to the type 8"),
        ("Tile", Case(LIST, [ints(2**20, 2**20)]), "a tensor of shape"),
        ("Pad", Case(GRID, [ints(0, 1, 0, 0, 0, 0, 0, 0)], {"mode": "edge"}), "Pad with pads of rows or channels"),
    ],
)
def test_what_is_not_converted_is_named(name: str, case: Case, said: str) -> None:
    with pytest.raises(Unconverted, match=said):
        converted(model_of(name, case), "x", "y")(torch.from_numpy(drawn(*case.shape)))
