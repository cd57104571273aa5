"""A model and data that need no download: a small network for handwritten digits, trained on the spot and cached."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from signstep.data import DataSource, open_data
from signstep.data.digits import DIGITS_FILE, digits
from signstep.engine.defaults import plain_torch
from signstep.errors import LoadError
from signstep.io.files import write_whole
from signstep.io.folders import sweep
from signstep.model.opening.weights import load_weights
from signstep.networks.small import digits_cnn


@dataclass(frozen=True)
class Demo:
    """Something to audit, and a threat that fits it.

    Attributes:
        model: In evaluation mode; takes (B, 1, 8, 8) in [0, 1], gives 10 logits.
        data: The 500 test digits.
        description: One line for people.
        threat: One grey level of the 17, in input units.
        eps_curve: Sizes for a curve, from hardly any effect to nearly total failure.
        notes: Whether the model was trained now or read from the cache.
    """

    model: nn.Module
    data: DataSource
    description: str
    threat: str = "linf:0.1"
    eps_curve: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Recipe:
    """How the network is trained; part of the name of the cached file."""

    version: int = 1
    epochs: int = 25
    batch: int = 128
    rate: float = 2e-2
    distortion: float = 0.2
    shift: float = 0.25
    seed: int = 0


_RECIPE = _Recipe()


def demo(*, batch_size: int = 128) -> Demo:
    """The demo, trained in a few seconds at the first call and read from the cache after that.

    The cache is the folder ``SIGNSTEP_CACHE``, else ``$XDG_CACHE_HOME/signstep``, else ``~/.cache/signstep``. A damaged
    file is replaced; where nothing can be written the model is trained at each call. The same weights come out at each
    training on one machine, and the global random state is left as it was.

    Args:
        batch_size: Rows per batch of the data.
    """
    with torch.random.fork_rng(devices=[]):
        model, note = _model(_RECIPE)
    return Demo(
        model=model.eval(),
        data=open_data("digits", batch_size=batch_size, split="test"),
        description="a small convolutional network on 8x8 handwritten digits (UCI, CC BY 4.0)",
        notes=(note,),
    )


@plain_torch()
def _model(recipe: _Recipe) -> tuple[nn.Module, str]:
    path = _cache_file(recipe)
    if path is not None and (cached := _cached(path)) is not None:
        return cached, f"weights read from {path}"
    with _one_thread():
        model = _train(recipe)
    if path is not None and _keep(path, model):
        return model, f"weights trained now and kept in {path}"
    return model, "weights trained now and not kept: set SIGNSTEP_CACHE to a folder that can be written"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Rounding independent of the number of cores; and threads only wait for each other in kernels this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(recipe: _Recipe) -> nn.Module:
    """Adam with one cycle of the learning rate, on slightly distorted and shifted digits."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        torch.default_generator.manual_seed(recipe.seed)
        x, y = digits("train")
        model = digits_cnn().float()
        optimizer = torch.optim.Adam(model.parameters(), recipe.rate)
        batches = -(-len(x) // recipe.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.epochs * batches)
        for _ in range(recipe.epochs):
            for rows in torch.randperm(len(x), dtype=torch.int64, device="cpu").tensor_split(batches):
                loss = F.cross_entropy(model(_distorted(x[rows], recipe)), y[rows])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
        model.zero_grad()
    return model


def _distorted(x: Tensor, recipe: _Recipe) -> Tensor:
    """Each image under a random linear map near the identity and a random shift."""
    linear = torch.eye(2, dtype=torch.float32, device="cpu") + recipe.distortion * torch.empty(
        len(x), 2, 2, dtype=torch.float32, device="cpu"
    ).uniform_(-1, 1)
    shift = torch.empty(len(x), 2, 1, dtype=torch.float32, device="cpu").uniform_(-recipe.shift, recipe.shift)
    grid = F.affine_grid(torch.cat([linear, shift], 2), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _cache_file(recipe: _Recipe) -> Path | None:
    """Named by all that decides the weights, so that a stale file is never read."""
    folder = _cache_folder()
    if folder is None:
        return None
    data = hashlib.sha256(DIGITS_FILE.read_bytes()).hexdigest()
    key = hashlib.sha256(f"{recipe}\n{digits_cnn()}\n{data}\n{torch.__version__}".encode()).hexdigest()
    return folder / f"digits_cnn-{key[:16]}.safetensors"


def _cache_folder() -> Path | None:
    if chosen := os.environ.get("SIGNSTEP_CACHE"):
        return Path(chosen)
    if (base := os.environ.get("XDG_CACHE_HOME")) and Path(base).is_absolute():
        return Path(base) / "signstep"
    home = _home()
    return None if home is None else home / ".cache" / "signstep"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # not told, and no such user
        return None


def _cached(path: Path) -> nn.Module | None:
    """The cached model, or None where there is none or the file is not what was written."""
    try:
        with safe_open(path, "pt") as file:
            digest = (file.metadata() or {}).get("sha256")
        model = digits_cnn().float()
        load_weights(model, path)
    except (LoadError, SafetensorError, OSError):
        return None
    return model if _digest(model) == digest else None


def _keep(path: Path, model: nn.Module) -> bool:
    content = save(model.state_dict(), {"sha256": _digest(model)})
    home = _home()
    if home is not None and home in path.parents and not home.is_dir():
        return False  # a home that is not there is not ours to make
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        write_whole(path, content)
    except (OSError, LoadError):
        return False
    return True


def _digest(model: nn.Module) -> str:
    parts = (name.encode() + tensor.numpy().tobytes() for name, tensor in sorted(model.state_dict().items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()
