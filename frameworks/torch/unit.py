"""The unit behind a torch optimiser: parameters and gradients in, codes through the golden unit, parameters out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...golden.config import ThrottleConfig
from ...golden.engines import Engine
from ...golden.formats import Fixed
from ...golden.registers import Registers
from ...golden.sharded import ShardedThrottle
from ...golden.throttle import Exchange, Throttle
from .codes import Coded, NotFiniteError, coded, flat, values_of
from .plan import Plan, Tensor


@dataclass
class Step:
    """What a step has come to.

    Attributes:
        gradients, directions, updates: codes, a vector a shard.
        gradient_beyond, direction_beyond: how many values lay beyond their grid's rails.
        moments: the squared lengths of the change of the parameters and of ``-eta`` times the proposal, and the product of both;
            None where they were not measured.
    """

    registers: Registers
    gradients: list[Any]
    directions: list[Any]
    updates: list[Any]
    gradient_beyond: int
    direction_beyond: int
    moments: tuple[float, float, float] | None = field(default=None)


class Unit:
    """One golden unit, or shards of several formats, that hold the parameters of a plan.

    Args:
        on_device: whether the shards that ``engine`` makes keep their integers as tensors on the parameters' device.
        elsewhere: configurations of the shards of other processes that come before and after those of the plan.
        exchange: sums integers over all processes.

    Attributes:
        throttle: the golden unit.
        beyond: of each tensor how many weights lay beyond their rails at first.
        edited: how many tensors were found changed by somebody else between two steps.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        on_device: bool = False,
        elsewhere: tuple[Sequence[ThrottleConfig], Sequence[ThrottleConfig]] = ((), ()),
        exchange: Exchange | None = None,
        engine: Engine = "numpy",
        threads: int = 1,
    ) -> None:
        self.plan, self._on_device = plan, on_device
        self.device = plan.tensors[0][0].parameter.device
        self._kinds = [(tensor.parameter.dtype, tensor.parameter.device) for members in plan.tensors for tensor in members]
        self.beyond: dict[str, int] = {}
        self.edited = 0
        starts = [_host(self._read(k)) for k in range(len(plan.configs))]
        before, after = elsewhere
        self.throttle: Throttle
        if exchange is None and len(plan.configs) == 1:
            self.throttle = Throttle(plan.configs[0], starts[0], codes=True, engine=engine, threads=threads)
        else:
            held = range(len(before), len(before) + len(starts))
            configs = [*before, *plan.configs, *after]
            self.throttle = ShardedThrottle(
                configs, starts, codes=True, held=held, exchange=exchange, engine=engine, threads=threads
            )
        self._gradients = [self._zeros(shard.config.grids.gradient, shard.config.elements) for shard in self.throttle.shards]
        self._gradient_beyond = 0
        self._written: list[Any] = []
        self.write()

    def write(self) -> None:
        """Put the weights into the parameters."""
        self._remember()
        for written, tensors in zip(self._written, self.plan.tensors, strict=True):
            for tensor, part in zip(tensors, _parts(written, tensors), strict=True):
                tensor.parameter.data.copy_(part.view_as(tensor.parameter))

    def refresh(self) -> list[str]:
        """Read parameters anew that somebody has changed since they were written, such as a loaded checkpoint; their names.

        Raises:
            ValueError: a parameter has another dtype or device than when the unit was made.
        """
        self._check_parameters()
        found: dict[int, list[str]] = {}
        for k, tensors in enumerate(self.plan.tensors):
            changed = [
                tensor.name
                for tensor, part in zip(tensors, _parts(self._written[k], tensors), strict=True)
                if not torch.equal(part, tensor.parameter.data.reshape(-1))
            ]
            if changed:
                found[k] = changed
        return self._read_anew(found)

    def _check_parameters(self) -> None:
        for tensor, (dtype, device) in zip((t for members in self.plan.tensors for t in members), self._kinds, strict=True):
            now = (tensor.parameter.dtype, tensor.parameter.device)
            if now != (dtype, device):
                raise ValueError(
                    f"{tensor.name} must stay {dtype} on {device}, as when the throttle was made, not {now[0]} on {now[1]}: "
                    "make the throttle after the model is converted or moved"
                )

    def _read_anew(self, changed: Mapping[int, list[str]]) -> list[str]:
        """Read shards whose parameters were changed; the names of those that are other weights now."""
        found = []
        for k, names in changed.items():
            shard, theta = self.throttle.shards[k], self._read(k)
            if not self._on_device:
                theta = _host(theta)
            if bool((theta != shard.theta).any()):
                shard.theta = theta
                found += names
        if changed:
            self.write()
        self.edited += len(found)
        return found

    def absorb(self, *, keep: bool, gradients: Mapping[int, Any] | None = None) -> None:
        """Take the gradients.

        Args:
            keep: a parameter without one is taken to have its former one; else zeros.
            gradients: by the ``id`` of their parameters; None for those that stand in the parameters.

        Raises:
            ValueError: a gradient that is not finite, or of another shape; names the parameter.
        """
        made, beyond = [], 0
        for k, (shard, tensors) in enumerate(zip(self.throttle.shards, self.plan.tensors, strict=True)):
            given = [gradient_of(tensor, gradients) for tensor in tensors]
            parts = [torch.zeros_like(t.parameter) if g is None else g for t, g in zip(tensors, given, strict=True)]
            found = _coded(parts, tensors, shard.config.grids.gradient, "gradient")
            codes = found.codes if self._on_device else _host(found.codes)
            for tensor, gradient in zip(tensors, given, strict=True):
                if gradient is None and keep:
                    place = slice(tensor.place, tensor.place + tensor.parameter.numel())
                    codes[place] = self._gradients[k][place]
            made.append(codes)
            beyond += found.beyond
        self._gradients, self._gradient_beyond = made, beyond

    def move(self, factors: Sequence[float], rate: float, *, measure: bool) -> Step:
        """Take what the optimiser has made of the parameters for its proposal, make the step, and write the weights.

        Args:
            factors: of each parameter group, what its proposal is multiplied by.
            rate: eta; what was intended without a throttle is eta times the proposal.
            measure: compare what was applied with that.
        """
        directions, proposals, beyond = [], [], 0
        for written, shard, tensors in zip(self._written, self.throttle.shards, self.plan.tensors, strict=True):
            proposal = written - flat([tensor.parameter.data for tensor in tensors])
            for tensor, part in zip(tensors, _parts(proposal, tensors), strict=True):
                if factors[tensor.group] != 1:
                    part *= factors[tensor.group]
            found = _coded(_parts(proposal, tensors), tensors, shard.config.grids.direction, "direction")
            directions.append(found.codes if self._on_device else _host(found.codes))
            beyond += found.beyond
            proposals.append(proposal)
        before = self._written
        registers, updates = self.throttle.advance(self._gradients, directions)
        self.write()
        moments = None
        if measure:
            sums = np.zeros(3)
            for old, new, proposal in zip(before, self._written, proposals, strict=True):
                change, meant = (new - old).double(), proposal.double() * -rate
                sums += [float(change @ change), float(meant @ meant), float(change @ meant)]
            moments = (float(sums[0]), float(sums[1]), float(sums[2]))
        return Step(registers, self._gradients, directions, updates, self._gradient_beyond, beyond, moments)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the golden unit; parameters that are others than its weights are read at the next step."""
        self.throttle.load_state_dict(state)
        previous = [state["shards"][str(k)]["previous"] for k in range(len(self.plan.configs))]
        self._gradients = [torch.as_tensor(codes, device=self.device) if self._on_device else codes for codes in previous]
        self._remember()

    def _remember(self) -> None:
        """What the parameters are when they have been written."""
        self._written = []
        for shard, tensors in zip(self.throttle.shards, self.plan.tensors, strict=True):
            values = self._values(shard.theta, shard.config.grids.weight, tensors)
            for tensor, part in zip(tensors, _parts(values, tensors), strict=True):
                if tensor.offset:
                    part += tensor.offset
            self._written.append(values)

    def _read(self, k: int) -> Any:
        """The parameters of a shard as codes."""
        fmt, tensors = self.plan.configs[k].grids.weight, self.plan.tensors[k]
        parts = [tensor.parameter.data - tensor.offset if tensor.offset else tensor.parameter.data for tensor in tensors]
        for tensor, part in zip(tensors, parts, strict=True):
            self.beyond[tensor.name] = _coded([part.reshape(-1)], [tensor], fmt, "weight").beyond
        return _coded(parts, tensors, fmt, "weight").codes

    def _values(self, codes: Any, fmt: Fixed, tensors: Sequence[Tensor]) -> Any:
        vector = codes if self._on_device else torch.from_numpy(np.array(codes))
        dtype = tensors[0].parameter.dtype
        if not any(tensor.scale for tensor in tensors):
            return values_of(vector, fmt, dtype).to(self.device)
        parts = zip(_parts(vector, tensors), tensors, strict=True)
        return torch.cat([values_of(part, fmt.finer(tensor.scale), dtype) for part, tensor in parts]).to(self.device)

    def _zeros(self, fmt: Fixed, elements: int) -> Any:
        zeros = coded(torch.zeros(elements, device=self.device), fmt).codes
        return zeros if self._on_device else _host(zeros)


def _parts(vector: Any, tensors: Sequence[Tensor]) -> list[Any]:
    """The slices of a shard's vector that are its tensors', as views."""
    return [vector[tensor.place : tensor.place + tensor.parameter.numel()] for tensor in tensors]


def _host(codes: Any) -> Any:
    return codes.cpu().numpy()


def _coded(parts: Sequence[Any], tensors: Sequence[Tensor], fmt: Fixed, what: str) -> Coded:
    """Codes of a shard's tensors, which follow one another, each on the grid of its scale; what is not finite is named."""
    if len(tensors) > 1 and any(tensor.scale for tensor in tensors):
        found = [_coded([part], [tensor], fmt, what) for part, tensor in zip(parts, tensors, strict=True)]
        return Coded(torch.cat([one.codes for one in found]), sum(one.beyond for one in found))
    try:
        return coded(flat(parts), fmt.finer(tensors[0].scale))
    except NotFiniteError as error:
        place = tensors[0].place + error.place
        tensor = next(tensor for tensor in reversed(tensors) if tensor.place <= place)
        raise not_finite(what, tensor, place - tensor.place, error.value) from None


def gradient_of(tensor: Tensor, gradients: Mapping[int, Any] | None) -> Any:
    """A parameter's gradient of its shape, from those that are given or else from where it stands; None where there is none."""
    found = tensor.parameter.grad if gradients is None else gradients.get(id(tensor.parameter))
    if found is None:
        return None
    return (found.to_dense() if found.is_sparse else found).detach().to(tensor.parameter.dtype)


def not_finite(what: str, tensor: Tensor, place: int, value: float) -> ValueError:
    """What is said of a value that is on no grid, by its place in a tensor."""
    index = np.unravel_index(place, tuple(tensor.parameter.shape)) if tensor.parameter.ndim else ()
    at = f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
    return ValueError(f"{what} of {tensor.name}{at} must be finite, not {value!r}")


def angle_of(moments: tuple[float, float, float]) -> tuple[float, float, float]:
    """Angle in radians, its cosine, and ratio of the lengths of what was applied and what was intended."""
    applied, intended, inner = moments
    if not applied or not intended:
        return math.pi / 2, 0.0, math.sqrt(applied / intended) if intended else math.inf if applied else 1.0
    cosine = max(-1.0, min(1.0, inner / math.sqrt(applied * intended)))
    return math.acos(cosine), cosine, math.sqrt(applied / intended)
