"""Attacks whose gradients are to carry over to other models."""
