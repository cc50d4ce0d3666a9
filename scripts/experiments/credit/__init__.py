"""``kappa-rtl credit`` and ``calibrate``: methods of credit compared, sent through the throttle, and watched by the protocol."""
