"""The region around a batch under any threat: a ball in a box, the set that the threat makes itself, or a product."""

from torch import Tensor

from signstep.engine.region import BallRegion, ProductRegion, Region
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import Threat, ThreatModel
from signstep.engine.tree import Tree
from signstep.errors import ThreatError
from signstep.messages import Arg


def region_around(x: Tree, threat: Threat) -> Region:
    """The region that ``threat`` allows around ``x``; a dict of inputs takes a dict of threats with the same names."""
    if isinstance(x, Tensor):
        if not isinstance(threat, ThreatModel):
            raise ThreatError(
                Arg("threat"), f"names the inputs {sorted(threat)}, but x is one tensor", remedy="pass one threat model"
            )
        return _around(x, threat)
    if isinstance(threat, ThreatModel):
        raise ThreatError(
            Arg("x"),
            f"has the inputs {sorted(x)}",
            remedy="pass a dict that gives each attacked input its threat model",
        )
    return ProductRegion({name: _around(x[name], threat[name]) for name in x})


def _around(x: Tensor, threat: ThreatModel) -> Region:
    """A ball in a box, or the set that the threat makes itself."""
    return threat.around(x) if isinstance(threat, ShapedThreat) else BallRegion.around(x, threat)
