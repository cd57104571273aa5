"""Leave the user's model and process exactly as they were found, whatever happens in between."""

import ctypes
import pickle
import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from signstep.engine.submodules import reached
from signstep.errors import ModelError
from signstep.messages import Arg

Mode = Literal["eval", "keep"]


def inference_weights() -> ModelError:
    """The error about weights that no gradient can pass."""
    return ModelError(
        "the model has weights or buffers made under torch.inference_mode(), which cannot take part in gradients",
        remedy="build or load it outside of that, or pass copy.deepcopy(model)",
    )


@contextmanager
def untouched(*models: object, mode: Mode = "eval") -> Iterator["Guard"]:
    """Prepare models for differentiating their inputs and restore everything afterwards, also after an exception.

    Inside: gradients are enabled and inference mode is off; with ``mode="eval"`` every submodule is in evaluation mode,
    with ``"keep"`` each stays as it was; weights are frozen, so that no weight gradient can be computed even by modules
    that call ``backward`` themselves (reentrant checkpointing); cuDNN is off for models with recurrent layers, whose
    cuDNN kernels have no backward in evaluation mode.

    Restored: each submodule's own mode (a frozen BatchNorm stays frozen), each parameter's ``requires_grad`` and
    ``.grad``, buffers (value and identity), tensors that modules keep as plain attributes (the state of a recurrent
    network), and the global random states of torch (CPU and all CUDA devices), NumPy and Python.

    A model is any callable: the modules that it holds (`reached`) are treated alike, and those that it runs without
    holding them when `Guard.watching` first sees them run.
    """
    rng = RandomState.of()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            guard = Guard(models, mode, stack)
            try:
                guard.open()
                yield guard
            finally:
                guard.close()
    finally:
        rng.restore()


def guard_of(model: object) -> "Guard | None":
    """The guard that is open around this model in this thread, else the innermost that is open, else None."""
    opened = _opened()
    return next((guard for guard in reversed(opened) if guard.holds(model)), opened[-1] if opened else None)


class Guard:
    """The modules that models hold or run, prepared while it is open and put back when it closes.

    Attributes:
        mode: "eval" or "keep".
        mixed: whether a batch normalisation was seen to take its statistics from the batch.
    """

    def __init__(self, models: tuple[object, ...], mode: Mode, stack: ExitStack) -> None:
        self.mode = mode
        self._models, self._stack = models, stack
        self._states: dict[int, _ModuleState] = {}
        self._ran: set[int] = set()
        self._quiet: dict[int, object] = {}
        self._compiled = False
        self._lent: list[tuple[Tensor, Tensor]] = []
        self._thread = threading.get_ident()
        self.mixed = False

    def open(self) -> None:
        """Find and prepare what the models hold.

        Raises:
            ModelError: a module was built in inference mode, or its weights are not there yet.
        """
        _opened().append(self)
        for model in self._models:
            if isinstance(model, nn.Module):
                for module in model.modules():
                    _check_ready(module)
            found = reached(model)
            self._compiled |= found.compiled
            self._adopt(found.modules)

    def close(self) -> None:
        """Put everything back."""
        _opened().remove(self)
        for state in reversed(self._states.values()):
            state.restore()
        for value, copy in self._lent:
            _write(value, copy)

    def holds(self, model: object) -> bool:
        """Whether it was opened around this very model."""
        return any(model is one for one in self._models)

    @property
    def held(self) -> tuple[nn.Module, ...]:
        """All modules that the models can reach or were seen to run."""
        return tuple(state.module for state in self._states.values())

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The modules that have run, or that are models themselves."""
        return tuple(s.module for key, s in self._states.items() if key in self._ran or self.holds(s.module))

    @property
    def switched(self) -> tuple[nn.Module, ...]:
        """Those of `modules`, and of their parts, that were in training mode and are not now."""
        if not any(state.switched for state in self._states.values()):
            return ()
        return tuple(
            part
            for key, part in self._parts().items()
            if key in self._states and self._states[key].switched and not _is_program(part) and not _is_trace(part)
        )

    @property
    def mixes_rows(self) -> bool:
        """Whether a BatchNorm that runs takes its statistics from the batch."""
        return self.mixed or any(
            (isinstance(part, _BatchNorm) and _by_batch(part)) or _traced_by_batch(part)
            for part in self._parts().values()
        )

    def _parts(self) -> dict[int, nn.Module]:
        """`modules` and their parts, each once; a part of what is in already brings nothing new."""
        parts: dict[int, nn.Module] = {}
        for module in self.modules:
            if id(module) not in parts:
                parts |= {id(part): part for part in module.modules()}
        return parts

    @contextmanager
    def watching(self, model: object) -> Iterator[None]:
        """Around a call of ``model``: modules that nobody knew of are prepared just before they run.

        It looks only until a call of this model has met nothing new, since it costs some microseconds for each module
        and operation; and not at compiled code, which would be compiled again for a hook.

        Raises:
            ModelError: running statistics would be overwritten, see `statistics`.
        """
        if self._compiled or id(model) in self._quiet or threading.get_ident() != self._thread:
            yield
            return
        known = len(self._states)
        hook = nn.modules.module.register_module_forward_pre_hook(self._meet)
        try:
            with _StatisticsWatch(self):
                yield
        finally:
            hook.remove()
        if len(self._states) == known:
            self._quiet[id(model)] = model

    def statistics(self, running: Iterable[Tensor | None], *, mixing: bool) -> None:
        """Statistics are about to be taken of the batch, over its rows if ``mixing``, and written into running ones.

        Raises:
            ModelError: in evaluation mode, where no module that could be put into it holds them.
        """
        self.mixed |= mixing
        kept = [part for part in running if part is not None]
        if not kept or all(any(state.keeps(part) for state in self._states.values()) for part in kept):
            return
        if self.mode == "eval":
            raise ModelError(
                "the model calls batch_norm or instance_norm in training mode with running statistics that "
                "belong to no module that can be reached, so that it cannot be put into evaluation mode and "
                "the statistics would be overwritten",
                remedy=("pass training=False there, or", Arg("mode", "keep"), "to attack it as it is"),
            )
        self._lent += [(part, _kept(part)) for part in kept if all(part is not old for old, _ in self._lent)]

    def rewind(self) -> None:
        """Put back what modules keep from call to call; modes and weights stay prepared."""
        for state in self._states.values():
            state.rewind()

    def _meet(self, module: nn.Module, _: object) -> None:
        if threading.get_ident() != self._thread:
            return
        if id(module) not in self._states:
            self._adopt(reached(module).modules)
        if id(module) not in self._ran:
            _check_ready(module)
            self._ran.add(id(module))

    def _adopt(self, modules: Iterable[nn.Module]) -> None:
        recurrent = False
        for module in modules:
            if id(module) not in self._states:
                state = self._states[id(module)] = _ModuleState.of(module)
                state.prepare(self.mode)
                recurrent |= isinstance(module, nn.RNNBase)
        if recurrent and torch.cuda.is_available():
            self._stack.enter_context(torch.backends.cudnn.flags(enabled=False))


class _StatisticsWatch(TorchFunctionMode):
    """Tells a guard of normalisations that take their statistics from the batch."""

    # Where running_mean and running_var and the switch stand, and what the switch is called and is if left out.
    _CALLS: ClassVar[dict[object, tuple[int, int, int, str, bool]]] = {
        functional.batch_norm: (1, 2, 5, "training", False),
        torch.batch_norm: (3, 4, 5, "training", False),
        torch.native_batch_norm: (3, 4, 5, "training", False),
        functional.instance_norm: (1, 2, 5, "use_input_stats", True),
        torch.instance_norm: (3, 4, 5, "use_input_stats", True),
        # What an exported program runs in their place.
        torch.ops.aten.batch_norm.default: (3, 4, 5, "training", False),
        torch.ops.aten.native_batch_norm.default: (3, 4, 5, "training", False),
        torch.ops.aten._native_batch_norm_legit.default: (3, 4, 5, "training", False),
        torch.ops.aten._native_batch_norm_legit_functional.default: (3, 4, 5, "training", False),
        torch.ops.aten.instance_norm.default: (3, 4, 5, "use_input_stats", True),
    }

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if (call := self._CALLS.get(func)) is not None:
            mean, var, place, name, default = call
            if args[place] if len(args) > place else named.get(name, default):
                running = (
                    args[at] if len(args) > at else named.get(key)
                    for at, key in ((mean, "running_mean"), (var, "running_var"))
                )
                self._guard.statistics(running, mixing=name == "training")
        return func(*args, **named)


_BatchNorm = nn.modules.batchnorm._BatchNorm
_OPEN = threading.local()


def _opened() -> list[Guard]:
    opened: list[Guard] = _OPEN.__dict__.setdefault("guards", [])
    return opened


def _by_batch(module: nn.modules.batchnorm._BatchNorm) -> bool:
    return module.training or (module.running_mean is None and module.running_var is None)


def _is_program(module: nn.Module) -> bool:
    """A graph, or a mere holder of weights: its mode was fixed when it was traced or exported."""
    traced = type(module).__module__.startswith("torch.export") or isinstance(module, torch.fx.GraphModule)
    return traced or type(module) is nn.Module


def _is_trace(module: nn.Module) -> bool:
    """A script that does the same in any mode: traced, not compiled from code that asks for its mode."""
    graph = _graph(module)
    return graph is not None and not any(node.s("name") == "training" for node in graph.findAllNodes("prim::GetAttr"))


def _traced_by_batch(module: nn.Module) -> bool:
    """Whether a script has a batch normalisation whose mode was fixed, as training, when it was traced."""
    graph = _graph(module)
    nodes = [] if graph is None else graph.findAllNodes("aten::batch_norm")
    return any(list(node.inputs())[5].toIValue() is True for node in nodes)


def _graph(module: nn.Module) -> Any:
    """The whole of what a script runs, its parts included; None for other modules, and for scripts that run nothing."""
    return getattr(module, "inlined_graph", None) if isinstance(module, torch.jit.ScriptModule) else None


def _check_ready(module: nn.Module) -> None:
    for parameter in module._parameters.values():
        if parameter is not None and is_lazy(parameter):
            raise ModelError(
                f"the model's {type(module).__name__} has weights that are not there before the first batch (a "
                "lazy module)",
                remedy="run the model once, model(x[:2]), load its weights if it has any, and pass it then",
            )
        if parameter is not None and parameter.is_inference():
            raise inference_weights()


# What every module has; its tensors are in two of them.
_OWN = frozenset(vars(nn.Module()))


@dataclass
class _ModuleState:
    """One module as it was found, without its submodules."""

    module: nn.Module
    training: bool | None
    parameters: list[tuple[Tensor, bool, Tensor | None]]
    buffers: dict[str, tuple[Tensor | None, Tensor | None]]
    attributes: dict[str, Any]
    tensors: list[tuple[str, Tensor, Tensor, int]]
    switched: bool = False

    @classmethod
    def of(cls, module: nn.Module) -> "_ModuleState":
        attributes = {name: value for name, value in vars(module).items() if name not in _OWN}
        tensors = [
            (name, part, _kept(part), _version(part))
            for name, value in attributes.items()
            if isinstance(value, (Tensor, tuple, list))
            for part in _tensors(value)
        ]
        weights = [p for p in module._parameters.values() if p is not None]
        return cls(
            module,
            getattr(module, "training", None),  # a frozen script has none
            [(p, p.requires_grad, None if is_lazy(p) else p.grad) for p in weights],
            {
                name: (value, None if value is None or is_lazy(value) else _kept(value))
                for name, value in module._buffers.items()
            },
            attributes,
            tensors,
        )

    def keeps(self, part: Tensor) -> bool:
        """Whether ``part`` is a buffer or an attribute of the module."""
        return any(value is part for value, _ in self.buffers.values()) or any(
            value is part for _, value, _, _ in self.tensors
        )

    def prepare(self, mode: Mode) -> None:
        if mode == "eval" and self.training:
            # Not module.eval(): some exported programs refuse it, and it would recurse once per submodule.
            self.module.training = False
            self.switched = True
        for parameter, requires_grad, _ in self.parameters:
            if requires_grad and not is_lazy(parameter) and not parameter.is_inference():
                parameter.requires_grad_(False)

    def restore(self) -> None:
        if self.training is not None:
            self.module.training = self.training
        for parameter, requires_grad, grad in self.parameters:
            if requires_grad and not parameter.requires_grad:
                parameter.requires_grad_(True)
            if not is_lazy(parameter):
                parameter.grad = grad
        self.rewind()

    def rewind(self) -> None:
        """Buffers and tensors in attributes as they were found."""
        module = self.module
        for name in [name for name, _ in module._buffers.items() if name not in self.buffers]:
            del module._buffers[name]  # registered on the way
        for name, (value, copy) in self.buffers.items():
            module._buffers[name] = value
            if value is not None and copy is not None:
                _write(value, copy)
        now = vars(module)
        for name in self._rebound():
            if name in self.attributes:
                now[name] = self.attributes[name]
            else:
                del now[name]
        for _, value, copy, version in self.tensors:
            if _version(value) != version:
                _write(value, copy)

    def _rebound(self) -> list[str]:
        """Attributes that are, or were, tensors or tuples of them and hold another object now; new ones too."""
        before = self.attributes
        return [
            name
            for name, value in vars(self.module).items()
            if before.get(name, self) is not value
            and name not in _OWN
            and (_tensors(value) or _tensors(before.get(name)))
        ]


def _tensors(value: object) -> list[Tensor]:
    """A tensor, or those in a tuple or list of nothing else, at most two deep."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)) and value and all(isinstance(part, (Tensor, tuple, list)) for part in value):
        flat = [part for inner in value for part in (inner if isinstance(inner, (tuple, list)) else (inner,))]
        return flat if all(isinstance(part, Tensor) for part in flat) else []
    return []


def _version(part: Tensor) -> int:
    return 0 if part.is_inference() else part._version


def _write(value: Tensor, copy: Tensor) -> None:
    # Through .data, which autograd does not count as a change: a backward pass of the caller's that is still to come
    # may have saved this buffer. Always, since .data and some kernels change it without counting too.
    with torch.no_grad(), torch.inference_mode(value.is_inference()):
        value.data.copy_(copy)
    # Where gradients were taken of what the model does without them, its state has become part of their graph.
    if value.requires_grad and not copy.requires_grad and not value.is_leaf and not value._is_view():
        value.detach_()


def _kept(value: Tensor) -> Tensor:
    """A copy, which says by ``requires_grad`` whether gradients were taken of the tensor."""
    return value.detach().clone().requires_grad_(value.requires_grad)


@dataclass
class RandomState:
    """The states of the global generators of torch (CPU and all cards), NumPy and Python."""

    cpu: Tensor
    cuda: dict[int, Tensor]
    generator: Any
    numpy: Any
    python: Any

    @classmethod
    def of(cls) -> "RandomState":
        """As they are now."""
        # All cards, since seeding seeds all; their states lie in the memory of the process.
        cards = torch.cuda.device_count() if torch.cuda.is_initialized() else 0  # type: ignore[no-untyped-call]
        cuda = {index: torch.cuda.get_rng_state(index) for index in range(cards)}
        numpy = np.random.get_state(legacy=False)  # of any generator, with what waits beside it
        return cls(torch.get_rng_state(), cuda, _numpy_generator(), numpy, random.getstate())

    def restore(self) -> None:
        """As they were then."""
        torch.set_rng_state(self.cpu)
        for index, state in self.cuda.items():
            torch.cuda.set_rng_state(state, index)
        if _numpy_generator() is not self.generator:  # the model has put another in its place
            np.random.set_bit_generator(self.generator)  # type: ignore[attr-defined]
        np.random.set_state(self.numpy)
        random.setstate(self.python)


_MT19937_BYTES = 4 * (624 + 1)


class RandomnessWatch:
    """Seeds the global generators, and tells whether code after that consumed one of them.

    A model that draws is random, whether or not two passes happen to agree; the check costs microseconds. Only inside
    `untouched`, which restores the generators.
    """

    # What the generators look like right after seeding: the same for the same seed, so looked at once.
    _fresh: ClassVar[dict[tuple[int, torch.device, type], tuple[object, ...]]] = {}

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device
        reseed(seed)
        known = seed, device, type(_numpy_generator())
        if known not in self._fresh:
            self._fresh.clear()
            self._fresh[known] = self._look()
        self._before = self._fresh[known]

    def drew(self) -> bool:
        """Whether a global generator has moved since this watch was made."""
        return any(before != after for before, after in zip(self._before, self._look(), strict=True))

    def _look(self) -> tuple[object, ...]:
        cuda = torch.cuda.get_rng_state(self._device).numpy().tobytes() if self._device.type == "cuda" else b""
        return (
            torch.get_rng_state().numpy().tobytes(),
            cuda,
            _numpy_look(),
            random.getstate(),
        )


def _numpy_generator() -> Any:
    return np.random.get_bit_generator()  # type: ignore[attr-defined]  # numpy's stubs do not list it


def _numpy_look() -> bytes:
    """The state of NumPy's global generator: of an MT19937, as it is unless somebody replaced it, words and position.

    As they lie in memory, since ``get_state`` copies them one by one, thirty times slower. That one also tells of a
    second normal number that waits beside them; there is none right after seeding, and the first moves the position.
    """
    generator = _numpy_generator()
    if type(generator) is np.random.MT19937:
        return ctypes.string_at(generator.ctypes.state_address, _MT19937_BYTES)
    return pickle.dumps(generator.state)


def reseed(seed: int) -> None:
    """Seed the global generators of torch, NumPy and Python; only inside ``untouched``, which restores them."""
    # Not torch.manual_seed: it formats a traceback, and leaves a seed behind for CUDA to take up when it starts.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    if type(_numpy_generator()) is not np.random.MT19937:  # of others a normal number that waits stays
        np.random.set_state({**np.random.get_state(legacy=False), "has_gauss": 0, "gauss": 0.0})
    random.seed(seed)
