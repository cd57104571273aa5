"""What `signstep verify` of a record costs, as a ratio to one clean pass of the same model over the same data.

Weights are drawn and data is noise, since only the time counts; the labels are the model's own answers. The record is
FGSM's, without a curve. Both times are of the same process, medians over rounds that alternate; "clean, again" is the
clean pass a second time: what its ratio differs from 1 is noise of the machine.
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from harness import machine
from signstep.auditing.result import Result
from signstep.cli import main as signstep
from signstep.data import open_data
from signstep.model.opening import open_model

MODELS = {
    "mnist_cnn": ("signstep.networks.small:mnist_cnn", (1, 28, 28)),
    "resnet18_cifar": ("signstep.networks.small:resnet18_cifar", (3, 32, 32)),
}


def workplace(name: str, examples: int) -> list[str]:
    """Weights and data in the current folder; the options that name them."""
    factory, shape = MODELS[name]
    model = open_model(factory).module
    save_file({key: part.contiguous() for key, part in model.state_dict().items()}, "weights.safetensors")
    x = torch.randint(0, 256, (examples, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        y = torch.cat([model(part.float() / 255).argmax(1) for part in torch.split(x, 256)])
    np.savez("data.npz", x=x.numpy(), y=y.numpy())
    return ["--model", factory, "--weights", "weights.safetensors", "--data", "data.npz"]


def clean(own: list[str]) -> None:
    """One pass over the data, read from its file, without gradients."""
    model = open_model(own[1], weights=own[3]).module
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in open_data(own[5], batch_size=256))
    assert right > 0


def verified(own: list[str]) -> None:
    """The whole command, in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = signstep(["verify", "report", *own])
    assert status == 0, said.getvalue()


def timed(work: Callable[[list[str]], None], own: list[str]) -> float:
    began = time.perf_counter()
    work(own)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="mnist_cnn")
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        own = workplace(given.model, given.examples)
        said = io.StringIO()
        words = ["--threat", "linf:2/255", "--attack", "fgsm", "--curve", "none", "--out", "report"]
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            assert signstep(["audit", *own, *words]) == 0, said.getvalue()
        result = Result.load(Path("report") / "result.json")
        rounds = [(timed(clean, own), timed(verified, own), timed(clean, own)) for _ in range(given.rounds)]
        first, again, twice = (statistics.median(times) for times in zip(*rounds, strict=True))
        os.chdir("/")
    print(f"{machine()}; {given.model}, {result.examples} examples, {result.fooled} of them fooled")
    print(f"one clean pass {first:.1f} s, as 1; clean, again {twice / first:.2f}")
    print(f"signstep verify {again:.1f} s, {again / first:.2f}")


if __name__ == "__main__":
    main()
