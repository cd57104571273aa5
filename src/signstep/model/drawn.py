"""A model called through the transform that it declares, drawn anew at every pass: for those who only ask."""

import itertools
from dataclasses import replace

import torch

from signstep.engine.keys import Key
from signstep.engine.origin import foreign
from signstep.engine.tree import Tree, leaves, rows, tree_map
from signstep.model.declaration import Model
from signstep.model.predictor import Predictor
from signstep.model.space import InputSpace


def drawn_anew(model: Model, space: InputSpace, key: Key) -> Predictor:
    """What calls a model on inputs in the units of a budget; a transform has draws of its own in every pass.

    In the units of a normalised budget there is no transform, and what is returned passes none.
    """
    plain, transform = model.predictor(space), model.transform
    if transform is None or space.budget == "normalised":
        return plain
    inner, count = plain.prepare, itertools.count()

    def prepare(u: Tree) -> Tree:
        ids = torch.arange(rows(u), dtype=torch.int64, device="cpu")
        draws = key.fold("pass", next(count)).draws(ids, leaves(u)[0].device)
        with foreign("transform="):
            u = tree_map(lambda part: transform(part, draws), u)
        return u if inner is None else inner(u)

    return replace(plain, prepare=prepare, passed=str(transform))
