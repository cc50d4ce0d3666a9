"""The unit behind a torch optimiser on the host, with floats and integers alike in compiled loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...golden.floats import grid, loops, takes
from ...golden.formats import Fixed
from ...golden.rounding import storage_dtype
from .plan import Plan, Tensor
from .unit import Step, Unit, gradient_of, not_finite


def can(plan: Plan) -> bool:
    """Whether the compiled loops have what a plan asks for: parameters of float32 or float64, the usual modes."""
    tensors = [tensor.parameter for members in plan.tensors for tensor in members]
    formats = [fmt for config in plan.configs for fmt in (config.grids.gradient, config.grids.direction)]
    return all(p.dtype in (torch.float32, torch.float64) for p in tensors) and all(map(takes, formats))


class CompiledUnit(Unit):
    """As :class:`~kappa_rtl.frameworks.torch.unit.Unit`, to the same bits, in a pass over the elements for each thing it does."""

    def write(self) -> None:
        for _, tensor, codes, ulp, offset in self._stored():
            data = tensor.parameter.data
            if data.is_contiguous():
                loops().leave(codes, ulp, offset, _flat(data))
            else:  # in a memory format of its own: by way of a vector
                values = np.empty(codes.size, ulp.dtype)
                loops().leave(codes, ulp, offset, values)
                data.copy_(torch.from_numpy(values).view(data.shape))

    def refresh(self) -> list[str]:
        self._check_parameters()
        found: dict[int, list[str]] = {}
        for k, tensor, codes, ulp, offset in self._stored():
            if not loops().same(codes, ulp, offset, _flat(tensor.parameter.data)):
                found.setdefault(k, []).append(tensor.name)
        return self._read_anew(found)

    def absorb(self, *, keep: bool, gradients: Mapping[int, Any] | None = None) -> None:
        made, beyond = [], 0
        for k, (shard, tensors) in enumerate(zip(self.throttle.shards, self.plan.tensors, strict=True)):
            fmt = shard.config.grids.gradient
            codes = np.empty(shard.config.elements, storage_dtype(fmt))
            for tensor in tensors:
                gradient, part = gradient_of(tensor, gradients), slice(tensor.place, tensor.place + tensor.parameter.numel())
                if gradient is None:
                    codes[part] = self._gradients[k][part] if keep else 0
                    continue
                values = _flat(gradient.contiguous())
                found = loops().enter(values, grid(fmt.finer(tensor.scale), values.dtype), codes[part])
                beyond += self._said(found, values, tensor, "gradient")
            made.append(codes)
        self._gradients, self._gradient_beyond = made, beyond

    def move(self, factors: Sequence[float], rate: float, *, measure: bool) -> Step:
        directions = [
            np.empty(shard.config.elements, storage_dtype(shard.config.grids.direction)) for shard in self.throttle.shards
        ]
        beyond, stored = 0, list(self._stored())
        for k, tensor, codes, ulp, offset in stored:
            fmt: Fixed = self.throttle.shards[k].config.grids.direction
            values = _flat(tensor.parameter.data)
            factor = values.dtype.type(factors[tensor.group])
            out = directions[k][tensor.place : tensor.place + values.size]
            found = loops().propose(codes, ulp, offset, values, factor, grid(fmt.finer(tensor.scale), values.dtype), out)
            beyond += self._said(found, values, tensor, "direction")
        registers, updates = self.throttle.advance(self._gradients, directions)
        moments = None
        if measure:
            sums = np.zeros(3)
            for (_, tensor, old, ulp, offset), (_, _, new, _, _) in zip(stored, self._stored(), strict=True):
                values = _flat(tensor.parameter.data)
                factor = values.dtype.type(factors[tensor.group])
                sums += loops().moments(old, new, ulp, offset, values, factor)
            moments = (float(sums[0]), float(sums[1]) * rate**2, -float(sums[2]) * rate)
        self.write()
        return Step(registers, self._gradients, directions, updates, self._gradient_beyond, beyond, moments)

    def _remember(self) -> None:
        """Nothing: what was written is told from the codes."""

    def _stored(self) -> Any:
        """Of each tensor: its shard's number, itself, its codes, and ulp and offset in its dtype."""
        for k, (shard, tensors) in enumerate(zip(self.throttle.shards, self.plan.tensors, strict=True)):
            theta = np.asarray(shard.theta).view()
            theta.flags.writeable = False
            for tensor in tensors:
                ulp = 2.0 ** -(shard.config.grids.weight.fraction_bits + tensor.scale)
                word = np.float32 if tensor.parameter.dtype == torch.float32 else np.float64
                yield k, tensor, theta[tensor.place : tensor.place + tensor.parameter.numel()], word(ulp), word(tensor.offset)

    @staticmethod
    def _said(beyond: int, values: Any, tensor: Tensor, what: str) -> int:
        """How many values lay beyond the rails, all of them finite."""
        if beyond and not np.isfinite(values).all():
            place = int(np.argmin(np.isfinite(values)))
            raise not_finite(what, tensor, place, float(values[place]))
        return int(beyond)


def _flat(tensor: Any) -> Any:
    """The elements of a tensor as a vector: its own memory where that is in one piece, else a copy."""
    return tensor.reshape(-1).numpy()
