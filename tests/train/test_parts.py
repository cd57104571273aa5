"""The small parts of a run: order, augmentation, averaging, schedule."""

import pytest
import torch
from torch import nn

import signstep as ss
from signstep.engine.keys import Key
from signstep.train.augment import Placement
from signstep.train.averaging import Average
from signstep.train.denormals import EVERY, flush_denormals
from signstep.train.draws import BatchDraws
from signstep.train.order import Order, split
from signstep.train.recipes import training_recipe
from signstep.train.run import Run
from signstep.train.settings import Settings


def test_every_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    order = Order(103, 25, Key(0))
    epochs = [torch.cat([order(epoch * order.batches + place) for place in range(order.batches)]) for epoch in (0, 1)]
    for rows in epochs:
        assert rows.sort().values.tolist() == list(range(103))
    assert not torch.equal(*epochs)
    assert {len(order(visit)) for visit in range(5)} == {20, 21}


def test_the_order_is_a_function_of_key_and_place() -> None:
    straight = [Order(50, 8, Key(3))(visit) for visit in range(14)]
    one = Order(50, 8, Key(3))
    assert all(torch.equal(one(visit), straight[visit]) for visit in (13, 2, 9, 0))
    assert not torch.equal(Order(50, 8, Key(4))(0), straight[0])


def test_focus_comes_back_to_hard_rows_at_the_same_number_of_steps() -> None:
    order = Order(1000, 64, Key(0), focus=1.0)
    first = torch.cat([order(place) for place in range(order.batches)])
    assert sorted(first.tolist()) == list(range(1000))  # what was never seen is taken
    order.note(torch.arange(1000), torch.arange(1000) / 7.0)
    order.note(torch.tensor([3]), torch.tensor([float("nan")]))  # no number: taken
    seen = torch.zeros(1000)
    for visit in range(order.batches, 41 * order.batches):
        rows = order(visit)
        assert len(set(rows.tolist())) == len(rows) == 63
        seen[rows] += 1
    easy, middle, hard = (float(seen[part].mean()) for part in (slice(10, 50), slice(480, 520), slice(950, 1000)))
    # Passes take rows with 0.1, 0.5 and 0.97: about half of all, so that an epoch has about two.
    assert 0.05 < easy / hard < 0.16
    assert 0.45 < middle / hard < 0.58
    assert seen[3] > 70


@pytest.mark.parametrize("batches", [1, 2, 4, 10])
def test_focus_fills_every_batch_of_a_short_epoch_with_hard_rows(batches: int) -> None:
    rows = 30 * batches
    order = Order(rows, 30, Key(0), focus=4.0)
    seen = torch.zeros(rows)
    for visit in range(60 * batches):
        taken = order(visit)
        assert len(set(taken.tolist())) == len(taken) == 30
        order.note(taken, taken.float())
        seen[taken] += 1
    third = rows // 3
    assert batches == 1 or seen[-third:].mean() > 2 * seen[:third].mean()


def test_rows_of_the_same_loss_have_the_same_chance_wherever_they_stand() -> None:
    order = Order(600, 60, Key(0), focus=1.0)
    order.note(torch.arange(600), torch.cat([torch.zeros(400), torch.ones(200)]))
    seen = torch.zeros(600)
    for visit in range(60 * order.batches):
        seen[order(visit)] += 1
    assert 0.9 < float(seen[:200].mean() / seen[200:400].mean()) < 1.1
    assert seen[400:].mean() > 2 * seen[:400].mean()


def test_a_focused_order_goes_on_from_the_middle_of_an_epoch() -> None:
    order, generator = Order(300, 32, Key(0), focus=1.0), torch.Generator().manual_seed(0)
    losses = torch.rand((60, 32), generator=generator)
    states, seen = [], []
    for visit in range(60):
        states.append(order.state())
        seen.append(order(visit))
        order.note(seen[-1], losses[visit, : len(seen[-1])])
    for visit in (59, 33, 30, 7, 0):
        other = Order(300, 32, Key(0), focus=1.0)
        other.load(states[visit])
        order.load(states[visit])  # and back again
        for later in range(visit, min(visit + 15, 60)):
            for one in (order, other):
                assert torch.equal(one(later), seen[later])
                one.note(seen[later], losses[later, : len(seen[later])])
    assert Order(300, 32, Key(0)).state() == {}


def test_a_split_shares_no_row() -> None:
    kept, held = split(100, 0.1, Key(0))
    assert len(held) == 10
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(100))
    assert len(split(100, 0.0, Key(0))[1]) == 0


def test_placements_shift_mirror_and_come_back() -> None:
    x = torch.rand(64, 2, 6, 7)
    placement = Placement.drawn(BatchDraws(64, x.device, torch.Generator().manual_seed(0)), 2, flip=True)
    assert set(placement.down.tolist()) == set(range(-2, 3))
    assert placement.flipped is not None
    assert 10 < int(placement.flipped.sum()) < 54
    seen = placement.apply(x)
    assert not torch.equal(seen, x)
    assert torch.equal(placement.undo(seen, x), x)
    stored = torch.full_like(x, 9.0)
    back = placement.undo(seen, stored)
    # Pixels that were shifted out keep what was stored.
    row = int(((placement.down == 2) & (placement.right == 0)).nonzero()[0])
    assert torch.equal(back[row, :, :-2], x[row, :, :-2])
    assert float(back[row, :, -2:].min()) == 9.0


def test_a_shift_moves_down_and_right() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    one = torch.tensor([1])
    moved = Placement(one, one, None, 1).apply(x)
    assert moved[0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 3, 4]]


def test_the_average_follows_weights_and_statistics() -> None:
    linear, norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
    model = nn.Sequential(linear, norm)
    average = Average(model, 0.5)
    start = linear.weight.detach().clone()
    with torch.no_grad():
        linear.weight.add_(1.0)
        assert norm.running_mean is not None
        norm.running_mean.fill_(2.0)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.fill_(7)
    average.follow(model)  # decay_0 = 1/10
    state = average.model.state_dict()
    assert torch.allclose(state["0.weight"], start + 0.9)
    assert state["1.running_mean"].tolist() == pytest.approx([1.8, 1.8])
    assert int(state["1.num_batches_tracked"]) == 7
    other = Average(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), 0.5)
    other.load(average.state())
    assert other.steps == 1
    assert torch.equal(other.model.state_dict()["0.weight"], state["0.weight"])


def test_schedules() -> None:
    cycle = [Settings(peak=0.4).factor(step, 100) for step in range(100)]
    assert max(cycle) == pytest.approx(1, abs=0.02)
    assert cycle.index(max(cycle)) in (39, 40)
    assert cycle[-1] < 0.01
    assert [Settings(warm_up=0.5).share(step, 4) for step in range(4)] == [0.5, 1, 1, 1]


def test_moments_that_have_faded_are_dropped() -> None:
    weight = nn.Parameter(torch.zeros(4))
    optimiser = torch.optim.Adam([weight], fused=True)
    weight.grad = torch.ones(4)
    optimiser.step()
    state = optimiser.state[weight]
    state["exp_avg"].copy_(torch.tensor([1e-43, -1e-43, 1e-37, -2.0]))
    flush_denormals(optimiser)
    assert state["exp_avg"].tolist() == pytest.approx([0.0, 0.0, 1e-37, -2.0], rel=1e-6, abs=0.0)
    assert torch.equal(state["exp_avg"] == 0, torch.tensor([True, True, False, False]))
    assert float(state["step"]) == 1


def test_a_run_keeps_no_faded_moments() -> None:
    first = nn.Linear(4, 3)
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(3, 2))
    run = Run(
        model, torch.rand(64, 4), torch.arange(64) % 2, ss.linf(0.1), training_recipe("fgsm"), Settings(epochs=150)
    )
    for step in range(EVERY):
        run.advance()
        if step == 0:
            with torch.no_grad():
                first.bias[0] = -100.0  # dead from here on
            run.optimiser.state[first.weight]["exp_avg"][0] = 1e-35
    assert run.optimiser.state[first.weight]["exp_avg"][0].tolist() == [0.0] * 4
