"""What a command line asks an executor for."""

from dataclasses import dataclass

from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True)
class Asked:
    """What a command line asks an executor for.

    Attributes:
        workers: how many; None for as many as there are places.
        address: behind the colon of ``--on``.
        partition: of a cluster.
        options: name=value for the engine itself.
    """

    workers: int | None = None
    address: str = ""
    partition: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    def refuse(self, name: str, *given: str) -> None:
        """See that nothing was said that an executor has no use for.

        Raises:
            InputError: something was.
        """
        said = {"address": self.address, "partition": self.partition}
        for part in given:
            if said[part]:
                raise InputError(Arg(part, said[part]), f"has no meaning for {name}", remedy="leave it out")
