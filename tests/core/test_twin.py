"""The fast twin searches; the model itself gives the verdict."""

import pytest
import torch
from small_nets import labels, rand
from torch import Tensor, nn

import signstep as ss
from signstep.engine.oracles import Twin
from signstep.errors import InputError
from signstep.model.predictor import Predictor
from signstep.model.twin import prepare, prepared


def _net(seed: int = 0, *, head: nn.Module | None = None) -> nn.Sequential:
    """Convolutions with BatchNorm that has seen something, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [
            nn.Conv2d(3, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 5),
        ]
        net = nn.Sequential(*layers, *([head] if head else []))
        with torch.no_grad():
            for _ in range(20):
                net(torch.rand(16, 3, 8, 8))
    return net.eval()


X = rand(40, 3, 8, 8, seed=1, dtype=torch.float32)


def test_what_is_done_is_said_and_the_function_is_the_same() -> None:
    net = _net()
    twin = prepare(net, X, engine="float32")
    assert "BatchNorm folded into convolutions (2 of 2)" in twin.steps
    assert "channels-last" in twin.steps
    assert any("first convolution" in step for step in twin.steps)
    with torch.no_grad():
        torch.testing.assert_close(twin.model(X), net(X), rtol=1e-4, atol=1e-5)
    assert all(step in str(twin) for step in twin.steps)


def test_the_gradient_of_the_first_convolution() -> None:
    for stride, padding, dilation in ((1, 1, 1), (2, 1, 1), (2, 0, 1), (1, 2, 2)):
        net = nn.Sequential(nn.Conv2d(2, 8, 3, stride, padding, dilation), nn.Tanh(), nn.Flatten(), nn.LazyLinear(4))
        x = rand(10, 2, 9, 7, seed=2, dtype=torch.float32)
        net(x)
        twin = prepare(net.eval(), x, engine="float32")
        assert any("first convolution" in step for step in twin.steps)
        found = []
        for model in (net, twin.model):
            leaf = x.clone().requires_grad_()
            found.append(torch.autograd.grad(model(leaf).logsumexp(1).sum(), leaf)[0])
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_the_model_is_not_changed() -> None:
    net = _net()
    before = {name: part.clone() for name, part in net.state_dict().items()}
    modules = [type(module) for module in net.modules()]
    prepare(net, X)
    assert modules == [type(module) for module in net.modules()]
    assert all(torch.equal(part, before[name]) for name, part in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())


class Branching(nn.Module):
    """Cannot be traced: what it does depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _net()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x if float(x.detach().sum()) > 0 else -x)
        return out


class Stateful(nn.Module):
    """Refuses to be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _net()

    def __deepcopy__(self, memo: object) -> "Stateful":
        raise RuntimeError("one of a kind")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Folding(nn.Module):
    """Traced, it would forget that the branch depends on the number of rows; folding must be seen to go wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x) * torch.rand(1)).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("net", [Branching(), Stateful(), Folding()], ids=["branching", "stateful", "random"])
def test_what_cannot_be_shown_equal_is_left_alone(net: nn.Module) -> None:
    twin = prepare(net.eval(), X, engine="float32")
    assert twin.left
    assert not any("folded" in step for step in twin.steps)


def test_batchnorm_in_training_mode_is_left_alone() -> None:
    net = _net().train()
    twin = prepare(net, X)
    assert twin.model is net
    assert "training mode" in str(twin)


def test_new_weights_make_a_new_twin() -> None:
    net = _net()
    first = prepared(net, X, engine="float32")
    quick = prepared(net, X, engine="fast")
    assert prepared(net, X, engine="float32") is first
    assert prepared(net, X, engine="fast") is quick
    with torch.no_grad():
        net[0].weight.mul_(0.5)  # type: ignore[operator]
    second = prepared(net, X, engine="float32")
    assert second is not first
    with torch.no_grad():
        torch.testing.assert_close(second.model(X), net(X), rtol=1e-4, atol=1e-5)


def test_changes_that_torch_does_not_count_make_a_new_twin() -> None:
    net = _net()
    first = prepared(net, X, engine="float32")
    for part in net.parameters():
        part.data.mul_(0.5)  # as a moving average of weights writes them
    second = prepared(net, X, engine="float32")
    assert second is not first
    with torch.no_grad():
        torch.testing.assert_close(second.model(X), net(X), rtol=1e-4, atol=1e-5)
    list(net.modules())[-1].training = True
    assert prepared(net, X, engine="float32") is not second


@pytest.mark.parametrize("engine", ["float32", "fast"])
@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=6,restarts=2", "apgd:steps=8", "smooth-pgd"])
@pytest.mark.parametrize("head", [None, nn.Softmax(1)], ids=["logits", "softmax"])
def test_the_verdict_is_the_models_own(engine: str, recipe: str, head: nn.Module | None) -> None:
    net = _net(head=head)
    y = labels(net, X)
    outcome = ss.attack(net, X, y, threat=ss.linf("4/255"), recipe=recipe, engine=engine)  # type: ignore[arg-type]
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(outcome.fooled, labels(net, outcome.x) != y)
    assert bool(outcome.verified.all())
    assert any("search on a copy" in note for note in outcome.notes)
    exact = ss.attack(net, X, y, threat=ss.linf("4/255"), recipe=recipe)
    assert abs(int(exact.fooled.sum()) - int(outcome.fooled.sum())) <= 2


class Optimist(nn.Module):
    """A twin that believes every row fooled."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return -3 * self.net(x)  # type: ignore[no-any-return]


def test_a_row_that_the_model_does_not_confirm_comes_back() -> None:
    net = _net()
    y = labels(net, X)
    oracle = Twin(Predictor(Optimist(net)))
    outcome = ss.attack(net, X, y, threat=ss.linf("1/255"), recipe=ss.recipe("pgd:steps=5", oracle=oracle))
    assert isinstance(outcome.x, Tensor)
    assert torch.equal(outcome.fooled, labels(net, outcome.x) != y)
    standing = ~outcome.fooled
    assert int(standing.sum()) > 0
    # Every doubtful iterate was put to the model: one pass for each step, besides the search and the verdict.
    assert bool((outcome.forwards[standing] == 5 + 5 + 1).all())


def test_crafting_on_the_twin_goes_the_same_way() -> None:
    net = _net()
    y = labels(net, X)
    exact = ss.fgsm(net, X, y, eps="4/255")
    quick = ss.fgsm(net, X, y, eps="4/255", search=ss.Search(engine="float32"))
    assert quick.dtype == exact.dtype
    assert float((exact != quick).float().mean()) < 0.001
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    exact = ss.fgsm(net, X, y, eps="4/255", mean=mean, std=std)
    quick = ss.fgsm(net, X, y, eps="4/255", mean=mean, std=std, search=ss.Search(engine="float32"))
    assert float((exact != quick).float().mean()) < 0.001


@pytest.mark.parametrize("engine", ["turbo", ""])
def test_engines_that_there_are_not(engine: str) -> None:
    net = _net()
    with pytest.raises(InputError, match="engine"):
        ss.attack(net, X, labels(net, X), threat=ss.linf(0.1), engine=engine)  # type: ignore[arg-type]


def test_a_function_has_no_twin_and_says_so() -> None:
    net = _net()
    outcome = ss.attack(net.forward, X, labels(net, X), threat=ss.linf("4/255"), engine="fast")
    assert any("function" in note for note in outcome.notes)


class Viewing(nn.Module):
    """Takes its images apart as if they lay channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 4, 3), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.second(self.first(x)).view(len(x), -1))
        return outputs


def test_a_layout_that_the_model_cannot_stand_is_left() -> None:
    twin = prepare(Viewing().eval(), X, engine="float32")
    assert "channels-last" not in twin.steps
    assert any("the model refused" in part for part in twin.left)
