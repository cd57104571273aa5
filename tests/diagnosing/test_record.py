"""A diagnosis survives JSON both ways, refuses what no diagnosis says, and stands in the record of an audit."""

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import signstep as ss
from signstep.auditing.diagnosed import POINTS, Verdict
from signstep.auditing.diagnosis_check import agreement
from signstep.auditing.gates import Gate, free_of
from signstep.auditing.provable import unprovable
from signstep.auditing.recount import recount
from signstep.auditing.result import Result
from signstep.diagnosing.diagnosis import SCHEMA
from signstep.errors import InputError, LoadError

sys.path.insert(0, str(Path(__file__).parent))
from specimens import NET, ROUNDED, data

pytestmark = pytest.mark.filterwarnings("ignore::signstep.SignstepWarning")
FEW = 9


@pytest.fixture(scope="module")
def found() -> ss.Diagnosis:
    return ROUNDED.diagnosed(data=data(FEW), attack="pgd:steps=5", show=["gradients"])


@pytest.fixture(scope="module")
def result() -> Result:
    return ss.audit(ROUNDED.model, data(FEW), threat=ss.linf(ROUNDED.eps), attacks=["pgd:steps=5"], curve=False)


def test_it_is_the_same_after_a_round_trip(found: ss.Diagnosis, tmp_path: Path) -> None:
    again = ss.Diagnosis.from_json(found.to_json())
    assert again == found
    assert str(again) == str(found)
    assert again.section() == found.section()
    assert again.to_json() == found.to_json()
    assert again.commands_text == found.commands_text
    assert ss.Diagnosis.load(found.save(tmp_path / "d.json")) == found
    with pytest.raises(AttributeError):
        found.before = 3  # type: ignore[misc]


def leaves(plain: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else None
    if inner is None:
        yield where
        return
    for key, part in inner:
        yield from leaves(part, (*where, key))


def changed(plain: dict[str, Any], where: tuple[Any, ...], value: Any) -> str:
    made = copy.deepcopy(plain)
    part: Any = made
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    return json.dumps(made)


def test_no_value_may_be_of_another_kind(found: ss.Diagnosis) -> None:
    """Every leaf of the record, replaced by a list of lists."""
    plain = json.loads(found.to_json())
    places = list(leaves(plain))
    assert len(places) > 100
    for where in places:
        with pytest.raises(LoadError):
            ss.Diagnosis.from_json(changed(plain, where, [[0]]))


@pytest.mark.parametrize("name", ["verdict", "tests", "commands", "sections", "schema", "measures"])
def test_nothing_may_be_missing_or_too_much(found: ss.Diagnosis, name: str) -> None:
    plain = json.loads(found.to_json())
    with pytest.raises(LoadError, match="diagnosis"):
        ss.Diagnosis.from_json(json.dumps({key: part for key, part in plain.items() if key != name}))
    with pytest.raises(LoadError, match="no field"):
        ss.Diagnosis.from_json(json.dumps({**plain, "more": 1}))


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("schema",), SCHEMA + 1, "this version of signstep reads"),
        (("after",), 10**6, "examples are left"),
        (("before",), -1, "examples are left"),
        (("examples",), 0, "examples are left"),
        (("standard",), 10**6, "standard leaves"),
        (("verdict", "text"), "perfectly real", "text"),
        (("causes", 0, "takes"), 10**6, "takes more than there was"),
        (("tests", 0, "p"), 1.5, "beyond 0 and 1"),
        (("tests", 0, "id"), "health", "asked twice"),
        (("tests", 0, "asked"), False, "fires that was not asked"),
        (("cost", "tests"), -4, "less than nothing"),
        (("commands", 0), "rm -rf /", "not of signstep audit"),
        (("commands", 0), "signstep audit 'open", "cannot be split"),
        (("right",), 2**70, "64 bits"),
    ],
)
def test_what_no_diagnosis_says_is_refused(found: ss.Diagnosis, where: tuple[Any, ...], value: Any, said: str) -> None:
    with pytest.raises(LoadError, match=said) as caught:
        ss.Diagnosis.from_json(changed(json.loads(found.to_json()), where, value))
    assert "signstep result" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 2, "schema": 2}', '{"schema": NaN}', "[" * 1000])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(LoadError, match="not a signstep diagnosis"):
        ss.Diagnosis.from_json(text)


def test_a_folder_is_no_record(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(LoadError, match="cannot be read"):
            ss.Diagnosis.load(path)


def test_a_result_keeps_it_and_its_sections(found: ss.Diagnosis, result: Result) -> None:
    kept = found.attach(result)
    assert kept.diagnosis == found.record
    assert kept.sections == (*result.sections, found.section(), *found.sections)
    assert Result.from_json(kept.to_json()) == kept
    check = agreement(kept)
    assert check.holds, check
    for other in (
        replace(kept, model="another"),
        replace(kept, terms={**kept.terms, "threat": "l2 eps=1, no box"}),
        replace(kept, sections=()),
        replace(kept, diagnosis=replace(found.record, after=found.after - 1)) if found.after else None,
    ):
        assert other is None or not agreement(other).holds
    lines = unprovable(kept)
    assert any(line.startswith("diagnosis.verdict.text") and "inflated" in line for line in lines)
    assert any(line.startswith("diagnosis.measures.*") and "gradient size" in line for line in lines)
    assert not any(line.startswith("diagnosis") for line in unprovable(result))
    with pytest.raises(InputError, match="already"):
        found.attach(kept)
    with pytest.raises(InputError, match="the audit of"):
        found.attach(ss.audit(NET, data(FEW), threat=ss.linf(0.1), attacks=["fgsm"], curve=False))


def test_no_gate_is_passed_without_a_whole_diagnosis(found: ss.Diagnosis) -> None:
    assert found.verdict.word == "inflated"
    assert not free_of(found.record, "inflated")
    assert free_of(found.record, "undetermined")
    assert not free_of(replace(found.record, partial=True), "undetermined")
    assert not free_of(None, "inflated")


def said_so(found: ss.Diagnosis, word: str, **change: Any) -> dict[str, Any]:
    """What a forger makes of a diagnosis: a verdict of that word, whose sentence has the share of its counts."""
    before = change.get("before", found.before)
    text = f"{word} {before / found.examples:.1%}: nothing was found"
    return {"verdict": Verdict(word, text), **change}  # type: ignore[arg-type]


def test_a_verdict_is_that_of_its_counts(found: ss.Diagnosis) -> None:
    """A forger has a better word at the price of other counts alone, and these the record states."""
    record, few = found.record, found.after
    assert found.before - few > POINTS * found.examples
    all_fell = {"before": 0, "after": 0, "causes": (), "standard": None, "standard_verdict": None}
    none_fell = {"after": found.before, "causes": (), "standard": None, "standard_verdict": None}
    lies: list[dict[str, Any]] = [
        said_so(found, "real"),
        said_so(found, "undetermined"),
        said_so(found, "undetermined", **all_fell),
        said_so(found, "real", **none_fell) | {"partial": True},
        said_so(found, "real", **none_fell) | {"verdict": Verdict("real", "real 99.9%: nothing was found")},
    ]
    if found.standard is not None and found.standard_verdict is not None:
        share = f"{found.standard / found.examples:.1%}"
        other = {"inflated": "real", "real": "undetermined", "undetermined": "real"}[found.standard_verdict.word]
        worse = found.standard - few > POINTS * found.examples or found.standard <= POINTS * found.examples
        lies += [{"standard_verdict": Verdict(other, f"{other} {share}: fine")}] * worse  # type: ignore[arg-type]
        lies.append({"standard_verdict": Verdict("inflated", "inflated 12.3%")})
    for lie in lies:
        with pytest.raises(InputError, match=r"no diagnosis says that (it|standard) (is|has)"):
            replace(record, **lie)
    for honest in (said_so(found, "real", **none_fell), said_so(found, "undetermined", **none_fell)):
        assert free_of(replace(record, **honest), "inflated")


@pytest.mark.parametrize("kind", get_args(get_type_hints(Gate)["kind"]))
def test_no_gate_is_passed_in_a_record_alone(kind: Any, found: ss.Diagnosis, result: Result) -> None:
    """Whatever was asked: what the record says came of it is what its counts and its diagnosis say."""
    kept = found.attach(result)
    limit = 1.0 if kind == "fail-under" else None
    passed = {"fail-under": result.robust_accuracy >= 1, "baseline": False}.get(kind, free_of(found.record, kind))
    assert recount(replace(kept, gates=(Gate(kind, limit, passed),))).holds
    assert not recount(replace(kept, gates=(Gate(kind, 0.5 if limit is None else None, passed),))).holds
    if kind == "baseline":  # its other result is not here
        return
    assert not recount(replace(kept, gates=(Gate(kind, limit, not passed),))).holds
    for other in (replace(kept, diagnosis=None), replace(kept, diagnosis=replace(found.record, partial=True))):
        assert kind == "fail-under" or not recount(replace(other, gates=(Gate(kind, limit, True),))).holds


def test_shards_say_that_their_diagnoses_are_not_joined(found: ss.Diagnosis) -> None:
    shards = []
    for place in range(2):
        run = ss.Run(shard=(place, 2))
        shard = ss.audit(ROUNDED.model, data(FEW), threat=ss.linf(ROUNDED.eps), attacks=["fgsm"], curve=False, run=run)
        shards.append(found.attach(shard))
    joined = ss.merge(shards)
    assert joined.diagnosis is None
    assert any("diagnoses of the shards" in note for note in joined.notes)
    assert joined.examples == FEW


def test_a_record_with_a_diagnosis_is_valid_by_the_schema(found: ss.Diagnosis, result: Result) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads(files("signstep.report").joinpath("result.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(document)
    plain = json.loads(found.attach(result).to_json())
    assert list(validator.iter_errors(plain)) == []
    plain["diagnosis"]["verdict"]["word"] = "fine"
    assert not validator.is_valid(plain)
