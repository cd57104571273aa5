"""A collection of models that hide behind their gradients, and of healthy ones, made from code."""
