"""A patch: every pixel beside it stays, its places belong to the example, and it beats grey and noise."""

from pathlib import Path

import pytest
import torch
from test_universal import X, Y
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import signstep as ss
from signstep.data.digits import digits
from signstep.engine.keys import Key, RowDraws
from signstep.errors import InputError, LoadError
from signstep.physical.placement import Place, Placement


@pytest.fixture(scope="module")
def net() -> nn.Module:
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


def _draws(count: int, seed: int = 0) -> RowDraws:
    return Key(seed).draws(torch.arange(count), torch.device("cpu"))


def _image(count: int = 40, channels: int = 2) -> Tensor:
    return torch.full((count, channels, 9, 11), 0.25, dtype=torch.float64)


def test_an_unturned_patch_is_shown_pixel_by_pixel_and_nothing_else_changes() -> None:
    values = 0.5 + torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
    fixed = Placement((5, 7), degrees=0, light=0)(values, _image(), _draws(40))
    assert torch.equal(fixed[:, :, 5:8, 7:11], values.expand(40, -1, -1, -1))
    outside = torch.ones(9, 11, dtype=torch.bool)
    outside[5:8, 7:11] = False
    assert torch.equal(fixed[:, :, outside], _image()[:, :, outside])
    anywhere = Placement(degrees=0, light=0)(values, _image(400), _draws(400))
    places = set()
    for row in anywhere:
        spots = (row[0] != 0.25).nonzero()
        top, left = (int(part) for part in spots.amin(0))
        assert len(spots) == 12
        assert torch.equal(row[:, top : top + 3, left : left + 4], values[0])
        places.add((top, left))
    assert places == {(top, left) for top in range(7) for left in range(8)}


def test_a_turned_and_lit_patch_keeps_the_box_and_its_neighbourhood() -> None:
    values = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = Placement((3, 4), degrees=45, light=0.8)(values, _image(), _draws(40))
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    far = torch.ones(9, 11, dtype=torch.bool)
    far[2:7, 3:8] = False
    assert torch.equal(out[:, :, far], _image()[:, :, far])
    assert len(torch.unique(out.flatten(1), dim=0)) > 35  # much light makes a few all white
    alone = Placement((3, 4), degrees=45, light=0.8)(
        values, _image(1), Key(0).draws(torch.tensor([7]), torch.device("cpu"))
    )
    assert torch.equal(alone[0], out[7])


def test_gradients_flow_to_the_values() -> None:
    values = torch.full((1, 2, 3, 3), 0.5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Placement(degrees=20, light=0.1)(values, _image(), _draws(40)).sum(), values)
    assert bool((gradient > 0).all())


@pytest.mark.parametrize("place", ["random", (2, 2)])
def test_it_beats_grey_and_noise_on_unseen_digits(net: nn.Module, place: Place) -> None:
    found = ss.patch(net, (X, Y), size=3, placement=ss.Placement(place), steps=60)
    assert found.heldout is not None
    assert found.heldout.of > 150
    for control in (found.grey, found.noise):
        assert control.of == found.heldout.of
        assert found.heldout.hits > control.hits
        assert found.heldout.interval[0] > control.interval[0]
    assert found.heldout.interval[0] > found.grey.interval[1]
    assert float(found.values.min()) >= 0
    assert float(found.values.max()) <= 1


def test_applied_by_hand_it_does_what_was_counted(net: nn.Module) -> None:
    found = ss.patch(net, (X, Y), size=3, steps=60)
    assert found.heldout is not None
    rates = []
    with torch.no_grad():
        right = net(X).argmax(1) == Y
        for seed in range(10):
            wrong = net(found.apply(X, seed=seed)).argmax(1) != Y
            rates.append(float((wrong & right).sum() / right.sum()))
    low, high = (found.train + found.heldout).interval
    assert low < sum(rates) / len(rates) < high
    assert torch.equal(found.apply(X[3:5], seed=2), found.apply(X, seed=2)[3:5])
    assert not torch.equal(found.apply(X, seed=0), found.apply(X, seed=1))


def test_a_target(net: nn.Module) -> None:
    found = ss.patch(net, (X, Y), size=4, target=1, steps=60)
    assert found.heldout is not None
    assert found.heldout.hits > 1.5 * max(found.grey.hits, 1)
    assert found.train.of + found.heldout.of < int((Y != 1).sum())


def test_one_image_many_places(net: nn.Module) -> None:
    with torch.no_grad():
        row = int((net(X).argmax(1) == Y).nonzero()[0])
    one = X[row : row + 1], Y[row : row + 1]
    found = ss.patch(net, one, size=4, steps=30, holdout=0, draws=300)
    assert found.heldout is None
    assert found.train.of == found.grey.of == 300
    assert found.train.hits > found.grey.hits
    again = ss.patch(net, one, size=4, steps=30, holdout=0, draws=300, search=ss.Search(eot=1))
    assert again.train.of == 300


@pytest.mark.kernels
def test_the_loader_and_its_batches_do_not_matter(net: nn.Module) -> None:
    whole = ss.patch(net, (X, Y), size=3, steps=12)
    cut = [(X[start : start + 37], Y[start : start + 37]) for start in range(0, len(X), 37)]
    parts = ss.patch(net, cut, size=3, steps=12)
    assert torch.equal(whole.values, parts.values)
    assert (whole.train, whole.heldout, whole.grey, whole.noise) == (
        parts.train,
        parts.heldout,
        parts.grey,
        parts.noise,
    )


@pytest.mark.parametrize("place", ["random", (1, 2)])
def test_saved_is_loaded(net: nn.Module, tmp_path: Path, place: Place) -> None:
    found = ss.patch(net, (X, Y), size=(2, 3), placement=ss.Placement(place), steps=3, target=4)
    path = tmp_path / "patch.safetensors"
    found.save(path)
    again = ss.Patch.load(path)
    assert torch.equal(again.values, found.values)
    assert again.values.shape == (1, 2, 3)
    for name in ("placement", "target", "train", "heldout", "grey", "noise", "seed"):
        assert getattr(again, name) == getattr(found, name), name
    assert torch.equal(again.apply(X), found.apply(X))
    assert str(again) == str(found)
    with pytest.raises(LoadError, match="not a universal change"):
        ss.Universal.load(path)


def test_what_makes_no_sense_is_said(net: nn.Module) -> None:
    with pytest.raises(InputError, match="does not fit"):
        ss.patch(net, (X, Y), size=9)
    with pytest.raises(InputError, match=r"does not fit|at \(6, 6\)"):
        ss.patch(net, (X, Y), size=3, placement=ss.Placement((6, 6)))
    with pytest.raises(InputError, match=r"images \(R, C, H, W\)"):
        ss.patch(net, (X.flatten(1), Y), size=3)
    with pytest.raises(InputError, match="size=0"):
        ss.patch(net, (X, Y), size=0)
    with pytest.raises(InputError, match="steps=0"):
        ss.patch(net, (X, Y), size=2, steps=0)
    with pytest.raises(InputError, match="low below high"):
        ss.Placement(low=1.0, high=0.0)
    with pytest.raises(InputError, match="place="):
        ss.Placement((-1, 0))
