"""Credit methods: learning signals that a chip may use instead of backpropagation, measured against it.

A ``network`` maps states h_0..h_L and knows the exact credit p_l = dloss/dh_l. A ``method`` guesses it from what is local: the
error at the output, and what its own small ``nets`` have learned. ``metrics`` compares the two, ``experiments`` is what is run.
"""

from .method import Method
from .methods import METHODS, make
from .model import ResidualMLP
from .network import Network, Trace

__all__ = ["METHODS", "Method", "Network", "ResidualMLP", "Trace", "make"]
