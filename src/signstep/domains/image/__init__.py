"""Images, and any other inputs that are one tensor: the model and data that are named, or the demonstration."""

from signstep.domains.image.case import case

__all__ = ["case"]
