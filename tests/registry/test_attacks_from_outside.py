"""Attacks of somebody's own: by "module:name", by the name that a package gives them, and as rows that are added."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scratch import installed, written

import signstep as ss
from signstep.attacks.recipes import needs_of, split
from signstep.auditing.plans import passes
from signstep.auditing.reattack import attacked_again
from signstep.cli import main
from signstep.cli.options import attacks_of, ladder_of
from signstep.errors import InputError, ModelError
from signstep.explain import explain, topic_of

MODULE = '''
"""Attacks of our own."""
from dataclasses import dataclass, field

import torch

import signstep as ss
from signstep.attacks.recipe import WHITE_BOX, Recipe
from signstep.engine.moves import Move, chain, steepest
from signstep.engine.oracles import Autograd
from signstep.engine.tree import tree_map


def _rms(decay):
    def init(region, d):
        return tree_map(torch.zeros_like, d)

    def update(g, state, view):
        v = tree_map(lambda s, x: decay * s + (1 - decay) * x * x, state, g)
        return tree_map(lambda x, s: x / (s.sqrt() + 1e-12), g, v), v

    return Move(init, update)


def rms_pgd(*, steps: int = 5, decay: float = 0.9, oracle=None):
    """PGD along gradients divided by their size so far.

    More about it.
    """
    move = chain(_rms(decay), steepest(2 / steps))
    return ss.GradientAttack("rms-pgd", move, steps, oracle=oracle or Autograd())


def plain(steps=3, loud=False, start="clean", move=steepest(0.5)):
    assert isinstance(loud, bool)
    return ss.GradientAttack("plain", move, steps, start=start)


def corner(*, restarts: int = 1):
    return ss.recipe(f"random-sign:restarts={restarts}")


ROW = Recipe("rms-pgd", rms_pgd, "PGD with RMS scaling", "nobody 2020", WHITE_BOX, "steps + 1 forwards")
OTHER = Recipe("square", rms_pgd, "of a name that is taken", "nobody", WHITE_BOX, "")
BOUND = Recipe("bound", rms_pgd, "in L2", "nobody", WHITE_BOX, "", norms="l2")
THING = ss.GradientAttack("thing", steepest(1.0), 1)
number = 7
none_of_it = len


def needy(steps):
    return rms_pgd(steps=steps)


def gives_nothing():
    return None


def fails(*, steps: int = 3):
    if steps != 3:
        raise ValueError("no such number of steps\\x1b[2J")
    return rms_pgd()


class Stubborn:
    steps, draws, from_clean = 1, False, False

    @property
    def name(self):
        return "stubborn"

    def __call__(self, problem, region, clean, key, begin=None):
        return THING(problem, region, clean, key, begin)


class Half:
    name = "half"

    def __call__(self, problem, region, clean, key, begin=None):
        return THING(problem, region, clean, key, begin)


class Own:
    """An attack that is no dataclass."""

    name, steps, draws, from_clean, needs = "own", 1, False, True, "gradients"

    def __call__(self, problem, region, clean, key, begin=None):
        return THING(problem, region, clean, key, begin)
'''
PAGE = """RMS(g) = g / sqrt(mean of g^2)

Options

- steps: gradients taken
- decay: of the mean

Pitfalls

- It is an example.
"""
NETS = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of attacks, a model and data; it is the current one."""
    written(tmp_path, {"ourattacks.py": MODULE, "rms_pgd.txt": PAGE, "ournets.py": NETS})
    monkeypatch.chdir(tmp_path)
    x, y = _batch(12)
    np.savez(tmp_path / "set.npz", x=x.numpy(), y=y.numpy())
    return tmp_path


def _batch(rows: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.rand(rows, 6, generator=random)
    with torch.no_grad():
        return x, _net()(x).argmax(1)


def _net() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 3)).eval()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["rms_pgd", "plain", "corner", "ROW", "OTHER", "THING", "Own"])
def test_an_attack_is_named_by_its_module(name: str) -> None:
    spec = f"ourattacks:{name}"
    attack = ss.recipe(spec)
    assert attack.name == spec, "in a record it stands as it can be typed again"
    x, y = _batch()
    outcome = ss.attack(_net(), x, y, threat=ss.linf(0.2), recipe=spec)
    assert bool(outcome.verified.all())
    record = ss.audit(_net(), (x, y), threat=ss.linf(0.2), attacks=["fgsm", spec], curve=ss.Curve(True, [spec]))
    assert [entry.name for entry in record.attacks] == ["fgsm", spec]
    assert spec in record.curves
    assert ss.Result.from_plain(json.loads(record.to_json())) == record


@pytest.mark.usefixtures("here")
def test_what_its_row_says_is_in_the_record() -> None:
    x, y = _batch()
    record = ss.audit(_net(), (x, y), threat=ss.linf(0.2), attacks=["ourattacks:ROW", "ourattacks:corner"])
    rms, corner = record.attacks
    assert (rms.source, rms.needs, rms.steps) == ("nobody 2020", "gradients", 5)
    assert (corner.source, corner.needs, corner.steps) == ("", "nothing", 0)
    assert needs_of(ss.recipe("ourattacks:corner")) == "nothing"


@pytest.mark.usefixtures("here")
def test_options_stand_behind_a_second_colon() -> None:
    assert ss.recipe("ourattacks:rms_pgd:steps=7,decay=0.5").steps == 7
    assert ss.recipe("ourattacks:plain:loud=true,start=uniform,steps=2").steps == 2
    assert split("ourattacks:plain:steps=2") == ("ourattacks:plain", "steps=2")
    with pytest.raises(
        InputError, match="recipe 'ourattacks:plain' has no option 'move=1'; its options are steps, loud"
    ):
        ss.recipe("ourattacks:plain:move=1")
    with pytest.raises(InputError, match="loud='yes'; pass true or false"):
        ss.recipe("ourattacks:plain:loud=yes")
    x, y = _batch()
    spec = "ourattacks:rms_pgd:steps=7,decay=0.5"
    record = ss.audit(_net(), (x, y), threat=ss.linf(0.2), attacks=[spec, "ourattacks:rms_pgd"])
    assert [entry.name for entry in record.attacks] == [spec, "ourattacks:rms_pgd"]
    assert [entry.steps for entry in record.attacks] == [7, 5]


def test_text_of_the_command_line_keeps_the_colons() -> None:
    assert attacks_of(["fgsm,ourattacks:rms_pgd:steps=7,decay=0.5,pgd"]) == [
        "fgsm",
        "ourattacks:rms_pgd:steps=7,decay=0.5",
        "pgd",
    ]
    assert ladder_of(["ourattacks:rms_pgd"]) == ["ourattacks:rms_pgd"]
    assert ladder_of(["ourattacks:rms_pgd:steps=3 near<=0.3"]) == ["ourattacks:rms_pgd:steps=3 near<=0.3"]
    assert ladder_of(["quick"]) == "quick"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("number", "it is a int; name a function that makes an attack, a Recipe or an attack"),
        ("needy", "its argument steps has no default; recipes are made by name alone; give it one"),
        ("gives_nothing", "what it makes is a NoneType; let it return an attack, such as signstep.GradientAttack"),
        ("none_of_it", "its argument obj has no default"),
        ("BOUND", r"it has norms='l2'; write a tuple of names, such as \('linf',\)"),
        ("Half", "what it makes has no steps and no draws and no from_clean"),
        ("Stubborn", "calls itself 'stubborn' and cannot be called otherwise; give it a field name"),
        ("rmspgd", r"has no rmspgd; did you mean rms_pgd\?"),
    ],
)
def test_what_is_no_attack_is_refused_in_a_sentence(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ss.recipe(f"ourattacks:{name}")


@pytest.mark.usefixtures("here")
def test_what_its_function_raises_is_the_functions_own(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([*OWN_MODEL, "--attack", "ourattacks:fails:steps=4", "--threat", "linf:0.2"])
    said = capsys.readouterr().err
    assert status == 3
    assert "the attack ourattacks:fails raised ValueError: no such number of steps\\u001b[2J" in said
    assert "ourattacks.py, line" in said


OWN_MODEL = ["audit", "--model", "ournets:net", "--data", "set.npz", "--curve", "none", "--device", "cpu"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("how", ["--attack", "--ladder"])
def test_the_command_line_takes_them(here: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = "ourattacks:rms_pgd:steps=4,decay=0.5"
    assert main([*OWN_MODEL, "--threat", "linf:0.2", how, f"fgsm,{spec}"]) == 0
    assert spec in capsys.readouterr().out
    record = ss.Result.load(here / "signstep-report" / "result.json")
    assert [entry.name for entry in record.attacks] == ["fgsm", spec]
    assert main(["attack", *OWN_MODEL[1:5], "--threat", "linf:0.2", "--recipe", spec, "--format", "npz"]) == 0


@pytest.mark.usefixtures("here")
def test_a_page_beside_the_function_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "ourattacks:rms_pgd"]) == 0
    page = capsys.readouterr().out
    assert "ourattacks:rms_pgd: PGD along gradients divided by their size so far." in page
    assert "RMS(g) = g / sqrt(mean of g^2)" in page
    assert "of the mean (0.9)" in page
    assert "It is an example." in page
    assert topic_of("ourattacks:plain") is None


POINTS = "[signstep.attacks]\nrms-pgd = ourattacks:ROW\ncorner = ourattacks:corner\n"


def test_an_installed_package_gives_its_attacks_names(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(here, "our-attacks", {}, POINTS, monkeypatch)
    assert ss.recipe("rms-pgd:steps=3").steps == 3
    x, y = _batch()
    record = ss.audit(_net(), (x, y), threat=ss.linf(0.2), attacks=["rms-pgd:steps=3", "corner"])
    assert [(entry.name, entry.source, entry.needs) for entry in record.attacks] == [
        ("rms-pgd:steps=3", "nobody 2020", "gradients"),
        ("corner", "", "nothing"),
    ]
    assert explain("rms-pgd").startswith("rms-pgd: PGD with RMS scaling\n\n    RMS(g) = g / sqrt(mean of g^2)")
    assert main(["list"]) == 0
    assert "\n  rms-pgd " in capsys.readouterr().out
    with pytest.raises(InputError, match=r"recipe='rms-pdg' is not known; did you mean 'rms-pgd'\?"):
        ss.recipe("rms-pdg")


def test_a_row_calls_itself_what_its_package_calls_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(here, "our-attacks", {}, "[signstep.attacks]\nrms = ourattacks:ROW\n", monkeypatch)
    with pytest.warns(ss.SignstepWarning, match="the row calls itself 'rms-pgd'; give it the name 'rms'"):
        assert "rms" not in ss.RECIPES


@pytest.mark.usefixtures("here")
def test_a_record_imports_no_attack(here: Path) -> None:
    x, y = _batch()
    spec = "ourattacks:rms_pgd"
    record = ss.audit(_net(), (x, y), threat=ss.linf(0.2), attacks=["fgsm", spec], curve=False)
    again = partial(
        attacked_again, record, [(x, y)], 4, model=ss.Model(_net()), threat=ss.linf(0.2), search=ss.Search()
    )
    known = passes(record)
    assert known.holds
    assert known.complete
    assert again().complete
    ss.RECIPES.forget()
    (here / "ourattacks.py").write_text("raise AssertionError('imported')\n")
    unknown = passes(record)
    assert unknown.holds
    assert not unknown.complete
    assert "ourattacks:rms_pgd is somebody's own (pass it with --attack, if you trust it)" in unknown.seen
    undone = again()
    assert undone.holds
    assert not undone.complete
    assert "nothing is imported because a file names it" in undone.seen


@pytest.mark.usefixtures("here")
def test_an_attack_without_gradients_crafts_no_transfer() -> None:
    x, y = _batch()
    with pytest.raises(InputError, match="asks the model itself for answers"):
        ss.transfer({"a": _net()}, {"b": _net()}, (x, y), threat=ss.linf(0.2), recipe="ourattacks:corner")
    made = ss.transfer({"a": _net()}, {"b": _net()}, (x, y), threat=ss.linf(0.2), recipe="ourattacks:rms_pgd")
    assert made.terms["recipe"] == "ourattacks:rms_pgd"


@pytest.mark.usefixtures("here")
def test_gradients_may_come_from_elsewhere_where_the_function_takes_an_oracle_or_its_attack_has_one() -> None:
    x, y = _batch()
    for name in ("rms_pgd", "plain"):
        outcome = ss.attack(
            _net(),
            x,
            y,
            threat=ss.linf(0.2),
            recipe=f"ourattacks:{name}",
            search=ss.Search(surrogate=torch.nn.Linear(6, 3)),
        )
        assert any("surrogate" in note for note in outcome.notes)
    with pytest.raises((InputError, ModelError), match="asks the model itself"):
        ss.attack(
            _net(),
            x,
            y,
            threat=ss.linf(0.2),
            recipe="ourattacks:Own",
            search=ss.Search(surrogate=torch.nn.Linear(6, 3)),
        )
