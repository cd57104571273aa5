"""Attacks that only ask: budgets, independence of rows, known optima, and models that answer with labels alone."""

import math

import pytest
import torch
from small_nets import RowNet, filled, labels, mlp, rand
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.search.estimates import Differences
from signstep.attacks.search.painted import Bumps, Corners, Painted
from signstep.attacks.search.square import Square
from signstep.attacks.search.windows import Layout, bump, halving_share
from signstep.engine.keys import Key
from signstep.engine.problem import ModelProblem
from signstep.engine.region import BallRegion
from signstep.engine.tasks import Aim, Custom, Multiclass
from signstep.errors import InputError, LabelError, ModelError, ThreatError
from signstep.model.predictor import Predictor
from signstep.model.subject import Subject
from written_down import written_down

ASKERS = ["square", "nes", "spsa", "hop-skip-jump", "random-direction"]
over_askers = pytest.mark.parametrize("name", ASKERS)


def _x(rows: int = 8, *shape: int, seed: int = 1) -> Tensor:
    return rand(rows, *(shape or (2, 3, 3)), seed=seed)


class _Counting:
    """A model that knows its rows by a second input and counts how often it is asked about each."""

    def __init__(self, inner: nn.Module, rows: int, noise: float = 0.0) -> None:
        self.inner, self.noise = inner, noise
        self.counts = torch.zeros(rows, dtype=torch.int64)

    def __call__(self, u: Tensor, row: Tensor) -> Tensor:
        self.counts += torch.bincount(row, minlength=len(self.counts))
        out: Tensor = self.inner(u)
        return out + self.noise * torch.randn_like(out) if self.noise else out


@over_askers
@pytest.mark.parametrize("queries", [3, 7, 60, 150])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_no_row_asks_more_than_its_budget(name: str, queries: int, noise: float) -> None:
    if noise and name in ("nes", "spsa"):
        pytest.skip("second looks at a random model come on top of the steps of a gradient attack")
    inner, x = mlp(), _x(40)
    y = labels(inner, x)
    model = _Counting(inner, len(x), noise)
    inputs = {"u": x, "row": torch.arange(len(x))}
    with torch.random.fork_rng():
        threat = {"u": ss.linf(0.08)}
        outcome = ss.attack(model, inputs, y, threat=threat, recipe=f"{name}:queries={queries}")
    verdict = outcome.passes
    assert verdict == (32 if noise else 1)
    assert bool((outcome.forwards <= queries + verdict).all())
    assert int(outcome.backwards.sum()) == 0
    # Beside what is booked: the clean pass (judged twice by 32 more if random), and two looks at a few rows.
    apart = model.counts - outcome.forwards
    assert bool((apart >= 1).all())
    assert bool((apart <= (1 + 2 * 32 + 2 if noise else 3)).all())
    if queries == 150 and not noise:
        assert 0 < int(outcome.fooled.sum()) < len(x)
        # A row that stands has asked as often as it may; gradient attacks up to a whole step less.
        least = 150 - 51 if name in ("nes", "spsa") else 150 - 4 if name == "hop-skip-jump" else 150
        assert bool((outcome.forwards[~outcome.fooled] > least).all())


@pytest.mark.kernels
@over_askers
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_row_gets_the_same_in_batches_of_any_size_and_order(name: str, norm: str) -> None:
    model, x = filled(RowNet()), _x()
    y, recipe = labels(model, x), f"{name}:queries=330"
    threat = ss.threat_model(norm, written_down({"linf": 0.05, "l2": 0.15}, norm, "the size of a change in the norm"))
    whole = ss.attack(model, x, y, threat=threat, recipe=recipe)
    assert isinstance(whole.x, Tensor)
    assert 0 < int(whole.fooled.sum()) < len(x)
    for index in ([3], [0], [6, 2, 5], [7, 6, 5, 4, 3, 2, 1, 0]):
        order = torch.tensor(index)
        part = ss.attack(model, x[order], y[order], threat=threat, recipe=recipe)
        assert isinstance(part.x, Tensor)
        assert torch.equal(part.x, whole.x[order])
        assert torch.equal(part.forwards, whole.forwards[order])
        assert torch.equal(part.fooled, whole.fooled[order])
        if whole.smallest is not None:
            assert part.smallest is not None
            assert torch.equal(part.smallest, whole.smallest[order])


@over_askers
def test_gradients_are_never_touched(name: str) -> None:
    inner = mlp()

    def model(u: Tensor) -> Tensor:
        assert not u.requires_grad
        with torch.no_grad():
            return inner(u).detach().clone()  # type: ignore[no-any-return]

    x = _x()
    outcome = ss.attack(model, x, labels(inner, x), threat=ss.linf(0.2), recipe=f"{name}:queries=100")
    assert int(outcome.fooled.sum()) > 0
    assert int(outcome.backwards.sum()) == 0


# Square


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((5,), (1, 1, 5)), ((3, 5), (3, 1, 5)), ((3, 4, 5), (3, 4, 5)), ((2, 3, 4, 5), (6, 4, 5)), ((), (1, 1, 1))],
)
def test_where_windows_lie(shape: tuple[int, ...], layout: tuple[int, int, int]) -> None:
    assert Layout.of(shape) == layout


def test_the_size_of_windows() -> None:
    assert Layout(1, 28, 28).side(0.8) == (25, 25)
    assert Layout(3, 32, 32).side(0.0008) == (1, 1)
    assert Layout(1, 1, 100).side(0.3) == (1, 30)
    assert Layout(1, 4, 100).side(0.8) == (4, 18)  # never longer than the plane


def test_the_share_halves_on_the_papers_schedule() -> None:
    """AutoAttack's figures for 5,000 queries: the thresholds of 10,000 rescaled."""
    seen = [halving_share(query, 5000, 0.8) for query in range(5000)]
    changes = [query for query in range(1, 5000) if seen[query] != seen[query - 1]]
    assert changes == [6, 26, 101, 251, 501, 1001, 2001, 3001, 4001]
    assert seen[0] == 0.8
    assert seen[-1] == 0.8 / 512


def test_windows_cover_every_position_and_no_more() -> None:
    layout = Layout(1, 4, 5)
    at = rand(2000, 2, seed=3)
    places = layout.places(at, (2, 3))[:, 0]
    assert places.shape == (2000, 6)
    corners = set(places[:, 0].tolist())
    assert corners == {row * 5 + column for row in range(3) for column in range(3)}
    assert sorted({tuple(row) for row in places.tolist()})[0] == (0, 1, 2, 5, 6, 7)
    edge = layout.places(torch.full((1, 2), 1.0), (2, 3))
    assert int(edge.max()) == 19


def test_the_pattern_by_hand() -> None:
    """5 x 4: two rows up and three down, concentric; sums of 1 / (k + 1)^2, both halves of one length."""
    inner, ring, outer = 1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9
    upper = torch.tensor([[outer, ring, ring, ring], [outer, ring, inner, ring]], dtype=torch.float64)
    lower = torch.cat([upper, upper[:1]])
    found = bump(5, 4)
    torch.testing.assert_close(found[:2], upper / upper.square().sum().sqrt() / 2**0.5)
    torch.testing.assert_close(found[2:], -lower / lower.square().sum().sqrt() / 2**0.5)
    assert torch.equal(bump(4, 5), bump(5, 4).T)
    assert bump(1, 1).tolist() == [[1.0]]


def _painted(norm: str, threat: ss.ThreatModel, x: Tensor) -> tuple[Painted, BallRegion]:
    region = BallRegion.around(x, threat)
    return (Corners.on(region, x) if norm == "linf" else Bumps.on(region, x)), region


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_proposals_stay_inside_and_can_be_undone(norm: str) -> None:
    x = _x(16, 3, 6, 6)
    mask = rand(3, 6, 6, seed=5) < 0.7
    threat = ss.threat_model(norm, 0.2 if norm == "linf" else 1.0, mask=mask)
    canvas, region = _painted(norm, threat, x)
    canvas.stripe(rand(16, canvas.stripes, seed=6))
    keep = torch.arange(16) % 2 == 0
    for number in range(60):
        before = canvas.point.clone()
        canvas.propose(rand(16, canvas.numbers, seed=7 + number), 0.3 * 0.9**number)
        proposed = canvas.point.clone()
        assert bool((region.norm.length(proposed - x) <= region.radius * (1 + 1e-12)).all())
        assert 0 <= float(proposed.min()) <= float(proposed.max()) <= 1
        assert torch.equal(proposed[:, ~mask], x[:, ~mask])
        canvas.settle(keep)
        assert torch.equal(canvas.point[keep], proposed[keep])
        assert torch.equal(canvas.point[~keep], before[~keep])


def test_a_window_of_corners_is_a_window_of_corners() -> None:
    """Same positions in all channels, one sign for each, the ends of the ball or the box; and never in vain."""
    x = _x(64, 2, 5, 5)
    canvas, _ = _painted("linf", ss.linf(0.3), x)
    canvas.stripe(rand(64, canvas.stripes, seed=1))
    assert torch.equal(canvas.point, torch.where(canvas.point > x, x + 0.3, x - 0.3).clamp(0, 1))
    columns = (canvas.point > x).all(2) | (canvas.point <= x).all(2)
    assert bool(columns.all())
    before = canvas.point.clone()
    canvas.propose(rand(64, canvas.numbers, seed=2), 9 / 25)
    changed = canvas.point != before
    assert bool(changed.flatten(1).any(1).all())
    for row in range(64):
        spots = changed[row].any(0).nonzero()
        assert int((spots.amax(0) - spots.amin(0)).max()) < 3
        for channel in range(2):
            moved = changed[row, channel]
            up = (canvas.point[row, channel] > x[row, channel])[moved]
            assert len(set(up.tolist())) <= 1


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.999), ("l2", 0.7)])
def test_square_reaches_the_best_point_of_a_linear_model(norm: str, share: float) -> None:
    """The corner that the signs of the weights name is the best change; of L2 the direction of the weights.

    In L2 it comes only near: length moves between windows as a whole, in one pattern.
    """
    w, x = rand(12, seed=9) - 0.5, 0.25 + rand(6, 12, seed=10) / 2
    eps = 0.1 if norm == "linf" else 0.2  # inside the box, so that the optimum is in closed form
    best = eps * (w.abs().sum() if norm == "linf" else w.square().sum().sqrt())
    for wanted, possible in ((best * share, True), (best * (1 + 1e-6), False)):

        def model(u: Tensor, bound: Tensor) -> Tensor:
            gain = (u * w).sum(1) - bound
            return torch.stack([-gain, gain], 1)

        inputs: dict[str, Tensor] = {"u": x, "bound": (x * w).sum(1) + wanted}
        threat = {"u": ss.threat_model(norm, eps)}
        outcome = ss.attack(
            model, inputs, torch.zeros(6, dtype=torch.int64), threat=threat, recipe="square:queries=1500"
        )
        assert outcome.fooled.tolist() == [possible] * 6, wanted


def _margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        z = model(x)
    others = z.scatter(1, y.unsqueeze(1), -math.inf).amax(1)
    out: Tensor = others - z.gather(1, y.unsqueeze(1)).squeeze(1)
    return out


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_going_on_from_the_best_point_never_loses_ground(norm: str) -> None:
    model, x = mlp(), _x(60, seed=3)
    y = labels(model, x)
    threat = ss.threat_model(norm, written_down({"linf": 0.03, "l2": 0.1}, norm, "the size of a change in the norm"))
    subject = Subject.of(ss.Model(model))
    with subject.opened():
        question = subject.ask(x, y, threat, key=Key(0))
        first = question.run(ss.recipe("fgsm"), Key(0))
        assert isinstance(first.x, Tensor)
        whole = question.run(Square(300, start="best"), Key(0), first.x)
        alone = question.run(Square(300), Key(0), first.x)
        once = question.run(Square(1, start="best"), Key(0), first.x)
    assert isinstance(whole.x, Tensor)
    assert isinstance(alone.x, Tensor)
    assert isinstance(once.x, Tensor)
    assert torch.equal(once.x, first.x)  # the first query is the point itself
    assert bool((whole.fooled | ~first.fooled).all())
    standing = ~whole.fooled
    begun, ended = _margin(model, first.x, y), _margin(model, whole.x, y)
    assert 0 < int(standing.sum()) < len(x)
    assert bool((ended >= begun)[standing].all())
    assert norm == "l2" or bool((ended > begun)[standing].any())
    assert bool((whole.forwards[first.fooled] == 2).all())  # it fools already: one query and the verdict
    assert not torch.equal(alone.x, whole.x)  # stripes ignore the point


def test_square_on_several_inputs() -> None:
    x = {"a": _x(6, 4), "b": _x(6, 2, 3, seed=2)}
    net = filled(nn.Linear(10, 3))

    def model(a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = net(torch.cat([a, b.flatten(1)], 1))
        return out

    y = model(**x).argmax(1)
    threat = {"a": ss.linf(0.2), "b": ss.l2(0.6)}
    outcome = ss.attack(model, x, y, threat=threat, recipe="square:queries=200")
    assert isinstance(outcome.x, dict)
    assert bool(outcome.verified.all())
    assert int(outcome.fooled.sum()) > 0
    assert all(bool((outcome.x[name] != x[name]).any()) for name in x)
    with pytest.raises(ThreatError, match="one input"):
        ss.attack(model, x, y, threat=threat, recipe="hop-skip-jump")


@pytest.mark.parametrize("name", ["square", "hop-skip-jump"])
def test_norms_without_a_rule_are_refused(name: str) -> None:
    model, x = mlp(), _x()
    with pytest.raises(ThreatError, match="linf and l2"):
        ss.attack(model, x, labels(model, x), threat=ss.threat_model("l1", 0.3), recipe=name)


def test_patience_gives_up_what_cannot_be_reached() -> None:
    """Row 0 gains nothing, row 1 too little, row 2 enough; each is told by its own numbers."""
    pace = torch.tensor([0.0, 0.02, 1.0], dtype=torch.float64)

    def model(u: Tensor, rate: Tensor) -> Tensor:
        gain = rate * u.mean(1) - 0.74
        return torch.stack([-gain, gain], 1)

    x = {"u": torch.full((3, 400), 0.5, dtype=torch.float64), "rate": pace}
    y = torch.zeros(3, dtype=torch.int64)
    threat = {"u": ss.linf(0.25)}
    patient = ss.attack(model, x, y, threat=threat, recipe="square:queries=2000")
    hasty = ss.attack(model, x, y, threat=threat, recipe="square:queries=2000,patience=100")
    assert patient.fooled.tolist() == hasty.fooled.tolist() == [False, False, True]
    assert patient.forwards.tolist()[:2] == [2001, 2001]
    assert hasty.forwards[0] == 101
    assert hasty.forwards[1] < 2001
    assert hasty.forwards[2] == patient.forwards[2] > 101  # it was asked more than once whether to go on


def test_patience_leaves_a_task_without_margin_alone() -> None:
    net = mlp()
    x = _x()
    y = labels(net, x)

    def loss(z: Tensor, k: Tensor | None) -> Tensor:
        assert k is not None
        return -z.gather(1, k.unsqueeze(1)).squeeze(1)

    task = Custom(loss, lambda z, _: z[:, 0] > 1e9)
    outcome = ss.attack(ss.Model(net, task=task), x, y, threat=ss.linf(0.1), recipe="square:queries=300,patience=20")
    assert bool((outcome.forwards > 21).all())


@pytest.mark.parametrize("restarts", [1, 3])
def test_restarts_of_square(restarts: int) -> None:
    model, x = mlp(), _x(40)
    y = labels(model, x)
    outcome = ss.attack(model, x, y, threat=ss.linf(0.04), recipe=f"square:queries=40,restarts={restarts}")
    assert bool((outcome.forwards[~outcome.fooled] == 41 * restarts).all())
    once = ss.attack(model, x, y, threat=ss.linf(0.04), recipe="square:queries=40")
    assert bool((outcome.fooled | ~once.fooled).all())


def test_another_schedule_can_be_tried() -> None:
    asked: list[tuple[int, int, float]] = []

    def window(query: int, queries: int, p: float) -> float:
        asked.append((query, queries, p))
        return p

    model, x = mlp(), _x(2)
    ss.attack(model, x, labels(model, x), threat=ss.linf(0.001), recipe=Square(10, 0.5, window=window))
    assert asked == [(query, 10, 0.5) for query in range(1, 10)]


def test_square_beats_blind_guessing() -> None:
    model, x = mlp(), _x(100, seed=12)
    y = labels(model, x)
    fooled = {
        name: int(ss.attack(model, x, y, threat=ss.linf(0.05), recipe=f"{name}:queries=150").fooled.sum())
        for name in ("square", "nes", "spsa", "random-direction")
    }
    assert all(fooled[name] > fooled["random-direction"] for name in ("square", "nes", "spsa")), fooled


# NES and SPSA


def _quadratic(x: Tensor) -> tuple[ModelProblem, Tensor]:
    """A two-class problem whose margin is -|A u|^2, and its gradient."""
    a = rand(20, 20, seed=4) - 0.5

    def model(u: Tensor) -> Tensor:
        value = (u @ a.T).square().sum(1)
        return torch.stack([value, torch.zeros_like(value)], 1)

    aim = Aim(torch.zeros(len(x), dtype=torch.int64))
    problem = ModelProblem(Predictor(model, kind="logits"), Multiclass(), aim, "margin", torch.arange(len(x)))
    return problem, -2 * x @ a.T @ a


@pytest.mark.parametrize("directions", ["normal", "signs"])
def test_estimates_point_along_the_gradient(directions: str) -> None:
    """The cosine of n random directions in D dimensions is about sqrt(n / (n + D)): 0.95 here, 0.58 from 10."""
    x = rand(32, 20, seed=5)
    problem, gradient = _quadratic(x)
    oracle = Differences(400, 1e-3, directions)  # type: ignore[arg-type]
    score, estimate = oracle(problem, x, Key(0))
    assert isinstance(estimate, Tensor)
    cosine = torch.cosine_similarity(estimate, gradient)
    assert float(cosine.min()) > 0.88
    assert 0.93 < float(cosine.mean()) < 0.97
    torch.testing.assert_close(estimate.mean(0), gradient.mean(0), rtol=0.3, atol=0.3)  # the size is right too
    torch.testing.assert_close(score.loss, problem(x).loss)
    _, fewer = Differences(20, 1e-3, directions)(problem, x, Key(0))  # type: ignore[arg-type]
    assert isinstance(fewer, Tensor)
    assert float(torch.cosine_similarity(fewer, gradient).mean()) < 0.75


class _Level(nn.Module):
    """Outputs whose values on both sides of the middle of the box are each other's negative to the last bit."""

    def __init__(self, curved: bool) -> None:
        super().__init__()
        self.curved = curved

    def forward(self, x: Tensor) -> Tensor:
        u = (x.flatten(1) - 0.5) @ torch.tensor([[1.0, -2.0], [0.5, 1.0], [-0.25, 0.0], [2.0, 4.0]]).to(x)
        return u + u * u * u if self.curved else u


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["nes", "spsa", "square", "fgsm", "pgd"])
def test_a_regression_with_the_models_own_answers_is_left(name: str, norm: str, curved: bool) -> None:
    """The error is zero there, and grows on both sides alike: every attack must choose one of them."""
    x = torch.full((3, 4), 0.5)
    model = ss.Model(_Level(curved), task=ss.Regression(0.125))
    queries = {"nes": ":queries=300,samples=20,sigma=0.015625", "spsa": ":queries=300,samples=20,sigma=0.015625"}
    threat = ss.linf(0.25) if norm == "linf" else ss.l2(0.25)
    outcome = ss.attack(model, x, threat=threat, recipe=name + queries.get(name, ""))
    assert bool((flat_change(outcome.x, x) > 0).all())
    assert bool(outcome.fooled.all())


def flat_change(point: object, x: Tensor) -> Tensor:
    assert isinstance(point, Tensor)
    return (point - x).abs().flatten(1).amax(1)


def test_an_estimate_is_the_mean_unless_no_query_is_worse() -> None:
    """Beside the bottom of a valley the estimate is what it was; at it the best query."""
    x = torch.full((1, 4), 0.5)
    problem = ModelProblem(
        Predictor(lambda u: (u - 0.5).sum(1), kind="logits"),
        Custom(lambda out, _: out.square(), lambda out, _: out > 9),
        Aim(None),
        "custom",
        torch.zeros(1, dtype=torch.int64),
    )
    oracle = Differences(samples=40, sigma=2**-6, directions="signs")
    at, beside = (oracle(problem, x + offset, Key(0))[1] for offset in (0.0, 0.25))
    assert isinstance(at, Tensor)
    assert isinstance(beside, Tensor)
    assert bool((at.abs() == 1).all())
    assert float(at.sum().abs()) == 4.0  # of 20 directions of four signs the best has all of them alike
    assert bool((beside.abs() != 1).any())
    assert float(beside.sum()) > 0


def test_estimates_of_class_differences() -> None:
    x = rand(4, 20, seed=5)
    problem, gradient = _quadratic(x)
    weights = torch.tensor([[0.0, -1.0]], dtype=torch.float64).expand(4, -1)
    _, estimate = Differences(400)(problem, x, Key(0), weights)
    _, plain = Differences(400)(problem, x, Key(0))
    assert isinstance(estimate, Tensor)
    assert isinstance(plain, Tensor)
    torch.testing.assert_close(estimate, plain)
    del gradient


@pytest.mark.parametrize("name", ["nes", "spsa"])
def test_queries_of_an_estimate_stay_in_the_box_and_off_the_mask(name: str) -> None:
    net = mlp()
    mask = torch.arange(18).reshape(2, 3, 3) % 2 == 0
    seen: list[Tensor] = []

    def model(u: Tensor) -> Tensor:
        seen.append(u)
        out: Tensor = net(u)
        return out

    x = _x().round()
    ss.attack(
        model, x, labels(net, x), threat=ss.linf(0.1, mask=mask), recipe=f"{name}:queries=40,samples=10,sigma=0.05"
    )
    points = torch.cat(seen)
    assert 0 <= float(points.min()) <= float(points.max()) <= 1
    frozen = points[:, ~mask]
    assert bool(((frozen == 0) | (frozen == 1)).all())
    assert bool(((points[:, mask] > 0) & (points[:, mask] < 1)).any())


# HopSkipJump


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("masked", [False, True])
def test_hop_skip_jump_comes_near_the_nearest_point(norm: str, masked: bool) -> None:
    """A linear model: the distance to the plane is |w.x - b| / |w|, in the dual norm; never less is reported."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(20, generator=generator, dtype=torch.float64)
    x = torch.rand(8, 20, generator=generator, dtype=torch.float64) / 2 + 0.25
    mask = torch.arange(20) % 3 > 0 if masked else torch.ones(20, dtype=torch.bool)
    free = w * mask
    height = ((x - 0.5) * w).sum(1) - 0.15 * w.square().sum().sqrt()

    def model(u: Tensor) -> Tensor:
        return (((u - 0.5) * w).sum(1) - 0.15 * w.square().sum().sqrt() > 0).long()

    exact = height.abs() / (free.abs().sum() if norm == "linf" else free.square().sum().sqrt())
    threat = ss.threat_model(norm, float(exact.median()) * 1.1, mask=mask)
    outcome = ss.attack(model, x, model(x), threat=threat, recipe="hop-skip-jump:queries=1500")
    assert outcome.smallest is not None
    ratio = outcome.smallest / exact
    assert float(ratio.min()) > 1 - 1e-9
    assert float(ratio.max()) < 1.1
    assert torch.equal(outcome.fooled, outcome.smallest <= float(threat.eps or 0))
    assert 0 < int(outcome.fooled.sum()) < 8
    assert isinstance(outcome.distance, Tensor)
    near = outcome.fooled
    torch.testing.assert_close(outcome.distance[near], outcome.smallest[near].to(outcome.distance))


def test_hop_skip_jump_finds_no_point_where_there_is_none() -> None:
    def model(u: Tensor) -> Tensor:
        return torch.zeros(len(u), dtype=torch.int64)

    x = _x()
    outcome = ss.attack(model, x, model(x), threat=ss.linf(0.1), recipe="hop-skip-jump:queries=50")
    assert outcome.smallest is not None
    assert outcome.smallest.tolist() == [math.inf] * len(x)
    assert not bool(outcome.fooled.any())
    assert torch.equal(torch.as_tensor(outcome.x), x)


def test_hop_skip_jump_needs_nothing_where_the_model_is_wrong_already() -> None:
    model, x = mlp(), _x()
    y = (labels(model, x) + 1) % 4
    outcome = ss.attack(model, x, y, threat=ss.linf(0.1), recipe="hop-skip-jump:queries=50")
    assert outcome.smallest is not None
    assert outcome.smallest.tolist() == [0.0] * len(x)
    assert outcome.forwards.tolist() == [2] * len(x)
    assert bool(outcome.fooled.all())


def test_hop_skip_jump_goes_on_from_a_point_that_fools() -> None:
    """A target that noise never hits is reached from the point of another attack."""
    x = torch.full((2, 30), 0.2, dtype=torch.float64)

    def model(u: Tensor) -> Tensor:  # class 1 only where every input is above 0.9
        return (u.amin(1) > 0.9).long()

    subject = Subject.of(ss.Model(model))
    with subject.opened():
        question = subject.ask(x, model(x), ss.linf(0.45), key=Key(0))
        attack = ss.recipe("hop-skip-jump:queries=300")
        begun = question.run(attack, Key(0), torch.full_like(x, 0.95))
        alone = question.run(attack, Key(0))
    assert begun.smallest is not None
    assert alone.smallest is not None
    torch.testing.assert_close(begun.smallest, torch.full((2,), 0.7, dtype=torch.float64), rtol=0.02, atol=0)
    del alone


def test_the_smallest_change_of_a_random_model_is_confirmed() -> None:
    """One lucky flip is not a distance: a model that flips in 2 % of its passes has none."""

    def model(u: Tensor) -> Tensor:
        return (torch.rand(len(u)) < 0.02).long()

    x = _x(30)
    with torch.random.fork_rng():
        y = torch.zeros(30, dtype=torch.int64)
        outcome = ss.attack(model, x, y, threat=ss.linf(0.1), recipe="hop-skip-jump:queries=200")
    assert outcome.smallest is not None
    assert outcome.smallest.tolist() == [math.inf] * 30
    assert not bool(outcome.fooled.any())


# Labels alone


class _Answering:
    """Another model's answer without its scores."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, u: Tensor) -> Tensor:
        answer: Tensor = self.model(u).argmax(1)
        return answer


@pytest.mark.parametrize("recipe", ["hop-skip-jump:queries=200", "random-direction:queries=100", "random-sign"])
@pytest.mark.parametrize("targeted", [False, True])
def test_a_model_that_answers_with_labels(recipe: str, targeted: bool) -> None:
    model, x = mlp(), _x(30)
    y = labels(model, x)
    target = (y + 1) % 4 if targeted else None
    outcome = ss.attack(_Answering(model), x, y, target=target, threat=ss.linf(0.4), recipe=recipe)
    assert isinstance(outcome.x, Tensor)
    assert int(outcome.fooled.sum()) > 0
    reached = labels(model, outcome.x)
    assert torch.equal(outcome.answer, reached)
    assert outcome.fooled.tolist() == (reached != y if target is None else reached == target).tolist()
    assert torch.equal(outcome.loss, torch.where(outcome.fooled, 1.0, -1.0))
    assert any("labels alone" in note for note in outcome.notes)


def test_what_it_finds_is_what_scores_would_have_shown() -> None:
    """Labels are all that hop-skip-jump uses: with scores it does the same."""
    model, x = filled(RowNet()), _x()
    y = labels(model, x)
    shown = ss.attack(model, x, y, threat=ss.l2(0.3), recipe="hop-skip-jump:queries=200")
    hidden = ss.attack(_Answering(model), x, y, threat=ss.l2(0.3), recipe="hop-skip-jump:queries=200")
    assert torch.equal(torch.as_tensor(shown.x), torch.as_tensor(hidden.x))


@pytest.mark.parametrize("recipe", ["fgsm", "pgd", "square", "nes", "apgd:targets=3"])
def test_attacks_that_need_more_than_labels_say_so(recipe: str) -> None:
    model, x = mlp(), _x()
    with pytest.raises(ModelError, match="hop-skip-jump"):
        ss.attack(_Answering(model), x, labels(model, x), threat=ss.linf(0.1), recipe=recipe)


def test_a_surrogate_lends_its_gradients_to_a_model_with_labels() -> None:
    model, x = mlp(), _x()
    y = labels(model, x)
    lent = ss.attack(_Answering(model), x, y, threat=ss.linf(0.2), recipe="pgd", search=ss.Search(surrogate=model))
    own = ss.attack(model, x, y, threat=ss.linf(0.2), recipe="pgd")
    assert int(lent.fooled.sum()) >= int(own.fooled.sum()) - 1 > 0
    declared = ss.attack(
        ss.Model(_Answering(model), outputs="labels"),
        x,
        y,
        threat=ss.linf(0.2),
        recipe="pgd",
        search=ss.Search(loss="margin", surrogate=model),
    )
    assert int(declared.fooled.sum()) > 0


def test_labels_that_come_as_other_numbers() -> None:
    model, x = mlp(), _x()
    y = labels(model, x)
    for answer in (
        lambda u: labels(model, u).double().unsqueeze(1),
        lambda u: labels(model, u).to(torch.uint8),
    ):
        outcome = ss.attack(
            ss.Model(answer, outputs="labels"), x, threat=ss.linf(0.3), recipe="hop-skip-jump:queries=50"
        )
        assert outcome.answer.dtype == torch.int64
        assert torch.equal(outcome.answer, labels(model, torch.as_tensor(outcome.x)))
    with pytest.raises(ModelError, match="whole numbers"):
        ss.attack(ss.Model(model, outputs="labels"), x, y, threat=ss.linf(0.1), recipe="hop-skip-jump")
    with pytest.raises(ModelError, match="whole numbers"):
        ss.attack(lambda u: labels(model, u)[:, None].expand(-1, 3), x, y, threat=ss.linf(0.1), recipe="hop-skip-jump")
    with pytest.raises(LabelError, match="one class index"):
        ss.attack(_Answering(model), x, y[:3], threat=ss.linf(0.1), recipe="hop-skip-jump")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("square:queries=0", "queries"),
        ("square:p=0", "p=0"),
        ("square:p=1.5", "p=1.5"),
        ("square:start=middle", "stripes"),
        ("square:restarts=0", "restarts"),
        ("square:patience=-1", "patience"),
        ("nes:queries=2", "at least 3"),
        ("nes:samples=3", "even"),
        ("spsa:sigma=0", "sigma"),
        ("hop-skip-jump:samples=1", "samples"),
        ("random-direction:queries=0", "queries"),
    ],
)
def test_wrong_options_say_what_is_right(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ss.recipe(spec)
