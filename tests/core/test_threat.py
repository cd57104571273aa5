"""Threat models: what is read, what is refused, what is warned of, what is equal."""

import re

import pytest
import torch
from small_nets import mlp, rand
from torch import Tensor

import signstep as ss
from signstep.engine.threat import parse_threat
from signstep.errors import InputError, ThreatError


def test_eps_in_every_form_is_the_same_number() -> None:
    forms: list[str | float | Tensor] = ["8/255", " 8 / 255 ", 8 / 255, torch.tensor(8 / 255, dtype=torch.float64)]
    x = rand(2, 18)
    for form in forms:
        assert torch.equal(ss.fgsm(mlp(), x, eps=form), ss.fgsm(mlp(), x, eps=8 / 255))
    assert str(ss.linf("8/255")) == "linf eps=8/255, box=[0, 1]"
    assert ss.linf("8/255").eps == 8 / 255
    assert ss.l2(1).eps == 1.0
    assert ss.l2("0.5").eps == 0.5


@pytest.mark.parametrize(
    ("eps", "message"),
    [
        (-0.1, "negative"),
        ("-1/255", "negative"),
        (float("nan"), "finite"),
        ("nan", "finite"),
        (float("inf"), "finite"),
        ("inf", "finite"),
        ("8/0", "not a number"),
        ("8/255/2", "not a number"),
        ("eight", "not a number"),
        ("", "not a number"),
        ({0.1, 0.2}, "not a number"),
        (["8/255", 0.2], "no numbers"),
        (True, "not a number"),
        (torch.tensor([0.1, -0.1]), "negative"),
        (torch.tensor([0.1, float("nan")]), "finite"),
        (torch.zeros(2, 2), "shape"),
        (torch.tensor([]), "empty"),
        (1.01, "diameter"),
        (8, "diameter"),
        (torch.tensor([0.1, 8.0]), "diameter"),
    ],
)
def test_impossible_eps_is_refused(eps: object, message: str) -> None:
    with pytest.raises(ThreatError, match=message):
        ss.linf(eps)  # type: ignore[arg-type]


def test_an_eps_on_another_scale_names_the_likely_mistake() -> None:
    with pytest.raises(ThreatError, match=r"8/255.*eps=None"):
        ss.linf(8)


@pytest.mark.parametrize(("norm", "diameter"), [("l2", 18**0.5), ("l1", 18.0), ("pixel", 2**0.5), ("linf", 1.0)])
def test_the_diameter_of_the_box_bounds_eps(norm: str, diameter: float) -> None:
    x = rand(2, 2, 3, 3)
    with pytest.warns(ss.SignstepWarning, match="half"):
        ss.fgsm(mlp(), x, eps=diameter * 0.51, norm=norm)
    with pytest.warns(ss.SignstepWarning, match="half"):
        ss.fgsm(mlp(), x, eps=diameter, norm=norm)
    with pytest.raises(ThreatError, match="diameter"):
        ss.fgsm(mlp(), x, eps=diameter * 1.001, norm=norm)
    ss.fgsm(mlp(), x, eps=diameter * 0.49, norm=norm)
    ss.fgsm(mlp(), x, eps=diameter * 1.5, norm=norm, box=None)
    ss.fgsm(mlp(), x, eps=diameter * 1.5, norm=norm, box=(0, None))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "pixel"])
@pytest.mark.parametrize("per_row", [False, True])
def test_bounds_per_feature(norm: str, per_row: bool) -> None:
    x = rand(4, 2, 3, 3)
    shape = (4, 2, 3, 3) if per_row else (2, 3, 3)
    low, high = -rand(*shape, seed=1), 1 + rand(*shape, seed=2)
    outcome = ss.attack(mlp(), x, threat=ss.threat_model(norm, 0.4, box=(low, high)), recipe="pgd:steps=4")
    assert isinstance(outcome.x, Tensor)
    assert bool(outcome.verified.all())
    assert bool((outcome.x >= low).all())
    assert bool((outcome.x <= high).all())
    with pytest.raises(ThreatError, match="diameter"):
        ss.attack(mlp(), x, threat=ss.threat_model(norm, 100.0, box=(low, high)))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1.0, 0.0), "empty"),
        ((float("nan"), 1.0), "NaN"),
        ((0.0, torch.tensor([1.0, float("nan")])), "NaN"),
        ((torch.tensor([0.0, 2.0]), 1.0), "empty"),
    ],
)
def test_impossible_boxes_are_refused(box: tuple[float, float], message: str) -> None:
    with pytest.raises(ThreatError, match=message):
        ss.linf(0.1, box=box)


@pytest.mark.parametrize("end", [[], torch.zeros(5, 0), torch.zeros(0)], ids=["list", "rows", "tensor"])
@pytest.mark.parametrize("name", ["low", "high"])
def test_an_end_of_the_box_that_holds_nothing_is_refused(name: str, end: object) -> None:
    with pytest.raises(ThreatError, match=f"box has a {name} end of shape .*, which is empty; pass a number, or one"):
        ss.linf(0.1, box=(end, 1.0) if name == "low" else (0.0, end))  # type: ignore[arg-type]


def test_open_boxes() -> None:
    assert ss.linf(0.1, box=(None, None)) == ss.linf(0.1, box=None)
    assert ss.linf(0.1, box=(float("-inf"), float("inf"))) == ss.linf(0.1, box=None)
    with pytest.raises(ThreatError, match="open"):
        ss.linf(None, box=(0, None))
    with pytest.raises(ThreatError, match="open"):
        ss.linf(None, box=None)


def test_masks_and_grids_that_make_no_sense() -> None:
    with pytest.raises(ThreatError, match="bool"):
        ss.linf(0.1, mask=torch.ones(4))
    with pytest.raises(ThreatError, match="scalar"):
        ss.linf(0.1, box=None, grid=255)
    with pytest.raises(ThreatError, match="255"):
        ss.linf(0.1, grid=0)
    with pytest.raises(ThreatError, match="255"):
        ss.linf(0.1, grid=1 / 255)  # type: ignore[arg-type]
    x = rand(3, 18)
    with pytest.raises(ThreatError, match="mask has shape"):
        ss.fgsm(mlp(), x, eps=0.1, mask=torch.ones(5, dtype=torch.bool))
    with pytest.raises(ThreatError, match="low end"):
        ss.fgsm(mlp(), x, eps=0.1, box=(torch.zeros(5), None))
    with pytest.raises(InputError, match="off the grid"):
        ss.fgsm(mlp(), x, eps=0.1, grid=255)
    with pytest.raises(ThreatError, match="entries"):
        ss.fgsm(mlp(), x, eps=torch.full((4,), 0.1))


def test_equality_and_copies() -> None:
    mask = torch.tensor([True, False])
    assert ss.linf("8/255") == ss.linf(8 / 255)
    assert ss.linf("8/255") != ss.linf(9 / 255)
    assert ss.linf("8/255") != ss.l2(8 / 255)
    assert ss.linf(0.1) != ss.linf(0.1, box=None)
    assert ss.linf(0.1) != ss.linf(0.1, grid=255)
    assert ss.linf(0.1, mask=mask) == ss.linf(0.1, mask=mask.clone())
    assert ss.linf(0.1, mask=mask) != ss.linf(0.1, mask=~mask)
    assert ss.linf(0.1, mask=mask) != ss.linf(0.1)
    assert ss.linf(torch.tensor([0.1, 0.2])) == ss.linf(torch.tensor([0.1, 0.2]))
    assert ss.linf(0.1) != "linf"
    assert ss.linf(0.1).with_eps("4/255") == ss.linf("4/255")
    assert "4/255" in str(ss.linf(0.1).with_eps("4/255"))
    with pytest.raises(AttributeError):
        ss.linf(0.1).eps = 0.2  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(ss.linf(0.1))


def test_the_command_lines_form() -> None:
    assert parse_threat("linf:8/255") == ss.linf("8/255")
    assert parse_threat("L2:0.5", box=None) == ss.l2(0.5, box=None)
    assert parse_threat("linf:none") == ss.linf(None)
    assert parse_threat("pixel:0.1", grid=255) == ss.threat_model("pixel", 0.1, grid=255)
    for text in ("linf", "linf:", "8/255", ":8/255", "l7:0.1", "linf:big"):
        with pytest.raises(ThreatError):
            parse_threat(text)


def test_threats_that_are_not_threats() -> None:
    x = rand(3, 18)
    for threat in ("linf:8/255", 0.1, None):
        with pytest.raises(ThreatError, match=re.escape("ss.linf('8/255')")):
            ss.attack(mlp(), x, threat=threat)  # type: ignore[arg-type]
    with pytest.raises(ThreatError, match="one tensor"):
        ss.attack(mlp(), x, threat={"x": ss.linf(0.1)})
    with pytest.raises(ThreatError, match="inputs"):
        ss.attack(lambda **_: None, {"a": x}, threat={"b": ss.linf(0.1)})
    with pytest.raises(ThreatError, match="may change"):
        ss.attack(lambda **_: None, {"a": x, "b": x}, threat=ss.linf(0.1))
