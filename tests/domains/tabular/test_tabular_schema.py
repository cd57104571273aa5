import re
from dataclasses import replace
from pathlib import Path

import pytest
from small_credit import credit

from signstep.domains.tabular import Feature, Schema, parse_schema, schema_text
from signstep.domains.tabular.cells import read_cells
from signstep.domains.tabular.infer import infer_schema
from signstep.domains.tabular.relations import read_relation
from signstep.errors import InputError, LoadError

TEXT = """
relations = ["a <= b"]
[target]
column = "y"
classes = ["no", "yes"]
favourable = "yes"
[feature.a]
kind = "continuous"
low = 0
high = 10
[feature.b]
kind = "integer"
low = 0
high = 9
[feature.c]
kind = "categorical"
levels = ["p", "q", "r"]
"""


def test_a_schema_is_the_same_after_a_round_trip_through_toml_and_plain_values() -> None:
    schema = credit(changes=3)
    assert parse_schema(schema_text(schema)) == schema
    assert Schema.of(schema.plain()) == schema


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("low = 0\nhigh = 10", "low = 11\nhigh = 10", "[feature.a]: low = 11 is above high = 10"),
        ("low = 0\nhigh = 10", "low = 0", "[feature.a] has no low or no high"),
        ('kind = "categorical"', 'kind = "colour"', "[feature.c]: kind = 'colour'"),
        ('levels = ["p", "q", "r"]', 'levels = ["p"]', "two or more levels"),
        ('levels = ["p", "q", "r"]', 'levels = ["p", "p"]', "the level 'p' is named twice"),
        ('levels = ["p", "q", "r"]', 'levels = ["p", "q"]\nchange = "up"', "categories have no order"),
        ('levels = ["p", "q", "r"]', 'levels = ["p", "q"]\nbudget = "2 %"', "its values are levels"),
        ("a <= b", "a <= d", "names 'd', which is no feature"),
        ("a <= b", "a <= c", "whose categories are no numbers"),
        ("a <= b", "a >= b + 20", "no record can satisfy the relation"),
        ("a <= b", "a < b", "exactly one of <=, >= and ="),
        ("a <= b", "a 2 <= b", "cannot be read"),
        ("a <= b", "1 <= 2", "leaves no feature"),
        ('favourable = "yes"', 'favourable = "maybe"', "favourable = 'maybe' is not among the classes"),
        ('favourable = "yes"', "", "[target] has no favourable"),
        ('column = "y"', 'column = "a"', "is the target and a feature"),
        ("high = 9", 'high = 9\nbudget = "much"', "budget = 'much'"),
        ("high = 9", 'high = 9\nbudget = "-1"', "budget = '-1'"),
        ("high = 9", "high = 9\nstep = 0.5", "step = 0.5 for whole numbers"),
        ("high = 9", 'high = 9\ncolour = "red"', "'colour', which means nothing here"),
        ("high = 9", 'high = "nine"', "high = 'nine'; write a finite number"),
        ("high = 9", 'high = 9\nrises = "{much} more"', "cannot be filled"),
        ("high = 9", "high = 9\ncost = -1", "spread and cost above 0"),
    ],
)
def test_a_schema_that_contradicts_itself_is_one_clear_sentence(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        parse_schema(TEXT.replace(old, new), "my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert "\n" not in str(caught.value)


def test_relations_that_only_together_cannot_hold_are_found() -> None:
    with pytest.raises(InputError, match="no record can satisfy"):
        parse_schema(TEXT.replace('"a <= b"', '"a >= 6 ", "b = 2 * a"'))


def test_text_that_is_no_toml_is_a_load_error() -> None:
    with pytest.raises(LoadError, match="is not TOML"):
        parse_schema("[feature", "my.toml")


@pytest.mark.parametrize(
    ("rule", "weights", "bound", "equal"),
    [
        ("total = a + b", {"total": 1, "a": -1, "b": -1}, 0, True),
        ("2 * a - b <= 100", {"a": 2, "b": -1}, 100, False),
        ("a >= b + 3", {"a": -1, "b": 1}, -3, False),
        ("'mean radius' <= 'worst radius'", {"mean radius": 1, "worst radius": -1}, 0, False),
        ("-a + 2.5 <= -2*b", {"a": -1, "b": 2}, -2.5, False),
        ("a + a = 4", {"a": 2}, 4, True),
        ("a * 3 <= 6", {"a": 3}, 6, False),
    ],
)
def test_relations_are_read(rule: str, weights: dict[str, float], bound: float, equal: bool) -> None:
    relation = read_relation(rule)
    assert (dict(relation.weights), relation.bound, relation.equal) == (weights, bound, equal)


def test_a_schema_is_inferred_and_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "ID;Age;Sex;City;Sum;Rate;approved\n1;30;f;Rome;1200;0.5;0\n2;40;m;Bonn;-3;1.25;1\n3;51;m;Oslo;7;2;1\n"
    )
    schema = infer_schema(read_cells(path))
    kinds = {feature.name: (feature.kind, feature.change) for feature in schema.features}
    assert kinds == {
        "Age": ("integer", "none"),
        "Sex": ("binary", "none"),
        "City": ("categorical", "both"),
        "Sum": ("integer", "both"),
        "Rate": ("continuous", "both"),
    }
    assert (schema["Sum"].low, schema["Sum"].high) == (-3, 1200)
    assert schema.target.column == "approved"
    assert schema.ignore == ("ID",)
    assert schema.groups == ("Sex",)
    assert parse_schema(schema_text(schema)) == schema


def test_texts_without_end_are_no_category(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("name,y\n" + "".join(f"n{number},{number % 2}\n" for number in range(50)))
    with pytest.raises(InputError, match="50 different texts"):
        infer_schema(read_cells(path))


def test_a_feature_named_in_ignore_is_a_contradiction() -> None:
    with pytest.raises(InputError, match="ignore names 'debt'"):
        replace(credit(), ignore=("debt",), _numbers={})


def test_bad_features_are_refused_in_python_too() -> None:
    with pytest.raises(InputError, match="two levels"):
        Feature("x", "binary", levels=("a", "b", "c"))
