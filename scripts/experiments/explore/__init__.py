"""``kappa-rtl explore``: which widths a training survives, and what they cost."""

SYNTH = ("none", "front", "all")
"""Which units are synthesised."""
