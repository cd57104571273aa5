"""From a name or a file to batches with a declared input space."""

from signstep.data.batches import DataSource
from signstep.data.sources import open_data

__all__ = ["DataSource", "open_data"]
