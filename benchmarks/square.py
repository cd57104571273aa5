"""Square beside torchattacks' Square: accuracy that is left, seconds and queries, at equal budgets in the same run.

Both attack the reference model of ../shared that was trained with random-start FGSM, in L-infinity with eps = 0.3 on
MNIST, with the margin loss, p = 0.8 and the schedule rescaled to the budget. torchattacks draws one window for the
whole batch, Signstep one for each example; torchattacks does not tell how many queries an example took.
"""

import argparse
import time
import warnings

import torch
from torch import Tensor

import signstep as ss
from harness import machine, mnist, need_shared, rival, rivals_line, stop, table
from signstep.model.opening.weights import load_weights
from signstep.networks.small import mnist_cnn

EPS = 0.3


def quartiles(queries: Tensor) -> str:
    """First quartile, median and third, of the examples that fell."""
    if len(queries) == 0:
        return "-"
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return " / ".join(f"{value:.0f}" for value in torch.quantile(queries.double(), at).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=500, help="for the budget of 1,000 queries")
    parser.add_argument("--fewer", type=int, default=100, help="for the budget of 5,000 queries")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with seeds from 0")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    torchattacks = rival("torchattacks")
    if torchattacks is None:
        stop("torchattacks is not installed: pip install --no-deps -r benchmarks/requirements.txt")
    model = mnist_cnn()
    load_weights(model, need_shared("models", "mnist_fgsm_rs.safetensors"))
    model.eval()
    digits, answers = mnist("test")
    print(machine(), "\n" + rivals_line(), "\n")
    rows = []
    for queries, count in ((1000, options.examples), (5000, options.fewer)):
        x, y = digits[:count], answers[:count]
        for seed in range(options.seeds):
            began = time.perf_counter()
            outcome = ss.attack(
                model, x, y, threat=ss.linf(EPS), recipe=f"square:queries={queries}", search=ss.Search(seed=seed)
            )
            own = time.perf_counter() - began
            left = int((~outcome.fooled).sum())
            rivals_attack = torchattacks.Square(
                model, norm="Linf", eps=EPS, n_queries=queries, p_init=0.8, loss="margin", resc_schedule=True, seed=seed
            )
            began = time.perf_counter()
            points = rivals_attack(x, y)
            others = time.perf_counter() - began
            with torch.no_grad():
                theirs = int((model(points).argmax(1) == y).sum())
            spent = quartiles(outcome.forwards[outcome.fooled] - outcome.passes)
            cells = (f"{left} of {count}", f"{theirs} of {count}", f"{own:.1f}", f"{others:.1f}", f"{own / others:.2f}")
            rows.append((f"{queries} queries, seed {seed}", *cells, spent))
    header = ("", "still right", "torchattacks", "seconds", "torchattacks", "ratio", "queries, quartiles of the fallen")
    print(table(header, rows))


if __name__ == "__main__":
    main()
