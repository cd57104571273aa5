"""Attacks within a given eps that follow the model's own gradient."""
