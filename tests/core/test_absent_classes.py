"""A logit of minus infinity is a class that is not there: a mask over classes, or over the actions of a policy.

Over the table of recipes: a network with such classes is judged as one that gives them -1e4, and as one that never had
them. Masks differ from row to row; a mask is read from the first features, which no attack may change.
"""

from typing import Any

import pytest
import torch
from small_nets import fits, mlp, rand, short
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import signstep as ss
from signstep.attacks.recipes import canonical
from signstep.engine import losses
from signstep.errors import LabelError
from written_down import written_down

CLASSES, ROWS, SHAPE = 6, 24, (2, 3, 3)
FREE = torch.ones(SHAPE, dtype=torch.bool)
FREE[0, 0] = False
SIZES = {"linf": 0.12, "l2": 0.4, "l0": 3.0}
FIXED = torch.tensor([True, False, True, True, True, False])
NAMED = ("apgd-t:steps=4", "apgd-dlr:steps=4", "fab:steps=3,targets=9", "pgd:steps=3,restarts=2")


class Masked(nn.Module):
    """A network without some classes: the same ones for all rows, or those that the row's first features name."""

    def __init__(self, fill: float, *, by_row: bool) -> None:
        super().__init__()
        self.net, self.fill, self.by_row = mlp(classes=CLASSES), fill, by_row

    def there(self, x: Tensor) -> Tensor:
        if not self.by_row:
            return FIXED.expand(len(x), -1)
        order = (x.detach().flatten(1)[:, :1] * torch.tensor([[7.0, 11, 13, 17, 19, 23]])).frac().argsort(1).argsort(1)
        count = (x.detach().flatten(1)[:, 1:2] * 97).long() % CLASSES + 1
        return order < count

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x).masked_fill(~self.there(x), self.fill)
        return out


class Lacking(nn.Module):
    """The same network with the classes of `FIXED` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(classes=CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)[:, FIXED]
        return out


X = rand(ROWS, *SHAPE, seed=1)


def _labels(model: nn.Module) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model(X).argmax(1)
    return answer


def _norm(name: str) -> str:
    return next(norm for norm in SIZES if fits(ss.RECIPES[canonical(name).partition(":")[0]], norm))


def _size(name: str) -> float:
    return written_down(SIZES, _norm(name), "the size of a change in the norm")


def _threat(name: str) -> ss.ThreatModel:
    return ss.threat_model(_norm(name), _size(name), mask=FREE)


RECIPES = [*(short(row, 3) for row in ss.RECIPES.values()), *NAMED]


def _same(one: ss.Outcome, other: ss.Outcome) -> None:
    assert torch.equal(one.fooled, other.fooled)
    assert torch.equal(one.undetermined, other.undetermined)
    assert not bool(one.loss.isnan().any())


def _followed(recipe: str) -> bool:
    """Whether the loss that is asked for can make a difference."""
    row = ss.RECIPES[canonical(recipe).partition(":")[0]]
    return row.name in ("fgsm", "pgd", "apgd", "ddn")


@pytest.mark.parametrize(
    ("recipe", "loss"),
    [
        (recipe, loss)
        for recipe in RECIPES
        for loss in ("ce", "margin", "dlr", "plain-ce")
        if loss == "ce" or _followed(recipe)
    ],
)
def test_absent_is_as_far_below_all_others(recipe: str, loss: str) -> None:
    absent, far = (Masked(fill, by_row=False) for fill in (-torch.inf, -1e4))
    y, threat = _labels(absent), _threat(recipe)
    one = ss.attack(absent, X, y, threat=threat, recipe=recipe, search=ss.Search(loss=loss))
    other = ss.attack(far, X, y, threat=threat, recipe=recipe, search=ss.Search(loss=loss))
    _same(one, other)
    lacking = ss.attack(Lacking(), X, FIXED.cumsum(0)[y] - 1, threat=threat, recipe=recipe, search=ss.Search(loss=loss))
    assert torch.equal(one.undetermined, lacking.undetermined)
    # ODI spreads over the classes in their order, and starts elsewhere.
    if "odi" not in recipe:
        assert torch.equal(one.fooled, lacking.fooled)


@pytest.mark.parametrize("recipe", RECIPES)
def test_masks_of_rows(recipe: str) -> None:
    absent, far = (Masked(fill, by_row=True) for fill in (-torch.inf, -1e4))
    y, threat = _labels(absent), _threat(recipe)
    count = absent.there(X).sum(1)
    assert {1, 2, 3, 4} <= set(count.tolist())
    one = ss.attack(absent, X, y, threat=threat, recipe=recipe)
    _same(one, ss.attack(far, X, y, threat=threat, recipe=recipe))
    assert not bool(one.undetermined.any())
    assert not bool(one.fooled[count == 1].any())
    if "random" not in recipe and "cw" not in recipe:  # too few steps for cw
        assert bool(one.fooled.any())
    torch.testing.assert_close(
        one.loss, cross_entropy(absent(one.x), y, reduction="none").detach(), rtol=1e-12, atol=1e-12
    )
    for rows in ([0], [5, 3], [9, 8, 7]):
        part = ss.attack(absent, X[rows], y[rows], threat=threat, recipe=recipe)
        for field in ("fooled", "undetermined", "forwards", "backwards"):
            assert torch.equal(getattr(part, field), getattr(one, field)[rows]), field


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=4", "apgd-dlr:steps=4", "square:queries=60", "ddn:steps=6"])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
@pytest.mark.parametrize("target", ["next", "least-likely", "random"])
def test_towards_a_target(recipe: str, loss: str, target: Any) -> None:
    absent, lacking = Masked(-torch.inf, by_row=False), Lacking()
    y, threat = _labels(absent), ss.threat_model(_norm(recipe), 2 * _size(recipe), mask=FREE)
    one = ss.attack(absent, X, y, threat=threat, recipe=recipe, target=target, search=ss.Search(loss=loss))
    other = ss.attack(
        lacking, X, FIXED.cumsum(0)[y] - 1, threat=threat, recipe=recipe, target=target, search=ss.Search(loss=loss)
    )
    _same(one, other)


def test_a_target_is_a_class_that_is_there() -> None:
    model = Masked(-torch.inf, by_row=True)
    y, there = _labels(model), model.there(X)
    several = there.sum(1) > 1
    x, y, there = X[several], y[several], there[several]
    for rule in ("next", "random", "least-likely"):
        seen = []

        def watch(u: Tensor) -> Tensor:
            out: Tensor = model(u)
            seen.append(out.detach())  # noqa: B023
            return out

        outcome = ss.attack(watch, x, y, threat=ss.linf(0.45), target=rule, recipe="pgd:steps=20")
        reached = outcome.answer[outcome.fooled]
        assert len(reached) > 5
        assert bool(there[outcome.fooled].gather(1, reached.unsqueeze(1)).all())
        if rule == "least-likely":
            z = model(x).detach()
            least = torch.where(z == -torch.inf, torch.inf, z).scatter(1, y.unsqueeze(1), torch.inf).argmin(1)
            assert torch.equal(reached, least[outcome.fooled])
    with pytest.raises(LabelError, match=r"'next' needs another class than y, and \d+ of 24 rows have none"):
        ss.attack(model, X, _labels(model), threat=ss.linf(0.1), target="next")


def test_a_target_that_is_absent_is_refused_in_one_sentence() -> None:
    model = Masked(-torch.inf, by_row=False)
    y = _labels(model)
    with pytest.raises(LabelError, match=r"^target is a class .* -inf in 24 of 24 cases.*pass other targets"):
        ss.attack(model, X, y, threat=ss.linf(0.1), target=torch.ones_like(y))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_label_that_is_absent_is_wrong_to_begin_with(recipe: str) -> None:
    model = Masked(-torch.inf, by_row=False)
    y = _labels(model)
    y[::2] = 1  # not there
    outcome = ss.attack(model, X, y, threat=_threat(recipe), recipe=recipe)
    assert bool(outcome.fooled[::2].all())
    assert not bool(outcome.undetermined.any())
    assert bool((outcome.loss[::2] == torch.inf).all())
    assert bool(torch.isfinite(outcome.loss[1::2]).all())


@pytest.mark.parametrize("loss", ["log_odds", "plain_ce", "margin", "dlr", "dlr_targeted", "margins", "total"])
@pytest.mark.parametrize("case", ["all there", "some", "two", "its own alone", "its own absent"])
def test_values_and_gradients(loss: str, case: str) -> None:
    logits = torch.tensor([[0.3, 1.0, -2.0, 0.7, 0.1]], dtype=torch.float64)
    there = {
        "all there": [0, 1, 2, 3, 4],
        "some": [0, 1, 3, 4],
        "two": [1, 3],
        "its own alone": [1],
        "its own absent": [0, 2, 3, 4],
    }[case]
    y, aim = torch.tensor([1]), torch.tensor([there[-1]])
    leaf = logits.clone().requires_grad_()
    z = leaf.masked_fill(torch.tensor([[k not in there for k in range(5)]]), -torch.inf)
    rest = [k for k in there if k != 1]
    best = max((float(logits[0, k]) for k in rest), default=-torch.inf)
    own = float(logits[0, 1]) if 1 in there else -torch.inf
    top = sorted((float(logits[0, k]) for k in there), reverse=True)
    sum_ = float(logits[0, rest].logsumexp(0)) if rest else -torch.inf
    towards = float(logits[0, there[-1]]) - own if there[-1] != 1 else -torch.inf
    spread3 = top[0] - top[2] if len(top) > 2 and own > -torch.inf else 1.0
    spread4 = top[0] - (top[2] + top[3]) / 2 if len(top) > 3 and own > -torch.inf else 1.0
    value, wanted = {
        "log_odds": lambda: (losses.log_odds(z, y), sum_ - own),
        "plain_ce": lambda: (losses.plain_ce(z, y), float(cross_entropy(z.detach(), y))),
        "margin": lambda: (losses.margin(z, y), best - own),
        "dlr": lambda: (losses.dlr(z, y), (best - own) / spread3),
        "dlr_targeted": lambda: (losses.dlr_targeted(z, y, aim), towards / spread4),
        "margins": lambda: (losses.margins(z, y)[:, aim[0]], -towards),
        "total": lambda: (losses.total(z), float(logits[0, there].logsumexp(0))),
    }[loss]()
    assert float(value.detach()) == pytest.approx(wanted, rel=1e-9)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert bool(torch.isfinite(gradient).all())
    assert not bool(gradient[0, [k for k in range(5) if k not in there]].any())


@pytest.mark.parametrize("fill", [torch.nan, torch.inf])
def test_an_overflow_is_no_answer(fill: float) -> None:
    model, far = Masked(fill, by_row=False), Masked(-1e4, by_row=False)
    outcome = ss.attack(model, X, _labels(far), threat=ss.linf(0.1), recipe="pgd:steps=2")
    assert not bool(outcome.fooled.any())
    assert bool(outcome.undetermined.all())


def test_a_row_without_any_class_is_undetermined() -> None:
    net = mlp(classes=CLASSES)

    def model(u: Tensor) -> Tensor:
        gone = torch.arange(ROWS) % 2 == 0
        z: Tensor = net(u)
        return z.masked_fill(gone[: len(u), None] if len(u) == ROWS else gone[:1, None], -torch.inf)

    outcome = ss.attack(model, X, labels_of(net), threat=ss.linf(0.1), recipe="fgsm")
    assert bool(outcome.undetermined[::2].all())
    assert not bool(outcome.undetermined[1::2].any())


def labels_of(net: nn.Module) -> Tensor:
    with torch.no_grad():
        answer: Tensor = net(X).argmax(1)
    return answer


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=4", "ddn:steps=4", "square:queries=60"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_segmentation(recipe: str, loss: str) -> None:
    net = mlp(classes=CLASSES * 4)

    def model(fill: float) -> Any:
        def forward(u: Tensor) -> Tensor:
            z: Tensor = net(u).reshape(len(u), CLASSES, 4)
            gone = torch.zeros(CLASSES, 4, dtype=torch.bool)
            gone[1, :2] = gone[4] = True
            return z.masked_fill(gone, fill)

        return forward

    y = model(-1e4)(X).argmax(1)
    threat = ss.threat_model(_norm(recipe), _size(recipe))
    one, other = (
        ss.attack(
            ss.Model(model(fill), task=ss.Segmentation(share=0.5)),
            X,
            y,
            threat=threat,
            recipe=recipe,
            search=ss.Search(loss=loss),
        )
        for fill in (-torch.inf, -1e4)
    )
    _same(one, other)
    assert bool(torch.isfinite(one.loss).all())
    target = torch.where(y == 0, 2, 0).index_fill(1, torch.tensor([1]), 1)
    with pytest.raises(LabelError, match="-inf in 24 of 96 cases"):
        ss.attack(ss.Model(model(-torch.inf), task="segmentation"), X, y, threat=threat, recipe="fgsm", target=target)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_a_position_with_a_single_class_pulls_no_more_than_one_that_is_left_out(loss: str) -> None:
    net = mlp(classes=CLASSES * 4)

    def model(u: Tensor) -> Tensor:
        z: Tensor = net(u).reshape(len(u), CLASSES, 4)
        return z.masked_fill((torch.arange(CLASSES)[:, None] > 0) & (torch.arange(4) == 3), -torch.inf)

    y = model(X).argmax(1)
    left_out = y.index_fill(1, torch.tensor([3]), 255)
    single, ignored = (
        ss.attack(
            ss.Model(model, task=ss.Segmentation(share=0.5, ignore=255)),
            X,
            labels,
            threat=ss.linf(0.1),
            search=ss.Search(loss=loss),
        )
        for labels in (y, left_out)
    )
    assert isinstance(single.x, Tensor)
    assert isinstance(ignored.x, Tensor)
    assert torch.equal(single.x, ignored.x)
    assert bool(torch.isfinite(single.loss).all())


@pytest.mark.parametrize("success", ["any", "all", 0])
def test_labels_that_are_surely_off_or_on(success: Any) -> None:
    """Of several labels each may be infinitely sure; the others are attacked as without it."""
    net = mlp(classes=3)
    task = ss.Multilabel(success=success)

    def model(size: float) -> Any:
        return lambda u: torch.cat([net(u), net(u)[:, :1] * 0 - size, net(u)[:, :1] * 0 + size], 1)

    def sure(u: Tensor) -> Tensor:
        z = net(u)
        return torch.cat([z, torch.full_like(z[:, :1], -torch.inf), torch.full_like(z[:, :1], torch.inf)], 1)

    y = (model(1e4)(X) > 0).long()
    one = ss.attack(ss.Model(sure, task=task), X, y, threat=ss.linf(0.1), recipe="pgd:steps=3")
    other = ss.attack(ss.Model(model(1e4), task=task), X, y, threat=ss.linf(0.1), recipe="pgd:steps=3")
    assert torch.equal(one.fooled, other.fooled)
    assert not bool(one.loss.isnan().any())
    if success != "all":
        assert torch.equal(one.undetermined, other.undetermined)


@pytest.mark.parametrize("fill", [-torch.inf, torch.inf])
def test_one_logit_that_is_sure(fill: float) -> None:
    """An infinite logit of a one-logit model leaves one class, and is no overflow."""
    net = mlp(classes=1)

    def model(u: Tensor) -> Tensor:
        z: Tensor = net(u)
        return z.masked_fill(u.detach().flatten(1)[:, :1] > 0.5, fill)

    y = (model(X) > 0).long().flatten()
    outcome = ss.attack(model, X, y, threat=ss.linf(0.1, mask=FREE), recipe="pgd:steps=3")
    plain = ss.attack(net, X, (net(X) > 0).long().flatten(), threat=ss.linf(0.1, mask=FREE), recipe="pgd:steps=3")
    sure = X.flatten(1)[:, 0] > 0.5
    assert torch.equal(outcome.fooled, plain.fooled & ~sure)
    assert not bool(outcome.undetermined.any())


def test_a_random_model_with_absent_classes_is_seen_to_be_random() -> None:
    generator = torch.Generator().manual_seed(0)
    net = mlp(classes=CLASSES)

    def model(u: Tensor) -> Tensor:
        noise = torch.randn(len(u), CLASSES, generator=generator, dtype=torch.float64)
        z: Tensor = net(u) + noise
        return z.index_fill(1, torch.tensor([1]), -torch.inf)

    outcome = ss.attack(model, X, labels_of(net), threat=ss.linf(0.1))
    assert any("random numbers of its own" in note for note in outcome.notes)


def test_a_ladder_and_its_margins() -> None:
    absent, far = (Masked(fill, by_row=True) for fill in (-torch.inf, -1e4))
    y = _labels(absent)
    one, other = (
        ss.audit(
            model,
            (X.float(), y),
            threat=ss.linf(0.1, mask=FREE),
            ladder=["pgd:steps=5", "apgd:loss=margin,steps=5,targets=2 near<=0.2"],
        )
        for model in (absent.float(), far.float())
    )
    assert one.per_example.verdicts == other.per_example.verdicts
    assert one.per_example.answers == other.per_example.answers
    assert 0 < one.held < ROWS
    assert one.undetermined == 0


@pytest.mark.parametrize("engine", ["fast", "float32"])
def test_a_twin_is_made_of_a_model_with_absent_classes(engine: Any) -> None:
    model = Masked(-torch.inf, by_row=False).float()
    outcome = ss.attack(model, X.float(), _labels(Masked(-1e4, by_row=False)), threat=ss.linf(0.1), engine=engine)
    exact = ss.attack(model, X.float(), _labels(Masked(-1e4, by_row=False)), threat=ss.linf(0.1))
    assert torch.equal(outcome.fooled, exact.fooled)
    assert not any("would not have agreed" in note for note in outcome.notes)


def test_trades_trains_with_absent_and_with_saturated_classes() -> None:
    for scale, fill in ((1.0, -torch.inf), (1e3, 0.0)):
        net = mlp(classes=CLASSES, dtype=torch.float32, scale=scale)

        class Net(nn.Module):
            def __init__(self, net: nn.Module, fill: float) -> None:
                super().__init__()
                self.net, self.fill = net, fill

            def forward(self, u: Tensor) -> Tensor:
                z: Tensor = self.net(u)
                return z if self.fill == 0 else z.masked_fill(~FIXED, self.fill)

        model = Net(net, fill)
        y = _labels(Masked(-1e4, by_row=False))
        loss = ss.adversarial_loss(model, X.float(), y, threat=ss.linf(0.1), recipe="trades")
        assert bool(torch.isfinite(loss))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        assert scale > 1 or bool(gradients[0].any())
