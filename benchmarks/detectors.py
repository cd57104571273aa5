"""Detectors on reference models: what was promised, what they find, and what is left against who knows of them.

--part detect: each detector beside each model, at a rate of 1 %: false alarms on held-out rows, what is found of
attacks that do not know of it, and how many right answers an attacker who knows changes unseen at the same eps.
--part bands: 200 resampled calibrations against the beta-binomial band. --part latency: the time of a decision over
that of the model alone, at batch 1.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

import signstep as ss
from harness import machine, mnist, need_shared, table
from signstep.auditing.detection import counts, standing
from signstep.detectors.calibration import allowed, beta_binomial_upper, p_values
from signstep.model.opening.weights import load_weights
from signstep.networks.mobilenet import mobilenet_v2
from signstep.networks.small import mnist_cnn

RATE, CLEAN, FIRST = 0.01, 4000, 6000
QUICK = ("confidence", "mahalanobis:pooled=true", "neighbours:k=3,pooled=true", "squeeze")
TRAINED_ON = "pgd:steps=10"
ATTACKS = ("fgsm", "pgd:steps=20")


@dataclass(frozen=True)
class Case:
    """A model of ../shared and the size of the changes."""

    name: str
    eps: float


CASES = (Case("mnist_standard", 0.15), Case("mnist_fgsm_rs", 0.35))
SPECS = (
    "confidence",
    "energy",
    "squeeze:bits=1",
    "mahalanobis",
    "neighbours",
    "lid",
    "image-statistics",
    "second-model",
    "learned",
    "learned:rounds=2",
)


def shuffled() -> tuple[Tensor, Tensor]:
    """The test set in another order: its second half is easier than the first, and rates hold for like rows alone."""
    x, y = mnist("test")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order], y[order]


def opened(name: str) -> nn.Module:
    model = mnist_cnn()
    load_weights(model, need_shared("models", f"{name}.safetensors"))
    return model.eval()


def fitted(
    spec: str, model: nn.Module, other: nn.Module, clean: tuple[Tensor, Tensor], eps: float
) -> ss.detectors.Detector:
    if spec == "second-model":
        return ss.detectors.fit(spec, model, clean, other=other)
    if spec.startswith("learned"):
        few = (clean[0][:2000], clean[1][:2000])
        rest = (clean[0][2000:], clean[1][2000:])
        return ss.detectors.fit(spec, model, few, calibrate=rest, threat=ss.linf(eps), attacks=[TRAINED_ON])
    return ss.detectors.fit(spec, model, clean)


def detect(case: Case, rows: int, specs: list[str]) -> Iterator[list[str]]:
    """A row for each detector."""
    x, y = shuffled()
    model = opened(case.name)
    other = opened(next(one.name for one in CASES if one is not case))
    clean, held = (x[:CLEAN], y[:CLEAN]), (x[FIRST : FIRST + rows], y[FIRST : FIRST + rows])
    for spec in specs:
        began = time.perf_counter()
        detector = fitted(spec, model, other, clean, case.eps)
        policy = ss.Policy(detectors=[detector], reject=RATE)
        alarms = int(policy.flags(x[FIRST:]).sum())
        result = ss.audit(
            model, held, threat=ss.linf(case.eps), attacks=ATTACKS, curve=False, run=ss.Run(policy=policy)
        )
        assert result.detection is not None
        clean_letters, verdicts = result.per_example.clean, result.per_example.verdicts
        left = standing(result.detection, clean_letters, verdicts)
        one = counts(result.detection, clean_letters, verdicts)[0]
        low, high = (100 * end for end in detector.band(RATE))
        yield [
            case.name,
            spec,
            str(len(detector.calibration)),
            f"{low:.2f}..{high:.2f}",
            f"{100 * alarms / len(x[FIRST:]):.2f}",
            *(f"{hit} of {whole}" for hit, whole in one.found.values()),
            str(left.missed),
            str(left.evaded),
            f"{left.served}/{left.plain}/{left.knowing}",
            str(left.denied),
            str(detector.passes),
            f"{time.perf_counter() - began:.0f}",
        ]


def bands(spec: str, draws: int, rows: int) -> list[list[str]]:
    """How many of the resampled calibrations lie in the band, and on either side."""
    x, y = shuffled()
    scores = ss.detectors.fit(spec, opened(CASES[0].name), (x[:200], y[:200])).score(x)
    found = []
    for rate in (0.01, 0.05):
        k, inside, below, shares = allowed(rate, rows), 0, 0, []
        for draw in range(draws):
            order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(draw))
            cal, rest = scores[order[:rows]].sort().values, scores[order[rows:]]
            flagged = int((p_values(cal, rest) <= rate).sum())
            chance = beta_binomial_upper(flagged, len(rest), k, rows + 1 - k)
            lower = 1 - beta_binomial_upper(flagged + 1, len(rest), k, rows + 1 - k)
            inside += chance >= 0.05 and lower >= 0.05
            below += lower < 0.05
            shares.append(flagged / len(rest))
        mean = 100 * sum(shares) / len(shares)
        found.append(
            [
                spec,
                f"{100 * rate:g} %",
                str(draws),
                str(rows),
                f"{mean:.3f} %",
                f"{100 * inside / draws:.1f} %",
                str(below),
            ]
        )
    return found


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def timed(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return median(times)


def latency(repeats: int) -> Iterator[list[str]]:
    """Milliseconds of processor time of the model alone and of a decision, which has the answer too."""
    x, y = shuffled()
    torch.manual_seed(0)
    photos = torch.rand(24, 3, 224, 224)
    for name, model, clean in (
        ("mnist_cnn", opened(CASES[0].name), (x[:400], y[:400])),
        ("mobilenet_v2", mobilenet_v2(need_shared("models")), (photos, None)),
    ):
        each = max(5, repeats // (20 if len(clean[0]) < 100 else 1))
        for spec in QUICK if isinstance(model, nn.Sequential) else (QUICK[0], QUICK[-1]):
            detector = ss.detectors.fit(spec, model, clean)
            policy = ss.Policy(detectors=[detector], reject=0.1)
            row = clean[0][:1]
            with threads(1), torch.no_grad():
                alone, both = [], []
                for _ in range(3):  # in turns, so that whatever else runs here disturbs both
                    alone.append(timed(partial(model, row), each))
                    both.append(timed(partial(policy.decide, row), each))
            one, two = 1e3 * min(alone), 1e3 * min(both)
            yield [name, spec, f"{one:.3f}", f"{two:.3f}", f"{two / one:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("detect", "bands", "latency"), default="detect")
    parser.add_argument("--rows", type=int, default=200, help="attacked examples (detect), calibration rows (bands)")
    parser.add_argument("--detector", action="append", help="of --part detect and bands; repeat")
    parser.add_argument("--model", choices=[case.name for case in CASES], help="of --part detect; both by default")
    parser.add_argument("--draws", type=int, default=200, help="resampled calibrations")
    parser.add_argument("--repeats", type=int, default=200, help="of --part latency")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine())
    if given.part == "detect":
        header = [
            "model",
            "detector",
            "rows",
            "band %",
            "alarms %",
            *ATTACKS,
            "missed",
            "evaded",
            "served/plain/knowing",
        ]
        header += ["denied", "passes", "s"]
        found = []
        for case in CASES:
            if given.model in (None, case.name):
                for row in detect(case, given.rows, given.detector or list(SPECS)):
                    print(" | ".join(row), flush=True)
                    found.append(row)
        print(table(header, found))
    elif given.part == "bands":
        header = ["detector", "asked", "draws", "rows", "mean", "inside the 90 % band", "below it"]
        print(
            table(
                header, [row for spec in given.detector or ["energy"] for row in bands(spec, given.draws, given.rows)]
            )
        )
    else:
        print(table(["model", "detector", "model ms", "decision ms", "ratio"], list(latency(given.repeats))))


if __name__ == "__main__":
    main()
