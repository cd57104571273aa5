"""No allocation of the library is left to torch's defaults, which are the user's."""

import ast
import re
from pathlib import Path

import pytest

import signstep as ss

SOURCE = Path(ss.__file__).parent

# What makes tensors out of nothing, by torch's defaults where it is told no others.
MAKERS = frozenset(
    [
        "arange",
        "as_tensor",
        "asarray",
        "bartlett_window",
        "blackman_window",
        "empty",
        "eye",
        "full",
        "hamming_window",
        "hann_window",
        "kaiser_window",
        "linspace",
        "logspace",
        "ones",
        "rand",
        "randint",
        "randn",
        "randperm",
        "range",
        "scalar_tensor",
        "tensor",
        "tril_indices",
        "triu_indices",
        "zeros",
    ]
)
EXEMPT = re.compile(r"# any (dtype|device)(, any (dtype|device))?: \S")


def unnamed(source: str) -> list[tuple[int, str]]:
    """Line and sentence of each allocation that leaves its dtype or device to torch's defaults.

    A comment on a line of the call, "# any dtype: why" or "# any device: why", excuses one.
    """
    lines, found = source.splitlines(), []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        if not (isinstance(call.func.value, ast.Name) and call.func.value.id == "torch"):
            continue
        name, named = call.func.attr, {word.arg for word in call.keywords}
        excused = {
            word
            for line in lines[call.lineno - 1 : call.end_lineno]
            for match in EXEMPT.finditer(line)
            for word in match.groups()
        }
        if name in MAKERS:
            missing = [word for word in ("dtype", "device") if word not in named | excused]
            if missing:
                found.append(
                    (call.lineno, f"torch.{name} leaves its {' and '.join(missing)} to torch's defaults: name it")
                )
        elif name == "where" and len(call.args) == 3 and all(map(_fraction, call.args[1:])):
            if not _cast(call, lines):
                found.append((call.lineno, "torch.where of two numbers has torch's default dtype: add .to(dtype)"))
        elif name in ("Tensor", "FloatTensor", "DoubleTensor") or (name == "finfo" and not call.args):
            found.append((call.lineno, f"torch.{name}() goes by torch's defaults: name dtype and device"))
    return found


def _fraction(node: ast.expr) -> bool:
    """Whether this is a fraction written down, or infinity."""
    if isinstance(node, ast.UnaryOp):
        return _fraction(node.operand)
    if isinstance(node, ast.BinOp):
        return _fraction(node.left) and _fraction(node.right)
    return (isinstance(node, ast.Constant) and isinstance(node.value, float)) or (
        isinstance(node, ast.Attribute) and node.attr in ("inf", "nan")
    )


def _cast(call: ast.Call, lines: list[str]) -> bool:
    """Whether a cast follows at once: what every dtype holds exactly, as 1.0, survives it."""
    after = lines[(call.end_lineno or 1) - 1].encode()[call.end_col_offset :]
    return after.startswith((b".to(", b".double()", b".float()"))


def test_every_allocation_names_its_dtype_and_device() -> None:
    """Where this fails, pass dtype= and device= there, or say in a comment why torch's (the user's) defaults count."""
    found = [
        f"{path.relative_to(SOURCE.parent)}:{line}: {said}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, said in unnamed(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("torch.zeros(3)", 1),
        ("torch.zeros(3, dtype=torch.float32)", 1),
        ("torch.zeros(3, device=x.device)", 1),
        ("torch.zeros(3, dtype=x.dtype, device=x.device)", 0),
        ("torch.rand(3, out=x)", 1),
        ("torch.as_tensor(y)  # any dtype, any device: the caller's", 0),
        ("torch.as_tensor(y)  # any dtype: the caller's", 1),
        ("torch.as_tensor(y)  # any dtype, any device:", 1),
        ("torch.where(x > 0, 1.0, -1.0)", 1),
        ("torch.where(x > 0, torch.inf, 0.0)", 1),
        ("torch.where(x > 0, 1.0, -1.0).to(x)", 0),
        ("torch.where(x > 0, x, -1.0)", 0),
        ("torch.where(x > 0, 1, 0)", 0),
        ("torch.Tensor(3)", 1),
        ("torch.finfo().eps", 1),
        ("x.new_zeros(3) + torch.zeros_like(x)", 0),
        ("torch.zeros(\n    3,\n    dtype=torch.int64,\n)", 1),
    ],
)
def test_the_search_for_them_finds_them(code: str, count: int) -> None:
    assert len(unnamed(code)) == count
