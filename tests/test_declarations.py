"""Every verb takes every declaration: it answers as for the bare network that does the same, or refuses it by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.diagnosing.battery import TESTS
from signstep.errors import InputError
from signstep.testing import assert_robust
from signstep.train.settings import Settings

SHAPE, CLASSES, MEAN, STD = (2, 4, 4), 3, (0.4, 0.6), (0.5, 0.25)
THREAT = ss.linf(0.1)


class Net(nn.Module):
    """Small, smooth, with layers that bounds go through."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, CLASSES))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for part in self.parameters():
                part.copy_(torch.randn(part.shape, generator=generator, dtype=part.dtype) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.body(x)
        return scores


class Behind(nn.Module):
    """A bare network that does what a declaration says: something before the network, something after it."""

    def __init__(self, net: nn.Module, before: Callable[[Tensor], Tensor] | None = None, after: Any = None) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Any:
        out = self.net(x if self.before is None else self.before(x))
        return out if self.after is None else self.after(out)


def channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


def normalised(x: Tensor) -> Tensor:
    return (x - channels(MEAN)) / channels(STD)


def dimmed(u: Tensor, _: object = None) -> Tensor:
    return u * 0.9


def named(scores: Tensor) -> dict[str, Tensor]:
    return {"features": scores[:, :1] * 2, "scores": scores}


@dataclass(frozen=True)
class Declaration:
    """What is declared, of which network, and the bare network that does the same.

    ``data`` leads from raw inputs to those of the declaration's units.
    """

    network: Callable[[Net], Any]
    declared: Mapping[str, Any]
    bare: Callable[[Net], Any]
    data: Callable[[Tensor], Tensor] = lambda x: x


def itself(net: Net) -> Net:
    return net


DECLARATIONS: dict[str, Declaration] = {
    "mean": Declaration(itself, {"mean": MEAN, "std": STD}, lambda net: Behind(net, normalised)),
    "inputs": Declaration(
        itself, {"mean": MEAN, "std": STD, "inputs": "normalised"}, lambda net: Behind(net, normalised), normalised
    ),
    "output": Declaration(lambda net: Behind(net, after=named), {"output": "scores"}, itself),
    "outputs": Declaration(lambda net: Behind(net, after=lambda s: s.softmax(1)), {"outputs": "probabilities"}, itself),
    "task": Declaration(itself, {"task": "multilabel"}, lambda net: ss.Model(net, task=ss.Multilabel())),
    "mode": Declaration(lambda net: net.train(), {"mode": "keep"}, itself),
    "transform": Declaration(itself, {"transform": dimmed}, lambda net: Behind(net, dimmed)),
    "classes": Declaration(itself, {"classes": ("a", "b", "c")}, itself),
    "shape": Declaration(itself, {"shape": (2, None, 4)}, itself),
    "name": Declaration(itself, {"name": "mine", "hashes": {"weights": "ab"}, "notes": ["opened"]}, itself),
}

# Probabilities are searched behind their head: the same points by another way, so nothing is compared there but that
# they are found.
LOOSE = {"outputs"}


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(12, *SHAPE, generator=generator)
    return x, Net()(x).argmax(1)


def labels(model: object, y: Tensor) -> Tensor:
    task = model.task if isinstance(model, ss.Model) else "auto"
    several = task == "multilabel" or isinstance(task, ss.Multilabel)
    return nn.functional.one_hot(y, CLASSES).float() if several else y


def _fit(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    settings = Settings(epochs=1, batch=4, validation=0, on_collapse="ignore")
    trained = ss.fit(model, x, y, threat=THREAT, recipe="fgsm", settings=settings)
    network = trained.model.network
    assert isinstance(network, nn.Module)
    assert trained.changed
    return [part.detach() for part in network.parameters()]


def _maximise(model: Any, x: Tensor, _: Tensor) -> list[Tensor]:
    """The sum of the scores, wherever they are."""
    if isinstance(model, ss.Model):
        model = replace(model, network=Behind(model.network, after=_summed_scores))  # type: ignore[arg-type]
    else:
        model = Behind(model, after=_summed_scores)
    found = ss.maximise(model, x, THREAT, recipe="fgsm")
    assert isinstance(found.x, Tensor)
    return [found.x, found.after]


def _summed_scores(out: Any) -> Any:
    return {**out, "scores": out["scores"].sum(1)} if isinstance(out, dict) else out.sum(1)


def _loss(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    return [ss.adversarial_loss(model, x, y, "fgsm", threat=THREAT).detach()]


def _audit(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    found = ss.audit(model, (x, labels(model, y)), threat=THREAT, attacks=["fgsm"], curve=False)
    return [torch.tensor([ord(letter) for letter in found.worst_case])]


def _asserted(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    assert_robust(model, (x, labels(model, y)), threat=THREAT, at_least=0.0, attacks=["fgsm"])
    return []


def _attack(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    outcome = ss.attack(model, x, labels(model, y), threat=THREAT, recipe="bim:steps=3")
    assert isinstance(outcome.x, Tensor)
    return [outcome.x, outcome.fooled]


def _cells(matrix: ss.TransferMatrix) -> Tensor:
    return torch.tensor([[cell.fooled, cell.right] for cell in matrix.cells])


def _diagnose(model: Any, x: Tensor, y: Tensor, search: ss.Search | None = None) -> list[Tensor]:
    """With two tests of the battery and the cheapest ladder: what is declared reaches them as it does all."""
    few = SimpleNamespace(asked_for={name: TESTS[name] for name in ("graph", "smoothness")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signstep.diagnosing.run.TESTS", few)
        patch.setattr("signstep.diagnosing.run.STANDARD", "quick")
        d = ss.diagnose(model, (x, y), threat=THREAT, attack="bim:steps=3", search=search)
    assert all(one.asked or "nothing standing" in one.told for one in d.tests), d
    return [torch.tensor([d.right, d.before, d.after, d.standard or 0])]


VERBS: dict[str, Callable[[Any, Tensor, Tensor], list[Tensor]]] = {
    "attack": _attack,
    "fgsm": lambda m, x, y: [ss.fgsm(m, x, labels(m, y), eps=0.1)],
    "audit": _audit,
    "assert_robust": _asserted,
    "diagnose": lambda m, x, y: _diagnose(m, x, labels(m, y)),
    "maximise": _maximise,
    "transfer": lambda m, x, y: [_cells(ss.transfer([m], [m], (x, labels(m, y)), threat=THREAT))],
    "universal": lambda m, x, y: [ss.universal(m, (x, labels(m, y)), threat=THREAT, epochs=1, holdout=0).delta],
    "patch": lambda m, x, y: [ss.patch(m, (x, labels(m, y)), size=2, steps=2, holdout=0).values],
    "certified": lambda m, x, y: [ss.certified(m, x, y, threat=ss.linf(0.01))],
    "fit": _fit,
    "adversarial_loss": _loss,
}  # fmt: skip

# What a verb has no use for, and says so.
REFUSED = {
    *((verb, "task") for verb in ("maximise", "certified", "fit", "adversarial_loss")),
    *((verb, "transform") for verb in ("certified", "fit", "adversarial_loss")),
    *((verb, "mode") for verb in ("certified", "fit", "adversarial_loss")),
    *((verb, "inputs") for verb in ("fit", "adversarial_loss")),
    ("maximise", "classes"),
    ("certified", "output"),
    *((verb, "outputs") for verb in ("certified", "fit", "adversarial_loss")),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", DECLARATIONS)
def test_a_verb_heeds_a_declaration_or_refuses_it_by_name(verb: str, name: str) -> None:
    case, run = DECLARATIONS[name], VERBS[verb]
    x, y = data()
    declared = ss.Model(case.network(Net()), **case.declared)
    if (verb, name) in REFUSED:
        with pytest.raises(InputError, match=rf"^{name}\b|^classes are") as caught:
            run(declared, case.data(x), y)
        assert ";" in str(caught.value) or ":" in str(caught.value), "it says what to do instead"
        return
    found, wanted = run(declared, case.data(x), y), run(case.bare(Net()), x, y)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        if name not in LOOSE:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", DECLARATIONS)
def test_a_model_can_be_called_in_its_declared_units(name: str) -> None:
    case, (x, _) = DECLARATIONS[name], data()
    declared, bare = ss.Model(case.network(Net()), **case.declared), case.bare(Net())
    scores = bare(x) if not isinstance(bare, ss.Model) else bare.network(x)
    wanted = scores.softmax(1) if name == "outputs" else scores
    torch.testing.assert_close(declared(case.data(x)), wanted, rtol=1e-4, atol=2e-6)


# How the attacker searches.

OTHER = Net(3)
SEARCHES: dict[str, ss.Search] = {
    "target": ss.Search(target="next"),
    "loss": ss.Search(loss="dlr"),
    "surrogate": ss.Search(surrogate=OTHER),
    "engine": ss.Search(engine="float32"),
    "eot": ss.Search(eot=2),
    "budget": ss.Search(budget="normalised"),
    "seed": ss.Search(seed=5),
    "gradient_path": ss.Search(gradient_path="straight"),
}

SEARCHING: dict[str, Callable[..., list[Tensor]]] = {
    "attack": lambda m, x, y, s: [_points(ss.attack(m, x, y, threat=THREAT, recipe="pgd:steps=3", search=s).x)],
    "fgsm": lambda m, x, y, s: [ss.fgsm(m, x, y, eps=0.1, search=s)],
    "audit": lambda m, x, y, s: [_entry(ss.audit(m, (x, y), threat=THREAT, attacks=["pgd:steps=3"], search=s))],
    "diagnose": _diagnose,
    "maximise": lambda m, x, _, s: [_points(ss.maximise(_summed(m), x, THREAT, "pgd:steps=3", search=s).x)],
    "transfer": lambda m, x, y, s: [_cells(ss.transfer([m], [OTHER], (x, y), threat=THREAT, search=s))],
    "universal": lambda m, x, y, s: [ss.universal(m, (x, y), threat=ss.linf(0.4), epochs=5, search=s).delta],
    "patch": lambda m, x, y, s: [ss.patch(m, (x, y), size=2, steps=3, search=s).values],
}

_NO_VERDICT = ("budget", "gradient_path")
# What a verb has no use for, and says so.
UNSEARCHED = {
    *((verb, "target") for verb in ("diagnose", "maximise", "universal", "patch")),
    ("maximise", "loss"),
    ("transfer", "surrogate"),
    *((verb, name) for verb in ("fgsm", "maximise", "transfer", "universal", "patch") for name in _NO_VERDICT),
    *(("diagnose", name) for name in _NO_VERDICT),
}
# A twin gives the same points up to rounding, nothing is drawn here that several draws could average or another seed
# change, no defence stands here, and counts may agree by chance.
ALIKE = {"engine", "eot"} | {"seed", "gradient_path"}


def _points(x: Any) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def _entry(result: ss.Result) -> Tensor:
    entry = result.attacks[0]
    return torch.tensor([entry.fooled, *(ord(letter) for letter in result.worst_case)])


def _summed(model: ss.Model) -> ss.Model:
    return replace(model, network=Behind(model.network, after=lambda out: out.logsumexp(1)))  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", SEARCHING)
@pytest.mark.parametrize("name", SEARCHES)
def test_a_verb_searches_as_it_is_told_or_refuses_it_by_name(verb: str, name: str) -> None:
    x, y = data()
    model, search = ss.Model(Net(), mean=MEAN, std=STD), SEARCHES[name]
    if name == "surrogate" and verb == "maximise":
        search = ss.Search(surrogate=_summed(ss.Model(OTHER, mean=MEAN, std=STD)))
    if (verb, name) in UNSEARCHED:
        with pytest.raises(InputError, match=rf"^{name}\b") as caught:
            SEARCHING[verb](model, x, y, search)
        assert verb in str(caught.value)
        return
    found, plain = SEARCHING[verb](model, x, y, search), SEARCHING[verb](model, x, y, ss.Search())
    if name in ALIKE or verb in ("audit", "diagnose", "transfer"):
        assert [part.shape for part in found] == [part.shape for part in plain]
    else:
        assert any(not torch.equal(one, other) for one, other in zip(found, plain, strict=True))
    if name == "engine" and verb not in ("audit", "diagnose", "transfer"):
        for one, other in zip(found, plain, strict=True):
            assert (one - other).abs().gt(1e-4).float().mean() < 0.2


def test_the_table_of_fields_is_whole() -> None:
    declared = {name for case in DECLARATIONS.values() for name in case.declared}
    assert declared == set(ss.Model.__dataclass_fields__) - {"network"}
    assert set(SEARCHES) == set(ss.Search.__dataclass_fields__)


def test_short_forms_say_what_a_model_or_a_search_says_and_refuse_both() -> None:
    x, y = data()
    net = Net()
    whole = ss.attack(ss.Model(net, mean=MEAN, std=STD), x, y, threat=THREAT, search=ss.Search(target="next"))
    short = ss.attack(net, x, y, threat=THREAT, mean=MEAN, std=STD, target="next")
    assert torch.equal(_points(whole.x), _points(short.x))
    with pytest.raises(InputError, match=r"mean=.* is given beside a Model"):
        ss.attack(ss.Model(net), x, y, threat=THREAT, mean=MEAN, std=STD)
    with pytest.raises(InputError, match="target is given twice"):
        ss.attack(net, x, y, threat=THREAT, target="next", search=ss.Search(target="random"))
    with pytest.raises(InputError, match="engine='fast' is given beside search= with engine 'float32'"):
        ss.audit(net, (x, y), threat=THREAT, engine="fast", search=ss.Search(engine="float32"))


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"mean": 0.5}, "std is missing"),
        ({"inputs": "normalised"}, "declared 'normalised' without mean and std"),
        ({"outputs": "softmax"}, "outputs='softmax'"),
        ({"task": "classes"}, "task='classes' is not one of"),
        ({"mode": "train"}, "mode='train'"),
        ({"transform": 3}, "transform=3"),
        ({"transform": lambda u: u}, "does not take two arguments"),
        ({"classes": "cat"}, "classes='cat'"),
        ({"shape": (3, 0)}, r"shape=\(3, 0\); pass that of one input"),
        ({"shape": "3x8x8"}, "shape='3x8x8'"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_declared(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ss.Model(Net(), **declared)


def test_a_declaration_is_frozen_and_says_what_it_is() -> None:
    model = ss.Model(Net(), mean=0.5, std=0.25, classes=["a", "b", "c"])
    with pytest.raises(AttributeError):
        model.mean = 1.0  # type: ignore[misc]
    assert repr(model) == "Model(Net, mean=0.5, std=0.25, classes=('a', 'b', 'c'))"
    with pytest.raises(InputError, match="network is a Model already"):
        ss.Model(model)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 8, 8), r"takes examples of shape \(2, 8, 8\), these have \(2, 4, 4\); bring images there with resize=\(8"),
        ((3, None, 4), r"shape \(3, any, 4\), these have \(2, 4, 4\); pass colour images"),
        ((32,), r"shape \(32,\), these have \(2, 4, 4\); pass data of that shape"),
    ],
)
def test_inputs_of_another_shape_are_refused_before_they_reach_the_network(shape: tuple[int, ...], said: str) -> None:
    def never(_: Tensor) -> Tensor:
        raise AssertionError

    x, y = data()
    model = ss.Model(never, shape=shape)
    for run in (
        lambda: ss.attack(model, x, y, threat=THREAT),
        lambda: ss.audit(model, (x, y), threat=THREAT),
        lambda: model(x),
        lambda: ss.transfer([model], [model], (x, y), threat=THREAT),
    ):
        with pytest.raises(InputError, match=said):
            run()


def test_a_record_has_the_notes_of_its_model() -> None:
    result = ss.audit(ss.Model(Net(), notes=("it was found in a drawer",)), data(), threat=THREAT, attacks=["fgsm"])
    assert "model: it was found in a drawer" in result.notes


def test_what_is_remembered_goes_with_the_weights() -> None:
    """A model that begins to draw when its weights are changed is looked at again."""

    class Noisy(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("level", torch.zeros(()))
            self.own = torch.Generator().manual_seed(0)

        def forward(self, x: Tensor) -> Tensor:
            assert isinstance(self.level, Tensor)
            scores = super().forward(x)
            return scores + self.level * torch.randn(scores.shape, generator=self.own)

    model, (x, y) = Noisy(), data()
    assert ss.attack(model, x, y, threat=THREAT).passes == 1
    assert isinstance(model.level, Tensor)
    model.level.fill_(1.0)
    assert ss.attack(model, x, y, threat=THREAT).passes == 32
