"""One reader of text tables: data, tables of records, series and pairs see the same rows, or one sentence."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signstep.data import csv_text, open_data
from signstep.data.csv_text import number_of, open_comma
from signstep.domains.control.records import read_csv
from signstep.domains.multimodal.records import read_records as read_pairs
from signstep.domains.multimodal.schema import InputRow, LabelRow
from signstep.domains.multimodal.schema import Schema as PairSchema
from signstep.domains.tabular.cells import read_cells
from signstep.errors import SignstepError

ROWS = [("x", "a b", "c,d"), ("no", "0.5", "-3"), ("yes", "1.5e3", "4"), ("no", "-2", "0")]
TEXT = 'x,a b,"c,d"\nno,0.5,-3\nyes,1.5e3,4\nno,-2,0\n'
VALUES = [[0.5, -3.0], [1500.0, 4.0], [-2.0, 0.0]]
LABELS = ["no", "yes", "no"]

LARGEST = float(np.finfo(np.float32).max)

Seen = tuple[list[str], list[list[float]], list[str]]


def by_data(path: Path) -> Seen:
    source = open_data(path, label_column="x", skip_bad=True)
    classes = source.classes or tuple(map(str, range(int(source.labels.max()) + 1)))
    x = torch.cat([batch for batch, _ in source]).double().tolist()
    return list(open_comma(path).columns), x, [classes[label] for label in source.labels.tolist()]


def by_cells(path: Path) -> Seen:
    cells = read_cells(path)
    names = [name for name in cells.columns if name != "x"]
    rows, labels = [], []
    for row in range(len(cells)):
        numbers = [number_of(cells.columns[name][row]) for name in names]
        label = cells.columns["x"][row]
        fits = None not in numbers and all(abs(n or 0.0) <= LARGEST for n in numbers)
        if row not in cells.faults and fits and label.lower() not in ("", "na", "n/a", "nan", "null"):
            rows.append([float(np.float32(number)) for number in numbers if number is not None])
            labels.append(label)
    return list(cells.columns), rows, labels


def by_series(path: Path) -> Seen:
    series = read_csv(path, label="x", samples=1, stride=1, skip_bad=True)
    names = [name for name in open_comma(path).columns if name == "x" or name in series.names]
    return names, series.x[:, 0].double().tolist(), [series.classes[label] for label in series.y.tolist()]


READERS: list[Callable[[Path], Seen]] = [by_data, by_cells, by_series]

GOOD = {
    "plain": TEXT.encode(),
    "byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "semicolons": b"x;a b;c,d\nno;0.5;-3\nyes;1.5e3;4\nno;-2;0\n",
    "tabs": b"x\ta b\tc,d\nno\t0.5\t-3\nyes\t1.5e3\t4\nno\t-2\t0\n",
    "carriage returns": TEXT.replace("\n", "\r\n").encode(),
    "old carriage returns": TEXT.replace("\n", "\r").encode(),
    "no last line end": TEXT.rstrip().encode(),
    "quotes": b'x,"a b","c,d"\n"no","0.5","-3"\n"yes",1.5e3,"4"\nno,-2,0\n',
    "empty lines": TEXT.replace("\n", "\n\n  \n", 2).encode() + b"\n \t\n\n",
    "blanks": TEXT.replace(",", " , ").replace('"c , d"', '"c,d"').encode(),
    "gzip": gzip.compress(TEXT.encode()),
    "gzip of a byte order mark": gzip.compress(b"\xef\xbb\xbf" + TEXT.encode()),
    "gzip in members": gzip.compress(TEXT[:30].encode()) + gzip.compress(TEXT[30:].encode()),
    "bad rows": (TEXT + "no,1_0.0,1\nno,1,٣\nno,inf,1\nyes,nan,1\nyes,1\nyes,1,2,3\n,1,2\nno,1e39,0\nno,,1\n").encode(),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", GOOD)
def test_all_read_the_same_table(tmp_path: Path, kind: str, reader: Callable[[Path], Seen]) -> None:
    for name in ("table.csv", "table.csv.gz", "TABLE.CSV"):
        path = tmp_path / name
        path.write_bytes(GOOD[kind])
        assert reader(path) == (list(ROWS[0]), VALUES, LABELS)


BAD = {
    b"": "is empty or starts with an empty line",
    b"\n\n": "is empty or starts with an empty line",
    b"\xef\xbb\xbf": "is empty or starts with an empty line",
    TEXT.encode("utf-16"): "is UTF-16 text, not UTF-8; save it as UTF-8",
    TEXT.encode("utf-16-le"): "line 1 holds a zero byte",
    "x,größe\nno,1\n".encode("latin-1"): "is no UTF-8 text (invalid start byte after line 0; Latin-1 perhaps)",
    TEXT.encode() + b"no,\0,1\n": "line 5 holds a zero byte, so it is no text in UTF-8",
    b"x,a,a\nno,1,2\n": "has two columns named 'a'; give each column a name of its own",
    b",x,a\n0,no,2\n": "column 1 is named '' and looks like an index",
    b"1,2,3\n4,5,6\n": "starts with numbers (1,2,3); write a first line",
    TEXT.encode() + b'no,"1,2\n': "(unexpected end of data) at line 5, where a quote may be missing",
    TEXT.encode() + b'no,"1"2,3\n': "(',' expected after '\"') at line 5",
    TEXT.encode() + b'no,"' + b"1" * 200_000 + b'",2\n': "(field larger than field limit (131072)) at line 5",
    gzip.compress(TEXT.encode() * 99)[:40]: "cannot be read as a table (Compressed file ended",
    b"\x1f\x8b\x08\x00 no gzip": "cannot be read as a table",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", BAD, ids=[f"{number}" for number in range(len(BAD))])
def test_files_that_cannot_be_read_are_one_sentence(
    tmp_path: Path, content: bytes, reader: Callable[[Path], Seen]
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(SignstepError) as caught:
        reader(path)
    assert BAD[content] in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_header_alone_is_one_sentence(tmp_path: Path, reader: Callable[[Path], Seen]) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x,a\n")
    if reader is by_cells:
        assert reader(path) == (["x", "a"], [], [])
        return
    with pytest.raises(SignstepError, match=r"table\.csv.*(has no rows|none of 0 rows can be used)"):
        reader(path)


def test_a_decimal_comma_is_named_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x;a\nno;1,5\n")
    for read in (lambda: open_data(path, label_column="x"), lambda: read_csv(path, label="x", samples=1, stride=1)):
        with pytest.raises(SignstepError, match=r"line 2, column 'a' is '1,5', not a number: write a decimal point"):
            read()


def test_a_bomb_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "INFLATED_LEAST", 1 << 16)
    monkeypatch.setattr(csv_text, "INFLATED", 4)
    path = tmp_path / "table.csv"
    path.write_bytes(gzip.compress(b"x,a\n" + b"no,1\n" * 400_000))
    for reader in READERS:
        with pytest.raises(SignstepError, match=r"grows to more than \d+ MiB when it is decompressed"):
            reader(path)
    monkeypatch.setattr(csv_text, "LONGEST", 1000)
    path.write_bytes(b"x,a\nno," + b"1" * 2000 + b"\n")
    with pytest.raises(SignstepError, match="line 2 is longer than 1000 characters"):
        by_cells(path)


def test_a_hundred_thousand_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    count = 100_000
    path.write_text(",".join(["x", *(f"c{number}" for number in range(count))]) + "\n" + "no" + ",1" * count + "\n")
    assert len(open_comma(path).columns) == count + 1
    assert open_data(path, label_column="x").shape == (count,)
    assert tuple(read_csv(path, label="x", samples=1, stride=1).x.shape) == (1, 1, count)
    with pytest.raises(SignstepError) as caught:
        read_csv(path, label="y", samples=1, stride=1)
    assert len(str(caught.value)) < 1000


def test_pairs_are_read_by_the_same_reader(tmp_path: Path) -> None:
    schema = PairSchema((InputRow("a", "tensor", threat="linf:1"),), label=LabelRow("x", ("no", "yes")))
    path = tmp_path / "pairs.csv"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbfx;a\nno;"[1, 2]"\nyes;"[3, 4]"\nno\n'))
    found = read_pairs(path, schema, None, skip_bad=True)
    assert found.inputs["a"].tolist() == [[1, 2], [3, 4]]
    assert found.bad == ("row 3, column 'x' is missing; fill it in",)
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"x": "no", "a": [1, 2]}).encode() + b"\n" + b"[" * 100_000)
    with pytest.raises(SignstepError, match="row 2 is not JSON"):
        read_pairs(path, schema, None, skip_bad=True)


PIECES = st.sampled_from(
    [b",", b";", b"\t", b'"', b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"1_0", b"1,5", b"nan", b"inf", b"-",
     b"1e999", b"x", b" ", b"2024-01-01", b"9" * 400, "٣".encode(), b"0.5", b"null"]
)  # fmt: skip


def outcome(reader: Callable[[Path], Seen], path: Path) -> Seen | str:
    try:
        if reader is by_cells and "x" not in open_comma(path).columns:
            return "no column x"
        return reader(path)
    except SignstepError as error:
        return str(error)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(set(GOOD) - {"old carriage returns"})),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 3), PIECES), min_size=1, max_size=3),
    st.booleans(),
)
def test_mutated_tables_are_read_alike_or_refused(
    tmp_path: Path, kind: str, edits: list[tuple[int, int, bytes]], packed: bool
) -> None:
    content = gzip.decompress(GOOD[kind]) if kind.startswith("gzip") else GOOD[kind]
    for place, cut, piece in edits:
        content = content[:place] + piece + content[place + cut :]
    path = tmp_path / "table.csv"
    path.write_bytes(gzip.compress(content) if packed else content)
    data, cells, series = (outcome(reader, path) for reader in READERS)
    if not isinstance(data, str) and not isinstance(cells, str):
        assert data == cells
    if not isinstance(data, str) and not isinstance(series, str):
        dates = content.count(b"2024-01-01")  # a column of mostly dates is an axis there, and bad rows elsewhere
        assert data == series or (2 * dates > len(data[1]) and len(series[0]) < len(data[0]))
    if isinstance(cells, str):
        assert isinstance(data, str)
        assert isinstance(series, str)
    for said in (data, cells, series):
        assert not isinstance(said, str) or "\n" not in said
