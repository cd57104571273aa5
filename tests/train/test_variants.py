"""Recipes with knobs beside their options, and recipes in words."""

import pytest

from signstep.cli import main
from signstep.errors import InputError
from signstep.train.descriptions import TEXTS, explained
from signstep.train.recipes import OPTIONS, TRAINING_RECIPES
from signstep.train.settings import Settings
from signstep.train.variants import variant, with_knobs
from written_down import written_down

BASE = Settings(epochs=7)


def test_no_name_is_both_an_option_and_a_knob() -> None:
    assert not set(OPTIONS) & set(Settings.__dataclass_fields__)


def test_options_and_knobs_stand_in_one_list() -> None:
    recipe, settings = variant("pgd-at:steps=3, smoothing=0.25,inside=false,flip=true,check_every=5,cure=trades", BASE)
    assert (recipe.name, recipe.steps, recipe.inside) == ("pgd-at", 3, False)
    assert (settings.epochs, settings.smoothing, settings.flip) == (7, 0.25, True)
    assert (settings.check_every, settings.cure) == (5, "trades")
    assert variant("n-fgsm", BASE) == (TRAINING_RECIPES["n-fgsm"], BASE)
    assert with_knobs(settings, ["cure=none", "check_every=none", "compile=true"]) == Settings(
        epochs=7, smoothing=0.25, flip=True, compile=True
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("n-fgms:epochs=3", "did you mean 'n-fgsm'"),
        ("n-fgsm:epoch=3", "is no option; pass NAME=VALUE with spread"),
        ("n-fgsm:epochs=three", "is not a number"),
        ("n-fgsm:epochs=3,epochs=4", "given twice"),
        ("n-fgsm:flip=yes", "pass true or false"),
        ("n-fgsm:epochs=0", "epochs=0"),
        ("n-fgsm:epochs", "setting 'epochs'"),
    ],
)
def test_what_makes_no_sense_is_told(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        variant(spec, BASE)


@pytest.mark.parametrize("name", list(TRAINING_RECIPES))
def test_every_recipe_is_explained(name: str) -> None:
    assert written_down(TEXTS, name, "(in train/descriptions.py) formula and pitfalls")
    text, row = explained(name), TRAINING_RECIPES[name]
    assert row.title in text
    assert row.source in text
    assert "Pitfalls" in text
    assert f"Passes     {row.passes[0]} forward and {row.passes[1]} backward" in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_the_command_line_lists_and_explains_both_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    listed = capsys.readouterr().out.partition("Training recipes")[2]
    assert all(f"  {name} " in listed for name in TRAINING_RECIPES)
    assert main(["explain", "trades"]) == 0
    assert "KL(p(x) || p(x + d))" in capsys.readouterr().out
    assert main(["explain", "fgsm"]) == 0
    both = capsys.readouterr().out
    assert "Worked examples" in both, "the attack"
    assert "fgsm, a training recipe (signstep train --recipe fgsm)" in both
    assert main(["explain", "nothing"]) == 2
    assert "training recipes are natural" in capsys.readouterr().err
