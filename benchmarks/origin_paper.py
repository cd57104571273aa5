"""The linear rows of the paper FGSM comes from: Goodfellow, Shlens & Szegedy (2014), sections 4 and 5.

Softmax regression on MNIST and logistic regression on its threes and sevens, trained here in seconds, attacked at
eps 0.25 without clipping (``box=None``), as in the paper. The paper does not say how long it trained, and confidence
grows with that, so two lengths are shown. For the logistic model FGSM is the exact maximiser and the
loss it reaches has the closed form softplus(eps * |w|_1 - s * (w.x + b)) with s = +-1; the last line compares.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from harness import machine, mnist, need_shared, percent, table, train

EPS = 0.25
THREAT = ss.linf(EPS, box=None)


def linear(outputs: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, outputs))


def attacked(model: nn.Module, x: Tensor, y: Tensor) -> ss.Outcome:
    return ss.attack(model, x, y, threat=THREAT, recipe="fgsm")


def binary_loss(z: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(z.squeeze(1), y.float())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads of torch (default: as torch decides)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    need_shared("data", "mnist")
    (x, y), (x_test, y_test) = mnist("train"), mnist("test")
    rows = []

    for epochs, rate in ((2, 1e-3), (20, 5e-3)):
        softmax = linear(10, options.seed)
        train(softmax, x, y, F.cross_entropy, epochs=epochs, rate=rate, seed=options.seed)
        outcome = attacked(softmax, x_test, y_test)
        assert isinstance(outcome.x, Tensor)
        with torch.no_grad():
            clean = (softmax(x_test).argmax(1) != y_test).float().mean()
            sure = softmax(outcome.x).softmax(1).amax(1)[outcome.fooled].mean()
        name = f"softmax regression, {epochs} epochs"
        rows += [
            (f"{name}: clean error", percent(float(clean)), "-"),
            (f"{name}: FGSM error", percent(float(outcome.fooled.float().mean())), "99.9"),
            (f"{name}: mean confidence when wrong", percent(float(sure)), "79.3"),
        ]

    pair, pair_test = (y == 3) | (y == 7), (y_test == 3) | (y_test == 7)
    x, y, x_test, y_test = x[pair], (y[pair] == 7).long(), x_test[pair_test], (y_test[pair_test] == 7).long()
    logistic = linear(1, options.seed)
    train(logistic, x, y, binary_loss, epochs=20, rate=1e-2, seed=options.seed)
    outcome = attacked(logistic, x_test, y_test)
    with torch.no_grad():
        z = logistic(x_test).squeeze(1)
        weights = next(part for part in logistic if isinstance(part, nn.Linear)).weight
        closed = F.softplus(EPS * weights.abs().sum() - (2 * y_test - 1) * z)
    rows += [
        ("logistic 3 against 7: clean error", percent(float(((z > 0).long() != y_test).float().mean())), "1.6"),
        ("logistic 3 against 7: FGSM error", percent(float(outcome.fooled.float().mean())), "99"),
    ]
    print(machine(), "\n")
    print(table((f"MNIST, FGSM {EPS}, no box; per cent", "here", "paper"), rows))
    relative = float(((outcome.loss - closed).abs() / closed).max())
    print(f"\nlogistic: the loss FGSM reached and its closed form differ by at most {relative:.1e} of itself")


if __name__ == "__main__":
    main()
