"""The shipped cart-pole on held-out starts: how often attacks and random errors of one size drive it into failure.

Starts are gymnasium's (uniform within 0.05 in all four coordinates) and were never used for training. At the declared
budgets each start is attacked by FGSM, PGD and the causal attack, and tried with random errors of four kinds. Then the
size is varied. With gymnasium installed every failure found by PGD is replayed in gymnasium's own CartPole-v1.
"""

import argparse
import time

import torch
from torch import Tensor

import signstep as ss
from harness import machine, table
from signstep.domains.control import (
    CartPole,
    CausalFgsm,
    ClosedLoop,
    Sensors,
    controller_for,
    random_trials,
    sensor_threat,
    smallest_error,
    starts,
)
from signstep.domains.control.loop_case import EXAMPLES, SECONDS
from signstep.domains.control.trials import KINDS


def replayed(loop: ClosedLoop, error: Tensor, start: Tensor) -> list[bool]:
    """Whether gymnasium's CartPole-v1 ends an episode under the controller and each series of errors."""
    import gymnasium

    env = gymnasium.make("CartPole-v1").unwrapped
    failed = []
    for wrong, begin in zip(error, start, strict=True):
        env.reset(seed=0)
        env.state = begin.double().numpy()  # type: ignore[attr-defined]
        ended = False
        for part in wrong:
            state = torch.as_tensor(env.state, dtype=torch.float32)  # type: ignore[attr-defined]
            with torch.no_grad():
                force = float(loop.action((state + part)[None]))
            env.force_mag = abs(force)  # type: ignore[attr-defined]
            ended = bool(env.step(int(force > 0))[2])
            if ended:
                break
        failed.append(ended)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--trials", type=int, default=1000, help="random errors for each start")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--sizes", type=float, nargs="*", default=[0.75, 1.0, 1.25, 1.5], help="of the declared budgets"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plant = CartPole()
    loop = ClosedLoop(plant, controller_for(plant)).eval()
    sensors = Sensors(EXAMPLES[plant.name], plant.interval)
    steps = round(SECONDS / plant.interval)
    start = starts(plant, options.starts, seed=options.seed)
    error = torch.zeros(len(start), steps, len(sensors))
    print(machine())
    print(f"{len(start)} starts, {steps} samples; {sensors}\n")
    rows, again = [], "size 1 was not asked for: no failures were replayed in gymnasium"
    for size in options.sizes:
        threat = sensor_threat(sensors, size)
        cells = [f"{size:g}"]
        for recipe in ("fgsm", "pgd:steps=20", CausalFgsm(loop)):
            outcome = ss.attack(
                ss.Model(loop, task=ss.Objective(0.0)),
                {"error": error, "start": start},
                threat={"error": threat},
                recipe=recipe,
                search=ss.Search(seed=options.seed),
            )
            assert bool(outcome.verified.all())
            cells.append(str(int(outcome.fooled.sum())))
            if recipe == "pgd:steps=20" and size == 1.0:
                again = _again(loop, outcome.x, start, outcome.fooled)
        began = time.perf_counter()
        trials = random_trials(loop, start, steps, threat=threat, count=options.trials, seed=options.seed)
        cells += [str(int((trials.failed[kind] > 0).sum())) for kind in KINDS]
        cells += [str(int(trials.any.sum())), f"{trials.share:.3%}", f"{time.perf_counter() - began:.0f} s"]
        rows.append(cells)
    header = ("size", "FGSM", "PGD-20", "causal", *KINDS, "any random", "of all trials", "trials took")
    print(table(header, rows))
    print(f"\nstarts that failed, of {len(start)}; random: at least one of {options.trials} errors of four kinds")
    print(again)
    least = smallest_error(loop, start, steps, threat=sensor_threat(sensors), recipe="pgd:steps=10", halvings=7)
    at = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    found = torch.isfinite(least.eps)
    sizes = torch.quantile(least.eps[found], at).tolist()
    seconds = (torch.quantile(least.when[found].double(), at) * plant.interval).tolist()
    print(
        f"\nsmallest size that fails (PGD-10, 7 halvings), found at {int(found.sum())} starts; least, quartiles, most:"
    )
    print(", ".join(f"{value:.3f}" for value in sizes) + " of the declared budgets")
    print(", ".join(f"{value:.2f}" for value in seconds) + " s until failure")


def _again(loop: ClosedLoop, x: Tensor | dict[str, Tensor], start: Tensor, fooled: Tensor) -> str:
    assert isinstance(x, dict)
    try:
        ended = replayed(loop, x["error"][fooled], start[fooled])
    except ImportError:
        return "gymnasium is not installed: failures were not replayed there"
    return f"PGD's failures at size 1, replayed in gymnasium's CartPole-v1: {sum(ended)} of {len(ended)} end there too"


if __name__ == "__main__":
    main()
