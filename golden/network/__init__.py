"""Small networks in numpy, forward and backward written out: layers, losses, optimisers, data, and a format for every tensor."""
