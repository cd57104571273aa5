"""How many examples fit: planned from measured bytes, halved when a GPU runs out of memory all the same."""

import torch
from torch import Tensor, nn

# Larger batches gain nothing on any processor we measured, whose caches prefer smaller ones. A card waits for the next
# kernel rather than for work: on an H200 1,000 rows of a training step of PreActResNet-18 take 1.6 times what 250 take,
# and later rungs of a ladder have fewer rows.
_MOST, _MOST_ON_A_CARD = 512, 2048
_ALWAYS = 256
_CPU_BUDGET = 2**30


def bytes_per_example(model: nn.Module, x: Tensor) -> int:
    """What autograd keeps for one example of ``x`` (R, ...) until the backward pass, weights not counted.

    Measured on one forward pass through ``torch.autograd.graph.saved_tensors_hooks``.
    """
    weights = {part.untyped_storage().data_ptr() for part in (*model.parameters(), *model.buffers())}
    seen: dict[int, int] = {}

    def pack(part: Tensor) -> Tensor:
        storage = part.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return part

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda part: part):
        model(x.detach().clone().requires_grad_())
    return max(1, sum(seen.values()) // len(x)) + 8 * x[:1].nbytes


def planned_rows(model: nn.Module, x: Tensor, budget: int | None = None, *, of: int | None = None) -> int:
    """The number of examples to attack at once: those that fit into half of the free memory of x's GPU, or 1 GiB.

    Args:
        model: as it will be attacked.
        x: a few examples on the model's device.
        budget: bytes, instead of the device's.
        of: so many examples in all: a quarter of them is the most, so that there is something to show after each batch,
            and to keep where an audit is interrupted; 256 may always be one batch.
    """
    on_a_card = x.device.type == "cuda"
    if budget is None:
        budget = _free(x.device) // 2 if on_a_card else _CPU_BUDGET
    most = _MOST_ON_A_CARD if on_a_card else _MOST
    if of is not None:
        most = min(most, max(_ALWAYS, -(-of // 4)))
    return max(1, min(most, budget // bytes_per_example(model, x)))


def _free(card: torch.device) -> int:
    """Bytes of a card that are free, or that torch has kept and does not use."""
    kept = torch.cuda.memory_reserved(card) - torch.cuda.memory_allocated(card)
    return int(torch.cuda.mem_get_info(card)[0]) + kept
