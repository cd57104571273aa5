"""Bounds from the other side: where no attack can succeed."""
