"""For models in torch, which is imported when something here is used and is no dependency of the package."""
