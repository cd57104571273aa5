"""Examples that held, attacked once more: drawn by the verifier's own secret seed, when the report is there already.

No letter proves that an example held, and whoever writes one knows nothing of the sample. So a share s of false ones
leaves a sample of n untouched with a chance of (1 - s)^n, and none fallen of n bounds s.
"""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from signstep.auditing.book import Check
from signstep.auditing.ladder import LADDERS
from signstep.auditing.result import Result
from signstep.auditing.run import audit
from signstep.core.statistics import exact_lower, exact_upper
from signstep.core.subject import Model
from signstep.core.tree import Tree, rows, take
from signstep.errors import InputError

# Another machine's rounding, or a recipe whose steps magnify it, lets so many of the held fall without a lie.
ROUNDING = 0.02
_NEAR = 1e-3  # relative, of a smallest size: eight halvings end 1/256 of a bracket apart
_AGAIN = re.compile(r" #\d+$")


def attacked_again(
    result: Result,
    data: Iterable[tuple[Tree, Tensor | None]],
    count: int,
    *,
    model: Model,
    reading: Mapping[str, Any],
    attacks: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
    drawn: Sequence[int] | None = None,
) -> Check:
    """Attack a sample of the examples that held, with the record's attacks and seed, and say what the outcome bounds.

    Args:
        result: a record whose examples are those of the data.
        data: batches of them.
        count: examples to draw, at most those that held.
        model: the verifier's.
        reading: arguments of `signstep.audit` that say how model and data are read: threat, task, mean, ...
        attacks: attack objects by name, for names that are no recipes.
        device: where it runs.
        drawn: the sample, for tests; None draws it by the system's secure generator.
    """
    held = [row for row, letter in enumerate(result.worst_case) if letter == "h"]
    if not held:
        return Check("again", True, "no example held: there is nothing to attack again")
    sample = sorted(secrets.SystemRandom().sample(held, min(count, len(held))) if drawn is None else drawn)
    x, y = _rows(data, sample)
    levels = [point.eps for point in result.curves.get("fgsm", ())]
    try:
        again = audit(
            model,
            [(x, y if result.terms.get("labels") == "given" else None)],
            **{**reading, **_attacks(result, attacks or {})},
            target=result.terms.get("target"),
            engine=result.terms.get("engine", "exact"),
            eot=result.terms.get("eot", 1),
            seed=result.terms.get("seed", 0),
            curve=levels or False,
            curve_attacks=(),
            device=device,
        )
    except InputError as error:
        return Check("again", False, f"the record's attacks cannot be run ({error})")
    return _outcome(result, again, sample, len(held))


def _outcome(result: Result, again: Result, sample: Sequence[int], held: int) -> Check:
    drawn = len(sample)
    fallen = [row for row, letter in zip(sample, again.worst_case, strict=True) if letter != "h"]
    moved = 0
    if result.curves.get("fgsm") and not result.terms.get("random_model"):
        pairs = [
            (result.per_example.smallest_eps[row], size)
            for row, size in zip(sample, again.per_example.smallest_eps, strict=True)
        ]
        moved = sum(not _near(stated, found) for stated, found in pairs)
    everyone = drawn == held
    if not fallen and not moved:
        bound = 0.0 if everyone else exact_upper(0, drawn)
        whole = "which are all" if everyone else f"so at most {100 * bound:.1f} % of the held are false (95 %)"
        return Check("again", True, f"0 of {drawn} drawn of {held} that held fell, {whole}")
    least = max(exact_lower(len(fallen), drawn), exact_lower(moved, drawn))
    seen = f"not reproduced: {len(fallen)} of {drawn} drawn of {held} that held fell now (examples {fallen[:5]})"
    if moved:
        seen += f", {moved} have another smallest size of FGSM"
    if least > ROUNDING:
        return Check(
            "again",
            False,
            f"{seen}; at least {100 * least:.1f} % are false (95 %), rounding makes {100 * ROUNDING:.0f} %",
        )
    cause = "a random model's chance" if result.terms.get("random_model") else "rounding on another machine"
    return Check("again", True, f"{seen}; {cause} may do that: draw more", complete=False)


def _near(stated: float | None, found: float | None) -> bool:
    if stated is None or found is None:
        return stated is found
    return abs(stated - found) <= _NEAR * max(stated, found)


def _attacks(result: Result, own: Mapping[str, Any]) -> dict[str, Any]:
    """The record's ladder, or its list of attacks."""
    if result.ladder in LADDERS:
        return {"ladder": result.ladder}
    specs = [own.get(entry.name, _AGAIN.sub("", entry.name)) for entry in result.attacks]
    return {"ladder": specs} if result.ladder else {"attacks": specs}


def _rows(data: Iterable[tuple[Tree, Tensor | None]], sample: Sequence[int]) -> tuple[Tree, Tensor | None]:
    """The examples of the sample, as one batch in its order."""
    parts: list[Tree] = []
    labels: list[Tensor] = []
    start = 0
    for x, y in data:
        wanted = [row - start for row in sample if start <= row < start + rows(x)]
        if wanted:
            index = torch.tensor(wanted)
            parts.append(take(x, index))
            if y is not None:
                labels.append(y[index])
        start += rows(x)
    if sum(map(rows, parts)) < len(sample):
        raise InputError(f"the data has {start} examples, and example {sample[-1]} was to be attacked again")
    first = parts[0]
    if isinstance(first, Tensor):
        joined: Tree = torch.cat([part for part in parts if isinstance(part, Tensor)])
    else:
        joined = {name: torch.cat([part[name] for part in parts if isinstance(part, dict)]) for name in first}
    return joined, torch.cat(labels) if labels else None
