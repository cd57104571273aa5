"""Joining the parts of an audit: n results in, the one out that a single audit of all examples gives."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from signstep.auditing.detection import joined
from signstep.auditing.input_spaces import TERM, merged
from signstep.auditing.knob import Knob, chosen
from signstep.auditing.parts import named, place, spread
from signstep.auditing.record import CurvePoint, Examples, worst_case
from signstep.auditing.result import Result
from signstep.auditing.tally import Facts, Sums, nearest_curves
from signstep.errors import InputError
from signstep.messages import Arg, Blank

Item = TypeVar("Item")

# Terms that may differ between the shards of one audit.
_OWN = ("shard", "tolerance", "requests", "ways", TERM)


def merge(results: Sequence[Result]) -> Result:
    """Join the results of ``audit(..., run=Run(shard=(i, n)))`` for all i, or of ranges that lie side by side.

    They come in any order. Examples stand in that of the data, counts and passes are added, medians and quartiles taken
    over all examples.
    The result is the one of a single audit, but for the seconds, which are summed.

    Args:
        results: one for each shard; of ranges, ``shard=range(start, stop)``, from the first example on.

    Raises:
        InputError: a shard is missing, comes twice, is partial, or was made under other terms; the message names it.

    Example:
        >>> import torch, signstep as ss
        >>> model, data = torch.nn.Linear(4, 3), (torch.rand(9, 4), torch.arange(9) % 3)
        >>> shards = [ss.audit(model, data, threat=ss.linf(0.1), run=ss.Run(shard=(i, 2))) for i in range(2)]
        >>> ss.merge(shards).examples
        9
    """
    shards = _in_order(results)
    for other in shards[1:]:
        _check_same(shards[0], other)
    sizes = [shard.examples for shard in shards]
    whole = sum(sizes)
    runs = _are_runs(shards)
    if not runs and sizes != [len(range(number, whole, len(shards))) for number in range(len(shards))]:
        raise InputError(
            f"the shards have {sizes} examples, which no {whole} examples split into", remedy="was the data the same?"
        )
    first = shards[0]
    examples = _joined_examples(shards, _chained if runs else woven)
    entries = tuple(
        _sums(shards, number, examples).entry(
            entry.name,
            Facts(entry.steps, entry.needs, entry.source),
            examples,
            targeted=first.terms.get("goal") == "targeted",
        )
        for number, entry in enumerate(first.attacks)
    )
    letters = worst_case(examples, entries)
    levels = [point.eps for point in next(iter(first.curves.values()), ())]
    return Result(
        model=first.model,
        data=first.data,
        examples=whole,
        clean_right=examples.clean.count("r"),
        held=letters.count("h"),
        undetermined=letters.count("u"),
        attacks=entries,
        curves={**_added(shards, examples), **nearest_curves(examples, levels)},
        terms={**_terms(shards, examples), **_asked(shards)},
        notes=tuple(dict.fromkeys((*(note for shard in shards for note in shard.notes), *_unsaid(shards)))),
        versions=first.versions,
        seconds=round(sum(shard.seconds for shard in shards), 3),
        partial=False,
        per_example=examples,
        classes=first.classes,
        hashes=first.hashes,
        ladder=first.ladder,
        date=max(shard.date for shard in shards),
        knob=_knob(shards, examples, first.terms.get("eps_value")),
        detection=joined([shard.detection for shard in shards], _chained if runs else woven),
    )


def _asked(shards: Sequence[Result]) -> dict[str, Any]:
    """What was asked of an endpoint in all; the bounds are those of each shard, and so is their sum."""
    asked = [shard.terms["requests"] for shard in shards if "requests" in shard.terms]
    if not asked:
        return {}

    def summed(name: str) -> Any:
        values = [one[name] for one in asked]
        return None if None in values else round(sum(values), 9)

    return {"requests": {name: part if name == "currency" else summed(name) for name, part in asked[0].items()}}


def merge_points(shards: Sequence[Result], points: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The saved points of the shards as those of the whole, in the order of the data; none where a shard has none."""
    kept = [
        {**part, "row": part["row"] * spread(shard.terms["shard"])[1] + spread(shard.terms["shard"])[0]}
        for shard, part in zip(shards, points, strict=True)
        if part
    ]
    if not kept:
        return {}
    joined = {name: torch.cat([part[name] for part in kept]) for name in kept[0]}
    order = joined["row"].argsort()
    return {name: part[order].contiguous() for name, part in joined.items()}


def _terms(shards: Sequence[Result], examples: Examples) -> dict[str, Any]:
    """The terms of the whole."""
    first = shards[0].terms
    parts = [shard.terms["shard"] for shard in shards]
    looked = merged([shard.terms.get(TERM) for shard in shards], examples, first["seed"], parts)
    return {
        **{name: value for name, value in first.items() if name not in (TERM, "ways")},
        "shard": None,
        "tolerance": max(shard.terms["tolerance"] for shard in shards),
        **({} if looked is None else {TERM: looked}),
        **_ways(shards),
    }


def _ways(shards: Sequence[Result]) -> dict[str, Any]:
    """By which ways past a defence the examples of all shards fell."""
    whole: dict[str, dict[str, int]] = {}
    for shard in shards:
        for name, counts in shard.terms.get("ways", {}).items():
            found = whole.setdefault(name, {})
            for way, count in counts.items():
                found[way] = found.get(way, 0) + count
    names = [entry.name for entry in shards[0].attacks if entry.name in whole]
    return {"ways": {name: dict(sorted(whole[name].items())) for name in names}} if whole else {}


def _in_order(results: Sequence[Result]) -> list[Result]:
    if not results:
        raise InputError("no results to merge", remedy="pass one for each shard")
    if _are_runs(results):
        return _side_by_side(results)
    found: dict[int, Result] = {}
    count = None
    for at, result in enumerate(results):
        shard = result.terms.get("shard")
        if shard is None:
            raise InputError(
                f"result {at + 1} is of a whole audit",
                remedy=(
                    "make the parts with",
                    Arg("shard", Blank("i", "n"), python="shard=(i, n), on the command line --shard I/N"),
                ),
            )
        if len(shard) == 3:
            raise InputError(f"result {at + 1} is of {named(shard)}, others are not", remedy="pass one audit's")
        number, of = shard
        count = of if count is None else count
        if of != count:
            raise InputError(
                f"result {at + 1} is shard {number}/{of}, the first is one of {count}", remedy="pass one audit's"
            )
        if number in found:
            raise InputError(f"shard {number}/{of} is there twice", remedy="pass each once")
        if result.partial:
            raise InputError(f"shard {number}/{of} is partial: it was interrupted", remedy="run it to its end")
        found[number] = result
    missing = [f"{number}/{count}" for number in range(count or 0) if number not in found]
    if missing:
        raise InputError(f"shards are missing: {', '.join(missing)}", remedy="pass a result for each")
    return [found[number] for number in sorted(found)]


def _are_runs(results: Sequence[Result]) -> bool:
    """Whether each is of examples that lie together."""
    shards = [result.terms.get("shard") for result in results]
    return all(shard is not None and len(shard) == 3 for shard in shards)


def _side_by_side(results: Sequence[Result]) -> list[Result]:
    """Runs of examples in their order.

    Raises:
        InputError: one is missing, partial, or there twice.
    """
    ordered = sorted(results, key=lambda result: int(result.terms["shard"][0]))
    at = 0
    for result in ordered:
        shard = result.terms["shard"]
        if result.partial:
            raise InputError(f"{named(shard)} are partial: their audit was interrupted", remedy="run it to its end")
        if shard[0] > at:
            raise InputError(f"examples {at} to {shard[0] - 1} are missing", remedy="pass a result for each part")
        if shard[0] < at:
            raise InputError(f"example {shard[0]} is in two of the results", remedy="pass each once")
        at += result.examples
    return ordered


def _check_same(first: Result, other: Result) -> None:
    """Whether two shards are of one audit; the first thing that differs is named."""

    def seen(result: Result) -> dict[str, Any]:
        stated: dict[str, Any] = {name: getattr(result, name) for name in ("model", "data", "ladder", "classes")}
        stated["attacks"] = [(entry.name, entry.steps) for entry in result.attacks]
        stated["sizes of the curve"] = [point.eps for point in result.curve]
        for part in ("terms", "versions", "hashes"):
            stated |= {f"{part}: {name}": value for name, value in getattr(result, part).items() if name not in _OWN}
        stated["models shown to"] = sorted(result.per_example.transfers)
        stated["the policy"] = None if result.detection is None else result.detection.stated
        return stated

    one, two = seen(first), seen(other)
    for name in [*one, *(name for name in two if name not in one)]:
        if one.get(name) != two.get(name):
            raise InputError(
                f"shards {_label(first)} and {_label(other)} differ in {name}: {one.get(name)} and {two.get(name)}",
                remedy="make all of them under the same terms",
            )


def _label(result: Result) -> str:
    return named(result.terms["shard"]).removeprefix("shard ")


def woven(parts: Sequence[Iterable[Item]]) -> list[Item]:
    """The n parts, of which the i-th has every n-th item from the i-th on, as one list.

    >>> woven([[0, 3], [1, 4], [2]])
    [0, 1, 2, 3, 4]
    """
    lists = [list(part) for part in parts]
    longest = max(map(len, lists))
    return [part[row] for row in range(longest) for part in lists if row < len(part)]


def _chained(parts: Sequence[Iterable[Item]]) -> list[Item]:
    """The parts one after the other."""
    return [item for part in parts for item in part]


def _joined_examples(shards: Sequence[Result], weave: Callable[[Sequence[Iterable[Any]]], list[Any]]) -> Examples:
    parts = [shard.per_example for shard in shards]

    def letters(pick: Callable[[Examples], str]) -> str:
        return "".join(weave([pick(part) for part in parts]))

    def columns(name: str) -> dict[str, tuple[Any, ...]]:
        # A shard lacks a column where no example of it was left for a rung that looks for the smallest change.
        names = dict.fromkeys(key for part in parts for key in getattr(part, name))
        empty = [(None,) * len(part.clean) for part in parts]
        return {
            key: tuple(weave([getattr(part, name).get(key, filler) for part, filler in zip(parts, empty, strict=True)]))
            for key in names
        }

    first = parts[0]
    return Examples(
        ids=tuple(weave([part.ids for part in parts])),
        clean=letters(lambda part: part.clean),
        verdicts={name: letters(lambda part, name=name: part.verdicts[name]) for name in first.verdicts},  # type: ignore[misc]
        smallest_eps=tuple(weave([part.smallest_eps for part in parts])),
        labels=tuple(weave([part.labels for part in parts])),
        answers=columns("answers"),
        passes=columns("passes"),
        distances=columns("distances"),
        nearest=columns("nearest"),
        transfers={
            other: {
                name: letters(lambda part, other=other, name=name: part.transfers[other][name])  # type: ignore[misc]
                for name in there
            }
            for other, there in first.transfers.items()
        },
        bounds=letters(lambda part: part.bounds),
        proved_eps=tuple(woven([part.proved_eps for part in parts])),
    )


def _sums(shards: Sequence[Result], number: int, examples: Examples) -> Sums:
    entries = [shard.attacks[number] for shard in shards]
    name = entries[0].name
    shares = [(entry.zero, entry.nonfinite, entry.underflow) for entry in entries]
    counted = [
        sum(round(share[part] * entry.coordinates) for share, entry in zip(shares, entries, strict=True))
        for part in range(3)
    ]
    return Sums(
        verdicts=[examples.verdicts[name]],
        reached=sum(entry.reached or 0 for entry in entries),
        already=sum(entry.already or 0 for entry in entries),
        right_after=sum(entry.right_after or 0 for entry in entries),
        backwards=sum(round(entry.backwards * shard.examples) for entry, shard in zip(entries, shards, strict=True)),
        seconds=sum(entry.seconds for entry in entries),
        health=(
            *counted,
            sum(entry.coordinates for entry in entries),
            sum(entry.dead_gradients for entry in entries),
            sum(entry.gradients for entry in entries),
        ),
        unverified=sum(entry.unverified for entry in entries),
        passes=list(examples.passes[name]),
        distances=list(examples.distances[name]),
        nearest=list(examples.nearest.get(name, ())),
        seeks=name in examples.nearest,
    )


def _added(shards: Sequence[Result], examples: Examples) -> dict[str, tuple[CurvePoint, ...]]:
    """Curves of attacks that ran at each size; those of smallest-change attacks are counted anew."""
    return {
        name: tuple(
            CurvePoint(point.eps, sum(shard.curves[name][number].fooled for shard in shards))
            for number, point in enumerate(points)
        )
        for name, points in shards[0].curves.items()
        if name not in examples.nearest
    }


def _knob(shards: Sequence[Result], examples: Examples, eps: float | None) -> Knob | None:
    """That of the example which an audit of all would have asked."""
    found = [
        replace(shard.knob, row=place(shard.terms["shard"], shard.knob.row))
        for shard in shards
        if shard.knob is not None
    ]
    return found[chosen([knob.row for knob in found], examples.smallest_eps, eps)] if found and eps else None


def _unsaid(shards: Sequence[Result]) -> tuple[str, ...]:
    """What a domain says is about the examples of its shard, and cannot be added up."""
    if not any(shard.sections for shard in shards):
        return ()
    if any(shard.diagnosis for shard in shards):
        return ("the diagnoses of the shards are not joined here: each chose among its own; read the shards' reports",)
    return ("what the domain says of each shard is not joined here; read the shards' own reports",)
