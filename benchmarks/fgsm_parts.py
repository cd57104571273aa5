"""What FGSM's checks cost on a small network, part by part.

The parts of one ``ss.fgsm`` call are run by themselves, each right after a bare loop through which caches have lost
them, as they are met in a call ("in place"), and many times in a row ("warm"). Shares are of the bare loop in the same
run. What parts share (the pass itself, the step) is taken off: "watching the call" is a watched pass on two rows
less a plain one.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from harness import bare_fgsm, machine, race, table
from signstep.attacks.gradient.fgsm import fgsm
from signstep.engine.keys import Key
from signstep.engine.region import BallRegion
from signstep.engine.threat import threat_model
from signstep.engine.untouched import Guard, RandomnessWatch, RandomState, untouched
from signstep.model.declaration import Model
from signstep.model.search import search_of
from signstep.model.subject import Subject
from signstep.networks.small import mnist_cnn

EPS = 8 / 255


def timed(part: Callable[[], object], between: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median milliseconds in place, right after ``between``; and warm, over many calls in a row."""
    cold = []
    for _ in range(rounds):
        between()
        began = time.perf_counter()
        part()
        cold.append(time.perf_counter() - began)
    repeats = 20
    warm = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(repeats):
            part()
        warm.append((time.perf_counter() - began) / repeats)
    return 1e3 * statistics.median(cold), 1e3 * min(warm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = mnist_cnn().eval()
    x, y = torch.rand(options.images, 1, 28, 28), torch.randint(10, (options.images,))
    few, answers = x[:2], y[:2]
    bare, threat, attack, declared = bare_fgsm(model, EPS), threat_model("linf", EPS), fgsm(), Model.of(model)
    search = search_of(None)
    subject = Subject.of(declared, search)

    def states() -> None:
        RandomState.of().restore()

    def drawn() -> None:
        RandomnessWatch(x.device, 5).drew()

    def guarded() -> None:
        guard = Guard((model,), "eval", None)  # type: ignore[arg-type]
        guard.open()
        guard.close()

    def read() -> None:
        search_of(None)
        Subject.of(Model.of(model), search)
        threat_model("linf", EPS)
        fgsm()

    def region() -> Tensor:
        around = BallRegion.around(x, threat)
        return around.land(around.steepest(x))

    print(machine(), flush=True)
    times = race(
        {"bare": lambda: bare(x, y), "again": lambda: bare(x, y), "signstep": lambda: ss.fgsm(model, x, y, eps=EPS)},
        "bare",
        2 * options.rounds,
    )
    ratios = {name: f"{times[name].ratio:.3f}" for name in ("again", "signstep")}
    print(f"bare {times['bare'].median:.2f} ms; ratios to it: {ratios}", flush=True)

    @torch.enable_grad()
    def between() -> None:
        bare(x, y)

    def measure(part: Callable[[], object], less: Callable[[], object] | None = None) -> tuple[float, float]:
        cold, warm = timed(part, between, options.rounds)
        if less is None:
            return cold, warm
        cold_less, warm_less = timed(less, between, options.rounds)
        return cold - cold_less, warm - warm_less

    found = {
        "random states of torch, NumPy and Python kept and put back": measure(states),
        "generators seeded, and a look whether the model drew": measure(drawn),
        "modules found, modes, weights' flags and buffers kept and put back": measure(guarded),
        "declaration, search and threat read": measure(read),
        "the set around the batch: range of x checked, step and landing, less a bare step": measure(
            region, lambda: torch.clamp(x + EPS * x.sign(), 0, 1)
        ),
    }
    with untouched(model), torch.no_grad():
        found["the call watched for a softmax at its end and for batch statistics"] = measure(
            lambda: Subject.of(declared, search).predictor(few), lambda: model(few)
        )
    with untouched(model):
        question = subject.ask(x, y, threat, key=Key(0), attack=attack)
        outputs = subject.predictor(x)
        found["outputs read into loss, ways to fail and validity, less a cross-entropy"] = measure(
            lambda: question.problem.read(outputs), lambda: F.cross_entropy(outputs.scores, y, reduction="sum")
        )
    found["a whole call on two rows, less a bare one"] = measure(
        lambda: ss.fgsm(model, few, answers, eps=EPS), lambda: bare(few, answers)
    )
    base = times["bare"].median
    rows = [[name, f"{cold:.2f}", f"{warm:.2f}", f"{100 * cold / base:.1f} %"] for name, (cold, warm) in found.items()]
    print("\n" + table(["part", "in place, ms", "warm, ms", "of the bare loop"], rows))


if __name__ == "__main__":
    main()
