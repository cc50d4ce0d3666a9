"""``kappa-rtl train``: the experiments of the training harness, each a handful of arms that differ in one thing."""
