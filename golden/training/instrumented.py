"""The instrumented training loop: every step is measured before and after a throttle unit makes it.

Which unit it is decides what the run shows: the published one (float tensors or rounded ones, float64 scalars), the float one,
the golden one, the RTL.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from numpy.typing import ArrayLike, NDArray

from ..network.checks import switches
from ..network.optimisers import Optimiser
from ..network.precision import PrecisionDict, ensure_precision_dict
from ..numbers import is_number, item
from ..throttle import Datapath
from .batching import Batches
from .estimators import Estimator
from .history import FitHistory
from .lint import TrainingWarning
from .loop import Model, Step
from .measured import HESSIANS, MeasuredLoop
from .published import Law
from .recipe import Recipe
from .resume import Checkpoint, Keeper, digest
from .schedules import Schedule
from .state import TrainState

__all__ = ["HESSIANS", "Step", "TrainState", "TrainingWarning", "train_instrumented"]

Array = NDArray[Any]


def train_instrumented(
    model: Model,
    X: ArrayLike,
    Y: ArrayLike,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 0.05,
    shuffle: bool = True,
    loss_mode: str = "half_mse",
    curvature_ema_rho: float = 0.05,
    chi: float = 1.5,
    eps: float = 1e-12,
    use_controller: bool = False,
    compute_analytic_hessian: bool = True,
    reference_A: ArrayLike | None = None,
    precision_dict: PrecisionDict | Mapping[str, Any] | None = None,
    *,
    controller: str = "stability_margin",
    beta: float = 1.0,
    alpha_min: float = 0.01,
    on_still: str = "divide",
    ema_start: str = "zero",
    throttle: Datapath | None = None,
    state: TrainState | None = None,
    optimiser: str | Optimiser = "sgd",
    estimator: str | Estimator = "naive",
    hessian: str | None = None,
    distortion: bool = False,
    stream: Iterable[tuple[ArrayLike, ArrayLike]] | None = None,
    batch_seed: int = 0,
    divergence_loss: float = math.inf,
    stop_when_diverged: bool = True,
    observe: Callable[[Step], bool | None] | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    drop_last: bool = False,
    weight_decay: float = 0.0,
    weight_decay_mode: str = "decoupled",
    decay_exclude: Sequence[str] | None = None,
    clip: str | None = None,
    max_gradient_norm: float | None = None,
    on_bad_gradient: str | None = None,
    schedule: str | Schedule | None = None,
) -> FitHistory:
    """Train a model and log every step.

    Args:
        X, Y: (n, inputs) and (n, outputs), finite; taken in the model's dtype.
        epochs, batch_size, shuffle, batch_seed: each row once an epoch; the last batch may be short.
        learning_rate, chi, eps, curvature_ema_rho, use_controller, controller, beta, alpha_min, on_still, ema_start: the law, see
            :class:`~kappa_rtl.golden.training.published.Law`. With the controller off, alpha is computed and not applied.
        loss_mode: ``half_mse``, ``keras_mse`` or ``softmax_cross_entropy``.
        compute_analytic_hessian: for one bias-free Dense layer, and NaN for any other model.
        reference_A: (outputs, inputs), what the kernel of a one-layer model should become.
        precision_dict: number formats by layer and field; None is float throughout.
        throttle: the unit that makes the updates, of as many elements as the model has weights, which start from the unit's; its
            configuration is then the law, and the arguments above that name one are not used. None is the published unit.
        state: see :class:`TrainState`; none begins anew, unthrottled. Law and formats of the published unit are this run's.
        optimiser, estimator: by name or ready made; see those modules.
        hessian: ``none``, ``analytic``, ``exact`` or ``lanczos``; None leaves it to ``compute_analytic_hessian``.
        distortion: also log the distortion budget of every step, as ``angle_<cause>`` and ``radius_<cause>``.
        stream: batches (x, y) that take the place of X and Y's; these then give the shapes, and whether ``batch_size`` rows are a
            minibatch of them.
        divergence_loss: a loss beyond it counts as divergence too.
        stop_when_diverged: end after the diverged row.
        observe: called with every :class:`Step`; the run ends after one to which it answers True. One that is
            :class:`~kappa_rtl.golden.checkpoint.Stateful` is saved and loaded with the run.
        checkpoint: a file, or more about it: where the run is saved every half a minute, and from where the same call goes on
            after an interruption, bit for bit; removed when the run is done. A ``stream`` must then give the same batches again:
            those of the steps that were made are drawn and let go.
        drop_last: leave out the last batch of an epoch where it is short.
        weight_decay, weight_decay_mode, decay_exclude, clip, max_gradient_norm, on_bad_gradient: see
            :class:`~kappa_rtl.golden.training.recipe.Recipe`.
        schedule: of the learning rate: a name of :data:`~kappa_rtl.golden.training.schedules.NAMES`, or a callable from a step of
            this run to the factor on the rate.

    Returns:
        The history; a diverged run has its rows up to and including the diverged one. An exception that ends the run carries the
        rows so far as ``history``.

    Raises:
        ValueError: with the field, the value and the rule, before the first step and with model and state as they were;
            a batch of the stream that does not fit.
        FloatingPointError: a gradient that is not finite, with ``on_bad_gradient = "raise"``.
    """
    law = Law(
        eta=learning_rate,
        controller=controller,
        chi=chi,
        beta=beta,
        alpha_min=alpha_min,
        rho=curvature_ema_rho,
        eps=eps,
        enabled=use_controller,
        on_still=on_still,
        ema_start=ema_start,
    )
    precision = ensure_precision_dict(precision_dict)
    recipe = Recipe(
        weight_decay=weight_decay,
        weight_decay_mode=weight_decay_mode,
        decay_exclude=decay_exclude,
        clip=clip,
        max_gradient_norm=max_gradient_norm,
        on_bad_gradient=on_bad_gradient,
    )
    run = MeasuredLoop(
        model,
        throttle,
        law=law,
        precision=precision,
        state=state,
        optimiser=optimiser,
        estimator=estimator,
        loss_mode=loss_mode,
        recipe=recipe,
    )
    run.set_distortion(distortion)
    run.set_hessian(hessian if hessian is not None else "analytic" if compute_analytic_hessian else "none")
    run.set_reference(reference_A)
    switches(distortion=distortion, stop_when_diverged=stop_when_diverged, compute_analytic_hessian=compute_analytic_hessian)
    batches = Batches(
        X,
        Y,
        widths=(math.prod(model.input_shape), model.output_shape[0]),
        shape=model.input_shape,
        dtype=run.dtype,
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=batch_seed,
        drop_last=drop_last,
        stream=stream,
    )
    run.set_batches(batches, schedule)
    if observe is not None and not callable(observe):
        raise ValueError(f"observe must be callable, not {observe!r}")
    run.observe = observe
    if not (is_number(divergence_loss) and item(divergence_loss) > 0):
        raise ValueError(f"divergence_loss must be greater than 0, not {divergence_loss!r}")
    keeper = Keeper(
        Checkpoint(checkpoint) if isinstance(checkpoint, (str, os.PathLike)) else checkpoint,
        run,
        batches.settings()
        | dict(vars(recipe))
        | {
            "data": digest(batches.inputs, batches.targets),
            "layers": {f"{layer.name}.{name}": value for layer in run.layers for name, value in layer.settings().items()},
            "schedule": None if schedule is None else getattr(schedule, "__qualname__", repr(schedule)),
            "loss_mode": loss_mode,
            "precision": precision.to_table() if precision else None,
            "hessian": run.hessian,
            "distortion": distortion,
            "reference": digest(run.reference),
            "divergence_loss": float(divergence_loss),
            "stop_when_diverged": stop_when_diverged,
        },
    )
    run.begin()
    if checkpoint is not None:
        run.state.state_dict()  # a unit that has none is refused now
    run.lint(batches)
    if keeper.resume():
        return run.history()
    try:
        for x, y in islice(batches, run.steps, None):
            step = run.step(x, y, divergence_loss)
            ended = observe is not None and bool(observe(step))
            if ended or (step.row["diverged"] and stop_when_diverged):
                break
            keeper.step()
        keeper.end()
    except BaseException as error:
        error.history = run.history()  # type: ignore[attr-defined]
        raise
    return run.history()
