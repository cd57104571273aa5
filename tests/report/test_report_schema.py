"""The published JSON Schema says what a record is, and has kept up with it."""

import json
from dataclasses import fields
from importlib.resources import files
from typing import Any

import pytest
import report_samples as samples

from signstep.auditing import diagnosed
from signstep.auditing.gates import Gate
from signstep.auditing.knob import Knob
from signstep.auditing.record import SCHEMA, AttackResult, CurvePoint, Examples
from signstep.auditing.result import Result
from signstep.auditing.sections import Chart, Line, Section

jsonschema = pytest.importorskip("jsonschema", reason="validating needs jsonschema: pip install 'signstep[dev]'")

TEXT = files("signstep.report").joinpath("result.schema.json").read_text(encoding="utf-8")
DOCUMENT: dict[str, Any] = json.loads(TEXT)
KINDS = samples.all_kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_real_records_are_valid(kind: str) -> None:
    validator = jsonschema.Draft202012Validator(DOCUMENT)
    validator.check_schema(DOCUMENT)
    assert [error.message for error in validator.iter_errors(json.loads(KINDS[kind][0].to_json()))] == []


def test_the_schema_has_kept_up_with_the_record() -> None:
    parts = {
        "attack": AttackResult,
        "curve_point": CurvePoint,
        "examples": Examples,
        "section": Section,
        "chart": Chart,
        "line": Line,
        "gate": Gate,
        "knob": Knob,
        "diagnosis": diagnosed.Diagnosed,
        "verdict": diagnosed.Verdict,
        "cause": diagnosed.Cause,
        "tested": diagnosed.Tested,
        "diagnosis_cost": diagnosed.Cost,
    }
    described = {Result: DOCUMENT} | {kind: DOCUMENT["$defs"][name] for name, kind in parts.items()}
    for kind, part in described.items():
        names = {entry.name for entry in fields(kind)}
        assert set(part["properties"]) == names, kind.__name__
        assert set(part["required"]) == names, kind.__name__
        assert part["additionalProperties"] is False
    assert DOCUMENT["properties"]["schema"]["const"] == SCHEMA


def test_every_term_of_a_record_is_described() -> None:
    described = set(DOCUMENT["$defs"]["terms"]["properties"])
    for result, _ in KINDS.values():
        assert set(result.terms) <= described


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("examples",), -1),
        (("schema",), 1),
        (("attacks", 1, "needs"), "money"),
        (("attacks", 1, "queries"), [1.0]),
        (("per_example", "transfers"), {"b": {"fgsm": "r"}}),
        (("partial",), "no"),
        (("attacks", 0, "zero"), 1.5),
        (("per_example", "clean"), "rx"),
        (("terms", "goal"), "other"),
        (("unknown",), 1),
    ],
)
def test_other_things_are_not(place: tuple[str | int, ...], value: object) -> None:
    record: Any = json.loads(samples.images()[0].to_json())
    inside = record
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    assert not jsonschema.Draft202012Validator(DOCUMENT).is_valid(record)
