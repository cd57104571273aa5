"""Small networks on which each test of the battery fires, and their healthy twins on which it does not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from signstep.diagnosing.battery import TESTS
from signstep.diagnosing.bench import Bench
from signstep.diagnosing.test import Observed
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import steepest
from signstep.model.declaration import Model

SIDE, CLASSES = 4, 3
COUNT = 24


def data(count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Inputs (N, 1, 4, 4) in three clusters, with labels."""
    generator = torch.Generator().manual_seed(0)
    middles = torch.rand(CLASSES, 1, SIDE, SIDE, generator=generator)
    y = torch.arange(count) % CLASSES
    noise = torch.randn(count, 1, SIDE, SIDE, generator=generator)
    return (0.15 + 0.7 * middles[y] + 0.05 * noise).clamp(0, 1), y


def network(seed: int = 1, *, norm: bool = False) -> nn.Sequential:
    """A network that tells the clusters apart, trained in a moment."""
    x, y = data(240)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(SIDE * SIDE, 24), *([nn.BatchNorm1d(24)] if norm else []), nn.Tanh()]
        net = nn.Sequential(*layers, nn.Linear(24, CLASSES))
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(60):
            optimiser.zero_grad()
            F.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return net.eval()


Function = Callable[[nn.Module, Tensor], Tensor]


class Through(nn.Module):
    """A function of a network and inputs."""

    def __init__(self, function: Function, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self.function = NET if net is None else net, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.net, x)


@dataclass(frozen=True)
class Specimen:
    """What `diagnose` is asked."""

    model: Any
    attack: Any = "pgd:steps=20"
    eps: float = 0.12
    search: ss.Search = field(default_factory=ss.Search)
    data: Callable[[], tuple[Tensor, Tensor]] = data

    def diagnosed(self, **how: Any) -> ss.Diagnosis:
        """The whole diagnosis."""
        given = {"threat": ss.linf(self.eps), "attack": self.attack, "search": self.search, **how}
        return ss.diagnose(self.model, given.pop("data", self.data()), **given)

    def bench(self) -> Bench:
        """Where the attack has been run, and the tests may cost what they like."""
        x, y = self.data()
        made = Bench(Model.of(self.model), x, y, ss.linf(self.eps), self.search, self.attack)
        made.look()
        made.named = made.run(self.attack)
        made.allowed = 10**9
        return made

    def seen(self, name: str) -> Observed:
        """What one test sees; what it reads of the one on the path for gradients is there."""
        bench = self.bench()
        if name not in ("graph", "dynamic", "random", "mode"):
            TESTS["graph"].run(bench)
        return TESTS[name].run(bench)


NET = network()


def rounded(net: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = net((x * 3).round() / 3)
    return out


def noisy(net: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = net(x + 0.3 * torch.randn_like(x))
    return out


def pulled(net: nn.Module, x: Tensor) -> Tensor:
    """Moves towards grey by a gradient step of its own before it answers."""
    u = x.detach().clone()
    with torch.enable_grad():
        u.requires_grad_()
        (g,) = torch.autograd.grad((u - 0.5).square().sum(), u)
    out: Tensor = net(u.detach() - 0.1 * g)
    return out


def cancelled(net: nn.Module, x: Tensor) -> Tensor:
    """The gradient is a difference of two large ones, which float32 does not hold."""
    large = 1e9 * x
    out: Tensor = net(x) * 1.0 + (large.sin() * 1e-7).flatten(1).sum(1, keepdim=True) * torch.tensor([1.0, 0.0, -1.0])
    return out


def rippled(net: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = net(x + 1e-4 * torch.sin(1e5 * x))
    return out


def loud(net: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = 1e4 * net(x)
    return out


def squashed(net: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = torch.tanh(50 * net(x))
    return out


def backed(back: Callable[[Tensor], Tensor], forward: Callable[[Tensor], Tensor] = torch.clone) -> Any:
    """A step with a backward pass of its own."""

    class Liar(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
            return forward(x)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ARG004
            return back(gradients[0])

    return Liar.apply


def noised(g: Tensor) -> Tensor:
    return g.abs().mean() * torch.randn(g.shape, generator=torch.Generator().manual_seed(0))


BACKWARDS: dict[str, Callable[[Tensor], Tensor]] = {"zeros": torch.zeros_like, "turned": torch.neg, "noise": noised}


def hooked() -> nn.Module:
    """A network whose gradient is turned by a hook on a layer."""
    net = network()

    def back(_: nn.Module, given: Any, __: Any) -> Any:
        return tuple(None if g is None else -g for g in given)

    net[1].register_full_backward_hook(back)
    return net


def lied(net: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = net(backed(torch.neg)(x))
    return out


def waves(net: nn.Module, x: Tensor) -> Tensor:  # noqa: ARG001
    """Two classes in stripes: a step of 0.12 in each coordinate goes over one and into the next of the same class."""
    height = x.flatten(1).sum(1)
    z = torch.sin(height * (2 * torch.pi / (0.12 * SIDE * SIDE)))
    return torch.stack([z, -z], 1)


def striped() -> tuple[Tensor, Tensor]:
    x = 0.3 + 0.4 * torch.rand(COUNT, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    return x, waves(NET, x).argmax(1)


def crawl(steps: int) -> GradientAttack:
    """A search that hardly moves."""
    return GradientAttack("crawl", steepest(0.002), steps, "clean")


SATURATED = Specimen(Through(loud), search=ss.Search(loss="plain-ce"))
ROUNDED = Specimen(Through(rounded))
HEALTHY = Specimen(NET)
CASES: dict[str, tuple[Specimen, Specimen]] = {
    "graph": (ROUNDED, HEALTHY),
    "scores": (Specimen(Through(squashed)), HEALTHY),
    "health": (SATURATED, HEALTHY),
    "random": (Specimen(Through(noisy), data=lambda: data(6)), HEALTHY),
    "mode": (
        Specimen(ss.Model(network(norm=True).train(), mode="keep")),
        Specimen(ss.Model(network(norm=True), mode="keep")),
    ),
    "dynamic": (Specimen(Through(pulled), attack="square:queries=20"), HEALTHY),
    "numerics": (Specimen(Through(cancelled)), HEALTHY),
    "backward": (Specimen(hooked()), HEALTHY),
    "smoothness": (Specimen(Through(rippled)), HEALTHY),
    "one-step": (Specimen(Through(waves), "fgsm", data=striped), Specimen(NET, "fgsm")),
    "losses": (SATURATED, HEALTHY),
    "descent": (Specimen(NET, crawl(40)), Specimen(NET, "pgd:steps=60")),
    "order": (ROUNDED, HEALTHY),
    "self-test": (ROUNDED, HEALTHY),
    "witness": (ROUNDED, HEALTHY),
}
