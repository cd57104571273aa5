"""The size of the threat, as the command line says it."""

from signstep.engine.threat import read_eps
from signstep.errors import ThreatError
from signstep.messages import Arg


def size_of(threat: str | None) -> float:
    """The multiple of the declared budgets: "budget:0.5" is half of them; 1 where nothing is said.

    Raises:
        ThreatError: not of that form.
    """
    if threat is None:
        return 1.0
    name, _, size = threat.partition(":")
    value = read_eps(size) if name == "budget" and size else None
    if not isinstance(value, float) or not value > 0:
        raise ThreatError(
            Arg("threat", threat), ": the schema has the budgets", remedy="write budget:0.5 for half of them"
        )
    return value
