"""The fast twin: a copy of the model that the search may use, while the verdict stays with the model itself."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from signstep.engine.submodules import reached
from signstep.engine.tree import Tree, leaves, take, tree_map
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.layout import ChannelsLast
from signstep.model.version import weights_of, weights_version

Engine = Literal["exact", "fast", "float32"]
ENGINES: tuple[Engine, ...] = ("exact", "fast", "float32")

# By how much outputs (relative to their largest) and gradients (relative L2) may differ from the model's own.
_FOLDED = 1e-3
_HALF = 0.25
_PROBES = 8
_WIDE = 32  # input channels from which channels-last pays
# Input channels up to which a matrix product and a fold beat the library's input gradient, in float32 and bfloat16.
_NARROW = 4
_NARROW_HALF = 1
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A fast copy of a model, and what was done to make it.

    Attributes:
        model: called like the original; frozen, in evaluation mode, weights as they were when it was made.
        steps: what was done, in words.
        left: what was tried or considered and left alone, with the reason.
    """

    model: nn.Module
    steps: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        done = "; ".join(self.steps) or "nothing"
        return f"search on a copy: {done}" + (f" (left alone: {'; '.join(self.left)})" if self.left else "")


def prepare(model: nn.Module, sample: Tree, *, engine: Engine = "fast") -> Prepared:
    """Build a twin of ``model`` for searching: same function, fewer operations, less precision where it is fast.

    BatchNorm is folded into convolutions, convolutions run channels-last, the input gradient of the first convolution
    becomes one matrix product, and with ``engine="fast"`` convolutions and matrix products run in bfloat16 where the
    hardware multiplies it natively. Each step is kept only if the twin still agrees with the model on ``sample``, in
    outputs and in the gradient with respect to the input. The model is not changed.

    Args:
        model: in the mode in which it is attacked.
        sample: inputs (R, ...) as the model takes them, of which 8 rows are used; a dict is passed as keywords.
        engine: "fast", or "float32" to keep full precision.

    Raises:
        InputError: ``engine`` is neither, or the model is not an nn.Module.
    """
    if engine not in ("fast", "float32"):
        raise InputError(
            Arg("engine", engine), remedy="pass 'fast' or 'float32' ('exact' searches on the model itself)"
        )
    if not isinstance(model, nn.Module):
        raise InputError(
            Arg("model"), f"is a {type(model).__name__}, and a twin is made of modules", remedy="pass an nn.Module"
        )
    few = take(
        sample, torch.arange(min(_PROBES, len(leaves(sample)[0])), device=leaves(sample)[0].device, dtype=torch.int64)
    )
    reason = _untouchable(model)
    if reason is not None:
        return Prepared(model, (), (reason,))
    try:
        current = copy.deepcopy(model)
    except Exception as error:  # a user's own __deepcopy__ may raise anything
        return Prepared(model, (), (f"the model cannot be copied ({type(error).__name__})",))
    for parameter in current.parameters():
        parameter.requires_grad_(False)
    try:
        wanted = _signals(model, few)
    except Exception as error:  # it may take batches of one size alone
        return Prepared(model, (), (f"the model does not take {len(leaves(few)[0])} rows ({type(error).__name__})",))
    steps: list[str] = []
    left: list[str] = []
    if wanted is None:
        return Prepared(model, (), ("the outputs have no gradient that a copy could be compared with",))
    for build, slack in _plan(engine, leaves(few)[0]):
        try:
            tried, what = build(current)
            seen = None if tried is None else _signals(tried, few)
        except Exception as error:  # the user's code runs in ways, layouts and dtypes it was not written for
            left.append(f"a step that the model refused ({type(error).__name__})")
            continue
        if tried is None:
            continue
        if seen is not None and _agree(wanted, seen, slack):
            current = tried
            steps.append(what)
        else:
            left.append(f"{what}: the copy would not have agreed with the model")
    return Prepared(current if steps else model, tuple(steps), tuple(left))


_TWINS: "WeakKeyDictionary[nn.Module, dict[Engine, tuple[object, Prepared]]]" = WeakKeyDictionary()


def prepared(model: nn.Module, sample: Tree, *, engine: Engine) -> Prepared:
    """`prepare`, remembered until a weight or buffer changes or is replaced."""
    modules = reached(model).modules  # also those that it holds without having registered them
    now = (
        weights_version(modules),
        _sums(modules),
        tuple(getattr(module, "training", None) for module in modules),
    )
    twins = _TWINS.setdefault(model, {})
    if engine not in twins or twins[engine][0] != now:
        twins[engine] = (now, prepare(model, sample, engine=engine))
    return twins[engine][1]


def _sums(modules: tuple[nn.Module, ...]) -> tuple[float, ...]:
    """What tells of changes that torch does not count, such as ``weight.data.copy_(...)``."""
    numbers = [part.detach().sum() for part in weights_of(modules) if part.is_floating_point()]
    return tuple(torch.nan_to_num(torch.stack([n.double().cpu() for n in numbers])).tolist()) if numbers else ()


_Build = Callable[[nn.Module], tuple[nn.Module | None, str]]


def _plan(engine: Engine, x: Tensor) -> list[tuple[_Build, float]]:
    plan: list[tuple[_Build, float]] = [(_folded, _FOLDED)]
    half = engine == "fast" and x.dtype == torch.float32 and _has_bfloat16(x.device)
    if x.device.type == "cpu" and x.dtype == torch.float32:
        plan.append((partial(_narrow_first, channels=_NARROW_HALF if half else _NARROW), _FOLDED))
    if x.ndim == 4:
        plan.append((_channels_last, _FOLDED))
    if half:
        plan.append((_half, _HALF))
    return plan


def _untouchable(model: nn.Module) -> str | None:
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        return "the model is compiled or scripted"
    held = reached(model).modules
    if any(module.training for module in held if isinstance(module, nn.modules.batchnorm._BatchNorm)):
        return "BatchNorm runs in training mode, where rows depend on each other"
    return None


def _folded(model: nn.Module) -> tuple[nn.Module | None, str]:
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return None, ""
    with warnings.catch_warnings():  # torch's own module warns about one it imports
        warnings.simplefilter("ignore")
        from torch.fx.experimental.optimization import fuse
    before = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    folded: nn.Module = fuse(model)
    after = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    return (
        (folded, f"BatchNorm folded into convolutions ({before - after} of {before})") if after < before else (None, "")
    )


def _narrow_first(model: nn.Module, *, channels: int) -> tuple[nn.Module | None, str]:
    changed = copy.deepcopy(model)
    count = 0
    for parent in list(changed.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and _is_narrow(child, channels):
                setattr(parent, name, _NarrowConv(child))
                count += 1
    return (changed, "input gradient of the first convolution as one matrix product") if count else (None, "")


def _channels_last(model: nn.Module) -> tuple[nn.Module | None, str]:
    if not any(isinstance(module, nn.Conv2d) and module.in_channels >= _WIDE for module in model.modules()):
        return None, ""
    return ChannelsLast(copy.deepcopy(model).to(memory_format=torch.channels_last)), "channels-last"  # type: ignore[call-overload]


def _half(model: nn.Module) -> tuple[nn.Module | None, str]:
    changed = copy.deepcopy(model)
    count = 0
    for module in changed.modules():
        if isinstance(module, (*_CONVOLUTIONS, nn.Linear)) and all(
            p.dtype == torch.float32 for p in module.parameters()
        ):
            module.to(torch.bfloat16)
            count += 1
    return (_Autocast(changed), f"bfloat16 in {count} convolutions and matrix products") if count else (None, "")


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return any(getattr(torch.cpu, name, lambda: False)() for name in _CPU_TESTS)
    return False


_CPU_TESTS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


class _Signals(NamedTuple):
    """Outputs, and the gradient of a fixed combination of them, both in float64."""

    outputs: Tensor
    gradient: Tensor


def _signals(model: nn.Module, few: Tree) -> _Signals | None:
    """What the model says to a few rows, and how that depends on them; None where it cannot be told."""
    inputs = tree_map(lambda part: part.detach().clone().requires_grad_(part.is_floating_point()), few)
    returned: Any = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    tensors = [part for part in _tensors(returned) if part.is_floating_point()]
    if not tensors:
        return None
    flat = torch.cat([part.double().flatten(1) if part.ndim > 1 else part.double()[:, None] for part in tensors], 1)
    wanted = [part for part in leaves(inputs) if part.requires_grad]
    if not flat.requires_grad or not wanted:
        return None
    flat = torch.where(torch.isneginf(flat), 0.0, flat)  # absent classes
    # Any fixed direction that is not symmetric in the outputs will do; sums of a softmax would be constant.
    weights = torch.linspace(-1, 1, flat.shape[1], dtype=torch.float64, device=flat.device)
    gradients = torch.autograd.grad((flat * weights).sum(), wanted, allow_unused=True)
    parts = [
        torch.zeros(1, device=flat.device, dtype=torch.float32) if part is None else part.flatten()
        for part in gradients
    ]
    return _Signals(flat.detach(), torch.cat([part.double() for part in parts]))


def _tensors(returned: Any) -> list[Tensor]:
    if isinstance(returned, Tensor):
        return [returned]
    if isinstance(returned, dict):
        return [part for value in returned.values() for part in _tensors(value)]
    if isinstance(returned, (list, tuple)):
        return [part for value in returned for part in _tensors(value)]
    return []


def _agree(wanted: _Signals, seen: _Signals, slack: float) -> bool:
    if wanted.outputs.shape != seen.outputs.shape:
        return False
    off = (wanted.outputs - seen.outputs).abs().amax()
    turned = (wanted.gradient - seen.gradient).norm()
    close = off <= slack * wanted.outputs.abs().amax() and turned <= 2 * slack * wanted.gradient.norm()
    return bool(close)  # NaN on either side: not close


class _Autocast(nn.Module):
    """Runs the model in bfloat16 where autocast says it is safe; the weights were cast once, beforehand."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        device = next(part.device.type for part in (*inputs, *named.values()))
        with torch.autocast(device, torch.bfloat16):
            return self.model(*inputs, **named)


def _is_narrow(conv: nn.Conv2d, channels: int) -> bool:
    plain = conv.groups == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return plain and conv.in_channels <= channels


class _NarrowConv(nn.Module):
    """A convolution of few input channels whose gradient with respect to the input is one product and one fold.

    The library's own kernel for it is written for many channels and takes three times as long on a CPU.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(self.conv.weight.dtype)
        found: Tensor = _NarrowFunction.apply(x, self.conv)  # type: ignore[no-untyped-call]
        return found


class _NarrowFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.conv, ctx.size = conv, x.shape[2:]
        return functional.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        conv: nn.Conv2d = ctx.conv
        columns = conv.weight.flatten(1).t() @ gradient.flatten(2)
        assert not isinstance(conv.padding, str)
        folded = functional.fold(
            columns.float(), tuple(ctx.size), conv.kernel_size, conv.dilation, conv.padding, conv.stride
        )
        return folded.to(gradient.dtype), None
