"""What a training recipe adds between the gradient and the unit: clipping, weight decay, and what becomes of a bad gradient.

The order is that of the published recipes. The batch's gradient is clipped by its global norm; coupled decay adds to it, as the
gradient of ``weight_decay / 2 * ||theta||**2`` does; the optimiser takes it into its state; decoupled decay adds to what the
optimiser proposes. The unit steps along the outcome, so alpha scales decay of either mode as it scales everything else: a
throttled step shrinks the weights by ``alpha * eta * weight_decay``. Curvature is measured on the gradient as it is, decayed if
the decay is coupled, and never clipped: what clipping hides is what a throttle looks for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.layers import Variable
from ..numbers import number

Array = NDArray[Any]

MODES = ("decoupled", "coupled")
ON_BAD_GRADIENT = ("raise", "skip")
NO_DECAY = ("*/bias", "*/gamma", "*/beta")
"""Biases, and the variables of batch normalisation."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to a gradient before a unit makes a step of it.

    Args:
        weight_decay: added to the direction (or with ``coupled`` to the gradient): so many times theta.
        weight_decay_mode: ``decoupled``, after the optimiser, or ``coupled``, before it.
        decay_exclude: variables that do not decay, as patterns of ``layer/variable`` with ``*`` and ``?``; None means biases
            and the variables of batch normalisation, ``()`` that all decay.
        clip: ``gradient`` scales the gradient down to ``max_gradient_norm`` where its global norm is larger.
        max_gradient_norm: that norm, of the whole gradient before any grid; 1 if not given. Only with ``clip``.
        on_bad_gradient: a batch whose gradient, or what it makes of the moving statistics, is not finite: ``raise`` ends the run
            with an error, ``skip`` makes no step; either leaves unit, optimiser, estimator and statistics as they were. None
            hands it on, and the run has diverged.

    Raises:
        ValueError: names the field, the value and the rule.
    """

    weight_decay: float = 0.0
    weight_decay_mode: str = "decoupled"
    decay_exclude: Sequence[str] | None = None
    clip: str | None = None
    max_gradient_norm: float | None = None
    on_bad_gradient: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("weight_decay", "at least 0"), ("max_gradient_norm", "greater than 0")):
            given = getattr(self, name)
            if given is None:
                continue
            value = number(name, given)
            if not 0 <= value < math.inf or (least != "at least 0" and value == 0):
                raise ValueError(f"{name} must be finite and {least}, not {given!r}")
            object.__setattr__(self, name, value)
        choices = {"weight_decay_mode": MODES, "clip": (None, "gradient"), "on_bad_gradient": (None, *ON_BAD_GRADIENT)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, not {getattr(self, name)!r}")
        if self.max_gradient_norm is not None and self.clip is None:
            raise ValueError(f"clip must be 'gradient' where max_gradient_norm is given, {self.max_gradient_norm!r}, not None")
        given = self.decay_exclude
        if given is not None:
            if not isinstance(given, (list, tuple)) or not all(isinstance(pattern, str) for pattern in given):
                raise ValueError(f"decay_exclude must be a list of patterns such as 'dense0/*', not {given!r}")
            object.__setattr__(self, "decay_exclude", tuple(given))

    def decays(self, variables: Sequence[Variable], dtype: np.dtype[Any]) -> Array | None:
        """What theta is multiplied by, (P,): ``weight_decay`` where a variable decays; None without decay.

        Raises:
            ValueError: a pattern that excludes nothing.
        """
        names = [f"{v.layer}/{v.name}" for v in variables]
        for pattern in self.decay_exclude or ():
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"decay_exclude must match variables of the model ({', '.join(names)}), not {pattern!r}")
        if not self.weight_decay:
            return None
        made = np.zeros(variables[-1].place.stop if variables else 0, dtype)
        excluded = NO_DECAY if self.decay_exclude is None else self.decay_exclude
        for v, name in zip(variables, names, strict=True):
            made[v.place] = 0.0 if any(fnmatchcase(name, pattern) for pattern in excluded) else self.weight_decay
        return made

    def factor(self, gradient: Array) -> float:
        """What shortens the gradient to ``max_gradient_norm``; 1 without clipping, and where the gradient is not finite."""
        if self.clip is None:
            return 1.0
        largest = float(np.abs(gradient).max(initial=0.0))
        if not 0 < largest < math.inf:
            return 1.0
        scaled = gradient.astype(np.float64) / largest  # its squares neither overflow nor vanish
        bound = 1.0 if self.max_gradient_norm is None else self.max_gradient_norm
        return min(1.0, bound / (largest * math.sqrt(float(scaled @ scaled))))
