"""Questions of whoever designs a chip, each a search with its table and its picture: ``kappa-rtl findings``."""
