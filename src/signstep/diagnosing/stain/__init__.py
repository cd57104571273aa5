"""What an attack does inside the network, layer by layer, against random noise of the same size."""
