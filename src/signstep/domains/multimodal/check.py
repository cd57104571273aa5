"""An independent check of substituted texts: tokens before, tokens after, and nothing of the search.

import-linter keeps it that way.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from signstep.engine.defaults import plain_tensor
from signstep.engine.verify import Verification
from signstep.errors import InputError


def check_choices(
    before: Tensor,
    after: Tensor,
    eps: float | Tensor | None,
    protected: Collection[int],
    *,
    typed: Callable[[list[int]], list[int]] | None = None,
) -> Verification:
    """Check texts (R, L, 2, C) against the declared number of substitutions.

    A row holds if the tokens on offer are those of before; exactly one of them is chosen at every place, and it is
    there; at most ``eps`` tokens differ; no protected token left or came in; and, with ``typed``, the text's tokens are
    the same after it was decoded and read again.

    Args:
        before: the untouched texts.
        after: the attacked texts.
        eps: substitutions allowed, a number or (R,).
        protected: tokens that may neither be replaced nor put in.
        typed: tokens -> text -> tokens.
    """
    if before.shape != after.shape or before.ndim != 4 or before.shape[2] != 2:
        raise InputError(
            f"texts have the shapes {tuple(before.shape)} and {tuple(after.shape)}", remedy="pass equal (R,L,2,C)"
        )
    allowed = plain_tensor(float("inf") if eps is None else eps, dtype=torch.float64).expand(len(before))
    ok = torch.zeros(len(before), dtype=torch.bool, device="cpu")
    size = torch.full((len(before),), torch.inf, dtype=torch.float64, device="cpu")
    kept = set(protected)
    for row, (old, new) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
        was, now = _read(old), _read(new)
        if was is None or now is None or [place[1] for place in old] != [place[1] for place in new]:
            continue
        changed = [(first, second) for first, second in zip(was, now, strict=True) if first != second]
        size[row] = len(changed)
        touched = any(first in kept or second in kept for first, second in changed)
        ok[row] = len(changed) <= float(allowed[row]) + 1e-9 and not touched and (typed is None or _same(now, typed))
    return Verification(ok.to(before.device), size.to(before.device), (size - allowed).to(before.device), 0.0)


def check(terms: Mapping[str, Any], before: Tensor, after: Tensor) -> Verification:
    """Check saved texts of one input by the terms of a record, ``terms["domain_terms"]["texts"]``.

    With several texts in the record a row holds where it holds for one of them: points do not say which they are.
    """
    found = [
        check_choices(before, after, text["eps"], [int(token) for token in text["protected"]])
        for text in terms["domain_terms"]["texts"].values()
    ]
    if not found:
        raise InputError(
            "the record names no text under substitution, and cannot be checked", remedy="pass another record"
        )
    ok = torch.stack([part.ok for part in found]).any(0)
    return Verification(ok, found[0].size, torch.stack([part.excess for part in found]).amin(0), 0.0)


def _read(places: list[list[list[float]]]) -> list[int] | None:
    """The chosen tokens; None if the choice at some place is not exactly one of those on offer."""
    found = []
    for chosen, listed in places:
        if sorted(chosen) != [0.0] * (len(chosen) - 1) + [1.0]:
            return None
        token = listed[chosen.index(1.0)]
        if token < 0 or token != round(token):
            return None
        found.append(int(token))
    return found


def _same(ids: list[int], typed: Callable[[list[int]], list[int]]) -> bool:
    """Whether typing gives the tokens back, but for padding at the end."""
    again = typed(ids)
    rest = ids[len(again) :]
    return again == ids[: len(again)] and (not rest or set(rest) == {rest[-1]})
