"""The examples that the project promises to get exactly right."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

import signstep as ss
from signstep.engine.norms import norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_step_by_hand(dtype: torch.dtype) -> None:
    """x + eps sign(g) in the box; the coordinate with gradient zero stays."""
    x = torch.tensor([[0.2, 0.5, 0.7, 0.9]], dtype=dtype)
    gradient = torch.tensor([3.0, -0.1, 0.0, -2.0], dtype=dtype)
    task = ss.Custom(loss=lambda z, _: z[:, 0], success=lambda z, _: z[:, 0] > 1e9)
    wanted = torch.tensor([[0.25, 0.45, 0.7, 0.85]], dtype=dtype)

    def model(u: Tensor) -> Tensor:
        return (u * gradient).sum(1, keepdim=True)

    crafted = ss.fgsm(ss.Model(model, task=task), x, torch.zeros(1), eps=0.05)
    torch.testing.assert_close(crafted, wanted, rtol=0, atol=float(torch.finfo(dtype).eps))
    assert float(crafted[0, 2]) == float(x[0, 2])
    # The same through cross-entropy: class 1 must lose, so its logit falls along -g.
    by_labels = ss.fgsm(lambda u: -model(u), x, torch.tensor([1]), eps=0.05)
    assert torch.equal(by_labels, crafted)


@pytest.mark.parametrize(
    ("name", "step", "gain"),
    [
        ("linf", (0.1, -0.1, 0.1), 0.35),
        ("l2", tuple(0.1 * value / 5.25**0.5 for value in (2, -1, 0.5)), 0.1 * 5.25**0.5),
        ("l1", (0.1, 0.0, 0.0), 0.2),
    ],
)
def test_the_steepest_step_in_three_norms(name: str, step: tuple[float, ...], gain: float) -> None:
    g = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    wanted = torch.tensor([step], dtype=torch.float64)
    found = norm(name).steepest(g, torch.tensor([0.1], dtype=torch.float64))
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-16)
    torch.testing.assert_close(float((found * g).sum()), gain, rtol=1e-14, atol=0)
    torch.testing.assert_close(float(norm(name).dual_length(g)) * 0.1, gain, rtol=1e-14, atol=0)
    # And as an attack on a linear model.
    x = torch.full((1, 3), 0.5, dtype=torch.float64)
    crafted = ss.fgsm(lambda u: -(u @ g.T), x, torch.tensor([1]), eps=0.1, norm=name)
    torch.testing.assert_close(crafted, x + wanted, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1, 0.25])
@pytest.mark.parametrize("logits", ["one", "two"])
def test_logistic_regression_attains_its_closed_form(eps: float, logits: str) -> None:
    """The adversarial loss is softplus(eps |w|_1 - y (w.x + b)), y = -1 or 1 (Goodfellow et al. 2014, section 5)."""
    random = torch.Generator().manual_seed(0)
    w = torch.randn(20, generator=random, dtype=torch.float64)
    x = torch.rand(200, 20, generator=random, dtype=torch.float64)
    y = torch.randint(2, (200,), generator=random)
    b = -float((x @ w).mean())

    def model(u: Tensor) -> Tensor:
        z = u @ w + b
        return z if logits == "one" else torch.stack([torch.zeros_like(z), z], 1)

    outcome = ss.attack(model, x, y, threat=ss.linf(eps, box=None))
    margin = (2 * y - 1) * (x @ w + b)
    torch.testing.assert_close(outcome.loss, softplus(eps * w.abs().sum() - margin), rtol=1e-11, atol=1e-12)
    assert torch.equal(outcome.fooled, margin < eps * w.abs().sum())
