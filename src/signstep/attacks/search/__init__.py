"""Attacks that only ask: for scores, or for the answer alone."""

from signstep.attacks.recipe import LABELS, SCORES, Recipe
from signstep.attacks.search.blind import random_direction
from signstep.attacks.search.boundary import hop_skip_jump
from signstep.attacks.search.estimates import nes, spsa
from signstep.attacks.search.explore import explore
from signstep.attacks.search.sparse_rs import sparse_rs
from signstep.attacks.search.square import square

ROWS: tuple[Recipe, ...] = (
    Recipe(
        "random-direction",
        random_direction,
        "uniform points of the ball, one for each query",
        "control",
        LABELS,
        "at most queries + 1 forwards",
        needs="labels",
    ),
    Recipe(
        "square",
        square,
        "square attack: random windows, kept where the margin shrinks",
        "Andriushchenko et al. 2020 (arXiv:1912.00049), algorithms 1 to 3",
        SCORES,
        "at most queries + 1 forwards; times restarts",
        needs="scores",
        norms=("linf", "l2"),
        balls=True,
    ),
    Recipe(
        "sparse-rs",
        sparse_rs,
        "random search over which coordinates change, kept where the margin shrinks",
        "Croce et al. 2022 (arXiv:2006.12834), algorithms 1 and 2",
        SCORES,
        "at most queries + 1 forwards; times restarts",
        needs="scores",
        norms=("l0",),
        balls=True,
    ),
    Recipe(
        "explore",
        explore,
        "an even sample, gradients from its best points, small changes of the best",
        "Hooke & Jeeves 1961; Kolda, Lewis & Torczon 2003 (pattern search), over a Sobol sample",
        SCORES,
        "at most samples + queries + 3 + starts * (steps + 2) forwards, starts * steps backwards",
        needs="scores",
    ),
    Recipe(
        "nes",
        nes,
        "sign steps along a gradient estimated from scores in normal directions",
        "Ilyas et al. 2018 (arXiv:1804.08598), section 2",
        SCORES,
        "at most queries + 1 forwards",
        needs="scores",
        balls=True,
    ),
    Recipe(
        "spsa",
        spsa,
        "sign steps along a gradient estimated from scores in random signs",
        "Uesato et al. 2018 (arXiv:1802.05666), section 4",
        SCORES,
        "at most queries + 1 forwards",
        needs="scores",
        balls=True,
    ),
    Recipe(
        "hop-skip-jump",
        hop_skip_jump,
        "along the decision boundary towards the input, by labels alone",
        "Chen, Jordan & Wainwright 2020 (arXiv:1904.02144), algorithms 1 and 2",
        LABELS,
        "at most queries + 1 forwards",
        needs="labels",
        norms=("linf", "l2"),
        smallest=True,
        balls=True,
    ),
)
