"""From what was run to a verdict: what took away how much, and whether the number can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.auditing.diagnosed import POINTS
from signstep.diagnosing.bench import Bench, Cure, Ran
from signstep.diagnosing.diagnosis import Cause, Verdict
from signstep.diagnosing.inner import AGAIN, MEMBERS, NAME
from signstep.diagnosing.test import Suspect

# Causes that take away at least this share of what the largest does come in the order of the battery.
ALIKE = 1 / 3
# Of what the best run takes, that a run along other gradients by few steps must take to say why.
MOSTLY = 0.75
# What a run along other gradients says by itself, and the test that runs it.
_BY_NAME = {NAME: ("saturated loss", "scores"), MEMBERS: ("non-differentiable step", "scores")}


@dataclass(frozen=True)
class Tried:
    """A suspect of a test, with what its cures felled (N,) of what the attack left standing, and the best of them."""

    test: str
    suspect: Suspect
    felled: Tensor
    best: Cure | None

    @property
    def takes(self) -> int:
        """Examples."""
        return int(self.felled.sum())


def weighed(tried: Sequence[Tried]) -> tuple[tuple[Cause, ...], tuple[Tried, ...]]:
    """Causes that take something away, the largest first, those of one name as one; and suspects that take nothing."""
    kept: dict[str, Tried] = {}
    for one in tried:
        old = kept.get(one.suspect.cause)
        if old is None or (old.takes == 0 and one.takes > 0):
            kept[one.suspect.cause] = one
        elif one.takes > old.takes:
            kept[one.suspect.cause] = Tried(old.test, old.suspect, one.felled, one.best)
    _shared(kept)
    most = max((one.takes for one in kept.values()), default=0)
    order = list(kept.values())
    order.sort(key=lambda one: (0 if one.takes >= ALIKE * most else 1, 0 if one.takes >= ALIKE * most else -one.takes))
    causes = tuple(
        Cause(one.suspect.cause, one.test, one.suspect.because, str(one.best), one.takes) for one in order if one.takes
    )
    return causes, tuple(one for one in kept.values() if not one.takes)


def _shared(kept: dict[str, Tried]) -> None:
    """Of a cure that goes through another's, its cause takes what it adds; the other one takes all, alone or not.

    Without the other it would find nothing, without itself there is what the other finds alone.
    """
    for name, one in list(kept.items()):
        base = None if one.best is None or one.best.upon in ("", name) else kept.get(one.best.upon)
        if base is not None and one.takes:
            best = base.best if base.takes else one.best
            kept[name] = replace(one, felled=one.felled & ~base.felled)
            kept[base.suspect.cause] = replace(base, felled=base.felled | one.felled, best=best)


def judged(
    bench: Bench, named: Ran, left: Tensor, causes: Sequence[Cause], blocked: Sequence[str], passed: str
) -> Verdict:
    """The verdict on an attack, ``left`` (N,) being the right examples that nothing felled."""
    standing = bench.right & ~named.fooled
    before, after = int(standing.sum()), int((standing & left).sum())
    count = bench.count
    share = f"{before / count:.1%}"
    if before - after > POINTS * count:
        why = f" by {causes[0].name if causes else 'an attack that is too weak'}"
        cure = f" after {causes[0].cure}" if causes and causes[0].takes >= 0.9 * (before - after) else ""
        return Verdict("inflated", f"inflated{why}: {share} -> {after / count:.1%}{cure or ' after adapting'}")
    if before <= POINTS * count:
        return Verdict("real", f"real {share}: nothing stands that could be too much")
    if blocked:
        return Verdict("undetermined", f"undetermined at {share}: {blocked[0]}")
    return Verdict("real", f"real {share}: {passed}")


def cover(bench: Bench, left: Tensor, cures: Sequence[str]) -> tuple[Ran, ...]:
    """Few runs whose union is all that fell: the first cause's cure, then the largest; cures before ladders."""
    groups = [ran for ran in bench.ran if bool(ran.fooled.any()) and ran.counts]
    groups.sort(key=lambda ran: (ran.spec not in cures, not ran.ladder))
    open_ = bench.right & ~left
    found = [ran for ran in groups if cures and ran.spec == cures[0]][:1]
    open_ = open_ & ~found[0].fooled if found else open_
    while bool(open_.any()):
        best = max(groups, key=lambda ran: int((ran.fooled & open_).sum()), default=None)
        if best is None or not bool((best.fooled & open_).any()):
            break
        found.append(best)
        open_ = open_ & ~best.fooled
    return tuple(found)


def left_standing(bench: Bench) -> Tensor:
    """Right examples (N,) that nothing felled; of a random model those that the best single run left.

    Of a model that answers alike a point that fools it proves that the example falls. A random one is judged by a
    majority of passes, and the more runs there are the more examples near one half fall to one of them by luck.
    """
    if not bench.random:
        return bench.right & ~bench.fell
    best = max((ran for ran in bench.ran if ran.counts), key=lambda ran: int(ran.fooled.sum()))
    return bench.right & ~best.fooled


def hinted(bench: Bench, named: Ran, left: Tensor, causes: tuple[Cause, ...]) -> tuple[Cause, ...]:
    """The causes, with what runs say by themselves where the tests name none, or one that takes little.

    Tests need many examples to be beyond chance; a point that was found is one, however few they are. What fells by
    few steps most of what the best run fells, and more than equal steps along the answer's own gradient, is the cause.
    """
    standing = bench.right & ~named.fooled
    taken = int((standing & ~left).sum())
    if taken <= POINTS * bench.count or (causes and causes[0].takes >= MOSTLY * taken):
        return causes

    def takes_of(ran: Ran) -> int:
        return int((ran.fooled & standing).sum())

    def cause_of(ran: Ran, name: str, test: str) -> Cause:
        of = f"fells {takes_of(ran)} of {int(standing.sum())} that it left standing, and no test is beyond chance"
        return Cause(name, test, f"{Cure(ran.spec, ran.changes, ran.name)} alone {of}", ran.spec, takes_of(ran))

    runs = [ran for ran in bench.ran if ran.counts]
    best = max(runs, key=takes_of)
    plain = max((takes_of(ran) for ran in runs if ran.spec == AGAIN and not ran.changes), default=0)
    inside = max((ran for ran in runs if ran.name in _BY_NAME), key=takes_of, default=None)
    if inside is not None and takes_of(inside) >= MOSTLY * takes_of(best) and takes_of(inside) > plain:
        found = cause_of(inside, *_BY_NAME[inside.name])
        return (found, *(one for one in causes if one.name != found.name))
    return causes or (cause_of(best, "attack too weak", "order"),)


def nothing(bench: Bench) -> Tensor:
    """No example (N,)."""
    return torch.zeros_like(bench.right)
