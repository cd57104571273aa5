"""Leave the user's model and process exactly as they were found, whatever happens in between."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from signstep.errors import ModelError

Mode = Literal["eval", "keep"]

INFERENCE_WEIGHTS = (
    "the model has weights or buffers made under torch.inference_mode(), which cannot take part in gradients; build or "
    "load it outside of that, or pass copy.deepcopy(model)"
)


@contextmanager
def untouched(*models: object, mode: Mode = "eval") -> Iterator[None]:
    """Prepare models for differentiating their inputs and restore everything afterwards, also after an exception.

    Inside: gradients are enabled and inference mode is off; with ``mode="eval"`` every submodule is in evaluation mode,
    with ``"keep"`` each stays as it was; weights are frozen, so that no weight gradient can be computed even by modules
    that call ``backward`` themselves (reentrant checkpointing); cuDNN is off for models with recurrent layers, whose
    cuDNN kernels have no backward in evaluation mode.

    Restored: each submodule's own mode (a frozen BatchNorm stays frozen), each parameter's ``requires_grad`` and
    ``.grad``, buffers (value and identity), and the global random states of torch (CPU and all CUDA devices), NumPy and
    Python. Callables that are not modules are left alone.
    """
    modules = [model for model in models if isinstance(model, nn.Module)]
    states = [_ModelState.of(module) for module in modules]
    rng = _RandomState.of()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            recurrent = any(isinstance(part, nn.RNNBase) for state in states for part, _ in state.modes)
            if recurrent and torch.cuda.is_available():
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            for state in states:
                state.prepare(mode)
            yield
    finally:
        for state in states:
            state.restore()
        rng.restore()


@dataclass
class _ModelState:
    modes: list[tuple[nn.Module, bool]]
    parameters: list[tuple[Tensor, bool, Tensor | None]]
    buffers: list[tuple[nn.Module, str, Tensor | None, Tensor | None]]

    @classmethod
    def of(cls, model: nn.Module) -> "_ModelState":
        modules = list(model.modules())
        weights = {id(p): p for module in modules for p in module._parameters.values() if p is not None}
        buffers = []
        for module in modules:
            for name, value in module._buffers.items():
                copy = None if value is None else value.detach().clone()
                buffers.append((module, name, value, copy))
        return cls(
            modes=[(module, module.training) for module in modules],
            parameters=[(p, p.requires_grad, p.grad) for p in weights.values()],
            buffers=buffers,
        )

    def prepare(self, mode: Mode) -> None:
        for module, training in self.modes:
            if mode == "eval" and training:
                # Not module.eval(): some exported programs refuse it, and it would recurse once per submodule.
                module.training = False
        for parameter, requires_grad, _ in self.parameters:
            if parameter.is_inference():
                raise ModelError(INFERENCE_WEIGHTS)
            if requires_grad:
                parameter.requires_grad_(False)

    def restore(self) -> None:
        for module, training in self.modes:
            module.training = training
        for parameter, requires_grad, grad in self.parameters:
            if requires_grad and not parameter.requires_grad:
                parameter.requires_grad_(True)
            parameter.grad = grad
        known = {(id(module), name) for module, name, _, _ in self.buffers}
        for module, _ in self.modes:
            for name in [name for name, _ in module._buffers.items() if (id(module), name) not in known]:
                del module._buffers[name]  # registered on the way
        for module, name, value, copy in self.buffers:
            module._buffers[name] = value
            if value is None or copy is None:
                continue
            # Through .data, which autograd does not count as a change: a backward pass of the caller's that is still
            # to come may have saved this buffer. Always, since .data and some kernels change it without counting too.
            with torch.no_grad(), torch.inference_mode(value.is_inference()):
                value.data.copy_(copy)


@dataclass
class _RandomState:
    cpu: Tensor
    cuda: dict[int, Tensor]
    numpy: Any
    python: Any

    @classmethod
    def of(cls) -> "_RandomState":
        # All cards, since seeding seeds all; their states lie in the memory of the process.
        cards = torch.cuda.device_count() if torch.cuda.is_initialized() else 0  # type: ignore[no-untyped-call]
        cuda = {index: torch.cuda.get_rng_state(index) for index in range(cards)}
        return cls(torch.get_rng_state(), cuda, np.random.get_state(), random.getstate())

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        for index, state in self.cuda.items():
            torch.cuda.set_rng_state(state, index)
        np.random.set_state(self.numpy)
        random.setstate(self.python)


class RandomnessWatch:
    """Seeds the global generators, and tells whether code after that consumed one of them.

    A model that draws is random, whether or not two passes happen to agree; the check costs microseconds. Only inside
    `untouched`, which restores the generators.
    """

    # What the generators look like right after seeding: the same for the same seed, so looked at once.
    _fresh: ClassVar[dict[tuple[int, torch.device], tuple[object, ...]]] = {}

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device
        reseed(seed)
        if (seed, device) not in self._fresh:
            self._fresh.clear()
            self._fresh[seed, device] = self._look()
        self._before = self._fresh[seed, device]

    def drew(self) -> bool:
        """Whether a global generator has moved since this watch was made."""
        return any(before != after for before, after in zip(self._before, self._look(), strict=True))

    def _look(self) -> tuple[object, ...]:
        numpy_state = np.random.get_state(legacy=False)["state"]
        cuda = torch.cuda.get_rng_state(self._device).numpy().tobytes() if self._device.type == "cuda" else b""
        return (
            torch.get_rng_state().numpy().tobytes(),
            cuda,
            (numpy_state["pos"], numpy_state["key"].tobytes()),
            random.getstate(),
        )


def reseed(seed: int) -> None:
    """Seed the global generators of torch, NumPy and Python; only inside ``untouched``, which restores them."""
    # Not torch.manual_seed: it formats a traceback, and leaves a seed behind for CUDA to take up when it starts.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
