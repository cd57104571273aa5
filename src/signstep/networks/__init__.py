"""Small reference networks, built from arguments."""
