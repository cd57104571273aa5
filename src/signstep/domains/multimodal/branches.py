"""How far the parts of a model move: each branch's embedding and the fused one, untouched and attacked."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from signstep.domains.language.victim import Victim
from signstep.errors import ModelError

RETURNED = "returned:"  # a branch that is a field of what the model returns, not a module


@contextmanager
def _captured(model: nn.Module, paths: Mapping[str, str], kept: dict[str, Tensor]) -> Iterator[None]:
    modules = dict(model.named_modules())
    handles = []
    try:
        for name, path in paths.items():
            if path.startswith(RETURNED):
                continue
            if path not in modules or path == "":
                some = ", ".join(key for key in list(modules)[1:9])
                raise ModelError(
                    f"branch {name!r}: the model has no module {path!r}", remedy=f"name one of {some}, ..."
                )

            def hook(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                kept[name] = _vector(output, name)

            handles.append(modules[path].register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def embeddings(victim: Victim, inputs: Mapping[str, Tensor], paths: Mapping[str, str]) -> dict[str, Tensor]:
    """Each branch's output (R, ...) for named inputs, flattened to (R, D).

    Args:
        victim: the model behind its channels.
        inputs: by name.
        paths: from the name of a branch to a module path, or to ``returned:FIELD`` for a field of the model's output.

    Raises:
        ModelError: there is no such module or field, or it gives no tensor with a row for each example.
    """
    kept: dict[str, Tensor] = {}
    with _captured(victim.model, paths, kept):
        returned = victim.returned(inputs)
    for name, path in paths.items():
        if path.startswith(RETURNED):
            kept[name] = _vector(getattr(returned, path.removeprefix(RETURNED), None), name)
    rows = len(next(iter(inputs.values())))
    for name in paths:
        if name not in kept or len(kept[name]) != rows:
            got = f"{len(kept[name])} rows" if name in kept else "nothing"
            raise ModelError(
                f"branch {name!r} ({paths[name]}) gave {got} for {rows} examples", remedy="name another module"
            )
    return kept


def moved(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Relative length |b - a| / |a| and cosine distance 1 - cos(a, b) of rows (R, D), float64."""
    a, b = before.double(), after.double()
    tiny = torch.finfo(torch.float64).tiny
    lengths = a.norm(dim=1).clamp_min(tiny), b.norm(dim=1).clamp_min(tiny)
    cosine = ((a * b).sum(1) / lengths[0] / lengths[1]).clamp(-1, 1)
    same = (a == b).all(1)
    return (b - a).norm(dim=1) / lengths[0], torch.where(same, 0.0, 1 - cosine)


def _vector(output: Any, name: str) -> Tensor:
    found = output
    pooled = getattr(output, "pooler_output", None)
    if isinstance(pooled, Tensor):
        found = pooled
    elif not isinstance(output, Tensor):
        parts = list(output.values()) if isinstance(output, Mapping) else output
        found = (
            next((part for part in parts if isinstance(part, Tensor)), None)
            if isinstance(parts, list | tuple)
            else None
        )
    if not isinstance(found, Tensor) or found.ndim < 1:
        raise ModelError(
            f"branch {name!r} gives a {type(output).__name__} without a tensor", remedy="name another module"
        )
    return found.detach().flatten(1)
