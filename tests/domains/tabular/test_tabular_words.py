import pytest
import torch
from small_credit import credit, network, people

from signstep.domains.tabular import Decider, Feature, Layout, Schema, Target, change_words, decision_words, moves_of
from signstep.domains.tabular.entry_errors import entry_error_words, find_entry_errors, typed_wrongly
from signstep.domains.tabular.groups import apart, flips_by_group
from signstep.domains.tabular.reach import Set

LOAN = Schema(
    (
        Feature("balance", "integer", 0, 99_999, unit="EUR", label="the revolving balance"),
        Feature("lines", "integer", 0, 20, falls="{by} credit line{s} {are} closed", rises="{by} more credit line{s}"),
        Feature("months", "integer", 0, 90, unit="months"),
        Feature("rate", "continuous", 0, 1, label="the rate"),
        Feature("school", "ordinal", levels=("none", "school", "degree")),
        Feature("purpose", "categorical", levels=("car", "home")),
    ),
    Target("y", ("0", "1"), "1"),
)


def record(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_decision_is_told_in_words_and_units() -> None:
    before, after = record(4000, 3, 24, 0.5, 0, 0), record(2760, 2, 24, 0.5, 0, 0)
    said = decision_words(LOAN, before, after, granted=False)
    assert said == (
        "granted if the revolving balance falls by 1,240 EUR (4,000 to 2,760) and one credit line is closed"
    )
    assert decision_words(LOAN, before, after, granted=True).startswith("denied if")


def test_every_kind_of_change_has_its_phrase() -> None:
    before, after = record(10, 3, 24, 0.5, 0, 0), record(10, 5, 25, 0.125, 2, 1)
    assert change_words(LOAN, before, after) == [
        "two more credit lines",
        "months rises by 1 month (24 to 25)",
        "the rate falls by 0.375 (0.5 to 0.125)",
        "school rises from none to degree",
        "purpose is home instead of car",
    ]
    assert change_words(LOAN, before, before) == []


def test_slips_of_the_keyboard() -> None:
    kinds: dict[str, set[str]] = {}
    for text, kind in typed_wrongly("120"):
        kinds.setdefault(kind, set()).add(text)
    assert kinds["two digits exchanged"] == {"210", "102"}
    assert kinds["a digit left out"] == {"20", "10", "12"}
    assert kinds["a digit doubled"] == {"1120", "1220", "1200"}
    assert len(kinds["a digit mistyped"]) == 27
    assert ("5", "the sign left out") in set(typed_wrongly("-5"))


def test_every_slip_that_turns_a_decision_is_found_and_no_other() -> None:
    schema = credit()
    layout, decoded, model = Layout(schema), people(schema, 15, seed=6), network(schema, seed=5)
    slips = find_entry_errors(Decider(model, layout), Set.around(layout, moves_of(layout), decoded, None))
    before = model(layout.widen(decoded)).argmax(1)
    assert slips.turning
    for slip in slips.turning:
        typed = decoded[slip.row : slip.row + 1].clone()
        typed[0, slip.feature] = slip.value
        feature = schema.features[slip.feature]
        assert feature.low <= slip.value <= feature.high
        assert int(model(layout.widen(typed)).argmax(1)) != int(before[slip.row])
        assert entry_error_words(feature, float(decoded[slip.row, slip.feature]), slip).startswith(feature.name)
    # By hand: every other category of the purpose.
    number = schema.number("purpose")
    for row in range(len(decoded)):
        for level in range(4):
            typed = decoded[row : row + 1].clone()
            typed[0, number] = level
            turns = int(model(layout.widen(typed)).argmax(1)) != int(before[row])
            assert turns == any((one.row, one.feature, one.value) == (row, number, level) for one in slips.turning)
    # Alone, no slip of a total keeps the sum.
    assert schema.number("assets") not in {slip.feature for slip in slips.turning}
    assert {schema.number("age")} <= {slip.feature for slip in slips.turning}


def test_the_smallest_slip_of_a_record() -> None:
    schema = credit()
    layout, decoded = Layout(schema), people(schema, 10, seed=6)
    slips = find_entry_errors(
        Decider(network(schema, seed=5), layout), Set.around(layout, moves_of(layout), decoded, None)
    )
    row = slips.turning[0].row
    best = slips.smallest(row)
    assert best is not None
    assert best.cost == min(slip.cost for slip in slips.turning if slip.row == row)
    assert slips.smallest(99) is None


def test_flips_are_counted_by_group_with_intervals() -> None:
    letters = "f" * 30 + "h" * 30 + "w" * 5 + "u"
    granted = [True] * 66
    groups = {"sex": ["f"] * 30 + ["m"] * 36}
    flips = {(one.group, one.granted): one for one in flips_by_group(letters, granted, groups)}
    assert (flips["all", True].flipped, flips["all", True].of) == (30, 61)
    assert (flips["sex f", True].flipped, flips["sex m", True].of) == (30, 31)
    assert flips["sex f", False].of == 0
    assert flips["sex f", False].share() == "-"
    low, high = flips["all", True].interval
    assert low < 30 / 61 < high
    assert [(a.group, b.group) for a, b in apart(tuple(flips.values()))] == [("sex f", "sex m")]
    assert flips["all", True].share() == "49% [37, 61]"


@pytest.mark.parametrize("group", ["age < 30"])
def test_a_cut_names_its_sides(group: str) -> None:
    flips = flips_by_group("fh", [True, True], {group: ["age < 30", "age >= 30"]})
    assert {one.group for one in flips} == {"all", "age < 30", "age >= 30"}
