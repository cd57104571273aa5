"""Half B of the collection: other families, on which nothing was set."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from masking.entry import NONDIFF, RANDOM, SATURATED, VANISHED, Entry, Through
from masking.networks import cnn, cosines, mlp, trained
from signstep.data.digits import digits
from signstep.networks.vit import vit

PLAIN = ss.Search(loss="plain-ce")
DRAWN: dict[str, Any] = {"eot": 16, "adaptive": ("pgd:steps=40",)}


def _base() -> Any:
    return trained("natural-b", cnn, seed=20)


def _other() -> Any:
    return trained("mlp-b", mlp, seed=25)


def thresholded() -> Iterator[Entry]:
    net = trained("threshold", cnn, before=lambda x: (x > 0.5).float())
    model = Through(lambda x: net((x > 0.5).float()), net)
    soft = Through(lambda x: net(torch.sigmoid(20 * (x - 0.5))), net)
    yield Entry("thresholded", "at 0.5", model, "pgd", 0.2, (NONDIFF,), twin=soft)
    other = Through(lambda x: net(((x - 0.5).sign() + 1) / 2), net)
    yield Entry("thresholded", "by sign", other, "pgd", 0.2, (NONDIFF,), twin=soft)


def thermometer() -> Iterator[Entry]:
    for count in (10, 5):
        levels = torch.linspace(0.05, 0.95, count).view(1, count, 1, 1)

        def coded(levels: Tensor, x: Tensor) -> Any:
            return (x > levels).float()

        def first(count: int) -> nn.Module:
            net = cnn()
            net[0] = nn.Conv2d(count, 12, 3, padding=1)
            return net

        name = "thermometer" if count == 10 else f"thermometer{count}"
        net = trained(name, partial(first, count), before=partial(coded, levels))
        model = Through(partial(lambda net, levels, x: net((x > levels).float()), net, levels), net)
        soft = Through(partial(lambda net, levels, x: net(torch.sigmoid(20 * (x - levels))), net, levels), net)
        yield Entry("thermometer", f"{count} levels", model, "pgd", 0.12, (NONDIFF,), twin=soft)


def jpeg() -> Iterator[Entry]:
    net, basis = _base(), cosines()

    def coded(x: Tensor) -> Any:
        return (((x.flatten(1) @ basis.T) * 3).round() / 3 @ basis).view_as(x)

    yield Entry("JPEG", "rounded cosines", Through(lambda x: net(coded(x)), net), "pgd", 0.12, (NONDIFF,), twin=net)

    def outside(x: Tensor) -> Any:
        a = np.round(x.detach().numpy().reshape(-1, 64) @ basis.numpy().T * 3) / 3
        return net(torch.from_numpy((a @ basis.numpy()).reshape(x.shape).astype(np.float32)))

    yield Entry("JPEG", "in NumPy", Through(outside, net), "pgd", 0.12, (NONDIFF,), twin=net)


def padded() -> Iterator[Entry]:
    for name, net in (("cnn", _base()), ("mlp", _other())):

        def moved(net: Any, x: Tensor) -> Any:
            by = torch.randint(0, 3, (2,))
            return net(F.pad(x, (1, 1, 1, 1))[:, :, by[0] : by[0] + 8, by[1] : by[1] + 8])

        yield Entry("resize-pad", f"one pixel, {name}", Through(partial(moved, net), net), "pgd", 0.12, (RANDOM,),
                    **DRAWN)  # fmt: skip


def dropped() -> Iterator[Entry]:
    net = _base()
    for p in (0.3, 0.5):
        model = Through(partial(lambda p, x: net[5:](F.dropout(net[:5](x), p, training=True)), p), net)
        yield Entry("dropout alive", f"p {p}", model, "pgd", 0.12, (RANDOM,), **DRAWN)


def random_neurons() -> Iterator[Entry]:
    net = _base()

    def pruned(share: float, x: Tensor) -> Any:
        a = net[:5](x)
        keep = torch.rand_like(a) < (share * a.abs() / a.abs().mean(1, keepdim=True)).clamp(0, 1)
        return net[5:](a * keep)

    for share in (1.0, 0.5):
        model = Through(partial(pruned, share), net)
        yield Entry("random neurons", f"by size, {share:g}", model, "pgd", 0.12, (RANDOM,), **DRAWN)


def mixed() -> Iterator[Entry]:
    pool, _ = digits("train")
    for name, net in (("cnn", _base()), ("mlp", _other())):

        def inferred(net: Any, x: Tensor) -> Any:
            out: Any = 0
            for _ in range(4):
                out = out + net(0.6 * x + 0.4 * pool[torch.randint(0, len(pool), (len(x),))]).softmax(1)
            return (out / 4).log()

        yield Entry("mixup inference", f"four others, {name}", Through(partial(inferred, net), net), "pgd", 0.15,
                    (RANDOM,), **DRAWN)  # fmt: skip


def palette() -> Iterator[Entry]:
    """Each pixel becomes the nearest of a few grey levels, by index."""
    for name, net in (("cnn", _base()), ("mlp", _other())):
        greys = torch.tensor([0.0, 0.2, 0.45, 0.7, 0.95])

        def nearest(net: Any, greys: Tensor, x: Tensor) -> Any:
            return net(greys[(x.unsqueeze(-1) - greys).abs().argmin(-1)])

        model = Through(partial(nearest, net, greys), net)
        yield Entry("palette", f"five greys, {name}", model, "pgd", 0.12, (NONDIFF,), twin=net)


def experts() -> Iterator[Entry]:
    """The network that is surest answers alone, with hard scores."""
    for name, makes in (("mlps", mlp), ("cnns", cnn)):
        nets = [trained(f"expert-{name}{seed}", makes, seed=seed + 40) for seed in range(3)]

        def surest(nets: list[Any], x: Tensor) -> Any:
            scores = torch.stack([net(x) for net in nets])  # (n, R, K)
            best = scores.amax(2).argmax(0)
            return F.one_hot(scores.argmax(2).gather(0, best.unsqueeze(0))[0], 10).float() * 5

        def mean(nets: list[Any], x: Tensor) -> Any:
            return sum(net(x).log_softmax(1) for net in nets)

        declared = ss.Model(Through(partial(surest, nets), *nets), outputs="logits")
        twin = Through(partial(mean, nets), *nets)
        yield Entry("one expert", name, declared, "pgd", 0.1, (NONDIFF,), twin=twin)


class _Blunt(torch.autograd.Function):
    """The identity with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * ctx.factor, None


def blunted() -> Iterator[Entry]:
    """A backward pass that is none, or leads the other way."""
    net = _base()
    for name, factor in (("zero", 0.0), ("turned", -1.0)):
        model = Through(partial(lambda f, x: net(_Blunt.apply(x, f)), factor), net)  # type: ignore[no-untyped-call]
        yield Entry("own backward pass", name, model, "pgd", 0.12, (NONDIFF, VANISHED), twin=net, plain=net)


def squashed() -> Iterator[Entry]:
    """Scores that are squashed until they hardly move."""
    for name, net in (("cnn", _base()), ("mlp", _other())):
        model = Through(partial(lambda net, x: torch.tanh(2 * net(x)) * 20, net), net)
        yield Entry("squashed scores", name, model, "pgd", 0.12, (SATURATED, VANISHED), twin=net, plain=net)


def cold() -> Iterator[Entry]:
    """Probabilities at a low temperature, searched by the plain cross-entropy."""
    for name, net in (("cnn", _base()), ("mlp", _other())):
        model = ss.Model(Through(partial(lambda net, x: (net(x) / 0.01).softmax(1), net), net), outputs="probabilities")
        yield Entry("temperature", f"0.01, {name}", model, "pgd", 0.12, (SATURATED, VANISHED), PLAIN, net, plain=net)


def healthy() -> Iterator[Entry]:
    nets: dict[str, tuple[Any, float]] = {
        "natural": (_base(), 0.06),
        "adversarially trained": (trained("pgd-b", mlp, how="pgd", seed=21), 0.1),
        "tanh": (trained("tanh", lambda: mlp(nn.Tanh), seed=22), 0.05),
        "GELU": (trained("gelu", lambda: cnn(activation=nn.GELU), seed=23), 0.06),
        "transformer": (trained("vit", lambda: vit(width=24, depth=2), seed=24), 0.05),
    }
    for name, (net, eps) in nets.items():
        for attack in ("pgd:steps=50,restarts=2", "standard", "apgd:loss=margin,steps=50"):
            yield Entry("healthy", name, net, attack, eps)


HALF: tuple[Callable[[], Iterator[Entry]], ...] = (
    thresholded, thermometer, jpeg, padded, dropped, random_neurons, mixed, palette, experts, blunted, squashed, cold,
    healthy,
)  # fmt: skip
