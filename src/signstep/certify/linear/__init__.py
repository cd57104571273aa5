"""Linear bounds: what a network says, at least, in a ball around its input, by lines instead of boxes."""
