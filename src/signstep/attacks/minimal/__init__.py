"""Attacks that look for the smallest change that fools: each paper a short file over one frame."""

from signstep.attacks.minimal.carlini_wagner import carlini_wagner
from signstep.attacks.minimal.ddn import ddn
from signstep.attacks.minimal.deepfool import deepfool
from signstep.attacks.minimal.fab import fab
from signstep.attacks.minimal.fmn import fmn
from signstep.attacks.minimal.sigma_zero import sigma_zero
from signstep.attacks.recipe import WHITE_BOX, Recipe

ROWS: tuple[Recipe, ...] = (
    Recipe(
        "deepfool",
        deepfool,
        "steps onto the nearest linearised class boundary",
        "Moosavi-Dezfooli, Fawzi & Frossard 2016 (arXiv:1511.04599), algorithm 2",
        WHITE_BOX,
        "until it fools, mostly after 3 steps, at most steps: 1 forward and candidates backwards each; 2 forwards",
        norms=("l2", "linf"),
        smallest=True,
    ),
    Recipe(
        "ddn",
        ddn,
        "decoupled direction and norm",
        "Rony et al. 2019 (arXiv:1811.09600), algorithm 1",
        WHITE_BOX,
        "steps + 2 forwards, steps backwards",
        norms=("l2",),
        smallest=True,
    ),
    Recipe(
        "fmn",
        fmn,
        "fast minimum-norm attack",
        "Pintor et al. 2021 (arXiv:2102.12827), algorithm 1",
        WHITE_BOX,
        "steps + 1 forwards, steps backwards",
        norms=("linf", "l2", "l1"),
        smallest=True,
    ),
    Recipe(
        "cw",
        carlini_wagner,
        "Carlini & Wagner: distance plus margin, by Adam",
        "Carlini & Wagner 2017 (arXiv:1608.04644), section 6",
        WHITE_BOX,
        "searches * steps + 2 forwards, searches * steps + 1 backwards",
        norms=("l2",),
        smallest=True,
    ),
    Recipe(
        "fab",
        fab,
        "fast adaptive boundary attack; FAB-T with targets",
        "Croce & Hein 2020 (arXiv:1907.02044), algorithm 1",
        WHITE_BOX,
        "2 * steps + 5 forwards, candidates * steps backwards; with targets targets * (2 * steps + 4) + 2 and "
        "targets * steps",
        norms=("linf", "l2", "l1"),
        smallest=True,
    ),
    Recipe(
        "sigma-zero",
        sigma_zero,
        "fewest changes, by gradients of a smooth count",
        "Cinà et al. 2025 (arXiv:2402.01879), algorithm 1",
        WHITE_BOX,
        "steps + 2 forwards, steps backwards",
        norms=("l0",),
        smallest=True,
    ),
)
