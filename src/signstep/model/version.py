"""The version of a model's weights: what is remembered about a model is remembered of one version."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn


def weights_of(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Parameters and buffers of these modules, not of their parts."""
    for module in modules:
        for part in (*module._parameters.values(), *module._buffers.values()):
            if part is not None:
                yield part


def weights_version(modules: Iterable[nn.Module]) -> tuple[tuple[int, int, int], ...]:
    """Changes whenever a weight or buffer is replaced or written to by an operation that torch counts."""
    return tuple((id(part), part.data_ptr(), _count(part)) for part in weights_of(modules))


def _count(part: Tensor) -> int:
    return 0 if part.is_inference() else part._version
