"""Attacks whose gradients are to carry over to other models, MI-FGSM with one idea more: a paper a file."""

from signstep.attacks.transfer import di_fgsm, ni_fgsm, si_fgsm, ti_fgsm, vmi_fgsm

ROWS = (ni_fgsm.ROW, si_fgsm.ROW, di_fgsm.ROW, ti_fgsm.ROW, vmi_fgsm.ROW)
