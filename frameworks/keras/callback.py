"""The throttle's figures among the logs of a fit."""

from __future__ import annotations

from typing import Any

import keras


class ThrottleMetrics(keras.callbacks.Callback):
    """Puts what the throttle measured into the logs: of each batch, and as means over an epoch's steps into the epoch's.

    So they are in what ``fit`` returns, in the progress bar and in whatever logger stands behind this one in the list.

    Args:
        names: which, without their prefix ``throttle/``, of those that :meth:`GlobalThrottle.metrics` has.

    Raises:
        ValueError: when a fit begins, the model's optimiser is not throttled; after the first step, a name that is none.

    Example::

        model.fit(x, y, callbacks=[ThrottleMetrics()])
    """

    NAMES = (
        "alpha",
        "curvature",
        "still",
        "gradient_saturated",
        "update_saturated",
        "weight_saturated",
        "update_underflow",
        "update_angle_rad",
        "update_radius_ratio",
    )
    """alpha, C, whether nothing moved, shares on the rails or rounded to nothing, angle and length of what was applied."""

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        super().__init__()
        self.names = tuple(names)
        self._sums: dict[str, list[float]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self._throttle()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._sums = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        throttle = self._throttle()
        found = throttle.metrics()
        for name in self.names:
            if name not in throttle.log.last:
                raise ValueError(f"names must be of {', '.join(throttle.log.last)}, not {name!r}")
        for name in self.names:
            # What was not measured in this step is no figure of it.
            if (value := found.get(f"throttle/{name}")) is not None:
                self._sums.setdefault(f"throttle/{name}", []).append(value)
                if logs is not None:
                    logs[f"throttle/{name}"] = value

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs.update({name: sum(values) / len(values) for name, values in self._sums.items()})

    def _throttle(self) -> Any:
        """The model's throttle, also within what scales the loss."""
        optimizer = self.model.optimizer
        while not hasattr(optimizer, "metrics"):
            if not hasattr(optimizer, "inner_optimizer"):
                raise ValueError(f"optimizer must be a GlobalThrottle, not {type(self.model.optimizer).__name__}")
            optimizer = optimizer.inner_optimizer
        return optimizer
