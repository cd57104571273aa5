"""Half A of the collection: the families on which thresholds and cures were set."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from masking.entry import (
    CURVED,
    DYNAMIC,
    EARLY,
    MASKED,
    MORE,
    NONDIFF,
    PRECISION,
    RANDOM,
    SATURATED,
    SETUP,
    SHATTERED,
    STEP,
    TRAINED,
    VANISHED,
    WEAK,
    Entry,
    Through,
)
from masking.networks import Winners, cnn, cosines, mlp, trained
from signstep.data.digits import digits
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import steepest

PLAIN = ss.Search(loss="plain-ce")


def logits_scaled() -> Iterator[Entry]:
    net = trained("natural", cnn)
    loud = Through(lambda x: 1e4 * net(x), net)
    for attack in ("pgd", "bim", "fgsm"):
        yield Entry("logits x k", f"x 1e4 under {attack}", loud, attack, 0.12, (SATURATED,), PLAIN, net, plain=net)
    other = trained("natural-mlp", mlp)
    louder = Through(lambda x: 1e6 * other(x), other)
    yield Entry("logits x k", "mlp x 1e6", louder, "pgd", 0.1, (SATURATED,), PLAIN, other, plain=other)


def quantised() -> Iterator[Entry]:
    net, other = trained("natural", cnn), trained("natural-mlp", mlp)
    for levels in (4, 8):
        model = Through(partial(lambda n, x: net((x * n).round() / n), levels), net)
        yield Entry("quantised", f"{levels} levels", model, "pgd", 0.13, (NONDIFF,), twin=net)
    cast = Through(lambda x: net((x * 16).to(torch.uint8).float() / 16), net)
    yield Entry("quantised", "through uint8", cast, "pgd", 0.13, (NONDIFF,), twin=net)
    floored = Through(lambda x: other(torch.floor(x * 6) / 6), other)
    yield Entry("quantised", "mlp, floor", floored, "pgd", 0.1, (NONDIFF,), twin=other)


def noise() -> Iterator[Entry]:
    net = trained("noisy", cnn, how="noisy")
    for sigma in (0.2, 0.4):
        model = Through(partial(lambda s, x: net(x + s * torch.randn_like(x)), sigma), net)
        yield Entry("noise", f"sigma {sigma}", model, "pgd", 0.2, (RANDOM,), eot=16, adaptive=("pgd:steps=40",))


def detached() -> Iterator[Entry]:
    net, other = trained("natural", cnn), trained("natural-mlp", mlp)
    model = Through(lambda x: net(x.detach()) + 1e-3 * other(1 - x), net, other)
    whole = Through(lambda x: net(x) + 1e-3 * other(1 - x), net, other)
    yield Entry("detached branch", "the main branch", model, "pgd", 0.12, (NONDIFF,), twin=net, plain=whole)

    def without(x: Tensor) -> Any:
        with torch.no_grad():
            features = net[:5](x)
        return net[5:](features) + 0 * x.sum((1, 2, 3), keepdim=False).unsqueeze(1) - 1e-3 * other(x)

    bare = Through(lambda x: net(x) - 1e-3 * other(x), net, other)
    yield Entry("detached branch", "no_grad", Through(without, net, other), "pgd", 0.12, (NONDIFF,), twin=net,
                plain=bare)  # fmt: skip


def batchnorm() -> Iterator[Entry]:
    for name, width in (("bn", 12), ("bn8", 8)):
        net = trained(name, partial(cnn, width, norm=True))
        live = trained(name, partial(cnn, width, norm=True)).train()
        yield Entry("train-mode BatchNorm", f"{width} channels", ss.Model(live, mode="keep"), "pgd", 0.1, (SETUP,),
                    twin=net)  # fmt: skip


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
    for count in (5, 3):

        def votes(nets: list[Any], x: Tensor) -> Any:
            return sum(F.one_hot(net(x).argmax(1), 10).float() for net in nets)

        def mean(nets: list[Any], x: Tensor) -> Any:
            return sum(net(x).log_softmax(1) for net in nets)

        some = nets[:count]
        model, twin = Through(partial(votes, some), *some), Through(partial(mean, some), *some)
        declared = ss.Model(model, outputs="logits")
        yield Entry("voting", f"{count} networks", declared, "pgd", 0.1, (NONDIFF,), twin=twin)


def purified() -> Iterator[Entry]:
    net = trained("natural", cnn)
    basis = cosines()

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
    for attack in ("pgd", "bim"):
        yield Entry("distillation", f"under {attack}", net, attack, 0.12, (SATURATED,), PLAIN, net, plain=net)


def softmax() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)

    def ended(x: Tensor) -> Any:
        e = (30 * (net(x) - net(x).amax(1, keepdim=True))).exp()
        return e / e.sum(1, keepdim=True)

    model = ss.Model(Through(ended, net), outputs="probabilities")
    causes = (SATURATED, VANISHED, PRECISION)
    yield Entry("appended softmax", "written out, 30 z", model, "pgd", 0.12, causes, PLAIN, net, plain=net)
    taken = ss.Model(Through(ended, net), outputs="logits")
    yield Entry("appended softmax", "taken for logits", taken, "pgd", 0.12, causes, ss.Search(), net, plain=net)


def rippled() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)
    for size, speed in ((2e-3, 1e4), (5e-4, 1e5)):
        model = Through(partial(lambda a, w, x: net(x + a * torch.sin(w * x)), size, speed), net)
        yield Entry(
            "high frequency", f"{size:g} sin({speed:g} x)", model, "pgd", 0.12, (SHATTERED,), twin=net, plain=net
        )


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


def single() -> Iterator[Entry]:
    net = trained("natural-b", cnn, seed=20)
    for attack in ("fgsm", "fgsm-rs"):
        yield Entry("one step", f"natural, {attack}", net, attack, 0.15, (CURVED, MORE, WEAK))


def weak() -> Iterator[Entry]:
    """A healthy network under a search that does not fit."""
    net = trained("natural", cnn)
    short = GradientAttack("short", steepest(0.02), 20, "clean")
    long = GradientAttack("long", steepest(2.0), 20, "clean")
    yield Entry("weak search", "steps of eps / 50", net, short, 0.12, (EARLY, STEP, WEAK))
    yield Entry("weak search", "steps of 2 eps", net, long, 0.12, (STEP, WEAK, EARLY, CURVED))
    yield Entry("weak search", "random signs", net, "random-sign:restarts=5", 0.12, (WEAK, MASKED))


def healthy() -> Iterator[Entry]:
    nets: dict[str, tuple[Any, float]] = {
        "natural": (trained("natural", cnn), 0.06),
        "adversarially trained": (trained("pgd", cnn, how="pgd"), 0.15),
        "smoothed labels": (trained("smooth", cnn, how="smooth"), 0.06),
        "mlp": (trained("natural-mlp", mlp), 0.05),
        "BatchNorm": (trained("bn", partial(cnn, 12, norm=True)), 0.05),
    }
    for name, (net, eps) in nets.items():
        for attack in ("pgd:steps=50,restarts=2", "standard", "apgd:loss=margin,steps=50"):
            # Where one of them is measured to be inflated all the same, nothing hides: the attack was too weak.
            yield Entry("healthy", name, net, attack, eps, (WEAK,))


HALF: tuple[Callable[[], Iterator[Entry]], ...] = (
    logits_scaled, quantised, noise, detached, batchnorm, collapsed, winners, voting, purified, distilled, softmax,
    rippled, neighbours, single, weak, healthy,
)  # fmt: skip
