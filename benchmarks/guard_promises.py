"""What a calibration promises, held against what comes of it, over many calibrations.

Each calibration is made of new clean rows, whole, as `signstep guard calibrate` does it, around one network; the share
of clean inputs that its policy then flags is measured on as many fresh rows as are asked for, the same for all. Beside
the mean, how often the measured share lies in the band that the calibration states (it is to be in nine of ten, where
one detector decides; several share the rate, and flag less), how often the share of unsure answers lies in its own, and
how often the chart of flags has the run length of a million inputs at the measured share, by the Markov chain.
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import signstep as ss
from harness import machine, table
from signstep.guard.calibrating import Terms, calibrate
from signstep.guard.charts import run_length
from signstep.guard.guard import best, watching_for
from signstep.guard.policies import policy_band

SHAPE = (1, 6, 6)
CASES: dict[str, tuple[int, Terms]] = {
    "confidence, 1 %": (1000, Terms(("confidence",), 0.01)),
    "confidence, 1 % + 2 %": (500, Terms(("confidence",), 0.01, 0.02, low_confidence=0.35)),
    "confidence, 5 %": (500, Terms(("confidence",), 0.05)),
    "neighbours, 3 %": (1000, Terms(("neighbours",), 0.03)),
    "confidence and neighbours, 3 %": (1000, Terms(("confidence", "neighbours"), 0.03)),
    "confidence, 3 %, by class": (1000, Terms(("confidence",), 0.03, by_class=True)),
}


@dataclass
class Measured:
    """Of one calibration."""

    share: float
    inside: bool
    unsure_inside: bool
    held: bool


def network() -> nn.Module:
    """A small classifier of four classes."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    with torch.no_grad():
        for part in made.parameters():
            part.mul_(5)  # an answer is mostly sure
    return made


def rows_of(count: int, seed: int) -> Tensor:
    """Clean rows, drawn independently."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def one(model: ss.Model, rows: int, terms: Terms, fresh: Tensor, seed: int) -> Measured:
    """Calibrate on new rows, and measure."""
    made = calibrate(model, [(rows_of(rows, 1 + seed), None)], terms)
    band = policy_band(made.policy, made.calibration)
    flagged = [made.policy.decide(part) for part in torch.split(fresh, 4096)]
    share = float(np.mean(np.concatenate([np.asarray(part.action) for part in flagged]) > 0))
    unsure_inside = True
    if made.calibration.unsure is not None:
        scores = np.concatenate([np.asarray(part.answers) for part in flagged])
        low = float(np.mean([best(row, "auto")[1] < terms.low_confidence for row in scores]))
        unsure_inside = made.calibration.unsure.low <= low <= made.calibration.unsure.high
    chart = watching_for(made.policy, band, made.calibration).flags
    return Measured(
        share,
        band is not None and band.low <= share <= band.high,
        unsure_inside,
        run_length(round(share, 5), chart.height) >= 1e6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrations", type=int, default=200, help="of each kind")
    parser.add_argument("--fresh", type=int, default=50_000, help="clean inputs that each is measured on")
    parser.add_argument("--only", type=int, nargs="*", help="of the kinds, counted from 0; all without")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = ss.Model(network())
    fresh = rows_of(given.fresh, 0)
    shown = []
    for number, (name, (rows, terms)) in enumerate(CASES.items()):
        if given.only and number not in given.only:
            continue
        found = [one(model, rows, terms, fresh, seed) for seed in range(given.calibrations)]
        shares = np.array([each.share for each in found])
        asked = terms.reject + terms.review
        low, high = np.quantile(shares, [0.05, 0.95])
        count = len(found)
        shown.append([
            name, str(rows), f"{asked:.2%}", f"{shares.mean():.2%} +- {2 * shares.std() / math.sqrt(count):.2%}",
            f"{low:.2%} to {high:.2%}", f"{sum(each.inside for each in found)} of {count}",
            f"{sum(each.unsure_inside for each in found)} of {count}" if terms.low_confidence else "",
            f"{sum(each.held for each in found)} of {count}",
        ])  # fmt: skip
        print(" | ".join(shown[-1]), flush=True)
    print(machine())
    heads = ["calibrated for", "rows", "asked", "mean flagged", "90 % of them", "in the stated band",
             "unsure in its band", "chart holds a million"]  # fmt: skip
    print(table(heads, shown))
    print(f"{given.calibrations} calibrations each, every one measured on {given.fresh} fresh clean inputs")


if __name__ == "__main__":
    main()
