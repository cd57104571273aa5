"""Tensors in, verdicts out: geometry, the loop, the accounts, the checker; no paper, no file, no class of models."""
