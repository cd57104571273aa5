"""Square beside torchattacks' Square: accuracy that is left, seconds and queries, at equal budgets in the same run.

Both attack a reference model of ../shared on MNIST, with the margin loss, p = 0.8 and the schedule rescaled to the
budget. torchattacks draws one window for the whole batch, Signstep one for each example; torchattacks does not tell how
many queries an example took. With several seeds the difference is tested in pairs: of every example, how often it fell
to the one and to the other; the mean over examples of that difference, and its standard error.
"""

import argparse
import time
import warnings

import torch
from torch import Tensor

import signstep as ss
from harness import machine, mnist, need_shared, rival, rivals_line, stop, table
from signstep.engine.threat import parse_threat
from signstep.model.opening.weights import load_weights
from signstep.networks.small import mnist_cnn

# By norm: the radius of the torchattacks comparison on each model.
EPS = {"linf": 0.3, "l2": 2.0}


def quartiles(queries: Tensor) -> str:
    """First quartile, median and third, of the examples that fell."""
    if len(queries) == 0:
        return "-"
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return " / ".join(f"{value:.0f}" for value in torch.quantile(queries.double(), at).tolist())


def paired(ahead: Tensor) -> str:
    """Of differences of examples (N,): how much more often they fell to Signstep, with the standard error."""
    error = float(ahead.std()) / len(ahead) ** 0.5
    mean = float(ahead.mean())
    return f"{100 * mean:+.2f} +- {100 * error:.2f} points more fall to Signstep than to torchattacks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=500, help="for the budget of 1,000 queries")
    parser.add_argument("--fewer", type=int, default=100, help="for the budget of 5,000 queries")
    parser.add_argument("--model", choices=("mnist_fgsm_rs", "mnist_standard"), default="mnist_fgsm_rs")
    parser.add_argument("--norm", choices=tuple(EPS), default="linf")
    parser.add_argument("--eps", type=float, help="radius; default: 0.3 in linf, 2 in l2")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with seeds from 0")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    torchattacks = rival("torchattacks")
    if torchattacks is None:
        stop("torchattacks is not installed: pip install --no-deps -r benchmarks/requirements.txt")
    model = mnist_cnn()
    load_weights(model, need_shared("models", f"{options.model}.safetensors"))
    model.eval()
    digits, answers = mnist("test")
    print(machine(), "\n" + rivals_line(), "\n")
    rows, tested = [], []
    eps = EPS[options.norm] if options.eps is None else options.eps
    threat, norm = parse_threat(f"{options.norm}:{eps}"), {"linf": "Linf", "l2": "L2"}[options.norm]
    for queries, count in ((1000, options.examples), (5000, options.fewer)):
        if not count:
            continue
        x, y = digits[:count], answers[:count]
        ahead = torch.zeros(count, dtype=torch.float64)
        for seed in range(options.seeds):
            began = time.perf_counter()
            outcome = ss.attack(
                model, x, y, threat=threat, recipe=f"square:queries={queries}", search=ss.Search(seed=seed)
            )
            own = time.perf_counter() - began
            left = int((~outcome.fooled).sum())
            rivals_attack = torchattacks.Square(
                model, norm=norm, eps=eps, n_queries=queries, p_init=0.8, loss="margin", resc_schedule=True, seed=seed
            )
            began = time.perf_counter()
            points = rivals_attack(x, y)
            others = time.perf_counter() - began
            with torch.no_grad():
                wrong = model(points).argmax(1) != y
            theirs = int((~wrong).sum())
            ahead += outcome.fooled.double() - wrong.double()
            spent = quartiles(outcome.forwards[outcome.fooled] - outcome.passes)
            cells = (f"{left} of {count}", f"{theirs} of {count}", f"{own:.1f}", f"{others:.1f}", f"{own / others:.2f}")
            rows.append((f"{queries} queries, seed {seed}", *cells, spent))
            print(f"  {rows[-1]}", flush=True)
        tested.append(f"{queries} queries: {paired(ahead / options.seeds)}")
    header = ("", "still right", "torchattacks", "seconds", "torchattacks", "ratio", "queries, quartiles of the fallen")
    print(table(header, rows), "\n\n" + "\n".join(tested))


if __name__ == "__main__":
    main()
