"""Batches are planned from measured bytes and halved when memory runs out."""

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.memory import bytes_per_example, planned_rows
from signstep.errors import InputError


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(10, 1000), nn.ReLU(), nn.Linear(1000, 3)).eval()


def test_bytes_are_those_autograd_keeps() -> None:
    model = network()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    # Frozen: of the two activations of 1,000 floats only ReLU's output is kept; beside it eight times the input.
    assert bytes_per_example(model, torch.rand(4, 10)) == pytest.approx(1000 * 4 + 8 * 40, rel=0.1)


def test_rows_follow_from_the_budget() -> None:
    model, x = network(), torch.rand(4, 10)
    each = bytes_per_example(model, x)
    assert planned_rows(model, x, budget=100 * each) == 100
    assert planned_rows(model, x, budget=1) == 1
    assert planned_rows(model, x, budget=10**15) == 512
    # At most a quarter of the examples, but 256 may always be one batch.
    assert [planned_rows(model, x, budget=10**15, of=count) for count in (100, 1200, 9000)] == [256, 300, 512]
    assert planned_rows(model, x, budget=100 * each, of=9000) == 100


class Small(nn.Module):
    """Runs out of memory on more than ``most`` rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.inner = network()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        out: Tensor = self.inner(x)
        return out


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    x = torch.rand(40, 10, generator=torch.Generator().manual_seed(0))
    y = network()(x).argmax(1)
    whole = ss.audit(network(), [(x, y)], threat=ss.linf(0.05))
    parts = ss.audit(Small(11), [(x, y)], threat=ss.linf(0.05))
    assert parts.per_example.ids == whole.per_example.ids
    assert parts.per_example.verdicts == whole.per_example.verdicts
    assert parts.examples == 40
    assert any("memory ran out" in note for note in parts.notes)


def test_one_example_that_does_not_fit_is_an_error() -> None:
    x = torch.rand(4, 10)
    with pytest.raises(InputError, match="one example does not fit"):
        ss.audit(Small(0), [(x, torch.zeros(4, dtype=torch.long))], threat=ss.linf(0.05))
