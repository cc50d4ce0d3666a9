"""Where the binary points of a model belong: a short run in float, and the shares of what its formats do not hold."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ...golden.formats import Rounding
from ...golden.training.scales import QUANTILE, TensorScale, reach, scale
from .plan import gains_of, largest_rate, named, pattern_of

ROOM = 2
"""Bits above that quantile, and above the largest first weight."""

GRIDS = ("one", "tensor")
"""Whose binary points are found: one for all parameters, or one for each."""

LEAST, MOST = -30, 12
"""Integer bits of a format: a gradient that is nothing but noise of float asks for fewer than any grid has."""


class Formats(dict[str, dict[str, Any]]):
    """Formats for ``GlobalThrottle``, and what was seen.

    Attributes:
        shares: format -> ``beyond``, the share of what was seen that lies beyond its rails, and ``lost``, the share that is not
            zero and below half an ulp; weights are those of the beginning.
    """

    shares: dict[str, dict[str, float]]

    def __str__(self) -> str:
        lines = []
        for pattern, fields in self.items():
            lines.append(f"{pattern}: " + ", ".join(f"{name} {value}" for name, value in fields.items()))
        for name, share in self.shares.items():
            lines.append(f"  {name}: {share['beyond']:.2%} beyond the rails, {share['lost']:.2%} below half an ulp")
        return "\n".join(lines)


def calibrate(
    model: Any,
    optimizer: Any,
    batches: Iterable[Any],
    loss: Callable[[Any, Any], Any],
    bits: int | Mapping[str, int] = 12,
    *,
    grids: str = "one",
    steps: int = 20,
    **fields: Any,
) -> Formats:
    """Formats of so many bits for all parameters, from a short float run; model, optimiser and random state are put back.

    Weights get rails of four times the largest first one, gradients and proposals of four times their 99.9 % quantile, an update
    the largest that a proposal and the largest rate can make; at random it is rounded onto no finer grid than
    the weights'. Gains of norm layers count from 1, as they are stored.

    With ``grids="tensor"`` every parameter has a binary point of its own, by the rule of
    :func:`~kappa_rtl.golden.training.scales.calibrate`: a ``scale`` by which its grids are finer than those of the one whose
    weights, at the start or in the end of the run, reach farthest.

    Args:
        model, optimizer: as they are to be trained; without a throttle.
        batches: what ``loss`` takes, at least one.
        loss: ``loss(model, batch)``, a tensor of one element.
        bits: of every format, or of ``gradient``, ``weight``, ``update`` and ``direction`` each.
        grids: ``one`` for all parameters, or one a ``tensor``.
        steps: of the run, at most.
        fields: further fields of the formats, such as ``residual_bits``; of ``rounding`` the update's mode.

    Raises:
        ValueError: names the argument, the value and the rule.

    Example::

        formats = calibrate(model, optimizer, loader, lambda m, b: F.cross_entropy(m(b[0]), b[1]), 8, rounding="stochastic")
        throttle = GlobalThrottle(optimizer, model=model, formats=formats)
    """
    names = ("gradient", "weight", "update", "direction")
    allowed = {"rounding", "random_bits", "seed", "residual_bits", "lanes", "gain_from_one"}
    for name in fields:
        if name not in allowed:
            raise ValueError(f"fields must be among {', '.join(sorted(allowed))}, not {name!r}")
    for name in () if isinstance(bits, int) else bits:
        if name not in names:
            raise ValueError(f"bits must be of {', '.join(names)}, not of {name!r}")
    widths = {name: bits if isinstance(bits, int) else bits.get(name, 0) for name in names}
    for name, width in widths.items():
        if isinstance(width, bool) or not isinstance(width, int) or not 4 <= width <= 32:
            raise ValueError(f"bits of {name} must be an integer from 4 to 32, not {width!r}")
    if grids not in GRIDS:
        raise ValueError(f"grids must be one of {', '.join(GRIDS)}, not {grids!r}")
    if getattr(optimizer, "_kappa_rtl", None) is not None:
        raise ValueError("optimizer must have no throttle yet: calibrate first")
    rounding, modes = fields.pop("rounding", None), [mode.value for mode in Rounding]
    if rounding not in (None, *modes):
        raise ValueError(f"rounding must be one of {', '.join(modes)}, not {rounding!r}")
    parameters = named(optimizer, model)
    gains = gains_of(model, parameters)
    rate = max(largest_rate(group) for group in optimizer.param_groups)
    run = _run(model, optimizer, batches, loss, steps, [p for _, p, _ in parameters], gains)
    integer, scales = _on_one_grid(run) if grids == "one" else _a_grid_a_tensor(run, [name for name, _, _ in parameters])
    integer["update"] = _integer_bits(rate * 2.0 ** (integer["direction"] - 1))
    if rounding == "stochastic":  # on no finer grid than the weights, whose rounding would undo it
        integer["update"] = max(integer["update"], widths["update"] - widths["weight"] + integer["weight"])
    found = Formats({"*": {}})
    found.shares = {}
    for name in names:
        places = max(LEAST, min(MOST, integer[name]))
        text = f"SQ{places}.{widths[name] - places}"
        found["*"][name] = f"{text},{rounding}" if name == "update" and rounding else text
        ulp, rail = 2.0 ** (places - widths[name]), 2.0 ** (places - 1)
        # Finer grids and nearer rails are as the same grids for values that are larger.
        pairs = zip(run.of(name, rate), scales, strict=True)
        size = torch.cat([vector.abs() * 2.0**finer for vectors, finer in pairs for vector in vectors])
        found.shares[name] = {
            "beyond": float((size >= rail).float().mean()),
            "lost": float(((size < ulp / 2) & (size > 0)).float().mean()),
        }
    found["*"] |= fields
    for (name, _, _), finer in zip(parameters, scales, strict=True):
        if finer:
            found[pattern_of(name)] = {"scale": finer}
    return found


class _Run(NamedTuple):
    """What a short run has seen of each parameter: its first and last weights, and a vector a step."""

    begun: list[Any]
    ended: list[Any]
    gradients: list[list[Any]]
    proposals: list[list[Any]]

    def of(self, name: str, rate: float) -> list[list[Any]]:
        """The vectors of each parameter that a format of that name is to hold."""
        if name == "weight":
            return [[weights] for weights in self.begun]
        if name == "gradient":
            return self.gradients
        return [[one * rate for one in own] for own in self.proposals] if name == "update" else self.proposals


def _on_one_grid(run: _Run) -> tuple[dict[str, int], list[int]]:
    """The integer bits of weights, gradients and directions, and no scale for any parameter."""
    largest = {
        "weight": float(torch.cat(run.begun).abs().max()),
        "gradient": _quantile(torch.cat(list(itertools.chain(*run.gradients)))),
        "direction": _quantile(torch.cat(list(itertools.chain(*run.proposals)))),
    }
    return {name: _integer_bits(value) + ROOM for name, value in largest.items()}, [0] * len(run.begun)


def _a_grid_a_tensor(run: _Run, names: Sequence[str]) -> tuple[dict[str, int], list[int]]:
    """The same of what has a scale of 0, and the scale of each parameter."""
    tensors = [
        TensorScale(name, begun.numel(), float(torch.cat([begun, ended]).abs().max()), quantile=0.0)
        for name, begun, ended in zip(names, run.begun, run.ended, strict=True)
    ]
    weight, tensors = scale(tensors)
    integer = {"weight": weight}
    for name, seen in (("gradient", run.gradients), ("direction", run.proposals)):
        # Of a parameter that nothing came for there is nothing to hold.
        moved = [(one, [v for v in own if bool(v.any())]) for one, own in zip(tensors, seen, strict=True)]
        integer[name] = max(reach(one._replace(quantile=max(map(_quantile, own)))) for one, own in moved if own)
    return integer, [one.scale for one in tensors]


def _run(
    model: Any,
    optimizer: Any,
    batches: Iterable[Any],
    loss: Callable[[Any, Any], Any],
    steps: int,
    parameters: list[Any],
    gains: set[int],
) -> _Run:
    """A short run; everything is put back.

    A rate of 0, as a warm-up begins with, stands for the largest that its group names.
    """

    def weights() -> list[Any]:
        return [(p.detach() - float(id(p) in gains)).reshape(-1).float() for p in parameters]

    place = {id(p): k for k, p in enumerate(parameters)}
    gradients: list[list[Any]] = [[] for _ in parameters]
    proposals: list[list[Any]] = [[] for _ in parameters]
    begun = weights()
    with _put_back(model, optimizer, parameters):
        for batch in itertools.islice(batches, steps):
            optimizer.zero_grad()
            loss(model, batch).backward()
            here = [p for p in parameters if p.grad is not None]
            for p in here:
                gradients[place[id(p)]].append((p.grad.to_dense() if p.grad.is_sparse else p.grad).reshape(-1).float())
            old = [p.detach().clone() for p in here]
            rates = [group["lr"] for group in optimizer.param_groups]
            rate_of = {
                id(p): float(group["lr"]) or largest_rate(group) for group in optimizer.param_groups for p in group["params"]
            }
            for group in optimizer.param_groups:
                group["lr"] = torch.ones_like(group["lr"]) if isinstance(group["lr"], torch.Tensor) else 1.0
            optimizer.step()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            most = max(rate_of.values()) or 1.0
            for p, former in zip(here, old, strict=True):
                proposal = former - p.detach()
                p.data.copy_(former - rate_of[id(p)] * proposal)
                proposals[place[id(p)]].append(proposal.reshape(-1).float() * (rate_of[id(p)] / most))
        ended = weights()
    if not any(gradients):
        raise ValueError("batches must give at least one batch with a gradient, not none")
    for what, seen in (("gradients", gradients), ("steps", proposals)):
        if not any(bool(vector.any()) for own in seen for vector in own):
            raise ValueError(f"batches must give {what} that are not all zero: there is nothing to place a binary point by")
    return _Run(begun, ended, gradients, proposals)


@contextlib.contextmanager
def _put_back(model: Any, optimizer: Any, parameters: list[Any]) -> Iterator[None]:
    """Parameters, buffers, modes, gradients, the optimiser's state and all random states are in the end what they were."""
    tensors = [*model.parameters(), *model.buffers(), *parameters]
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    gradients = [(p, None if p.grad is None else p.grad.clone()) for p in parameters]
    modes = [(module, module.training) for module in model.modules()]
    state, rates = copy.deepcopy(optimizer.state_dict()), [group["lr"] for group in optimizer.param_groups]
    own, others = torch.get_rng_state(), (random.getstate(), np.random.get_state())
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, former in kept:
                tensor.copy_(former)
        for p, gradient in gradients:
            p.grad = gradient
        for module, mode in modes:
            module.training = mode
        optimizer.load_state_dict(state)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):  # the very objects, which others may hold
            group["lr"] = rate
        torch.set_rng_state(own)
        random.setstate(others[0])
        np.random.set_state(others[1])
        if devices:
            torch.cuda.set_rng_state_all(devices)


def _quantile(values: Any) -> float:
    """The quantile of the magnitudes that are not zero; of 1 where all are."""
    size = values.abs()
    size = size[size > 0]
    if not size.numel():
        return 1.0
    # torch.quantile takes 16 million elements at most; a sorted place needs no such bound.
    return float(torch.kthvalue(size, max(1, math.ceil(QUANTILE * size.numel())))[0])


def _integer_bits(value: float) -> int:
    """The integer bits, sign and all, of the least format that reaches a value."""
    return math.floor(math.log2(value)) + 2 if value > 0 else LEAST
