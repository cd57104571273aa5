"""Backward passes of somebody's own, scores that something is done to, and two masks at once: named and got past."""

import math
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.gradient.bpda_pgd import Lent
from signstep.attacks.stand_ins import StandIns
from signstep.diagnosing.battery import TESTS, graph, health, losses
from signstep.diagnosing.bench import Cure
from signstep.diagnosing.inner import Inner, picked
from signstep.diagnosing.test import Suspect
from signstep.diagnosing.verdict import Tried, weighed
from signstep.diagnosing.weighed import Tempered, Term
from signstep.engine.outputs import Outputs

sys.path.insert(0, str(Path(__file__).parent))
from specimens import BACKWARDS, NET, SIDE, Specimen, Through, backed, data, loud, network, squashed

pytestmark = pytest.mark.filterwarnings("ignore::signstep.SignstepWarning")
PLAIN = ss.Search(loss="plain-ce")


@pytest.mark.parametrize("way", BACKWARDS)
def test_a_backward_pass_that_lies_is_named(way: str) -> None:
    lie = backed(BACKWARDS[way])
    seen = Specimen(Through(lambda net, x: net(lie(x)))).seen("graph")
    (suspect,) = seen.suspects
    assert suspect.cause == graph.CAUSE
    assert "the backward pass of Liar" in suspect.because
    assert not Specimen(Through(lambda net, x: net(backed(lambda g: g)(x)))).seen("graph").fired  # an honest one


def test_behind_a_backward_pass_that_lies_the_number_is_that_of_the_network_without_it() -> None:
    lie = backed(BACKWARDS["turned"])
    d = Specimen(Through(lambda net, x: net(lie(x)))).diagnosed()
    assert d.verdict.word == "inflated"
    assert d.causes[0].name == graph.CAUSE
    honest = Specimen(NET, "standard").bench()
    assert abs(d.after - int(honest.held.sum())) <= 0.02 * d.examples


@pytest.mark.parametrize("way", BACKWARDS)
def test_stand_ins_differentiate_what_a_function_computes(way: str) -> None:
    """At the input, in the middle, as the last step, with several outputs, by a name given before: all the same."""

    def scaled(x: Tensor) -> Tensor:
        return torch.sin(3 * x)

    lie = backed(BACKWARDS[way], scaled)
    places: dict[str, tuple[Any, Any]] = {
        "input": (lambda x: NET(lie(x)), lambda x: NET(scaled(x))),
        "end": (lambda x: lie(NET(x)), lambda x: scaled(NET(x))),
        "twice": (lambda x: lie(NET(lie(x))), lambda x: scaled(NET(scaled(x)))),
    }
    x, _ = data(4)
    for masked, plain in places.values():
        one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        found = Lent(_Asked(masked))(one)  # type: ignore[arg-type]
        torch.testing.assert_close(found.raw, masked(x), rtol=0, atol=0)
        weights = torch.arange(1.0, 4.0)
        (g,) = torch.autograd.grad((found.scores * weights).sum(), one)
        (wanted,) = torch.autograd.grad((plain(other) * weights).sum(), other)
        torch.testing.assert_close(g, wanted)


class _Asked:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.notes: list[str] = []

    def __call__(self, x: Tensor) -> Outputs:
        raw = self.model(x)
        return Outputs(raw, raw, "logits")


def test_functions_are_put_back_and_other_threads_keep_theirs() -> None:
    lie = backed(torch.zeros_like)
    kind = lie.__self__
    before = kind.__dict__["forward"]
    x = torch.ones(2, 3, requires_grad=True)
    elsewhere: list[Tensor] = []

    def other() -> None:
        u = torch.ones(2, 3, requires_grad=True)
        elsewhere.extend(torch.autograd.grad(lie(u).sum(), u))
        with StandIns() as theirs:  # begins and ends while the other still watches
            elsewhere.extend(torch.autograd.grad(theirs.derived(lie(u)).sum(), u))
        assert kind.__dict__["forward"] is not before

    with StandIns() as mode:
        assert kind.__dict__["forward"] is not before
        out = mode.derived(lie(x))
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert kind.__dict__["forward"] is before
    with suppress(KeyError), StandIns():
        raise KeyError
    assert kind.__dict__["forward"] is before
    assert bool((torch.autograd.grad(out.sum(), x)[0] == 1).all())
    assert [float(part.mean()) for part in elsewhere] == [0.0, 1.0]
    assert bool((torch.autograd.grad(lie(x).sum(), x)[0] == 0).all())


def test_what_a_function_computes_outside_of_torch_keeps_its_own_backward_pass() -> None:
    def outside(x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)

    step = backed(lambda g: 2 * g, outside)
    x = torch.ones(2, 3, requires_grad=True)
    with StandIns() as mode:
        out = mode.derived(step(x))
    assert bool((torch.autograd.grad(out.sum(), x)[0] == 2).all())


def _overwrites(x: Tensor) -> Tensor:
    out = torch.exp(x * x)
    out.mul_(2)
    return out


def _writes(x: Tensor) -> Tensor:
    return torch.mul(x, 2, out=torch.empty(x.shape))


def _refuses(x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        raise RuntimeError("I am watched")
    return x * 2


def test_forward_passes_that_were_written_for_no_gradients_are_run_as_they_are() -> None:
    """What torch forbids where gradients are taken: overwriting what one needs, writing into a tensor, noticing it."""
    x = torch.full((2, 3), 0.5)
    kept = torch.zeros(3)

    def remembers(x: Tensor) -> Tensor:
        kept.mul_(0.5).add_(x.mean(0))
        return x * 2

    for forward, slope in ((_overwrites, 4 * 0.5 * math.exp(0.25)), (_writes, -1), (_refuses, -1), (remembers, 2)):
        lie, leaf = backed(torch.neg, forward), x.clone().requires_grad_()
        kept.detach_().zero_()
        plain = lie(leaf).detach()
        with StandIns() as mode:
            kept.detach_().zero_()
            out = mode.derived(lie(leaf))
        assert torch.equal(out, plain)
        assert torch.allclose(torch.autograd.grad(out.sum(), leaf)[0], torch.full((2, 3), float(slope)))


def test_what_a_forward_pass_overwrote_before_it_failed_is_not_overwritten_twice() -> None:
    def doubled(x: Tensor) -> Tensor:
        x.mul_(2)
        raise KeyError("unknown")

    x = torch.ones(2, 3, requires_grad=True) * 1
    with StandIns(), pytest.raises(KeyError, match="unknown"):
        backed(torch.neg, doubled)(x)
    assert bool((x == 2).all())


def test_a_hook_on_gradients_is_passed_by() -> None:
    def hooked(net: nn.Module, x: Tensor) -> Tensor:
        u = x * 1.0
        if u.requires_grad:
            u.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]
        out: Tensor = net(u)
        return out

    (suspect,) = Specimen(Through(hooked)).seen("graph").suspects
    assert suspect.cause == graph.CAUSE
    assert "a hook on gradients" in suspect.because


# Two masks at once, with the causes that must be named first, in any order.
BOTH: dict[str, tuple[Specimen, set[str]]] = {
    "rounded and loud": (
        Specimen(Through(lambda net, x: loud(net, (x * 3).round() / 3)), search=PLAIN), {graph.CAUSE, losses.SATURATED},
    ),
    "rounded and squashed": (
        Specimen(Through(lambda net, x: squashed(net, (x * 3).round() / 3))), {graph.CAUSE, losses.SATURATED},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOTH)
def test_of_two_masks_both_are_named_before_anything_else(name: str) -> None:
    specimen, causes = BOTH[name]
    d = specimen.diagnosed()
    assert d.verdict.word == "inflated"
    assert {one.name for one in d.causes[:2]} == causes, d.causes
    assert d.causes[0].takes >= d.causes[1].takes


def test_a_cause_takes_what_its_cure_adds_to_the_one_that_it_goes_through() -> None:
    """Whatever each fells alone: together what both fell, and of equal ones the way that is needed comes first."""

    def tried(cause: str, felled: str, upon: str = "") -> Tried:
        rows = torch.tensor([letter == "x" for letter in felled])
        return Tried("graph", Suspect(cause, cause), rows, Cure("pgd", upon=upon) if "x" in felled else None)

    for alone, both, wanted in (
        ("......", "xxxx..", [("way", 4), ("loss", 4)]),
        ("x.....", "xxxx..", [("way", 4), ("loss", 3)]),
        ("xxxxx.", "xxxx..", [("way", 5)]),
        ("xxxx..", "......", [("way", 4)]),
    ):
        causes, idle = weighed([tried("way", alone), tried("loss", both, "way")])
        assert [(one.name, one.takes) for one in causes] == wanted
        assert [one.suspect.cause for one in idle] == [name for name in ("loss",) if len(wanted) == 1]


def test_scores_inside_are_found_wherever_they_are() -> None:
    nets = nn.ModuleList(network(seed) for seed in (1, 2, 3))
    x, _ = data(8)

    def stacked(x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in nets])

    def surest(x: Tensor) -> Tensor:
        z = stacked(x)
        return z[z.softmax(-1).amax(-1).argmax(0), torch.arange(len(x))]

    def votes(x: Tensor) -> Tensor:
        return nn.functional.one_hot(stacked(x).argmax(-1), 3).float().sum(0)

    one = nets[0]
    cases: dict[str, tuple[Any, Any]] = {
        "squashed": (lambda x: torch.tanh(50 * one(x)), one),
        "clipped": (lambda x: one(x).clamp(-0.5, 0.5) + 0 * x.sum(), one),
        "softmax by hand": (lambda x: (9 * one(x)).exp() / (9 * one(x)).exp().sum(1, keepdim=True), one),
        "the surest": (surest, lambda x: stacked(x).log_softmax(-1).mean(0)),
        "votes": (votes, lambda x: stacked(x).log_softmax(-1).mean(0)),
    }
    for name, (masked, wanted) in cases.items():
        inner = Inner(masked, 3)
        leaf = x.clone().requires_grad_()
        answer = inner(leaf)
        places = picked(inner.met, answer, leaf)
        assert places, name
        torch.testing.assert_close(Inner(masked, 3, places)(x), wanted(x), msg=name)
    for name, plain in {"as it is": one, "log-softmax": lambda x: one(x).log_softmax(1)}.items():
        inner, leaf = Inner(plain, 3), x.clone().requires_grad_()
        answer = inner(leaf)
        assert picked(inner.met, answer, leaf) == (), name


def test_terms_and_temperatures_keep_the_answer_and_weigh_the_gradient() -> None:
    x = torch.rand(5, 1, SIDE, SIDE, requires_grad=True)
    z = NET(x)
    order = z.argsort(1, descending=True)
    for rank in (0, 1):
        weighed = Term(NET, rank)(x)
        torch.testing.assert_close(weighed, z)
        (g,) = torch.autograd.grad(weighed.sum(), x, retain_graph=True)
        (wanted,) = torch.autograd.grad(z.gather(1, order[:, rank : rank + 1]).sum(), x, retain_graph=True)
        torch.testing.assert_close(g, wanted)
    for temperature in losses.TEMPERATURES:
        found = Tempered(NET, temperature)(x)
        assert bool((found.argmax(1) == z.argmax(1)).all())
        torch.testing.assert_close(found.std(1), torch.full((5,), 1 / temperature))


def test_a_term_that_drowns_the_other_is_named() -> None:
    """The other scores have the answer's gradient in them four times: named losses climb to where it is sure."""

    def drowned(net: nn.Module, x: Tensor) -> Tensor:
        z: Tensor = net(x)
        top = z.amax(1, keepdim=True)
        own = nn.functional.one_hot(z.detach().argmax(1), 3)
        return z + 4 * (1 - own) * (top - top.detach())

    seen = TESTS["losses"].run(Specimen(Through(drowned)).bench())  # graph would see the detaching, and cure it
    assert seen.fired, seen.told
    (suspect,) = seen.suspects
    assert suspect.cause == losses.IMBALANCED
    assert losses.TERMS[0] in str(suspect.cures[0])


def test_precisions_are_compared_with_float64() -> None:
    told = Specimen(NET).seen("numerics").told
    assert "in its own" in told
    assert "in bfloat16" in told
    assert "in float32" not in told  # that is its own
    half = Specimen(network().to(torch.bfloat16), data=lambda: _narrow(data())).seen("numerics")
    assert "in float32" in half.told, half.told


def _narrow(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0].to(torch.bfloat16), pair[1]


def test_a_network_that_ends_in_a_convolution_has_features_to_plant_in() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1))
    net = nn.Sequential(body, nn.Conv2d(6, 3, 1), nn.Flatten())
    x, _ = data()
    seen = Specimen(net.eval(), data=lambda: (x, net(x).argmax(1).detach()), eps=0.01).seen("self-test")
    assert seen.asked, seen.told


def test_of_health_and_scores_the_table_names_the_same_cause() -> None:
    assert health.SATURATED == losses.SATURATED == TESTS["scores"].causes[0]
