"""The throttle on a torch optimiser: hooks on its own step, so that whatever else holds the optimiser goes on as it was."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...golden.checkpoint import State, agree
from ...golden.engines import Engine, shards
from ...golden.files import write_atomically
from ...golden.numbers import whole
from ...golden.shard import Shard
from ...golden.training.history import FitHistory
from ...golden.training.linear import counts
from ..rows import Rows
from .beside import Beside
from .compiled import CompiledUnit, can
from .engine import TorchShard
from .exchange import Ranks
from .plan import Plan, largest_rate, lines, plan_of
from .record import history_of, row_of, shown
from .report import page_of
from .state import of_torch, to_torch
from .unit import Step, Unit

KEY = "kappa_rtl"
"""Where the throttle's state is in that of the optimiser."""

ENGINES = ("auto", "numpy", "numba", "torch", "torch_compiled")
MISSING = ("keep", "zero")

UNEVEN = ("LBFGS", "Rprop", "Adafactor", "ASGD")
"""Optimisers whose step is not proportional to their rate, so that it cannot be taken for a direction."""


class GlobalThrottle:
    """One alpha on everything that an optimiser updates, decided and applied by the golden unit in fixed point.

    Before the optimiser's step its gradients are taken and its rates set to 1; what the step then does to the parameters is the
    proposal D; the unit decides alpha from the gradients' change and its own motion, moves the weights by ``-alpha * eta * D`` on
    their grids, and they are written back. So momentum, Adam and decoupled weight decay follow by themselves, and are all scaled
    by alpha. The optimiser is the user's own: schedulers, closures and whatever wraps it see no other.

    Args:
        optimizer: of torch, with all its parameter groups. Its rate, of a group or changed by a scheduler, is eta.
        law: a published law, its parameters among ``settings``.
        formats: a preset, or ``{pattern: {field: value}}`` with shell patterns of parameter names and ``gradient``, ``weight``,
            ``update``, ``direction``, ``residual_bits``, ``random_bits``, ``seed``, ``lanes``, ``scale`` and ``gain_from_one``;
            later patterns override earlier ones, and all of them a preset of 16 bits. Parameters of equal formats are a unit;
            those with a ``scale``, bits by which their grids are finer than that, are segments of it.
        model: whose names the patterns mean, and whose norm layers' gains are stored from 1. Without it the names that the
            optimiser was made with, and vectors that are all ones.
        eta_max: the largest rate that will come; by default the largest that groups and schedulers name so far.
        missing: a parameter without a gradient is taken to ``keep`` its former one, or to have ``zero``.
        engine: ``numpy``, ``numba``, ``torch`` (on the parameters' device), ``torch_compiled`` (through ``torch.compile``), or
            ``auto``: torch on a device that is no CPU, else numba where it is installed, else numpy.
        threads: of numba.
        beside: ``RtlThrottle``, or anything that makes a unit of a configuration and weights: does every step beside it, and the
            first difference ends the run.
        folder: where a difference is written down.
        process_group: the processes of this group hold parts of one model, and exchange two integers a step; every tensor is then
            a shard.
        on_step: is given :meth:`metrics` after every step, such as ``wandb.log``.
        measure: after every so many steps compare the applied change with the proposal; 0 for never.
        settings: other fields of a :class:`~kappa_rtl.golden.config.ThrottleConfig`, such as ``chi`` or ``mantissa_bits``.

    Attributes:
        steps: how many were made.
        skipped: how many were left out, without any gradient, or as a fused optimiser was told of an overflow.

    Raises:
        ValueError: names the argument or parameter, the value and the rule, before anything has changed.

    Example::

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        throttle = GlobalThrottle(optimizer, model=model, formats="sq12_stochastic")
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        law: str = "stability_margin",
        formats: str | Mapping[str, Mapping[str, Any]] = "sq16",
        model: Any | None = None,
        eta_max: float | None = None,
        missing: str = "keep",
        engine: str = "auto",
        threads: int = 1,
        beside: Callable[..., Any] | None = None,
        folder: str | os.PathLike[str] = ".",
        process_group: Any | None = None,
        on_step: Callable[[dict[str, float]], Any] | None = None,
        measure: int = 1,
        **settings: Any,
    ) -> None:
        _check_optimizer(optimizer)
        if missing not in MISSING:
            raise ValueError(f"missing must be one of {', '.join(MISSING)}, not {missing!r}")
        if on_step is not None and not callable(on_step):
            raise ValueError(f"on_step must be a function of the metrics, not {on_step!r}")
        if isinstance(measure, bool) or not isinstance(measure, int) or measure < 0:
            raise ValueError(f"measure must be an integer of at least 0, not {measure!r}")
        rates = [_rate(group) for group in optimizer.param_groups]
        most = eta_max
        if most is None:
            most = max(largest_rate(group) for group in optimizer.param_groups)
        if not 0 < most < math.inf or most < max(rates):
            raise ValueError(f"eta_max must be at least the rate {max(rates)!r}, finite and greater than 0, not {most!r}")
        self.optimizer = optimizer
        self.plan = plan_of(
            optimizer,
            model=model,
            formats=formats,
            eta=most,
            eta_max=most,
            law=law,
            a_tensor_a_unit=process_group is not None,
            settings=settings,
        )
        if process_group is None:
            self.plan.refuse_idle(self.plan.idle)
        if beside is not None:
            if process_group is not None:
                raise ValueError("beside must not be given with process_group: the unit beside holds no other process's shards")
            if len(self.plan.configs) > 1:
                raise ValueError(f"beside must be given where all parameters have one format, not {len(self.plan.configs)}")
        ranks = None if process_group is None else Ranks(process_group, self.plan)
        apart: dict[str, Any] = {} if ranks is None else {"elsewhere": ranks.elsewhere, "exchange": ranks.exchange}
        self._missing, self._on_step, self._measure = missing, on_step, measure
        self.unit = unit_of(self.plan, engine, threads, **apart)
        self.steps = self.skipped = 0
        self._rows = Rows()
        self._eta, self._factors = 0.0, [1.0]
        self._rates: list[Any] = []  # the user's, while the optimiser works with 1
        self._ones: list[Any] = []  # and what stands in their place
        self._skips = self._active = False
        self._comes: Mapping[str, Any] | None = None  # a state that torch is about to load
        self._last: dict[str, float] = {}
        self._counts = counts(None)
        self._groups = _ids(optimizer)
        self._beside = None if beside is None else Beside(beside, self.unit.throttle, Path(folder))
        for name, beyond in self.unit.beyond.items():
            if beyond:
                _warn(f"{name}: {beyond} weights lie beyond the rails of their format, and were brought onto them")
        for line, config in zip(lines(self.plan), self.plan.configs, strict=True):
            if config.stochastic and config.grids.update.fraction_bits > config.grids.weight.fraction_bits:
                _warn(
                    f"{line}: the update is rounded at random on a finer grid than the weights', whose rounding to nearest then "
                    "undoes most of it; take as many fraction bits as the weight's"
                )
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
            optimizer.register_state_dict_pre_hook(lambda _: self.recover()),
            optimizer.register_state_dict_post_hook(self._add_state),
            optimizer.register_load_state_dict_pre_hook(self._check_state),
            optimizer.register_load_state_dict_post_hook(self._take_state),
        ]
        optimizer._kappa_rtl = self

    def __repr__(self) -> str:
        return "\n".join([f"GlobalThrottle of {len(self.plan.configs)} unit(s):", *(f"  {line}" for line in lines(self.plan))])

    def detach(self) -> None:
        """Leave the optimiser as it was; the parameters stay where they are."""
        if not self._hooks:
            return
        self.recover()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        del self.optimizer._kappa_rtl
        if self._beside is not None:
            self._beside.close()

    # ---------------------------------------------------------------- a step

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.recover()
        self._active = True
        if _ids(optimizer) != self._groups:
            raise ValueError("param_groups must hold the parameters that the throttle was made for: make it after the last group")
        if getattr(optimizer, "grad_scale", None) is not None:
            # GradScaler would multiply what it finds left here into its next scale.
            del optimizer.grad_scale, optimizer.found_inf
            raise ValueError(
                "gradients must be unscaled before the step: call scaler.unscale_(optimizer) before scaler.step(optimizer), "
                "which this optimiser would do itself"
            )
        found = getattr(optimizer, "found_inf", None)
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._skips = (found is not None and bool(found)) or (closure is None and not _any_gradient(optimizer))
        if self._skips:
            return None
        for name in self.unit.refresh():
            _warn(f"{name} was changed between two steps, and is read anew")
        rates = [_rate(group) for group in optimizer.param_groups]
        self._eta = max(rates)
        if self._eta != float(self.unit.throttle.rate):
            try:
                self.unit.throttle.set_rate(self._eta)
            except ValueError as error:
                raise ValueError(f"{error}; make the throttle after the scheduler, or give it eta_max") from None
        self._factors = [rate / self._eta if self._eta else 1.0 for rate in rates]
        if closure is None:
            self.unit.absorb(keep=self._missing == "keep")
        self._rates = [group["lr"] for group in optimizer.param_groups]
        # Floats of their own, which are told from any other 1 that somebody sets.
        self._ones = [torch.ones_like(rate) if isinstance(rate, torch.Tensor) else float("1.0") for rate in self._rates]
        for group, one in zip(optimizer.param_groups, self._ones, strict=True):
            group["lr"] = one
        if closure is None:
            return None

        def and_take() -> Any:
            try:
                loss = closure()
                self.unit.absorb(keep=self._missing == "keep")
            except BaseException:
                self.recover()
                raise
            return loss

        rest = args[2:] if len(args) > 1 else ()
        return (args[0], and_take, *rest), {key: value for key, value in kwargs.items() if key != "closure"}

    def recover(self) -> None:
        """After an exception within the optimiser's step: put the rates and the weights back as they were before it.

        The next step, and ``state_dict`` of the optimiser, do it by themselves: nothing tells the throttle of the exception.
        """
        if self._rates:
            self._restore()
            self.unit.write()

    def _restore(self) -> None:
        for group, rate, one in zip(self.optimizer.param_groups, self._rates, self._ones, strict=False):
            if group["lr"] is one:
                group["lr"] = rate
        self._rates, self._ones = [], []

    def _after(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._active:  # a step of a class that calls that of its parent, whose hooks have been here
            return
        self._active = False
        if self._skips:
            self.skipped += 1
            return
        self._restore()
        if self._beside is not None:
            self._beside.prepare(self.unit.throttle)
        try:
            step = self.unit.move(self._factors, self._eta, measure=bool(self._measure) and self.steps % self._measure == 0)
        except BaseException:
            self.unit.write()  # the weights before the step, in the place of the proposal
            raise
        if self._beside is not None:
            self._beside.compare(step)
        self.steps += 1
        self._note(step)

    def _note(self, step: Step) -> None:
        row, self._counts = row_of(step, self._eta, self.unit, self._counts)
        self._last = row
        self._rows.append(row)
        if self._on_step is not None:
            self._on_step(self.metrics())

    # ---------------------------------------------------------------- what came of it

    def metrics(self) -> dict[str, float]:
        """The last step in numbers, by the names that all histories have; empty before the first."""
        return shown(self._last)

    @property
    def history(self) -> FitHistory:
        """All steps so far: ``save``, ``to_csv``, ``to_frame`` and ``plot_results`` as of any run."""
        return history_of(self._rows, self.unit)

    def report(self, path: str | os.PathLike[str], title: str = "Training through the throttle") -> Path:
        """Write the run so far as one page: units, the picture, what the last step came to."""
        target = Path(path)
        write_atomically(target, page_of(self.history, lines(self.plan), title))
        return target

    # ---------------------------------------------------------------- state

    def state_dict(self) -> State:
        """Everything that the next step depends on beside the parameters, tensors for arrays; it is in the optimiser's own."""
        return {
            "steps": self.steps,
            "skipped": self.skipped,
            "counts": dict(self._counts),
            "unit": to_torch(self.unit.throttle.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of a throttle made alike; ``optimizer.load_state_dict`` does it by itself.

        Raises:
            ValueError: another configuration, or no such state; names the field. Nothing has changed then.
        """
        if self._beside is not None:
            self._beside.refuse_load()
        own = {"steps": self.steps, "skipped": self.skipped, "counts": self._counts}
        agree({name: value for name, value in state.items() if name != "unit"}, own)
        for name in ("steps", "skipped"):
            whole(name, state[name], 0)
        if "unit" not in state:
            raise ValueError(f"the throttle's state must have unit, not {', '.join(state)}")
        self.unit.load_state_dict(of_torch(state["unit"]))
        self.steps, self.skipped, self._counts = state["steps"], state["skipped"], dict(state["counts"])
        self._rates, self._ones = [], []

    def _add_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        state[KEY] = self.state_dict()

    def _check_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        """Before torch looks at its own part: refuse what will not do, by loading it and going back."""
        self.recover()
        self._comes = state.get(KEY)
        if self._comes is None:
            _warn("the checkpoint has no state of a throttle: it begins anew, from the parameters as they are")
            return
        before = self.state_dict()
        self.load_state_dict(self._comes)
        self.load_state_dict(before)

    def _take_state(self, optimizer: Any) -> None:
        """Behind it, when torch has taken its part."""
        if self._comes is not None:
            self.load_state_dict(self._comes)
            self._comes = None


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer must be a torch optimiser, not {optimizer!r}")
    if getattr(optimizer, "_kappa_rtl", None) is not None:
        raise ValueError("optimizer must have no other throttle: call its detach() first")
    if any(kind.__name__ in UNEVEN for kind in type(optimizer).__mro__):
        names = ", ".join(UNEVEN)
        raise ValueError(
            f"optimizer must take steps proportional to its rate, which {names} do not; not {type(optimizer).__name__}"
        )


def unit_of(plan: Plan, engine: str, threads: int, **apart: Any) -> Unit:
    """The unit of an engine.

    Raises:
        ValueError: no such engine, or parameters on several devices.
    """
    on_device = _on_device(engine, plan)
    compiled = not on_device and shards(engine, threads) is not Shard and can(plan)
    kind = CompiledUnit if compiled else Unit
    own: Engine = engine
    if on_device:
        own = partial(TorchShard, device=plan.tensors[0][0].parameter.device, compile=engine == "torch_compiled")
    return kind(plan, on_device=on_device, engine=own, threads=threads, **apart)


def _on_device(engine: str, plan: Plan) -> bool:
    devices = {tensor.parameter.device for tensors in plan.tensors for tensor in tensors}
    if len(devices) > 1:
        raise ValueError(f"parameters must be on one device, not on {', '.join(sorted(str(device) for device in devices))}")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    return engine.startswith("torch") or (engine == "auto" and next(iter(devices)).type != "cpu")


def _ids(optimizer: Any) -> list[list[int]]:
    return [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]


def _rate(group: Mapping[str, Any]) -> float:
    """The rate of a group; one of float32 is the decimal that it prints as."""
    rate = group["lr"]
    if not isinstance(rate, torch.Tensor):
        return float(rate)
    value = rate.item()
    return float(str(np.float32(value))) if rate.dtype == torch.float32 else float(value)


def _any_gradient(optimizer: Any) -> bool:
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)
