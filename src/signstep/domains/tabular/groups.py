"""Flips of favourable and of other decisions, by group, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from signstep.engine.statistics import wilson


@dataclass(frozen=True)
class Flips:
    """Of ``of`` records of a group with the same, right decision, ``flipped`` were turned by some attack.

    Attributes:
        group: "all", or the column and its value.
        granted: whether the decision was the favourable one.
        flipped: how many were turned.
        of: how many there are.
    """

    group: str
    granted: bool
    flipped: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the share."""
        return wilson(self.flipped, self.of)

    def share(self) -> str:
        """The share with its interval: "31 % [24, 39]"."""
        if not self.of:
            return "-"
        low, high = self.interval
        return f"{self.flipped / self.of:.0%} [{100 * low:.0f}, {100 * high:.0f}]"


def flips_by_group(letters: str, granted: Sequence[bool], groups: Mapping[str, Sequence[str]]) -> tuple[Flips, ...]:
    """Flips over all records and in each group.

    Args:
        letters: for each record w wrong untouched, f turned, u undetermined, h held (`Result.worst_case`).
        granted: the decision on each record.
        groups: by grouping, the group of each record.
    """
    found = [_count("all", kind, letters, granted, None) for kind in (True, False)]
    for name, members in groups.items():
        for value in sorted(set(members)):
            title = value if value.startswith(name.partition("<")[0].strip()) else f"{name} {value}"
            chosen = [member == value for member in members]
            found += [_count(title, kind, letters, granted, chosen) for kind in (True, False)]
    return tuple(found)


def apart(flips: Sequence[Flips]) -> list[tuple[Flips, Flips]]:
    """Pairs of groups of the same grouping and decision whose intervals do not overlap."""
    pairs = []
    for number, first in enumerate(flips):
        for second in flips[number + 1 :]:
            kin = first.group.split()[0] == second.group.split()[0] and first.granted == second.granted
            if "all" in (first.group, second.group) or not kin or not first.of or not second.of:
                continue
            (low, high), (other_low, other_high) = first.interval, second.interval
            if high < other_low or other_high < low:
                pairs.append((first, second))
    return pairs


def _count(
    title: str,
    kind: bool,
    letters: str,
    granted: Sequence[bool],
    chosen: Sequence[bool] | None,
) -> Flips:
    members = [
        letter
        for number, letter in enumerate(letters)
        if letter != "w" and granted[number] == kind and (chosen is None or chosen[number])
    ]
    return Flips(title, kind, members.count("f"), len(members))
