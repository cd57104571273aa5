"""Every option of every recipe does what its line in `signstep explain` says, and something else would be seen here."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_nets import mlp, rand
from torch import Tensor
from torch.nn.functional import pad

import signstep as ss
from signstep.attacks.minimal.steps import annealed
from signstep.attacks.recipe import Option, Recipe, defaults_of
from signstep.attacks.recipes import options_of
from signstep.attacks.search.windows import Layout, halving_share
from signstep.attacks.transfer.ti_fgsm import fitting
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError, ThreatError
from signstep.explain import explain, topic_of
from signstep.model.subject import Subject

Check = Callable[[str], None]
OPTIONS = [(row.name, option) for row in ss.RECIPES.values() for option in options_of(row)]
EFFECTS: dict[tuple[str, str], Check] = {}
SHAPE, ROWS, CLASSES = (1, 4, 6), 3, 5
SIZE = math.prod(SHAPE)
EPS = 0.05
CHANGES = 6  # of threats that count


def says(option: str, *names: str) -> Callable[[Check], Check]:
    """Register a check of what an option of these recipes does."""

    def register(check: Check) -> Check:
        for name in names:
            assert (name, option) not in EFFECTS, f"two checks for {option} of {name}"
            EFFECTS[name, option] = check
        return check

    return register


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_an_option_does_what_its_page_says(name: str, option: str) -> None:
    assert (name, option) in EFFECTS, f"write down what option {option} of recipe {name} does: a check in this table"
    EFFECTS[name, option](name)


def test_no_check_is_of_an_option_that_is_gone() -> None:
    assert set(EFFECTS) <= set(OPTIONS)


@pytest.mark.parametrize("name", list(ss.RECIPES))
def test_every_option_has_a_line_on_its_page(name: str) -> None:
    topic = topic_of(name)
    assert topic is not None, f"write the page {name}.txt of recipe {name}, beside the function that makes it"
    named, told = set(options_of(ss.RECIPES[name])), set(topic.options)
    missing = ", ".join(sorted(named - told))
    assert not missing, f"write down in {name}.txt what these options of recipe {name} do: {missing}"
    assert not told - named, f"{name}.txt tells of options that recipe {name} has not: {sorted(told - named)}"
    page = explain(name)
    for option in named:
        default = _defaults(name)[option]
        line = " ".join(page[page.index(f"\n  {option} ") :].split())
        assert line.startswith(f"{option} {topic.options[option]}"), option
        assert default is None or f"({default})" in line


def test_a_recipe_from_outside_is_explained_as_far_as_it_says() -> None:
    row = replace(ss.RECIPES["pgd"], name="mine", title="PGD of my own", source="me", build=_mine)
    with ss.RECIPES.lent(row):
        page = explain("mine")
    assert page.startswith("mine: PGD of my own")
    assert "a recipe of your own without a page" in page
    assert all(option in page for option in options_of(row))


def _mine(*, steps: int = 3) -> ss.Attack:
    return ss.recipe(f"pgd:steps={steps}")


# Inputs far from the ends of the box, and models that are never fooled, so that every run goes to its end.


class Model:
    """Scores that are never fooled, and what the attack asked: points, those with gradients, and the gradients."""

    def __init__(self, scores: Callable[[Tensor], Tensor]) -> None:
        self.scores = scores
        self.asked: list[Tensor] = []
        self.points: list[Tensor] = []
        self.gradients: list[Tensor] = []

    def __call__(self, u: Tensor) -> Tensor:
        self.asked.append(u.detach().clone())
        if u.requires_grad:
            self.points.append(u.detach().clone())
            u = u * 1
            u.register_hook(lambda gradient: self.gradients.append(gradient.clone()))  # type: ignore[no-untyped-call]
        return self.scores(u)

    def forget(self) -> None:
        """Before the attack itself."""
        self.asked, self.points, self.gradients = [], [], []


def _x(rows: int = ROWS, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return 0.3 + 0.4 * rand(rows, *shape, seed=3)


WEIGHT = rand(CLASSES, SIZE, seed=1) - 0.5
BEND = 8 * (rand(SIZE, seed=2) - 0.5)


def _linear(u: Tensor) -> Tensor:
    """Class 0 wins by 100; the gradients of the differences are those of the weights."""
    return u.flatten(1) @ WEIGHT.T + 100 * torch.eye(CLASSES, dtype=u.dtype)[0]


def _slope(u: Tensor) -> Tensor:
    """The gradient of `_bent`'s second score, (R, ...)."""
    return (WEIGHT[1] + BEND * (u.flatten(1) - 0.5)).reshape(u.shape)


def _bent(u: Tensor) -> Tensor:
    """Two classes, the second far behind, whose score is a quadratic."""
    flat = u.flatten(1)
    score = (WEIGHT[1] * flat + BEND * (flat - 0.5).square() / 2).sum(1)
    return torch.stack([torch.full_like(score, 100.0), score], 1)


def _blind(u: Tensor) -> Tensor:
    """Scores that say nothing about the input."""
    return torch.tensor([2.0, 1.0], dtype=u.dtype).expand(len(u), 2) + 0 * u.flatten(1).sum(1, keepdim=True)


def _defaults(name: str) -> dict[str, Option]:
    return defaults_of(ss.RECIPES[name])


def _spec(name: str, **options: object) -> str:
    return f"{name}:{','.join(f'{key}={value}' for key, value in options.items())}" if options else name


def _threat(row: Recipe, eps: float = EPS) -> ThreatModel:
    if "l0" in row.norms:
        return ss.l0(CHANGES)
    return ss.linf(eps) if row.takes("linf") else ss.l2(eps)


def _ran(
    name: str,
    scores: Callable[[Tensor], Tensor] = _linear,
    /,
    **options: Any,
) -> tuple[ss.Outcome, Model]:
    """One attack with these options; labels are 0 everywhere.

    Not options of the recipe are ``x``, ``threat``, ``begin`` (the best points of attacks before it) and ``audited``
    (the loss of the audit).
    """
    model = Model(scores)
    x, threat, begin, audited = (options.pop(key, None) for key in ("x", "threat", "begin", "audited"))
    x = _x() if x is None else x
    subject = Subject.of(ss.Model(model, outputs="logits"), ss.Search(loss=audited))
    with subject.opened():
        y = torch.zeros(len(x), dtype=torch.int64)
        question = subject.ask(x, y, threat or _threat(ss.RECIPES[name]), key=Key(0))
        model.forget()
        return question.run(ss.recipe(_spec(name, **options)), Key(0), begin), model


def _as(name: str, other: str, **options: object) -> None:
    """The recipe with some options is another one with others."""
    fixed = {key.removeprefix("other_"): value for key, value in options.items() if key.startswith("other_")}
    own = {key: value for key, value in options.items() if not key.startswith("other_")}
    shared = {key: value for key, value in own.items() if key in _defaults(other)}
    one, _ = _ran(name, _bent, **own)
    two, _ = _ran(other, _bent, **{**shared, **fixed})
    assert isinstance(one.x, Tensor)
    assert isinstance(two.x, Tensor)
    torch.testing.assert_close(one.x, two.x, rtol=0, atol=1e-12)


# What a run costs, in passes: steps, restarts, targets and all that is a number of gradients or queries.


def _passes(name: str, given: dict[str, int]) -> tuple[int, int]:
    """Forward and backward passes of a row that never falls, as the table's ``cost`` says."""
    o = SimpleNamespace(**{**_defaults(name), **given})
    planes = min(getattr(o, "candidates", 0), CLASSES - 1)
    aims = min(getattr(o, "targets", 0), CLASSES - 1)
    led, asked = max(1, aims), min(1, aims)
    probes = 1 + min(getattr(o, "samples", 0), (getattr(o, "queries", 0) - 1) // 2 * 2)
    one: dict[str, Callable[[], tuple[int, int]]] = {
        "random-sign": lambda: (o.restarts, 0),
        "fgsm": lambda: (2, 1),
        "fgsm-rs": lambda: (2 * o.restarts, o.restarts),
        "pgd": lambda: (o.restarts * (o.steps + 1), o.restarts * o.steps),
        "apgd": lambda: (o.restarts * led * (o.steps + 2) + asked, o.restarts * led * o.steps),
        "bpda-pgd": lambda: (o.restarts * (o.steps + 1), o.restarts * o.steps),
        "averaged-pgd": lambda: (
            o.restarts * (o.steps + (o.steps - 1) * o.samples + 1),
            o.restarts * (o.steps + (o.steps - 1) * o.samples),
        ),
        "smooth-pgd": lambda: (o.restarts * led * (o.steps + 2) + asked, o.restarts * led * o.steps),
        "mt-pgd": lambda: (o.restarts * led * (o.steps + 1) + asked, o.restarts * led * o.steps),
        "odi-pgd": lambda: (
            o.restarts * (o.steps + o.diverse + 1 + min(1, o.diverse)),
            o.restarts * (o.steps + o.diverse),
        ),
        "si-fgsm": lambda: (o.copies * o.steps + 1, o.copies * o.steps),
        "vmi-fgsm": lambda: (o.steps + (o.steps - 1) * o.samples + 1, o.steps + (o.steps - 1) * o.samples),
        "deepfool": lambda: (o.steps + 2, planes * o.steps),
        "ddn": lambda: (o.steps + 2, o.steps),
        "sigma-zero": lambda: (o.steps + 2, o.steps),
        "cw": lambda: (o.searches * o.steps + 2, o.searches * o.steps + 1),
        "fab": lambda: (
            o.restarts * led * (2 * o.steps + 4) + 1 + asked,
            o.restarts * (aims or planes) * o.steps,
        ),
        "random-direction": lambda: (o.queries + 1, 0),
        "square": lambda: (o.restarts * (o.queries + 1), 0),
        "sparse-rs": lambda: (o.restarts * (o.queries + 1), 0),
        "explore": lambda: (
            o.samples + 1 + (o.queries + 2) * (o.queries > 0) + o.starts * (o.steps + 2),
            o.starts * o.steps,
        ),
        "nes": lambda: (o.queries // probes * probes + 1, 0),
        "spsa": lambda: (o.queries // probes * probes + 1, 0),
    }
    forwards, backwards = one[name]() if name in one else (o.steps + 1, o.steps)
    return forwards, backwards


_FEW = {"steps": 3, "queries": 25}
_COUNTS = {
    "steps": (2, 5),
    "restarts": (1, 3),
    "targets": (0, 1, 3),
    "diverse": (0, 3),
    "copies": (1, 4),
    "searches": (1, 3),
    "candidates": (1, 3, 20),
    "queries": (11, 40),
    "samples": (2, 6),
}


def _count(option: str) -> Check:
    """The passes that are booked, and those that the model saw, are those that the option says."""

    def check(name: str) -> None:
        few = {key: value for key, value in _FEW.items() if key in _defaults(name) and key != option}
        extra = {"start": "uniform"} if (name, option) == ("smooth-pgd", "restarts") else {}
        for number in _COUNTS[option]:
            given = {**few, option: number}
            outcome, model = _ran(name, **given, **extra)
            forwards, backwards = _passes(name, given)
            assert outcome.forwards.tolist() == [forwards] * ROWS, number
            assert outcome.backwards.tolist() == [backwards] * ROWS, number
            assert sum(map(len, model.asked)) == int(outcome.forwards.sum()), number

    return check


def _with(option: str) -> list[str]:
    return [name for name, own in OPTIONS if own == option]


for _option in ("steps",):
    says(_option, *_with(_option))(_count(_option))


@says("queries", "random-direction", "square", "sparse-rs", "nes", "spsa", "explore")
def _(name: str) -> None:
    _count("queries")(name)


@says("queries", "hop-skip-jump")
def _(name: str) -> None:
    """All are spent but for the last few that would not pay for a step, and never more."""
    for queries in (40, 90):
        outcome, _ = _ran(name, _near, queries=queries, samples=10)
        assert bool((outcome.forwards <= queries + 1).all())
        assert bool((outcome.forwards > queries - 4).all())


def _near(u: Tensor) -> Tensor:
    """Two classes whose boundary, a plane, lies at 0.02 from the middle of the box along every coordinate."""
    score = (u.flatten(1) - 0.5).sum(1) - 0.02 * SIZE
    return torch.stack([torch.zeros_like(score), score], 1)


@says("restarts", "fab")
def _(name: str) -> None:
    """Runs from points within half the distance of the nearest so far; never a longer distance, here shorter ones."""
    _count("restarts")(name)
    net = mlp(SIZE, CLASSES, scale=8)
    tilt = torch.arange(CLASSES, 0, -1, dtype=torch.float64) * 3
    x, steps = _x(20), 5
    found = []
    for restarts in (1, 6):
        outcome, model = _ran(name, lambda u: net(u) + tilt, x=x, steps=steps, restarts=restarts, candidates=1)
        assert outcome.smallest is not None
        found.append(outcome.smallest)
        for start in model.points[steps::steps]:
            before = next(number for number, point in enumerate(model.asked) if torch.equal(point, start))
            with torch.no_grad():
                fooled = torch.stack([model.scores(point).argmax(1) > 0 for point in model.asked[:before]])
            lengths = (torch.stack(model.asked[:before]) - x).abs().flatten(2).amax(2)
            nearest = torch.where(fooled & (lengths > 0), lengths, torch.inf).amin(0)
            far = (start - x).abs().flatten(1).amax(1)
            assert bool((far <= nearest / 2 * (1 + 1e-9)).all())
            assert bool((far > 0).all())
    assert bool((found[1] <= found[0]).all())
    assert bool((found[1] < 0.99 * found[0]).any())


@says("restarts", *(name for name in _with("restarts") if name not in ("fab", "sparse-rs")))
def _(name: str) -> None:
    """As many runs, from other starts, on the rows that still stand; never fewer fooled, never a smaller loss."""
    _count("restarts")(name)
    model, x = mlp(SIZE, scale=2), _x(30)
    with torch.no_grad():
        y = model(x).argmax(1)
    few = {key: value for key, value in {"steps": 2, "queries": 5}.items() if key in _defaults(name)}
    spec = _spec(name, **few, **({"start": "uniform"} if name == "smooth-pgd" else {}))
    joint = "," if ":" in spec else ":"
    once, often = (
        ss.attack(model, x, y, threat=ss.linf(0.045), recipe=f"{spec}{joint}restarts={number}") for number in (1, 12)
    )
    assert 0 < int(once.fooled.sum()) < len(x)
    assert bool((often.fooled | ~once.fooled).all())
    assert torch.equal(often.x[once.fooled], once.x[once.fooled])  # type: ignore[index]
    standing = ~often.fooled
    assert bool((often.loss[standing] >= once.loss[standing]).all())
    assert bool((often.loss > once.loss)[standing].any())


# Lengths of steps.


def _hops(name: str, scores: Callable[[Tensor], Tensor] = _bent, **options: object) -> list[Tensor]:
    """The points of a run in order, (R, ...) each, the returned one last; a step well inside the ball each."""
    outcome, model = _ran(name, scores, **options)
    assert isinstance(outcome.x, Tensor)
    return [*model.points, outcome.x]


@says("step", "bim", "mi-fgsm", "ni-fgsm", "si-fgsm", "di-fgsm", "ti-fgsm", "vmi-fgsm")
def _(name: str) -> None:
    plain = {"si-fgsm": {"copies": 1}, "di-fgsm": {"prob": 0}, "ti-fgsm": {"kernel": 1}, "vmi-fgsm": {"samples": 1}}
    for given, relative in (({"step": 0.03}, 0.03), ({"step": 0.2}, 0.2), ({}, 1 / 7)):
        outcome, model = _ran(name, _bent, steps=7, **given, **plain.get(name, {}))
        there = model.points[2 if name == "vmi-fgsm" else 1]
        if name in ("ni-fgsm", "si-fgsm"):  # gradients are taken ahead of the points
            assert isinstance(outcome.x, Tensor)
            assert float((outcome.x - _x()).abs().max()) <= min(1, 7 * relative) * EPS * (1 + 1e-9)
            once = _ran(name, _bent, steps=1, step=relative, **plain.get(name, {}))[0].x
            assert isinstance(once, Tensor)
            there = once
        torch.testing.assert_close((there - _x()).abs(), torch.full_like(_x(), relative * EPS))


@says("step", "pgd", "odi-pgd", "mt-pgd", "fgsm-rs")
def _(name: str) -> None:
    own = 1.25 if name == "fgsm-rs" else 2.5 / 5
    for given, relative in (({"step": 0.03}, 0.03), ({"step": 0.2}, 0.2), ({}, own)):
        hops = _hops(name, _linear, **given, **({} if name == "fgsm-rs" else {"steps": 5}))
        first = len(hops) - (2 if name == "fgsm-rs" else 6) if name != "mt-pgd" else 0
        moved = hops[first + 1] - hops[first]
        inside = (hops[first + 1] - _x()).abs() < EPS * (1 - 1e-9)  # where the ball has not cut the step
        assert bool(inside.any())
        torch.testing.assert_close(moved[inside].abs(), torch.full_like(moved[inside], relative * EPS))
        assert float(moved.abs().max()) <= relative * EPS * (1 + 1e-9)


@says("step", "bpda-pgd", "averaged-pgd")
def _(name: str) -> None:
    """That of PGD, where nothing is without a gradient and where gradients are alike everywhere."""
    for given in ({"step": 0.03}, {"step": 0.2}, {}):
        one, _ = _ran(name, _linear, steps=5, **given)
        two, _ = _ran("pgd", _linear, steps=5, **given)
        assert isinstance(one.x, Tensor)
        assert isinstance(two.x, Tensor)
        # Sums of gradients may round a coordinate near zero to another sign.
        assert float(torch.eq(one.x, two.x).double().mean()) > 0.95


@says("backward", "bpda-pgd")
def _(name: str) -> None:
    """Rounding is passed as it is, or as a staircase whose steps are rounded off."""
    weight = WEIGHT.abs() + 0.1

    def rounded(u: Tensor, seen: list[Tensor]) -> Tensor:
        if u.requires_grad:
            with torch._C.DisableTorchFunction():  # the recipe passes hooks of a model by
                u.register_hook(lambda gradient: seen.append(gradient.detach()))  # type: ignore[no-untyped-call]
        height = (4 * u).round().flatten(1) @ weight[1]
        return torch.stack([torch.full_like(height, 1e4), height], 1)

    for backward in ("identity", "soft"):
        seen: list[Tensor] = []
        _, model = _ran(name, partial(rounded, seen=seen), steps=3, backward=backward)
        for point, gradient in zip(model.points, seen, strict=True):
            height = 4 * point.detach()
            slope = 1 - torch.cos(2 * torch.pi * height) if backward == "soft" else torch.ones_like(height)
            wanted = 4 * weight[1].reshape(SHAPE) * slope
            torch.testing.assert_close(gradient, wanted.expand_as(gradient), rtol=1e-6, atol=1e-6)


@says("step", "smooth-pgd")
def _(name: str) -> None:
    """From step * eps linearly to a twentieth of it."""
    for step in (0.02, 0.1):
        hops = _hops(name, _linear, steps=6, step=step)
        for number, (here, there) in enumerate(pairwise(hops[:6])):
            length = (step + (step / 20 - step) * number / 6) * EPS
            torch.testing.assert_close((there - here).abs(), torch.full_like(here, length))


@says("step", "nes", "spsa")
def _(name: str) -> None:
    for given, relative in (({"step": 0.03}, 0.03), ({}, 2.5 / 3)):
        _, model = _ran(name, samples=4, queries=15, **given)
        centres = model.asked[0::2]
        assert [len(part) for part in model.asked[:4]] == [ROWS, 4 * ROWS, ROWS, 4 * ROWS]
        torch.testing.assert_close((centres[1] - centres[0]).abs(), torch.full_like(_x(), relative * EPS))


@says("step", "fmn")
def _(name: str) -> None:
    """Widths of the box, and a hundredth of it along a cosine."""
    for step, width in ((1e-3, 1.0), (1e-3, 4.0), (4e-3, 1.0)):
        threat = ss.threat_model("l2", None, box=(0, width))
        _, model = _ran(name, threat=threat, steps=5, step=step)
        lengths = [float((there - here).flatten(1).norm(dim=1)[0]) for here, there in pairwise(model.points)]
        wanted = [annealed(step, step / 100, number, 5) * width for number in range(4)]
        assert lengths == pytest.approx(wanted)


# Memory.


def _unit(gradient: Tensor) -> Tensor:
    return gradient / gradient.abs().flatten(1).sum(1).reshape(-1, 1, 1, 1)


def _with_memory(decay: float, steps: int, *, ahead: bool) -> tuple[Tensor, list[Tensor]]:
    """MI-FGSM and NI-FGSM by hand on `_bent`, steps of a fifth of eps: the end, and where gradients were taken."""
    x, alpha = _x(), 0.2 * EPS
    u, memory, taken = x.clone(), torch.zeros_like(x), []
    for _ in range(steps):
        seen = u + alpha * decay * memory * SIZE if ahead else u
        seen = torch.minimum(torch.maximum(seen, x - EPS), x + EPS)
        taken.append(seen)
        memory = decay * memory + _unit(_slope(seen))
        u = torch.minimum(torch.maximum(u + alpha * memory.sign(), x - EPS), x + EPS)
    return u, taken


@says("decay", "mi-fgsm", "ni-fgsm", "si-fgsm", "di-fgsm", "ti-fgsm")
def _(name: str) -> None:
    plain = {"si-fgsm": {"copies": 1}, "di-fgsm": {"prob": 0}, "ti-fgsm": {"kernel": 1}}.get(name, {})
    ends = []
    for decay in (0.0, 0.5, 1.0):
        outcome, model = _ran(name, _bent, steps=12, step=0.2, decay=decay, **plain)
        assert isinstance(outcome.x, Tensor)
        wanted, taken = _with_memory(decay, 12, ahead=name in ("ni-fgsm", "si-fgsm"))
        torch.testing.assert_close(outcome.x, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(torch.stack(model.points), torch.stack(taken), rtol=0, atol=1e-12)
        ends.append(wanted)
        once, _ = _ran(name, _bent, steps=1, step=0.2, decay=decay, **plain)
        torch.testing.assert_close(once.x, _with_memory(0.0, 1, ahead=False)[0], rtol=0, atol=1e-12)
    assert all(not torch.equal(here, there) for here, there in pairwise(ends))
    _as(name, "bim", steps=12, step=0.2, decay=0, **plain)


@says("decay", "vmi-fgsm")
def _(name: str) -> None:
    """As the formula says, with the neighbours that the attack has drawn."""
    samples, steps, alpha, x = 3, 8, 0.2 * EPS, _x()
    ends = []
    for decay in (0.0, 0.5, 1.0):
        outcome, model = _ran(name, _bent, steps=steps, step=0.2, samples=samples, decay=decay)
        u, memory, v = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
        for number in range(steps):
            near = model.points[number * (samples + 1) + 1 : (number + 1) * (samples + 1)]
            memory = decay * memory + _unit(_slope(u) + v)
            if near:
                v = torch.stack([_slope(point) for point in near]).mean(0) - _slope(u)
            u = torch.minimum(torch.maximum(u + alpha * memory.sign(), x - EPS), x + EPS)
        torch.testing.assert_close(outcome.x, u, rtol=0, atol=1e-12)
        ends.append(u)
    assert all(not torch.equal(here, there) for here, there in pairwise(ends))


# Where gradients are taken.


@says("samples", "vmi-fgsm", "averaged-pgd")
def _(name: str) -> None:
    _count("samples")(name)
    _, model = _ran(name, _bent, steps=2, samples=5)
    around = torch.stack(model.points[1:6])
    assert len(torch.unique(around.flatten(1), dim=0)) == 5


@says("reach", "vmi-fgsm", "averaged-pgd")
def _(name: str) -> None:
    for reach in (0.3, 1.5):
        _, model = _ran(name, _bent, steps=2, samples=10, reach=reach)
        far = (torch.stack(model.points[1:11]) - model.points[0]).abs()
        assert 0.97 * reach * EPS < float(far.max()) <= reach * EPS * (1 + 1e-9)
        assert float(far.mean()) == pytest.approx(reach * EPS / 2, rel=0.1)


@says("copies", "si-fgsm")
def _(name: str) -> None:
    _count("copies")(name)
    for copies in (2, 4):
        outcome, model = _ran(name, _bent, steps=1, copies=copies)
        mean = torch.zeros_like(_x())
        for number in range(copies):
            torch.testing.assert_close(model.points[number], _x() / 2**number)
            mean += _slope(_x() / 2**number) / 2**number
        torch.testing.assert_close(outcome.x, _x() + EPS * mean.sign())
        assert not torch.equal(mean.sign(), _slope(_x()).sign())
    _as(name, "ni-fgsm", steps=5, copies=1)


@says("prob", "di-fgsm")
def _(name: str) -> None:
    x = _grey(40)
    for prob in (0.0, 0.25, 0.5, 1.0):
        _, model = _ran(name, _dull, x=x, threat=ss.linf(1e-6), steps=10, resize=0.5, prob=prob)
        # A resized image lies on a canvas of zeros; one of the 13 sizes is the whole.
        resized = torch.cat(model.points).flatten(1).amin(1) < 0.1
        assert float(resized.double().mean()) == pytest.approx(prob * 12 / 13, abs=0.06)
    _as(name, "mi-fgsm", steps=5, prob=0)


def _grey(rows: int) -> Tensor:
    """Images (rows, 1, 24, 24) of one grey each, so that what a canvas of zeros holds of them can be seen."""
    return _x(rows, (1, 1, 1)).expand(-1, 1, 24, 24).contiguous()


def _dull(u: Tensor) -> Tensor:
    """Two classes by the mean, for images of any size."""
    score = u.flatten(1).mean(1)
    return torch.stack([torch.full_like(score, 100.0), score], 1)


@says("resize", "di-fgsm")
def _(name: str) -> None:
    x = _grey(60)
    for resize in (0.5, 0.75):
        _, model = _ran(name, _dull, x=x, threat=ss.linf(1e-6), steps=6, prob=1, resize=resize)
        tall = (torch.cat(model.points)[:, 0].amax(2) > 0.1).sum(1)
        assert int(tall.min()) == int(24 * resize)
        assert int(tall.max()) == 24
        assert float(tall.double().mean()) == pytest.approx((24 * resize + 24) / 2, abs=0.6)
    _as(name, "mi-fgsm", steps=5, prob=1, resize=1)


@says("kernel", "ti-fgsm")
def _(name: str) -> None:
    """The sign of the first step is that of the weights convolved with the Gaussian of the page."""
    side = 64
    weights = (rand(side * side, seed=5) - 0.5).reshape(1, 1, side, side)
    x = _x(1, (1, side, side))

    def scores(u: Tensor) -> Tensor:
        score = (u * weights).flatten(1).sum(1)
        return torch.stack([torch.full_like(score, 100.0), score], 1)

    assert fitting(x) == 3
    for kernel, wide in ((1, 1), (3, 3), (7, 7), (0, 3)):
        k = wide // 2
        around, total = pad(weights, (k, k, k, k)), torch.zeros_like(weights)
        for i in range(-k, k + 1):
            for j in range(-k, k + 1):
                share = math.exp(-(i * i + j * j) / (2 * k * k / 3)) if k else 1.0
                total += share * around[..., k + i : k + i + side, k + j : k + j + side]
        outcome, _ = _ran(name, scores, x=x, steps=1, kernel=kernel)
        assert isinstance(outcome.x, Tensor)
        torch.testing.assert_close(outcome.x - x, EPS * total.sign())
    _as(name, "mi-fgsm", steps=5, kernel=1)


def _difference(other: int) -> Tensor:
    return WEIGHT[other] - WEIGHT[0]


def _direction(gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1)
    return flat / flat.square().sum(1, keepdim=True).sqrt()


def _led_to(gradient: Tensor) -> list[int]:
    """The class that each row's gradient leads to on `_linear`; -1 for none."""
    unit = torch.stack([_difference(other) / _difference(other).norm() for other in range(1, CLASSES)])
    near, index = (_direction(gradient) @ unit.T).max(1)
    return torch.where(near > 1 - 1e-9, index + 1, -1).tolist()


@says("targets", "apgd", "mt-pgd", "smooth-pgd", "fab")
def _(name: str) -> None:
    """A run for each of the n classes whose scores are nearest at the clean input, in that order."""
    _count("targets")(name)
    order = _linear(_x())[:, 1:].argsort(descending=True, dim=1) + 1
    assert len(torch.unique(order, dim=0)) > 1  # rows differ
    for targets in (2, 4):
        _, model = _ran(name, steps=3, targets=targets)
        assert len(model.gradients) == 3 * targets
        for number in range(targets):
            for step in range(3):
                assert _led_to(model.gradients[3 * number + step]) == order[:, number].tolist()


@says("diverse", "odi-pgd")
def _(name: str) -> None:
    """That many steps of eps along other directions than the margin's, of a mixture of the differences."""
    _count("diverse")(name)
    others = torch.stack([_difference(other) for other in range(1, CLASSES)])
    for diverse in (1, 3):
        _, model = _ran(name, steps=2, diverse=diverse)
        nearest = (_linear(_x())[:, 1:].argmax(1) + 1).tolist()
        for gradient in model.gradients[:diverse]:
            mixture = torch.linalg.lstsq(others.T, gradient.flatten(1).T).solution
            torch.testing.assert_close(others.T @ mixture, gradient.flatten(1).T)
            assert float(mixture.abs().max()) <= 1
            assert _led_to(gradient) == [-1] * ROWS
        assert _led_to(model.gradients[diverse]) == nearest
        moved = (model.points[1] - model.points[0]).abs()
        inside = (model.points[1] - _x()).abs() < EPS * (1 - 1e-9)
        assert float(moved.max()) <= EPS * (1 + 1e-9)
        torch.testing.assert_close(moved[inside], torch.full_like(moved[inside], EPS))


@says("loss", "apgd")
def _(name: str) -> None:
    """The direction of the first gradient is that of the loss, written out."""
    written: dict[str, Callable[[Tensor], Tensor]] = {
        "ce": lambda z: z[:, 1:].logsumexp(1) - z[:, 0],
        "margin": lambda z: z[:, 1:].amax(1) - z[:, 0],
        "dlr": lambda z: (z[:, 1:].amax(1) - z[:, 0]) / (z[:, 0] - z.sort(1).values[:, -3]),
    }

    def scores(u: Tensor) -> Tensor:
        return (u.flatten(1) @ WEIGHT.T).tanh() + 4 * torch.eye(CLASSES, dtype=u.dtype)[0]

    for own, audit in (("ce", None), ("margin", None), ("dlr", None), ("own", "margin"), ("own", None)):
        _, model = _ran(name, scores, steps=1, audited=audit, loss=own)
        point = model.points[0].clone().requires_grad_()
        wanted = written[audit or ("ce" if own == "own" else own)](scores(point)).sum()
        (gradient,) = torch.autograd.grad(wanted, point)
        torch.testing.assert_close(_direction(model.gradients[0]), _direction(gradient))


# Starts.


def _best() -> Tensor:
    """Points of attacks before: corners of half the ball."""
    return _x() + EPS / 2 * (rand(ROWS, *SHAPE, seed=7) - 0.5).sign()


@says("start", "smooth-pgd")
def _(name: str) -> None:
    first = {start: _ran(name, steps=2, start=start)[1].points[0] for start in ("clean", "uniform", "best")}
    assert torch.equal(first["clean"], _x())
    assert torch.equal(first["best"], _x())  # there is none
    far = (first["uniform"] - _x()).abs()
    assert 0.9 * EPS < float(far.max()) <= EPS
    assert float(far.mean()) == pytest.approx(EPS / 2, rel=0.2)
    for start, wanted in (("clean", _x()), ("best", _best())):
        given = {"jitter": 0} if start == "best" else {}
        torch.testing.assert_close(_ran(name, steps=2, start=start, begin=_best(), **given)[1].points[0], wanted)


@says("jitter", "smooth-pgd")
def _(name: str) -> None:
    for given, jitter in (({"jitter": 0.1}, 0.1), ({"jitter": 0.4}, 0.4), ({}, 0.3)):
        _, model = _ran(name, steps=2, start="best", begin=_best(), **given)
        far = (model.points[0] - _best()).abs()
        assert 0.9 * jitter * EPS < float(far.max()) <= jitter * EPS * (1 + 1e-9)
    for start in ("clean", "uniform"):
        with pytest.raises(InputError, match=r"jitter=0\.2 belongs to start=.best"):
            ss.recipe(_spec(name, start=start, jitter=0.2))


def _through_rectifiers(u: Tensor, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
    """A hidden layer whose gradient before the rectifier is kept next to its value; the weights behind it are 1."""
    before = (u.flatten(1) - 0.5) @ WEIGHT.T
    if u.requires_grad:
        before.register_hook(lambda gradient: seen.append((before.detach(), gradient)))  # type: ignore[no-untyped-call]
    hidden = before.relu().sum(1)
    return torch.stack([torch.full_like(hidden, 100.0), hidden], 1)


@says("soft", "smooth-pgd")
@says("sharp", "smooth-pgd")
def _(name: str) -> None:
    """The derivative of the rectifier is sigmoid(k z / s), k from soft to sharp geometrically."""
    for soft, sharp in ((2.0, 40.0), (0.5, 8.0), (3.0, 3.0)):
        seen: list[tuple[Tensor, Tensor]] = []
        _ran(name, partial(_through_rectifiers, seen=seen), steps=5, soft=soft, sharp=sharp)
        assert len(seen) == 5
        for step, (z, derivative) in enumerate(seen):
            k = soft * (sharp / soft) ** (step / 4)
            scale = z.abs().mean(1, keepdim=True)
            torch.testing.assert_close(derivative, 1 / (1 + (-k * z / scale).exp()), rtol=1e-6, atol=1e-9)


# The smallest change.


@says("candidates", "deepfool", "fab")
def _(name: str) -> None:
    """The nearest boundary among those of the nearest scores."""
    _count("candidates")(name)
    gaps, steep = torch.tensor([0.0, -1.0, -1.1, -1.2, -1.3]), torch.tensor([0.0, 1.0, 4.0, 2.0, 8.0])
    weight = steep[:, None] * torch.eye(CLASSES, SIZE)

    def scores(u: Tensor) -> Tensor:
        return gaps.to(u) + (u - 0.5).flatten(1) @ weight.to(u).T

    x = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    for candidates, wanted in ((1, 1), (2, 2), (3, 2), (4, 4)):
        outcome, _ = _ran(name, scores, x=x, threat=ss.l2(100.0, box=None), steps=4, candidates=candidates)
        assert outcome.answer.tolist() == [wanted]


def _plane(u: Tensor) -> Tensor:
    """Two classes and a plane at the distance 1 / 8 from the middle of the box; the margin there is 1."""
    score = 8 * (u.flatten(1) - 0.5).sum(1) / SIZE**0.5 - 1
    return torch.stack([torch.zeros_like(score), score], 1)


_REACH, _OPEN = 1 / 8, ss.l2(100.0, box=None)
_MIDDLE = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)


def _lengths(name: str, scores: Callable[[Tensor], Tensor] = _plane, **options: object) -> list[float]:
    """How far the points with gradients lie from the middle, in units of the distance of `_plane`."""
    _, model = _ran(name, scores, x=_MIDDLE, threat=_OPEN, **options)
    return [float((point - _MIDDLE).norm()) / _REACH for point in model.points]


@says("overshoot", "deepfool")
def _(name: str) -> None:
    for overshoot in (0.0, 0.02, 0.3):
        assert _lengths(name, steps=2, overshoot=overshoot)[:2] == pytest.approx([0, 1 + overshoot], abs=1e-9)


def _fab(bias: float, overshoot: float, backward: float, steps: int) -> list[float]:
    """FAB's points on the line to one plane, by hand."""
    t, found = 0.0, []
    for _ in range(steps):
        found.append(t)
        near = abs(1 - t)
        a = min(near / (near + 1), bias)
        t = (1 - a) * (t + overshoot * (1 - t)) + a * overshoot
        if t > 1:
            t *= backward
    return found


@says("bias", "fab")
@says("overshoot", "fab")
@says("backward", "fab")
def _(name: str) -> None:
    rules = [(0.1, 1.05, 0.9), (0.0, 1.05, 0.9), (0.4, 1.05, 0.5), (0.1, 1.3, 0.9), (0.1, 0.6, 0.9), (0.1, 1.05, 1.0)]
    for bias, overshoot, backward in rules:
        lengths = _lengths(name, steps=6, bias=bias, overshoot=overshoot, backward=backward)
        assert lengths == pytest.approx(_fab(bias, overshoot, backward, 6), abs=1e-6)
    assert len({str(_fab(*rule, 6)) for rule in rules}) == len(rules)


@says("init", "ddn")
@says("gamma", "ddn")
def _(name: str) -> None:
    """init (1 + gamma)^t while nothing fools, then times 1 - gamma after each point that did."""
    for init, gamma, width in ((0.01, 0.05, None), (0.04, 0.05, None), (0.01, 0.2, None), (0.01, 0.05, 1.0)):
        threat = _OPEN if width is None else ss.threat_model("l2", None, box=(0, width))
        _, model = _ran(name, _linear, x=_MIDDLE, threat=threat, steps=5, init=init, gamma=gamma)
        wanted = [0, *(init * (1 + gamma) ** number for number in range(1, 5))]
        assert [float((point - _MIDDLE).norm()) for point in model.points] == pytest.approx(wanted, rel=1e-6)
        assert _lengths(name, steps=4, init=2 * _REACH, gamma=gamma)[1:3] == pytest.approx(
            [2 * (1 + gamma), 2 * (1 + gamma) * (1 - gamma)], rel=1e-6
        )
    wide = ss.threat_model("l2", None, box=(-8, 8))
    _, model = _ran(name, _linear, x=_MIDDLE, threat=wide, steps=2, init=0.01, gamma=0.05)
    assert float((model.points[1] - _MIDDLE).norm()) == pytest.approx(16 * 0.01 * 1.05)


@says("gamma", "fmn")
def _(name: str) -> None:
    """From its first success on the ball shrinks by that share, which falls along a cosine."""
    for gamma in (0.005, 0.003):
        first, second, third = _lengths(name, steps=4, gamma=gamma)[1:]
        assert first > 1
        assert second / first == pytest.approx(1 - annealed(gamma, 1e-4, 1, 4))
        assert third / second == pytest.approx(1 - annealed(gamma, 1e-4, 2, 4))


@says("rate", "cw")
def _(name: str) -> None:
    """Adam's first step moves every coordinate by its rate, in units of w: here r / sqrt(D) of the input."""
    for rate in (0.01, 0.05):
        _, model = _ran(name, _plane, x=_MIDDLE, threat=_OPEN, searches=1, steps=3, rate=rate)
        moved = (model.points[1] - model.points[0]).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, rate * _REACH / SIZE**0.5))


@says("c", "cw")
def _(name: str) -> None:
    """The first c: on a linear model |d| = c r / 2 where that does not reach the boundary."""
    for c in (0.5, 1.6):
        assert _lengths(name, searches=1, steps=150, c=c)[-1] == pytest.approx(c / 2, rel=0.01)


@says("searches", "cw")
def _(name: str) -> None:
    """c = 0.1 and 1 are too small for a linear model, 10 is not."""
    _count("searches")(name)
    for searches, fooled in ((1, False), (2, False), (3, True)):
        outcome, _ = _ran(name, _plane, x=_MIDDLE, threat=_OPEN, searches=searches, steps=60, c=0.1)
        assert outcome.fooled.tolist() == [fooled]


@says("confidence", "cw")
def _(name: str) -> None:
    """On a linear model (1 + confidence) times the distance of the boundary, and there the margin that was asked."""
    for confidence in (0.0, 0.5, 1.0, 2.3):
        outcome, _ = _ran(name, _plane, x=_MIDDLE, threat=_OPEN, steps=80, searches=4, confidence=confidence)
        assert 1 + confidence <= float(outcome.distance[0]) / _REACH < (1 + confidence) * 1.01  # type: ignore[index]
        assert confidence * (1 - 1e-9) <= float(outcome.near[0])
        assert outcome.smallest is not None
        assert 1 <= float(outcome.smallest[0]) / _REACH <= 1 + min(0.5, confidence + 0.01)
        assert not outcome.notes


# Queries.


@says("samples", "nes", "spsa")
def _(name: str) -> None:
    for samples in (2, 6):
        _count("samples")(name)
        _, model = _ran(name, queries=2 * (samples + 1), samples=samples)
        assert [len(part) // ROWS for part in model.asked] == [1, samples, 1, samples, 1]
        v = (model.asked[1].reshape(samples, *_x().shape) - model.asked[0]).flatten(2)
        torch.testing.assert_close(v[0::2], -v[1::2])  # two for each direction
        assert len(torch.unique(v.flatten(1), dim=0)) == samples


@says("sigma", "nes", "spsa")
def _(name: str) -> None:
    for sigma in (1e-3, 4e-3):
        x = _x(20)
        _, model = _ran(name, x=x, queries=41, samples=40, sigma=sigma)
        v = model.asked[1].reshape(40, *x.shape) - model.asked[0]
        if name == "spsa":
            torch.testing.assert_close(v.abs(), torch.full_like(v, sigma))
        else:
            assert float(v.std()) == pytest.approx(sigma, rel=0.05)
            assert 2 < float(v.abs().max()) / sigma < 6


@says("samples", "hop-skip-jump")
def _(name: str) -> None:
    """Probes of the t-th estimate: samples * sqrt(t). A row asks one point at a time but for them."""
    for samples in (40, 60):
        _, model = _ran(name, _near, x=_x(1), samples=samples, queries=300)
        estimates: list[int] = []
        running = False
        for size in map(len, model.asked):
            if size > 1:
                estimates = [*estimates[:-1], estimates[-1] + size] if running else [*estimates, size]
            running = size > 1
        assert estimates[:2] == [samples, int(samples * math.sqrt(2))]


_PLANE = (2, 12, 12)


def _windows(name: str, queries: int, **options: object) -> list[tuple[int, int]]:
    """Height and width of what each query has repainted: nothing is kept where the model sees nothing."""
    _, model = _ran(name, _blind, x=_x(6, _PLANE), queries=queries, **options)
    found = []
    for point in model.asked[1:queries]:
        changed = (point != model.asked[0]).any(1)
        tall, broad = (max(_span(row.any(axis)) for row in changed) for axis in (1, 0))
        found.append((tall, broad))
    return found


def _span(line: Tensor) -> int:
    places = line.nonzero()
    return int(places.max() - places.min()) + 1 if len(places) else 0


@says("p", "square")
@says("schedule", "square")
def _(name: str) -> None:
    """No window is larger than its share says, and of several rows one is as large."""
    layout, queries = Layout.of(_PLANE), 60
    for p in (0.1, 0.5):
        for schedule in ("halving", "constant"):
            found = _windows(name, queries, p=p, schedule=schedule)
            for number, size in enumerate(found, 1):
                share = halving_share(number, queries, p) if schedule == "halving" else p
                side = layout.side(share)[0]
                assert max(size) <= side
                assert side - max(size) <= side // 3
            assert (found[0] == found[-1]) == (schedule == "constant") or schedule == "constant"
    assert halving_share(1, queries, 0.5) > 8 * halving_share(queries, queries, 0.5)


@says("patience", "square", "sparse-rs")
def _(name: str) -> None:
    """A margin that stands still is given up after that many queries, one that falls fast enough is not."""
    for patience, spent in ((0, 40), (10, 10), (25, 25)):
        outcome, _ = _ran(name, _blind, queries=40, patience=patience)
        assert outcome.forwards.tolist() == [spent + 1] * ROWS

    def falling(u: Tensor) -> Tensor:
        return _bent(u) - torch.tensor([99.0, 0.0], dtype=u.dtype)

    steady = torch.stack([_ran(name, falling, queries=40, patience=number)[0].forwards for number in (0, 5)])
    assert torch.equal(steady[0], steady[1]) or bool((steady[1] <= steady[0]).all())


@says("start", "square")
def _(name: str) -> None:
    stripes, best = (
        _ran(name, _blind, queries=2, start=start, begin=begin)[1].asked[0]
        for start, begin in (("stripes", _best()), ("best", _best()))
    )
    torch.testing.assert_close(best, _best())
    torch.testing.assert_close((stripes - _x()).abs(), torch.full_like(_x(), EPS))
    up = stripes > _x()
    assert torch.equal(up[:, :, :1].expand_as(up), up)  # each column goes one way
    assert torch.equal(_ran(name, _blind, queries=2, start="best")[1].asked[0], stripes)  # there is none


@says("starts", "explore")
@says("samples", "explore")
def _(name: str) -> None:
    """Points of the sample are asked about without gradients, and the best of them are where the climbs begin."""
    for samples, starts in ((8, 0), (8, 2), (20, 5)):
        given = {"samples": samples, "starts": starts, "steps": 2, "queries": 3}
        outcome, model = _ran(name, _bent, **given)
        assert (outcome.forwards.tolist(), outcome.backwards.tolist()) == tuple(
            [passes] * ROWS for passes in _passes(name, given)
        )
        sample = torch.stack(model.asked[:samples])
        assert len(model.points) == 2 * starts
        if starts:
            best = _bent(sample.flatten(0, 1))[:, 1].reshape(samples, ROWS).argmax(0)
            torch.testing.assert_close(model.points[0], sample[best, torch.arange(ROWS)])


@says("sparse", "apgd")
def _(name: str) -> None:
    """The first step goes along that share of the coordinates, those of the largest gradients, and is eps long."""
    threat = ss.l1(0.3)
    for share in (0.25, 0.5):
        _, model = _ran(name, _linear, steps=2, sparse=share, threat=threat, loss="margin")
        before, after = ((point - _x()).abs().flatten(1) for point in model.points[:2])
        # The start has spent eps, so that the projection shrinks all of it: only what was stepped along can have grown.
        grown = after > before + 1e-9
        assert bool((grown.sum(1) <= round(share * SIZE)).all())
        assert bool((grown.sum(1) >= round(share * SIZE) // 2).all())
    with pytest.raises(ThreatError, match=r"norm linf: sparse steps of apgd are defined for l1; .*leave sparse at 0"):
        _ran(name, _linear, steps=2, sparse=0.2)


@says("start", "sparse-rs")
def _(name: str) -> None:
    random, best = (
        _ran(name, _blind, queries=2, start=start, begin=begin)[1].asked[0]
        for start, begin in (("random", _best()), ("best", _best()))
    )
    torch.testing.assert_close(best, _best())
    assert (random != _x()).flatten(1).sum(1).tolist() == [CHANGES] * ROWS
    assert set(random[random != _x()].tolist()) == {0.0, 1.0}
    assert torch.equal(_ran(name, _blind, queries=2, start="best")[1].asked[0], random)  # there is none


@says("restarts", "sparse-rs")
def _(name: str) -> None:
    """Other sets to start from, for the rows that stand; the best of all counts."""
    _count("restarts")(name)
    _, model = _ran(name, _blind, queries=5, restarts=3)
    first, second = model.asked[0] != _x(), model.asked[6] != _x()  # five queries and the verdict lie between
    assert not torch.equal(first, second)


@says("alpha", "sparse-rs")
def _(name: str) -> None:
    """That share of the changes moves in the first proposals: as many leave as come, and at least one."""
    for alpha, moved in ((1.0, 3), (0.7, 2), (0.01, 1)):  # the second query of so many takes half of it
        _, model = _ran(name, _blind, queries=300, alpha=alpha)
        before, after = (asked != _x() for asked in model.asked[:2])
        came, left = ((here & ~there).flatten(1).sum(1) for here, there in ((after, before), (before, after)))
        assert torch.equal(came, left)
        assert int(came.max()) == moved  # fewer where one that left came again


# Counts of changes by gradients: steps well inside the box, so that no end stops them.


def _counted(number: int, **options: object) -> Tensor:
    """The displacements (R, ...) at the look of this number, the clean input being number 0."""
    _, model = _ran("sigma-zero", _linear, steps=3, **options)
    return model.points[number] - _x()


@says("step", "sigma-zero")
def _(name: str) -> None:  # noqa: ARG001
    """The first step of Adam is as long in every coordinate, and that long."""
    for step in (0.05, 0.2):
        moved = _counted(1, step=step, threshold=0.0)
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, step), rtol=1e-5, atol=0)


@says("threshold", "sigma-zero")
def _(name: str) -> None:  # noqa: ARG001
    for threshold, share in ((0.04, 1.0), (0.06, 0.0)):
        assert float((_counted(1, step=0.05, threshold=threshold) != 0).double().mean()) == share


@says("adapt", "sigma-zero")
def _(name: str) -> None:  # noqa: ARG001
    """While nothing fools, the threshold falls by this share of the step."""
    for adapt, share in ((0.0, 0.0), (0.9, 1.0)):
        assert float((_counted(2, step=0.05, threshold=0.06, adapt=adapt) != 0).double().mean()) == share


@says("sigma", "sigma-zero")
def _(name: str) -> None:  # noqa: ARG001
    """A change of its square root is pulled back hardest; of a far smaller sigma nothing is felt."""
    felt, unfelt = (_counted(2, step=0.05, threshold=0.0, sigma=sigma).abs().mean() for sigma in (1e-3, 1e-12))
    assert felt < 0.05 < unfelt


# What is no value for an option.


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_what_is_no_value_is_refused_by_name(name: str, option: str) -> None:
    default = _defaults(name)[option]
    values = (
        ["", "nonsense"] if isinstance(default, str) else ["nan", "inf", "-inf", "-1", "1e999", "", "1" + "0" * 400]
    )
    if isinstance(default, int):
        values.pop()  # a whole number may be as large as anyone can wait for
    with_it = {"start": "best"} if option == "jitter" else {"start": "uniform"} if option == "restarts" else {}
    extra = {key: value for key, value in with_it.items() if key in _defaults(name) and name == "smooth-pgd"}
    for value in values:
        with pytest.raises(InputError, match=rf"(?s)\b{option}\b.{{0,450}}$") as raised:
            _ran(name, **{**extra, option: value})
        assert "\n" not in str(raised.value)
