"""Schemas: what is read, and what is refused in one sentence."""

from pathlib import Path

import pytest

from signstep.domains.case import Request
from signstep.domains.control import case, infer
from signstep.domains.control.schema import read_schema
from signstep.errors import InputError, LoadError, SignstepError, ThreatError

GOOD = """
plant = "cart-pole"
seconds = 1.0
starts = 3

[[sensor]]
name = "pole angle"
unit = "rad"
budget = 0.05
rate = 0.5
shape = "bias"
windows = [[0.2, 0.8]]

[[sensor]]
name = "cart position"
compromised = false
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "schema.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_schema_becomes_sensors(tmp_path: Path) -> None:
    schema = read_schema(written(tmp_path, GOOD))
    angle = schema.sensors[0]
    assert (angle.budget, angle.rate, angle.shape, angle.windows) == (0.05, 0.5, "bias", ((0.2, 0.8),))
    assert schema.trusted == {"cart position"}
    made = case(Request(schema=written(tmp_path, GOOD)))
    assert made.total == 3
    assert [part["budget"] for part in made.terms["sensors"]] == [0.0, 0.0, 0.05, 0.0]
    assert made.terms["samples"] == 50
    # a bias binds all samples: an attacker who cannot see ahead has nothing to choose
    assert [attack for attack in made.attacks if not isinstance(attack, str)] == []


WRONG = {
    "no toml": ("plant = ", "is not TOML"),
    "a typo": (GOOD.replace("budget", "bugdet"), "sensor 'pole angle' has 'bugdet', which is not known"),
    "a typo above": ("sekonds = 1.0", "the schema has 'sekonds'"),
    "a negative budget": (GOOD.replace("0.05", "-0.05"), "budget = -0.05; write a number of 0 or more"),
    "a text": (GOOD.replace("0.05", "'big'"), "budget = 'big'; write a number of 0 or more"),
    "an infinite rate": (GOOD.replace("0.5\n", "inf\n"), "rate = inf; write a number above 0"),
    "a shape": (GOOD.replace('"bias"', '"wave"'), "shape='wave'; give one of free, bias, drift"),
    "a window": (GOOD.replace("[[0.2, 0.8]]", "[0.2, 0.8]"), "write pairs of seconds"),
    "a window that ends first": (GOOD.replace("[0.2, 0.8]", "[0.8, 0.2]"), "is not 0 <= from < to"),
    "a contradiction": (
        GOOD.replace("compromised = false", "compromised = false\nbudget = 1.0"),
        "'cart position' is not compromised and yet has budget = 1.0; drop one of the two",
    ),
    "a rate without budget": (GOOD + "budget = 0\nrate = 1.0\n", "is not compromised and yet has rate"),
    "loop and series": (GOOD.replace("starts = 3", "window = 3"), "drop one of the two"),
    "twice": (GOOD.replace("cart position", "pole angle"), "two sensors are called 'pole angle'"),
    "an unknown sensor": (GOOD.replace("cart position", "cart colour"), "'cart colour' is not one of cart-pole"),
    "another unit": (GOOD.replace('"rad"', '"deg"'), "is given in deg, and cart-pole has it in rad"),
    "no budget": (GOOD.replace("budget = 0.05\n", ""), "'pole angle' has no budget; write one in rad"),
    "no name": (GOOD.replace('name = "cart position"', ""), "sensor 2 has no name"),
    "one bracket": ('[sensor]\nname = "a"\n', "write [[sensor]], with two brackets"),
    "a plant": (GOOD.replace('"cart-pole"', '"crane"'), "plant='crane' is not one of cart-pole, pendulum"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_schemas_get_one_sentence(tmp_path: Path, name: str) -> None:
    text, said = WRONG[name]
    with pytest.raises(SignstepError) as caught:
        case(Request(schema=written(tmp_path, text)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value).split("(")[0]


def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        case(Request(schema=tmp_path / "none.toml"))
    with pytest.raises(ThreatError, match=r"write budget:0\.5 for half of them"):
        case(Request(threat="linf:0.1"))
    with pytest.raises(ThreatError, match="budget:-1"):
        case(Request(threat="budget:-1"))
    with pytest.raises(InputError, match="need a model"):
        case(Request(weights=tmp_path / "w.safetensors"))
    with pytest.raises(InputError, match="label_column='y' has no meaning"):
        case(Request(label_column="y"))
    with pytest.raises(
        InputError, match="plant = 'cart-pole' in the schema is a closed loop, and data gives recorded series"
    ):
        case(Request(data=str(tmp_path), schema=written(tmp_path, GOOD)))


def test_a_schema_that_is_made_means_what_is_done_without_one(tmp_path: Path) -> None:
    path = written(tmp_path, infer(Request()))
    with_it, without = case(Request(schema=path)), case(Request())
    assert with_it.terms == without.terms
    assert "# rate = ..." in path.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="it is there already"):
        infer(Request(schema=path))
