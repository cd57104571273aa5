"""Laws of a diagnosis: its cost, what it depends on, what it leaves behind, and that its numbers can be had again."""

import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.auditing import run as auditing
from signstep.cli.options import attacks_of
from signstep.diagnosing.bench import TIMES
from signstep.diagnosing.verdict import left_standing

sys.path.insert(0, str(Path(__file__).parent))
from specimens import HEALTHY, NET, ROUNDED, SATURATED, Specimen, Through, data

pytestmark = pytest.mark.filterwarnings("ignore::signstep.SignstepWarning")
FEW = 9


class Counting(nn.Module):
    """A network that counts the rows it is asked for, and gradients that come back through it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.rows, self.back = net, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        if x.requires_grad:
            x = x * 1
            x.register_hook(self._count)  # type: ignore[no-untyped-call]
        out: Tensor = self.net(x)
        return out

    def _count(self, gradient: Tensor) -> None:
        self.back += len(gradient)


@pytest.fixture(scope="module")
def rounded() -> ss.Diagnosis:
    return ROUNDED.diagnosed(examples=FEW)


def test_a_masked_model_is_inflated_by_its_cause_and_the_number_adapted(rounded: ss.Diagnosis) -> None:
    assert str(rounded.verdict).startswith("inflated by non-differentiable step: ")
    assert rounded.verdict.word == "inflated"
    first = rounded.causes[0]
    assert (first.name, first.test) == ("non-differentiable step", "graph")
    assert first.takes >= rounded.before / 2
    assert rounded.after < rounded.before
    assert any("cut or turned" in reason for reason in rounded.ineligible)
    assert [one.takes for one in rounded.causes]
    text = str(rounded)
    for part in ("verdict", "standard", "causes", "tests", "signstep audit", "cost:"):
        assert part in text


def test_an_adapted_number_is_what_the_audit_of_its_command_finds() -> None:
    """Pointwise over the commands; the examples are all of the data."""
    x, y = data(FEW)
    d = ROUNDED.diagnosed(data=(x, y))
    assert d.commands
    fallen = torch.zeros(FEW, dtype=torch.bool)
    right = torch.zeros(FEW, dtype=torch.bool)
    for words in d.commands:
        options = dict(zip(words[::2], words[1::2], strict=True))
        chosen = options.get("--attack", options.get("--ladder", ""))
        if "--surrogate" in options:
            assert d.student is not None
        search = ss.Search(
            eot=int(options.get("--eot", 1)),
            loss=options.get("--loss"),
            surrogate=d.student if "--surrogate" in options else None,
        )
        how: dict[str, Any] = {"attacks": _several(chosen)} if "--attack" in options else {"ladder": chosen}
        result = ss.audit(ROUNDED.model, (x, y), threat=ss.linf(ROUNDED.eps), curve=False, search=search, **how)
        fallen |= torch.tensor([letter == "f" for letter in result.worst_case])
        right |= torch.tensor([letter != "w" for letter in result.worst_case])
    assert int((right & ~fallen).sum()) == d.after
    assert d.commands_text[0].startswith("signstep audit --model MODEL --data DATA --threat linf:")


def _several(text: str) -> list[str]:
    """The attacks of an option, as the command line reads it."""
    return list(attacks_of([text]))


@pytest.mark.parametrize("specimen", [ROUNDED, SATURATED, Specimen(NET, eps=0.06)], ids=["rounded", "loud", "healthy"])
def test_tests_and_cures_cost_at_most_ten_times_standard(specimen: Specimen) -> None:
    """Booked, and as the network itself counts them."""
    x, y = data(FEW)
    alone = Counting(specimen.model)
    attack = ss.audit(
        alone, (x, y), threat=ss.linf(specimen.eps), attacks=[specimen.attack], curve=False, search=specimen.search
    )
    assert attack.examples == FEW
    first = alone.rows + alone.back
    alone.rows = alone.back = 0
    ss.audit(alone, (x, y), threat=ss.linf(specimen.eps), ladder="standard", curve=False, search=specimen.search)
    standard = alone.rows + alone.back
    whole = Counting(specimen.model)
    d = ss.diagnose(whole, (x, y), threat=ss.linf(specimen.eps), attack=specimen.attack, search=specimen.search)
    assert d.cost.tests <= d.cost.allowed == TIMES * d.cost.standard
    spent = whole.rows + whole.back - first - standard
    # Looks at untouched inputs: two for each audit, to see whether answers differ.
    assert spent <= TIMES * standard + 4 * FEW


def test_it_depends_on_neither_batches_nor_order() -> None:
    x, y = data(20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    one = ROUNDED.diagnosed(data=(x, y), examples=FEW)
    parts = [(x[order][start : start + 7], y[order][start : start + 7]) for start in (0, 7, 14)]
    other = ROUNDED.diagnosed(data=parts, examples=FEW)
    assert one.seen == other.seen == 20
    assert one.examples == other.examples == FEW
    for name in ("verdict", "standard_verdict", "before", "after", "causes", "tests", "cost", "commands"):
        assert getattr(one, name) == getattr(other, name), name


def test_nothing_is_changed() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).train()
    net[3].eval()
    before = {name: part.clone() for name, part in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    x, y = data(FEW)
    given = x.clone()
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    hooks = len(nn.modules.module._global_forward_hooks) + len(nn.modules.module._global_forward_pre_hooks)
    ss.diagnose(net, (x, y), threat=ss.linf(0.1), attack="pgd:steps=3")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(x, given)
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(part, before[name]) for name, part in net.state_dict().items())
    assert all(part.requires_grad and part.grad is None for part in net.parameters())
    assert len(nn.modules.module._global_forward_hooks) + len(nn.modules.module._global_forward_pre_hooks) == hooks


def test_one_pair_is_inflated_and_the_other_real() -> None:
    """A search that hardly moves leaves everything standing, and `standard` does not."""
    x, y = data(FEW)
    d = Specimen(NET, "random-sign", eps=0.12).diagnosed(data=(x, y))
    assert d.standard is not None
    assert d.standard < d.before
    assert d.verdict.word == "inflated"
    assert d.standard_verdict is not None
    assert str(d.standard_verdict).startswith("real")


def test_a_number_of_nothing_is_not_inflated() -> None:
    d = Specimen(NET, eps=0.4).diagnosed(data=data(FEW))
    assert d.before == 0
    assert str(d.verdict).startswith("real 0.0%")
    assert all(not one.asked for one in d.tests)
    assert d.cost.tests == 0


def test_luck_in_many_runs_on_a_random_model_is_no_success() -> None:
    """The best single run counts, not all together."""
    bench = Specimen(NET, data=lambda: data(6)).bench()
    bench.random = True
    runs = torch.eye(6, dtype=torch.bool) & bench.right
    bench.ran = [replace(bench.ran[0], fooled=row, counts=True) for row in runs]
    bench.fell = runs.any(0)
    assert int(left_standing(bench).sum()) == int(bench.right.sum()) - 1
    bench.random = False
    assert int(left_standing(bench).sum()) == 0


def test_an_interruption_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a cure: attack and standard are done by then."""
    real, calls = auditing.audit, []

    def audit(*args: object, **named: object) -> ss.Result:
        calls.append(1)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("signstep.diagnosing.bench.audit", audit)
    d = ROUNDED.diagnosed(data=data(FEW))
    assert d.partial
    assert d.standard is not None
    assert any(note.startswith("partial") for note in d.notes)
    assert d.verdict.word in ("inflated", "undetermined")
    assert d.tests


def test_a_section_and_plain_values_say_the_same(rounded: ss.Diagnosis) -> None:
    section = rounded.section()
    assert isinstance(section, ss.Section)
    assert section.text[0] == str(rounded.verdict)
    assert len(section.rows) == len(rounded.tests)
    plain = rounded.plain()
    assert plain["verdict"]["word"] == "inflated"
    assert [shlex.split(line)[:2] for line in plain["commands"]] == [["signstep", "audit"]] * len(rounded.commands)
    assert "student" not in plain or plain["student"] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"examples": 0}, "examples=0"),
        ({"examples": 129}, "from 1 to 128"),
        ({"attack": "pgdd"}, "did you mean 'pgd'"),
        ({"search": ss.Search(target="random")}, "has no meaning for diagnose"),
        ({"threat": ss.linf(torch.full((24,), 0.1))}, "pass one eps for all"),
        ({"data": []}, "gave no batches"),
    ],
)
def test_what_makes_no_sense_is_said(given: dict[str, object], said: str) -> None:
    with pytest.raises(ss.SignstepError, match=said):
        HEALTHY.diagnosed(**given)


def test_a_softmax_written_by_hand_is_searched_behind_it_and_what_cannot_be_typed_is_said() -> None:
    """Over large scores it is 0 and 1 in float32; the adapted number is that of the network without it."""

    def ended(net: nn.Module, u: Tensor) -> Tensor:
        e = (40 * (net(u) - net(u).amax(1, keepdim=True))).exp()
        shares: Tensor = e / e.sum(1, keepdim=True)
        return shares

    x, y = data(FEW)
    hidden = Specimen(ss.Model(Through(ended), outputs="logits"), "pgd:steps=10", eps=0.15)
    plain = Specimen(NET, "pgd:steps=10", eps=0.15).diagnosed(data=(x, y))
    d = hidden.diagnosed(data=(x, y))
    assert d.before > plain.after
    assert str(d.verdict).startswith("inflated by saturated loss")
    assert d.after == plain.after
    (said,) = [note for note in d.notes if "stands in no command" in note]
    assert 'ss.Search(surrogate=ss.Model(Inner(network, 3, (0,)), outputs="logits")), Inner of signstep.diagn' in said
    assert not any("float64" in word for words in d.commands for word in words)
