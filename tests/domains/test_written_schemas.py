"""What `signstep schema` writes is read back, and says what can really be changed, for columns of every kind."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signstep.cli import main
from signstep.domains import DOMAINS, Request, domain
from signstep.domains.control import case as control_case
from signstep.domains.control.schema import read_schema as read_sensors
from signstep.domains.tabular import Layout, parse_schema, tabular_threat
from signstep.domains.tabular.cells import read_cells
from signstep.domains.tabular.infer import infer_schema
from signstep.domains.tabular.records import read_records
from signstep.domains.tabular.schema import Schema
from signstep.domains.tabular.schema_file import schema_text

COLUMNS = {
    "amount": ["12", "40", "7", "1250", "30", "9"],
    "count": ["0", "1", "2", "1", "0", "3"],
    "rate": ["0.5", "1.25", "3", "-2", "1e-3", "0"],
    "tiny": ["1e-300", "2e-300", "0", "3e-300", "0", "1e-300"],
    "huge": ["1e300", "-1e300", "0", "1e299", "1", "2"],
    "fixed": ["3", "3", "3", "3", "3", "3"],
    "flag": ["yes", "no", "no", "yes", "no", "no"],
    "kind": ["car", "home", "tv", "car", "tv", "car"],
    "age": ["20", "40", "30", "50", "60", "70"],
    "when": ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04", "2024-03-05", "2024-03-06"],
    "a<3": ["x", "y", "x", "y", "z", "x"],
    'odd "name" = [1]': ["1", "2", "3", "4", "5", "6"],
}


def reading(path: Path, columns: dict[str, list[str]]) -> tuple[Schema, str]:
    names = [*columns, "label"]
    quoted = [",".join('"' + name.replace('"', '""') + '"' for name in names)]
    rows = zip(*columns.values(), ["a", "b"] * (len(next(iter(columns.values()))) // 2), strict=True)
    path.write_text("\n".join([*quoted, *(",".join(row) for row in rows)]) + "\n")
    text = schema_text(infer_schema(read_cells(path), "label"))
    return parse_schema(text), text


def can_be_changed(schema: Schema, path: Path) -> None:
    """Each feature that may change moves some record by its own smallest change, within the threat at eps 1."""
    records = read_records(read_cells(path), schema)
    layout = Layout(schema)
    x = layout.widen(torch.from_numpy(records.values))
    region = tabular_threat(schema).around(x)
    draws = torch.Generator().manual_seed(0)
    moved = torch.zeros(x.shape[1], dtype=torch.bool)
    for _ in range(60):
        step = region.steepest(torch.randn(x.shape, generator=draws, dtype=x.dtype))
        assert isinstance(step, torch.Tensor)
        moved |= (region.land(step) != x).any(0)
    for feature in schema.features:
        columns = [place for place, name in enumerate(layout.names) if name.startswith(feature.name)]
        assert columns
        assert bool(moved[columns].any()) == (feature.change != "none"), feature


def test_columns_of_every_kind_together(tmp_path: Path) -> None:
    schema, text = reading(tmp_path / "a.csv", COLUMNS)
    assert schema.ignore == ("when",)
    budgets = {feature.name: feature.budget for feature in schema.features}
    assert (budgets["amount"], budgets["count"], budgets["rate"]) == ("46", "1", "0.1 sd")
    assert (schema["fixed"].change, schema["age"].change, schema["kind"].budget) == ("none", "none", "1")
    assert text.count("0.1 sd") == 1 + sum(feature.kind == "continuous" for feature in schema.features)
    records = read_records(read_cells(tmp_path / "a.csv"), schema)
    assert len(records) == 6


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - {"when"}))
def test_each_kind_of_column_can_be_changed_as_written(tmp_path: Path, name: str) -> None:
    schema, _ = reading(tmp_path / "a.csv", {name: COLUMNS[name], "other": ["0.5", "1.5", "2.5", "0", "1", "2"]})
    can_be_changed(schema, tmp_path / "a.csv")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-(10**6), 10**6), min_size=6, max_size=6), st.sampled_from([1, 1, 1000]))
def test_whole_numbers_get_whole_budgets(tmp_path: Path, values: list[int], scale: int) -> None:
    schema, _ = reading(tmp_path / "a.csv", {"n": [str(value * scale) for value in values], "m": ["0.5", "1"] * 3})
    feature = schema["n"]
    if feature.kind == "integer" and feature.change != "none":
        amount = float(feature.budget)
        assert amount.is_integer()
        assert amount >= 1
        assert amount <= max(1, 0.1 * feature.spread + 0.5)


@pytest.mark.parametrize("name", [row.name for row in DOMAINS.values() if row.infer is not None])
def test_the_examples_own_schema_is_read_back(name: str, tmp_path: Path) -> None:
    infer = domain(name).infer
    assert infer is not None
    if name == "tabular":
        path = tmp_path / "a.csv"
        reading(path, COLUMNS)
        text = infer(Request(data=str(path), label_column="label"))
        assert infer_schema(read_cells(path), "label") == parse_schema(text)
        return
    written = tmp_path / "s.toml"
    written.write_text(infer(Request()))
    if name == "control":
        assert control_case(Request(schema=written)).terms == control_case(Request()).terms
    else:
        from signstep.domains.atoms.schema import Schema as Structures
        from signstep.domains.atoms.schema import read_schema

        assert read_schema(written).fmax == Structures().fmax


def test_a_schema_of_sensors_from_data_means_what_is_done_without_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"2024-01-01 00:{row:02d}:00,{row % 7},{0.1 * row},4,pump,{'ab'[row // 20]}" for row in range(40)]
    path.write_text("time,flow,level,stuck,unit,label\n" + "\n".join(rows) + "\n")
    out = tmp_path / "s.toml"
    words = ["schema", "--domain", "control", "--data", str(path), "--ignore-column", "unit", "--out", str(out)]
    assert main(words) == 0
    schema = read_sensors(out)
    assert (schema.interval, schema.ignore) == (60.0, ("unit",))
    assert [sensor.compromised for sensor in schema.sensors] == [True, True, False]  # "stuck" never moves
    small = tmp_path / "small.toml"
    small.write_text("window = 5\n" + out.read_text())
    bare = tmp_path / "bare.toml"
    bare.write_text('window = 5\nignore = ["unit"]\n')
    said = control_case(Request(data=str(path), schema=small)).terms
    assert said["sensors"][0]["name"] == "flow"
    unsaid = control_case(Request(data=str(path), schema=bare)).terms
    assert [one["name"] for one in unsaid["sensors"]] == [one["name"] for one in said["sensors"]]
    assert unsaid["interval"] == said["interval"] == 60.0
