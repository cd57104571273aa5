"""Paired comparison of two audits of the same examples: who changed side, and is it more than chance?"""

from collections.abc import Sequence
from dataclasses import dataclass

from signstep.auditing.result import Result
from signstep.certify.methods import OPEN
from signstep.engine.statistics import mcnemar
from signstep.errors import InputError
from signstep.plain import one_line


@dataclass(frozen=True)
class Comparison:
    """Two results on the examples that both saw.

    Attributes:
        examples: examples found in both, by their ids.
        lost: ids of examples that held before and no longer do (wrong, fooled or undetermined now).
        won: ids of examples that hold now and did not before.
        held_before: examples in common that held before.
        held_after: examples in common that hold now.
        p_value: exact two-sided McNemar: how likely a difference at least this large is by chance alone.
        notes: terms that differ, so that the difference may be theirs.
        clean_lost: examples in common that were right untouched before and no longer are.
        clean_won: the other way round.
        clean_p_value: as ``p_value``, of the answers to untouched examples.
        certified_before: examples in common that were proved before; None where no bounds were taken.
        certified_after: those that are proved now, likewise.
    """

    examples: int
    lost: tuple[str, ...]
    won: tuple[str, ...]
    held_before: int
    held_after: int
    p_value: float
    notes: tuple[str, ...]
    clean_lost: int = 0
    clean_won: int = 0
    clean_p_value: float = 1.0
    certified_before: int | None = None
    certified_after: int | None = None

    def worse(self, level: float = 0.05) -> bool:
        """Whether fewer examples hold than before, by more than chance at this level."""
        return len(self.lost) > len(self.won) and self.p_value < level

    def __str__(self) -> str:
        share = f"{self.held_before} -> {self.held_after} of {self.examples}"
        word = "more than chance" if self.p_value < 0.05 else "not more than chance"
        text = (
            f"Against the baseline: robust {share}; {len(self.lost)} examples lost, {len(self.won)} won: {word} "
            f"(exact McNemar, p = {self.p_value:.3g})."
        )
        if self.certified_before is not None and self.certified_after is not None:
            text += f" Proved: {self.certified_before} -> {self.certified_after}."
        return "\n".join(map(one_line, [text, *(f"Note: {note}." for note in self.notes)]))


def compare(before: Result, after: Result) -> Comparison:
    """Compare two results pointwise, worst case over each one's attacks.

    Raises:
        InputError: the results have no example in common.
    """
    old, new = _by_id(before, before.worst_case, "h"), _by_id(after, after.worst_case, "h")
    common = [identity for identity in new if identity in old]
    if not common:
        raise InputError(
            "the baseline and this result have no example in common",
            remedy="were they made from the same data, box and scale?",
        )
    lost = tuple(identity for identity in common if old[identity] and not new[identity])
    won = tuple(identity for identity in common if new[identity] and not old[identity])
    notes = []
    if len(common) < max(len(old), len(new)):
        notes.append(f"only {len(common)} examples are in both results, of {len(old)} and {len(new)}")
    for term in ("threat", "goal", "labels", "input_space", "mode", "gradients_from", "engine"):
        if before.terms.get(term) != after.terms.get(term):
            notes.append(f"{term} differs: {before.terms.get(term)} before, {after.terms.get(term)} now")
    attacks = [[entry.name for entry in result.attacks] for result in (before, after)]
    if before.ladder != after.ladder:
        said = [f"the ladder {result.ladder}" if result.ladder else "no ladder" for result in (before, after)]
        notes.append(f"attacks differ: {said[0]} before, {said[1]} now")
    elif attacks[0] != attacks[1]:
        notes.append(f"attacks differ: {', '.join(attacks[0])} before, {', '.join(attacks[1])} now")
    was, now = (_by_id(result, result.per_example.clean, "r") for result in (before, after))
    spoilt = sum(was[identity] and not now[identity] for identity in common)
    mended = sum(now[identity] and not was[identity] for identity in common)
    return Comparison(
        examples=len(common),
        lost=lost,
        won=won,
        held_before=sum(old[identity] for identity in common),
        held_after=sum(new[identity] for identity in common),
        p_value=mcnemar(len(lost), len(won)),
        notes=tuple(notes),
        clean_lost=spoilt,
        clean_won=mended,
        clean_p_value=mcnemar(spoilt, mended),
        certified_before=_proved(before, common),
        certified_after=_proved(after, common),
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values adjusted for their number (Holm 1979): below a level, they keep the chance of any false alarm there.

    The k-th smallest of n is multiplied by n - k + 1, and none falls below the one before it.

    >>> tuple(round(p, 3) for p in holm([0.01, 0.04, 0.03]))
    (0.03, 0.06, 0.06)
    """
    adjusted = [1.0] * len(p_values)
    so_far = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = so_far
    return tuple(adjusted)


def _proved(result: Result, common: Sequence[str]) -> int | None:
    """How many of the examples in common are proved; None where no bounds were taken."""
    letters = result.per_example.bounds
    if not letters:
        return None
    found = _by_id(result, "".join(OPEN if letter == OPEN else "p" for letter in letters), "p")
    return sum(found[identity] for identity in common)


def _by_id(result: Result, letters: str, good: str) -> dict[str, bool]:
    """Whether each example has the letter ``good``, by id; the n-th copy of an example is told from the first."""
    seen: dict[str, int] = {}
    found = {}
    for identity, letter in zip(result.per_example.ids, letters, strict=True):
        seen[identity] = seen.get(identity, 0) + 1
        name = identity if seen[identity] == 1 else f"{identity}#{seen[identity]}"
        found[name] = letter == good
    return found
