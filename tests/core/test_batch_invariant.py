"""Functions that round alike wherever an element stands, and a library that uses no others.

The laws are marked ``kernels``: `make test` runs them once more under the kernels of other processors.
"""

import ast
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import signstep
from signstep.engine.batch_invariant import VARIES, power, row_sum, sigmoid, softplus
from signstep.engine.tree import unit_l1

SOURCE = Path(signstep.__file__).parent

# Where the engine computes; models are the user's, and what is drawn or printed is no law's business.
ENGINE = ("engine", "attacks", "physical", "certify", "model", "auditing", "domains", "api.py", "maximum.py")
MODELS = (
    "domains/atoms/graph.py",  # a shipped potential
    "domains/control/series_net.py",  # a shipped classifier
    "model/opening/onnx_operators.py",  # the operators of the user's own graph
)

Function = Callable[[Tensor], Tensor]
OURS: dict[str, Function] = {
    "softplus": softplus,
    "sigmoid": sigmoid,
    "power": lambda x: power(x.abs(), 1 / 18),
}
# What they are made of, and what else the engine relies on.
TORCHS: dict[str, Function] = {
    name: getattr(torch, name)
    for name in ("exp", "log", "log1p", "expm1", "tanh", "sqrt", "square", "reciprocal", "sign", "erf", "sin", "cos")
} | {"quotient": lambda x: x / (1.5 + x.abs()), "log of a share": lambda x: ((1 + x) / (1 - x)).log()}
ROWS: dict[str, Function] = {
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "log_softmax": lambda x: x.log_softmax(1),
    "cross_entropy": lambda x: functional.cross_entropy(x, torch.zeros(len(x), dtype=torch.long), reduction="none"),
    "sum": lambda x: x.sum(1),
    "cumsum": lambda x: x.cumsum(1),
    "length": lambda x: torch.linalg.vector_norm(x, dim=1),
}


def _gradient(function: Function) -> Function:
    def taken(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(function(x).sum(), x)[0]

    return taken


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.nan_to_num(nan=0.5), second.nan_to_num(nan=0.5)) and torch.equal(
        first.isnan(), second.isnan()
    )


def _numbers(count: int, scale: float, dtype: torch.dtype) -> Tensor:
    draws = torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    return (draws * scale).to(dtype)


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", [*OURS, *TORCHS])
@pytest.mark.parametrize("way", ["value", "gradient"])
def test_an_element_gets_the_same_wherever_it_stands(name: str, dtype: torch.dtype, way: str) -> None:
    function = (OURS | TORCHS)[name]
    if way == "gradient":
        function = _gradient(function)
    for count in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100):
        for scale in (0.1, 1.0, 30.0):
            x = _numbers(count, scale, dtype)
            whole = function(x)
            assert _same(torch.cat([function(x[row : row + 1]) for row in range(count)]), whole)
            assert _same(function(x.flip(0)).flip(0), whole)
            column = torch.zeros(count, 5, dtype=dtype)
            column[:, 3] = x
            assert _same(function(column)[:, 3], whole)
            assert _same(function(column[:, 3]), whole)


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("way", ["value", "gradient"])
def test_a_row_gets_the_same_in_any_batch(name: str, dtype: torch.dtype, way: str) -> None:
    function = ROWS[name] if way == "value" else _gradient(ROWS[name])
    for rows in (1, 2, 3, 5, 8, 17):
        for columns in (1, 2, 3, 4, 7, 10, 33, 100):
            x = _numbers(rows * columns, 3.0, dtype).reshape(rows, columns)
            alone = [function(x[row : row + 1].clone()) for row in range(rows)]
            assert _same(torch.cat(alone), function(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_they_are_the_functions_they_are_named_for(dtype: torch.dtype) -> None:
    x = torch.cat([_numbers(200, 20.0, dtype), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 80.0, -80.0, 700.0, -700.0])])
    x = x.to(dtype)
    close = partial(torch.testing.assert_close, rtol=4 * torch.finfo(dtype).eps, atol=0.0)
    close(softplus(x), torch.logaddexp(x, torch.zeros_like(x)))
    close(sigmoid(x), torch.sigmoid(x))
    close(_gradient(softplus)(x), torch.sigmoid(x), atol=1e-300)
    share = torch.rand(100, generator=torch.Generator().manual_seed(1), dtype=dtype)
    close(power(share, 1 / 3), share ** (1 / 3))
    ends = torch.tensor([-torch.inf, torch.inf, torch.nan], dtype=dtype)
    assert softplus(ends).tolist()[:2] == [0.0, math.inf]
    assert sigmoid(ends).tolist()[:2] == [0.0, 1.0]
    assert bool(softplus(ends)[2].isnan() & sigmoid(ends)[2].isnan())
    assert power(torch.tensor([0.0, 1.0], dtype=dtype), 0.1).tolist() == [0.0, 1.0]
    assert _gradient(softplus)(torch.zeros(1, dtype=dtype)).item() == 0.5


def _varying(path: Path) -> list[str]:
    """Calls of what is named in `VARIES`, and powers of something by a broken or unknown exponent."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "signstep.engine.batch_invariant"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        plain = isinstance(called, ast.Name) and name in ours
        outside = isinstance(called, ast.Attribute) and ast.unparse(called.value) in ("np", "numpy", "math")
        if name in VARIES and not plain and not outside:
            found.append(f"{path.relative_to(SOURCE).as_posix()}:{node.lineno} {ast.unparse(called)}")
    return found


def test_the_engine_calls_nothing_that_varies() -> None:
    files = [
        path for part in ENGINE for path in ([SOURCE / part] if part.endswith(".py") else (SOURCE / part).rglob("*.py"))
    ]
    assert len(files) > 100
    found = [
        line for path in sorted(files) if path.relative_to(SOURCE).as_posix() not in MODELS for line in _varying(path)
    ]
    assert not found, (
        "these round by an element's place in its tensor, so that a row's result would depend on its batch; use "
        "signstep.engine.batch_invariant, or write down in VARIES' test why it does no harm:\n" + "\n".join(found)
    )


def test_the_search_for_calls_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SOURCE", tmp_path)
    path = tmp_path / "sketch.py"
    path.write_text("import torch\ny = torch.sigmoid(x)\nz = x.pow(2)\nw = np.exp2(values)\n", encoding="utf-8")
    assert [line.split(" ")[1] for line in _varying(path)] == ["torch.sigmoid", "x.pow"]


@pytest.mark.parametrize("features", [7, 300, 400_000])
def test_the_sum_of_a_row_does_not_see_threads_or_rows(features: int) -> None:
    x = _numbers(3 * features, 1.0, torch.float32).reshape(3, features)
    expected = torch.cat([row_sum(x[row : row + 1]) for row in range(3)])
    threads = torch.get_num_threads()
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            assert torch.equal(row_sum(x), expected)
            assert torch.equal(row_sum(x[1:2]), expected[1:2])
            unit, alone = unit_l1(x), unit_l1(x[1:2])
            assert isinstance(unit, Tensor)
            assert isinstance(alone, Tensor)
            assert torch.equal(alone, unit[1:2])
    finally:
        torch.set_num_threads(threads)
