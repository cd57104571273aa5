"""Tables, schemas and threats as strangers write them: read, or refused in one sentence."""

import gzip
import json
from pathlib import Path

import pytest

from signstep.domains.text.records import read_records
from signstep.domains.text.schema import Schema, read_schema, with_threat
from signstep.errors import InputError, LoadError, SignstepError, ThreatError

CLASSES = ("ham", "spam")


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_and_json_lines_are_the_same(tmp_path: Path) -> None:
    rows = [{"text": 'Win "cash", now\u200b!', "label": "spam"}, {"text": "see you", "label": "HAM"}]
    csv = 'text,label\n"Win ""cash"", now\u200b!",spam\n"see you",HAM\n'
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for path in (
        written(tmp_path, "a.csv", csv),
        written(tmp_path, "a.jsonl", lines),
        written(tmp_path, "a.csv.gz", gzip.compress(csv.encode())),
        written(tmp_path, "b.csv", csv.replace(",", ";").replace('"cash"";', '"cash"",')),
    ):
        found = read_records(path, "text", "label", CLASSES)
        assert found.texts == (rows[0]["text"], "see you")
        assert found.labels is not None
        assert found.labels.tolist() == [1, 0]


def test_a_table_without_labels_has_none(tmp_path: Path) -> None:
    assert read_records(written(tmp_path, "a.csv", "text,other\nhello,1\n"), "text", "label", CLASSES).labels is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nhello,spamm\n", r"a.csv, row 1, column 'label': 'spamm' is not one of ham, spam; write"),
        ("a.csv", "text,label\nhello,2\n", "there is no class 2 of 2"),
        ("a.csv", "text,label\nhello," + "9" * 5000 + "\n", "is not one of ham, spam"),
        ("a.csv", "text,label\n ,ham\n", "column 'text' has no text; fill it in, or leave such rows out with"),
        ("a.csv", "text,label\n-- !,ham\n", "has no letters or digits"),
        ("a.csv", "text,label\nhello,\n", "column 'label' has no label"),
        ("a.csv", "text,label\nhello,ham,x\n", "row 1, 3 cells instead of 2; correct it"),
        (
            "a.csv",
            "mail,label\nhello,ham\n",
            r"has no column 'text', but 'mail', 'label'; name it in a schema",
        ),
        ("a.csv", "text,label\n" + "x" * 20_001 + ",ham\n", "has 20001 characters, at most 20000 are read"),
        ("a.csv", "text,label\n" + "x" * 200_000 + ",ham\n", "cannot be read as a table"),
        ("a.csv", "text,label\n", "it has no rows"),
        ("a.csv", b"text,label\nhell\xff,ham\n", "is no UTF-8 text"),
        ("a.csv", b"text,label\nhel\0lo,ham\n", "zero byte"),
        ("a.txt", "hello", "is a .txt; pass a table .csv or .jsonl, a row a text"),
        ("a.jsonl", '{"text": "a \\u0000", "label": "ham"}\n', r"holds \\u0000, which is no letter of a text"),
        ("a.jsonl", '{"text": "a \\ud800", "label": "ham"}\n', r"holds \\ud800, which is no letter"),
        ("a.jsonl", '{"text": 7, "label": "ham"}\n', "column 'text' is a int; write a text in quotes"),
        ("a.jsonl", '{"text": "a", "label": true}\n', "column 'label' has no label"),
        ("a.jsonl", '["text"]\n', "row 1 is a list; write one object on each line"),
        ("a.jsonl", "{text}\n", "is not JSON"),
    ],
)
def test_bad_rows_are_one_sentence(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises((InputError, LoadError), match=message):
        read_records(written(tmp_path, name, content), "text", "label", CLASSES)


def test_labels_that_are_names_need_names(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "text,label\nhello,ham\n")
    with pytest.raises(InputError, match=r"'ham' is a name, and nothing says which class it is; write 0, 1"):
        read_records(path, "text", "label", ())
    numbers = read_records(written(tmp_path, "b.csv", "text,label\nhello,3\n"), "text", "label", ())
    assert numbers.labels is not None
    assert numbers.labels.tolist() == [3]


def test_bad_rows_are_skipped_and_told(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"hello {row},{'ham' if row % 2 else 'x'}\n" for row in range(14))
    found = read_records(written(tmp_path, "a.csv", content), "text", "label", CLASSES, skip_bad=True)
    assert len(found.texts) == 7
    assert found.notes[0].startswith("7 of 14 rows left out (skip-bad): row 1, column 'label': 'x' is not one of")
    assert found.notes[0].endswith("and 2 more")
    with pytest.raises(InputError, match="none of its 1 rows can be used"):
        read_records(written(tmp_path, "b.csv", "text,label\na,x\n"), "text", "label", CLASSES, skip_bad=True)
    with pytest.raises(InputError, match="limit=0"):
        found.first(0)


@pytest.mark.parametrize(
    ("threat", "kinds", "words", "share"),
    [
        ("typos:2", ("typos",), 2, 0.0),
        ("typos+homoglyphs:10%", ("typos", "homoglyphs"), 0, 0.1),
        ("zero-width:0", ("zero-width",), 0, 0.0),
    ],
)
def test_threats_in_words(threat: str, kinds: tuple[str, ...], words: int, share: float) -> None:
    if not words and not share:
        with pytest.raises(ThreatError, match="how many words may change"):
            with_threat(Schema(), threat)
        return
    found = with_threat(Schema(), threat).change
    assert (found.kinds, found.words, found.share) == (kinds, words, share)


@pytest.mark.parametrize(
    ("threat", "message"),
    [
        ("typo:2", "write kinds of synonyms, neighbours, typos, homoglyphs, zero-width with a number of words"),
        ("linf:0.1", "write kinds of"),
        ("typos:two", r"write a number of words \(typos:2\) or a share of them \(typos:10%\)"),
        ("typos:-1", "write a number of words"),
        ("typos:200%", "write a number of words"),
        ("2", "nothing says what may change in a text"),
        (None, "nothing says what may change in a text; pass"),
        ("synonyms:1", "synonyms may stand for words, and none are given; pass"),
    ],
)
def test_threats_that_cannot_be_read(threat: str | None, message: str) -> None:
    with pytest.raises(ThreatError, match=message):
        with_threat(Schema(), threat)


SCHEMA = """
[data]
text = "body"
label = "kind"
[label]
classes = ["ham", "spam"]
[model]
length = 64
[change]
kinds = ["synonyms", "typos"]
words = 3
share = 0.25
typos = ["swap", "key"]
keep = ["not", "http*"]
groups = [["picture", "image"]]
synonyms = "more.jsonl"
[synonyms]
Cash = ["money", "Money", "cash"]
[neighbours]
nearest = 4
cosine = 0.7
"""


def test_a_whole_schema(tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text('{"win": ["receive"]}\n\n{"cash": ["funds"]}\n')
    schema = read_schema(written(tmp_path, "s.toml", SCHEMA))
    assert schema.data.text == "body"
    assert schema.label.classes == CLASSES
    assert schema.model.length == 64
    assert (schema.change.words, schema.change.share) == (3, 0.25)
    assert schema.synonyms == {
        "cash": ("money", "funds"),
        "picture": ("image",),
        "image": ("picture",),
        "win": ("receive",),
    }
    assert (schema.neighbours.nearest, schema.neighbours.cosine) == (4, 0.7)
    assert with_threat(schema, None).change.kinds == ("synonyms", "typos")
    assert with_threat(schema, "1").change.words == 1
    assert with_threat(schema, "words:1").change.kinds == ("synonyms", "typos")
    assert with_threat(schema, "homoglyphs:1").change.kinds == ("homoglyphs",)
    (tmp_path / "more.toml").write_text('lunch = ["meal"]\n')
    other = read_schema(written(tmp_path, "t.toml", SCHEMA.replace("more.jsonl", "more.toml")))
    assert other.synonyms["lunch"] == ("meal",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[change]", "[chance]", r"\[chance\] means nothing here; write some of data"),
        ('"typos"]', '"typo"]', "kinds.*typo.*write some of synonyms"),
        ('"swap"', '"swop"', "typos.*swop.*write some of swap, delete, insert, double, key"),
        ("words = 3", "words = -3", "words.*-3.*write how many"),
        ("share = 0.25", "share = 25.0", "share.*write a share, 0 to 1"),
        ("words = 3", 'words = "3"', "words.*write a whole number"),
        ('["money", "Money", "cash"]', '["hard cash"]', "'hard cash' is not one word"),
        ('["money", "Money", "cash"]', '"money"', "write a list of words"),
        ('["not", "http*"]', "[1]", "keep has something else than words"),
        ("more.jsonl", "none.jsonl", "cannot be read"),
        ("cosine = 0.7", "cosine = 7", "cosine.*write a cosine"),
        ("nearest = 4", "nearest = 0", "nearest.*write 1 to 100"),
    ],
)
def test_schemas_that_cannot_be_read(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "more.jsonl").write_text('{"win": ["receive"]}\n')
    assert old in SCHEMA
    with pytest.raises(SignstepError, match=message):
        read_schema(written(tmp_path, "s.toml", SCHEMA.replace(old, new)))
