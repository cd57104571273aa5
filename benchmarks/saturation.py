"""What FGSM loses when the logits are multiplied: the same classifier, the same decisions, a saturated softmax.

The logits of a 64-64-10 network for the built-in digits are multiplied by 1, 1e2 and 1e4: once as it is initialised,
labelled by its own answers (small logits), once trained (large ones). Success is the share of test digits, rightly
classified untouched, that FGSM at 8/255 makes wrong; "same" the share that came back unchanged, because the gradient
had rounded to zero.
"""

import argparse
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from harness import RIVALS, Attack, machine, percent, rival, rival_fgsm, rivals_line, table, train
from signstep.data.digits import digits

EPS = 8 / 255
SCALES = (1.0, 1e2, 1e4)


class Scaled(nn.Module):
    """Another model's logits times a number."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the other model, multiplied."""
        logits: Tensor = self.model(x) * self.factor
        return logits


def contenders(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Attack]:
    ours: dict[str, Attack] = {
        "signstep": lambda x, y: ss.fgsm(model, x, y, eps=EPS),
        'signstep, loss="plain-ce"': lambda x, y: ss.fgsm(model, x, y, eps=EPS, search=ss.Search(loss="plain-ce")),
    }
    return ours | rival_fgsm(model, EPS, shape)


def report(title: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    cells: dict[str, list[str]] = {}
    for scale in SCALES:
        model = Scaled(net, scale).eval()
        for name, attack in contenders(model, tuple(x.shape[1:])).items():
            crafted = attack(x, y)
            with torch.no_grad():
                success = (model(crafted).argmax(1) != y).float().mean()
            same = (crafted == x).flatten(1).all(1).float().mean()
            cells.setdefault(name, []).extend((f"{float(success):.3f}", f"{percent(float(same))} %"))
    rows = [(name, *values) for name, values in cells.items()]
    rows += [(name, "not installed", *[""] * (2 * len(SCALES) - 1)) for name in RIVALS if rival(name) is None]
    header = [f"{what} x{scale:g}" for scale in SCALES for what in ("success", "same")]
    print(f"\n## {title}\n\n{table(('FGSM 8/255, logits times', *header), rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    x, y = digits("test")
    print(f"{machine()}\n{rivals_line()}")
    with torch.no_grad():
        own = net(x).argmax(1)
    report("As initialised, labelled by its own answers", net, x, own)
    x_train, y_train = digits("train")
    train(net, x_train, y_train, F.cross_entropy, epochs=options.epochs, rate=5e-3, seed=options.seed)
    with torch.no_grad():
        right = net(x).argmax(1) == y
    clean = percent(float(right.float().mean()))
    report(f"Trained, {clean} % right, the {int(right.sum())} digits it gets right", net, x[right], y[right])


if __name__ == "__main__":
    main()
