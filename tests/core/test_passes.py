"""Every attack keeps to its own plan: what an example that falls, and one that never does, spends on passes."""

import signal
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.recipes import RECIPES, options_of, recipe
from signstep.auditing import plans
from signstep.engine import attack
from signstep.engine.passes import Setting
from signstep.model.twin import Engine

FEW = {"steps": "4", "queries": "30", "samples": "4", "searches": "2"}
MORE = {"restarts": "2", "targets": "2", "copies": "2"}


def spec(name: str, *tables: dict[str, str]) -> str:
    chosen = {key: value for table in tables for key, value in table.items() if key in options_of(RECIPES[name])}
    if chosen.get("restarts") and name == "smooth-pgd":
        chosen["start"] = "uniform"
    if name == "explore":
        chosen["starts"] = "2"  # no more than samples
    return name + ":" * bool(chosen) + ",".join(f"{key}={value}" for key, value in chosen.items())


SPECS = [
    *(spec(name, FEW) for name in RECIPES),
    *(spec(name, FEW, MORE) for name in RECIPES if spec(name, FEW, MORE) != spec(name, FEW)),
    "square:queries=40,patience=10",
    "smooth-pgd:steps=4,start=best",
    "apgd:loss=dlr,targets=9,steps=4",
    "fgsm-rs",
]


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x) + 0.02 * torch.randn(len(x), 1)
        return out


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    first, last = nn.Linear(48, 16), nn.Linear(16, 4)
    with torch.no_grad():
        for part in (first, last):
            part.weight.copy_(0.3 * torch.randn(part.weight.shape, generator=generator))
            part.bias.zero_()
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), last).eval()


def data() -> tuple[Tensor, Tensor]:
    x = torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return x, network()(x).argmax(1)


def threat(name: str) -> ss.ThreatModel:
    norm = RECIPES[name.partition(":")[0]].norms
    if norm == ("l0",):
        return ss.l0(2)
    return ss.l2(0.2) if norm and "linf" not in norm else ss.linf(0.03)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("kind", ["exact", "fast", "random"])
def test_passes_are_those_of_the_plan(name: str, kind: str) -> None:
    if kind == "fast" and RECIPES[name.partition(":")[0]].needs != "gradients":
        pytest.skip("it searches on no copy")
    x, y = data()
    model = Noisy() if kind == "random" else network()
    engine: Engine = "float32" if kind == "fast" else "exact"
    result = ss.audit(model, (x, y), threat=threat(name), attacks=[name], curve=False, engine=engine)
    entry = result.attacks[0]
    plan = recipe(name).passes(Setting(ways=3, random=kind == "random", exact=kind != "fast"))  # type: ignore[attr-defined]
    letters, spent = result.per_example.verdicts[entry.name], result.per_example.passes[entry.name]
    held = [count for letter, count in zip(letters, spent, strict=True) if letter == "h"]
    assert "f" in letters or name.startswith(("random", "square", "hop", "nes", "spsa"))
    assert held
    assert all(plan.whole <= count <= plan.most for count in held), (plan, sorted(set(held)))
    assert all(plan.first <= count <= plan.most for count in spent), (plan, sorted(set(spent)))
    if plan.whole == plan.most:
        assert set(held) == {plan.whole}
    if plan.backwards is not None:
        assert len(held) * plan.backwards <= round(entry.backwards * 24) <= 24 * plan.backwards
    if plan.gradients is not None:
        assert len(held) * plan.gradients <= entry.gradients <= 24 * plan.gradients


@pytest.mark.parametrize("name", [name for name in SPECS if "targets" in name or name.startswith(("apgd-t", "fab"))])
def test_absent_classes_are_left_out_of_the_plan(name: str) -> None:
    """Examples have none to three other classes; who is led to classes makes fewer runs where some are absent."""
    x, y = data()
    there = torch.arange(len(x)) % 4
    absent = torch.stack([(torch.arange(4) - label) % 4 > count for label, count in zip(y, there, strict=True)])
    net, places = network(), x.flatten(1)

    def masked(u: Tensor) -> Tensor:
        nearest = torch.cdist(u.flatten(1), places).argmin(1)
        out: Tensor = net(u).masked_fill(absent[nearest], -torch.inf)
        return out

    result = ss.audit(masked, (x, y), threat=ss.linf(0.003), attacks=[name], curve=False)
    entry = result.attacks[0]
    letters, spent = result.per_example.verdicts[entry.name], result.per_example.passes[entry.name]
    assert {int(there[row]) for row, letter in enumerate(letters) if letter == "h"} == {0, 1, 2, 3}
    for row, (letter, count) in enumerate(zip(letters, spent, strict=True)):
        plan = recipe(name).passes(Setting(ways=3, there=int(there[row])))  # type: ignore[attr-defined]
        assert (plan.whole if letter == "h" else plan.first) <= count <= plan.most, (int(there[row]), letter, plan)
    assert plans.passes(result, None, there.tolist()).holds
    if "targets" in name or name.startswith("apgd-t"):
        unasked = plans.passes(result)
        assert (unasked.holds, unasked.complete) == (True, False)
        assert not plans.passes(result, None, [3] * len(x)).holds


def test_what_fixes_the_plan_fixes_it_wholly() -> None:
    """Of a model that draws nothing, gradient attacks that see it spend the same on every example that holds."""
    for name in ("pgd:steps=7,restarts=3", "apgd:loss=ce,steps=100", "apgd-t", "smooth-pgd", "fgsm", "random-sign"):
        plan = recipe(name).passes(Setting(ways=9))  # type: ignore[attr-defined]
        assert plan.whole == plan.most
    assert recipe("apgd:loss=ce,steps=100").passes(Setting(ways=9)).whole == 102  # type: ignore[attr-defined]
    assert recipe("apgd-t").passes(Setting(ways=9)).whole == 1 + 9 * 102  # type: ignore[attr-defined]
    assert recipe("square:queries=5000").passes(Setting(ways=9)).whole == 5001  # type: ignore[attr-defined]


def test_draws_over_a_gradient_count() -> None:
    from signstep.engine.eot import Eot
    from signstep.engine.oracles import Autograd

    attack = recipe("pgd:steps=3", oracle=Eot(5, inner=Autograd()))
    plan = attack.passes(Setting(ways=3, random=True))  # type: ignore[attr-defined]
    x, y = data()
    result = ss.audit(
        Noisy(), (x, y), threat=ss.linf(0.01), attacks=["pgd:steps=3"], curve=False, search=ss.Search(eot=5)
    )
    letters, spent = result.per_example.verdicts["pgd:steps=3"], result.per_example.passes["pgd:steps=3"]
    held = [count for letter, count in zip(letters, spent, strict=True) if letter == "h"]
    assert held
    assert all(plan.whole <= count <= plan.most for count in held)
    assert replace(attack, steps=4).passes(Setting(3, random=True)).whole > plan.whole  # type: ignore[attr-defined,type-var]


@pytest.mark.parametrize("steps", [*range(33), 99, 100, 101])
def test_steps_are_counted_in_closed_form(steps: int) -> None:
    assert attack._counts(steps) == sum(map(attack._counted, range(steps)))


@pytest.mark.parametrize("name", RECIPES)
def test_a_plan_of_any_size_is_said_at_once(name: str) -> None:
    """A record may name any number of steps, and whoever reads it must not wait for them."""
    huge = {key: str(10**15) for key in ("steps", "queries", "samples", "searches", "restarts", "targets", "copies")}

    def late(*_: object) -> None:
        raise TimeoutError(f"the plan of {name} takes as long as its steps")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        for key, value in huge.items():
            chosen = spec(name, {key: value}, {"start": "uniform"} if name == "smooth-pgd" else {})
            if chosen != name:
                plan = recipe(chosen).passes(Setting(ways=9))  # type: ignore[attr-defined]
                assert plan.whole <= plan.most
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
