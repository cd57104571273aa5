"""The loss around the examples, made visible: lines, a plane, curvature, sizes of gradients, layers."""
