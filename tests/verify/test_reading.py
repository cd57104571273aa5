"""Records written by an enemy: refused in one sentence, soon, and what is read is what was written."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from forger import Forged
from hypothesis import given, settings
from hypothesis import strategies as st

from signstep.auditing.reading import DEEPEST, parse
from signstep.auditing.result import Result
from signstep.errors import LoadError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(plain=PLAIN)
def test_any_json_is_no_record_in_one_sentence(plain: object) -> None:
    with pytest.raises(LoadError) as caught:
        Result.from_json(json.dumps(plain))
    assert "\n" not in str(caught.value).replace("\\n", "")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_value_in_any_place_is_read_as_it_is_or_refused(data: st.DataObject) -> None:
    record = json.loads(SMALL)
    places: list[tuple[dict[str, object], str]] = []

    def walk(part: object) -> None:
        if isinstance(part, dict):
            for name, inner in part.items():
                places.append((part, name))
                walk(inner)
        elif isinstance(part, list):
            for inner in part:
                walk(inner)

    walk(record)
    holder, name = data.draw(st.sampled_from(places))
    holder[name] = data.draw(PLAIN)
    try:
        result = Result.from_json(json.dumps(record))
    except LoadError:
        return
    assert json.loads(result.to_json()) == {**record, "schema": 4}


@pytest.mark.parametrize(
    "text",
    [
        '"\\' * 10**6,
        '"' * 10**6,
        "[" * 10**6,
        "{" * 10**6,
        '{"a":' * 10**5,
        "\\" * 10**6,
        "]" * 10**6,
        "9" * 10**6,
        '"' + "\\u0000" * 10**5,
        "[" + "1," * 10**6,
    ],
    ids=range(10),
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    with pytest.raises(LoadError):
        parse(text)
    assert time.process_time() - began < 5  # a quadratic reader takes hours


def test_brackets_in_strings_nest_nothing() -> None:
    deep = "[" * 500
    assert parse(json.dumps({"a": deep, "b": '\\"' + deep})) == {"a": deep, "b": '\\"' + deep}
    assert parse("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(LoadError, match=f"nests {DEEPEST + 1} deep"):
        parse("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))


def test_what_is_read_is_what_was_written(forged: Forged) -> None:
    result = Result.load(forged.folder / "result.json")
    assert Result.from_json(result.to_json()) == result
    assert result.to_json() + "\n" == (forged.folder / "result.json").read_text()
    with pytest.raises(LoadError, match="comes twice"):
        parse('{"held": 1, "held": 2}')
    # 3 is a number, as 3.0 is; true is none.
    assert Result.from_json(json.dumps({**forged.record, "seconds": 3})).seconds == 3.0
    for bad in (True, "3", None, [3], 10**19):
        with pytest.raises(LoadError, match="held is"):
            Result.from_json(json.dumps({**forged.record, "held": bad}))


def test_a_pipe_and_a_huge_file_are_not_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LoadError, match="no plain file"):
        Result.load(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(2**31)
    with pytest.raises(LoadError, match="larger than"):
        Result.load(tmp_path / "huge")


def small() -> str:
    import torch

    import signstep as ss

    model, data = torch.nn.Linear(4, 3), (torch.full((3, 4), 0.5), torch.tensor([0, 1, 2]))
    result = ss.audit(model, data, threat=ss.linf(0.1), attacks=["fgsm"])
    return replace(result, seconds=1.0).to_json()


SMALL = small()
