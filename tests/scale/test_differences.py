"""Whatever tells two audits apart is named with both its values, whole, in a sentence of bounded length."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from test_units import THREAT, UNIT, WAYS, data
from unitnets import RowNet

import signstep as ss
from flat import flat
from signstep.auditing.evidence import Evidence
from signstep.auditing.result import Result
from signstep.auditing.run import Job
from signstep.scale.differences import differences
from signstep.scale.identity import identity


class Seen:
    """An executor that looks at the terms alone."""

    def carry_out(self, job: Job) -> Result:
        raise Looked(identity(job, "cpu"))


class Looked(Exception):  # noqa: N818
    pass


def terms_of(way: Mapping[str, Any]) -> dict[str, str]:
    options: dict[str, Any] = {"threat": THREAT, **way, "executor": Seen(), "unit": UNIT, "evidence": Evidence()}
    net, more = flat(RowNet(), options)
    with pytest.raises(Looked) as looked:
        ss.audit(net, data(), **more)
    found: dict[str, str] = looked.value.args[0]
    return found


def other(value: Any) -> Any:
    """Another value of the same kind, which begins alike where it is long."""
    if isinstance(value, bool) or value is None:
        return 7 if value is None else not value
    if isinstance(value, str):
        return value[:-1] + ("x" if value[-1:] != "x" else "y")
    return value + 1


def changed(value: Any) -> Iterator[tuple[str, Any]]:
    """The value with each of its innermost parts changed, one at a time; the name of the part."""
    if isinstance(value, (dict, list)) and value:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        for place in places:
            for name, part in changed(value[place]):
                whole = dict(value) if isinstance(value, dict) else list(value)
                whole[place] = part
                yield name or str(place), whole
    elif isinstance(value, dict):
        yield "more", {"more": 1}
    else:
        yield "", [1] if value == [] else other(value)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_each_part_of_each_term_is_named_with_both_values(way: str) -> None:
    terms = terms_of(WAYS[way])
    assert differences(terms, terms) == ""
    count = 0
    for name, text in terms.items():
        value = json.loads(text) if text[:1] in ("{", "[") else text
        for part, whole in changed(value):
            before = whole if isinstance(whole, str) else json.dumps(whole)
            said = differences({**terms, name: before}, terms)
            assert said.startswith(name)
            assert part.isdecimal() or part.rpartition(".")[2] in said
            one, _, two = said.partition(": ")[2].removesuffix(" here").partition(" there, ")
            assert one
            assert two
            assert one != two
            assert "; " not in said, "one part differs, and one is named"
            assert not {*said} & {*'{}"\n'}, "no cut-off JSON"
            assert len(said) < len(name) + 250
            count += 1
        assert "nothing there" in differences({key: text for key, text in terms.items() if key != name}, terms)
        assert "nothing here" in differences(terms, {key: text for key, text in terms.items() if key != name})
    assert count > len(terms)


def test_another_class_is_named_and_not_what_it_is_made_of() -> None:
    two = terms_of({**WAYS["attacks"], "threat": ss.l2(0.15, box=None)})
    assert "threat.norm: Linf there, L2 here" in differences(terms_of(WAYS["attacks"]), two)
    radii = [ss.linf(torch.full((23,), 0.1, dtype=torch.float64) + 0.1 * number, box=None) for number in (0, 1)]
    said = differences(*(terms_of({**WAYS["attacks"], "threat": threat}) for threat in radii))
    assert "threat.eps: torch.float64 (23,) " in said


def test_of_many_terms_the_first_are_named_and_the_others_counted() -> None:
    terms = terms_of(WAYS["attacks"])
    said = differences({}, terms)
    assert said.count("nothing there") == 4
    assert said.endswith(f"; and {len(terms) - 4} more")


@pytest.mark.parametrize(
    "forged", ["[" * 5000, '{"a": 1, "a": 2}', "{", 7, "x" * 10**6, {"a.B": {}}, "[NaN]", "\x1b[2J"]
)
def test_terms_that_anybody_wrote_end_in_a_sentence(forged: object) -> None:
    said = differences({"seed": forged, 9: forged}, {"seed": "0"})
    assert "seed: " in said
    assert len(said) < 400
