"""One change for a whole data set: it beats random changes on unseen digits, obeys its threat, and survives saving."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import signstep as ss
from signstep.data.digits import digits
from signstep.engine.counts import Count
from signstep.engine.threat import parse_threat
from signstep.errors import InputError, LoadError, ThreatError
from written_down import written_down

X, Y = digits("test")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """A small network that knows the digits: 90 % of the test split."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        x, y = digits("train")
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(100):
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(model(x), y))
            optimizer.step()
    model.zero_grad()
    return model.eval()


@pytest.mark.parametrize(("threat", "gain"), [("linf:0.15", 2), ("l2:1.0", 2), ("l1:5", 2), ("pixel:0.15", 2)])
def test_it_beats_a_random_change_on_unseen_digits(net: nn.Module, threat: str, gain: float) -> None:
    found = ss.universal(net, (X, Y), threat=parse_threat(threat))
    assert found.heldout is not None
    assert found.heldout.of > 150
    assert found.control.of == found.heldout.of
    assert found.heldout.hits > gain * found.control.hits
    assert found.heldout.interval[0] > found.control.interval[1]
    moved = found.apply(X)
    outcome = torch.linalg.vector_norm((moved - X).flatten(1).double(), ord=_order(threat), dim=1)
    assert float(outcome.max()) <= float(threat.split(":")[1]) * (1 + 1e-6)
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1


def _order(threat: str) -> float:
    orders = {"linf": float("inf"), "l2": 2.0, "l1": 1.0, "pixel": float("inf")}
    return written_down(orders, threat.partition(":")[0], "the order")


def test_the_counts_are_what_applying_it_gives(net: nn.Module) -> None:
    found = ss.universal(net, (X[:300], Y[:300]), threat=ss.linf(0.15), holdout=(X[300:], Y[300:]), epochs=5)
    with torch.no_grad():
        for part, count in ((slice(300), found.train), (slice(300, None), found.heldout)):
            right = net(X[part]).argmax(1) == Y[part]
            wrong = net(found.apply(X[part])).argmax(1) != Y[part]
            assert count == Count(int((right & wrong).sum()), int(right.sum()))
    assert found.success(net, (X[300:], Y[300:])) == found.heldout


@pytest.mark.kernels
def test_the_loader_and_its_batches_do_not_matter(net: nn.Module) -> None:
    whole = ss.universal(net, (X, Y), threat=ss.linf(0.15), epochs=3)
    cut = [(X[start : start + 37], Y[start : start + 37]) for start in range(0, len(X), 37)]
    parts = ss.universal(net, cut, threat=ss.linf(0.15), epochs=3)
    assert torch.equal(whole.delta, parts.delta)
    assert (whole.train, whole.heldout, whole.control) == (parts.train, parts.heldout, parts.control)
    assert not torch.equal(
        whole.delta, ss.universal(net, cut, threat=ss.linf(0.15), epochs=3, search=ss.Search(seed=1)).delta
    )


def test_who_is_held_out_hangs_on_the_example_and_the_seed(net: nn.Module) -> None:
    """The same examples are set aside in another order; no example is on both sides."""
    seen = list[Tensor]()

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled() and x.requires_grad:
                seen.append(x.detach().clone())
            out: Tensor = net(x)
            return out

    tiny = ss.linf(1e-9)
    ss.universal(Watching(), (X, Y), threat=tiny, epochs=1)
    first = {tuple(row.round(decimals=3).flatten().tolist()) for row in torch.cat(seen)}
    seen.clear()
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    ss.universal(Watching(), (X[order], Y[order]), threat=tiny, epochs=1)
    second = {tuple(row.round(decimals=3).flatten().tolist()) for row in torch.cat(seen)}
    assert first == second
    assert 0.4 < len(first) / len(X) < 0.6


def test_a_target(net: nn.Module) -> None:
    found = ss.universal(net, (X, Y), threat=ss.l2(1.5), target=3)
    assert found.heldout is not None
    assert found.heldout.hits > 2 * found.control.hits
    others = Y != 3
    with torch.no_grad():
        reached = net(found.apply(X[others])).argmax(1) == 3
        right = net(X[others]).argmax(1) == Y[others]
    total = found.train + found.heldout
    assert total == Count(int((reached & right).sum()), int(right.sum()))


def test_mask_grid_and_normalisation(net: nn.Module) -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:6] = True
    threat = ss.linf(3 / 16, mask=mask, grid=16)
    normalised = nn.Sequential(_Affine(0.3, 2.0), net)
    found = ss.universal(normalised, (X, Y), threat=threat, mean=0.3, std=0.5, epochs=5)
    plain = ss.universal(net, (X, Y), threat=threat, epochs=5)
    moved = found.apply(X)
    assert torch.equal(moved[:, ~mask], X[:, ~mask])
    assert torch.equal(moved * 16, (moved * 16).round())
    assert found.delta[~mask].abs().max() == 0
    assert abs(found.train.hits - plain.train.hits) < 20


class _Affine(nn.Module):
    """Undoes (x - mean) * factor, so that the network sees raw inputs again."""

    def __init__(self, mean: float, factor: float) -> None:
        super().__init__()
        self.mean, self.factor = mean, factor

    def forward(self, x: Tensor) -> Tensor:
        return x / self.factor + self.mean


@pytest.mark.parametrize("spec", ["linf", "tensors", "grouped"])
def test_saved_is_loaded(net: nn.Module, tmp_path: Path, spec: str) -> None:
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    threat = {
        "linf": ss.linf("2/16", grid=16),
        "tensors": ss.l2(1.0, box=(torch.zeros(1, 8, 8), 1.0), mask=mask),
        "grouped": ss.threat_model(ss.Grouped((0, 1)), 0.5),
    }[spec]
    found = ss.universal(net, (X, Y), threat=threat, epochs=2, target=4)
    path = tmp_path / "found.safetensors"
    found.save(path)
    again = ss.Universal.load(path)
    assert torch.equal(again.delta, found.delta)
    assert again.threat == found.threat
    assert again.threat.label == found.threat.label
    for name in ("target", "train", "heldout", "control", "seed"):
        assert getattr(again, name) == getattr(found, name), name
    assert torch.equal(again.apply(X), found.apply(X))
    assert str(again) == str(found)
    assert [file.name for file in tmp_path.iterdir()] == ["found.safetensors"]


def test_other_files_are_refused(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(LoadError, match="cannot be read"):
        ss.Universal.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(LoadError, match="cannot be read"):
        ss.Universal.load(path)
    ss.patch(net, (X[:20], Y[:20]), size=2, steps=1).save(path)
    with pytest.raises(LoadError, match="holds patch, not a universal change"):
        ss.Universal.load(path)


def test_what_makes_no_sense_is_said(net: nn.Module) -> None:
    with pytest.raises(ThreatError, match="each example"):
        ss.universal(net, (X, Y), threat=ss.linf(torch.full((500,), 0.1)))
    with pytest.raises(ThreatError, match="eps=None"):
        ss.universal(net, (X, Y), threat=ss.linf(None))
    with pytest.raises(InputError, match="read once"):
        ss.universal(net, iter([(X, Y)]), threat=ss.linf(0.1))
    with pytest.raises(InputError, match="holdout=1"):
        ss.universal(net, (X, Y), threat=ss.linf(0.1), holdout=1.0)
    with pytest.raises(InputError, match="no examples"):
        ss.universal(net, [], threat=ss.linf(0.1))
    with pytest.raises(InputError, match="epochs=0"):
        ss.universal(net, (X, Y), threat=ss.linf(0.1), epochs=0)
    with pytest.raises(InputError, match="labels for all or for none"):
        ss.universal(net, [(X[:9], Y[:9]), (X[9:], None)], threat=ss.linf(0.1))
    found = ss.universal(net, (X, Y), threat=ss.linf(0.1), epochs=1)
    with pytest.raises(InputError, match="shape"):
        found.apply(X[:, :, :4])


def test_the_model_is_left_as_it_was(net: nn.Module) -> None:
    net.train()
    before = torch.get_rng_state()
    ss.universal(net, (X[:50], Y[:50]), threat=ss.linf(0.1), epochs=1)
    assert net.training
    assert all(part.grad is None for part in net.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    net.eval()
