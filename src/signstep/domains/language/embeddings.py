"""The embedding that a model's tokens pass through: found by calling the model, or at a path that is named."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from signstep.errors import ModelError
from signstep.messages import Arg


def embeddings_of(model: nn.Module) -> tuple[str, ...]:
    """Paths of the embeddings in a model."""
    return tuple(path for path, module in model.named_modules() if isinstance(module, nn.Embedding))


def embedding_at(model: nn.Module, path: str) -> nn.Embedding:
    """The embedding at a path.

    Raises:
        ModelError: there is none.
    """
    found = dict(model.named_modules()).get(path)
    if isinstance(found, nn.Embedding):
        return found
    there = ", ".join(embeddings_of(model)) or "it has none"
    raise ModelError(
        f"the model has no nn.Embedding {path!r}", remedy=("name one of its own with", Arg("embedding"), f": {there}")
    )


def find_embedding(model: nn.Module, run: Callable[[], Any], ids: Tensor) -> str:
    """The path of the embedding that ``ids`` pass through when the model runs.

    Raises:
        ModelError: none does, or several do.
    """
    seen: list[str] = []
    with ExitStack() as hooks:
        for path in embeddings_of(model):

            def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], __: Tensor, path: str = path) -> None:
                given = args[0] if args else named.get("input")
                same = isinstance(given, Tensor) and given.shape == ids.shape and torch.equal(given, ids)
                if same and path not in seen:
                    seen.append(path)

            handle = embedding_at(model, path).register_forward_hook(hook, with_kwargs=True)
            hooks.callback(handle.remove)
        with torch.no_grad():
            run()
    if len(seen) == 1:
        return seen[0]
    which = f"{len(seen)} embeddings ({', '.join(seen)})" if seen else "no nn.Embedding"
    there = ", ".join(embeddings_of(model)) or "it has none"
    raise ModelError(
        f"the tokens pass through {which} of the model", remedy=("name one with", Arg("embedding"), f": {there}")
    )
