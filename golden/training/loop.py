"""One step of training: the gradient at the unit's weights, the unit's update, and what a row says of it.

The loop computes a gradient and hands it over; curvature, alpha and the update are the unit's. What else is measured of a step,
before and after it, is for the loops made of this one: :mod:`~kappa_rtl.golden.training.instrumented`, for any model, and
:mod:`~kappa_rtl.golden.training.linear`, for one layer whose runs on several units advance side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..config import Source
from ..formats import Fixed
from ..network import layers as chain
from ..network import optimisers
from ..network.layers import Layer, Variable
from ..network.losses import loss_of
from ..network.optimisers import Optimiser
from ..network.overflow import Overflows, beyond
from ..network.precision import PrecisionDict, quantize_tensor
from ..network.quantisers import Segment, gradient_formats, layer_quantisers, segments
from ..reference import FloatThrottle
from ..rounding import quantise
from ..segments import scales
from ..throttle import Datapath, StepRecord, real_of
from ..widths import Grids
from . import estimators
from .curvatures import NAMES as CURVATURES
from .curvatures import norm
from .estimators import Estimator
from .published import Law, PublishedThrottle
from .recipe import Recipe
from .schedules import Schedule, factor_at
from .state import TrainState, exact_twin
from .units import grids_of

Array = NDArray[Any]
Row = dict[str, float]


class Model(Protocol):
    """What a loop asks of a model: its layers, their weights as one vector, and the shapes of a sample."""

    layers: list[Layer]
    dtype: DTypeLike
    seed: int | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    @property
    def theta(self) -> Array: ...

    @theta.setter
    def theta(self, flat: Array) -> None: ...


class Step(NamedTuple):
    """One step as an observer sees it: vectors (P,) in the order of theta."""

    step: int
    theta: Array
    theta_after: Array
    gradient: Array  #: on its grid
    row: Mapping[str, float]  #: by the names of :data:`~kappa_rtl.golden.training.metrics.DEFINITIONS`
    record: StepRecord | None  #: None where the unit could not take the gradient
    outputs: Array  #: (rows, outputs) before the update
    handed: Array  #: what the unit was given as gradient: codes, where it takes codes
    tensors: Mapping[str, Mapping[str, float]] = {}  #: a row a tensor, where they have grids of their own


class Moved(NamedTuple):
    """What a loop measures of a step once it is made: vectors (P,), and the batch."""

    x: Array
    y: Array
    outputs: Array
    theta: Array
    theta_after: Array
    raw_gradient: Array  #: before its quantisation
    gradient: Array  #: on its grid
    direction: Array  #: along which the unit has stepped, as it saw it
    proposal: Array  #: what the optimiser proposes where no tensor between the gradient and the unit is on any grid
    record: StepRecord | None
    overflows: Overflows  #: what the grids did not hold


class Loop:
    """The unit, the model, and the steps they make together; a subclass measures.

    Args:
        model: takes the unit's weights when the loop begins, and after each step.
        throttle: the unit that makes the updates; None is the published one, under ``law`` and the formats of ``precision``.
        state: what a former run left; none begins anew.
        law: of the published unit; any other has a law of its own.
        recipe: what is done to a gradient before the unit makes a step of it.

    Raises:
        ValueError: a unit that is not this model's, or not the state's.
    """

    def __init__(
        self,
        model: Model,
        throttle: Datapath | None,
        *,
        law: Law,
        precision: PrecisionDict | None = None,
        state: TrainState | None = None,
        optimiser: str | Optimiser = "sgd",
        estimator: str | Estimator = "naive",
        loss_mode: str = "half_mse",
        recipe: Recipe | None = None,
    ) -> None:
        self.model, self.layers, self.law = model, model.layers, law
        self.dtype = np.dtype(model.dtype)
        self.loss = loss_of(loss_mode)
        self.precision = precision
        self.quantisers: Any = layer_quantisers(self.layers, precision) if precision else None
        self.loss_format = precision.dtype("loss", "value") if precision else None
        self.variables = chain.variables(self.layers)
        self.formats = gradient_formats(self.layers, precision)
        self.state = TrainState() if state is None else state
        if not isinstance(self.state, TrainState):
            raise ValueError(f"state must be a TrainState or None, not {state!r}")
        if throttle is not None and not (hasattr(throttle, "step") and hasattr(throttle, "config")):
            raise ValueError(f"throttle must be a unit such as Throttle(config, weights), not {throttle!r}")
        self.unit: Datapath | PublishedThrottle
        if self.state.unit is None:
            formats = segments(self.layers, precision)
            self.unit = PublishedThrottle(law, model.theta, formats) if throttle is None else throttle
            self.optimiser, self.estimator = optimisers.make(optimiser), estimators.make(estimator)
        else:
            if throttle is not None and throttle is not self.state.unit:
                raise ValueError("throttle must be the unit of the state, or not be given where a state with a unit is")
            assert self.state.optimiser is not None and self.state.estimator is not None
            self.unit, self.optimiser, self.estimator = self.state.unit, self.state.optimiser, self.state.estimator
        self.config = None if isinstance(self.unit, PublishedThrottle) else self.unit.config
        ruling = law if self.config is None else self.config
        self.enabled = ruling.enabled
        self.recipe = recipe or Recipe()
        self.schedule: Schedule | None = None
        self.overflows: Overflows | None = None
        self.decay = self.recipe.decays(self.variables, self.dtype)
        self.full_rate = ruling.eta
        # A unit of one's own may know no other rate than its configuration's.
        self.eta = float(ruling.eta if self.config is None else getattr(self.unit, "rate", ruling.eta))
        self.codes = self.config is not None and not isinstance(self.unit, FloatThrottle)
        self.grids: list[Grids | None] = [None] * len(self.variables)  # of the unit, variable by variable
        self._fit()
        self._along_the_gradient()
        self.steps = 0

    def _along_the_gradient(self) -> None:
        """Refuse what steps along another vector than the gradient, where the curvature is its projection onto the step."""
        if self.config is None or not Source(self.config.source).is_projection:
            return
        recipe = self.recipe
        for name, what, alone in (
            ("optimiser", type(self.optimiser).__name__, type(self.optimiser) is optimisers.SGD),
            ("estimator", type(self.estimator).__name__, type(self.estimator) is estimators.Naive),
            ("clip", recipe.clip, recipe.clip is None),
            ("weight_decay_mode", recipe.weight_decay_mode, not recipe.weight_decay or recipe.weight_decay_mode == "coupled"),
        ):
            if not alone:
                rule = {"optimiser": "sgd", "estimator": "naive", "clip": "None"}.get(name, "coupled")
                raise ValueError(f"{name} must be {rule} with the source {self.config.source}, which projects onto G, not {what}")

    def _fit(self) -> None:
        """Refuse a unit that is not this model's."""
        weights, size = self.unit.weights, self.model.theta.size
        if len(weights) != size:
            raise ValueError(f"throttle must have {size} elements, as the model has weights, not {len(weights)}")
        if self.config is not None and self.dtype == np.float32:
            if not self.codes:
                raise ValueError("dtype must be float64 for the float unit, not float32")
            if self.config.grids.weight.width > 24:
                raise ValueError(
                    f"dtype must be float64 for weights of more than 24 bits ({self.config.grids.weight}), not float32"
                )
        if self.config is None:
            if not np.array_equal(self.model.theta, weights, equal_nan=True):
                raise ValueError("the model's weights must be those that the state was left with")
            kept = segments(self.layers, self.precision)
        else:
            if self.codes:
                assert not isinstance(self.unit, PublishedThrottle)
                self.grids = [*grids_of(self.unit, self.variables)]
            kept = tuple(
                Segment(v.place.stop - v.place.start, *((own.update, own.weight) if own else (None, None)))
                for v, own in zip(self.variables, self.grids, strict=True)
            )
        self.segments = kept

    def set_schedule(self, schedule: Schedule | None) -> None:
        """The factor on the learning rate, by the step of this loop; None lets the unit's rate be."""
        if schedule is not None and not hasattr(self.unit, "set_rate"):
            raise ValueError(f"throttle must have set_rate for a schedule, not {self.unit!r}")
        self.schedule = schedule

    def begin(self) -> None:
        """All is well: the unit takes this run's law, the model the unit's weights, the state unit, optimiser and estimator."""
        state = self.state
        state.unit, state.optimiser, state.estimator = self.unit, self.optimiser, self.estimator
        if state.exact is None and (self.precision or self.codes):
            state.exact = exact_twin(self.optimiser)
        self.optimiser.quantise = self._state_on_grid if self.precision else None
        if isinstance(self.unit, PublishedThrottle):
            self.unit.adopt(self.law, self.segments)
        self.model.theta = self.unit.weights

    def _state_on_grid(self, name: str, vector: Array) -> Array:
        """An optimiser's state, each variable's part on its layer's grid."""
        assert self.precision is not None
        out = np.empty_like(vector)
        for v in self.variables:
            fmt = self.precision.dtype(v.layer, name)
            self._count(v, "state", vector, fmt)
            out[v.place] = quantize_tensor(vector[v.place], fmt)
        return out

    def _count(self, variable: Variable, kind: str, vector: Array, fmt: Fixed | None) -> None:
        """A variable's part of a vector before it enters a grid, while a step is made."""
        if self.overflows is not None:
            self.overflows.look(kind, variable.layer, vector[variable.place], fmt)

    def _watch(self, overflows: Overflows | None) -> None:
        """Count from here on, or no longer: what other passes meet is no part of the step."""
        self.overflows = overflows
        for quantiser in (self.quantisers or {}).values():
            quantiser.watch = overflows

    def _gradient(self, x: Array, y: Array, *, update_state: bool) -> tuple[Array, Array]:
        """``(outputs, gradient)`` at the weights that the layers hold, before the gradient's own quantisation."""
        outputs, caches = chain.forward(self.layers, x, training=True, quantisers=self.quantisers, update_state=update_state)
        parts = chain.backward(self.layers, caches, self.loss.gradient(outputs, y))
        return outputs, chain.flatten(self.layers, parts)

    def _on_grid(self, gradient: Array) -> Array:
        """A gradient as the loop uses it: by the layers' formats, and then by the unit's."""
        if not self.codes and not any(fmt is not None for fmt in self.formats):
            return gradient
        made = np.empty_like(gradient)
        for v, fmt, own in zip(self.variables, self.formats, self.grids, strict=True):
            grid = own.gradient if own else None
            part = quantize_tensor(gradient[v.place], fmt)
            made[v.place] = quantize_tensor(part, grid)
            if self.overflows is not None and (fmt or grid):
                self.overflows.add("gradient", v.layer, beyond(gradient[v.place], fmt) | beyond(part, grid))
        return made

    def _set_rate(self) -> None:
        """The rate of the step to come, by the schedule; a factor of 1 is the learning rate itself, to the last digit."""
        if self.schedule is None:
            return
        factor = factor_at(self.schedule, self.steps)
        rate = self.full_rate if factor == 1 else float(self.full_rate) * factor
        self.unit.set_rate(rate)
        if self.state.float_law is not None:
            self.state.float_law.set_rate(rate)
        self.eta = float(rate)

    def _refuse(self, gradient: Array) -> bool:
        """What the recipe does about a batch that is not finite in its gradient or statistics: whether the step is skipped."""
        if self.recipe.on_bad_gradient is None:
            return False
        found = {f"the gradient of {v.layer}/{v.name}": gradient[v.place] for v in self.variables}
        found |= {f"{layer.name}/{name}": value for layer in self.layers for name, value in layer.state.items()}
        for what, array in found.items():
            if not np.isfinite(array).all():
                if self.recipe.on_bad_gradient == "skip":
                    return True
                worst = float(array[~np.isfinite(array)][0])
                raise FloatingPointError(f"step {self.steps}: {what} must be finite, not {worst!r}")
        return False

    def _exact_proposal(self, batch_gradient: Array, theta: Array, factor: float, direction: Array) -> Array:
        """The proposal without any grid on the way; the direction itself where there is no grid, or nothing finite."""
        if self.state.exact is None or not np.isfinite(batch_gradient).all():
            return direction
        clipped = batch_gradient if factor == 1 else batch_gradient * np.asarray(factor, self.dtype)
        return self._decayed(self.state.exact.propose(self._decayed(clipped, theta, "coupled")), theta, "decoupled")

    def _proposed(self, raw_gradient: Array, gradient: Array, theta: Array, factor: float) -> Array:
        """What the optimiser proposes for a gradient that is clipped and decays as the recipe has it."""
        if factor < 1:
            gradient = self._on_grid(self._decayed(raw_gradient * np.asarray(factor, self.dtype), theta, "coupled"))
        return self._decayed(self.optimiser.propose(gradient), theta, "decoupled")

    def _decayed(self, vector: Array, theta: Array, mode: str) -> Array:
        """With the decay that is due in this place; the very vector where none is."""
        return vector if self.decay is None or self.recipe.weight_decay_mode != mode else vector + self.decay * theta

    def step(self, x: Array, y: Array, divergence_loss: float = math.inf) -> Step:
        """Make one step on a batch (rows, inputs) and (rows, outputs).

        Raises:
            FloatingPointError: the gradient is not finite, and the recipe says so; all is as it was before the step.
        """
        state = self.state
        theta = np.asarray(self.unit.weights, self.dtype)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self._set_rate()
            self.model.theta = theta
            statistics = [dict(layer.state) for layer in self.layers]
            overflows = Overflows()
            self._watch(overflows)
            outputs, batch_gradient = self._gradient(x, y, update_state=True)
            try:
                skipped = self._refuse(batch_gradient)
            except FloatingPointError:
                self._put_back(statistics)
                raise
            whole_loss = np.array(self.loss.value(outputs, y))
            overflows.look("loss", "loss", whole_loss, self.loss_format)
            loss = float(quantize_tensor(whole_loss, self.loss_format))
            raw_gradient = self._decayed(batch_gradient, theta, "coupled")
            gradient = self._on_grid(raw_gradient)
            self._watch(None)
            factor = self.recipe.factor(batch_gradient)
            row: Row = {"loss": loss, "learning_rate": self.eta, "clip_factor": factor, "skipped": skipped}
            row |= self._before(x, y, outputs)
            fine = {
                "loss": math.isfinite(loss),
                "grad": not skipped and bool(np.isfinite(gradient).all()),
                "theta": bool(np.isfinite(theta).all()),
            }
            record = None
            handed = direction = gradient
            proposal = raw_gradient
            if skipped:
                self._put_back(statistics)
            elif fine["grad"] or not self.codes:
                sensed = self._sense(gradient, theta, x, y)
                self.overflows = overflows
                direction = self._proposed(batch_gradient, gradient, theta, factor)
                proposal = self._exact_proposal(batch_gradient, theta, factor, direction)
                record, handed, direction = self._hand_over(gradient, sensed, direction)
            after = theta if record is None else np.asarray(record.weights, self.dtype)
            self.model.theta = after
            row |= self._scalars(record)
            row |= state.curvatures.look(self._seen(handed)) if record is not None else dict.fromkeys(CURVATURES, math.nan)
            if record is not None:
                self._count_update(theta, direction, record)
            self.overflows = None
            row |= overflows.whole()
            moved = Moved(x, y, outputs, theta, after, raw_gradient, gradient, direction, proposal, record, overflows)
            row |= self._after(row, moved)
            if record is not None:
                state.curvatures.note(self._seen(handed), direction, norm(after - theta), self._made_with(row))
            finite_after = bool(np.isfinite(after).all())
            finite = all(fine.values()) and finite_after
            row |= {
                "loss_is_finite": fine["loss"],
                "grad_is_finite": fine["grad"],
                "theta_is_finite_before": fine["theta"],
                "theta_is_finite_after": finite_after,
                "finite": finite,
                "diverged": not finite_after if skipped else not finite or loss > divergence_loss,
            }
        row = {name: float(value) for name, value in row.items()}
        if not skipped:
            state.previous_theta = theta
            state.steps += 1
        self.steps += 1
        return Step(self.steps - 1, theta, after, gradient, row, record, outputs, handed)

    def _made_with(self, row: Row) -> float:
        """The step size of this step: with ``delay`` what was decided a step ago, at the rate of that time."""
        decided = (row["alpha"] if self.enabled else 1.0) * self.eta
        if self.config is None or not self.config.delay:
            return decided
        before, self.state.curvatures.decided = self.state.curvatures.decided, decided
        return float(self.config.eta) if math.isnan(before) else before

    def _seen(self, handed: Array) -> Array:
        """The gradient that the unit was given, as real values."""
        return real_of(handed, self.config, "gradient") if self.codes and self.config is not None else handed

    def _count_update(self, theta: Array, direction: Array, record: StepRecord) -> None:
        """What of the update, and of its sum with theta, lies beyond their grids."""
        if not any(segment.update or segment.weight for segment in self.segments):
            return
        step = record.registers.step_size
        if self.codes and self.config is not None:
            step = math.ldexp(self._applied_code(record), -self.config.step.fraction_bits)
        scaled, total = direction * -np.asarray(step, direction.dtype), theta + record.update_values
        for v, segment in zip(self.variables, self.segments, strict=True):
            self._count(v, "update", scaled, segment.update)
            self._count(v, "weight", total, segment.weight)

    def _applied_code(self, record: StepRecord) -> int:
        """The step size that an exact unit multiplied by, on its grid: with ``delay`` what was decided a step ago."""
        assert self.config is not None
        decided = int(record.registers.step_size)
        if not self.config.delay:
            return decided
        before = self.config.initial_step if self.state.decided_step < 0 else self.state.decided_step
        self.state.decided_step = decided
        return before

    def _put_back(self, statistics: list[dict[str, Array]]) -> None:
        """The moving statistics as they were; variables are replaced, never written in place."""
        for layer, held in zip(self.layers, statistics, strict=True):
            layer.state = held

    def _before(self, x: Array, y: Array, outputs: Array) -> Row:
        """What is measured while the layers still hold the weights before the step."""
        return {}

    def _after(self, row: Row, moved: Moved) -> Row:
        """What is measured of the step; ``row`` is what is known of it so far."""
        return {}

    def _scalars(self, record: StepRecord | None) -> Row:
        """C, S and alpha, as decided and as applied; NaN where there was no step."""
        if record is None:
            return dict.fromkeys(("curvature", "ema", "alpha", "alpha_applied"), math.nan)
        registers, state = record.registers, self.state
        alpha = float(registers.alpha)
        applied = alpha if self.enabled else 1.0
        if self.config is not None and self.config.delay:  # what was decided a step ago
            state.decided_alpha, applied = applied, state.decided_alpha
        return {"curvature": float(registers.curvature), "ema": float(registers.ema), "alpha": alpha, "alpha_applied": applied}

    def _sense(self, gradient: Array, theta: Array, x: Array, y: Array) -> Array:
        """What the unit measures curvature on."""

        here = theta

        def gradient_at(theta: Array, rows: NDArray[np.intp] | None) -> Array:
            part = slice(None) if rows is None else rows
            self.model.theta = theta
            found = self._on_grid(self._decayed(self._gradient(x[part], y[part], update_state=False)[1], theta, "coupled"))
            self.model.theta = here
            return found

        return self.estimator.sense(
            gradient, gradient_at=gradient_at, theta=theta, previous_theta=self.state.previous_theta, rows=len(x)
        )

    def _hand_over(self, gradient: Array, sensed: Array, direction: Array) -> tuple[StepRecord, Array, Array]:
        """The unit's step, the gradient that it was given (codes, where it takes codes), and the direction as it saw it."""
        if not self.codes or self.config is None or isinstance(self.unit, PublishedThrottle):
            alone = sensed is direction and self.config is not None and self.config.direction is None
            return self.unit.step(sensed) if alone else self.unit.step(sensed, direction), sensed, direction
        grid, other = self.config.grids.gradient, self.config.grids.direction
        bits = grid.fraction_bits + (scales(self.config.segments) if self.config.segments else 0)
        codes = np.ldexp(gradient.astype(np.float64), bits).astype(np.int64)  # the gradient lies on the grid
        shown = codes
        if sensed is not gradient:
            shown = self._codes("sensed", "gradient", sensed, grid)
        if sensed is direction and self.config.direction is None:  # one vector, whose overflow was counted as the gradient's
            return self.unit.step(shown, codes=True), shown, real_of(shown, self.config, "gradient")
        found = self._codes("direction", "direction", direction, other)
        along = codes if direction is gradient and other is grid else found
        return self.unit.step(shown, along, codes=True), shown, real_of(along, self.config, "direction")

    def _codes(self, kind: str, name: str, vector: Array, whole: Fixed) -> Array:
        """A vector on the grids of that name of each variable, as codes of the unit's; what lies beyond is counted.

        A unit of several shards has codes of the grid that holds all of theirs; one with segments has each segment's own.
        """
        made = np.empty(vector.shape, np.int64)
        assert self.config is not None
        for v, own in zip(self.variables, self.grids, strict=True):
            fmt = getattr(own, name)
            self._count(v, kind, vector, fmt)
            lift = 0 if self.config.segments else whole.fraction_bits - fmt.fraction_bits
            made[v.place] = quantise(vector[v.place], fmt, name) << lift
        return made
