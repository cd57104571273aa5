"""APGD in L1: ordinary steps beside the sparse steps of Croce & Hein 2021, at equal passes, in pairs.

For each reference model of ../shared, size and loss: how many examples each leaves standing over some seeds, and the
mean difference of an example (ordinary less sparse) with its standard error. The images are those from ``--first`` on.
"""

import argparse
import warnings

import torch

import signstep as ss
from harness import machine, need_shared, table
from signstep.model.opening.weights import load_weights
from standard2 import REFERENCES, images

SIZES = {"mnist_fgsm_rs": (6.0, 12.0), "mnist_standard": (3.0, 6.0), "cifar10_small_n_fgsm": (6.0, 12.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--losses", nargs="*", default=["ce", "margin"])
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(machine(), flush=True)
    rows = []
    for name in options.models:
        case = REFERENCES[name]
        model = case.build()
        load_weights(model, need_shared("models", f"{name}.safetensors"))
        x, y = images(case.data, options.first, options.images)
        for eps in SIZES[name]:
            for loss in options.losses:
                held = {}
                for sparse in (0.0, 0.2):
                    recipe = f"apgd:steps={options.steps},loss={loss},sparse={sparse}"
                    runs = [
                        ss.attack(
                            model.eval(), x, y, threat=ss.l1(eps), recipe=recipe, search=ss.Search(seed=seed)
                        ).fooled
                        for seed in range(options.seeds)
                    ]
                    held[sparse] = (~torch.stack(runs)).double()
                gained = (held[0.0] - held[0.2]).mean(0)
                error = float(gained.std()) / len(gained) ** 0.5
                cells = [" / ".join(f"{float(run.sum()):.0f}" for run in held[sparse]) for sparse in held]
                rows.append(
                    [f"{name}, {eps:g}, {loss}", *cells, f"{100 * float(gained.mean()):+.2f} +- {100 * error:.2f}"]
                )
                print(f"  {rows[-1]}", flush=True)
    header = ["model, eps, loss", "ordinary: left, by seed", "sparse", "points that sparse steps find more"]
    print("\n" + table(header, rows))


if __name__ == "__main__":
    main()
