"""An audit in units: kept as they are done, on a process pool, Ray or Slurm, with the answer of a single audit."""

from signstep.scale.digest import digest
from signstep.scale.pool import Pool
from signstep.scale.ray_tasks import Ray
from signstep.scale.slurm import Slurm
from signstep.scale.table import EXECUTORS, executor_of

__all__ = ["EXECUTORS", "Pool", "Ray", "Slurm", "digest", "executor_of"]
