"""Small networks for the built-in digits, trained on the spot; weights are kept in a folder of the temporary one."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from masking.entry import Net
from signstep.data.digits import digits

CACHE = Path(tempfile.gettempdir()) / "signstep-masked"


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
        kept = path.with_suffix(".part")
        torch.save(net.state_dict(), kept)
        kept.replace(path)
    return net.eval()


def frozen(net: nn.Module) -> nn.Module:
    return net.requires_grad_(False)


def cosines() -> Tensor:
    """An orthonormal basis of cosines (64, 64) for 8 by 8 pixels, the slow ones first."""
    k = torch.arange(8, dtype=torch.float32)
    one = torch.cos(torch.pi * (2 * k + 1) * k.view(-1, 1) / 16) * torch.where(k == 0, 8**-0.5, 0.5).view(-1, 1)
    both = torch.kron(one, one)
    return both[(torch.arange(64) // 8 + torch.arange(64) % 8).argsort(stable=True)]
