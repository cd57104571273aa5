"""From a name or a file to a model that can be called; small reference networks."""

from signstep.models.arguments import parse_args
from signstep.models.loading import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model", "parse_args"]
