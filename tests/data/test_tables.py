import csv
import gzip
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signstep.data import DataSource, open_data, tables
from signstep.errors import InputError, LoadError, MissingExtraError

pa = pytest.importorskip("pyarrow", reason="needs pyarrow (signstep[tables])")
pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (signstep[tables])")

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(10, 3))
NAMES = ["oak", "ash", "elm", "ash", "oak"] * 2

Columns = Mapping[str, Sequence[Any]]
Writer = Callable[[Path, Columns], Path]


def write_csv(folder: Path, columns: Columns) -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def write_gz(folder: Path, columns: Columns) -> Path:
    plain = write_csv(folder, columns)
    path = folder / "table.csv.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


def write_parquet(folder: Path, columns: Columns) -> Path:
    path = folder / "table.parquet"
    pq.write_table(pa.table(columns), path)
    return path


ALL: list[Writer] = [write_csv, write_gz, write_parquet]


def trees(target: Sequence[Any] = NAMES) -> Columns:
    a, b, c = NUMBERS.T.tolist()
    return {"a": a, "kind": target, "b": b, "c": c}


def inputs(source: DataSource) -> torch.Tensor:
    return torch.cat([x for x, _ in source])


@pytest.mark.parametrize("write", ALL)
def test_names_are_numbered_in_sorted_order_and_features_stay_in_file_order(tmp_path: Path, write: Writer) -> None:
    source = open_data(write(tmp_path, trees()), label_column="kind", batch_size=4)
    for _ in range(2):
        batches = list(source)
        assert [len(x) for x, _ in batches] == [4, 4, 2]
        assert torch.equal(torch.cat([x for x, _ in batches]), torch.from_numpy(NUMBERS).float())
        assert torch.cat([y for _, y in batches]).tolist() == [2, 0, 1, 0, 2] * 2
    assert (source.classes, source.shape, source.bounds) == (("ash", "elm", "oak"), (3,), None)
    assert (source.len_hint, source.total, source.skipped) == (10, 10, 0)
    assert source.notes == (
        "labels from column 'kind'; the other 3 columns as float32 in the order of the file",
        "column 'kind': class names numbered in sorted order: ash = 0, elm = 1, oak = 2",
    )


@pytest.mark.parametrize("write", ALL)
@pytest.mark.parametrize("numbers", [[3, 0, 7, 0, 3], [3.0, 0.0, 7.0, 0.0, 3.0]])
def test_numbers_are_class_numbers(tmp_path: Path, write: Writer, numbers: list[float]) -> None:
    source = open_data(write(tmp_path, trees(numbers * 2)), label_column="kind")
    assert (source.labels.tolist(), source.classes) == ([3, 0, 7, 0, 3] * 2, None)
    assert source.labels.dtype == torch.int64


@pytest.mark.parametrize("write", ALL)
def test_the_order_of_the_classes_can_be_given(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path, trees())
    source = open_data(path, label_column="kind", classes=["oak", "fir", "elm", "ash"])
    assert source.labels.tolist() == [0, 3, 2, 3, 0] * 2
    assert source.classes == ("oak", "fir", "elm", "ash")
    with pytest.raises(LoadError, match=r"column 'kind' is 'elm', which is not among the 2 classes given"):
        open_data(path, label_column="kind", classes=["oak", "ash"])


@pytest.mark.parametrize("write", ALL)
def test_the_limit_does_not_renumber_the_classes(tmp_path: Path, write: Writer) -> None:
    source = open_data(write(tmp_path, trees()), label_column="kind", limit=1)
    assert (source.labels.tolist(), source.total) == ([2], 10)
    assert torch.equal(inputs(source), torch.from_numpy(NUMBERS[:1]).float())


@pytest.mark.parametrize("write", ALL)
def test_blocks_and_batches_need_not_match(tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, trees())
    for rows in (1, 3, 7):
        monkeypatch.setattr("signstep.data.csv_text.BLOCK_ROWS", rows)
        monkeypatch.setattr("signstep.data.parquet.BLOCK_ROWS", rows)
        for size in (1, 4, 10):
            source = open_data(path, label_column="kind", batch_size=size)
            assert torch.equal(inputs(source), torch.from_numpy(NUMBERS).float())


def test_a_batch_is_the_callers_own(tmp_path: Path) -> None:
    source = open_data(write_csv(tmp_path, trees()), label_column="kind", batch_size=4)
    for x, _ in source:
        x.zero_()
    assert inputs(source).any()


@pytest.mark.parametrize("write", ALL)
def test_the_target_must_be_named(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path, trees())
    with pytest.raises(InputError, match=r"has the columns a, kind, b, c; pass label_column= with the one"):
        open_data(path)
    with pytest.raises(InputError, match=r"has no column 'sort'; pass label_column= with one of a, kind, b, c"):
        open_data(path, label_column="sort")


@pytest.mark.parametrize("write", ALL)
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("b", None, "column 'b' is (empty|missing or NaN)"),
        ("b", float("nan"), "column 'b' is missing or NaN"),
        ("c", float("inf"), "column 'c' is inf, which float32 cannot hold"),
        ("c", 1e300, r"column 'c' is 1e\+300, which float32 cannot hold"),
        ("kind", None, "column 'kind' holds no label"),
        ("kind", "NA", "column 'kind' holds no label"),
    ],
)
def test_bad_rows_are_named_or_skipped(tmp_path: Path, write: Writer, column: str, value: object, message: str) -> None:
    columns: dict[str, list[Any]] = {name: list(values) for name, values in trees().items()}
    columns[column][6] = value
    columns["a"][8] = None
    path = write(tmp_path, columns)
    row = "row 6" if path.suffix == ".parquet" else "line 8"
    with pytest.raises(
        LoadError, match=rf"{row}, {message}; repair or remove such rows, or skip them \(skip_bad=True\)"
    ):
        open_data(path, label_column="kind")
    source = open_data(path, label_column="kind", skip_bad=True, batch_size=3)
    good = [0, 1, 2, 3, 4, 5, 7, 9]
    assert torch.equal(inputs(source), torch.from_numpy(NUMBERS[good]).float())
    assert [["ash", "elm", "oak"][label] for label in source.labels] == [NAMES[row] for row in good]
    assert (source.skipped, source.len_hint, source.total) == (2, 8, 8)
    assert source.notes[-1].startswith("2 of 10 rows skipped because they cannot be used; the first: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,oak,2", "line 3, 3 cells instead of 4"),
        ("1,oak,2,3,4", "line 3, 5 cells instead of 4"),
        ("1,oak,red,3", "line 3, column 'b' is 'red', not a number"),
        ("1,oak,1_000,3", "line 3, column 'b' is '1_000', not a number"),
        ("1,oak,2,", "line 3, column 'c' is empty"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"a,kind,b,c\n1,ash,2,3\n{line}\n\n4,oak,5,6\n")
    with pytest.raises(LoadError, match=message):
        open_data(path, label_column="kind")
    source = open_data(path, label_column="kind", skip_bad=True)
    assert inputs(source).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert source.skipped == 1


@pytest.mark.parametrize("write", ALL)
@pytest.mark.parametrize(
    ("value", "message"),
    [(2.5, "is 2.5, not a class number; .*real=True"), (-1.0, "is -1.0, not a class number")],
)
def test_numbers_that_are_no_classes(tmp_path: Path, write: Writer, value: float, message: str) -> None:
    target = [0.0] * 10
    target[4] = value
    path = write(tmp_path, trees(target))
    for skip_bad in (False, True):
        with pytest.raises(LoadError, match=rf"(row 4|line 6), column 'kind' {message}"):
            open_data(path, label_column="kind", skip_bad=skip_bad)


def test_numbers_among_names(tmp_path: Path) -> None:
    path = write_csv(tmp_path, trees(["1"] * 9 + ["?"]))
    with pytest.raises(
        LoadError, match=r"line 11, column 'kind' is '\?' but .*line 2, column 'kind' is '1'; use either"
    ):
        open_data(path, label_column="kind")


@pytest.mark.parametrize("write", ALL)
def test_nothing_to_read(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path, {"a": [float("nan")] * 3, "kind": ["x"] * 3})
    with pytest.raises(LoadError, match=r"none of 3 rows can be used; the first: .*column 'a' is missing or NaN"):
        open_data(path, label_column="kind", skip_bad=True)
    path = write(tmp_path, {"a": [], "kind": []})
    with pytest.raises(LoadError, match=r"(none of 0 rows can be used|holds null, not numbers)"):
        open_data(path, label_column="kind")


def test_separators_byte_order_mark_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for separator in ",;\t":
        lines = ["a,b,kind", '1,2,"red oak"', '3, 4,"a ""b"""']
        text = "\r\n".join(line.replace(",", separator) for line in lines)
        path.write_bytes(text.encode("utf-8-sig"))
        source = open_data(path, label_column="kind")
        assert inputs(source).tolist() == [[1, 2], [3, 4]]
        assert source.classes == ('a "b"', "red oak")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty or starts with an empty line"),
        (b"1.5,2\n3,4\n", r"starts with numbers \(1.5,2\); write a first line that names the columns"),
        (b"a,a,kind\n1,2,x\n", "has two columns named 'a'"),
        (b",a,kind\n0,2,x\n", "column 1 is named '' and looks like an index"),
        (b"kind\nx\n", "has only the column 'kind'"),
        (b"a,kind\n1,\xff\n", "is no UTF-8 text"),
        (b'a,kind\n1,"x\n', r"cannot be read as a table \(unexpected end of data\)"),
        (gzip.compress(b"a,kind\n" + b"1,x\n" * 999, mtime=0)[:30], "cannot be read as a table"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=message):
        open_data(path, label_column="kind")


def test_columns_named_by_their_position(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("0,1,2\n5,6,1\n")
    assert inputs(open_data(path, label_column="2")).tolist() == [[5, 6]]


def test_types_of_parquet_that_are_no_numbers_or_labels(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, {"a": ["x", "y"], "b": [[1.0], [2.0]], "kind": [0, 1]})
    with pytest.raises(LoadError, match=r"column 'a' holds string, not numbers; encode it"):
        open_data(path, label_column="kind", skip_bad=True)
    path = write_parquet(tmp_path, {"a": [1, 2], "kind": [[1.0], [2.0]]})
    with pytest.raises(LoadError, match=r"the target column 'kind' holds list.*; write class names or class numbers"):
        open_data(path, label_column="kind")


def test_types_of_parquet_that_are(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "int8": pa.array([1, 2], pa.int8()),
        "big": pa.array([2**62, 2**53 + 1], pa.int64()),
        "flag": pa.array([True, False]),
        "half": pa.array(np.array([0.5, 2], np.float16)),
        "exact": pa.array([1, 2], pa.decimal128(5, 2)),
        "kind": pa.array(["b", "a"]).dictionary_encode(),
    }
    source = open_data(write_parquet(tmp_path, columns), label_column="kind")
    assert inputs(source).tolist() == [[1, 2.0**62, 1, 0.5, 1], [2, 2.0**53, 0, 2, 2]]
    assert (source.labels.tolist(), source.classes) == ([1, 0], ("a", "b"))


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_text("a,kind\n1,x\n")
    with pytest.raises(LoadError, match=r"t.parquet cannot be read as a Parquet file"):
        open_data(path, label_column="kind")
    whole = write_parquet(tmp_path, trees()).read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 3) + whole[4 + len(whole) // 3 :])
    with pytest.raises(LoadError, match=r"t.parquet cannot be read as a Parquet file"):
        open_data(path, label_column="kind")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path, trees())
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pyarrow; run pip install 'signstep\[tables\]'"):
        open_data(path, label_column="kind")
    assert open_data(write_csv(tmp_path, trees()), label_column="kind").len_hint == 10


def test_a_table_that_shrinks_while_it_is_used(tmp_path: Path) -> None:
    source = open_data(write_csv(tmp_path, trees()), label_column="kind")
    write_csv(tmp_path, {name: values[:4] for name, values in trees().items()})
    with pytest.raises(LoadError, match="6 rows are missing: the data changed while it was read"):
        list(source)


@pytest.mark.parametrize("write", ALL)
def test_the_fingerprint_is_that_of_the_file(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path, trees())
    before = open_data(path, label_column="kind").fingerprint()
    assert open_data(path, label_column="kind", limit=1).fingerprint() == before
    write(tmp_path, trees(NAMES[1:] + NAMES[:1]))
    assert open_data(path, label_column="kind").fingerprint() != before


def test_memory_does_not_grow_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv(tmp_path, {"a": range(5000), "kind": [0] * 5000})
    sizes: list[int] = []
    checked = tables._checked

    def spy(rows: tables.Rows, *arguments: Any, real: bool) -> Any:
        sizes.append(len(rows.targets))
        return checked(rows, *arguments, real=real)

    monkeypatch.setattr(tables, "_checked", spy)
    assert sum(len(x) for x, _ in open_data(path, label_column="kind", batch_size=50)) == 5000
    assert max(sizes) == tables.BLOCK_ROWS
    assert sum(sizes) == 10_000


REALS = [0.5, -2.0, 1e3, 0.25, 7.0] * 2


@pytest.mark.parametrize("write", ALL)
def test_real_targets_stay_as_they_are(tmp_path: Path, write: Writer) -> None:
    source = open_data(write(tmp_path, trees(REALS)), label_column="kind", real=True, batch_size=4, limit=9)
    assert source.labels.dtype == torch.float32
    assert torch.cat([y for _, y in source]).tolist() == REALS[:9]
    assert source.classes is None
    assert torch.equal(inputs(source), torch.from_numpy(NUMBERS[:9]).float())
    assert "column 'kind': real targets as float32" in source.notes


def test_real_targets_over_shards(tmp_path: Path) -> None:
    for number in range(2):
        pq.write_table(pa.table(trees(REALS)), tmp_path / f"{number}.parquet")
    assert open_data(tmp_path, label_column="kind", real=True).labels.tolist() == REALS * 2


@pytest.mark.parametrize("write", ALL)
def test_real_targets_must_be_numbers(tmp_path: Path, write: Writer) -> None:
    typed = write is write_parquet
    message = (
        "target column 'kind' holds string" if typed else "line 2, column 'kind' is 'oak', not a number, and a reg"
    )
    with pytest.raises(LoadError, match=message):
        open_data(write(tmp_path, trees()), label_column="kind", real=True)
    with pytest.raises(InputError, match="classes gives an order to class names"):
        open_data(write(tmp_path, trees(REALS)), label_column="kind", real=True, classes=["a"])
    holed: list[float] = [*REALS[:-1], float("inf")]
    with pytest.raises(LoadError, match=r"(line 11|row 9), column 'kind' is '?inf'?, not a number"):
        open_data(write(tmp_path, trees(holed)), label_column="kind", real=True)
    source = open_data(write(tmp_path, trees(holed)), label_column="kind", real=True, skip_bad=True)
    assert (source.labels.tolist(), source.skipped) == (REALS[:-1], 1)
    assert len(inputs(source)) == 9


@pytest.mark.parametrize("write", ALL)
def test_a_name_of_two_classes_is_told_apart_by_its_number(tmp_path: Path, write: Writer) -> None:
    classes = ["ash", "elm", "oak", "elm"]
    with pytest.raises(LoadError, match=r"'elm' is the name of the classes 1 and 3; write 'elm \(1\)' or 'elm \(3\)'"):
        open_data(write(tmp_path, trees()), label_column="kind", classes=classes)
    told = ["elm (3)" if name == "elm" else name for name in NAMES]
    source = open_data(write(tmp_path, trees(told)), label_column="kind", classes=classes)
    assert source.labels.tolist() == [2, 0, 3, 0, 2] * 2
    without = ["ash" if name == "elm" else name for name in NAMES]
    assert open_data(write(tmp_path, trees(without)), label_column="kind", classes=classes).classes == tuple(classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"split": "test"}, "split='test' has no meaning"), ({"resize": (2, 2)}, "works for folders")],
)
def test_options_that_mean_nothing_here(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_data(write_csv(tmp_path, trees()), label_column="kind", **options)
