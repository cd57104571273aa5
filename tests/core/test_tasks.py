"""Tasks: what outputs and labels mean, in every shape that models and users have."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_nets import Normalised, filled, fits, labels, mlp, rand, short
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import signstep as ss
from signstep.attacks.recipes import RECIPES
from signstep.errors import InputError, LabelError, ModelError
from signstep.model.predictor import select

X = rand(12, 2, 3, 3, seed=1)
THREAT = ss.linf(0.08)


def _tensor(x: object) -> Tensor:
    assert isinstance(x, Tensor)
    return x


class Twin(nn.Module):
    """The two-logit model (0, z) of a one-logit model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        z = self.model(x).reshape(len(x))
        return torch.stack([torch.zeros_like(z), z], 1)


class Squeezed(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x).squeeze(1)
        return out


@pytest.mark.pairwise
@pytest.mark.parametrize("name", [row.name for row in RECIPES.values() if fits(row, "linf")])
@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("targeted", [False, True])
def test_a_one_logit_model_equals_its_two_logit_twin(name: str, squeezed: bool, loss: str, targeted: bool) -> None:
    one = mlp(classes=1)
    model = Squeezed(one) if squeezed else one
    y = labels(Twin(one), X)
    assert 0 < int(y.sum()) < 12
    target = 1 - y if targeted else None
    name = short(RECIPES[name], 10)
    single = ss.attack(model, X, y, threat=THREAT, recipe=name, target=target, search=ss.Search(loss=loss))
    double = ss.attack(Twin(one), X, y, threat=THREAT, recipe=name, target=target, search=ss.Search(loss=loss))
    assert torch.equal(_tensor(single.x), _tensor(double.x))
    assert torch.equal(single.fooled, double.fooled)
    assert torch.equal(single.loss, double.loss)
    named = ss.attack(
        ss.Model(model, task="binary"),
        X,
        y.reshape(12, 1),
        threat=THREAT,
        recipe=name,
        target=target,
        search=ss.Search(loss=loss),
    )
    assert torch.equal(_tensor(named.x), _tensor(single.x))


@pytest.mark.parametrize("form", [torch.Tensor.float, torch.Tensor.double, torch.Tensor.bool, torch.Tensor.int])
def test_binary_labels_in_any_number_format(form: Callable[[Tensor], Tensor]) -> None:
    model = mlp(classes=1)
    y = labels(Twin(model), X)
    assert torch.equal(ss.fgsm(model, X, form(y), eps=0.1), ss.fgsm(model, X, y, eps=0.1))


def test_labels_as_lists_and_arrays() -> None:
    model = mlp()
    y = labels(model, X)
    wanted = ss.fgsm(model, X, y, eps=0.1)
    for form in (y.tolist(), y.numpy(), y.int(), y.double(), y.to(torch.uint8), y.reshape(12, 1)):
        assert torch.equal(ss.fgsm(model, X, form, eps=0.1), wanted)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.arange(12) % 4 + 1, r"1-based\? Pass y - 1"),
        (torch.full((12,), 0.5), "fractions such as 0.5.*Regression|fractions such as 0.5.*regression"),
        (torch.full((12,), float("nan")), "fractions such as nan"),
        (torch.eye(4)[torch.arange(12) % 4], r"one-hot\? Pass y.argmax\(1\)"),
        (torch.full((12,), 4), "0 to 3"),
        (torch.full((12,), 40), "from 40 to 40.*4 classes"),
        (torch.full((12,), -1), "-1"),
        (torch.zeros(11, dtype=torch.int64), r"\(11,\) for 12 examples"),
        (torch.zeros(12, 2), r"\(12, 2\)"),
        (torch.tensor(0), r"\(\) for 12 examples"),
        (["cat"] * 12, "cannot be made a tensor"),
    ],
)
@pytest.mark.parametrize("argument", ["y", "target"])
def test_labels_that_do_not_fit(y: Any, message: str, argument: str) -> None:
    message = message.replace("Pass y", f"Pass {argument}")
    with pytest.raises(LabelError, match=message) as caught:
        ss.attack(mlp(), X, threat=THREAT, **{argument: y})
    assert str(caught.value).startswith(argument)


@pytest.mark.parametrize("classes", [1, 2])
def test_plus_minus_one_labels_say_what_to_pass(classes: int) -> None:
    y = torch.tensor([-1, 1]).repeat(6)
    for form in (y, y.double()):
        with pytest.raises(LabelError, match=r"\(y \+ 1\) / 2|\(y \+ 1\) // 2"):
            ss.attack(mlp(classes=classes), X, form, threat=THREAT)


def test_labels_of_two_for_a_one_logit_model() -> None:
    with pytest.raises(LabelError, match="1-based"):
        ss.attack(mlp(classes=1), X, torch.tensor([1, 2]).repeat(6), threat=THREAT)


def test_targets_and_labels_must_differ() -> None:
    model = mlp()
    y = labels(model, X)
    target = (y + 1) % 4
    target[3] = y[3]
    with pytest.raises(LabelError, match="1 of 12"):
        ss.attack(model, X, y, target=target, threat=THREAT)
    with pytest.raises(InputError, match="'random', 'least-likely' or 'next'"):
        ss.attack(model, X, y, target="worst", threat=THREAT)  # type: ignore[arg-type]


def test_a_target_needs_no_labels() -> None:
    model = mlp()
    y = labels(model, X)
    target = (y + 1) % 4
    assert torch.equal(ss.fgsm(model, X, target=target, eps=0.1), ss.fgsm(model, X, y, target=target, eps=0.1))
    assert torch.equal(ss.fgsm(model, X, target="next", eps=0.1), ss.fgsm(model, X, target=target, eps=0.1))


def test_predicted_labels_do_not_leak() -> None:
    """Without y the attack leads away from the model's own answer, whatever the truth is."""
    model = mlp()
    predicted = labels(model, X)
    assert torch.equal(ss.fgsm(model, X, eps=0.1), ss.fgsm(model, X, predicted, eps=0.1))
    outcome = ss.attack(model, X, threat=THREAT)
    assert torch.equal(outcome.fooled, labels(model, _tensor(outcome.x)) != predicted)
    assert any("prediction" in note for note in outcome.notes)


def _several() -> nn.Module:
    """Three labels, each on for about half of the inputs."""
    inner = filled(nn.Sequential(nn.Flatten(), nn.Linear(18, 3, bias=False)))
    return Normalised(inner, torch.tensor([0.5, 0.5]), torch.tensor([1.0, 1.0]))


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("success", ["any", "all", 0, 2])
def test_multilabel(loss: str, success: Any) -> None:
    model = _several()
    with torch.no_grad():
        y = (model(X) > 0).long()
    with pytest.warns(ss.SignstepWarning, match="half"):
        threat = ss.linf(0.6)
    outcome = ss.attack(
        ss.Model(model, task=ss.Multilabel(success)),
        X,
        y,
        threat=threat,
        recipe="pgd:steps=20",
        search=ss.Search(loss=loss),
    )
    with torch.no_grad():
        z = model(_tensor(outcome.x))
    flipped = (z > 0) != y.bool()
    wanted = {"any": flipped.any(1), "all": flipped.all(1)}.get(success)
    assert torch.equal(outcome.fooled, flipped[:, success] if wanted is None else wanted)
    assert bool(outcome.fooled.any())
    if loss == "ce":
        target = y.double() if success != "all" else 1 - y.double()
        losses = binary_cross_entropy_with_logits(z, target, reduction="none")
        value = losses[:, success] if isinstance(success, int) else losses.sum(1)
        torch.testing.assert_close(outcome.loss, -value if success == "all" else value)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_multilabel_targets(loss: str) -> None:
    model = _several()
    with torch.no_grad():
        y = model(X) > 0
    target = y.clone()
    target[:, 1] = ~target[:, 1]
    with pytest.warns(ss.SignstepWarning, match="half"):
        threat = ss.linf(0.6)
    outcome = ss.attack(
        ss.Model(model, task="multilabel"),
        X,
        y,
        target=target,
        threat=threat,
        recipe="pgd:steps=30",
        search=ss.Search(loss=loss),
    )
    with torch.no_grad():
        reached = ((model(_tensor(outcome.x)) > 0) == target).all(1)
    assert torch.equal(outcome.fooled, reached)
    assert bool(reached.any())


def test_multilabel_mistakes() -> None:
    model = mlp(classes=3)
    with pytest.raises(LabelError, match="multilabel"):
        ss.attack(ss.Model(model, task="multilabel"), X, torch.zeros(12, dtype=torch.int64), threat=THREAT)
    with pytest.raises(LabelError, match="0 and 1"):
        ss.attack(ss.Model(model, task="multilabel"), X, torch.full((12, 3), 2), threat=THREAT)
    with pytest.raises(InputError, match="labels 0 to 2"):
        ss.attack(ss.Model(model, task=ss.Multilabel(3)), X, torch.zeros(12, 3), threat=THREAT)
    with pytest.raises(InputError, match="'any', 'all'"):
        ss.Multilabel("some")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="classification"):
        ss.attack(ss.Model(model, task="multilabel"), X, torch.zeros(12, 3), threat=THREAT, target="random")


def _segmenter() -> nn.Module:
    return filled(nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1)))


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_segmentation(loss: str, share: float) -> None:
    model = _segmenter()
    y = labels(model, X)
    assert y.shape == (12, 3, 3)
    outcome = ss.attack(
        ss.Model(model, task=ss.Segmentation(share)),
        X,
        y,
        threat=ss.linf(0.3),
        recipe="pgd:steps=15",
        search=ss.Search(loss=loss),
    )
    wrong = (labels(model, _tensor(outcome.x)) != y).flatten(1).double().mean(1)
    assert torch.equal(outcome.fooled, wrong >= share)
    assert float(wrong.max()) > 0
    if share == 0.1:
        assert bool(outcome.fooled.any())


def test_segmentation_leaves_out_what_is_to_be_ignored() -> None:
    model = _segmenter()
    y = labels(model, X)
    y[:, :2] = 255
    with pytest.raises(LabelError):
        ss.attack(ss.Model(model, task="segmentation"), X, y, threat=THREAT)
    outcome = ss.attack(ss.Model(model, task=ss.Segmentation(0.3, ignore=255)), X, y, threat=ss.linf(0.2), recipe="pgd")
    counted = (labels(model, _tensor(outcome.x)) != y)[:, 2].double().mean(1)
    assert torch.equal(outcome.fooled, counted >= 0.3)
    assert bool(outcome.fooled.any())


def test_segmentation_targets_and_mistakes() -> None:
    model = _segmenter()
    y = labels(model, X)
    with pytest.warns(ss.SignstepWarning, match="half"):
        threat = ss.linf(0.9)
    target = torch.full_like(y, 2)
    task = ss.Segmentation(0.3)
    outcome = ss.attack(ss.Model(model, task=task), X, target=target, threat=threat, recipe="pgd:steps=30")
    hit = (labels(model, _tensor(outcome.x)) == 2).flatten(1).double().mean(1)
    assert torch.equal(outcome.fooled, hit >= 0.3)
    before = (y == 2).flatten(1).double().mean(1)
    assert bool((outcome.fooled & (before < 0.3)).any())
    with pytest.raises(ModelError, match="segmentation"):
        ss.attack(model, X, y, threat=THREAT)
    with pytest.raises(LabelError, match="positions"):
        ss.attack(ss.Model(model, task="segmentation"), X, y[:, :2], threat=THREAT)
    for share in (0.0, 1.5, -1.0):
        with pytest.raises(InputError, match="share"):
            ss.Segmentation(share)


def test_regression_on_a_series() -> None:
    """Mean squared error on (N, T, F): failure is an error beyond the tolerance at any entry."""
    model = filled(nn.Linear(3, 3))
    x = rand(10, 5, 3, seed=2)
    with torch.no_grad():
        y = model(x) + 0.01
    outcome = ss.attack(ss.Model(model, task=ss.Regression(0.2)), x, y, threat=ss.linf(0.2), recipe="pgd:steps=10")
    with torch.no_grad():
        error = model(_tensor(outcome.x)) - y
    assert torch.equal(outcome.fooled, (error.abs() > 0.2).flatten(1).any(1))
    assert bool(outcome.fooled.any())
    torch.testing.assert_close(outcome.loss, error.square().flatten(1).mean(1))
    clean = ss.attack(ss.Model(model, task=ss.Regression(0.2)), x, y, threat=ss.linf(0.0))
    assert bool((outcome.loss > clean.loss).all())


def test_regression_targets_and_mistakes() -> None:
    model = filled(nn.Linear(4, 1))
    x = rand(10, 4, seed=3)
    with torch.no_grad():
        y = model(x)
    reach = 0.2 * model.weight.abs().sum().item()
    outcome = ss.attack(
        ss.Model(model, task=ss.Regression(0.05)),
        x,
        target=y[:, 0] + reach / 2,
        threat=ss.linf(0.2, box=None),
        recipe="pgd",
    )
    with torch.no_grad():
        error = (model(_tensor(outcome.x)) - y - reach / 2).abs()
    assert torch.equal(outcome.fooled, (error <= 0.05).flatten())
    assert bool(outcome.fooled.all())
    with pytest.raises(InputError, match=r"Regression\(tolerance\)"):
        ss.attack(ss.Model(model, task="regression"), x, y, threat=THREAT)
    with pytest.raises(InputError, match="tolerance"):
        ss.Regression(0.0)
    with pytest.raises(LabelError, match="same shape"):
        ss.attack(ss.Model(model, task=ss.Regression(0.1)), x, torch.zeros(10, 2), threat=THREAT)
    with pytest.raises(LabelError, match="same shape"):  # as many numbers, in another order
        ss.attack(
            ss.Model(filled(nn.Linear(3, 2)), task=ss.Regression(0.1)),
            rand(10, 5, 3),
            torch.zeros(10, 2, 5),
            threat=THREAT,
        )


def test_a_custom_loss_with_its_own_success() -> None:
    model = mlp(classes=2)
    task = ss.Custom(loss=lambda z, _: z[:, 0] - z[:, 1] ** 2, success=lambda z, _: z[:, 0] > 0.5)
    outcome = ss.attack(ss.Model(model, task=task), X, threat=ss.linf(0.3), recipe="pgd")
    with torch.no_grad():
        z = model(_tensor(outcome.x))
    assert torch.equal(outcome.fooled, z[:, 0] > 0.5)
    torch.testing.assert_close(outcome.loss, z[:, 0] - z[:, 1] ** 2)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (ss.Custom(lambda z, _: z.mean(), lambda z, _: z[:, 0] > 0), "loss returned.*reduction='none'"),
        (ss.Custom(lambda z, _: z[:, 0], lambda z, _: z > 0), "success returned"),
        (ss.Custom(lambda z, _: z[:, 0], lambda *_: True), "success returned bool"),  # type: ignore[arg-type]
    ],
)
def test_a_custom_loss_must_keep_examples_apart(task: ss.Custom, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ss.attack(ss.Model(mlp(), task=task), X, threat=THREAT)


def test_custom_losses_and_targets_exclude_each_other() -> None:
    task = ss.Custom(lambda z, _: z[:, 0], lambda z, _: z[:, 0] > 0)
    with pytest.raises(InputError, match="target"):
        ss.attack(ss.Model(mlp(), task=task), X, target=torch.zeros(12, dtype=torch.int64), threat=THREAT)


@pytest.mark.parametrize(
    ("classes", "target", "needed"), [(2, None, 3), (3, "next", 4), (2, "next", 4), (1, None, 3), (1, "next", 4)]
)
def test_dlr_says_when_it_gives_way_to_the_margin(classes: int, target: Any, needed: int) -> None:
    model = mlp(classes=classes)
    with pytest.warns(ss.SignstepWarning, match=f"at least {needed} classes.*margin"):
        crafted = ss.attack(model, X, threat=THREAT, recipe="pgd:steps=3", target=target, search=ss.Search(loss="dlr"))
    margin = ss.attack(model, X, threat=THREAT, recipe="pgd:steps=3", target=target, search=ss.Search(loss="margin"))
    assert torch.equal(_tensor(crafted.x), _tensor(margin.x))


def test_dlr_by_its_formula() -> None:
    model = mlp(classes=5)
    y = labels(model, X)
    for target in (None, (y + 1) % 5):
        outcome = ss.attack(model, X, y, threat=THREAT, target=target, search=ss.Search(loss="dlr"))
        with torch.no_grad():
            z = model(_tensor(outcome.x))
        top = z.sort(1, descending=True).values
        at_y = z.gather(1, y[:, None])[:, 0]
        if target is None:
            others = z.scatter(1, y[:, None], -torch.inf).amax(1)
            wanted = (others - at_y) / (top[:, 0] - top[:, 2])
        else:
            wanted = (z.gather(1, target[:, None])[:, 0] - at_y) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2)
        torch.testing.assert_close(outcome.loss, wanted)


class ModelOutput(dict[str, Tensor]):
    """Like those of the transformers library: a dict with attributes."""

    @property
    def logits(self) -> Tensor:
        return self["logits"]


def _wrapped(kind: str) -> Callable[[Tensor], Any]:
    inner = mlp()

    def model(x: Tensor) -> Any:
        z = inner(x)
        ways: dict[str, Callable[[], Any]] = {
            "attribute": lambda: SimpleNamespace(logits=z, hidden=x),
            "model output": lambda: ModelOutput(loss=z.sum(), logits=z, hidden=x),
            "tuple": lambda: (z, x, None),
            "list": lambda: [z],
            "dict": lambda: {"logits": z, "features": x},
            "only tensor": lambda: {"out": z, "names": ["a"]},
            "nested": lambda: {"heads": (x, z)},
        }
        return ways[kind]()

    return model


@pytest.mark.parametrize(
    ("kind", "output"),
    [
        ("attribute", None),
        ("attribute", "logits"),
        ("model output", None),
        ("model output", "logits"),
        ("tuple", None),
        ("tuple", 0),
        ("list", None),
        ("dict", None),
        ("dict", "logits"),
        ("only tensor", None),
        ("only tensor", "out"),
        ("nested", lambda out: out["heads"][1]),
    ],
)
def test_scores_are_found_in_what_models_return(kind: str, output: Any) -> None:
    wanted = ss.fgsm(mlp(), X, eps=0.1)
    assert torch.equal(ss.fgsm(ss.Model(_wrapped(kind), output=output), X, eps=0.1), wanted)


@pytest.mark.parametrize(("kind", "output"), [("nested", None), ("dict", "logit"), ("tuple", 7), ("tuple", "logits")])
def test_scores_that_cannot_be_found_list_what_was_returned(kind: str, output: Any) -> None:
    with pytest.raises(ModelError, match=r"output=.*|returned.*output="):
        ss.fgsm(ss.Model(_wrapped(kind), output=output), X, eps=0.1)


class TwoInputs(nn.Module):
    """An image, a vector and token ids; order of arguments unlike the order of the dict."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector, self.embed = mlp(), filled(nn.Linear(5, 4), 1), filled(nn.Embedding(7, 4), 2)

    def forward(self, tokens: Tensor, vector: Tensor, image: Tensor) -> Tensor:
        out: Tensor = self.image(image) + self.vector(vector) + self.embed(tokens).sum(1)
        return out


@pytest.mark.pairwise
# Attacks that look for the smallest change, or that treat images, take one tensor and say so.
@pytest.mark.parametrize("name", [row.name for row in RECIPES.values() if not row.smallest and not row.images])
@pytest.mark.parametrize("attacked", [("image",), ("vector",), ("vector", "image")])
def test_a_dict_of_inputs_of_which_some_are_attacked(name: str, attacked: tuple[str, ...]) -> None:
    model = TwoInputs()
    random = torch.Generator().manual_seed(0)
    inputs = {"image": X, "vector": rand(12, 5, seed=3), "tokens": torch.randint(7, (12, 3), generator=random)}
    kept = {key: value.clone() for key, value in inputs.items()}
    with torch.no_grad():
        y = model(**inputs).argmax(1)
    mask = torch.tensor([True, True, True, True, False])
    counted = RECIPES[name].norms == ("l0",)
    image, vector = (ss.l0(4), ss.l0(2, mask=mask)) if counted else (ss.linf(0.05), ss.l2(0.3, mask=mask))
    threats = {"image": image, "vector": vector}
    outcome = ss.attack(
        model, inputs, y, threat={key: threats[key] for key in attacked}, recipe=short(RECIPES[name], 10)
    )
    assert isinstance(outcome.x, dict)
    assert isinstance(outcome.distance, dict)
    assert set(outcome.x) == set(attacked) == set(outcome.distance)
    for key in attacked:
        assert bool((outcome.x[key] != inputs[key]).flatten(1).any(1).all())
        assert bool((outcome.distance[key] <= float(threats[key].eps or 0) + 1e-12).all())
    if "vector" in attacked:
        assert torch.equal(outcome.x["vector"][:, 4], inputs["vector"][:, 4])
    with torch.no_grad():
        assert torch.equal(outcome.fooled, model(**{**inputs, **outcome.x}).argmax(1) != y)
    assert bool(outcome.verified.all())
    assert all(torch.equal(inputs[key], kept[key]) for key in inputs)


def test_both_inputs_take_their_own_exact_step() -> None:
    model = TwoInputs()
    inputs = {"image": X, "vector": rand(12, 5, seed=3), "tokens": torch.zeros(12, 3, dtype=torch.int64)}
    with torch.no_grad():
        y = model(**inputs).argmax(1)
    leaves = {key: inputs[key].clone().requires_grad_() for key in ("image", "vector")}
    loss = cross_entropy(model(**{**inputs, **leaves}), y, reduction="sum")
    image, vector = torch.autograd.grad(loss, list(leaves.values()))
    threat = {"image": ss.linf(0.05, box=None), "vector": ss.l2(0.3, box=None)}
    outcome = ss.attack(model, inputs, y, threat=threat)
    assert isinstance(outcome.x, dict)
    torch.testing.assert_close(outcome.x["image"], X + 0.05 * image.sign())
    unit = vector / vector.norm(dim=1, keepdim=True)
    torch.testing.assert_close(outcome.x["vector"], inputs["vector"] + 0.3 * unit)


def test_dicts_that_do_not_fit() -> None:
    model = TwoInputs()
    inputs = {"image": X, "vector": rand(11, 5), "tokens": torch.zeros(12, 3, dtype=torch.int64)}
    with pytest.raises(InputError, match="rows"):
        ss.attack(model, inputs, threat={"image": THREAT})
    inputs["vector"] = rand(12, 5)
    with pytest.raises(InputError, match="floating point"):
        ss.attack(model, inputs, threat={"tokens": THREAT})
    with pytest.raises(InputError, match="mean and std are for a single input"):
        ss.attack(model, inputs, threat={"image": THREAT}, mean=0.5, std=0.5)
    one = {"image": X, "vector": torch.zeros(12, 5, dtype=torch.int64)}
    single = ss.attack(lambda image, vector: mlp()(image), one, threat=THREAT)  # noqa: ARG005
    assert isinstance(single.x, dict)
    assert set(single.x) == {"image"}


def test_regression_behind_a_final_sigmoid_means_what_the_model_says() -> None:
    """The verdict is on the model's own numbers: nothing is looked for behind a sigmoid."""
    model = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).detach()
    outcome = ss.attack(ss.Model(model, task=ss.Regression(0.3)), x, y, threat=ss.linf(0.001), recipe="fgsm-rs")
    assert not bool(outcome.fooled.any())
    seen: list[Tensor] = []

    def loss(z: Tensor, y: Tensor | None) -> Tensor:  # noqa: ARG001
        seen.append(z.detach())
        return z.sum(1)

    task = ss.Custom(loss, lambda z, y: z[:, 0] > 2)  # noqa: ARG005
    ss.attack(ss.Model(model, task=task), x, y, threat=ss.linf(0.001))
    assert all(bool(((z > 0) & (z < 1)).all()) for z in seen)


def test_few_one_logit_outputs_between_0_and_1_may_be_either() -> None:
    def flat(x: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-x[:, :1]))

    x = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    y = torch.ones(4, dtype=torch.long)
    with pytest.raises(ss.SignstepError, match="logits or probabilities"):
        ss.attack(flat, x, y, threat=ss.linf(0.1))
    assert len(ss.attack(ss.Model(flat, outputs="probabilities"), x, y, threat=ss.linf(0.1))) == 4


def test_dlr_towards_a_target_without_labels_says_that_it_gives_way() -> None:
    x = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([1, 2, 3])
    with pytest.warns(ss.SignstepWarning, match="needs the labels y as well"):
        ss.attack(lambda u: u - 0.5, x, None, target=target, threat=ss.linf(0.1), search=ss.Search(loss="dlr"))


@pytest.mark.parametrize(
    "net", [nn.Sequential(nn.Flatten(), nn.Linear(7, 3)), nn.Conv2d(5, 2, 1)], ids=["features", "channels"]
)
def test_inputs_of_another_shape_than_the_models(net: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"does not take examples of shape \(2, 3, 3\)"):
        ss.attack(net.double(), X, torch.zeros(12, dtype=torch.int64), threat=THREAT)


@pytest.mark.parametrize("recipe", ["fmn", "ddn", "deepfool", "cw", "fab"])
def test_the_smallest_change_of_a_regression_on_its_own_answers_is_found(recipe: str) -> None:
    """The error of a sum of six numbers is 0.3 after a change of length 0.3 / sqrt(6), whichever way it starts."""
    x = 0.25 + torch.arange(36).reshape(6, 6) / 64  # exact in any order of adding: the error is zero, not nearly
    model = ss.Model(lambda u: u.sum(1), task=ss.Regression(0.3))
    outcome = ss.attack(model, x, None, threat=ss.l2(0.5, box=None), recipe=recipe)
    assert bool(outcome.fooled.all())
    assert outcome.smallest is not None
    torch.testing.assert_close(outcome.smallest, torch.full((6,), 0.3 / 6**0.5).double(), atol=3e-3, rtol=0)


def test_a_regression_on_its_own_answers_is_not_stuck_at_zero_error() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)).double()
    x = torch.rand(20, 3, dtype=torch.float64)
    outcome = ss.attack(ss.Model(model, task=ss.Regression(0.02)), x, threat=ss.linf(0.1), recipe="fgsm")
    assert not bool(outcome.undetermined.any())
    assert bool(outcome.fooled.all())
    labels = model(x).detach()
    assert bool(
        (
            ss.attack(ss.Model(model, task=ss.Regression(0.02)), x, labels, threat=ss.linf(0.1), recipe="fgsm").fooled
        ).all()
    )


def test_a_model_that_casts_for_itself_is_not_told_about_types() -> None:
    class Casts(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.inner = nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.inner(x.float())
            return scores

    x, y = torch.rand(4, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    assert len(ss.attack(Casts(3), x, y, threat=ss.linf(0.1))) == 4
    with pytest.raises((ss.SignstepError, RuntimeError)) as caught:
        ss.attack(Casts(8), x, y, threat=ss.linf(0.1))
    assert "x.to(" not in str(caught.value)
    with pytest.raises(ModelError, match=r"x\.to\("):
        ss.attack(nn.Linear(3, 2), x, y, threat=ss.linf(0.1))


def test_a_name_in_a_plain_tensor_is_one_error_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelError, match="output='scores' is not in what the model returned: a tensor"):
            select(torch.rand(3, 4), "scores")
