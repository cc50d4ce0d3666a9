"""For models in Keras 3 on its torch backend: a throttle around the user's optimiser. Neither is a dependency of the package.

Both names are imported at once, so that with this module Keras knows the throttle of a model that it loads.
"""

from .frameworks.keras import GlobalThrottle, ThrottleMetrics

__all__ = ["GlobalThrottle", "ThrottleMetrics"]
