"""What every edit of a text gains to first order: one gradient ranks all words and all that may stand for them.

With g the gradient of the loss at the embedding of a token and e_t the vector of token t, replacing t by u changes the
loss to first order by <g, e_u - e_t> (HotFlip: Ebrahimi, Rao, Lowd & Dou 2018, section 3). It is FGSM's linear problem
over a finite set. An edit may turn a word of n tokens into one of m: for n = m the gains of the places add up; else
the sum of the new vectors less that of the old ones is taken along the word's mean gradient. It only ranks: what counts
is what the model says of the string.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from signstep.domains.language.spelling import Read, tokens_within
from signstep.domains.text.reading import TokenReader
from signstep.domains.text.walk import Changes, Gain, Walk
from signstep.domains.text.words import Word


class _Edit(NamedTuple):
    place: int
    core: str
    old: list[int]  # places of tokens
    new: tuple[int, ...]  # tokens


def gains(
    reader: TokenReader, walk: Walk, changes: Changes, words: tuple[Word, ...], read: Read, slope: Tensor
) -> list[Gain]:
    """The gains of all edits of words that are not changed yet, the largest first.

    Args:
        reader: of the model.
        walk: the text's search.
        changes: that were made already.
        words: of the text with these changes.
        read: what the model read of that text.
        slope: the gradient (T, D) at its tokens.
    """
    edits: list[_Edit] = []
    for place in walk.places:
        word = words[place]
        old = [] if place in changes else tokens_within(read, word.start, word.end)
        if old:
            edits += [_Edit(place, core, old, pieces(reader, core, word.start > 0)) for core in walk.options(place)]
    tokens = sorted({token for edit in edits for token in edit.new} | set(read.ids))
    column = {token: number for number, token in enumerate(tokens)}
    weight = reader.embedding.weight.detach()
    listed = weight[torch.tensor(tokens, dtype=torch.int64, device=weight.device)].to(slope)
    table = (slope.to(listed.device) @ listed.T).double().cpu().tolist()  # (T, tokens): <g_i, e_t>
    found = [Gain(_gain(edit, read, table, column), edit.place, edit.core) for edit in edits]
    return sorted(found, key=lambda one: (-one.gain, one.place))


def pieces(reader: TokenReader, core: str, spaced: bool) -> tuple[int, ...]:
    """The tokens of a word that stands alone, after white space or not."""
    text = f" {core}" if spaced else core
    read = reader.read(text)
    return tuple(read.ids[place] for place in tokens_within(read, len(text) - len(core), len(text)))


def _gain(edit: _Edit, read: Read, table: list[list[float]], column: dict[int, int]) -> float:
    if len(edit.old) == len(edit.new):
        pairs = zip(edit.old, edit.new, strict=True)
        return sum(table[place][column[new]] - table[place][column[read.ids[place]]] for place, new in pairs)
    new = sum(table[place][column[token]] for place in edit.old for token in edit.new)
    old = sum(table[place][column[read.ids[other]]] for place in edit.old for other in edit.old)
    return (new - old) / len(edit.old)
