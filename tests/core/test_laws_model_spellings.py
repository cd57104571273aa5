"""A model is the same however it is handed over: the modules that a call runs are found, prepared and put back."""

import functools
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_nets import filled, rand
from torch import Tensor, nn
from torch.nn import functional

import signstep as ss
from signstep.engine import submodules
from signstep.engine.submodules import reached
from signstep.errors import ModelError

X = rand(16, 1, 4, 4, seed=3, dtype=torch.float32)
HIDDEN: ContextVar[nn.Module] = ContextVar("HIDDEN")
GLOBAL: dict[str, Any] = {}


class Net(nn.Module):
    """BatchNorm and dropout, in training mode, with statistics that batches would change."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(16, 12), nn.BatchNorm1d(12)
        self.drop, self.last = nn.Dropout(0.4), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(x.flatten(1))))
        out: Tensor = self.last(functional.dropout(self.drop(hidden), 0.3, training=self.training))
        return out


def _net() -> Net:
    net = filled(Net(), dtype=torch.float32, scale=3.0)
    assert net.norm.running_mean is not None
    assert net.norm.running_var is not None
    net.norm.running_mean.copy_(rand(12, seed=5) - 0.5)
    net.norm.running_var.copy_(rand(12, seed=6) + 0.5)
    net.last.weight.grad = torch.full_like(net.last.weight, 7.0)
    net.first.bias.requires_grad_(False)
    return net.train()


class Listed(nn.Module):
    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: Tensor) -> Tensor:
        held = self.held["net"][0] if isinstance(self.held, dict) else self.held[0]
        out: Tensor = held(x)
        return out


class Wrapper:
    def __init__(self, net: nn.Module) -> None:
        self._inner = SimpleNamespace(net=net)

    def __call__(self, x: Tensor) -> Any:
        return self._inner.net(x)

    def predict(self, x: Tensor) -> Any:
        return self._inner.net(x)


class Slotted:
    __slots__ = ("net",)

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Tensor) -> Any:
        return self.net(x)


@dataclass(frozen=True)
class Holding:
    parts: tuple[Any, ...]

    def __call__(self, x: Tensor) -> Any:
        return self.parts[1][0](x)


def _closure(net: Callable[..., Any]) -> Callable[[Tensor], Any]:
    return lambda *given: net(*given)  # noqa: PLW0108 - what is found through a function is tested


def _weak(net: nn.Module) -> Callable[[Tensor], Any]:
    seen = weakref.ref(net)

    def call(x: Tensor) -> Any:
        inner = seen()
        assert inner is not None
        return inner(x)

    return call


def _with_default(net: nn.Module) -> Callable[[Tensor], Any]:
    def call(x: Tensor, *, inner: nn.Module = net) -> Any:
        return inner(x)

    return call


def _decorated(net: nn.Module) -> Callable[[Tensor], Any]:
    def plain(x: Tensor) -> Any:
        return net(x)

    @functools.wraps(plain)
    def around(*given: Tensor) -> Any:
        return plain(*given)

    return around


def _of_class(net: nn.Module) -> Callable[[Tensor], Any]:
    class Static:
        inner = net

        @classmethod
        def call(cls, x: Tensor) -> Any:
            return cls.inner(x)

    return Static.call


def _global(net: nn.Module) -> Callable[[Tensor], Any]:
    GLOBAL["net"] = net
    return lambda *given: GLOBAL["net"](*given)  # noqa: PLW0108 - what is found through a function is tested


def _hidden(net: nn.Module) -> Callable[[Tensor], Any]:
    """No object leads to the net: it is met only as it runs."""
    HIDDEN.set(net)
    return lambda *given: HIDDEN.get()(*given)  # noqa: PLW0108 - what is found through a function is tested


SPELLINGS: dict[str, Callable[[nn.Module], Any]] = {
    "module": lambda net: net,
    "lambda": _closure,
    "forward": lambda net: net.forward,
    "call": lambda net: net.__call__,
    "partial": lambda net: functools.partial(lambda inner, x: inner(x), net),
    "partial by name": lambda net: functools.partial(lambda x, inner: inner.forward(x), inner=net),
    "list": lambda net: Listed([net]),
    "dict": lambda net: Listed({"net": (net,)}),
    "lambda around a list": lambda net: _closure(Listed([net])),
    "wrapper": Wrapper,
    "method of a wrapper": lambda net: Wrapper(net).predict,
    "slots": Slotted,
    "dataclass": lambda net: Holding((0, [net])),
    "default": _with_default,
    "decorated": _decorated,
    "class": _of_class,
    "global": _global,
    "weak reference": _weak,
    "data parallel": lambda net: _closure(nn.DataParallel(net)),
    "registered inside": lambda net: nn.Sequential(nn.Identity(), net),
    "hidden": _hidden,
}


def _attack(model: Any, mode: Any) -> list[Tensor]:
    found = ss.attack(ss.Model(model, mode=mode), X, None, threat=ss.linf(0.1), recipe="pgd:steps=3")
    assert isinstance(found.x, Tensor)
    return [found.x, found.fooled, found.loss]


def _audit(model: Any, mode: Any) -> list[Tensor]:
    y = torch.arange(16) % 3
    found = ss.audit(ss.Model(model, mode=mode), (X, y), threat=ss.linf(0.1), attacks=["fgsm", "pgd:steps=2"])
    told = [any("was in training mode" in note for note in found.notes)]
    return [torch.tensor([ord(letter) for letter in found.worst_case]), torch.tensor([*told, found.clean_right])]


def _transfer(model: Any, mode: Any) -> list[Tensor]:
    y, other = torch.arange(16) % 3, nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    filled(other, dtype=torch.float32)
    one, two = ss.Model(model, mode=mode), ss.Model(other, mode=mode)
    found = ss.transfer({"a": one}, {"a": one, "b": two}, (X, y), threat=ss.linf(0.1))
    return [torch.tensor([(cell.fooled, cell.right) for cell in found.cells])]


def _patch(model: Any, mode: Any) -> list[Tensor]:
    found = ss.patch(ss.Model(model, mode=mode), (X, None), size=2, steps=2, holdout=0)
    return [found.values, torch.tensor([found.train.hits, found.grey.hits])]


VERBS: dict[str, Callable[[Any, Any], list[Tensor]]] = {
    "attack": _attack,
    "audit": _audit,
    "transfer": _transfer,
    "patch": _patch,
    "fgsm": lambda model, mode: [ss.fgsm(ss.Model(model, mode=mode), X, eps=0.1)],
    "universal": lambda model, mode: [
        ss.universal(ss.Model(model, mode=mode), (X, None), threat=ss.linf(0.1), epochs=1, rows=8, holdout=0).delta
    ],
    "surrogate": lambda model, mode: [
        ss.fgsm(
            ss.Model(filled(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), dtype=torch.float32), mode=mode),
            X,
            eps=0.1,
            search=ss.Search(surrogate=model),
        )
    ],
    "engine": lambda model, mode: [
        ss.fgsm(ss.Model(model, mode=mode), X, eps=0.1, search=ss.Search(engine="float32")).sign()
    ],
}  # fmt: skip


def _state(net: Net) -> list[Any]:
    return [
        [module.training for module in net.modules()],
        [(part.requires_grad, None if part.grad is None else part.grad.clone()) for part in net.parameters()],
        [part.clone() for part in net.buffers()],
        [id(part) for part in net.buffers()],
        len(torch.nn.modules.module._global_forward_pre_hooks),
        torch.get_rng_state(),
    ]


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return torch.equal(before, after)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(_same(a, b) for a, b in zip(before, after, strict=True))
    return bool(before == after)


@functools.cache
def _wanted(verb: str, mode: str) -> list[Tensor]:
    return VERBS[verb](_net(), mode)


# Each verb with those that differ in how they are found; all spellings with one verb.
FOUND = ("forward", "list", "wrapper", "hidden")


@pytest.mark.parametrize(
    ("spelling", "verb"),
    [(name, verb) for verb in VERBS for name in SPELLINGS if name != "module" and (verb == "attack" or name in FOUND)],
)
def test_every_spelling_gives_what_the_module_gives(spelling: str, verb: str) -> None:
    wanted, net = _wanted(verb, "eval"), _net()
    model = SPELLINGS[spelling](net)
    with torch.random.fork_rng():  # other networks are made on the way
        before = _state(net)
        found = VERBS[verb](model, "eval")
        torch.set_rng_state(before[-1])
        assert _same(before, _state(net))
    assert _same(wanted, found)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_kept_in_training_mode_the_module_is_put_back_too(spelling: str) -> None:
    wanted, net = _wanted("attack", "keep"), _net()
    model, before = SPELLINGS[spelling](net), _state(net)
    found = ss.attack(ss.Model(model, mode="keep"), X, None, threat=ss.linf(0.1), recipe="pgd:steps=3")
    assert _same(wanted[0], found.x)
    assert _same(before, _state(net))
    assert any("rows depend on each other" in note for note in found.notes)
    assert any("draws random numbers" in note for note in found.notes)
    assert not any("evaluation mode" in note for note in found.notes)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("fails_at", [1, 3])
def test_also_where_the_attack_raises(spelling: str, fails_at: int) -> None:
    net, calls = _net(), 0
    seen = []

    def fail(module: nn.Module, *_: object) -> None:
        nonlocal calls
        calls += 1
        seen.append((module.training, net.norm.training, net.first.weight.requires_grad))
        if calls == fails_at:
            raise ZeroDivisionError("the model's own")

    net.last.register_forward_pre_hook(fail)
    model, before = SPELLINGS[spelling](net), _state(net)
    with pytest.raises(ZeroDivisionError, match="the model's own"):
        ss.attack(model, X, None, threat=ss.linf(0.1), recipe="pgd:steps=5")
    assert _same(before, _state(net))
    assert set(seen) == {(False, False, False)}


def test_the_note_on_training_mode_is_about_what_ran() -> None:
    """A net in evaluation mode was not in training mode, whoever else the function knows."""
    net, other = _net().eval(), _net()

    def model(x: Tensor) -> Any:
        return net(x) if len(x) else other(x)

    found = ss.attack(model, X, None, threat=ss.linf(0.1))
    assert found.notes == ss.attack(net, X, None, threat=ss.linf(0.1)).notes
    assert not any("training" in note for note in found.notes)
    assert other.training


MEAN, VAR = torch.zeros(16), torch.ones(16)


class Functional:
    """Statistics that belong to no module, and a switch that nobody can reach."""

    def __init__(self, form: Any) -> None:
        self.form, self.net = form, filled(nn.Linear(16, 3), dtype=torch.float32)
        self.mean, self.var = torch.zeros(16), torch.ones(16)

    def __call__(self, x: Tensor) -> Any:
        flat = x.flatten(1)
        if self.form is functional.batch_norm:
            flat = functional.batch_norm(flat, self.mean, self.var, training=True)
        elif self.form is torch.batch_norm:
            flat = torch.batch_norm(flat, None, None, self.mean, self.var, True, 0.1, 1e-5, False)
        else:
            flat = functional.instance_norm(flat[None], self.mean, self.var)[0]
        return self.net(flat)


@pytest.mark.parametrize("form", [functional.batch_norm, torch.batch_norm, functional.instance_norm])
@pytest.mark.parametrize("outputs", ["auto", "logits"])
def test_statistics_that_no_module_holds_are_not_overwritten(form: Any, outputs: Any) -> None:
    model = Functional(form)
    with pytest.raises(ModelError, match=r"running statistics that belong to no module .* pass training=False there"):
        ss.attack(ss.Model(model, outputs=outputs), X, None, threat=ss.linf(0.1))
    kept = ss.attack(ss.Model(model, outputs=outputs, mode="keep"), X, None, threat=ss.linf(0.1))
    assert torch.equal(model.mean, torch.zeros(16))
    assert torch.equal(model.var, torch.ones(16))
    assert any("rows depend" in note for note in kept.notes) == (form is not functional.instance_norm)


def test_a_norm_without_running_statistics_mixes_rows_in_any_mode() -> None:
    net = filled(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 3)))
    found = ss.attack(net.forward, X.double(), None, threat=ss.linf(0.1))
    assert any("rows depend on each other" in note for note in found.notes)


class Remembering(nn.Module):
    """Keeps its state in attributes: bound anew, in place, in a tuple, and as a buffer."""

    def __init__(self, *, detached: bool = True) -> None:
        super().__init__()
        self.cell, self.head, self.detached = nn.LSTM(16, 6, batch_first=True), nn.Linear(6, 3), detached
        self.state: Any = None

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.cell(x.flatten(1).unsqueeze(1), self.state)
        self.state = tuple(part.detach() for part in state) if self.detached else state
        scores: Tensor = self.head(out[:, -1]) * 3
        return scores


@pytest.mark.parametrize("spelling", ["module", "lambda", "list", "hidden"])
def test_a_state_that_is_kept_is_told_from_random_numbers(spelling: str) -> None:
    net = filled(Remembering(), dtype=torch.float32, scale=3.0)
    y = torch.arange(16) % 3
    found = ss.audit(
        SPELLINGS[spelling](net), [(X[:9], y[:9]), (X[9:], y[9:])], threat=ss.linf(0.2), attacks=["fgsm"], curve=False
    )
    assert any("keeps state from one call to the next" in note and "reset" in note for note in found.notes)
    assert not any("draws random numbers" in note for note in found.notes)
    assert net.state is None


def test_a_state_that_is_reset_is_none() -> None:
    net = filled(Remembering(), dtype=torch.float32, scale=3.0)

    def model(x: Tensor) -> Tensor:
        net.state = None
        out: Tensor = net(x)
        return out

    found = ss.attack(model, X, None, threat=ss.linf(0.2), recipe="pgd:steps=3")
    assert found.passes == 1
    assert found.notes == ss.attack(functools.partial(model), X, None, threat=ss.linf(0.2), recipe="pgd:steps=3").notes


def test_a_state_with_its_gradient_is_one_sentence_or_none() -> None:
    net = filled(Remembering(detached=False), dtype=torch.float32, scale=3.0)
    try:
        found = ss.attack(net, X, None, threat=ss.linf(0.2), recipe="pgd:steps=3")
    except ModelError as error:
        assert "detach them, or reset the state" in str(error)  # noqa: PT017
    else:
        assert any("keeps state" in note for note in found.notes)
    assert net.state is None


def test_what_modules_keep_as_plain_tensors_is_put_back() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inplace, self.bound, self.pair = torch.zeros(3), torch.zeros(2), (torch.zeros(1), torch.zeros(1))
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.inplace += 1
            self.bound = self.bound + 1
            self.pair = (self.pair[0] + 1, self.pair[1])
            self.seen = x
            self.calls += 1
            return x.flatten(1)[:, :3]

    net = Keeping()
    before = (net.inplace, net.bound, net.pair)
    ss.attack(net.__call__, X, None, threat=ss.linf(0.1))
    assert (net.inplace, net.bound, net.pair) == before
    assert torch.equal(net.inplace, torch.zeros(3))
    assert not hasattr(net, "seen")
    assert net.calls > 0  # numbers are the module's own business


@pytest.mark.parametrize("spelling", ["module", "lambda", "hidden"])
def test_weights_that_are_not_there_yet_are_one_sentence(spelling: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ModelError, match=r"LazyLinear has weights that are not there before the first batch"):
        ss.attack(SPELLINGS[spelling](net), X, None, threat=ss.linf(0.1))
    assert nn.parameter.is_lazy(next(net.parameters()))
    net(X)
    ss.attack(SPELLINGS[spelling](net), X, None, threat=ss.linf(0.1))


def _traced(net: nn.Module) -> Any:
    return torch.jit.trace(net, X, check_trace=False)  # type: ignore[no-untyped-call]


def _exported(net: nn.Module) -> Any:
    return torch.export.export(net, (X,), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own, of what it traces
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of a question that BatchNorm asks about sizes
@pytest.mark.parametrize("behind", [False, True], ids=["itself", "behind a function"])
@pytest.mark.parametrize("recorded", [_traced, _exported])
def test_a_mode_that_was_recorded_is_not_said_to_have_been_changed(recorded: Any, behind: bool) -> None:
    """Traced or exported in training mode it takes the statistics of each batch whatever mode it is put into."""
    net = _net()
    program = recorded(net)
    kept = {name: value.clone() for name, value in program.state_dict().items()}
    found = ss.attack(functools.partial(program) if behind else program, X, None, threat=ss.linf(0.1))
    assert any("rows depend on each other" in note for note in found.notes)
    assert not any("attacked in evaluation mode" in note for note in found.notes)
    assert all(torch.equal(value, kept[name]) for name, value in program.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_what_the_compiler_is_told_to_leave_alone_is_watched() -> None:
    """The mark of torch.compiler.disable is not that of compiled code: modules looked up inside are still met."""
    net = _net()
    wanted = ss.attack(net, X, None, threat=ss.linf(0.1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    HIDDEN.set(net)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def model(x: Tensor) -> Any:
        return HIDDEN.get()(x)

    found = ss.attack(model, X, None, threat=ss.linf(0.1))
    assert isinstance(found.x, Tensor)
    assert isinstance(wanted.x, Tensor)
    assert torch.equal(found.x, wanted.x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("made", ["script", "trace", "freeze", "optimize"])
def test_scripts_of_every_kind(made: str) -> None:
    net = _net().eval()
    with torch.no_grad():
        labels = net(X).argmax(1)
    wanted = ss.attack(net, X, labels, threat=ss.linf(0.1), recipe="pgd:steps=3")
    script: Any = torch.jit.trace(net, X) if made == "trace" else torch.jit.script(net)  # type: ignore[no-untyped-call]
    if made in ("freeze", "optimize"):
        script = torch.jit.freeze(script)
    if made == "optimize":
        script = torch.jit.optimize_for_inference(script)
    found = ss.attack(script, X, labels, threat=ss.linf(0.1), recipe="pgd:steps=3")
    assert isinstance(found.x, Tensor)
    assert isinstance(wanted.x, Tensor)
    assert torch.equal(found.fooled, wanted.fooled)
    torch.testing.assert_close(found.x, wanted.x, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own, of what it traces
def test_compiled_code_is_left_to_the_compiler() -> None:
    """No hook is set where it would be compiled in: one compilation, no warning, the same figures."""
    wanted, net, count = _wanted("attack", "eval"), _net(), 0

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        nonlocal count
        count += 1
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(net, backend=backend)
    before = _state(net)
    for model in (compiled, _closure(compiled), torch.compile(_closure(net), backend=backend)):
        assert _same(wanted, _attack(model, "eval"))
    assert _same(before, _state(net))
    assert reached(_closure(compiled)).compiled


def test_looking_for_modules_runs_nothing_and_ends() -> None:
    class Trap:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

        def __iter__(self) -> Any:
            raise AssertionError

        def __len__(self) -> int:
            raise AssertionError

    ring: list[Any] = [Trap(), list(range(200_000))]
    ring.append(ring)
    net = _net()
    assert net in reached(lambda x: (ring, net(x))).modules


def test_an_assertion_in_a_test_leads_not_into_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pytest makes of it names a module by which the whole session would be reached, before the network."""
    monkeypatch.setattr(submodules, "_MOST", 60)
    net = _net()
    held = [[[[[[net]]]]]]

    def asserting(x: Tensor) -> Tensor:
        assert x.ndim == 4, x.shape
        out: Tensor = held[0][0][0][0][0][0](x)
        return out

    assert net in reached(asserting).modules
