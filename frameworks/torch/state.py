"""States with tensors in the place of arrays, which torch's own files hold without pickling anything of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def to_torch(value: Any) -> Any:
    """Arrays become tensors, mappings and lists likewise within; unsigned words of 16 bits stay what they are."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: to_torch(inner) for name, inner in value.items()}
    return [to_torch(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def of_torch(value: Any) -> Any:
    """The reverse."""
    if isinstance(value, torch.Tensor):
        return value.cpu().numpy().copy()
    if isinstance(value, Mapping):
        return {name: of_torch(inner) for name, inner in value.items()}
    return [of_torch(inner) for inner in value] if isinstance(value, (list, tuple)) else value
