"""A model of the user's as something that can be trained again and again: what ``kappa-rtl explore`` asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Task:
    """A fresh model with its optimiser, and how a run of it goes.

    Args:
        model: a torch module.
        optimizer: of its parameters, without a throttle.
        loss: ``loss(step)`` gives the loss of the step's batch, a tensor of one element with its graph; steps count from 0.
        score: ``score()`` says how good the model is now, on data that no step sees.
        steps: of a run.
        larger_is_better: of the score, such as an accuracy; not so of a loss.

    Raises:
        ValueError: names the argument, the value and the rule.
    """

    model: Any
    optimizer: Any
    loss: Callable[[int], Any]
    score: Callable[[], float]
    steps: int
    larger_is_better: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.model, torch.nn.Module):
            raise ValueError(f"model must be a torch module, not {self.model!r}")
        if not isinstance(self.optimizer, torch.optim.Optimizer) or getattr(self.optimizer, "_kappa_rtl", None) is not None:
            raise ValueError(f"optimizer must be a torch optimiser without a throttle, not {self.optimizer!r}")
        for name in ("loss", "score"):
            if not callable(getattr(self, name)):
                raise ValueError(f"{name} must be a function, not {getattr(self, name)!r}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be an integer of at least 1, not {self.steps!r}")
        if not isinstance(self.larger_is_better, bool):
            raise ValueError(f"larger_is_better must be True or False, not {self.larger_is_better!r}")

    def backward(self, step: int) -> float:
        """The gradients of a step, in the place of those before it; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(step)
        loss.backward()
        return float(loss.detach())
