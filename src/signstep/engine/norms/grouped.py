"""Norms over groups of coordinates: pixels over their channels, atoms, tokens."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from signstep.engine.batch_invariant import line_sum, power
from signstep.engine.norms.balls import L2
from signstep.engine.norms.groups import grouped, ungrouped
from signstep.engine.norms.norm import Draws, diameter_of
from signstep.engine.verify import size_of
from signstep.errors import ThreatError
from signstep.messages import Arg


@dataclass(frozen=True)
class Grouped:
    """The longest group, each measured in L2: max_G sqrt(sum_{i in G} d_i^2). Its ball is a product of L2 balls.

    ``axes`` are the axes of an example (rows not counted, negative ones from the end) that make up one group: (0,) on
    images (C, H, W) is a pixel over its channels, (-1,) on (N, 3) is an atom, on (T, E) a token. ``called`` is the name
    by which a threat is printed, where it was named so: "token".

    Raises:
        ThreatError: there are no axes, or (when used) the examples do not have them.
    """

    axes: tuple[int, ...]
    called: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.axes:
            raise ThreatError(
                Arg("axes", self.axes),
                "names none, and a group has at least one axis",
                remedy="use Linf() for groups of one coordinate",
                where="Grouped",
            )

    @property
    def name(self) -> str:
        """``grouped(0)``, ``grouped(0,1)`` ..."""
        return f"grouped({','.join(map(str, self.axes))})"

    def length(self, d: Tensor) -> Tensor:
        """The largest L2 length of a group, (R,)."""
        return self._lengths(d).amax(1)

    def dual_length(self, g: Tensor) -> Tensor:
        """The sum of the L2 lengths of the groups, (R,)."""
        return line_sum(self._lengths(g))[:, 0]

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The steepest step of L2 in every group, each with the whole radius."""
        return self._each(L2().steepest, g, radius, low, high)

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The projection of L2 in every group, each with the whole radius."""
        return self._each(L2().project, d, radius, low, high)

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """Every group uniform in its own L2 ball."""
        direction = draws.normal("grouped ball direction", shape)
        parts = self._grouped(direction)
        radius = power(draws.uniform("grouped ball radius", (parts.shape[1],)), 1 / parts.shape[2])
        return self._ungrouped(L2().steepest(parts.flatten(0, 1), radius.flatten()), direction)

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The longest diagonal that the box has in a group."""
        return diameter_of(self, low, high, shape)

    def check(self, before: Tensor, after: Tensor) -> Tensor:
        """The checker's own size of the change, (R,) float64."""
        return size_of(after.double() - before.double(), "grouped", self.axes)

    def _each(
        self,
        rule: Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor],
        d: Tensor,
        radius: Tensor,
        low: Tensor | None,
        high: Tensor | None,
    ) -> Tensor:
        """Apply a rule of L2 to all groups at once, as its rows."""
        parts = self._grouped(d)
        box = (None if bound is None else self._grouped(bound.expand_as(d)).flatten(0, 1) for bound in (low, high))
        return self._ungrouped(rule(parts.flatten(0, 1), radius.repeat_interleave(parts.shape[1]), *box), d)

    def _lengths(self, d: Tensor) -> Tensor:
        """The L2 length of every group, (R, groups)."""
        parts = self._grouped(d)
        return L2().length(parts.flatten(0, 1)).reshape(parts.shape[:2])

    def _grouped(self, d: Tensor) -> Tensor:
        """View ``d`` (R, ...) as (R, groups, members)."""
        return grouped(d, self.axes, self.name)

    def _ungrouped(self, rows: Tensor, like: Tensor) -> Tensor:
        """Undo `_grouped`: rows (R * groups, members) back in the shape of ``like``."""
        return ungrouped(rows, like, self.axes, self.name)
