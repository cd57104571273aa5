"""The threat model of a table: a budget for each feature, in its own unit."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from signstep.domains.tabular.check import check_rows
from signstep.domains.tabular.directions import Moves, moves_of
from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.region import TabularRegion
from signstep.domains.tabular.schema import Schema
from signstep.engine.defaults import plain_tensor
from signstep.engine.norms import Linf, Norm
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import Eps, read_eps
from signstep.engine.verify import Verification
from signstep.errors import ThreatError
from signstep.messages import Arg


@dataclass(frozen=True, eq=False, repr=False)
class TabularThreat(ShapedThreat):
    """Every record that the schema allows, each feature changed by at most ``eps`` times its budget.

    Whole numbers change by whole steps, so a budget of 1 level at eps 0.5 allows none. The length that is reported is
    the largest share of a budget. Inputs are wide rows (R, width), `Layout.widen`.

    Raises:
        ThreatError: no schema; eps is not a finite number or one for each row.
    """

    schema: Schema | None = None

    def __post_init__(self) -> None:
        if self.schema is None:
            raise ThreatError("a TabularThreat needs a schema", remedy="pass tabular_threat(schema)")
        if self.eps is None:
            raise ThreatError(
                Arg("eps", None), "has no meaning for budgets", remedy="pass a number, 1 is the declared budgets"
            )
        super().__post_init__()

    @property
    def kind(self) -> str:
        """The name of the domain."""
        return "tabular"

    @cached_property
    def layout(self) -> Layout:
        """Where the features lie in a row."""
        assert self.schema is not None
        return Layout(self.schema)

    @cached_property
    def moves(self) -> Moves:
        """The elementary moves that keep the relations."""
        return moves_of(self.layout)

    def around(self, x: Tensor) -> TabularRegion:
        """The region around wide rows."""
        radius = plain_tensor(self.eps, dtype=torch.float64)
        return TabularRegion.around(self.layout, self.moves, x, radius.expand(len(x)) if radius.ndim == 0 else radius)

    def checked(self, x: Tensor, point: Tensor) -> Verification:
        """What the independent checker says of records ``point``."""
        assert self.schema is not None
        assert self.eps is not None
        return check_rows(self.schema, self.eps, x, point)

    def __str__(self) -> str:
        assert self.schema is not None
        features = self.schema.features
        fixed = sum(feature.change == "none" for feature in features)
        cap = f", at most {self.schema.changes} changes" if self.schema.changes else ""
        rules = f", {len(self.schema.relations)} relations" if self.schema.relations else ""
        return f"budgets eps={self.label} of {len(features)} features ({fixed} fixed){rules}{cap}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TabularThreat) and super().__eq__(other) and self.schema == other.schema

    __hash__ = None  # type: ignore[assignment]  # as its base


def tabular_threat(schema: Schema, eps: Eps = 1.0) -> TabularThreat:
    """The budgets of a schema, times eps."""
    norm: Norm = Linf()
    return TabularThreat(norm, read_eps(eps), None, None, schema=schema, label=eps if isinstance(eps, str) else "")
