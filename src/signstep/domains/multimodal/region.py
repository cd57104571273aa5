"""The set of texts that a few substitutions reach, for the one attack loop.

The set is finite: one-hot choices with at most ``budget`` places away from slot 0, whose text survives being typed
again. Both questions the loop asks of a set have an exact answer here. The linear function <g, u> is a sum over places,
so its maximum over m substitutions from the clean text takes the m places with the largest gain; that is HotFlip's
choice of flips (Ebrahimi et al. 2018, section 3) for several places at once. From a text that has substitutions
already, places may also be swapped or put back, and a small dynamic programme over places finds the best m changes.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from signstep.domains.language.tokenizers import Tokenizer, fitted
from signstep.domains.language.victim import tokens_of
from signstep.engine.keys import RowDraws
from signstep.engine.tree import Tree, search_dtype

_SLACK = 1e-6  # a budget that comes out a hair below a whole number is that number


@dataclass(frozen=True, eq=False)
class TokenRegion:
    """The texts that at most ``radius`` substitutions reach from ``x`` (R, L, 2, C); see `choices`."""

    x: Tensor
    radius: Tensor
    tokenizer: Tokenizer
    _typed: dict[tuple[int, ...], bool] = field(default_factory=dict, repr=False)

    def steepest(self, gradient: Tree) -> Tensor:
        """The best substitutions, as many as the budget allows, by first order."""
        return self._change(self._from_clean(_plane(gradient), self._budget()))

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> Tensor:
        """The best floor(``length``) changes from d, at least one, that stay within the budget; exact."""
        changes = torch.where(length > 0, (length + _SLACK).floor().clamp_min(1), 0.0).long()
        if d is None:
            return self._change(self._from_clean(_plane(gradient), torch.minimum(changes, self._budget())))
        here = self._nearest(d)
        gain = _plane(gradient) - _plane(gradient).gather(2, here.unsqueeze(2))
        gain = torch.where(self._open(), gain, -torch.inf)
        return self._change(best_changes(gain, here, changes, self._budget())) - self._change(here)

    def project(self, d: Tree) -> Tensor:
        """The nearest allowed text: all one-hot rows are equally long, so it has the largest <x + d, u>."""
        return self._change(self._nearest(d))

    def land(self, d: Tree) -> Tensor:
        """The allowed text at d; substitutions that typing would undo are taken back, the last place first."""
        slot = self._nearest(d)
        for row in (slot != 0).any(1).nonzero().squeeze(1).tolist():
            for place in reversed(slot[row].nonzero().squeeze(1).tolist()):
                if self._survives(slot, row):
                    break
                slot[row, place] = 0
        return torch.stack([one_hot(slot, self.x.shape[3]).to(self.x.dtype), self.x[:, :, 1]], 2)

    def sample(self, draws: RowDraws) -> Tensor:
        """Random substitutions, any number of them up to the budget."""
        share = draws.uniform("substitutions", (1,)).squeeze(1).to(self.radius)
        count = (share * (self._budget() + 1)).floor().long()
        return self._change(self._from_clean(self._noise(draws, "places"), torch.minimum(count, self._budget())))

    def vertex(self, draws: RowDraws) -> Tensor:
        """As many random substitutions as the budget allows: the control."""
        return self._change(self._from_clean(self._noise(draws, "vertex"), self._budget()))

    def restrict(self, gradient: Tree) -> Tensor:
        """The gradient with zeros where nothing is on offer; the list of tokens itself never changes."""
        plane = _plane(gradient)
        kept = torch.where(self._movable(), plane, 0.0)
        return torch.stack([kept, torch.zeros_like(kept)], 2)

    def frozen(self) -> Tensor:
        """Coordinates that cannot change, (R,) int64."""
        return self.x[0].numel() - self._movable().flatten(1).sum(1)

    def zero(self) -> Tensor:
        """The untouched text."""
        return torch.zeros_like(self.x, dtype=search_dtype(self.x.dtype))

    def take(self, index: Tensor) -> "TokenRegion":
        """The region of the rows at ``index``."""
        return replace(self, x=self.x[index], radius=self.radius[index])

    def resized(self, radius: Tensor) -> "TokenRegion":
        """The same with other budgets."""
        return replace(self, radius=radius.to(self.radius))

    def _budget(self) -> Tensor:
        return (self.radius + _SLACK).floor().long().clamp(0, self.x.shape[1])

    def _open(self) -> Tensor:
        """Which slots (R, L, C) have a token."""
        return self.x[:, :, 1] >= 0

    def _movable(self) -> Tensor:
        """Slots of places where there is something to choose from."""
        return self._open() & self._open()[:, :, 1:].any(2, keepdim=True)

    def _noise(self, draws: RowDraws, purpose: str) -> Tensor:
        """A value for every slot, the present token's below all others: each place would rather be substituted."""
        shape = (self.x.shape[1], self.x.shape[3])
        value = draws.normal(purpose, shape).to(search_dtype(self.x.dtype))
        value[:, :, 0] = value.amin() - 1
        return value

    def _from_clean(self, value: Tensor, budget: Tensor) -> Tensor:
        """The slots (R, L) of the best substitutions of a clean text for <value, u>; only those that gain."""
        gain = torch.where(self._open(), value - value[:, :, :1], -torch.inf)
        gain[:, :, 0] = 0
        best, slot = gain.max(2)
        order = best.argsort(dim=1, descending=True, stable=True).argsort(1)
        return torch.where((best > 0) & (order < budget.unsqueeze(1)), slot, 0)

    def _nearest(self, d: Tree) -> Tensor:
        plane = _plane(d)
        value = plane.clone()
        value[:, :, 0] += 1
        return self._from_clean(value, self._budget())

    def _change(self, slot: Tensor) -> Tensor:
        """The displacement (R, L, 2, C) from the clean text to these slots."""
        chosen = one_hot(slot, self.x.shape[3]).to(search_dtype(self.x.dtype))
        chosen[:, :, 0] -= 1
        return torch.stack([chosen, torch.zeros_like(chosen)], 2)

    def _survives(self, slot: Tensor, row: int) -> bool:
        """Whether the text of a row, typed again, gives its own tokens."""
        listed = self.x[row, :, 1].gather(1, slot[row].unsqueeze(1)).squeeze(1)
        ids = tuple(listed.long().tolist())
        if ids not in self._typed:
            again = self.tokenizer.encode(self.tokenizer.decode(ids))
            self._typed[ids] = fitted(again, len(ids), self.tokenizer.pad) == list(ids)
        return self._typed[ids]

    @classmethod
    def around(cls, x: Tensor, radius: Tensor, tokenizer: Tokenizer) -> "TokenRegion":
        """The region around untouched choices; the clean tokens are those of slot 0."""
        clean = torch.equal(tokens_of(x), x[:, :, 1, 0].long())
        assert clean
        return cls(x, radius, tokenizer)


def best_changes(gain: Tensor, here: Tensor, changes: Tensor, budget: Tensor) -> Tensor:
    """The slots (R, L) with the largest total gain, by dynamic programming over places.

    At most ``changes`` (R,) places differ from ``here`` (R, L), and at most ``budget`` (R,) are not in slot 0.

    Args:
        gain: (R, L, C) of each slot over the present one, -inf where a slot is not on offer.
        here: the present slots, within the budget.
        changes: places that may change now.
        budget: places that may be substituted in all.
    """
    rows, places = here.shape
    most = min(int(changes.max()), places) if rows else 0
    if most == 0:
        return here
    fresh = here == 0
    other = gain.clone().scatter_(2, here.unsqueeze(2), -torch.inf)
    put_back = other[:, :, 0]
    other[:, :, 0] = -torch.inf
    elsewhere, slot = other.max(2)
    # value[r, m, most + n]: the best gain of m changes that substitute n more places than before.
    value = gain.new_full((rows, most + 1, 2 * most + 1), -torch.inf)
    value[:, 0, most] = 0
    decisions = []
    for place in range(places):
        away, back = elsewhere[:, place, None, None], put_back[:, place, None, None]
        new = fresh[:, place, None, None]
        options = torch.full((3, *value.shape), -torch.inf, dtype=value.dtype, device=value.device)
        options[0] = value
        options[1, :, 1:, 1:] = torch.where(new, value[:, :-1, :-1] + away, -torch.inf)
        options[1, :, 1:] = torch.where(new, options[1, :, 1:], value[:, :-1] + away)
        options[2, :, 1:, :-1] = value[:, :-1, 1:] + back
        decision = options.argmax(0)  # the first of equals: nothing is changed for nothing
        value = options.gather(0, decision.unsqueeze(0)).squeeze(0)
        decisions.append(decision)
    spare = budget - (~fresh).sum(1)
    counts = torch.arange(most + 1, device=here.device, dtype=torch.int64)
    nets = torch.arange(-most, most + 1, device=here.device, dtype=torch.int64)
    allowed = (counts[None, :, None] <= changes[:, None, None]) & (nets[None, None, :] <= spare[:, None, None])
    final = torch.where(allowed, value, -torch.inf).flatten(1).argmax(1)
    count, net = final // (2 * most + 1), final % (2 * most + 1)
    row = torch.arange(rows, device=here.device, dtype=torch.int64)
    chosen = here.clone()
    for place in reversed(range(places)):
        decision = decisions[place][row, count, net]
        chosen[:, place] = torch.where(decision == 1, slot[:, place], torch.where(decision == 2, 0, chosen[:, place]))
        net = net - torch.where((decision == 1) & fresh[:, place], 1, 0) + torch.where(decision == 2, 1, 0)
        count = count - (decision > 0).long()
    return chosen


def _plane(tree: Tree) -> Tensor:
    """The choices' part (R, L, C) of a displacement or gradient."""
    assert isinstance(tree, Tensor)
    return tree[:, :, 0]
