"""What each field of a record rests on when somebody verifies it: the threat model of `signstep verify`, as data.

The forger has the whole folder and may write anything into it. The person who verifies brings model, weights and data.
Four kinds of field follow:

- re-scored: the verifier's model is asked again;
- recomputed: it follows from other fields, or from the verifier's files and data;
- re-attacked: `--again` attacks a sample anew, so a false one is found with a known probability;
- unprovable: nobody who was not there can tell. A forger may change these, and `signstep verify` prints them.
"""

import types
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from signstep.auditing.checks import Check
from signstep.auditing.input_spaces import TERM
from signstep.auditing.result import Result
from signstep.auditing.stated_terms import AT_TIMES, OF_DOMAINS, TERMS

Kind = Literal["re-scored", "recomputed", "re-attacked", "unprovable"]


@dataclass(frozen=True)
class Row:
    """One field.

    Attributes:
        kind: what it rests on.
        check: the line of `signstep verify` that names it when it is false; "unprovable" for those that are printed.
        how: in words.
        unless: of an unprovable field, the check that tells after all where the verifier brings what it needs.
    """

    kind: Kind
    check: str
    how: str
    unless: str = ""


def _rows(kind: Kind, check: str, how: str, *names: str, unless: str = "") -> dict[str, Row]:
    return {name: Row(kind, check, how, unless) for name in names}


UNPROVABLE = "unprovable"
_LONGEST = 400  # characters of a line: what nobody can check need not be read to its last digit

FIELDS: dict[str, Row] = {
    **_rows("recomputed", "names", "from the verifier's model and data, by the names of their files", "model", "data"),
    **_rows("recomputed", "names", "from the verifier's data", "classes[]"),
    **_rows(
        "recomputed", "counts", "letters of the examples, counted", "examples", "clean_right", "held", "undetermined"
    ),
    **_rows("recomputed", "ladder", "its rungs are those of the preset of that name", "ladder"),
    **_rows("recomputed", "record", "the only one that this version verifies", "schema"),
    **_rows("recomputed", "SHA-256", "of the verifier's files; all of them must be recorded", "hashes.*"),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "clocks are not witnesses; the attacks' sum is at most the whole",
        "seconds",
        "attacks[].seconds",
    ),
    **_rows("unprovable", UNPROVABLE, "what the machine had installed", "versions.*"),
    **_rows("unprovable", UNPROVABLE, "whether more was to come; the coverage is stated in any case", "partial"),
    **_rows("unprovable", UNPROVABLE, "the author's remarks", "notes[]"),
    **_rows("unprovable", UNPROVABLE, "clocks are not witnesses", "date"),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "what was asked of the result; a share or a verdict that was asked for is compared with the result's own",
        "gates[].kind",
        "gates[].limit",
        "gates[].passed",
    ),
    **_rows("recomputed", "knob", "the example and the sizes that the rule gives", "knob.row", "knob.eps[]"),
    **_rows(
        "re-scored",
        "knob",
        "the saved change is turned again, and your model is asked",
        "knob.answers[]",
        "knob.confidence[]",
    ),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "the attacker who knows is not searched for again; letters, p-values and verdicts agree with each other",
        "detection.evaded",
        "detection.denied",
        "detection.ways.*",
    ),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "of the points that were saved asked again, of others nobody has them; letters and p-values agree",
        "detection.detectors[].attacked.*[]",
    ),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "only who has the detectors can ask them: whoever brings them is told by the check of detection",
        "detection.rule",
        "detection.reject",
        "detection.review",
        "detection.detectors[].name",
        "detection.detectors[].rows",
        "detection.detectors[].passes",
        "detection.detectors[].by_class",
        "detection.detectors[].recipes[]",
        "detection.detectors[].digests.*",
        "detection.detectors[].clean[]",
        unless="detection",
    ),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "a domain's own words",
        "sections[].title",
        "sections[].text[]",
        "sections[].header[]",
        "sections[].rows[][]",
        "sections[].chart.kind",
        "sections[].chart.title",
        "sections[].chart.description",
        "sections[].chart.x_label",
        "sections[].chart.y_label",
        "sections[].chart.categories[]",
        "sections[].chart.limits[][]",
        "sections[].chart.lines[].name",
        "sections[].chart.lines[].x[]",
        "sections[].chart.lines[].y[]",
    ),
    **_rows("recomputed", "diagnosis", "those of the record", "diagnosis.model", "diagnosis.threat"),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "the author's diagnosis; its commands give the adapted number again",
        *(
            f"diagnosis.{name}"
            for name in (
                *("data", "attack", "examples", "seen", "right", "before", "after", "standard"),
                *("verdict.word", "verdict.text", "standard_verdict.word", "standard_verdict.text"),
                *(f"causes[].{part}" for part in ("name", "test", "because", "cure", "takes")),
                "signs[]",
                *(f"tests[].{part}" for part in ("id", "question", "asked", "fired", "statistic", "threshold")),
                *(f"tests[].{part}" for part in ("value", "p", "told", "passes")),
                *(f"cost.{part}" for part in ("attack", "standard", "tests", "allowed", "shown")),
                *("commands[][]", "stated[]", "needs[]", "ineligible[]", "notes[]", "measures.*", "partial"),
                "versions.*",
            )
        ),
    ),
    # Each attack.
    **_rows("recomputed", "passes", "a recipe of this version, as it writes it", "attacks[].name"),
    **_rows("recomputed", "passes", "from the recipe", "attacks[].steps", "attacks[].needs", "attacks[].source"),
    **_rows(
        "recomputed",
        "counts",
        "letters and numbers of the examples",
        "attacks[].fooled",
        "attacks[].held",
        "attacks[].undetermined",
        "attacks[].entered",
        "attacks[].reached",
        "attacks[].right_after",
        "attacks[].distance",
        "attacks[].forwards",
        "attacks[].queries[]",
        "attacks[].nearest[]",
        "attacks[].transfers.*[]",
    ),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "within what the plans of the attacks and the other counts allow",
        "attacks[].already",
        "attacks[].backwards",
        "attacks[].gradients",
        "attacks[].dead_gradients",
        "attacks[].zero",
        "attacks[].nonfinite",
        "attacks[].underflow",
        "attacks[].coordinates",
        "attacks[].unverified",
    ),
    # Curves.
    **_rows("recomputed", "threat", "from the size of the threat, or as the configuration has them", "curves.*[].eps"),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "FGSM's within what the examples' smallest sizes allow; of smallest-change attacks from the nearest points; of "
        "others they rise, and reach no more than all",
        "curves.*[].fooled",
    ),
    # Each example.
    **_rows("recomputed", "rows", "from the content of the verifier's data, in its order", "per_example.ids[]"),
    **_rows("recomputed", "untouched answers", "from the verifier's data", "per_example.labels[]"),
    **_rows(
        "re-scored",
        "untouched answers",
        "every example is asked again",
        "per_example.clean",
        "per_example.answers.clean[]",
    ),
    **_rows(
        "re-attacked",
        "again",
        "fallen: its saved point is scored again; held: a sample is attacked again",
        "per_example.verdicts.*",
        "per_example.answers.*[]",
    ),
    **_rows(
        "re-attacked", "again", "a sample is attacked again", "per_example.smallest_eps[]", "per_example.nearest.*[]"
    ),
    **_rows(
        "re-attacked",
        "threat model",
        "of the saved point; of other attacks within eps, and a sample is attacked again",
        "per_example.distances.*[]",
    ),
    **_rows(
        "re-attacked",
        "passes",
        "held: the whole plan of the attack, to the pass; fallen: within the plan",
        "per_example.passes.*[]",
    ),
    **_rows("unprovable", UNPROVABLE, "the other models are not here", "per_example.transfers.*.*"),
    **_rows(
        "re-scored",
        "bounds",
        "proved again, by the methods that are stated",
        "per_example.bounds",
        "per_example.proved_eps[]",
    ),
    # Terms.
    **_rows(
        "recomputed",
        "threat model",
        "words, label and numbers agree; with the box of the verifier's data, and every saved point lies inside",
        "terms.threat",
        "terms.norm",
        "terms.eps",
        "terms.eps_value",
        "terms.box_span",
        "terms.threat_terms",
        "terms.tolerance",
    ),
    **_rows(
        "re-scored",
        "untouched answers",
        "the verifier's model read so gives the recorded answers",
        "terms.task",
        "terms.labels",
        "terms.random_model",
        "terms.outputs_form",
        "terms.classes",
        "terms.mode",
        "terms.input_space",
    ),
    **_rows("recomputed", "configuration", "goal, targets and examples agree", "terms.goal"),
    **_rows("recomputed", "targets", "each target follows from the rule, the label and the model", "terms.target"),
    **_rows("recomputed", "rows", "which examples of the data it is of", "terms.shard"),
    **_rows(
        "re-attacked",
        "again",
        "the sample is attacked under these terms, and passes fit the plan",
        "terms.seed",
        "terms.engine",
        "terms.eot",
        "terms.gradients_from",
    ),
    **_rows("recomputed", "untouched answers", "what the options mean for the model's task", "terms.loss"),
    **_rows("unprovable", UNPROVABLE, "where it ran", "terms.device"),
    **_rows("unprovable", UNPROVABLE, "examples that had no label; the rest is there in its order", "terms.left_out"),
    **_rows("unprovable", UNPROVABLE, "what an endpoint was asked; within its bound", "terms.requests"),
    **_rows(
        "unprovable", UNPROVABLE, "how far proofs were tried; of what is proved each is proved again", "terms.bounds"
    ),
    **_rows("unprovable", UNPROVABLE, "how the work was cut, and on which machines it was done", "terms.units"),
    **_rows("unprovable", UNPROVABLE, "the author's look at other input spaces", f"terms.{TERM}"),
    **_rows(
        "unprovable",
        UNPROVABLE,
        "what inputs pass through: scored again where the verifier's own model declares the same",
        "terms.transform",
        "terms.defences",
    ),
    **_rows("unprovable", UNPROVABLE, "by which way past a defence examples fell; their sums are known", "terms.ways"),
    **_rows("recomputed", "domain", "the verifier's own domain and schema", "terms.domain", "terms.domain_terms"),
}


def paths(kind: Any = Result, where: str = "") -> Iterator[str]:
    """Every field of a record, recursively; names of a mapping are "*", places of a list "[]"; terms by their names."""
    hints = get_type_hints(kind)
    for part in fields(kind):
        yield from _of_type(hints[part.name], f"{where}.{part.name}" if where else part.name)


def _of_type(kind: Any, where: str) -> Iterator[str]:
    inner = [part for part in get_args(kind) if part not in (type(None), Ellipsis)]
    origin = get_origin(kind)
    if where == "terms":
        yield from (f"terms.{name}" for name in (*TERMS, *OF_DOMAINS, *AT_TIMES))
    elif is_dataclass(kind):
        yield from paths(kind, where)
    elif origin is dict:
        yield from _of_type(inner[1], f"{where}.*")
    elif origin is tuple:
        yield from _of_type(inner[0], f"{where}[]")
    elif origin in (types.UnionType, Union):
        yield from _of_type(inner[0], where)  # a type or None
    else:
        yield where


def unprovable(result: Result, checks: Iterable[Check] = ()) -> list[str]:
    """What a forger may have written, by field, one line each: the unprovable fields of a record with their values.

    Args:
        result: the record.
        checks: that were made; what one of them could tell after all is left out.
    """
    told = {check.name for check in checks if check.holds and check.complete}
    lines = []
    for path, row in FIELDS.items():
        if (
            row.kind == "unprovable"
            and row.unless not in told
            and (value := _value(result, path)) not in (None, [], (), {})
        ):
            text = str(value)
            more = "" if len(text) <= _LONGEST else f"... ({len(text)} characters)"
            lines.append(f"{path} = {text[:_LONGEST]}{more}")
    return lines


def _value(result: Result, path: str) -> Any:
    """What stands in a field, over all attacks and examples."""
    head, _, tail = path.partition("[].")
    if head == "attacks":
        values = {entry.name: getattr(entry, tail) for entry in result.attacks}
        return {name: value for name, value in values.items() if value is not None}
    if head in ("sections", "gates"):
        return _inner([asdict(part) for part in getattr(result, head)], tail.split("."))
    head, _, tail = path.removesuffix("[]").partition(".")
    if head in ("detection", "diagnosis"):
        return _detected(result, tail) if head == "detection" else _of_diagnosis(result, path)
    if head == "curves":
        traced = [name for name in result.curves if name not in result.per_example.nearest]
        return {name: [point.fooled for point in result.curves[name]] for name in traced}
    if head == "per_example":
        return result.per_example.transfers
    return result.terms.get(tail) if head == "terms" else getattr(result, head)


def _detected(result: Result, path: str) -> Any:
    """What stands in a field of the policy, over all its detectors."""
    if result.detection is None:
        return None
    head, _, tail = path.partition("[].")
    if not tail:
        return getattr(result.detection, head.partition(".")[0])
    name = tail.partition(".")[0].partition("[")[0]
    return {judge.name: getattr(judge, name) for judge in result.detection.detectors}


def _of_diagnosis(result: Result, path: str) -> list[Any]:
    found = [] if result.diagnosis is None else [asdict(result.diagnosis)]
    return _inner(found, path.removesuffix(".*").split(".")[1:])


def _inner(parts: list[Any], names: list[str]) -> list[Any]:
    """The values under names in plain objects; brackets after a name are its own list's."""
    if not names:
        return parts
    name = names[0].partition("[")[0]
    found = [part[name] for part in parts if isinstance(part, dict) and part.get(name) not in (None, [], ())]
    if names[0].endswith("[]") and names[1:]:
        found = [one for several in found for one in several]
    return _inner(found, names[1:])
