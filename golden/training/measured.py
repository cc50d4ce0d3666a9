"""A loop whose every step is measured before and after its unit makes it: rows of metrics, by step and by layer, and warnings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checkpoint import State, Stateful, agree
from ..config import OnStill, Source
from ..network import optimisers
from ..network.checks import numbers
from ..network.layers import Dense
from ..network.norms import BatchNorm
from ..reference import FloatLaw
from ..throttle import Datapath, StepRecord
from . import estimators, hessian, measures, tensors
from .batching import Batches
from .distortion import CAUSES, budget
from .estimators import NoiseWatch
from .history import FitHistory
from .lint import TrainingWarning, idle_biases, lints
from .loop import Loop, Model, Moved, Row, Step
from .published import PublishedThrottle, norm
from .schedules import Schedule
from .schedules import make as make_schedule

Array = NDArray[Any]

HESSIANS = ("none", "analytic", "exact", "lanczos")


class MeasuredLoop(Loop, Stateful):
    """A loop that measures every step, and keeps the rows."""

    def __init__(self, model: Model, throttle: Datapath | None, **settings: Any) -> None:
        super().__init__(model, throttle, **settings)
        law = self.law if self.config is None else self.config
        self.watch = NoiseWatch(float(law.alpha_min) if getattr(law, "controller", "") != "stability_margin" else 0.0)
        self.observe: Any = None
        self.warnings: list[str] = []
        self.rows: list[Row] = []
        self.layer_rows: dict[str, list[Row]] = {layer.name: [] for layer in self.layers if layer.params or self.quantisers}
        many = bool(self.config and self.config.segments) or len(getattr(self.unit, "parts", ())) > 1
        self.tensor_rows: dict[str, list[Row]] = {}
        if self.codes and many:
            self.tensor_rows = {name: [] for name in tensors.names(self.variables)}
        self.minibatch = False
        self.distortion = False
        self.hessian = "none"
        self.reference: Array | None = None

    def begin(self) -> None:
        if self.codes and self.config is not None and self.state.float_law is None:
            self.state.float_law = FloatLaw(self.config)
        super().begin()

    def state_dict(self) -> State:
        """The run between two steps, as copies."""
        return {
            "train": self.state.state_dict(),
            "variables": {name: value.copy() for name, value in self._held().items()},
            "steps": self.steps,
            "watch": self.watch.state_dict(),
            "warnings": list(self.warnings),
            "rows": _columns(self.rows),
            "layer_rows": {layer: _columns(rows) for layer, rows in self.layer_rows.items()},
            "tensor_rows": {name: _columns(rows) for name, rows in self.tensor_rows.items()},
            "observer": self.observe.state_dict() if isinstance(self.observe, Stateful) else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a run of the same model, unit, optimiser and estimator."""
        agree(state, self.state_dict(), free=("train", "watch", "rows", "layer_rows", "tensor_rows", "observer"))
        self.state.load_state_dict(state["train"])
        if isinstance(self.observe, Stateful):
            self.observe.load_state_dict(state["observer"])
        for layer in self.layers:
            for held in (layer.params, layer.state):
                held.update({name: state["variables"][f"{layer.name}/{name}"].copy() for name in held})
        self.steps = state["steps"]
        self.watch.load_state_dict(state["watch"])
        self.warnings = list(state["warnings"])
        self.rows = _rows(state["rows"])
        self.layer_rows = {layer: _rows(columns) for layer, columns in state["layer_rows"].items()}
        self.tensor_rows = {name: _rows(columns) for name, columns in state["tensor_rows"].items()}

    def _held(self) -> dict[str, Array]:
        """The model's variables, moving statistics among them."""
        return {f"{layer.name}/{name}": value for layer in self.layers for name, value in (layer.params | layer.state).items()}

    def set_distortion(self, wanted: bool) -> None:
        if wanted and self.config is not None and (self.config.stochastic or self.config.residual_bits):
            raise ValueError("distortion must be False for a unit that rounds with random numbers or keeps residuals, not True")
        self.distortion = wanted

    def set_hessian(self, kind: str) -> None:
        if kind not in HESSIANS:
            raise ValueError(f"hessian must be one of {', '.join(HESSIANS)}, not {kind!r}")
        if kind == "exact" and self.model.theta.size > hessian.LARGEST:
            raise ValueError(f"hessian must not be 'exact' for more than {hessian.LARGEST} weights, not {self.model.theta.size}")
        self.hessian = kind

    def set_reference(self, reference: ArrayLike | None) -> None:
        """Keep the teacher; for a model of more than one Dense there is no error to log."""
        if reference is None:
            return
        teacher = numbers("reference_A", reference).astype(np.float64)
        shape = (self.model.output_shape[0], math.prod(self.model.input_shape))
        if teacher.shape != shape:
            raise ValueError(f"reference_A must have shape (outputs, inputs) = {shape}, not {teacher.shape}")
        if not np.isfinite(teacher).all():
            raise ValueError(f"reference_A must be finite, not {teacher[~np.isfinite(teacher)][0]}")
        if [layer.units for layer in self.layers if isinstance(layer, Dense)] == [shape[0]]:
            self.reference = teacher

    def set_batches(self, batches: Batches, schedule: str | Schedule | None) -> None:
        """What is drawn: some things need more than a row of it, and a schedule by name is over its length."""
        if isinstance(self.estimator, estimators.HalfBatch):
            batches.refuse_single("half_batch")
        if any(isinstance(layer, BatchNorm) for layer in self.layers):
            batches.refuse_single("batch normalisation")
        self.minibatch = batches.minibatch
        self.set_schedule(make_schedule(schedule, batches.steps))

    def lint(self, batches: Batches) -> None:
        """Say what the settings will do to the run."""
        naive = isinstance(self.estimator, estimators.Naive)
        units = getattr(self.unit, "parts", [self.law if self.config is None else self.config])
        found = [
            lints(
                unit,
                minibatch=batches.minibatch,
                batch_size=batches.batch_size,
                rest=batches.rest,
                estimator="naive" if naive else "",
                precision=self.precision,
                schedule=self.schedule,
            )
            for unit in units
        ]
        if self.codes:
            found.append(idle_biases(self.layers))
        for message in dict.fromkeys(message for of_unit in found for message in of_unit):
            self.warn(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        warnings.warn(message, TrainingWarning, stacklevel=4)

    # ---------------------------------------------------------------- one step

    def step(self, x: Array, y: Array, divergence_loss: float = math.inf) -> Step:
        made = super().step(x, y, divergence_loss)
        self.rows.append(dict(made.row))
        return made._replace(tensors={name: rows[-1] for name, rows in self.tensor_rows.items()})

    def _before(self, x: Array, y: Array, outputs: Array) -> Row:
        row: Row = {"rmse": norm(outputs - y) / math.sqrt(outputs.size)}
        row |= measures.sharpness(self.layers, x, y, self.loss, self.hessian, self.quantisers)
        along = None if self.hessian == "none" else self.state.curvatures.direction
        row["curvature_true"] = measures.curvature_along(self.layers, x, y, self.loss, along, self.quantisers)
        row["forward_gain_spectral"] = measures.forward_gain(self.layers)
        return row

    def _after(self, row: Row, moved: Moved) -> Row:
        row = row | self._of_scalars(row, moved)
        row |= self._geometry(row, moved)
        row |= self._rails(row, moved)
        for layer, rows in self.layer_rows.items():
            if len(rows) == len(self.rows):  # a layer without variables has no geometry
                rows.append({})
            rows[-1] |= moved.overflows.of_layer(layer)
        rates = None if moved.record is None else self._rates(moved.record)
        row["step_bits_left"] = math.nan
        if self.codes and self.config is not None and rates is not None:
            row["step_bits_left"] = int(math.ldexp(rates[1], self.config.step.fraction_bits)).bit_length()
        if self.distortion:
            row |= self._budget(moved, rates)
        if self.tensor_rows:
            self._of_tensors(row, moved, rates)
        return row

    def _of_tensors(self, row: Row, moved: Moved, rates: tuple[float, float] | None) -> None:
        """A row for each tensor, where they have grids of their own."""
        assert self.config is not None
        found = tensors.tensors(
            self.variables,
            [own for own in self.grids if own],
            theta=moved.theta,
            after=moved.theta_after,
            intended=moved.proposal * -self._rate(row),
            gradient=moved.gradient,
            raw_gradient=moved.raw_gradient,
            update=moved.direction * -self._rate(row),
            eps=float(self.config.eps),
        )
        if self.distortion:
            causes = tensors.budgets(
                self.variables, self.segments, theta=moved.theta, exact=moved.proposal, seen=moved.direction, rates=rates
            )
            found = {name: own | causes[name] for name, own in found.items()}
        for name, own in found.items():
            self.tensor_rows[name].append(own)

    def _of_scalars(self, row: Row, moved: Moved) -> Row:
        """What follows from C, S and alpha."""
        if moved.record is None:
            names = ("curvature_for_control", "eta_eff", "noise_index", "dG_norm", "dtheta_norm", "held")
            return dict.fromkeys(names, math.nan)
        state, registers = self.state, moved.record.registers
        first = state.steps == 0
        index = row["curvature"] * state.previous_alpha * self.eta / math.sqrt(2)
        state.previous_alpha = row["alpha_applied"]
        noisy = self.minibatch and not first and self.estimator.passes == 0 and type(self.optimiser) is optimisers.SGD
        noisy = (
            noisy and self.enabled and not registers.still and (self.config is None or Source(self.config.source).is_curvature)
        )
        if noisy and (message := self.watch.feed(index, norm(moved.gradient), row["alpha"])):
            self.warn(message)
        if self.config is None:
            held = self.unit.controller.held if isinstance(self.unit, PublishedThrottle) else False
            rate = float(registers.step_size)
        else:
            stands = float(registers.norm_motion) == 0 if self.config.intended else bool(registers.still)
            held = stands and not first and self.config.on_still is OnStill.HOLD
            rate = row["alpha_applied"] * self.eta
        return {
            "curvature_for_control": max(row["curvature"], row["ema"]),
            "eta_eff": rate,
            "noise_index": 0.0 if first else index,
            "dG_norm": 0.0 if first else float(registers.norm_gradient),
            "dtheta_norm": 0.0 if first else float(registers.norm_motion),
            "held": held,
        }

    def _geometry(self, row: Row, moved: Moved) -> Row:
        """Norms, and the applied change against the intended one, as a whole and by layer."""
        eps = self.law.eps if self.config is None else float(self.config.eps)
        made: Row = {
            "theta_norm": norm(moved.theta),
            "theta_norm_after": norm(moved.theta_after),
            "grad_norm": norm(moved.gradient),
            "unthrottled_update_norm": self.eta * norm(moved.direction),
        }
        whole, by_layer = measures.geometry(
            self.variables, moved.theta, moved.theta_after, moved.proposal * -self._rate(row), eps
        )
        made |= whole
        for layer, found in by_layer.items():
            self.layer_rows[layer].append(found)
        largest, norms = row["hessian_lambda_max"], row["hessian_spectral_norm"]
        ends = np.array([largest, row["hessian_lambda_min"]])
        made |= {"eta_lambda_max": self.eta * largest, "alpha_eta_lambda_max": row["eta_eff"] * largest}
        for suffix, step in (("raw", self.eta), ("ctrl", row["eta_eff"])):
            made[f"stability_margin_norm_{suffix}"] = step * norms
            made[f"spectral_radius_{suffix}"] = float(np.max(np.abs(1 - step * ends)))
        for suffix, weights in (("", moved.theta), ("_after", moved.theta_after)):
            made[f"weight_error_fro{suffix}"] = math.nan
            if self.reference is not None:
                kernel = weights[self.variables[0].place].reshape(self.variables[0].shape)
                made[f"weight_error_fro{suffix}"] = norm(kernel.T.astype(np.float64) - self.reference)
        return made

    def _rate(self, row: Row) -> Array | float:
        """The step size as the unit multiplies by it: the published one in the tensors' dtype."""
        return np.array(row["eta_eff"], self.dtype) if self.config is None else row["eta_eff"]

    def _rails(self, row: Row, moved: Moved) -> Row:
        """How the tensors stand to their rails and grids, as a whole and by layer."""
        grids = [own.gradient if own else fmt for own, fmt in zip(self.grids, self.formats, strict=True)]
        rounded = any(segment.update for segment in self.segments)
        update = moved.direction * -self._rate(row) if rounded else moved.direction
        whole, by_layer = measures.rails(
            self.variables, self.segments, grids, moved.theta_after, moved.gradient, moved.raw_gradient, update
        )
        for layer, found in by_layer.items():
            self.layer_rows[layer][-1] |= found
        return whole

    def _rates(self, record: StepRecord) -> tuple[float, float]:
        """alpha * eta as the law has it in float64, and as the unit multiplied by it; each step once, as the law has a memory."""
        registers = record.registers
        meant = (float(registers.alpha) if self.enabled else 1.0) * self.eta
        applied = float(registers.step_size)
        law = self.state.float_law
        if law is not None and self.config is not None:
            fractions = self.config.energy_fractions
            change = math.ldexp(math.sqrt(registers.A), -fractions["A"])
            motion = math.ldexp(math.sqrt(self.state.motion_energy), -fractions["B"])
            self.state.motion_energy = registers.B
            if self.config.intended:
                size = self.state.motion_size
                alpha = law.step(change, motion * size, scale=size if Source(self.config.source).is_projection else None)
            else:
                alpha = law.step(change, motion)
            meant = (alpha if self.enabled else 1.0) * self.eta
            applied = math.ldexp(registers.step_size, -self.config.step.fraction_bits)
        if self.config is not None and self.config.delay:
            begun = (self.eta, float(self.config.initial_step * self.config.step.ulp))
            decided, (meant, applied) = (meant, applied), self.state.decided_rates or begun
            self.state.decided_rates = decided
        self.state.motion_size = applied
        return meant, applied

    def _budget(self, moved: Moved, rates: tuple[float, float] | None) -> Row:
        """The distortion of this step by its causes."""
        if rates is None:
            return {f"{kind}_{cause}": math.nan for kind in ("angle", "radius") for cause in (*CAUSES, "whole", "residual")}
        found = budget(moved.theta, moved.proposal, moved.direction, *rates, self.segments)
        return {f"{kind}_{cause}": part for kind, parts in found.items() for cause, part in parts.items()}

    # ---------------------------------------------------------------- the end

    def history(self) -> FitHistory:
        """The rows so far."""
        meta = {
            "unit": type(self.unit).__name__,
            "eta": self.eta,
            "enabled": self.enabled,
            "law": self.law.__dict__ if self.config is None else self.config.to_table(),
            "optimiser": type(self.optimiser).__name__,
            "estimator": type(self.estimator).__name__,
            "loss_mode": self.loss.name,
            "precision": self.precision.to_table() if self.precision else None,
            "dtype": str(self.dtype),
            "seed": self.model.seed,
            "warnings": self.warnings,
        }
        count = len(self.rows)
        return FitHistory.of_rows(
            self.rows,
            layers={
                layer: {name: [row[name] for row in rows[:count]] for name in rows[0]}
                for layer, rows in (self.layer_rows | self.tensor_rows).items()
                if rows
            },
            meta=meta,
        )


def _columns(rows: Sequence[Row]) -> dict[str, NDArray[np.float64]]:
    """Rows of the same names, by name."""
    return {name: np.array([row[name] for row in rows], np.float64) for name in (rows[0] if rows else ())}


def _rows(columns: Mapping[str, NDArray[np.float64]]) -> list[Row]:
    """The inverse of :func:`_columns`."""
    lists = {name: column.tolist() for name, column in columns.items()}
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
