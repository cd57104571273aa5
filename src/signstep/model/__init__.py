"""The model under attack with everything declared about it, and the question it is asked."""
