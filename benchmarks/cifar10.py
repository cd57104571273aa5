"""Fast adversarial training of PreActResNet-18 on CIFAR-10 at 8/255, and the audit of what came of it.

    python benchmarks/cifar10.py --data cifar-10-batches-py

One-cycle schedule, crop and mirror, averaged weights, label smoothing, one-step recipe; on a GPU bfloat16 and
channels-last, with --compile through torch.compile. Without --data: the subset beside the checkout, 10,000 + 1,000
images, whose figures are those of the subset. A small run, minutes on one core:

    python benchmarks/cifar10.py --rows 2000 --epochs 8 --width 16 --batch 64 --rate 0.05 --average 0.99
    --smoothing 0 --audit-rows 200 --ladder quick@1

Small batches leave a card waiting for the next kernel. A plan for about five minutes on one H200, whose steps were
timed (51 ms at 250 rows, most of them spent waiting) and whose outcome was not measured:

    python benchmarks/cifar10.py --data cifar-10-batches-py --recipe trades:steps=2,step=0.5 --activation silu
    --epochs 50 --batch 500 --rate 0.3 --average 0.998 --smoothing 0
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

import signstep as ss
from cifar10_data import load_cifar10
from harness import SHARED, checked_device, machine
from signstep.auditing.result import Result
from signstep.networks.preact import preact_resnet18
from signstep.train import Moment, Settings, Trained, fit

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)  # of the training images, by channel


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "cifar10")
    parser.add_argument("--recipe", default="n-fgsm", help="n-fgsm, fgsm-pgi, fgsm-rs, pgd-at:steps=7, ...")
    parser.add_argument("--rows", type=int, help="train on the first so many images")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--width", type=int, default=64, help="of the first stage; 64 is PreActResNet-18 in full")
    parser.add_argument("--activation", default="relu", help="silu is smooth, which adversarial training likes")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--average", type=float, default=0.9995)
    parser.add_argument("--smoothing", type=float, default=0.3)
    parser.add_argument("--autocast", help="off, bfloat16 or float16; bfloat16 on a GPU")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ladder", default="standard@1")
    parser.add_argument("--audit-rows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="write what was trained there before it is audited")
    parser.add_argument("--out", type=Path, help="keep checkpoints and the log there, and go on from them")
    return parser.parse_args(words)


def run(given: argparse.Namespace) -> tuple[Trained, Result]:
    """Train and audit."""
    if given.weights is not None:
        given.weights.parent.mkdir(parents=True, exist_ok=True)  # before there is something to lose
    data = load_cifar10(given.data)
    x, y = data.x[: given.rows].to(given.device).float().div_(255), data.y[: given.rows].to(given.device)
    print(f"{data.source}: {len(x)} images to train on, {len(data.test_x)} to test on")
    on_gpu = torch.device(given.device).type == "cuda"
    settings = Settings(
        epochs=given.epochs,
        batch=given.batch,
        optimiser="sgd",
        rate=given.rate,
        weight_decay=given.weight_decay,
        smoothing=given.smoothing,
        average=given.average,
        crop=4,
        flip=True,
        autocast=given.autocast or ("bfloat16" if on_gpu else "off"),
        channels_last=True,
        compile=given.compile,
        validation=min(0.02, 1000 / len(x)) if len(x) > 5000 else 0.1,
        seed=given.seed,
    )
    torch.manual_seed(given.seed)
    model = preact_resnet18(width=given.width, activation=given.activation, mean=MEAN, std=STD).to(given.device)
    threat = ss.linf("8/255")
    began = time.perf_counter()

    def watch(moment: Moment) -> None:
        if (seen := moment.reading) is not None:
            shares = " / ".join(f"{100 * seen.share(count):.0f}" for count in (seen.clean, seen.fgsm, seen.pgd))
            print(f"epoch {moment.epoch:5.1f}  loss {seen.loss:.3f}  clean / FGSM / PGD {shares} %", flush=True)
        if moment.event is not None:
            print(moment.event, flush=True)

    trained = fit(model, x, y, threat=threat, recipe=given.recipe, settings=settings, folder=given.out, watch=watch)
    print(f"{time.perf_counter() - began:.0f} s of training, {trained.checking_seconds:.0f} s of them looking")
    print(trained.overfitting, *trained.notes, sep="\n")
    if given.weights is not None:
        save_file({name: part.contiguous().cpu() for name, part in model.state_dict().items()}, given.weights)
    test = data.test_x[: given.audit_rows].float().div_(255), data.test_y[: given.audit_rows]
    name = f"PreActResNet-18, width {given.width}, {given.activation}, {given.recipe}"
    result = ss.audit(
        ss.Model(model, name=name),
        test,
        threat=threat,
        ladder=given.ladder,
        curve=False,
        run=ss.Run(device=given.device),
    )
    return trained, result


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    print(machine(checked_device(given.device)))
    if torch.device(given.device).type == "cuda":
        torch.backends.cudnn.benchmark = True
    print(run(given)[1])


if __name__ == "__main__":
    main()
