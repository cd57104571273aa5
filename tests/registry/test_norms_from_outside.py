"""Norms of somebody else's: by "module:name", with arguments, under names; none gives a verdict without a check."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scratch import installed, written
from torch import Tensor

import signstep as ss
from signstep.auditing.evidence import Evidence
from signstep.auditing.rescore import allowed
from signstep.cli import main
from signstep.engine.norms import L0, L2, NORMS, CheckedNorm, Grouped, Norm, norm
from signstep.engine.threat import parse_threat
from signstep.engine.verify import KINDS, verify
from signstep.errors import InputError, LoadError, ThreatError
from signstep.registry import NotTypedError, typed_only

MODULE = '''
"""Norms of our own."""
from dataclasses import dataclass

import torch

from signstep.engine.norms import L2


@dataclass(frozen=True)
class Unchecked:
    """The Euclidean length in units of a scale: sqrt(sum (d / s)^2)."""

    scale: float

    @property
    def name(self):
        return f"unchecked({self.scale:g})"

    def length(self, d):
        return L2().length(d / self.scale)

    def dual_length(self, g):
        return L2().dual_length(g * self.scale)

    def steepest(self, g, radius, low=None, high=None):
        return L2().steepest(g, radius * self.scale, low, high)

    def project(self, d, radius, low=None, high=None):
        return L2().project(d, radius * self.scale, low, high)

    def sample(self, draws, shape):
        return self.scale * L2().sample(draws, shape)

    def diameter(self, low, high, shape):
        return L2().diameter(low, high, shape) / self.scale


@dataclass(frozen=True)
class Weighted(Unchecked):
    """The same, with its own check."""

    @property
    def name(self):
        return f"weighted({self.scale:g})"

    def check(self, before, after):
        return ((after - before) / self.scale).flatten(1).square().sum(1).sqrt()


@dataclass(frozen=True)
class Lying(Weighted):
    """Goes twice as far as it says."""

    def length(self, d):
        return super().length(d) / 2

    def steepest(self, g, radius, low=None, high=None):
        return super().steepest(g, 2 * radius, low, high)

    def project(self, d, radius, low=None, high=None):
        return super().project(d, 2 * radius, low, high)


@dataclass(frozen=True)
class Named(Weighted):
    called: str = "half"

    @property
    def name(self):
        return self.called


class OfOneSize(Weighted):
    def check(self, before, after):
        return (after - before).abs().amax()


HALF = Named(0.5)
BARE = Unchecked(0.5)


def half():
    return HALF


def of_two_words():
    return Named(0.5, "one half")


def stolen():
    return Named(0.5, "l2")


class Nothing:
    name = "nothing"

    def length(self, d):
        return d


number = 3
'''
NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with norms, a model and data; it is the current one."""
    written(tmp_path, {"ournorms.py": MODULE, "ournets.py": NETS})
    monkeypatch.chdir(tmp_path)
    x, y = _batch()
    np.savez(tmp_path / "set.npz", x=x.numpy(), y=y.numpy())
    return tmp_path


def _net() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 3)).eval()


def _batch() -> tuple[Tensor, Tensor]:
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, _net()(x).argmax(1)


def _sizes(outcome: ss.Outcome) -> Tensor:
    assert isinstance(outcome.distance, Tensor)
    return outcome.distance


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("ournorms:Weighted(0.5)", "weighted(0.5)"),
        ("ournorms:Weighted(scale=0.5)", "weighted(0.5)"),
        ("ournorms:HALF", "half"),
        ("ournorms:half", "half"),
    ],
)
def test_a_norm_is_named_by_its_module(spec: str, name: str) -> None:
    threat = parse_threat(f"{spec}:0.3")
    assert threat == ss.threat_model(spec, 0.3)
    assert str(threat) == f"{name} eps=0.3, box=[0, 1]"
    assert parse_threat(f"{spec}:1/4").label == "1/4"
    assert parse_threat(f"{spec}:none").eps is None
    x, y = _batch()
    outcome = ss.attack(_net(), x, y, threat=threat, recipe="pgd")
    assert bool(outcome.verified.all())
    assert isinstance(outcome.x, Tensor)
    change = (outcome.x - x).double().square().sum(1).sqrt() / 0.5
    torch.testing.assert_close(_sizes(outcome).double(), change, rtol=1e-6, atol=1e-9)
    assert float(change.max()) == pytest.approx(0.3, rel=1e-5)
    record = ss.audit(_net(), (x, y), threat=threat, attacks=["fgsm", "pgd"])
    assert record.terms["norm"] == record.terms["threat_terms"]["kind"] == name
    assert record.terms["threat"] == str(threat)
    assert sum(entry.unverified for entry in record.attacks) == 0


@pytest.mark.usefixtures("here")
def test_its_check_looks_at_what_the_search_did() -> None:
    x, y = _batch()
    outcome = ss.attack(_net(), x, y, threat=ss.threat_model("ournorms:Lying(0.5)", 0.3), recipe="pgd")
    beyond = _sizes(outcome) > 0.3 * (1 + 1e-5)
    assert int(beyond.sum()) > 4
    assert torch.equal(outcome.verified, ~beyond)
    assert not bool(outcome.fooled[beyond].any())
    said = r"the check of norm 'weighted\(0.5\)' gave shape \(\) for 12 rows; return one"
    with pytest.raises(InputError, match=said):
        ss.attack(_net(), x, y, threat=ss.threat_model("ournorms:OfOneSize(0.5)", 0.3))


@pytest.mark.usefixtures("here")
def test_without_a_check_there_is_no_verdict_and_it_is_said_before_the_model_is_asked() -> None:
    x, y = _batch()
    threat = ss.threat_model("ournorms:BARE", 0.3)
    assert isinstance(threat.norm, Norm)
    assert not isinstance(threat.norm, CheckedNorm)

    def asked(_: Tensor) -> Tensor:
        raise AssertionError("the model was asked")

    said = r"norm 'unchecked\(0.5\)' has no check\(before, after\), without which no verdict can be given"
    calls: dict[str, Any] = {
        "attack": lambda: ss.attack(asked, x, y, threat=threat),
        "attack by name": lambda: ss.attack(asked, {"a": x}, y, threat={"a": threat}),
        "audit": lambda: ss.audit(asked, (x, y), threat=threat),
        "transfer": lambda: ss.transfer({"a": asked}, {"b": asked}, (x, y), threat=threat),
        "maximise": lambda: ss.maximise(asked, x, threat),
    }
    for call in calls.values():
        with pytest.raises(ThreatError, match=said):
            call()
    # A step alone claims nothing.
    stepped = ss.fgsm(_net(), x, y, eps=0.3, norm=threat.norm)
    assert float((stepped - x).square().sum(1).sqrt().max()) == pytest.approx(0.15, rel=1e-4)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("ournorms:Nothing", "norm Nothing has no dual_length, no steepest, no project, no sample, no diameter, which"),
        ("ournorms:number", "norm int has no length"),
        ("ournorms:of_two_words", "norm Named has the name 'one half'; write text without spaces"),
        (
            "ournorms:Weighted",
            r"it takes \(scale: float\).*; write .*, as in ournorms:Weighted\(0.5\)",
        ),
        ("ournorms:Weighted(half)", r"its arguments are no plain values; write them as in weighted\(0.5\)"),
        ("ournorms:Weighted(0.5", "its arguments are no plain values"),
        ("ournorms:Weighted(*[1])", "its arguments are no plain values"),
        ("ournorms:Wieghted(0.5)", r"has no Wieghted; did you mean Weighted\?"),
        ("ournorms:number(3)", "it is a int; name a class or a function that makes norms"),
        ("ournorm:Weighted(0.5)", r"there is no module ournorm .*; did you mean ournorms\?"),
        (
            "weighted(0.5)",
            r"norm='weighted\(0.5\)' is not known; use one of linf, .*, or your own, as module",
        ),
    ],
)
def test_what_is_no_norm_is_refused_in_a_sentence(spec: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        norm(spec)


@pytest.mark.usefixtures("here")
def test_a_norm_has_a_name_of_its_own() -> None:
    for spec in ("ournorms:stolen", "ournorms:Named(0.5, 'grouped(0)')"):
        with pytest.raises(ThreatError, match=r"norm Named calls itself '.*', which is one of Signstep's"):
            ss.threat_model(spec, 0.3)
    with pytest.raises(ThreatError, match=r"'ournorms:HALF' names a norm and no size; write ournorms:HALF:0.3"):
        parse_threat("ournorms:HALF")


def test_what_is_passed_as_a_norm_and_is_none_is_said() -> None:
    with pytest.raises(ThreatError, match="norm object has no length, no dual_length"):
        norm(object())  # type: ignore[arg-type]


@pytest.mark.usefixtures("here")
def test_installed_norms_have_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[signstep.norms]\nhalf = ournorms:HALF\n[signstep.norm_families]\nweighted = ournorms:Weighted\n"
    installed(here, "our-norms", {}, points, monkeypatch)
    assert norm("half").name == "half"
    assert "half" in NORMS
    assert list(NORMS.own) == ["linf", "l2", "l1", "l0"]
    # The name in a record is the one that is typed.
    assert norm(norm("weighted(0.25)").name) == norm("weighted(0.25)")
    assert parse_threat("weighted(0.25):0.3").norm.name == "weighted(0.25)"


@pytest.mark.usefixtures("here")
def test_the_command_line_takes_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", "ournets:net", "--data", "set.npz", "--device", "cpu"]
    threat = ["--threat", "ournorms:Weighted(0.5):0.3"]
    assert main(["audit", *model, *threat, "--attack", "fgsm,pgd", "--curve", "none"]) == 0
    assert "weighted(0.5) eps=0.3, box=[0, 1]" in capsys.readouterr().out
    assert ss.Result.load(here / "signstep-report" / "result.json").terms["norm"] == "weighted(0.5)"
    assert main(["audit", *model, "--threat", "ournorms:BARE:0.3", "--attack", "fgsm", "--out", "b"]) == 2
    assert "error: norm 'unchecked(0.5)' has no check(before, after)" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_points_in_a_norm_that_is_not_here_are_not_checked_and_not_imported(here: Path) -> None:
    x, y = _batch()
    evidence, threat = Evidence(), ss.threat_model("ournorms:Weighted(0.5)", 1.0)
    record = ss.audit(_net(), (x, y), threat=threat, attacks=["pgd"], curve=False, run=ss.Run(evidence=evidence))
    points = evidence.tensors()
    assert len(points["row"])
    (here / "ournorms.py").write_text("raise AssertionError('imported')\n")
    bare = allowed(record, points)
    assert bare.holds
    assert not bare.complete
    assert (
        "'weighted(0.5)' is no norm or set of Signstep's, and whoever has it brings its check: pass --threat"
        in bare.seen
    )
    own = allowed(record, points, own={"": threat.terms()})
    assert own.holds
    assert own.complete
    moved = {**points, "x_adv": points["x"] + 1.5 * (points["x_adv"] - points["x"])}
    assert not allowed(record, moved, own={"": threat.terms()}).holds


@pytest.mark.usefixtures("here")
def test_a_file_imports_no_norm(here: Path) -> None:
    x, y = _batch()
    found = ss.universal(_net(), (x, y), threat=ss.threat_model("ournorms:HALF", 0.5), epochs=1)
    found.save(here / "delta.safetensors")
    with pytest.raises(LoadError, match="norm='half' is not known"):
        ss.Universal.load(here / "delta.safetensors")
    with typed_only(), pytest.raises(NotTypedError, match="nothing is imported because a file names it"):
        norm("ournorms:Weighted(0.5)")
    norm("ournorms:Weighted(0.5)")
    with typed_only():
        assert norm("ournorms:Weighted(0.5)").name == "weighted(0.5)"


@dataclass(frozen=True)
class _Scaled(L2):
    """By inheritance; its check is that of L2."""

    factor: float = 1.0


MEASURED: list[Norm] = [
    *NORMS.own.values(),
    Grouped((0,)),
    Grouped((-1,)),
    Grouped((0, 2)),
    L0((0,)),
    L0((0, 2)),
    _Scaled(),
]


@pytest.mark.parametrize("rule", MEASURED, ids=lambda rule: rule.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_check_gives_the_length_of_the_change_in_float64(rule: Norm, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(3)
    before, after = (torch.rand(5, 2, 3, 4, generator=random, dtype=torch.float64).to(dtype) for _ in range(2))
    assert isinstance(rule, CheckedNorm)
    sizes = rule.check(before, after)
    assert sizes.dtype == torch.float64
    torch.testing.assert_close(sizes, rule.length(after.double() - before.double()), rtol=1e-12, atol=0)
    terms = ss.threat_model(rule, 2 if isinstance(rule, L0) else 0.4).terms()
    assert terms.kind in KINDS
    assert terms.check is None
    assert torch.equal(verify(before, after, terms).size, sizes)
