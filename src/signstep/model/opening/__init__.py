"""From a name or a file to a model that can be called."""

from signstep.model.opening.arguments import parse_args
from signstep.model.opening.loading import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model", "parse_args"]
