"""Signstep: an adversarial-robustness workbench."""
