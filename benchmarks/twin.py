"""What searching on the fast twin changes: success and time of attacks on the reference models, engine by engine."""

import argparse
import time
import warnings

import torch
from torch import nn

import signstep as ss
from harness import machine, need_shared, percent, table
from ladder import BATCH, CASES, images
from signstep.model.opening.weights import load_weights
from signstep.model.twin import ENGINES, prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default="fgsm,pgd:steps=10,apgd:steps=20", help="split at commas before a name")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(machine(), "\n")
    for case in CASES.values():
        model: nn.Module = case.build()
        load_weights(model, need_shared("models", f"{case.name}.safetensors"))
        model.eval()
        x, y = images(case, 0, options.images)
        print(f"## {case.name}: {prepare(model, x)}\n")
        rows = []
        for recipe in options.recipes.split(","):
            base = None
            for engine in ENGINES:
                began, fooled = time.perf_counter(), 0
                for start in range(0, len(x), BATCH):
                    part, labels = x[start : start + BATCH], y[start : start + BATCH]
                    outcome = ss.attack(model, part, labels, threat=ss.linf(case.eps), recipe=recipe, engine=engine)
                    fooled += int(outcome.fooled.sum())
                seconds = time.perf_counter() - began
                base = seconds if base is None else base
                rows.append([recipe, engine, percent(fooled / len(x)), f"{seconds:.2f}", f"{seconds / base:.2f}"])
        print(table(["recipe", "engine", "fooled or wrong, %", "seconds", "of exact"], rows), "\n")


if __name__ == "__main__":
    main()
