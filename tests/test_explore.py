"""Explore: objectives that say nothing where they begin, the control beside it, and what fills a set."""

import pytest
import torch
from torch import Tensor

import signstep as ss
from signstep.attacks.search.samples import filling
from signstep.auditing.rescore import recount
from signstep.engine.around import region_around
from signstep.engine.keys import Key
from signstep.engine.region import Region
from signstep.engine.tree import leaves
from signstep.errors import InputError

SHORT = "explore:samples=64,starts=3,steps=10,queries=60"


def plateau(u: Tensor) -> Tensor:
    """Zero but for one corner of the box, with no gradient outside it."""
    return (u[:, :3].sum(1) - 2.0).clamp_min(0)


def stairs(u: Tensor) -> Tensor:
    """Whole numbers: no gradient anywhere."""
    return (u * 8).floor().sum(1)


def nearness(u: Tensor) -> Tensor:
    """To the middle of the box."""
    return -(u - 0.5).abs().amax(1)


def _x(rows: int, size: int) -> Tensor:
    return 0.2 + 0.2 * torch.rand(rows, size, generator=torch.Generator().manual_seed(3))


def _uniform(objective: object, rows: int, size: int, count: int) -> Tensor:
    points = torch.rand(rows, count, size, generator=torch.Generator().manual_seed(5))
    return objective(points.flatten(0, 1)).reshape(rows, count).amax(1)  # type: ignore[operator, no-any-return]


def test_a_saturated_objective_is_searched() -> None:
    x = _x(6, 4)
    still = ss.maximise(plateau, x, ss.linf(None), recipe="fgsm", level=0.5)
    assert int(still.undetermined.sum()) == 6
    found = ss.maximise(plateau, x, ss.linf(None), recipe=SHORT, level=0.5)
    assert bool(found.reached.all())
    assert bool(found.verified.all())
    assert not bool(found.undetermined.any())
    top = ss.maximise(plateau, x, ss.linf(None), recipe=SHORT)
    torch.testing.assert_close(top.after, torch.ones(6))


def test_an_objective_without_gradients_is_asked() -> None:
    def whole(u: Tensor) -> Tensor:
        return stairs(u.detach())

    found = ss.maximise(whole, _x(8, 3), ss.linf(None), recipe=SHORT)
    assert found.backwards.tolist() == [0] * 8
    assert found.linear is None
    assert float((found.after >= 20).double().mean()) > 0.8
    assert found.control is not None


@pytest.mark.parametrize("objective", [plateau, stairs, lambda u: -((u - 0.7).square().sum(1))])
def test_it_is_never_worse_than_its_control(objective: object) -> None:
    x = _x(5, 4)
    found = ss.maximise(objective, x, ss.linf(None), recipe="explore:samples=5,starts=1,steps=2,queries=2")  # type: ignore[arg-type]
    assert found.control is not None
    assert bool((found.after >= found.control).all())
    assert "as many random points gain" in str(found)
    rest = found.forwards - 2  # the untouched value and the gradient there
    assert bool((rest >= 2 * 12).all()), "both are paid for"


def test_the_control_is_the_best_of_as_many_uniform_points() -> None:
    """Its distribution is that of the largest of so many draws: compared at the median of many rows."""
    recipe = "explore:samples=30,starts=0,queries=0"
    found = ss.maximise(nearness, 0.8 + 0.5 * (_x(200, 4) - 0.2), ss.linf(None), recipe=recipe)
    assert found.control is not None
    wanted = _uniform(nearness, 4000, 4, 31).median()
    assert float(found.control.median()) == pytest.approx(float(wanted), abs=0.025)


def test_a_regression_with_its_own_answers_as_labels_moves() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    x = torch.rand(10, 3)
    own = model(x).detach()

    def error(u: Tensor, own: Tensor) -> Tensor:
        wrong: Tensor = (model(u) - own).abs().amax(1)
        return wrong

    inputs = {"u": x, "own": own}
    stuck = ss.maximise(error, inputs, {"u": ss.linf(0.1)}, recipe="fgsm")
    found = ss.maximise(error, inputs, {"u": ss.linf(0.1)}, recipe=SHORT)
    assert bool((found.after > 0.02).all())
    assert bool((found.after >= stuck.after).all())
    assert bool(found.verified.all())


def _region(threat: ss.ThreatModel, rows: int, size: int) -> Region:
    return region_around(torch.full((rows, size), 0.5), threat)


def test_the_sample_fills_a_box_more_evenly_than_draws() -> None:
    """The mean of a product over a Sobol sample is nearer to the integral than those of uniform samples are."""
    count, rows = 128, 20
    region = _region(ss.linf(None), rows, 3)
    draws = Key(1).draws(torch.arange(rows), torch.device("cpu"))

    def spread(points: list[Tensor]) -> float:
        values = torch.stack([((0.5 + point) * 2).prod(1) for point in points]).mean(0)
        return float((values - 1).square().mean().sqrt())

    numbers = [number for number in range(count) if number % 4 != 3]
    even = spread([filling(region, draws, number, count) for number in numbers])  # type: ignore[misc]
    drawn = spread([region.sample(draws.of("point", number)) for number in numbers])  # type: ignore[misc]
    assert even < 0.6 * drawn
    corners = [leaves(filling(region, draws, number, count))[0] for number in range(3, count, 4)]
    assert set(torch.stack(corners).flatten().tolist()) == {-0.5, 0.5}


@pytest.mark.parametrize("threat", [ss.l2(0.3), ss.l1(0.4), ss.l0(1), ss.linf(0.2)], ids=str)
def test_points_of_the_sample_lie_in_the_set(threat: ss.ThreatModel) -> None:
    region = _region(threat, 5, 6)
    draws = Key(1).draws(torch.arange(5), torch.device("cpu"))
    for number in range(8):
        d = filling(region, draws, number, 8)
        assert isinstance(d, Tensor)
        assert bool((threat.norm.length(d) <= region.radius * (1 + 1e-6)).all())
        alone = filling(region.take(torch.tensor([3])), Key(1).draws(torch.tensor([3]), d.device), number, 8)
        assert isinstance(alone, Tensor)
        assert torch.equal(alone[0], d[3])


def test_starts_need_samples_to_be_chosen_from() -> None:
    with pytest.raises(InputError, match=r"starts=5, samples=3; pass no more starts than samples"):
        ss.recipe("explore:samples=3")


@pytest.mark.parametrize("ladder", [None, "objective@1"])
def test_an_audit_searches_a_saturated_objective_beside_its_control(ladder: str | None) -> None:
    """The loss has no gradient at any start; nothing that as many random points find is missed."""
    x = _x(6, 4)
    model = ss.Model(plateau, task=ss.Objective(0.9))
    result = ss.audit(model, [(x, None)], threat=ss.linf(None), ladder=ladder, curve=False)
    assert (result.fooled, result.held, result.undetermined) == (6, 0, 0)
    by_name = {entry.name: entry for entry in result.attacks}
    control, search = by_name["random-direction:queries=670"], by_name["explore"]
    assert control.entered == 6
    assert control.fooled < 6
    assert search.fooled == (6 - control.fooled if ladder else 6)
    assert search.forwards + search.backwards <= 670
    assert recount(result).holds
