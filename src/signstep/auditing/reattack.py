"""Examples attacked once more, drawn by the verifier's own secret seed when the report is there already.

No letter proves that an example held, and whoever writes one knows nothing of the sample. So a share s of false ones
leaves a sample of n untouched with a chance of (1 - s)^n, and none fallen of n bounds s.
"""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from signstep.auditing.bracket import Bounds
from signstep.auditing.checks import Check
from signstep.auditing.counterexamples import without_search
from signstep.auditing.ladder import LADDERS
from signstep.auditing.record import EXACT_SEARCH
from signstep.auditing.result import Result
from signstep.auditing.run import Curve, Run, audit
from signstep.engine.statistics import exact_lower, exact_upper
from signstep.engine.threat import Threat
from signstep.engine.tree import Tree, rows, take
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.search import Search
from signstep.registry import NotTypedError, typed_only

# Another machine's rounding, or a recipe whose steps magnify it, lets so many of the held fall without a lie, and
# changes the step at which so many fall, or how far they lie from the boundary.
ROUNDING, MOVED = 0.02, 0.2
_NEAR = 1e-3  # relative, of sizes
_TERMS = (
    "task",
    "goal",
    "labels",
    "loss",
    "random_model",
    "outputs_form",
    "classes",
    "threat",
    "threat_terms",
    "input_space",
    "mode",
    "gradients_from",
    "engine",
    "eot",
    "target",
    "seed",
)
_AGAIN = re.compile(r" #\d+$")


def attacked_again(
    result: Result,
    data: Iterable[tuple[Tree, Tensor | None]],
    count: int,
    *,
    model: Model,
    threat: Threat,
    search: Search | None = None,
    attacks: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
    drawn: Sequence[int] | None = None,
) -> Check:
    """Attack a sample of the examples that held, with the record's attacks and seed, and say what the outcome bounds.

    As many of those that fell are attacked too: what is recorded of them beside their points has to come out again.

    Args:
        result: a record whose examples are those of the data.
        data: batches of them.
        count: examples to draw of each kind, at most those that there are.
        model: the verifier's.
        threat: in raw units.
        search: units of the budget and loss; what else there is to a search is the record's.
        attacks: attack objects by name, for names that are no recipes.
        device: where it runs.
        drawn: the sample, for tests; None draws it by the system's secure generator.
    """
    letters = result.worst_case
    if drawn is None:
        kinds = ([row for row, letter in enumerate(letters) if letter == kind] for kind in "hfw")
        drawn = [row for rows_ in kinds for row in secrets.SystemRandom().sample(rows_, min(count, len(rows_)))]
    sample = sorted(drawn)
    if not sample:
        return Check("again", True, "no example held or fell: there is nothing to attack again")
    x, y = _rows(data, sample)
    levels = [point.eps for point in result.curves.get("fgsm", ())]
    try:
        with typed_only():  # the names of attacks are the record's
            again = audit(
                model,
                [(x, y if result.terms.get("labels") == "given" else None)],
                threat=threat,
                **_attacks(result, attacks or {}),
                curve=Curve(levels or False, ()),
                search=replace(
                    search or Search(),
                    target=result.terms.get("target"),
                    engine=result.terms.get("engine", "exact"),
                    eot=result.terms.get("eot", 1),
                    seed=result.terms.get("seed", 0),
                    gradient_path=result.terms.get("defences", {}).get("path", "aware"),
                ),
                run=Run(device=device, bounds=_bounds(result)),
            )
    except NotTypedError as error:
        return Check("again", True, f"nothing was attacked: {error}", complete=False)
    except InputError as error:
        return Check("again", False, f"the record's attacks cannot be run ({error})")
    return _outcome(result, again, sample)


def _outcome(result: Result, again: Result, sample: Sequence[int]) -> Check:
    other = next((name for name in _TERMS if again.terms.get(name) != result.terms.get(name)), None)
    if other is not None:
        now, stated = again.terms.get(other), result.terms.get(other)
        return Check("again", False, f"not reproduced: {other} is {now!r} when it is run, {stated!r} in the record")
    before, now = result.worst_case, again.worst_case
    held = [place for place, row in enumerate(sample) if before[row] == "h"]
    fell = [place for place in held if now[place] != "h"]
    moved = [place for place, row in enumerate(sample) if place not in fell and not _same(result, row, again, place)]
    if result.terms.get("random_model"):
        moved = []  # its passes and sizes are another run's
    seen = _bound(len(fell), len(held), before.count("h"))
    if fell:
        seen += f" (examples {[sample[place] for place in fell[:5]]})"
    if moved:
        seen += f"; {len(moved)} of {len(sample)} drawn, fallen ones included, have other letters, passes or sizes now"
    least = exact_lower(len(fell), len(held)) if held else 0.0
    if least > ROUNDING or exact_lower(len(moved), len(sample)) > MOVED:
        return Check("again", False, f"{seen}; more than rounding on another machine makes")
    if not fell and not moved:
        return Check("again", True, seen)
    cause = "a random model's chance" if result.terms.get("random_model") else "rounding on another machine"
    return Check("again", True, f"{seen}; {cause} may do that: draw more", complete=False)


def _bound(fell: int, drawn: int, held: int) -> str:
    """What a sample says of all that held."""
    if fell:
        least = 100 * exact_lower(fell, drawn)
        return f"not reproduced: {fell} of {drawn} drawn of {held} that held fell now, at least {least:.1f} % (95 %)"
    if drawn == held:
        return f"0 of {drawn} that held fell, which are all"
    most = 100 * exact_upper(0, drawn)
    return f"0 of {drawn} drawn of {held} that held fell, so at most {most:.1f} % of the held are false (95 %)"


def _same(result: Result, row: int, again: Result, place: int) -> bool:
    """Whether everything that is recorded of an example came out again."""
    before, now = result.per_example, again.per_example
    for stated, found in ((before.verdicts, now.verdicts), (before.passes, now.passes), (before.answers, now.answers)):
        columns = zip(stated.values(), found.values(), strict=True)
        if any(column[row] != other[place] for column, other in columns):
            return False
    sizes = [(before.smallest_eps[row], now.smallest_eps[place])] if result.curves.get("fgsm") else []
    lengths = zip(before.distances.values(), now.distances.values(), strict=True)
    sizes += [(column[row], other[place]) for column, other in lengths]
    sizes += [(column[row], now.nearest[name][place]) for name, column in before.nearest.items() if name in now.nearest]
    return all(_near(stated, found) for stated, found in sizes)


def _near(stated: float | None, found: float | None) -> bool:
    if stated is None or found is None:
        return stated is found
    return abs(stated - found) <= _NEAR * max(abs(stated), abs(found))


def _attacks(result: Result, own: Mapping[str, Any]) -> dict[str, Any]:
    """The record's ladder, or its list of attacks."""
    if result.ladder in LADDERS:
        return {"ladder": result.ladder}
    specs = [own.get(name, _AGAIN.sub("", name)) for name in without_search(result.attacks)]
    return {"ladder": specs} if result.ladder else {"attacks": specs}


def _bounds(result: Result) -> Bounds | None:
    """Those that were asked for: exact search stands among the attacks also where there were no bounds."""
    stated = Bounds.of_terms(result.terms)
    searched = any(entry.name == EXACT_SEARCH for entry in result.attacks)
    return Bounds("exact") if stated is None and searched else stated


def _rows(data: Iterable[tuple[Tree, Tensor | None]], sample: Sequence[int]) -> tuple[Tree, Tensor | None]:
    """The examples of the sample, as one batch in its order."""
    parts: list[Tree] = []
    labels: list[Tensor] = []
    start = 0
    for x, y in data:
        wanted = [row - start for row in sample if start <= row < start + rows(x)]
        if wanted:
            index = torch.tensor(wanted, dtype=torch.int64, device="cpu")
            parts.append(take(x, index))
            if y is not None:
                labels.append(y[index])
        start += rows(x)
    if sum(map(rows, parts)) < len(sample):
        raise InputError(
            Arg("data"),
            f"has {start} examples, and example {sample[-1]} was to be attacked again",
            remedy="pass the data of the audit",
        )
    first = parts[0]
    if isinstance(first, Tensor):
        joined: Tree = torch.cat([part for part in parts if isinstance(part, Tensor)])
    else:
        joined = {name: torch.cat([part[name] for part in parts if isinstance(part, dict)]) for name in first}
    return joined, torch.cat(labels) if labels else None
