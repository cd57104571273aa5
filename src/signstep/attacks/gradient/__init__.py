"""Attacks within a given eps that follow the model's own gradient: a paper a file, its page beside it."""

from signstep.attacks.gradient import (
    apgd,
    averaged_pgd,
    bim,
    bpda_pgd,
    fgsm,
    fgsm_rs,
    mi_fgsm,
    mt_pgd,
    odi_pgd,
    pgd,
    random_sign,
    smooth_pgd,
)

_PAPERS = (random_sign, fgsm, fgsm_rs, bim, mi_fgsm, pgd, apgd, odi_pgd, mt_pgd, smooth_pgd, bpda_pgd, averaged_pgd)
ROWS = tuple(paper.ROW for paper in _PAPERS)
