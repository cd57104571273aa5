"""One change for all inputs, patches, and what a camera or a defence does to an input."""
