"""Tokenizers, and models whose text can be replaced behind their embedding: what the domains with text share."""
