"""How often `signstep diagnose` is right: models that hide behind their gradients, and healthy ones, from code.

Small networks for the built-in digits, trained on the spot; weights are kept in a folder of the temporary one.
Every family of masks belongs to one half: thresholds are set on half A, half B is scored with what was set. A pair of
model and attack counts as inflated where the attack leaves more than 2 points more standing than the best attack known
here: `standard`, the adaptive attack that the family brings (written by hand by who knows the mask), and what the
diagnosis itself found. The others are real.

    python benchmarks/masked.py --half A
    python benchmarks/masked.py --half B --examples 100
"""

import argparse
import copy
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from harness import machine, table
from signstep.data.digits import digits
from signstep.engine.statistics import wilson

Net = Callable[[Any], Any]
CACHE = Path(tempfile.gettempdir()) / "signstep-masked"
POINTS = 0.02

NONDIFF, SATURATED, RANDOM = "non-differentiable step", "saturated loss", "random defence"
SHATTERED, SETUP, DYNAMIC = "shattered gradients", "set-up fault", "test-time defence"
TRAINED, CURVED, MORE = "trained against one step", "curved loss", "more than one step needed"
VANISHED, MASKED, WEAK = "vanishing gradients", "masked gradients", "attack too weak"


@dataclass(frozen=True)
class Entry:
    """A model with its attack.

    Attributes:
        family: of masks, or "healthy".
        name: of the model.
        model: as declared.
        attack: that is diagnosed.
        eps: L-infinity size.
        causes: of which one is to be named first, where it is inflated.
        search: how the attack searches.
        twin: a differentiable likeness, whose gradients the adaptive attack takes; None for the model's own.
        adaptive: recipes of the adaptive attack.
        eot: its draws.
        plain: the same function without the mask, where the mask preserves it.
    """

    family: str
    name: str
    model: Any
    attack: str = "pgd"
    eps: float = 0.1
    causes: tuple[str, ...] = ()
    search: ss.Search = field(default_factory=ss.Search)
    twin: Any = None
    adaptive: tuple[str, ...] = ("pgd:steps=100",)
    eot: int = 1
    plain: Any = None


class Through(nn.Module):
    """A function of inputs with the modules that it uses."""

    def __init__(self, function: Net, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        """The function of x."""
        return self.function(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Through":
        """With copies of what the function has around it: it would go on with the networks of the first otherwise."""
        parts = [copy.deepcopy(part, memo) for part in self.parts]
        return Through(_around(self.function, memo), *parts).train(self.training)


def _around(function: Any, memo: dict[int, Any]) -> Any:
    """The function around copies of modules and tensors."""
    if isinstance(function, partial):
        return partial(_around(function.func, memo), *function.args)
    cells = tuple(types.CellType(copy.deepcopy(cell.cell_contents, memo)) for cell in function.__closure__ or ())
    return types.FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)


# Networks.


def cnn(width: int = 12, norm: bool = False, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    def block(i: int, o: int) -> list[nn.Module]:
        return [nn.Conv2d(i, o, 3, padding=1), *([nn.BatchNorm2d(o)] if norm else []), activation()]

    return nn.Sequential(
        *block(1, width), *block(width, 2 * width), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(32 * width, 48), activation(), nn.Linear(48, 10),
    )  # fmt: skip


def mlp(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 96), activation(), nn.Linear(96, 48), activation(), nn.Linear(48, 10)
    )


class Winners(nn.Module):
    """Keeps the largest share of the units of a row, and sets the others to zero (k-winners-take-all)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Zeros but for the largest."""
        flat = x.flatten(1)
        least = flat.topk(max(1, int(self.share * flat.shape[1])), 1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


def _fgsm(net: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int, start: bool) -> Tensor:
    u = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1) if start else x.clone()
    for _ in range(steps):
        u.requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(net(u), y), u)
        u = torch.minimum(torch.maximum(u.detach() + alpha * g.sign(), x - eps), x + eps).clamp(0, 1)
    return u.detach()


def trained(name: str, make: Callable[[], nn.Module], *, how: str = "natural", epochs: int = 25, seed: int = 0,
            before: Net | None = None, temperature: float = 1.0) -> Any:  # fmt: skip
    """A network for the digits; ``how``: natural, pgd, fgsm (from the clean point), smooth (labels), noisy."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
        path = CACHE / f"{name}.pt"
        if path.exists():
            net.load_state_dict(torch.load(path, weights_only=True))
            return net.eval()
        x, y = digits("train")
        optimiser = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(epochs):
            for index in torch.split(torch.randperm(len(x)), 64):
                u, v = x[index], y[index]
                if how == "pgd":
                    u = _fgsm(net, u, v, 0.15, 0.05, 5, start=True)
                elif how == "fgsm":
                    u = _fgsm(net, u, v, 0.25, 0.25, 1, start=False)
                elif how == "noisy":
                    u = u + 0.2 * torch.randn_like(u)
                u = u if before is None else before(u)
                loss = F.cross_entropy(net(u) / temperature, v, label_smoothing=0.2 if how == "smooth" else 0.0)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), path)
    return net.eval()


def frozen(net: nn.Module) -> nn.Module:
    return net.requires_grad_(False)


# The collection: half A.


def logits_scaled() -> Iterator[Entry]:
    net = trained("natural", cnn)
    loud = Through(lambda x: 1e4 * net(x), net)
    how = ss.Search(loss="plain-ce")
    for attack in ("pgd", "fgsm"):
        yield Entry("logits x k", f"x 1e4 under {attack}", loud, attack, 0.12, (SATURATED,), how, net, plain=net)
    other = trained("natural-mlp", mlp)
    louder = Through(lambda x: 1e6 * other(x), other)
    yield Entry("logits x k", "mlp x 1e6", louder, "pgd", 0.1, (SATURATED,), how, other, plain=other)


def quantised() -> Iterator[Entry]:
    net = trained("natural", cnn)
    for levels in (4, 8):
        model = Through(partial(lambda n, x: net((x * n).round() / n), levels), net)
        yield Entry("quantised", f"{levels} levels", model, "pgd", 0.13, (NONDIFF,), twin=net)
    cast = Through(lambda x: net((x * 16).to(torch.uint8).float() / 16), net)
    yield Entry("quantised", "through uint8", cast, "pgd", 0.13, (NONDIFF,), twin=net)


def noise() -> Iterator[Entry]:
    net = trained("noisy", cnn, how="noisy")
    for sigma in (0.2, 0.4):
        model = Through(partial(lambda s, x: net(x + s * torch.randn_like(x)), sigma), net)
        yield Entry("noise", f"sigma {sigma}", model, "pgd", 0.2, (RANDOM,), eot=16, adaptive=("pgd:steps=40",))


def detached() -> Iterator[Entry]:
    net, other = trained("natural", cnn), trained("natural-mlp", mlp)
    model = Through(lambda x: net(x.detach()) + 1e-3 * other(1 - x), net, other)
    yield Entry("detached branch", "the main branch", model, "pgd", 0.12, (NONDIFF,), twin=net)

    def without(x: Tensor) -> Any:
        with torch.no_grad():
            features = net[:5](x)
        return net[5:](features) + 0 * x.sum((1, 2, 3), keepdim=False).unsqueeze(1) - 1e-3 * other(x)

    yield Entry("detached branch", "no_grad", Through(without, net, other), "pgd", 0.12, (NONDIFF,), twin=net)


def batchnorm() -> Iterator[Entry]:
    net = trained("bn", lambda: cnn(norm=True))
    live = trained("bn", lambda: cnn(norm=True)).train()
    yield Entry("train-mode BatchNorm", "left in training", ss.Model(live, mode="keep"), "pgd", 0.1, (SETUP,), twin=net)


def collapsed() -> Iterator[Entry]:
    for seed in range(2):
        net = trained(f"collapsed{seed}", cnn, how="fgsm", epochs=40, seed=seed)
        yield Entry("collapsed FGSM", f"seed {seed}", net, "fgsm", 0.2, (TRAINED, CURVED, MORE))


def winners() -> Iterator[Entry]:
    for share in (0.1, 0.2):
        net = trained(f"winners{share}", partial(mlp, partial(Winners, share)), epochs=40)
        adaptive = ("averaged-pgd:steps=40,samples=16,reach=1", "square:queries=3000")
        yield Entry("k-winners", f"share {share}", net, "pgd", 0.1, (SHATTERED, NONDIFF), adaptive=adaptive)


def voting() -> Iterator[Entry]:
    nets = [trained(f"vote{seed}", mlp, seed=seed + 5) for seed in range(5)]

    def votes(x: Tensor) -> Any:
        return sum(F.one_hot(net(x).argmax(1), 10).float() for net in nets)

    def mean(x: Tensor) -> Any:
        return sum(net(x).log_softmax(1) for net in nets)

    model, twin = Through(votes, *nets), Through(mean, *nets)
    yield Entry("voting", "five networks", ss.Model(model, outputs="logits"), "pgd", 0.1, (NONDIFF,), twin=twin)


def purified() -> Iterator[Entry]:
    net = trained("natural", cnn)
    basis = _basis()

    def cleaned(x: Tensor) -> Any:
        u = x.detach().clone()
        with torch.enable_grad():
            for _ in range(3):
                u.requires_grad_()
                away = ((u.flatten(1) - 0.3) @ basis[24:].T).square().sum()
                (g,) = torch.autograd.grad(away, u)
                u = (u - 0.3 * g).detach()
        return net(u)

    def straight(x: Tensor) -> Any:
        return net(x - ((x.flatten(1) - 0.3) @ basis[24:].T @ basis[24:]).view_as(x))

    model, twin = Through(cleaned, net), Through(straight, net)
    yield Entry("purification", "three steps to a subspace", model, "pgd", 0.13, (DYNAMIC, NONDIFF), twin=twin)


def distilled() -> Iterator[Entry]:
    net = trained("hot", cnn, temperature=50.0, epochs=60)
    how = ss.Search(loss="plain-ce")
    yield Entry("distillation", "temperature 50", net, "pgd", 0.12, (SATURATED,), how, net, plain=net)
    yield Entry("distillation", "under bim", net, "bim", 0.12, (SATURATED,), how, net, plain=net)


def healthy_a() -> Iterator[Entry]:
    nets = {
        "natural": (trained("natural", cnn), 0.06),
        "adversarially trained": (trained("pgd", cnn, how="pgd"), 0.15),
        "smoothed labels": (trained("smooth", cnn, how="smooth"), 0.06),
        "mlp": (trained("natural-mlp", mlp), 0.05),
        "BatchNorm": (trained("bn", lambda: cnn(norm=True)), 0.05),
    }
    for name, (net, eps) in nets.items():
        for attack in ("pgd:steps=50,restarts=2", "standard"):
            yield Entry("healthy", name, net, attack, eps)


# Half B.


def softmax() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)

    def ended(x: Tensor) -> Any:
        e = (30 * (net(x) - net(x).amax(1, keepdim=True))).exp()
        return e / e.sum(1, keepdim=True)

    model = ss.Model(Through(ended, net), outputs="probabilities")
    how = ss.Search(loss="plain-ce")
    yield Entry("appended softmax", "written out, 30 z", model, "pgd", 0.12, (SATURATED, VANISHED), how, net, plain=net)
    taken = Through(ended, net)
    yield Entry("appended softmax", "taken for logits", ss.Model(taken, outputs="logits"), "pgd", 0.12,
                (SATURATED, VANISHED), ss.Search(), net, plain=net)  # fmt: skip


def thresholded() -> Iterator[Entry]:
    net = trained("threshold", cnn, before=lambda x: (x > 0.5).float())
    model = Through(lambda x: net((x > 0.5).float()), net)
    soft = Through(lambda x: net(torch.sigmoid(20 * (x - 0.5))), net)
    yield Entry("thresholded", "at 0.5", model, "pgd", 0.2, (NONDIFF,), twin=soft)
    other = Through(lambda x: net(((x - 0.5).sign() + 1) / 2), net)
    yield Entry("thresholded", "by sign", other, "pgd", 0.2, (NONDIFF,), twin=soft)


def thermometer() -> Iterator[Entry]:
    levels = torch.linspace(0.05, 0.95, 10).view(1, 10, 1, 1)

    def coded(x: Tensor) -> Any:
        return (x > levels).float()

    def first() -> nn.Module:
        net = cnn()
        net[0] = nn.Conv2d(10, 12, 3, padding=1)
        return net

    net = trained("thermometer", first, before=coded)
    soft = Through(lambda x: net(torch.sigmoid(20 * (x - levels))), net)
    yield Entry("thermometer", "ten levels", Through(lambda x: net(coded(x)), net), "pgd", 0.12, (NONDIFF,), twin=soft)


def _basis() -> Tensor:
    k = torch.arange(8, dtype=torch.float32)
    one = torch.cos(torch.pi * (2 * k + 1) * k.view(-1, 1) / 16) * torch.where(k == 0, 8**-0.5, 0.5).view(-1, 1)
    both = torch.kron(one, one)
    return both[(torch.arange(64) // 8 + torch.arange(64) % 8).argsort(stable=True)]


def jpeg() -> Iterator[Entry]:
    net, basis = trained("natural-b", cnn, seed=20), _basis()

    def coded(x: Tensor) -> Any:
        return (((x.flatten(1) @ basis.T) * 3).round() / 3 @ basis).view_as(x)

    yield Entry("JPEG", "rounded cosines", Through(lambda x: net(coded(x)), net), "pgd", 0.12, (NONDIFF,), twin=net)

    def outside(x: Tensor) -> Any:
        a = np.round(x.detach().numpy().reshape(-1, 64) @ basis.numpy().T * 3) / 3
        return net(torch.from_numpy((a @ basis.numpy()).reshape(x.shape).astype(np.float32)))

    yield Entry("JPEG", "in NumPy", Through(outside, net), "pgd", 0.12, (NONDIFF,), twin=net)


def padded() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)

    def moved(x: Tensor) -> Any:
        by = torch.randint(0, 3, (2,))
        return net(F.pad(x, (1, 1, 1, 1))[:, :, by[0] : by[0] + 8, by[1] : by[1] + 8])

    yield Entry(
        "resize-pad", "one pixel", Through(moved, net), "pgd", 0.12, (RANDOM,), eot=16, adaptive=("pgd:steps=40",)
    )


def dropped() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)
    for p in (0.3, 0.5):
        model = Through(partial(lambda p, x: net[5:](F.dropout(net[:5](x), p, training=True)), p), net)
        yield Entry("dropout alive", f"p {p}", model, "pgd", 0.12, (RANDOM,), eot=16, adaptive=("pgd:steps=40",))


def random_neurons() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)

    def pruned(x: Tensor) -> Any:
        a = net[:5](x)
        keep = torch.rand_like(a) < (a.abs() / a.abs().mean(1, keepdim=True)).clamp(0, 1)
        return net[5:](a * keep)

    yield Entry("random neurons", "by size", Through(pruned, net), "pgd", 0.12, (RANDOM,), eot=16,
                adaptive=("pgd:steps=40",))  # fmt: skip


def mixed() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)
    pool, _ = digits("train")

    def inferred(x: Tensor) -> Any:
        out: Any = 0
        for _ in range(4):
            out = out + net(0.6 * x + 0.4 * pool[torch.randint(0, len(pool), (len(x),))]).softmax(1)
        return (out / 4).log()

    yield Entry("mixup inference", "four others", Through(inferred, net), "pgd", 0.15, (RANDOM,), eot=16,
                adaptive=("pgd:steps=40",))  # fmt: skip


def neighbours() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)
    pool, labels = digits("train")
    with torch.no_grad():
        known = net[:-1](pool)
    kinds = F.one_hot(labels, 10).float()

    def votes(x: Tensor) -> Any:
        near = torch.cdist(net[:-1](x), known).topk(5, largest=False).indices
        return kinds[near].sum(1)

    def soft(x: Tensor) -> Any:
        return (torch.softmax(-4 * torch.cdist(net[:-1](x), known), 1) @ kinds).clamp_min(1e-9).log()

    model = ss.Model(Through(votes, net), outputs="logits")
    yield Entry("nearest neighbours", "five votes", model, "pgd", 0.12, (NONDIFF,), twin=Through(soft, net))


def rippled() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)
    for size, speed in ((2e-3, 1e4), (5e-4, 1e5)):
        model = Through(partial(lambda a, w, x: net(x + a * torch.sin(w * x)), size, speed), net)
        yield Entry(
            "high frequency", f"{size:g} sin({speed:g} x)", model, "pgd", 0.12, (SHATTERED,), twin=net, plain=net
        )


def single() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)
    yield Entry("one step", "a natural network", net, "fgsm", 0.15, (CURVED, MORE, WEAK))
    yield Entry("one step", "one random start", net, "fgsm-rs", 0.15, (CURVED, MORE, WEAK))


def healthy_b() -> Iterator[Entry]:
    nets = {
        "natural": (trained("natural-b", cnn, seed=20), 0.06),
        "adversarially trained": (trained("pgd-b", mlp, how="pgd", seed=21), 0.1),
        "tanh": (trained("tanh", lambda: mlp(nn.Tanh), seed=22), 0.05),
        "GELU": (trained("gelu", lambda: cnn(activation=nn.GELU), seed=23), 0.06),
        "linear": (trained("linear", lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), seed=24), 0.04),
    }
    for name, (net, eps) in nets.items():
        for attack in ("pgd:steps=50,restarts=2", "standard"):
            yield Entry("healthy", name, net, attack, eps)


HALVES: dict[str, tuple[Callable[[], Iterator[Entry]], ...]] = {
    "A": (logits_scaled, quantised, noise, detached, batchnorm, collapsed, winners, voting, purified, distilled,
          healthy_a),
    "B": (softmax, thresholded, thermometer, jpeg, padded, dropped, random_neurons, mixed, neighbours, rippled, single,
          healthy_b),
}  # fmt: skip


# Scoring.


def standing(
    entry: Entry, model: Any, x: Tensor, y: Tensor, attacks: tuple[str, ...] | str, search: ss.Search
) -> Tensor:
    """Which examples stand, (N,)."""
    how: dict[str, Any] = {"ladder": attacks} if isinstance(attacks, str) else {"attacks": list(attacks)}
    result = ss.audit(model, (x, y), threat=ss.linf(entry.eps), curve=False, search=search, **how)
    return torch.tensor([letter in "hu" for letter in result.worst_case])


def scored(entry: Entry, x: Tensor, y: Tensor) -> dict[str, Any]:
    began = time.perf_counter()
    d = ss.diagnose(entry.model, (x, y), threat=ss.linf(entry.eps), attack=entry.attack, search=entry.search)
    seconds = time.perf_counter() - began
    how = ss.Search(eot=entry.eot)
    twin = entry.twin
    if twin is not None:
        how = replace(how, surrogate=ss.Model(frozen(twin), outputs="logits"))
    adapted = (
        int(standing(entry, entry.model, x, y, entry.adaptive, how).sum()) if entry.family != "healthy" else d.after
    )
    best = min(d.after, adapted, d.standard if d.standard is not None else d.after)
    wanted = None
    if entry.plain is not None:
        wanted = int(standing(entry, entry.plain, x, y, "standard", ss.Search()).sum())
    return {
        "entry": entry, "d": d, "inflated": d.before - best > POINTS * d.examples, "best": best, "plain": wanted,
        "seconds": seconds, "adapted": adapted,
    }  # fmt: skip


def share(hits: int, of: int) -> str:
    low, high = wilson(hits, of)
    return f"{hits} of {of} ({hits / max(1, of):.0%}, 95 % [{low:.0%}, {high:.0%}])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=sorted(HALVES), default="A")
    parser.add_argument("--examples", type=int, default=100, help="at most 128")
    parser.add_argument("--only", help="a family")
    parser.add_argument("--full", action="store_true", help="print each diagnosis")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    x, y = digits("test")
    x, y = x[: asked.examples], y[: asked.examples]
    print(machine())
    rows, found = [], []
    for family in HALVES[asked.half]:
        for entry in family():
            if asked.only and asked.only not in entry.family:
                continue
            one = scored(entry, x, y)
            found.append(one)
            d = one["d"]
            if asked.full:
                print(d, "\n")
            named = d.causes[0].name if d.causes and d.verdict.word == "inflated" else ""
            right = "" if not one["inflated"] or not named else "yes" if named in entry.causes else "NO"
            row = (
                entry.family, entry.name, entry.attack, "inflated" if one["inflated"] else "real", d.verdict.word,
                str(d.before), str(d.after), str(one["adapted"]), "" if one["plain"] is None else str(one["plain"]),
                named, right, f"{d.cost.tests / max(1, d.cost.standard):.1f}", f"{one['seconds']:.0f}",
            )  # fmt: skip
            rows.append(row)
            print(" | ".join(row), flush=True)
    header = ("family", "model", "attack", "truth", "verdict", "before", "after", "by hand", "unmasked", "cause",
              "cause right", "x standard", "s")  # fmt: skip
    print(f"\n{table(header, rows)}\n")
    bad = [one for one in found if one["inflated"]]
    good = [one for one in found if not one["inflated"]]
    hit = [one for one in bad if one["d"].verdict.word == "inflated"]
    caused = [one for one in hit if one["d"].causes and one["d"].causes[0].name in one["entry"].causes]
    kept = [one for one in hit if one["plain"] is not None]
    near = [one for one in kept if abs(one["d"].after - one["plain"]) <= POINTS * one["d"].examples]
    print(f"inflated found: {share(len(hit), len(bad))}")
    print(f"of these called undetermined: {sum(one['d'].verdict.word == 'undetermined' for one in bad)}")
    false = [one for one in good if one["d"].verdict.word == "inflated"]
    unsure = [one for one in good if one["d"].verdict.word == "undetermined"]
    print(f"false alarms: {share(len(false), len(good))}; undetermined among the real: {len(unsure)}")
    print(f"cause right: {share(len(caused), len(hit))}")
    print(f"adapted number within 2 points of the unmasked model's: {share(len(near), len(kept))}")


if __name__ == "__main__":
    main()
