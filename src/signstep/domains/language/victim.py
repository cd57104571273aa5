"""A model of several inputs, called as it is, with its text replaced behind its own embedding.

The model is called with token numbers. A hook on its ``nn.Embedding``, there for this one call, hands on other vectors
for the attacked text: given ones (attacks on the embedding), or the same ones with a path for the gradient back to the
choice of each token. The model's code is not touched, and a text that is scored is scored from its tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from signstep.domains.language.embeddings import embedding_at, embeddings_of
from signstep.errors import InputError, ModelError
from signstep.messages import Arg
from signstep.model.predictor import Selector, select

Form = Literal["plain", "tokens", "choices", "embedding"]
IDS = "_ids"  # the frozen tokens beside a text that is attacked in its embedding: "text" and "text_ids"


@dataclass(frozen=True)
class Channel:
    """One input on its way to the model.

    Attributes:
        name: of the input.
        argument: of the model's forward that takes it.
        form: "plain": as it is; "tokens": text, int64 (R, L), left alone; "choices": text under substitution
            (R, L, 2, C); "embedding": vectors (R, L, D) in place of the embedding of the tokens in ``name + "_ids"``.
        embedding: path of the ``nn.Embedding`` in the model; "" where ``form`` needs none.
        mask: argument that takes 1 for tokens and 0 for padding; "" for none.
        pad: the padding token.
        mean: subtracted from a plain input before the model, by channel; () for nothing.
        std: divided by, likewise.
    """

    name: str
    argument: str
    form: Form = "plain"
    embedding: str = ""
    mask: str = ""
    pad: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def normalised(self, part: Tensor) -> Tensor:
        """(x - mean) / std over the first axis of the examples."""
        if not self.mean:
            return part
        shape = (1, -1, *[1] * (part.ndim - 2))
        mean, std = (torch.tensor(values, dtype=part.dtype, device=part.device) for values in (self.mean, self.std))
        return (part - mean.reshape(shape)) / std.reshape(shape)


class Victim(nn.Module):
    """A model behind its channels: named inputs in, scores out.

    Attributes:
        model: the user's own.
        channels: one for each input.
        output: where the scores are in what it returns, see `signstep.Model`.
    """

    def __init__(self, model: nn.Module, channels: Sequence[Channel], *, output: Selector = None) -> None:
        super().__init__()
        self.model, self.channels, self.output = model, tuple(channels), output
        self.train(model.training)

    def forward(self, **inputs: Tensor) -> Tensor:
        """The scores for named inputs."""
        return select(self.returned(inputs), self.output)

    def returned(self, inputs: Mapping[str, Tensor]) -> Any:
        """What the model itself returns.

        Raises:
            InputError: an input is missing.
            ModelError: the text does not pass through the embedding that was named.
        """
        arguments: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for channel in self.channels:
                found = _input(inputs, channel.name)
                if channel.form == "plain":
                    arguments[channel.argument] = channel.normalised(found)
                    continue
                ids = self._tokens(channel, inputs)
                arguments[channel.argument] = ids
                if channel.mask:
                    arguments[channel.mask] = (ids != channel.pad).long()
                if channel.form in ("choices", "embedding"):
                    hooks.enter_context(self._handed_on(channel, ids, found))
            return self.model(**arguments)

    def _tokens(self, channel: Channel, inputs: Mapping[str, Tensor]) -> Tensor:
        found = _input(inputs, channel.name)
        if channel.form == "choices":
            return tokens_of(found.detach())
        return found if channel.form == "tokens" else _input(inputs, channel.name + IDS)

    @contextmanager
    def _handed_on(self, channel: Channel, ids: Tensor, found: Tensor) -> Iterator[None]:
        """While the model runs, its embedding of ``ids`` is that of the attacked text."""
        module = embedding_at(self.model, channel.embedding)
        used = False

        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor | None:
            nonlocal used
            given = args[0] if args else named.get("input")
            if not isinstance(given, Tensor) or given.shape != ids.shape or not torch.equal(given, ids):
                return None
            used = True
            if channel.form == "choices":
                passed: Tensor = _Lookup.apply(found, output, module.weight)  # type: ignore[no-untyped-call]
                return passed
            return found.to(output.dtype)

        handle = module.register_forward_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
        if not used:
            raise ModelError(
                f"the input {channel.name!r} did not pass through the embedding {channel.embedding!r}",
                remedy=(
                    "name the nn.Embedding of its tokens with",
                    Arg("embedding"),
                    f": {', '.join(embeddings_of(self.model)) or 'there is none'}",
                ),
            )


class _Lookup(torch.autograd.Function):
    """The embedding's own vectors; backward, the first-order gain of every token on offer.

    With e_t the row of token t and g the gradient at a place, the gain of choosing t there is <g, e_t>: the score as a
    function of the one-hot choice is differentiated at the choice (HotFlip, Ebrahimi et al. 2018, section 3).
    """

    @staticmethod
    def forward(ctx: Any, choices: Tensor, vectors: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(choices, weight)
        return vectors.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        choices, weight = ctx.saved_tensors
        listed = choices[:, :, 1].long()
        gain = torch.zeros_like(choices)
        for slot in range(listed.shape[2]):  # one slot at a time: (R, L, D) each, not (R, L, C, D)
            here = listed[:, :, slot]
            gain[:, :, 0, slot] = ((gradients[0] * weight[here.clamp_min(0)]).sum(2) * (here >= 0)).to(gain.dtype)
        return gain, None, None


def tokens_of(choices: Tensor) -> Tensor:
    """The tokens (R, L) int64 that are chosen."""
    slot = choices[:, :, 0].argmax(2, keepdim=True)
    return choices[:, :, 1].gather(2, slot).squeeze(2).long()


def _input(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in inputs:
        raise InputError(f"the input {name!r} is missing", remedy=f"pass it beside {sorted(inputs)}")
    return inputs[name]
