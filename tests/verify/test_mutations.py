"""A law over every field of a record: change one, and a check fails, or the field is printed as unprovable."""

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from forger import IMAGES, OWN, Forged

from signstep.auditing.checks import Check
from signstep.auditing.provable import FIELDS, Row, paths, unprovable
from signstep.auditing.reattack import attacked_again
from signstep.auditing.result import Result
from signstep.cli.report_config import agrees, report_config
from signstep.cli.verifier import brought
from signstep.errors import LoadError
from signstep.model.predictor import Predictor
from signstep.verifying import of_model, of_record

PER_FIELD, SEED = 3, 0
EXTRA = {"per_example.answers.clean[]"}


def test_every_field_of_a_record_is_in_the_table() -> None:
    assert list(dict.fromkeys(paths())) == list(paths())
    assert set(paths()) == set(FIELDS) - EXTRA
    kinds = {row.kind for row in FIELDS.values()}
    assert kinds == {"re-scored", "recomputed", "re-attacked", "unprovable"}
    assert all((row.check == "unprovable") == (row.kind == "unprovable") for row in FIELDS.values())


def leaves(plain: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values that hold no others."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else None
    if inner is None or (where and where[0] == "terms" and len(where) == 2):
        yield where
        return
    for key, part in inner:
        yield from leaves(part, (*where, key))


def row_of(place: tuple[Any, ...]) -> Row:
    """The row of the table for a place in a record."""
    words = "".join("[]" if isinstance(key, int) else f".{key}" for key in place)[1:]
    if words in FIELDS:
        return FIELDS[words]
    pattern = {re.escape(path).replace(r"\*", r".+"): row for path, row in FIELDS.items()}
    return next(row for path, row in pattern.items() if re.fullmatch(path, words))


def others(value: Any, chance: random.Random) -> list[Any]:
    """Values that a forger may put in the place of another one."""
    found: list[Any] = [0, "x", 0.5]  # of nothing
    if isinstance(value, bool):
        found = [not value]
    elif isinstance(value, int):
        found = [value + 1, value - 1, 10**6]
    elif isinstance(value, float):
        found = [value * 0.9 + 1e-3, value * 2 + 0.01, -1.0]
    elif isinstance(value, str):
        letters = sorted(set(value)) or ["x"]
        spot = chance.randrange(len(value)) if value else 0
        swapped = value[:spot] + next((c for c in letters if value and c != value[spot]), "x") + value[spot + 1 :]
        found = [swapped, value + "x", ""]
    elif isinstance(value, dict):
        found = [{}, {**value, "x": 1}]
    elif isinstance(value, list):
        found = [[], [*value, *value]]
    return found


def changed(record: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(record)
    part: Any = made
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return made


@pytest.mark.parametrize("kind", ["forged", "climbed", "proved"])
def test_a_changed_field_is_found_or_printed(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged: Forged = request.getfixturevalue(kind)
    monkeypatch.syspath_prepend(".")
    stated, _ = report_config(forged.folder)
    words = OWN if kind == "forged" else IMAGES
    options = {"model": words[1], "weights": words[3], "data": words[5]}
    honest = Result.from_json(json.dumps(forged.record))
    own = brought(options, stated, honest, None, torch.device("cpu"))
    assert own is not None
    data = list(own.batches)
    own = type(own)(**{**own.__dict__, "batches": data})
    right = [row for row, letter in enumerate(honest.worst_case) if letter in "hfw"]

    def failed(record: dict[str, Any]) -> bool:
        """Whether any check but those of files and page fails."""
        try:
            result = Result.from_json(json.dumps(record))
        except LoadError:
            return True
        checks: list[Check] = [*of_record(result, forged.points, own), agrees(result, stated)]
        if all(check.holds for check in checks):
            checks += of_model(result, forged.points, own, torch.device("cpu"))
        return not all(check.holds for check in checks)

    assert not failed(forged.record)
    check = attacked_again(
        honest, data, 0, model=own.case.model, threat=own.case.threat, search=own.case.search, drawn=right
    )
    assert check.state == "ok", check
    chance = random.Random(SEED)
    fields: dict[str, list[tuple[Any, ...]]] = {}
    for place in leaves(forged.record):
        fields.setdefault("".join("[]" if isinstance(key, int) else f".{key}" for key in place), []).append(place)
    survived = []
    for places in fields.values():
        for place in chance.sample(places, min(PER_FIELD, len(places))):
            value: Any = forged.record
            for key in place:
                value = value[key]
            for other in chance.sample(others(value, chance), 1):
                made = changed(forged.record, place, other)
                if other == value or failed(made):
                    continue
                row, printed = row_of(place), unprovable(Result.from_json(json.dumps(made)))
                if row.kind != "unprovable" or printed == unprovable(honest):
                    survived.append((place, value, other, row.kind))
    left = [one for one in survived if one[3] != "re-attacked"]
    assert not left
    # What is left is found by attacking everything again.
    for place, _, other, _ in survived:
        result = Result.from_json(json.dumps(changed(forged.record, place, other)))
        assert isinstance(own.predictor, Predictor)
        check = attacked_again(
            result, data, 0, model=own.case.model, threat=own.case.threat, search=own.case.search, drawn=right
        )
        assert check.state != "ok", (place, other)
