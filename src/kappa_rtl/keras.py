"""For models in Keras 3 on its torch backend: a throttle around the user's optimiser. Neither is a dependency of the package."""

from .frameworks.keras import GlobalThrottle, ThrottleMetrics

__all__ = ["GlobalThrottle", "ThrottleMetrics"]
