"""The table of executors, open to those of packages and to "module:name"."""

from collections.abc import Callable
from dataclasses import replace

from signstep.auditing.run import Executor
from signstep.errors import InputError
from signstep.importing import Spelling
from signstep.messages import Arg
from signstep.registry import Brought, Registry
from signstep.scale.asked import Asked
from signstep.scale.pool import Pool
from signstep.scale.ray_tasks import Ray
from signstep.scale.slurm import Slurm

Row = Callable[[Asked], Executor]


def _row(brought: Brought) -> Row:
    if not callable(brought.thing):
        raise InputError(
            Arg("on", brought.name), "is no function that gives an executor", remedy=f"write {SPELLING.example}"
        )
    made: Row = brought.thing
    return made


SPELLING = Spelling("an executor", "factory", "my_cluster:workers")
_ROWS: dict[str, Row] = {"pool": Pool.asked, "ray": Ray.asked, "slurm": Slurm.asked}
EXECUTORS: Registry[Row] = Registry("signstep.executors", SPELLING, _row, _ROWS, argument="on")


def executor_of(text: str, asked: Asked) -> Executor:
    """The executor of a name, which may have an address behind a colon: "pool", "ray:HOST:PORT", "slurm".

    Raises:
        InputError: there is none such, or it has no use for what was asked.
    """
    name, _, address = text.partition(":")
    if name.lower() in EXECUTORS.own:
        return EXECUTORS[name.lower()](replace(asked, address=address))
    return EXECUTORS.find(text)(asked)
