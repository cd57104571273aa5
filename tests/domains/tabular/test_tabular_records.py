import re
from pathlib import Path

import pytest
import torch
from small_credit import credit, people

from signstep.domains.tabular import Layout, Schema
from signstep.domains.tabular.cells import read_cells
from signstep.domains.tabular.records import read_records
from signstep.errors import InputError, LoadError


def written(schema: Schema, count: int) -> list[list[str]]:
    """A header and rows as texts."""
    rows = [[*(feature.name for feature in schema.features), "granted"]]
    for number, record in enumerate(people(schema, count).tolist()):
        cells = [
            feature.levels[int(value)] if feature.named else f"{value:.12g}"
            for feature, value in zip(schema.features, record, strict=True)
        ]
        rows.append([*cells, "yes" if number % 3 else "no"])
    return rows


def saved(rows: list[list[str]], folder: Path) -> Path:
    path = folder / "people.csv"
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return path


def test_records_decode_to_what_was_written(tmp_path: Path) -> None:
    schema = credit()
    records = read_records(read_cells(saved(written(schema, 20), tmp_path)), schema)
    torch.testing.assert_close(torch.from_numpy(records.values), people(schema, 20))
    assert records.labels is not None
    assert records.labels.tolist() == [min(1, number % 3) for number in range(20)]
    assert set(records.groups["age < 30"]) == {"age < 30", "age >= 30"}
    assert records.names[0] == "line 2"


def test_decoded_records_come_back_from_wide_rows() -> None:
    schema = credit()
    layout, decoded = Layout(schema), people(schema, 30)
    assert torch.equal(layout.narrow(layout.widen(decoded)), decoded)
    assert layout.width == len(layout.names) == 12 - 2 + 4 + 2


BAD = [
    ("income", "", "column 'income' empty or NaN"),
    ("income", "NaN", "column 'income' empty or NaN"),
    ("income", "much", "column 'income' = 'much', which is not a finite number"),
    ("income", "-5", "column 'income' = -5, outside its bounds 0 to 10000"),
    ("cards", "1.5", "column 'cards' = 1.5, not a multiple of 1"),
    ("purpose", "boat", "column 'purpose' = 'boat', which is not among car, home, tv, trip"),
    ("assets", "9990", "breaks the relation 'assets = savings + shares'"),
    ("granted", "perhaps", "column 'granted' = 'perhaps', which is not among the classes no, yes"),
]


@pytest.mark.parametrize(("column", "cell", "said"), BAD)
def test_a_bad_row_is_named_with_column_and_remedy_or_skipped_and_counted(
    tmp_path: Path, column: str, cell: str, said: str
) -> None:
    schema = credit()
    rows = written(schema, 6)
    rows[3][rows[0].index(column)] = cell
    cells = read_cells(saved(rows, tmp_path))
    with pytest.raises(LoadError, match=re.escape(said)) as caught:
        read_records(cells, schema)
    assert "people.csv, line 4 " in str(caught.value)
    assert "skip_bad=True" in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = read_records(cells, schema, skip_bad=True)
    assert (len(kept), kept.bad) == (5, 1)
    assert "1 of 6 rows were left out" in kept.notes[0]
    assert "line 4" not in kept.names


def test_a_missing_column_is_named_with_the_remedy(tmp_path: Path) -> None:
    rows = [row[1:] for row in written(credit(), 3)]
    with pytest.raises(LoadError, match="has no column 'income', which the schema names; add it"):
        read_records(read_cells(saved(rows, tmp_path)), credit())


def test_a_short_row_and_a_table_without_a_good_row(tmp_path: Path) -> None:
    rows = written(credit(), 2)
    rows[1] = rows[1][:-1]
    path = saved(rows, tmp_path)
    with pytest.raises(LoadError, match="line 2 has 12 cells instead of 13"):
        read_records(read_cells(path), credit())
    rows[2] = rows[2][:-1]
    with pytest.raises(LoadError, match="none of 2 rows can be used"):
        read_records(read_cells(saved(rows, tmp_path)), credit(), skip_bad=True)


def test_columns_that_the_schema_does_not_name_are_said(tmp_path: Path) -> None:
    rows = [[*row, "extra" if not number else "1"] for number, row in enumerate(written(credit(), 3))]
    records = read_records(read_cells(saved(rows, tmp_path)), credit())
    assert records.notes == ("columns that the schema does not name were left out: extra",)


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    schema = credit()
    rows = written(schema, 8)
    table = {name: [row[place] for row in rows[1:]] for place, name in enumerate(rows[0])}
    typed = {
        name: texts if name == "granted" or schema[name].named else [float(text) for text in texts]
        for name, texts in table.items()
    }
    parquet.write_table(pyarrow.table(typed), tmp_path / "people.parquet")
    first = read_records(read_cells(saved(rows, tmp_path)), schema)
    second = read_records(read_cells(tmp_path / "people.parquet"), schema)
    assert (first.values == second.values).all()
    assert second.names[0] == "row 0"


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pass a \.csv, \.csv\.gz or \.parquet file"):
        read_cells(tmp_path / "people.xlsx")
    with pytest.raises(LoadError, match="cannot be read"):
        read_cells(tmp_path / "nobody.csv")
