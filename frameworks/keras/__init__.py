"""For models in Keras 3, which is imported with this room and is no dependency of the package; torch when a throttle is made."""

from .callback import ThrottleMetrics
from .throttle import GlobalThrottle

__all__ = ["GlobalThrottle", "ThrottleMetrics"]
