"""How many passes an attack spends on one example: what its plan allows, before anything runs.

A record whose passes lie outside was not made by the attack that it names.
"""

from typing import NamedTuple


class Setting(NamedTuple):
    """What an attack's plan depends on beside its own options.

    Attributes:
        ways: classes that a row can be led to, one fewer than there are; 0 where failing is no other class.
        random: whether the model, or what is declared to happen to its inputs, draws random numbers.
        exact: whether the search sees the model itself; on a copy every success is put to the model once more.
        there: of the ways, how many the model has for the row at hand: a logit of minus infinity is an absent class.
            None: all.
    """

    ways: int = 0
    random: bool = False
    exact: bool = True
    there: int | None = None

    def reachable(self, targets: int) -> int:
        """To how many of the ``targets`` nearest classes the row can be led."""
        return min(targets, self.ways if self.there is None else self.there)


class Passes(NamedTuple):
    """Forward passes of one example, the verdict's included.

    Attributes:
        first: spent by an example that falls at the first occasion.
        whole: spent by one that never falls, at least: the whole plan.
        most: that none exceeds.
        backwards: of one that never falls, where the plan fixes them; else None.
        gradients: whose health is booked for one that never falls, where the plan fixes them; else None.
    """

    first: int
    whole: int
    most: int
    backwards: int | None = None
    gradients: int | None = None
