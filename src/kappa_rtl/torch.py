"""For models in torch: the diagnostic protocol on a module, by hooks. torch itself is no dependency of the package."""

from .frameworks.torch import Observed

__all__ = ["Observed"]
