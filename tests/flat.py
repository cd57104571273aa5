"""Tables of options, written flat: which of them a model declares, which the search, the run or the curve."""

from typing import Any

import signstep as ss

_MODEL = set(ss.Model.__dataclass_fields__) - {"network"}
_SEARCH, _RUN = set(ss.Search.__dataclass_fields__), set(ss.Run.__dataclass_fields__)


def flat(network: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The declared model, and what is left for the verb."""
    options = dict(options)
    taken = {name: {key: options.pop(key) for key in [*options] if key in of} for name, of in _OF.items()}
    given: dict[str, Any] = {
        name: kind(**taken[name]) for name, kind in (("search", ss.Search), ("run", ss.Run)) if taken[name]
    }
    if "curve_attacks" in options:
        given["curve"] = ss.Curve(options.pop("curve", True), options.pop("curve_attacks"))
    return ss.Model(network, **taken["model"]), {**options, **given}


_OF = {"model": _MODEL, "search": _SEARCH, "run": _RUN}
