"""The version, as `signstep_entry.version` states it."""

from signstep_entry.version import VERSION

__all__ = ["VERSION"]
