"""Rows of pairs: one sentence for each bad row, by row and column and with the remedy; or left out and counted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_pairs import TEXTS, words

from signstep.domains.multimodal.records import read_records
from signstep.domains.multimodal.schema import InputRow, LabelRow, Schema, TokenizerRow, read_schema
from signstep.errors import InputError, LoadError

SCHEMA = Schema(
    (
        InputRow("image", "image", threat="linf:8/255", size=(4, 4)),
        InputRow("text", "text", column="said", length=6),
        InputRow("sound", "tensor"),
    ),
    LabelRow("true", ("no", "yes")),
    TokenizerRow("words", "vocab.txt"),
)


def _rows(folder: Path) -> list[dict[str, Any]]:
    for number in range(3):
        Image.new("RGB", (8, 8), (40 * number, 0, 255)).save(folder / f"{number}.png")
    return [
        {"image": f"{number}.png", "said": TEXTS[number], "sound": [0.5, number], "true": "yes" if number else "no"}
        for number in range(3)
    ]


def _written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_rows_become_tensors(tmp_path: Path) -> None:
    found = read_records(_written(tmp_path, _rows(tmp_path)), SCHEMA, words())
    assert found.inputs["image"].shape == (3, 3, 4, 4)
    assert found.inputs["image"][1, :, 0, 0].tolist() == pytest.approx([40 / 255, 0, 1])
    assert words().decode(found.inputs["text"][2].tolist()) == TEXTS[2]
    assert found.inputs["sound"].tolist() == [[0.5, 0.0], [0.5, 1.0], [0.5, 2.0]]
    assert found.labels.tolist() == [0, 1, 1]
    assert (found.bad, found.notes) == ((), ())
    assert len(read_records(tmp_path / "pairs.jsonl", SCHEMA, words(), limit=2).labels) == 2


def test_a_csv_table_is_read_likewise(tmp_path: Path) -> None:
    _rows(tmp_path)
    path = tmp_path / "pairs.csv"
    path.write_text('image,said,sound,true\n0.png,the dog sleeps,"[1, 2]",yes\n', encoding="utf-8")
    found = read_records(path, SCHEMA, words())
    assert found.inputs["sound"].tolist() == [[1, 2]]


BAD: list[tuple[str, Any, str]] = [
    ("said", "there is a big black dog not a cat", r"column 'said': the text has 9 tokens, the model takes 6; shorten"),
    ("said", "there is a wolf", r"column 'said': the vocabulary has no 'wolf'; correct the word"),
    ("said", "", r"column 'said' is missing; fill it in"),
    ("said", "...", r"column 'said': '...' has no words"),
    ("image", None, r"column 'image' is missing; fill it in"),
    ("image", "9.png", r"column 'image': there is no file '9.png'; put it there"),
    ("image", "pairs.jsonl", r"column 'image': the image pairs.jsonl cannot be read"),
    ("sound", [1.0], r"column 'sound' has the shape \(1,\), the rows before \(2,\); make them equally long"),
    ("sound", "loud", r"column 'sound': 'loud' is not a list of numbers"),
    ("sound", [1.0, float("inf")], r"column 'sound': .* is not a list of finite numbers"),
    ("true", "maybe", r"column 'true': 'maybe' is not one of no, yes; write one of them"),
]


@pytest.mark.parametrize(("column", "value", "said"), BAD, ids=[f"{c}-{v}" for c, v, _ in BAD])
def test_a_bad_row_is_named_or_left_out_and_counted(tmp_path: Path, column: str, value: Any, said: str) -> None:
    rows = _rows(tmp_path)
    rows[1][column] = value
    path = _written(tmp_path, rows)
    with pytest.raises(InputError, match=rf"pairs.jsonl, row 2, {said}.*, or leave such rows out with skip_bad=True"):
        read_records(path, SCHEMA, words())
    found = read_records(path, SCHEMA, words(), skip_bad=True)
    assert found.numbers == (1, 3)
    assert len(found.bad) == 1
    assert found.notes[0].startswith("1 of 3 rows left out (skip-bad): row 2, column")


def test_a_missing_column_and_a_table_of_bad_rows(tmp_path: Path) -> None:
    rows = _rows(tmp_path)
    for row in rows:
        del row["sound"]
    with pytest.raises(InputError, match="row 1, column 'sound' is missing"):
        read_records(_written(tmp_path, rows), SCHEMA, words())
    with pytest.raises(InputError, match="none of its 3 rows can be used; the first: row 1, column 'sound'"):
        read_records(tmp_path / "pairs.jsonl", SCHEMA, words(), skip_bad=True)


def test_images_of_other_sizes_without_a_size_in_the_schema(tmp_path: Path) -> None:
    rows = _rows(tmp_path)
    Image.new("RGB", (5, 8)).save(tmp_path / "1.png")
    schema = Schema((InputRow("image", "image", threat="linf:8/255"),), LabelRow("true", ("no", "yes")))
    with pytest.raises(InputError, match=r"row 2, column 'image': '1\.png' is not as large as the images before"):
        read_records(_written(tmp_path, rows), schema, None)
    assert read_records(tmp_path / "pairs.jsonl", schema, None, skip_bad=True).inputs["image"].shape == (2, 3, 8, 8)


def test_tables_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"pass a table \.jsonl or \.csv"):
        read_records(tmp_path / "pairs.txt", SCHEMA, words())
    with pytest.raises(LoadError, match="cannot be read"):
        read_records(tmp_path / "none.jsonl", SCHEMA, words())
    (tmp_path / "odd.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(LoadError, match="row 1 is not JSON"):
        read_records(tmp_path / "odd.jsonl", SCHEMA, words())
    (tmp_path / "odd.jsonl").write_text("[1]\n", encoding="utf-8")
    with pytest.raises(LoadError, match="row 1 is a list"):
        read_records(tmp_path / "odd.jsonl", SCHEMA, words())


SCHEMAS = [
    ("", "names no inputs"),
    ("[inputs.image]\nkind = 'image'\n", "no input has a threat"),
    ("[inputs.image]\nkind = 'picture'\n", "kind = 'picture'; write one of image, text, tensor"),
    (
        "[inputs.image]\nkind = 'image'\nthreats = 'linf:1'\n",
        r"has 'threats', which means nothing here; write one of kind, column",
    ),
    ("[inputs.image]\nkind = 'image'\nsize = 32\n", r"size = 32; write a list"),
    ("[inputs.image]\nkind = 'image'\nsize = [32]\n", r"write \[height, width\]"),
    ("[inputs.image]\nthreat = 'linf:1'\n", "is not complete"),
    ("[inputs.text]\nkind = 'text'\nthreat = 'substitutions:1'\n", "has no length"),
    (
        "[inputs.text]\nkind = 'text'\nlength = 4\nthreat = 'substitutions:1'\n",
        "needs a tokenizer; write a table .tokenizer.",
    ),
    ("[input.text]\nkind = 'text'\n", r"has \[input\], which means nothing here; write inputs, label"),
    ("inputs = 3\n", "write a table .inputs."),
    ("[tokenizer]\nkind = 'bpe'\npath = 'x'\n", "kind = 'bpe'; write one of words, wordpiece, folder"),
    ("[output]\nread = 'softmax'\n", "read = 'softmax'; write one of scores, pair"),
    ("[inputs.image]\nkind = 'image'\nmean = [0.5]\n", "has 1 mean and 0 std"),
]


@pytest.mark.parametrize(("text", "said"), SCHEMAS, ids=[said for _, said in SCHEMAS])
def test_a_schema_says_what_is_wrong_with_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_schema(path)


def test_a_schema_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text("[inputs", encoding="utf-8")
    with pytest.raises(LoadError, match="is not TOML"):
        read_schema(tmp_path / "schema.toml")
    assert torch.equal(torch.tensor(words().encode("a dog")), torch.tensor([5, 7]))
