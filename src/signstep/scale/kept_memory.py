"""Memory that a process keeps for its next pass, where the process is ours: a worker, or the command's own."""

import torch

_LARGEST_BLOCK = 2**25 - 2**16


def keep_memory() -> None:
    """Have the allocator keep what is freed rather than fetch it from the system anew for every pass.

    glibc returns freed memory at once until the largest block that it has seen freed is of a size; a process that has
    just begun has seen none, and pages fetched again cost up to a third of a unit. 32 MiB is the most that counts.
    It holds for the whole process, so that a library has no business to do it in somebody else's.
    """
    torch.empty(_LARGEST_BLOCK, dtype=torch.uint8, device="cpu")
