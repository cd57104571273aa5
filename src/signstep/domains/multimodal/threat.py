"""The threat model of token substitution."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from signstep.domains.language.tokenizers import Tokenizer, WordTokenizer
from signstep.domains.multimodal.check import check_choices
from signstep.domains.multimodal.region import TokenRegion
from signstep.engine.norms import L1, Draws
from signstep.engine.region import Region
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import Eps, read_eps
from signstep.engine.verify import Verification
from signstep.errors import InputError, ThreatError
from signstep.messages import Arg

KIND = "substitutions"
_NOTHING = WordTokenizer.of(())


@dataclass(frozen=True)
class Substitutions:
    """The number of substituted tokens: half the L1 length of the change of choices, a one here and a one there."""

    name: ClassVar[str] = KIND

    def length(self, d: Tensor) -> Tensor:
        """sum |d| / 2, (R,)."""
        return L1().length(d) / 2

    def dual_length(self, g: Tensor) -> Tensor:
        """2 max |g|, (R,)."""
        return 2 * L1().dual_length(g)

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """As L1 does with twice the radius."""
        return L1().steepest(g, 2 * radius, low, high)

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """As L1 does with twice the radius."""
        return L1().project(d, 2 * radius, low, high)

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """As L1 does, doubled."""
        return 2 * L1().sample(draws, shape)

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Half that of L1."""
        return L1().diameter(low, high, shape) / 2


@dataclass(frozen=True, eq=False)
class TokenThreat(ShapedThreat):
    """At most ``eps`` tokens replaced by tokens on offer at their places, in a text that can be typed.

    The attacked tensor is that of `choices`: it carries what is on offer. ``protected`` tokens never change.
    """

    tokenizer: Tokenizer = _NOTHING
    protected: frozenset[int] = frozenset()

    @property
    def kind(self) -> str:
        """``substitutions``."""
        return KIND

    def __str__(self) -> str:
        return f"at most {self.label} token(s) substituted"

    def around(self, x: Tensor) -> Region:
        """The region around untouched choices (R, L, 2, C).

        Raises:
            ThreatError: x is not such a tensor, or already has substitutions.
        """
        if x.ndim != 4 or x.shape[2] != 2 or not x.is_floating_point():
            raise ThreatError(
                f"the text has shape {tuple(x.shape)} and dtype {x.dtype}",
                remedy="pass the choices of Offers.choices(ids), floating (R, L, 2, C)",
            )
        slots = x[:, :, 0]
        if not bool((slots[..., 0] == 1).all()) or not bool((slots[..., 1:] == 0).all()):
            raise InputError(
                "the text already has substitutions", remedy="pass the untouched choices of Offers.choices(ids)"
            )
        radius = torch.as_tensor(self.eps, dtype=torch.float32, device=x.device)
        return TokenRegion.around(x, radius.expand(len(x)).clone(), self.tokenizer)

    def checked(self, x: Tensor, point: Tensor) -> Verification:
        """By `check`, with the tokens typed again."""
        return check_choices(x, point, self.eps, self.protected, typed=self._typed)

    @property
    def _typed(self) -> Callable[[list[int]], list[int]]:
        return lambda ids: self.tokenizer.encode(self.tokenizer.decode(ids))


def substitutions(eps: Eps, tokenizer: Tokenizer, *, protected: frozenset[int] = frozenset()) -> TokenThreat:
    """At most ``eps`` substitutions.

    Raises:
        ThreatError: eps is not a number of substitutions.
    """
    size = read_eps(eps)
    if size is None or (isinstance(size, float) and size != round(size)):
        raise ThreatError(Arg("eps", eps), remedy="pass a whole number of substitutions, such as 2")
    label = f"{size:g}" if isinstance(size, float) else ""
    return TokenThreat(Substitutions(), size, None, None, None, None, label, tokenizer, protected)
